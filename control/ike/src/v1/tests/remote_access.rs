//! A client with a user, at the left, and a gateway with pools, at the right.

use super::{address, change_child, events, only, receive_any, receive_copy, set_aggressive, world_as};
use crate::{
    connection::{Connection, Hosts, Ikev1, LocalAuth, RemoteAuth, Unique, Xauth},
    crypto::keys::Role,
    eap::Secrets,
    ike_sa::Phase,
    message::{
        ConfigurationAttribute, ConfigurationAttributeType as Kind, ExchangeType, Header,
        isakmp::{Attributes, AttributesType},
    },
    output::Event,
    proposal::Proposals,
    traffic_selector::ConfiguredSelectors,
    v1::oakley,
    v2::{
        channel::Dropped,
        refused::Refused,
        tests::{
            configuration::{ip, pool},
            signatures::{Paper, paper},
            world::{LEFT, RIGHT, World},
        },
    },
};
use std::sync::Arc;

const PASSWORD: &str = "a password of this box";

fn passwords(all: &[(&str, &str)]) -> Arc<Secrets> {
    let mut secrets = Secrets::default();
    all.iter().for_each(|(name, password)| assert!(secrets.add_text(&[(*name).to_owned()], password)));
    Arc::new(secrets)
}

fn selectors(text: &str) -> ConfiguredSelectors {
    ConfiguredSelectors::parse(text.split(", ")).unwrap()
}

/// With a user, and addresses that are asked for or told.
pub(super) fn remote(end: usize, connection: &mut Connection, pushes: bool) {
    let xauth = [Xauth::Ours(Some("carol".into())), Xauth::Theirs("%any".parse().unwrap())][end].clone();
    connection.ikev1 = Some(Ikev1 { xauth: Some(xauth), pushes, ..Ikev1::default() });
    match end {
        LEFT => connection.vips = vec![ip("0.0.0.0")],
        _ => connection.pools = vec!["v4".into()],
    }
    change_child(connection, |child| match end {
        LEFT => (child.local, child.remote) = (selectors("dynamic"), selectors("10.2.0.0/16")),
        _ => (child.local, child.remote) = (selectors("10.2.0.0/16"), selectors("dynamic")),
    });
}

pub(super) fn world_with(seed: u64, pushes: bool, change: impl Fn(usize, &mut Connection)) -> World {
    let mut world = world_as(seed, |end, connection| {
        remote(end, connection, pushes);
        change(end, connection);
    });
    equip(&mut world);
    world
}

/// What both know, and the addresses.
pub(super) fn equip(world: &mut World) {
    for end in &mut world.ends {
        end.config.eap_secrets = passwords(&[("carol", PASSWORD), ("dave", "another")]);
    }
    world.ends[RIGHT].config.pools = vec![pool("v4", "10.3.0.1", "10.3.0.9", "10.2.0.53")];
}

/// It is all there.
pub(super) fn check_up(world: &World) {
    world.check_children(1);
    for end in [LEFT, RIGHT] {
        let sa = only(world, end);
        assert_eq!(*sa.phase(), Phase::Established);
        let child = &sa.children()[0].policy;
        let (client, net) =
            if end == LEFT { (&child.local, &child.remote) } else { (&child.remote, &child.local) };
        assert_eq!((client.to_string(), net.to_string()), ("10.3.0.1/32".into(), "10.2.0.0/16".into()));
    }
    let (client, gateway) = (only(world, LEFT), only(world, RIGHT));
    assert_eq!((&client.given().ours, &client.given().dns), (&vec![ip("10.3.0.1")], &vec![ip("10.2.0.53")]));
    assert_eq!(gateway.given().theirs[0].address, ip("10.3.0.1"));
    assert_eq!((client.eap_id(), gateway.eap_id()), (None, Some("carol")));
    assert_eq!(world.ends[RIGHT].engine.leases().counts("v4").0, 1);
    assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
}

