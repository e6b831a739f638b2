use super::{
    events, rekey_only_child,
    world::{LEFT, RIGHT, World, address, child, config, connection},
};
use crate::{
    connection::{Connection, Hosts},
    message::{ExchangeType, Flags, Header, IkeSpi, Message, Notify, NotifyType, Payload, Payloads, Version},
    v2::{
        ike_sa::Phase,
        job::Job,
        output::{Datagram, Event},
        redirect::Gateway,
        refused::Refused,
    },
};
use std::{net::IpAddr, sync::Arc};

const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

/// A world in which the right end is two gateways. `change` is for the connection of the first.
fn two_gateways(seed: u64, change: impl FnOnce(&mut Connection)) -> World {
    let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.further = Some(ELSEWHERE);
    let other = Connection { local: Hosts::one(ELSEWHERE), ..connection("c", RIGHT) };
    world.ends[RIGHT].config.connections.push(Arc::new(other));
    world.configure(RIGHT, change);
    world
}

fn to(text: &str) -> Vec<Gateway> {
    vec![text.parse().unwrap()]
}

fn away(connection: &mut Connection) {
    connection.redirect_to = vec![Gateway::Address(ELSEWHERE)];
}

/// The names of child SAs, by which connection they came up at the right end.
fn is_elsewhere(world: &World) {
    world.check_children(1);
    assert_eq!(world.only_sa(LEFT).path().peer.ip(), ELSEWHERE);
    assert_eq!(world.only_sa(RIGHT).connection().name, "c");
    assert!(world.only_sa(RIGHT).is_redirectable());
}

// RFC 5685 §3
#[test]
fn who_begins_goes_elsewhere_at_once() {
    for loss in [0, 30] {
        let mut world = two_gateways(1, away);
        world.loss = loss;
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        is_elsewhere(&world);
        assert_eq!(world.ends[RIGHT].refused[0], Refused::Redirected);
        let sent = events(&world, LEFT)[0].clone();
        assert_eq!(sent, Event::Redirected(world.only_sa(LEFT).id(), ELSEWHERE.to_string()));
        // It says where it comes from.
        let last = world.requests.iter().rev().find_map(|octets| {
            let payloads = Message::parse(octets).ok()?.payloads;
            payloads.notifies(NotifyType::REDIRECTED_FROM).next().map(|notify| notify.data.clone())
        });
        assert_eq!(last.unwrap(), [1, 4, 192, 0, 2, 2]);
    }
}

// RFC 5685 §6
#[test]
fn who_is_known_goes_elsewhere() {
    let mut world = two_gateways(2, away);
    // For all that is known of it in IKE_SA_INIT, it may be somebody else.
    let mut other = connection("d", RIGHT);
    other.remote_id = "other.example.org".parse().unwrap();
    world.ends[RIGHT].config.connections.push(Arc::new(other));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    is_elsewhere(&world);
    assert!(world.ends[RIGHT].refused.is_empty());
    let ups = events(&world, LEFT).iter().filter(|event| **event == Event::Established).count();
    assert_eq!(ups, 1, "there was nothing with the first");
}

// RFC 5685 §5
#[test]
fn who_is_there_goes_elsewhere_without_a_gap() {
    let seeds = 0..200;
    println!("seeds {seeds:?}");
    let mut went = 0;
    for seed in seeds.clone() {
        let mut world = two_gateways(seed, |_| {});
        let nets =
            |end| if end == LEFT { ("10.1.0.0/16", "10.2.0.0/16") } else { ("10.2.0.0/16", "10.1.0.0/16") };
        let six = |end| if end == LEFT { ("fd01::/16", "fd02::/16") } else { ("fd02::/16", "fd01::/16") };
        for end in [LEFT, RIGHT] {
            for connection in &mut world.ends[end].config.connections {
                let connection = Arc::make_mut(connection);
                connection.retransmission.tries = 20;
                connection.retransmission.limit_ms = 8000;
                let of = |name, (local, remote)| child(name, local, remote);
                connection.children = vec![of("net", nets(end)), of("six", six(end))];
            }
        }
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        let (id, six) =
            (world.only_sa(LEFT).id(), world.ends[LEFT].config.connections[0].children[1].clone());
        world.with(LEFT, |engine, cx| engine.initiate_child(id, &six, cx));
        world.run_for(1000);
        world.check_children(2);
        world.is_steady = true;
        (world.loss, world.again, world.late_ms) = (seed as u32 % 3 * 10, 5, seed * 10);
        println!("seed {seed}");
        let id = world.only_sa(RIGHT).id();
        let gateway = Gateway::Address(ELSEWHERE);
        assert!(world.with(RIGHT, |engine, cx| engine.redirect(id, &gateway, cx)));
        let id = world.only_sa(LEFT).id();
        assert!(!world.with(LEFT, |engine, cx| engine.redirect(id, &gateway, cx)), "who has begun stays");
        world.run_for(1_000_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            world.check_children(2);
            assert_eq!(world.only_sa(LEFT).path().peer.ip(), ELSEWHERE, "seed {seed}");
            went += 1;
        }
    }
    assert!(went > seeds.end * 9 / 10, "{went}");
}

