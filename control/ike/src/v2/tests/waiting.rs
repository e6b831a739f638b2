//! A responder does not send by a child SA before the peer is known to have it (RFC 7296 §2.8).

use super::{
    established,
    world::{LEFT, RIGHT, World, config, connection},
};
use crate::v2::{ike_sa::IkeSa, output::Event};

/// Child SAs that an end has and does not send by.
fn waiting(world: &World, end: usize) -> Vec<u32> {
    let end = &world.ends[end];
    end.installed.keys().copied().filter(|spi| !end.sends.contains(spi)).collect()
}

/// The right end has answered what its child SA was asked for by, and no more.
fn answered(seed: u64, late_ms: u64) -> World {
    let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.late_ms = late_ms;
    world.initiate(LEFT, Some(0));
    while world.ends[RIGHT].installed.is_empty() {
        world.run_for(1);
    }
    world
}

fn ask_another(world: &mut World) {
    let (id, child) = (world.only_sa(LEFT).id(), world.ends[LEFT].config.connections[0].children[0].clone());
    world.with(LEFT, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
}

/// It is not known how long an answer takes.
fn forget_round(world: &mut World) {
    let id = world.only_sa(RIGHT).id();
    world.with(RIGHT, |engine, cx| engine.with(id, cx, |sa, _| sa.round_ms = None));
}

// RFC 7296 §2.8: until a timeout, which is no longer than the answer is on its way.
#[test]
fn the_first_child_is_sent_by_when_its_answer_should_be_there() {
    for late_ms in [0, 10, 100, 1500] {
        for seed in 0..20 {
            let mut world = answered(seed, late_ms);
            assert_eq!((waiting(&world, RIGHT).len(), world.ends[RIGHT].sends.len()), (1, 0));
            let round_ms = world.only_sa(RIGHT).round_ms.map(u64::from).expect("there was one");
            let at_ms = world.now_ms;
            while !waiting(&world, RIGHT).is_empty() {
                world.run_for(1);
            }
            let took_ms = world.now_ms - at_ms;
            assert!(took_ms <= 501 && took_ms <= round_ms / 2 + 1, "seed {seed}: {took_ms} of {round_ms} ms");
            assert!(took_ms + 1 >= (round_ms / 2).min(500), "seed {seed}: {took_ms} of {round_ms} ms");
            world.run_until_quiet();
            world.check_children(1);
        }
    }
}

/// Who does not get the answer does not keep us from sending.
#[test]
fn a_peer_that_is_silent_does_not_hold_it_up() {
    let mut world = World::new(1, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.initiate(LEFT, Some(0));
    // IKE_SA_INIT and IKE_AUTH.
    while world.requests.len() < 2 {
        world.run_for(1);
    }
    world.one_way = Some(RIGHT);
    world.run_for(600);
    assert_eq!(world.ends[RIGHT].sends.len(), 1);
    assert!(world.ends[LEFT].installed.is_empty());
    world.one_way = None;
    world.run_until_quiet();
    world.check_children(1);
}

// RFC 7296 §2.8: what is asked behind shows that the peer has its answer.
#[test]
fn a_further_request_says_that_the_peer_has_it() {
    let mut world = established(2);
    world.late_ms = 20;
    forget_round(&mut world);
    ask_another(&mut world);
    while waiting(&world, RIGHT).is_empty() {
        world.run_for(1);
    }
    let first = waiting(&world, RIGHT);
    ask_another(&mut world);
    while waiting(&world, RIGHT) == first {
        world.run_for(1);
        assert!(world.now_ms < 1_000_000);
    }
    assert_ne!(waiting(&world, RIGHT), first, "the first is sent by, and the second waits");
    assert!(world.ends[RIGHT].sends.contains(&first[0]));
    world.run_for(1000);
    world.check_children(3);
}

// RFC 7296 §2.8: so does a packet by it.
#[test]
fn a_packet_says_that_the_peer_has_it() {
    let mut world = established(3);
    forget_round(&mut world);
    ask_another(&mut world);
    while waiting(&world, RIGHT).is_empty() {
        world.run_for(1);
    }
    let spi = waiting(&world, RIGHT)[0];
    let committing = |world: &World| world.ends[RIGHT].engine.committing().collect::<Vec<_>>();
    assert_eq!(committing(&world), [spi]);
    let other = *world.ends[RIGHT].sends.first().expect("the first child");
    world.with(RIGHT, |engine, cx| engine.hear_child(other, cx));
    assert_eq!(waiting(&world, RIGHT), [spi], "it is not of that");
    world.with(RIGHT, |engine, cx| engine.hear_child(spi, cx));
    assert_eq!((waiting(&world, RIGHT), committing(&world)), (vec![], vec![]));
    world.run_for(1000);
    world.check_children(2);
}

/// Another process waits on.
#[test]
fn it_waits_on_behind_a_restart() {
    let mut world = established(4);
    world.keep_both(0);
    forget_round(&mut world);
    ask_another(&mut world);
    while waiting(&world, RIGHT).is_empty() {
        world.run_for(1);
    }
    let spi = waiting(&world, RIGHT)[0];
    world.come_back(RIGHT);
    assert_eq!(world.ends[RIGHT].engine.committing().collect::<Vec<_>>(), [spi]);
    world.with(RIGHT, |engine, cx| engine.resume(cx));
    world.run_for(1000);
    assert_eq!(world.ends[RIGHT].engine.committing().count(), 0);
    world.check_children(2);
}

/// What goes before it is sent by is waited for no more, as does its IKE SA.
#[test]
fn what_goes_meanwhile_is_not_waited_for() {
    for deletes_all in [false, true] {
        let mut world = established(5);
        forget_round(&mut world);
        ask_another(&mut world);
        while waiting(&world, RIGHT).is_empty() {
            world.run_for(1);
        }
        let (spi, id) = (waiting(&world, RIGHT)[0], world.only_sa(RIGHT).id());
        world.with(RIGHT, |engine, cx| match deletes_all {
            true => engine.terminate(id, cx),
            false => engine.terminate_child(spi, cx),
        });
        world.run_for(100);
        assert_eq!(world.ends[RIGHT].engine.committing().count(), 0);
        world.run_until_quiet();
        world.check_children(usize::from(!deletes_all));
    }
}

/// Who has asked for it has its answer, and sends at once.
#[test]
fn who_has_begun_sends_at_once() {
    let mut world = answered(6, 5);
    while world.ends[LEFT].installed.is_empty() {
        world.run_for(1);
    }
    assert!(waiting(&world, LEFT).is_empty());
    let is_up = |event: &(_, Event)| matches!(event.1, Event::ChildUp(..));
    assert_eq!(world.ends[LEFT].events.iter().filter(|event| is_up(event)).count(), 1);
    assert_eq!(world.ends[LEFT].engine.sas().flat_map(IkeSa::children).count(), 1);
}