// draft-beaulieu-ike-xauth-02, draft-dukes-ike-mode-cfg-02
#[test]
fn a_user_gets_an_address_and_a_child() {
    for (pushes, kind) in [(false, None), (true, None), (false, Some("rsa")), (true, Some("rsa"))] {
        let paper = kind.map(paper);
        let mut world = world_with(1, pushes, |end, connection| {
            if let Some(paper) = &paper {
                connection.local_auth = paper.local(end);
                connection.remote_auth = RemoteAuth::PublicKey(Arc::new(paper.trust()));
            }
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        check_up(&world);
        let told = events(&world, RIGHT);
        let gave = Event::Gave("carol".into(), vec![("v4".into(), ip("10.3.0.1"))]);
        assert!(told[0] == Event::Established && told[1] == gave, "{told:?}");
        let id = only(&world, LEFT).id();
        world.with(LEFT, |engine, cx| assert!(engine.terminate(id, cx)));
        world.run_until_quiet();
        assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (0, 1));
    }
}

/// The gateway signs, and the client has nothing but its user.
fn hybrid(paper: &Paper, end: usize, connection: &mut Connection) {
    connection.proposals = Proposals::ike(["aes128-sha256-ecp256"]).unwrap();
    match end {
        LEFT => {
            connection.local_auth = LocalAuth::Null;
            connection.remote_auth = RemoteAuth::PublicKey(Arc::new(paper.trust()));
        }
        _ => {
            (connection.local_auth, connection.remote_auth) = (paper.local(end), RemoteAuth::Null);
            connection.remote_id = "%any".parse().unwrap();
        }
    }
}

// draft-ietf-ipsec-isakmp-hybrid-auth-05
#[test]
fn a_gateway_signs_for_who_has_but_a_user() {
    let paper = paper("rsa");
    for (n, pushes) in [false, true, false, true].into_iter().enumerate() {
        let mut world = world_with(16, pushes, |end, connection| {
            hybrid(&paper, end, connection);
            set_aggressive(connection, n >= 2);
            if end == LEFT {
                connection.local_id = "%any".parse().unwrap();
            }
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        check_up(&world);
        assert_eq!(only(&world, RIGHT).ids().unwrap().1.to_string(), "192.0.2.1");
        // Either begins the next one.
        for end in [LEFT, RIGHT] {
            world.is_steady = true;
            let id = only(&world, end).id();
            world.with(end, |engine, cx| assert!(engine.rekey(id, cx)));
            world.run_until_quiet();
            check_up(&world);
            assert_eq!(only(&world, end).role(), Role::Initiator);
        }
    }
}

#[test]
fn hybrid_authentication_proves_both() {
    let (paper, others) = (paper("rsa"), paper("ecp256"));
    // Its user, of whom nothing is there before it is known who it is.
    let mut world = world_with(17, false, |end, connection| hybrid(&paper, end, connection));
    world.ends[LEFT].config.eap_secrets = passwords(&[("carol", "wrong")]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert!(world.ends.iter().all(|end| end.installed.is_empty() && end.engine.ike_sas().count() == 0));
    assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (0, 0));
    let why = "it knows no password of 'carol', or there is no such user";
    let why = Event::Closed(format!("left.example.org is not authenticated: {why}"));
    assert_eq!(events(&world, RIGHT), [why]);
    // The gateway: nobody else hears a password.
    let mut world = world_with(18, false, |end, connection| {
        hybrid(&paper, end, connection);
        if end == LEFT {
            connection.remote_auth = RemoteAuth::PublicKey(Arc::new(others.trust()));
        }
    });
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let Some(Event::Closed(why)) = events(&world, LEFT).pop() else { panic!() };
    assert!(why.starts_with("right.example.org is not authenticated"), "{why}");
    let exchanges = world.requests.iter().filter_map(|octets| Header::parse(octets).ok());
    let of_clients = exchanges.filter(|(h, ..)| h.exchange == ExchangeType::TRANSACTION).count();
    assert!(of_clients <= 1 && world.ends.iter().all(|end| end.installed.is_empty()), "{of_clients}");
}

/// Who proves nothing has a user, or there is no such connection.
#[test]
fn nobody_has_neither_a_key_nor_a_user() {
    let (rsa, ecdsa) = (paper("rsa"), paper("ecp256"));
    for end in [LEFT, RIGHT] {
        let mut world = world_with(19, false, |at, connection| {
            hybrid(&rsa, at, connection);
            if at == end {
                connection.ikev1.as_mut().unwrap().xauth = None;
            }
        });
        assert!(oakley::suites(&world.ends[end].config.connections[0], Role::Responder).is_empty());
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert!(world.ends.iter().all(|end| end.engine.ike_sas().count() == 0));
    }
    // Nor is the other way round anything: who asks for the user signs, and by RSA.
    let world = world_with(20, false, |at, connection| {
        hybrid(if at == RIGHT { &ecdsa } else { &rsa }, at, connection);
        if at == LEFT {
            connection.ikev1.as_mut().unwrap().xauth = Some(Xauth::Theirs("%any".parse().unwrap()));
        }
    });
    let suites = |end: usize| oakley::suites(&world.ends[end].config.connections[0], Role::Responder);
    assert!(suites(LEFT).is_empty() && suites(RIGHT).is_empty());
}

#[test]
fn there_are_addresses_without_users_and_users_without_addresses() {
    for pushes in [false, true] {
        let mut world = world_with(2, pushes, |_, connection| {
            connection.ikev1.as_mut().unwrap().xauth = None;
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(only(&world, LEFT).given().ours, [ip("10.3.0.1")]);
        let mut world = world_with(2, pushes, |_, connection| {
            (connection.vips, connection.pools) = (vec![], vec![]);
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(only(&world, LEFT).children()[0].policy.local.to_string(), "192.0.2.1/32");
    }
}

// draft-dukes-ike-mode-cfg-02 §3.2: an address of IPv6 has 16 octets.
#[test]
fn addresses_are_of_both_families() {
    for pushes in [false, true] {
        let mut world = world_with(3, pushes, |end, connection| match end {
            LEFT => connection.vips.push(ip("::")),
            _ => connection.pools.push("v6".into()),
        });
        let v6 = pool("v6", "fd03::1", "fd03::ffff", "fd02::53");
        world.ends[RIGHT].config.pools.push(v6);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let given = only(&world, LEFT).given();
        assert_eq!(given.ours, [ip("10.3.0.1"), ip("fd03::1")]);
        assert_eq!(given.dns, [ip("10.2.0.53"), ip("fd02::53")]);
    }
}

/// What nobody knows, and a wrong password of somebody, look the same.
#[test]
fn a_wrong_password_and_no_user_get_the_same_answer() {
    let mut seen = vec![];
    for (name, password) in [("carol", "a password of this bix"), ("jacob", PASSWORD), ("davey", PASSWORD)] {
        let mut world = world_with(4, false, |end, connection| {
            if end == LEFT {
                connection.ikev1.as_mut().unwrap().xauth = Some(Xauth::Ours(Some(name.into())));
            }
        });
        world.ends[LEFT].config.eap_secrets = passwords(&[(name, password)]);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        for end in [LEFT, RIGHT] {
            assert_eq!(world.ends[end].engine.ike_sas().count(), 0, "{end}");
            assert!(!events(&world, end).contains(&Event::Established));
            assert!(world.ends[end].installed.is_empty());
        }
        assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (0, 0));
        assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
        let why = format!(
            "left.example.org is not authenticated: it knows no password of '{name}', or there is no such user"
        );
        assert_eq!(events(&world, RIGHT), [Event::Closed(why)]);
        let why = "left.example.org is not authenticated: the other end has refused us".into();
        assert_eq!(events(&world, LEFT), [Event::Closed(why)]);
        let lengths: Vec<_> = world.requests.iter().map(|octets| (octets[18], octets.len())).collect();
        seen.push((lengths, world.now_ms, world.carried));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[test]
fn a_user_is_whom_the_connection_is_for() {
    for (wanted, is_up) in [("carol", true), ("dave", false)] {
        let mut world = world_with(5, false, |end, connection| {
            if end == RIGHT {
                connection.ikev1.as_mut().unwrap().xauth = Some(Xauth::Theirs(wanted.parse().unwrap()));
            }
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(!world.ends[LEFT].installed.is_empty(), is_up, "{wanted}");
    }
}

#[test]
fn without_a_password_of_ours_we_say_so() {
    let mut world = world_with(6, false, |_, _| {});
    world.ends[LEFT].config.eap_secrets = Arc::default();
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let Some(Event::Closed(why)) = events(&world, LEFT).pop() else { panic!() };
    assert!(why.contains("there is no secret for 'carol'"), "{why}");
    assert!(world.ends.iter().all(|end| end.engine.ike_sas().count() == 0));
}

/// Both ends must want it.
#[test]
fn who_has_no_user_gets_nothing() {
    for end in [LEFT, RIGHT] {
        let mut world = world_with(7, false, |at, connection| {
            if at == end {
                connection.ikev1.as_mut().unwrap().xauth = None;
            }
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(events(&world, LEFT), [Event::Closed("the peer says NO_PROPOSAL_CHOSEN".into())]);
    }
}

/// One that is half-open: the gateway waits for what its user says, or for that it knows what has come of it.
fn half_open(seed: u64, answers: usize) -> World {
    let mut world = world_with(seed, false, |_, _| {});
    world.initiate(LEFT, Some(0));
    let is_transaction = |octets: &&Vec<u8>| {
        Header::parse(octets).is_ok_and(|(h, ..)| h.exchange == ExchangeType::TRANSACTION)
    };
    while world.requests.iter().filter(is_transaction).count() < answers {
        assert!(world.step(u64::MAX), "something is under way");
    }
    // Both have the end of phase 1.
    let id = only(&world, LEFT).id();
    let mut waits = false;
    while !waits {
        world.with(LEFT, |engine, cx| engine.with_v1(id, cx, |sa, _| waits = sa.pending.is_some()));
        assert!(waits || world.step(u64::MAX), "something is under way");
    }
    world
}

// draft-beaulieu-ike-xauth-02 §3: nothing else before.
#[test]
fn there_are_no_children_before_the_user_is_known() {
    for answers in [1, 2, 3] {
        let mut world = half_open(8, answers);
        assert_eq!(*only(&world, RIGHT).phase(), Phase::Connecting);
        assert_eq!(world.ends[RIGHT].engine.half_open(), 1);
        // Nothing of phase 1 is new.
        let first = world.requests[0].clone();
        receive_copy(&mut world, RIGHT, &first, |octets| octets.push(0));
        // As if it had concluded it for itself: it asks for a child SA, and for an address.
        let id = only(&world, LEFT).id();
        world.with(LEFT, |engine, cx| {
            engine.with_v1(id, cx, |sa, cx| {
                sa.conclude_user(cx);
                sa.go_on(cx);
            })
        });
        world.one_way = Some(RIGHT);
        world.run_for(1000);
        assert_eq!(*only(&world, LEFT).phase(), Phase::Established);
        let child = world.ends[LEFT].config.connections[0].children[0].clone();
        world.with(LEFT, |engine, cx| {
            engine.with_v1(id, cx, |sa, cx| {
                sa.transactions = Default::default();
                sa.ask_child(&child, None, cx);
            })
        });
        world.run_for(1000);
        let early = Refused::Dropped(Dropped::Early);
        assert_eq!(early.kind(), "early");
        assert!(world.ends[RIGHT].refused.iter().filter(|why| **why == early).count() >= 2, "{answers}");
        assert!(world.ends[RIGHT].installed.is_empty());
        assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (0, 0));
        world.run_for(40_000);
        assert_eq!(world.ends[RIGHT].engine.ike_sas().count(), 0, "{answers}");
    }
}

#[test]
fn a_user_who_says_nothing_is_waited_for_and_then_not() {
    for (one_way, why) in [(LEFT, "the peer does not answer"), (RIGHT, "it was not authenticated in time")] {
        let mut world = half_open(9, 1);
        world.one_way = Some(one_way);
        world.run_for(120_000);
        assert!(
            world.ends.iter().all(|end| end.engine.ike_sas().count() == 0 && end.engine.half_open() == 0)
        );
        println!("{why}: {:?} {:?}", events(&world, LEFT), events(&world, RIGHT));
    }
}

// RFC 2408 §5.15: what is under one goes on under another.
#[test]
fn who_has_the_place_of_another_has_its_address() {
    for (pushes, end) in [(false, LEFT), (false, RIGHT), (true, LEFT), (true, RIGHT)] {
        let mut world = world_with(10, pushes, |_, _| {});
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.is_steady = true;
        for _ in 0..3 {
            let (id, spis) = (only(&world, end).id(), only(&world, end).spis());
            world.with(end, |engine, cx| assert!(engine.rekey(id, cx)));
            world.run_until_quiet();
            check_up(&world);
            assert_ne!(only(&world, end).spis(), spis);
            assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (1, 0));
            assert_eq!(only(&world, end).role(), Role::Initiator);
        }
        let spi = only(&world, end).children()[0].spi_in;
        world.with(end, |engine, cx| assert!(engine.rekey_child(spi, cx)));
        world.run_until_quiet();
        check_up(&world);
        world.is_steady = false;
        let id = only(&world, RIGHT).id();
        world.with(RIGHT, |engine, cx| assert!(engine.terminate(id, cx)));
        world.run_until_quiet();
        assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (0, 1));
    }
}

/// By the time it is the client that begins the next one, and the gateway only shortly before its end.
#[test]
fn the_client_replaces_it_in_time() {
    let mut world = world_with(11, false, |end, connection| {
        (connection.rekey_ms, connection.over_ms) = ([600_000, 600_000][end], 600_000);
    });
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    let at = |world: &World, end| only(world, end).rekey_at_ms().unwrap();
    assert!(at(&world, LEFT) < 610_000 && at(&world, RIGHT) > 1_100_000, "{}", at(&world, RIGHT));
    world.is_steady = true;
    world.run_for(3_700_000);
    check_up(&world);
    assert_eq!(only(&world, LEFT).role(), Role::Initiator);
}

/// Two users with one key, behind one NAT, are two peers.
#[test]
fn users_of_one_group_are_told_apart() {
    for unique in [Unique::No, Unique::Replace, Unique::Keep] {
        let mut world = world_with(12, false, |end, connection| {
            connection.unique = [Unique::Never, unique][end];
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let connection = Connection {
            ikev1: Some(Ikev1 { xauth: Some(Xauth::Ours(Some("dave".into()))), ..Ikev1::default() }),
            ..(*world.ends[LEFT].config.connections[0]).clone()
        };
        let connection = Arc::new(connection);
        world.with(LEFT, |engine, cx| {
            let between = (address(LEFT), address(RIGHT));
            engine.initiate(&connection, Some(&connection.children[0]), between, cx)
        });
        world.run_until_quiet();
        let mut users: Vec<_> = world.ends[RIGHT]
            .engine
            .ike_sas()
            .map(|sa| (sa.eap_id().unwrap(), sa.children().len()))
            .collect();
        users.sort_unstable();
        assert_eq!(users, [("carol", 1), ("dave", 1)], "{unique:?}");
        assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (2, 0));
        assert_eq!(world.ends[RIGHT].installed.len(), 2);
    }
}

#[test]
fn without_an_address_left_there_is_no_child() {
    let mut world = world_with(13, false, |_, _| {});
    world.ends[RIGHT].config.pools = vec![pool("v4", "10.3.0.1", "10.3.0.1", "10.2.0.53")];
    world.ends[RIGHT].config.pools.iter_mut().for_each(|pool| Arc::make_mut(pool).name = "other".into());
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(0);
    let none = Event::ChildFailed("net".into(), "no address is left in its pools (v4)".into());
    assert!(events(&world, RIGHT).contains(&none), "{:?}", events(&world, RIGHT));
    // Who does not ask gets no child either.
    let mut world = world_with(13, false, |_, connection| connection.vips = vec![]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(0);
}

// draft-dukes-ike-mode-cfg-02 §3.2
#[test]
fn a_netmask_is_told_to_who_asks() {
    let mut world = world_with(14, false, |_, _| {});
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let all = [Kind::INTERNAL_IP4_ADDRESS, Kind::INTERNAL_IP4_NETMASK, Kind::SUPPORTED_ATTRIBUTES];
    let all = all.map(ConfigurationAttribute::asking).into();
    let request = Attributes::of_configuration(AttributesType::ISAKMP_CFG_REQUEST, 0, all);
    let id = only(&world, RIGHT).id();
    let mut said = vec![];
    world.with(RIGHT, |engine, cx| {
        engine.with_v1(id, cx, |sa, cx| said = sa.give(&request, cx).expect("it is established").all)
    });
    let kinds: Vec<_> = said.iter().map(|attribute| Kind(attribute.kind.0)).collect();
    let dns = Kind::INTERNAL_IP4_DNS;
    assert_eq!(
        kinds,
        [Kind::INTERNAL_IP4_ADDRESS, dns, Kind::INTERNAL_IP4_NETMASK, Kind::SUPPORTED_ATTRIBUTES]
    );
    assert_eq!(said[2].value, crate::message::AttributeValue::Long(vec![255; 4]));
}

/// Whatever the network does, both have the same, or nothing.
#[test]
fn whatever_the_network_does_users_are_known_or_not() {
    let seeds = 0..300;
    println!("seeds {seeds:?}");
    let mut up = 0;
    for seed in seeds.clone() {
        let is_wrong = seed % 5 == 4;
        let mut world = world_with(seed, seed % 2 == 1, |_, connection| {
            connection.dpd_ms = 30_000;
        });
        if is_wrong {
            world.ends[LEFT].config.eap_secrets = passwords(&[("carol", "wrong")]);
        }
        (world.loss, world.again, world.late_ms) = (15, 10, 2000);
        if seed % 3 == 0 {
            world.configure(RIGHT, |connection| connection.remote = Hosts::Any);
            world.nat = Some("203.0.113.1:1000".parse().unwrap());
        }
        world.initiate(LEFT, Some(0));
        world.run_for(90_000);
        let id = world.ends[LEFT].engine.ike_sas().map(|sa| sa.id()).next();
        if let Some(id) = id.filter(|_| seed % 2 == 0) {
            world.with(LEFT, |engine, cx| engine.rekey(id, cx));
            world.run_for(60_000);
        }
        (world.loss, world.again, world.late_ms) = (0, 0, 20);
        world.run_for(900_000);
        let counts = [LEFT, RIGHT].map(|end| world.ends[end].engine.ike_sas().count());
        assert_eq!(counts[0], counts[1], "seed {seed}");
        assert_eq!(
            world.ends[RIGHT].engine.leases().counts("v4").0,
            usize::from(counts[1] > 0),
            "seed {seed}"
        );
        if counts[0] > 0 {
            assert!(!is_wrong, "seed {seed}");
            assert_eq!(only(&world, LEFT).given().ours, [ip("10.3.0.1")], "seed {seed}");
            up += 1;
        }
    }
    println!("{up} up");
    assert!(up > seeds.end / 2, "{up}");
}

/// What comes again changes nothing.
#[test]
fn copies_of_transactions_are_not_new() {
    let mut world = world_with(15, true, |_, _| {});
    world.again = 100;
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    check_up(&world);
    let before = [LEFT, RIGHT].map(|end| events(&world, end).len());
    let is_of_phase_2 = |octets: &&Vec<u8>| Header::parse(octets).is_ok_and(|(h, ..)| h.message_id != 0);
    let all: Vec<_> = world.requests.iter().filter(is_of_phase_2).cloned().collect();
    for octets in &all {
        for end in [LEFT, RIGHT] {
            receive_any(&mut world, end, octets);
        }
    }
    world.run_until_quiet();
    check_up(&world);
    assert_eq!([LEFT, RIGHT].map(|end| events(&world, end).len()), before);
}
