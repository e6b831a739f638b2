//! Messages in parts.

use super::{
    address, comes_up, only, set_aggressive,
    strangers::{STRANGER, receive, run_until_sent},
    world_as,
};
use crate::{
    connection::Connection,
    message::{
        Flags, Header, PayloadType,
        isakmp::{self, Fragment, Payload},
    },
    proposal::Proposals,
    v2::{
        channel::Dropped,
        fragments::MOST_OCTETS,
        refused::Refused,
        tests::world::{LEFT, RIGHT, World},
    },
};

/// Octets of a packet.
const PACKET: usize = 200;

/// What its keys are made by has more octets than a packet.
fn long(connection: &mut Connection) {
    connection.proposals = Proposals::ike(["aes128-sha256-modp2048"]).unwrap();
    connection.fragment_octets = PACKET;
}

fn is_part(octets: &[u8]) -> bool {
    Header::parse(octets).unwrap().1 == PayloadType::FRAGMENT
}

fn parts(world: &World) -> usize {
    world.requests.iter().filter(|octets| is_part(octets)).count()
}

#[test]
fn what_is_longer_than_a_packet_comes_in_parts() {
    for (is_aggressive, says) in [(false, [true, true]), (true, [true, true]), (false, [true, false])] {
        for seed in 0..20 {
            let mut world = world_as(seed, |end, connection| {
                long(connection);
                connection.says_fragments = says[end];
                connection.fragment_octets *= usize::from(says[end]);
                set_aggressive(connection, is_aggressive);
            });
            // A packet is lost here and there, and each message is asked for again.
            world.loss = if seed == 0 { 0 } else { 15 };
            let both = says == [true, true];
            if seed == 0 {
                world = comes_up(world);
            } else {
                world.initiate(LEFT, Some(0));
                world.run_for(300_000);
            }
            assert_eq!(parts(&world) > 0, both);
            // A first message is whole, since nobody knows yet who can put it together.
            let of_packets = world.requests.iter().skip(1);
            let longest = of_packets.map(|octets| octets.len() + 20 + 8 + 4).max();
            assert_eq!(longest.is_some_and(|longest| longest <= PACKET), both, "{longest:?}");
            // A part of what came again may be there still, where another was lost.
            let held = world.ends.each_ref().map(|end| end.engine.unproven_octets());
            assert!(held.iter().all(|held| *held <= if seed == 0 { 0 } else { 1000 }), "{held:?}");
        }
    }
}

/// A part of the message that an end waits for.
fn part(world: &World, end: usize, number: u8, is_last: bool, data: &[u8]) -> Vec<u8> {
    let (header, ..) = Header::parse(world.requests.last().unwrap()).unwrap();
    let spis = only(world, end).spis();
    let header = Header {
        initiator_spi: spis.initiator,
        responder_spi: spis.responder,
        flags: Flags::default(),
        message_id: 7,
        ..header
    };
    let part = Fragment { id: 9, number, is_last, data: data.to_vec() };
    let (first, octets) = isakmp::emit(&[Payload::Fragment(part)]).unwrap();
    isakmp::message(&header, first, &octets).unwrap()
}

#[test]
fn parts_of_nobodys_have_an_end_and_lead_nowhere() {
    let mut world = world_as(1, |_, connection| long(connection));
    world.initiate(LEFT, Some(0));
    run_until_sent(&mut world, 3);
    let octets = part(&world, RIGHT, 1, false, &[0; 500]);
    assert!(matches!(
        receive(&mut world, RIGHT, STRANGER, &octets),
        Err(Refused::Dropped(Dropped::Exchange))
    ));
    for number in 1..=u8::MAX {
        let octets = part(&world, RIGHT, number, false, &[0; 500]);
        assert_eq!(receive(&mut world, RIGHT, address(LEFT), &octets), Ok(()));
        let held = world.ends[RIGHT].engine.unproven_octets();
        assert!(held < 2 * MOST_OCTETS, "{held}");
    }
    // Parts of a part, of another ISAKMP SA, and of nothing that there is.
    let inner = part(&world, RIGHT, 1, true, b"inner");
    let mut other = inner.clone();
    other[0] ^= 1;
    for octets in [&inner[..], &other, b"nothing"] {
        let octets = part(&world, RIGHT, 1, true, octets);
        assert!(receive(&mut world, RIGHT, address(LEFT), &octets).is_err());
        assert_eq!(world.ends[RIGHT].engine.unproven_octets(), 0);
    }
    // What is held goes with the ISAKMP SA.
    let octets = part(&world, RIGHT, 1, false, &[0; 500]);
    assert_eq!(receive(&mut world, RIGHT, address(LEFT), &octets), Ok(()));
    world.run_until_quiet();
    let id = only(&world, RIGHT).id();
    world.with(RIGHT, |engine, cx| assert!(engine.terminate(id, cx)));
    world.run_until_quiet();
    assert_eq!(world.ends[RIGHT].engine.unproven_octets(), 0);
}

/// Who does not say that it puts parts together does so all the same.
#[test]
fn parts_are_taken_without_a_word_of_them() {
    let mut world = world_as(1, |_, connection| connection.says_fragments = false);
    world.initiate(LEFT, Some(0));
    run_until_sent(&mut world, 3);
    let whole = world.requests.last().unwrap().clone();
    let (one, two) = whole.split_at(whole.len() / 2);
    let parts = [part(&world, RIGHT, 1, false, one), part(&world, RIGHT, 2, true, two)];
    assert_eq!(receive(&mut world, RIGHT, address(LEFT), &parts[0]), Ok(()));
    assert!(world.ends[RIGHT].engine.unproven_octets() > 0);
    assert_eq!(receive(&mut world, RIGHT, address(LEFT), &parts[1]), Ok(()));
    assert_eq!(world.ends[RIGHT].engine.unproven_octets(), 0);
    // It is the message, which comes behind it once more.
    run_until_sent(&mut world, 4);
    world.run_until_quiet();
    world.check_children(1);
}
