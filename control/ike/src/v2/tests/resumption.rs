use super::{
    eap::{ASKED, NAMES, paper, secrets},
    events, rekey_only_child,
    world::{LEFT, RIGHT, World, address, config, connection},
};
use crate::{
    connection::{Connection, RemoteAuth, Round},
    crypto::key_log::KeyLog,
    eap::Method,
    identity::IdPattern,
    message::{ExchangeType, Header},
    pool::Pool,
    v2::{
        output::{Datagram, Event},
        refused::Refused,
    },
};
use std::sync::Arc;

/// A world in which an IKE SA with a ticket was up, and the left end has given it up since.
fn gone(seed: u64, change: impl Fn(&mut Connection)) -> World {
    gone_of(seed, |world| [LEFT, RIGHT].into_iter().for_each(|end| world.configure(end, &change)))
}

/// The same, of ends that are otherwise.
fn gone_of(seed: u64, change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    for end in [LEFT, RIGHT] {
        world.configure(end, |connection| {
            connection.resumes = true;
            if end == LEFT {
                connection.dpd_ms = 20_000;
            }
        });
    }
    change(&mut world);
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    world.check_children(1);
    give_up(&mut world);
    world
}

/// The left end does not hear of the other.
fn give_up(world: &mut World) {
    world.loss = 100;
    world.run_for(250_000);
    assert_eq!(events(world, LEFT).last(), Some(&Event::Closed("the peer does not answer".into())));
    world.loss = 0;
    world.requests.clear();
}

/// There is nothing but the IKE SA that the right end does not know to be gone.
fn check_only_old(world: &World) {
    assert_eq!(world.ends[LEFT].engine.sas().count(), 0);
    assert!(!world.only_sa(RIGHT).is_resumed());
    assert!(world.only_sa(RIGHT).established_ms().is_some_and(|ms| ms < 10_000));
}

fn exchanges(world: &World) -> Vec<ExchangeType> {
    let headers = world.requests.iter().map(|octets| Header::parse(octets).unwrap().0);
    headers.filter(|header| header.message_id < 2).map(|header| header.exchange).collect()
}

const RESUME: ExchangeType = ExchangeType::IKE_SESSION_RESUME;
const INIT: ExchangeType = ExchangeType::IKE_SA_INIT;
const AUTH: ExchangeType = ExchangeType::IKE_AUTH;

// RFC 5723 §4.3
#[test]
fn who_comes_back_with_a_ticket_exchanges_no_keys() {
    for of_ike in ["aes128gcm16-sha256-x25519", "aes256-sha384-ecp384-ke1_mlkem512"] {
        let mut world = gone(1, |connection| connection.proposals = super::world::ike(of_ike));
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        assert_eq!(exchanges(&world), [RESUME, AUTH]);
        // That before is gone at both ends.
        world.check_children(1);
        assert!([LEFT, RIGHT].iter().all(|end| world.only_sa(*end).is_resumed()));
        assert_eq!(world.only_sa(LEFT).ids().unwrap().0, world.only_sa(RIGHT).ids().unwrap().1);
        // It goes on as any other, and comes back again.
        rekey_only_child(&mut world, RIGHT);
        let id = world.only_sa(RIGHT).id();
        world.with(RIGHT, |engine, cx| engine.rekey(id, cx));
        world.run_for(10_000);
        world.check_children(1);
        world.loss = 100;
        world.run_for(250_000);
        world.loss = 0;
        world.requests.clear();
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        assert_eq!(exchanges(&world), [RESUME, AUTH]);
        world.check_children(1);
        // What is deleted does not come back.
        let id = world.only_sa(LEFT).id();
        world.with(LEFT, |engine, cx| engine.terminate(id, cx));
        world.run_for(10_000);
        world.requests.clear();
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        assert_eq!(exchanges(&world)[0], INIT);
        world.check_children(1);
    }
}

/// They are others than those before.
#[test]
fn keys_of_who_comes_back_are_told() {
    let mut world = gone_of(1, |world| {
        world.ends.iter_mut().for_each(|end| end.config.tells_keys = true);
    });
    let before = world.only_keys(LEFT).0.clone();
    world.ends.iter_mut().for_each(|end| end.keys.clear());
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    assert_eq!(exchanges(&world), [RESUME, AUTH]);
    let (KeyLog::V2(keys), is_of_both) = world.only_keys(LEFT) else { panic!("{:?}", world.only_keys(LEFT)) };
    assert!(is_of_both && KeyLog::V2(keys.clone()) != before);
    assert_eq!(keys.spis, world.only_sa(LEFT).spis());
}

