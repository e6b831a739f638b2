//! What others than the peer can send, and what peers say that they must not.

use super::{address, change_child, comes_up, connection, events, only, set_aggressive, world_as};
use crate::{
    connection::{Connection, Hosts, RemoteAuth, SendCertificates, SharedKey, Unique},
    ike_sa::Phase,
    output::{Datagram, Event},
    v2::{
        refused::Refused,
        tests::{
            signatures::paper,
            world::{LEFT, RIGHT, World},
        },
    },
};
use std::{net::IpAddr, sync::Arc};

pub(super) const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

/// A message comes from there.
pub(super) fn receive(world: &mut World, end: usize, peer: IpAddr, octets: &[u8]) -> Result<(), Refused> {
    let (local, peer) = ((address(end), 500).into(), (peer, 500).into());
    let datagram = Datagram { local, peer, octets: octets.to_vec(), dscp: 0 };
    world.with(end, |engine, cx| engine.receive(&datagram, cx))
}

/// Until so many messages were sent.
pub(super) fn run_until_sent(world: &mut World, messages: usize) {
    while world.requests.len() < messages {
        assert!(world.step(u64::MAX), "something is under way");
    }
}

/// There are no cookies: what IKEv2 has when it asks for them is left to it.
#[test]
fn first_messages_do_not_take_all_room() {
    for (is_aggressive, is_of_many, room) in
        [(false, false, 3), (false, true, 4), (true, false, 3), (true, true, 4)]
    {
        let mut world = world_as(30, |_, connection| set_aggressive(connection, is_aggressive));
        world.configure(RIGHT, |connection| connection.remote = Hosts::Any);
        world.ends[RIGHT].config.cookies_from = 4;
        world.initiate(LEFT, Some(0));
        run_until_sent(&mut world, 1);
        let first = world.requests[0].clone();
        let mut taken = 0;
        for n in 1..=10_u8 {
            let peer = IpAddr::from([198, 51, 100, if is_of_many { n } else { 1 }]);
            let octets = [&[n; 8], &first[8..]].concat();
            match receive(&mut world, RIGHT, peer, &octets) {
                Ok(()) => taken += 1,
                Err(refused) => assert_eq!(refused, Refused::TooMany),
            }
        }
        assert_eq!((taken, world.ends[RIGHT].engine.half_open()), (room, room));
    }
}

#[test]
fn copies_from_elsewhere_lead_nowhere() {
    let mut world = world_as(31, |_, _| {});
    world.initiate(LEFT, Some(0));
    run_until_sent(&mut world, 3);
    let third = world.requests[2].clone();
    // Before the peer's own, and behind it.
    assert!(receive(&mut world, RIGHT, STRANGER, &third).is_err());
    run_until_sent(&mut world, 4);
    assert!(receive(&mut world, RIGHT, STRANGER, &third).is_err());
    // Answered again, and not on and on.
    let answered = (0..20).filter(|_| receive(&mut world, RIGHT, address(LEFT), &third).is_ok()).count();
    assert_eq!(answered, 10);
    world.run_until_quiet();
    world.check_children(1);
}

/// An initiator makes its keys before it knows who answers.
#[test]
fn the_key_is_that_of_who_answers() {
    let key = |of: &str, key: &[u8]| SharedKey { ids: vec![of.parse().unwrap()], key: key.to_vec().into() };
    let both = b"a key that both have";
    for (of_name, is_up) in [(&both[..], true), (b"another", false)] {
        let mut world = world_as(32, |_, _| {});
        world.configure(LEFT, |connection| connection.remote_id = "%any".parse().unwrap());
        world.ends[LEFT].config.shared_keys = vec![key("192.0.2.2", both), key("right.example.org", of_name)];
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(events(&world, LEFT).contains(&Event::Established), is_up);
        assert_eq!(world.ends[LEFT].installed.len(), usize::from(is_up));
    }
}

/// Who the peer is need not be configured for that.
#[test]
fn nobody_says_at_a_rekey_that_there_is_no_other() {
    let mut world = comes_up(world_as(33, |end, connection| {
        if end == LEFT {
            connection.remote_id = "%any".parse().unwrap();
        }
    }));
    world.is_steady = true;
    let id = only(&world, LEFT).id();
    world.with(LEFT, |engine, cx| assert!(engine.rekey(id, cx)));
    world.run_until_quiet();
    world.check_children(1);
    assert!(world.ends.iter().all(|end| end.gone.is_empty() && end.engine.ike_sas().count() == 1));
}

/// Two with one identity are not one peer.
#[test]
fn an_isakmp_sa_has_no_heir_at_another_address() {
    for (unique, isakmp_sas) in [(Unique::No, 2), (Unique::Replace, 1)] {
        let mut world = world_as(34, |end, connection| {
            connection.unique = [Unique::Never, unique][end];
            connection.retransmission.tries = 0;
        });
        world.configure(RIGHT, |connection| connection.remote = Hosts::Any);
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        world.restart(LEFT);
        world.addresses[LEFT] = STRANGER;
        let connection = Connection { local: Hosts::Any, unique: Unique::Never, ..connection("a", LEFT) };
        let connection = Arc::new(connection);
        world.with(LEFT, |engine, cx| {
            engine.initiate(&connection, Some(&connection.children[0]), (STRANGER, address(RIGHT)), cx)
        });
        world.run_for(10_000);
        let all: Vec<_> = world.ends[RIGHT].engine.ike_sas().collect();
        assert_eq!(all.len(), isakmp_sas, "{unique:?}");
        assert!(all.iter().all(|sa| *sa.phase() == Phase::Established && sa.children().len() == 1));
        assert_eq!(world.ends[RIGHT].installed.len(), isakmp_sas, "{unique:?}");
    }
}

// RFC 2408 §3.10
#[test]
fn certificates_are_sent_to_who_asks() {
    use SendCertificates::{Always, Asked, Never};
    let paper = paper("ecp256");
    for (sends, asks, is_up) in
        [(Asked, true, true), (Asked, false, false), (Always, false, true), (Never, true, false)]
    {
        let mut world = world_as(36, |end, connection| {
            connection.local_auth = paper.local(end);
            connection.remote_auth = RemoteAuth::PublicKey(Arc::new(paper.trust()));
            if end == LEFT {
                connection.sends_certificates = sends;
            } else {
                connection.asks_for_certificates = asks;
            }
        });
        world.now_ms = 1;
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(events(&world, LEFT).contains(&Event::Established), is_up, "{sends:?} {asks}");
    }
}

/// A peer that wants a time of next to nothing does not keep us busy.
#[test]
fn no_time_is_too_short() {
    let mut world = world_as(35, |end, connection| {
        (connection.rekey_ms, connection.over_ms) = ([10_000, 3_600_000][end], 1000);
        change_child(connection, |child| child.handling.lifetime.hard.secs = [10, 3600][end]);
    });
    world.initiate(LEFT, Some(0));
    world.run_for(3000);
    let sa = only(&world, RIGHT);
    assert!(sa.rekey_at_ms().is_some_and(|ms| (54_000..60_000).contains(&ms)), "{:?}", sa.rekey_at_ms());
    let child = sa.children()[0].rekey_at_ms;
    assert!((54_000..60_000).contains(&child), "{child}");
}