/// Whatever gateway it is sent to, there is one IKE SA besides that which is there, and one that goes; and there is an end to it.
// RFC 5685 §10
#[test]
fn who_is_there_is_not_sent_about_again_and_again() {
    for away in [ELSEWHERE, IpAddr::from([198, 51, 100, 8])] {
        let mut world = two_gateways(8, |_| {});
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        world.late_ms = 50;
        let id = world.only_sa(RIGHT).id();
        for _ in 0..8 {
            world.with(RIGHT, |engine, cx| engine.redirect(id, &Gateway::Address(away), cx));
        }
        // Until there is an answer of the last.
        for _ in 0..1000 {
            world.run_for(1);
            assert!(world.ends[LEFT].engine.sas().filter(|sa| *sa.phase() != Phase::Closing).count() <= 3);
        }
        let all = events(&world, LEFT);
        let begun = all.iter().filter(|event| matches!(event, Event::Redirected(..))).count();
        assert!(begun <= 5, "{begun}");
        world.run_for(190_000);
        match away {
            ELSEWHERE => is_elsewhere(&world),
            _ => world.check_children(1),
        }
    }
}

/// Who does not follow is not sent, and who has not said that it does goes on.
#[test]
fn who_does_not_follow_stays() {
    let mut world = two_gateways(3, away);
    world.configure(LEFT, |connection| connection.follows_redirects = false);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    assert_eq!(world.only_sa(LEFT).path().peer.ip(), address(RIGHT));
    let id = world.only_sa(RIGHT).id();
    assert!(!world.with(RIGHT, |engine, cx| engine.redirect(id, &Gateway::Address(ELSEWHERE), cx)));
}

// RFC 5685 §3
#[test]
fn who_is_sent_in_a_circle_ends() {
    let mut world = two_gateways(4, away);
    Arc::make_mut(&mut world.ends[RIGHT].config.connections[1]).redirect_to = to("192.0.2.2");
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let why = "the peer sends us to 192.0.2.2, and it is sent elsewhere too often";
    assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed(why.into())));
    assert_eq!(world.ends[LEFT].engine.sas().count(), 0);
    let sent = events(&world, LEFT).iter().filter(|event| matches!(event, Event::Redirected(..))).count();
    assert_eq!(sent, 5);
}

// RFC 5685 §7.2: a gateway may be named. It takes the first address that can be reached from here.
#[test]
fn who_is_sent_to_a_name_goes_where_that_is() {
    let named = |seed: u64, change: fn(&mut Connection)| {
        let mut world = two_gateways(seed, change);
        world.named = vec!["2001:db8::7".parse().unwrap(), ELSEWHERE];
        world
    };
    let away = |connection: &mut Connection| connection.redirect_to = to("vpn.example.org");
    for (loss, late_ms) in [(0, 0), (30, 0), (0, 1500), (20, 1000)] {
        // Before there is anything.
        let mut world = named(20, away);
        (world.loss, world.late_ms) = (loss, late_ms);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        is_elsewhere(&world);
        let sent = Event::Redirected(world.only_sa(LEFT).id(), "vpn.example.org".into());
        assert_eq!(events(&world, LEFT)[0], sent);
        // Once it is known.
        let mut world = named(21, away);
        let mut other = connection("d", RIGHT);
        other.remote_id = "other.example.org".parse().unwrap();
        world.ends[RIGHT].config.connections.push(Arc::new(other));
        (world.loss, world.late_ms) = (loss, late_ms);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        is_elsewhere(&world);
        // At any time.
        let mut world = named(22, |_| {});
        for connection in world.ends.iter_mut().flat_map(|end| &mut end.config.connections) {
            let retransmission = &mut Arc::make_mut(connection).retransmission;
            (retransmission.tries, retransmission.limit_ms) = (20, 8000);
        }
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        (world.loss, world.late_ms, world.is_steady) = (loss, late_ms, true);
        let id = world.only_sa(RIGHT).id();
        world.with(RIGHT, |engine, cx| engine.redirect(id, &to("vpn.example.org")[0], cx));
        world.run_for(400_000);
        is_elsewhere(&world);
    }
}

