//! The commit bit: who has asked for a child SA sends by it when the other says to have it.

use super::{comes_up, events, only, receive_any, world_as};
use crate::{
    message::{
        ExchangeType, Header, Protocol,
        isakmp::{Notify, NotifyType, Payload},
    },
    output::Event,
    v1::quick_mode::COMMIT_MS,
    v2::tests::world::{LEFT, RIGHT, World},
};

/// All that these ends send has the bit.
fn world(seed: u64, commits: [bool; 2]) -> World {
    let mut world = world_as(seed, |_, _| {});
    world.commits = commits;
    world
}

fn quick(world: &World) -> Vec<Vec<u8>> {
    let is_one = |o: &&Vec<u8>| Header::parse(o).is_ok_and(|(h, ..)| h.exchange == ExchangeType::QUICK_MODE);
    world.requests.iter().filter(is_one).cloned().collect()
}

/// Until the left end has sent HASH(3), and nothing behind it.
fn run_until_third(world: &mut World) {
    world.initiate(LEFT, Some(0));
    while quick(world).len() < 3 {
        assert!(world.step(u64::MAX), "something is under way");
    }
    assert_eq!((world.ends[LEFT].installed.len(), world.ends[LEFT].sends.len()), (1, 0));
    assert_eq!(events(world, LEFT), [Event::Established]);
}

fn sends(world: &World) -> usize {
    world.ends[LEFT].sends.len()
}

// RFC 2408 §3.1
#[test]
fn who_is_asked_to_says_to_have_it_in_a_fourth_message() {
    for (commits, messages) in [([false, false], 3), ([true, false], 4), ([true, true], 4)] {
        let world = comes_up(world(1, commits));
        assert_eq!(quick(&world).len(), messages, "{commits:?}");
    }
}

#[test]
fn until_then_nothing_leaves_by_it() {
    let mut world = world(2, [true, true]);
    run_until_third(&mut world);
    while sends(&world) == 0 {
        assert!(world.step(u64::MAX), "something is under way");
    }
    let (_, at) = (events(&world, LEFT), world.now_ms);
    assert!(at < COMMIT_MS, "{at}");
    world.run_until_quiet();
    world.check_children(1);
}

/// The third message and the fourth are as good as lost until the third is sent again.
#[test]
fn a_lost_message_is_sent_again() {
    for lost_of in [LEFT, RIGHT] {
        let mut world = world(3, [true, true]);
        world.initiate(LEFT, Some(0));
        let messages = if lost_of == LEFT { 2 } else { 3 };
        while quick(&world).len() < messages {
            assert!(world.step(u64::MAX), "something is under way");
        }
        world.one_way = Some(lost_of);
        while quick(&world).len() < messages + 1 {
            assert!(world.step(u64::MAX), "something is under way");
        }
        world.one_way = None;
        let from = world.now_ms;
        while sends(&world) == 0 {
            assert!(world.step(u64::MAX), "something is under way");
        }
        assert!((1000..COMMIT_MS).contains(&(world.now_ms - from)), "{lost_of}: {}", world.now_ms - from);
        world.run_until_quiet();
        world.check_children(1);
    }
}

/// There are responders that set the bit and say nothing.
#[test]
fn it_is_not_waited_for_without_end() {
    let mut world = world(4, [false, true]);
    run_until_third(&mut world);
    let from = world.now_ms;
    world.run_for(COMMIT_MS - 100);
    assert_eq!(sends(&world), 0);
    world.run_for(200);
    assert_eq!(sends(&world), 1);
    let up = world.ends[LEFT].events.last().map(|(_, event)| event.clone());
    assert!(matches!(up, Some(Event::ChildUp(..))), "{from}: {up:?}");
    world.run_until_quiet();
    world.check_children(1);
}

#[test]
fn a_packet_by_it_says_so_too() {
    let mut world = world(5, [false, true]);
    run_until_third(&mut world);
    let spis: Vec<u32> = world.ends[LEFT].engine.committing().collect();
    assert!(world.ends[LEFT].installed.keys().eq(&spis));
    world.with(LEFT, |engine, cx| engine.hear_child(spis[0], cx));
    assert_eq!((sends(&world), world.ends[LEFT].engine.committing().count()), (1, 0));
    // Again it says nothing new.
    world.with(LEFT, |engine, cx| engine.hear_child(spis[0], cx));
    assert_eq!(events(&world, LEFT).len(), 2);
}

// RFC 2408 §3.1: it is in an informational exchange that has the message ID of quick mode.
#[test]
fn an_informational_exchange_says_so_too() {
    for (kind, is_said) in [(NotifyType::CONNECTED, true), (NotifyType::REPLAY_STATUS, false)] {
        for begins_anew in [true, false] {
            let mut world = world(6, [false, true]);
            run_until_third(&mut world);
            let id = Header::parse(&quick(&world)[2]).unwrap().0.message_id;
            let left = world.ends[LEFT].engine.v1().next().unwrap();
            let (anew, behind) = (left.iv_of(id).unwrap(), left.committing.as_ref().unwrap().iv);
            let iv = if begins_anew { anew } else { behind };
            let notify = Notify { protocol: Protocol::ESP, spi: vec![0, 0, 0, 1], kind, data: vec![] };
            let payloads = vec![Payload::Notify(notify)];
            // The keys are the same at both ends.
            let (datagrams, _) = left.hashed(ExchangeType::INFORMATIONAL_V1, (id, iv), &[], payloads);
            receive_any(&mut world, LEFT, &datagrams[0]);
            assert_eq!(sends(&world), usize::from(is_said), "{kind:?} {begins_anew}");
        }
    }
}

#[test]
fn a_child_is_replaced_without_a_gap() {
    for (end, deletes_old) in [(LEFT, false), (RIGHT, false), (LEFT, true)] {
        let mut world = comes_up(world(7, [true, true]));
        let old = only(&world, end).children()[0].spi_in;
        world.is_steady = !deletes_old;
        world.with(end, |engine, cx| assert!(engine.rekey_child(old, cx)));
        if deletes_old {
            // What replaces it is used then, whatever is said of it.
            while world.ends[LEFT].engine.committing().next().is_none() {
                assert!(world.step(u64::MAX), "something is under way");
            }
            let old = only(&world, RIGHT).children()[0].spi_in;
            world.with(RIGHT, |engine, cx| assert!(engine.terminate_child(old, cx)));
        }
        world.run_until_quiet();
        world.check_children(1);
    }
}