// RFC 5723 §4.3.2
#[test]
fn what_the_gateway_does_not_take_is_begun_anew() {
    type Change = fn(&mut World);
    let cases: [Change; 4] = [
        |world| world.restart(RIGHT),
        |world| world.configure(RIGHT, |connection| connection.resumes = false),
        |world| world.configure(RIGHT, |c| c.proposals = super::world::ike("aes256gcm16-sha256-x25519")),
        // Longer than it is good at the gateway, whatever it has said.
        |world| {
            world.with(RIGHT, |engine, cx| {
                cx.unix_secs += 4000;
                engine.tick(cx);
            })
        },
    ];
    for (n, change) in cases.into_iter().enumerate() {
        let mut world = gone(2, |_| {});
        world.configure(LEFT, |connection| {
            connection.proposals = super::world::ike("aes128gcm16-aes256gcm16-sha256-x25519");
        });
        change(&mut world);
        if n == 3 {
            // The key is another meanwhile.
            world.restart(RIGHT);
        }
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        assert_eq!(exchanges(&world), [RESUME, INIT, AUTH], "{n}");
        assert_eq!(world.ends[RIGHT].refused, [Refused::Ticket]);
        assert!(events(&world, LEFT).contains(&Event::NotResumed));
        world.check_children(1);
    }
}

#[test]
fn a_ticket_is_good_for_some_time() {
    let mut world = gone(3, |_| {});
    world.run_for(4_000_000);
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    assert_eq!(exchanges(&world), [INIT, AUTH]);
}

/// Who is not taken any more as it was is not let in by a ticket.
#[test]
fn who_must_prove_it_otherwise_since_does_not_come_back() {
    let mut world = gone(4, |_| {});
    world.configure(RIGHT, |connection| connection.remote_auth = RemoteAuth::Null);
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    assert_eq!(exchanges(&world), [RESUME, INIT, AUTH]);
    let told = "the peer says AUTHENTICATION_FAILED: we are left.example.org, by a shared key, and asked for right.example.org";
    assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed(told.into())));
    check_only_old(&world);
}

/// A ticket of one connection opens no other: the other may demand more.
#[test]
fn a_ticket_is_of_one_connection() {
    let other: IdPattern = "other.example.org".parse().unwrap();
    let mut world = gone(7, |_| {});
    let mut second = connection("second", RIGHT);
    (second.local_id, second.resumes) = (other.clone(), true);
    world.ends[RIGHT].config.connections.push(Arc::new(second));
    world.configure(LEFT, |connection| connection.remote_id = other);
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    assert_eq!(exchanges(&world), [RESUME, AUTH]);
    let why = "left.example.org has come back, and has not the keys that it had";
    assert!(events(&world, RIGHT).contains(&Event::Closed(why.into())));
    check_only_old(&world);
}

/// By a ticket of fewer rounds of authentication than are demanded since, none of them is left out.
#[test]
fn who_must_prove_more_since_begins_anew() {
    let round = Round { id: IdPattern::Any, auth: RemoteAuth::SharedKey };
    let mut world = gone(8, |_| {});
    world.configure(RIGHT, |connection| connection.further.remote.push(round.clone()));
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    assert_eq!(exchanges(&world), [RESUME, INIT, AUTH]);
    check_only_old(&world);
    // It is seen, too, where that changes only after the ticket was taken.
    let mut world = gone(8, |_| {});
    world.initiate(LEFT, Some(0));
    while world.ends[RIGHT].engine.half_open() == 0 {
        world.run_for(1);
    }
    world.configure(RIGHT, |connection| connection.further.remote.push(round));
    world.run_for(10_000);
    assert_eq!(exchanges(&world), [RESUME, AUTH]);
    let why = "left.example.org has come back, and has not the keys that it had";
    assert!(events(&world, RIGHT).contains(&Event::Closed(why.into())));
    check_only_old(&world);
}