/// While a name is looked up, either end may have another IKE SA in the place of the one that is sent, or who is sent may die: who
/// comes back looks it up anew.
#[test]
fn what_is_looked_up_is_not_forgotten_with_an_ike_sa() {
    for at in [LEFT, RIGHT] {
        let mut world = two_gateways(23, |_| {});
        world.named = vec![ELSEWHERE];
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        let id = world.only_sa(RIGHT).id();
        world.slow = Some((LEFT, 5000));
        world.with(RIGHT, |engine, cx| engine.redirect(id, &to("vpn.example.org")[0], cx));
        world.run_for(10);
        // Nothing else takes as long.
        world.slow = None;
        let id = world.only_sa(at).id();
        world.with(at, |engine, cx| engine.rekey(id, cx));
        world.run_for(400_000);
        is_elsewhere(&world);
    }
    let mut world = two_gateways(24, |_| {});
    world.named = vec![ELSEWHERE];
    world.initiate(LEFT, Some(0));
    world.run_for(1000);
    world.keep_both(0);
    world.slow = Some((LEFT, 5000));
    let id = world.only_sa(RIGHT).id();
    world.with(RIGHT, |engine, cx| engine.redirect(id, &to("vpn.example.org")[0], cx));
    world.run_for(10);
    assert!(world.ends[LEFT].jobs.iter().any(|(_, _, job)| matches!(job, Job::LookUp(_))));
    world.come_back(LEFT);
    world.run_for(400_000);
    is_elsewhere(&world);
}

#[test]
fn names_without_addresses_and_other_families_are_not_followed() {
    let six: IpAddr = "2001:db8::7".parse().unwrap();
    for (gateway, named, why) in [
        ("vpn.example.org", vec![], "that name is not found"),
        ("vpn.example.org", vec![six], "it is of another family of addresses"),
        ("2001:db8::7", vec![], "it is of another family of addresses"),
    ] {
        let mut world = two_gateways(5, |connection| connection.redirect_to = to(gateway));
        world.named.clone_from(&named);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let why = format!("the peer sends us to {gateway}, and {why}");
        assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed(why.clone())));
        // The same of one that has proven who it is.
        let mut world = two_gateways(5, |connection| connection.redirect_to = to(gateway));
        let mut other = connection("d", RIGHT);
        other.remote_id = "other.example.org".parse().unwrap();
        world.ends[RIGHT].config.connections.push(Arc::new(other));
        world.named.clone_from(&named);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed(why)));
        // One that is there stays, until the gateway takes it down.
        let mut world = two_gateways(6, |_| {});
        world.named = named;
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        let id = world.only_sa(RIGHT).id();
        world.with(RIGHT, |engine, cx| engine.redirect(id, &to(gateway)[0], cx));
        world.run_for(30_000);
        world.check_children(1);
        assert!(matches!(events(&world, LEFT).last(), Some(Event::MoveFailed(_))));
        world.run_until_quiet();
        world.check_children(0);
    }
}

// RFC 5685 §3: only who has seen the request can send it elsewhere.
#[test]
fn without_our_nonce_nobody_sends_us_elsewhere() {
    let mut world = two_gateways(7, |_| {});
    world.late_ms = 100;
    world.initiate(LEFT, Some(0));
    while world.carried == 0 {
        world.run_for(1);
    }
    let sa = world.only_sa(LEFT);
    let header = Header {
        initiator_spi: sa.spis().initiator,
        responder_spi: IkeSpi::NONE,
        version: Version::V2,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags::RESPONSE,
        message_id: 0,
    };
    let (local, peer) = (sa.path().local, sa.path().peer);
    let notify = Notify::new(NotifyType::REDIRECT, &[&[1, 4, 198, 51, 100, 7], &[0; 32][..]].concat());
    let payloads = Payloads(vec![Payload::Notify(notify)]);
    let octets = Message { header, payloads, sealed: None }.emit().unwrap();
    world.with(LEFT, |engine, cx| engine.receive(&Datagram { local, peer, octets, dscp: 0 }, cx)).unwrap();
    world.run_until_quiet();
    world.check_children(1);
    assert_eq!(world.only_sa(LEFT).path().peer.ip(), address(RIGHT));
    // It goes on as any other.
    rekey_only_child(&mut world, RIGHT);
    world.run_until_quiet();
    world.check_children(1);
}
