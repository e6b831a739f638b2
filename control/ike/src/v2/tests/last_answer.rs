//! The answer that an IKE SA is deleted comes again, though there is none any more (RFC 7296 §2.1).

use super::{
    established, established_as, events,
    world::{LEFT, RIGHT, World},
};
use crate::{
    connection::Unique,
    v2::{
        ike_sa::IkeSa,
        output::{Datagram, Event},
        refused::Refused,
    },
};
use std::net::SocketAddr;

fn terminate(world: &mut World, end: usize) {
    let ids: Vec<_> = world.ends[end].engine.sas().map(IkeSa::id).collect();
    ids.into_iter().for_each(|id| _ = world.with(end, |engine, cx| engine.terminate(id, cx)));
}

/// An end has deleted the IKE SA, and the answers of the other are lost until that has sent so many.
fn unheard(seed: u64, end: usize) -> World {
    let mut world = established(seed);
    world.one_way = Some(1 - end);
    terminate(&mut world, end);
    while world.ends[1 - end].engine.sas().count() > 0 {
        world.run_for(1);
    }
    assert_eq!(world.ends[end].engine.sas().count(), 1, "its answer is lost");
    world
}

#[test]
fn who_deletes_an_ike_sa_and_misses_the_answer_gets_it_again() {
    for end in [LEFT, RIGHT] {
        for lost in 0..3 {
            let mut world = unheard(1, end);
            let since = world.now_ms;
            // It asks again behind 4, 11 and 24 s.
            world.run_for([0, 5_000, 12_000][lost]);
            world.one_way = None;
            while world.ends[end].engine.sas().count() > 0 {
                world.run_for(100);
            }
            assert!(world.now_ms - since < [5_000, 12_000, 25_000][lost], "{lost} lost besides the first");
            assert_eq!(events(&world, end).last(), Some(&Event::Closed("deleted".into())));
            let closed = |event: &&Event| matches!(event, Event::Closed(_));
            assert_eq!(events(&world, 1 - end).iter().filter(closed).count(), 1);
            assert!(world.ends[1 - end].refused.is_empty());
        }
    }
}

/// Nothing else brings it about, and not for ever.
#[test]
fn another_message_is_not_answered_by_it() {
    let mut world = unheard(2, LEFT);
    let request = world.requests.last().expect("a request").clone();
    let path = world.only_sa(LEFT).path();
    let send = |world: &mut World, octets: &[u8], from: SocketAddr| {
        let datagram = Datagram { local: path.peer, peer: from, octets: octets.to_vec(), dscp: 0 };
        world.with(RIGHT, |engine, cx| engine.receive(&datagram, cx))
    };
    assert_eq!(send(&mut world, &request, path.local), Ok(()));
    // Each bit of it counts.
    for bit in 0..8 * request.len() {
        let mut other = request.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(send(&mut world, &other, path.local).is_err(), "bit {bit}");
    }
    let elsewhere = "203.0.113.1:500".parse().unwrap();
    assert_eq!(send(&mut world, &request, elsewhere), Err(Refused::UnknownSpi));
    world.now_ms += 30_000;
    assert_eq!(send(&mut world, &request, path.local), Err(Refused::UnknownSpi));
    assert_eq!(world.ends[RIGHT].engine.last_answers(), 0);
}

/// Each that goes has one, and all go in time.
#[test]
fn what_is_kept_goes_in_time() {
    let mut world = established_as(3, |connection| connection.unique = Unique::Never);
    world.initiate(LEFT, None);
    world.run_for(1_000);
    assert_eq!(world.ends[RIGHT].engine.sas().count(), 2);
    // What is replaced by its peer has one, too.
    let id = world.ends[LEFT].engine.sas().map(IkeSa::id).min().expect("an IKE SA");
    world.with(LEFT, |engine, cx| engine.rekey(id, cx));
    world.run_for(1_000);
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.last_answers()), [0, 1]);
    terminate(&mut world, LEFT);
    world.run_for(1_000);
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.last_answers()), [0, 3]);
    world.run_for(31_000);
    world.with(RIGHT, |engine, cx| engine.tick(cx));
    assert_eq!(world.ends[RIGHT].engine.last_answers(), 0);
}

/// Who has proven nothing has nothing kept.
#[test]
fn nothing_is_kept_of_who_is_nobody() {
    let mut world = established(4);
    world.ends[RIGHT].config.shared_keys[0].key = b"another".to_vec().into();
    world.initiate(LEFT, None);
    world.run_for(10_000);
    assert_eq!(world.ends[RIGHT].engine.sas().count(), 1);
    assert_eq!(world.ends[RIGHT].engine.last_answers(), 0);
}