/// Who has proven in two rounds who it is comes back with all that it has proven, again and again.
#[test]
fn who_comes_back_is_the_same_in_eap() {
    let (paper, address) = (paper(), "10.3.0.7".parse().unwrap());
    let pool = Pool { name: "p".into(), first: address, last: address, attributes: vec![] };
    let mut world = gone_of(9, |world| {
        let rights = &mut world.ends[RIGHT].config;
        rights.pools = vec![Arc::new(pool)];
        world.ends.iter_mut().for_each(|end| end.config.eap_secrets = secrets("secret"));
        world.configure(LEFT, |connection| {
            let auth = paper.means(Method::MsChapV2, Some("carol"));
            connection.further.local.push(Round { id: NAMES[LEFT].parse().unwrap(), auth });
            connection.vips = vec!["0.0.0.0".parse().unwrap()];
        });
        world.configure(RIGHT, |connection| {
            let auth = paper.demand(Method::MsChapV2, ASKED);
            connection.further.remote.push(Round { id: NAMES[LEFT].parse().unwrap(), auth });
            connection.pools = vec!["p".into()];
        });
        // One that demands less, by which it could be taken first.
        let less = Connection { resumes: true, ..connection("less", RIGHT) };
        world.ends[RIGHT].config.connections.push(Arc::new(less));
    });
    for _ in 0..2 {
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        assert_eq!(exchanges(&world), [RESUME, AUTH]);
        assert_eq!(world.only_sa(RIGHT).eap_id(), Some("carol"));
        assert_eq!(world.only_sa(RIGHT).connection().name, "b");
        assert_eq!(world.ends[RIGHT].engine.leases().told("p"), [(address, "carol", true)]);
        give_up(&mut world);
    }
}

// RFC 5723 §9.8: what was seen on the way is of no use.
#[test]
fn what_is_sent_again_does_nothing() {
    let mut world = gone(5, |_| {});
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    world.check_children(1);
    let octets = world.requests.iter().find(|o| Header::parse(o).unwrap().0.exchange == RESUME).unwrap();
    let (octets, spis) = (octets.clone(), world.only_sa(RIGHT).spis());
    for port in [500, 501] {
        let peer = (address(LEFT), port).into();
        let datagram =
            Datagram { local: (address(RIGHT), 500).into(), peer, octets: octets.clone(), dscp: 0 };
        world.with(RIGHT, |engine, cx| engine.receive(&datagram, cx)).unwrap();
    }
    assert_eq!(world.ends[RIGHT].engine.half_open(), 2);
    world.run_for(40_000);
    assert_eq!(world.only_sa(RIGHT).spis(), spis);
    world.check_children(1);
}

// RFC 5723 §4.2: both are not taken for authenticated any longer.
#[test]
fn coming_back_is_no_authentication() {
    let mut world = gone(6, |connection| {
        (connection.reauth_ms, connection.over_ms, connection.rand_ms) = (1_000_000, 100_000, 0);
    });
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    assert_eq!(exchanges(&world), [RESUME, AUTH]);
    let at_ms = world.only_sa(LEFT).reauth_at_ms().unwrap();
    assert!((998_000..=1_001_000).contains(&at_ms), "{at_ms}");
    world.run_for(1_000_000);
    world.check_children(1);
    assert!(!world.only_sa(LEFT).is_resumed(), "it was authenticated anew");
}

#[test]
fn whatever_the_network_does_who_comes_back_is_there() {
    let seeds = 0..300;
    println!("seeds {seeds:?}");
    let mut back = 0;
    for seed in seeds.clone() {
        let mut world = gone(seed, |_| {});
        world.ends[RIGHT].config.cookies_from = [0, 10][seed as usize % 2];
        (world.loss, world.again, world.late_ms) = (20, 10, 3000);
        world.initiate(LEFT, Some(0));
        world.run_for(200_000);
        (world.loss, world.again, world.late_ms) = (0, 0, 10);
        world.run_for(200_000);
        if world.ends[LEFT].engine.sas().count() == 1 {
            world.check_children(1);
            back += usize::from(world.only_sa(LEFT).is_resumed());
        }
    }
    assert!(back as u64 > seeds.end * 9 / 10, "{back}");
}
