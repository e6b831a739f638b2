//! A responder does not send by a child SA before the peer is known to have it (RFC 7296 §2.8).

use super::{
    established,
    world::{LEFT, RIGHT, World, child, config, connection},
};
use crate::v2::{
    ike_sa::{IkeSa, IkeSaId},
    output::Event,
};

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

/// Children of both ends: one, one that is for some of its packets, and one that is for others.
const NETS: [(&str, [&str; 2]); 3] = [
    ("net", ["10.1.0.0/16", "10.2.0.0/16"]),
    ("some", ["10.1.1.0/24", "10.2.1.0/24"]),
    ("other", ["10.3.0.0/16", "10.2.0.0/16"]),
];

/// A right end that has answered what asks for a child beside an older IKE SA, which has one, too, or none. It is the first child of
/// its IKE SA, or a further one.
fn beside(older: Option<usize>, newer: usize, is_first: bool) -> World {
    let mut world = World::new(7, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    for end in [LEFT, RIGHT] {
        let children = NETS.map(|(name, nets)| child(name, nets[end], nets[1 - end]));
        world.configure(end, |connection| connection.children = children.into());
    }
    world.initiate(LEFT, older);
    world.run_until_quiet();
    world.initiate(LEFT, Some(newer).filter(|_| is_first));
    if !is_first {
        world.run_until_quiet();
        let (id, child) = (ids(&world)[1], world.ends[LEFT].config.connections[0].children[newer].clone());
        world.with(LEFT, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
    }
    while waiting(&world, RIGHT).is_empty() {
        world.run_for(1);
    }
    world
}

/// The IKE SAs of the left end, the oldest first.
fn ids(world: &World) -> Vec<IkeSaId> {
    let mut ids: Vec<_> = world.ends[LEFT].engine.sas().map(IkeSa::id).collect();
    ids.sort();
    ids
}

/// Where an older child SA carries its packets, it waits for long; where an older IKE SA has none that does, it is alone.
#[test]
fn what_no_older_child_carries_is_alone() {
    let cases = [
        (None, 0, false),
        (Some(2), 0, false),
        (Some(1), 0, false),
        (Some(0), 2, false),
        (Some(0), 0, true),
        (Some(0), 1, true),
    ];
    for ((older, newer, is_carried), is_first) in cases.into_iter().flat_map(|c| [(c, true), (c, false)]) {
        let mut world = beside(older, newer, is_first);
        let spis = waiting(&world, RIGHT);
        assert_eq!(spis.len(), 1);
        let is_alone = world.ends[RIGHT].installed[&spis[0]].is_alone;
        assert_eq!(is_alone, !is_carried, "{newer} beside {older:?}, first: {is_first}");
        world.run_for(501);
        assert_eq!(
            waiting(&world, RIGHT).is_empty(),
            !is_carried,
            "{newer} beside {older:?}, first: {is_first}"
        );
        world.run_for(200_000);
        world.check_children(1 + usize::from(older.is_some()));
    }
}

/// One of the same IKE SA carries them, too, and no policy without an SA is to come before its.
#[test]
fn what_a_child_of_the_same_ike_sa_carries_is_not_alone() {
    for (newer, is_alone) in [(0, false), (1, false), (2, true)] {
        let mut world = beside(None, 0, true);
        world.run_for(1000);
        let (id, child) = (ids(&world)[1], world.ends[LEFT].config.connections[0].children[newer].clone());
        world.with(LEFT, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
        while waiting(&world, RIGHT).is_empty() {
            world.run_for(1);
        }
        assert_eq!(world.ends[RIGHT].installed[&waiting(&world, RIGHT)[0]].is_alone, is_alone, "{newer}");
        world.run_for(501);
        world.check_children(2);
    }
}

// RFC 7296 §2.8: who deletes the older one has the newer.
#[test]
fn what_has_waited_behind_an_older_child_is_sent_by_when_that_goes() {
    for (newer, deletes_all) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut world = beside(Some(0), newer, true);
        world.run_for(1000);
        let spi = waiting(&world, RIGHT)[0];
        let older = ids(&world)[0];
        let spi_in = world.ends[LEFT].engine.sa(older).expect("it is there").children()[0].spi_in;
        // It is still carried by the same of the IKE SA, whose keys are others.
        let id = world.ends[RIGHT].engine.sas().map(IkeSa::id).min().expect("the older one");
        world.with(RIGHT, |engine, cx| engine.rekey(id, cx));
        world.run_for(1000);
        assert_eq!(waiting(&world, RIGHT), [spi]);
        let older = ids(&world).into_iter().find(|id| {
            world.ends[LEFT].engine.sa(*id).is_some_and(|sa| sa.children().iter().any(|c| c.spi_in == spi_in))
        });
        world.with(LEFT, |engine, cx| match deletes_all {
            true => engine.terminate(older.expect("it has it"), cx),
            false => engine.terminate_child(spi_in, cx),
        });
        // Packets have one or the other at any time.
        world.is_steady = true;
        let until_ms = world.now_ms + 100;
        while world.step(until_ms) {}
        assert_eq!(world.ends[RIGHT].engine.committing().count(), 0);
        world.check_children(1);
    }
}
