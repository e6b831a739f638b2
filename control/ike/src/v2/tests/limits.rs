//! What a peer may take that has proven who it is, and what one may that has not yet.

use super::{
    established, established_as, events,
    world::{LEFT, RIGHT, World, config, connection},
};
use crate::{
    message::{ExchangeType, Notify, NotifyType, Payload, Payloads},
    v2::{
        ike_sa::{IkeSa, IkeSaId, Phase},
        output::Event,
        refused::Refused,
    },
};

fn ids(world: &World, end: usize) -> Vec<IkeSaId> {
    let mut ids: Vec<_> = world.ends[end].engine.sas().map(IkeSa::id).collect();
    ids.sort_unstable();
    ids
}

fn replaced_ike_sas(world: &World, end: usize) -> usize {
    world.ends[end].engine.sas().filter(|sa| *sa.phase() == Phase::Replaced).count()
}

/// Until the left end asks.
fn step_until_asked(world: &mut World) {
    while world.only_sa(LEFT).asked.is_none() {
        assert!(world.step(u64::MAX));
    }
}

#[test]
fn who_deletes_no_child_may_replace_few() {
    let mut world = established(60);
    let mut made = 0;
    while made < 300 {
        let Some(old) = world.only_sa(LEFT).children().first().map(|child| child.spi_in) else { break };
        world.with(LEFT, |engine, cx| assert!(engine.rekey_child(old, cx)));
        step_until_asked(&mut world);
        // It forgets what it replaces, and tells nobody.
        let id = world.only_sa(LEFT).id();
        world.with(LEFT, |engine, cx| engine.with(id, cx, |sa, cx| sa.remove_child(old, cx)));
        world.run_for(100);
        made += world.only_sa(LEFT).children().len();
    }
    assert_eq!(made, 9);
    let right = world.only_sa(RIGHT);
    assert_eq!((right.children().len(), right.later.len()), (10, 9));
    // They go, though nobody says so.
    world.run_for(300_000);
    let right = world.only_sa(RIGHT);
    assert_eq!((right.children().len(), right.later.len()), (1, 0));
}

/// All may be replaced before any is deleted.
#[test]
fn who_has_many_children_may_replace_them_all() {
    let mut world = established(61);
    let (id, child) = (world.only_sa(LEFT).id(), world.ends[LEFT].config.connections[0].children[0].clone());
    for _ in 0..39 {
        world.with(LEFT, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
    }
    world.run_for(10_000);
    world.check_children(40);
    for spi in world.ends[LEFT].installed.keys().copied().collect::<Vec<_>>() {
        world.with(LEFT, |engine, cx| assert!(engine.rekey_child(spi, cx)));
    }
    let mut most = 0;
    let until_ms = world.now_ms + 1000;
    while world.step(until_ms) {
        most = most.max(world.only_sa(RIGHT).children().iter().filter(|child| child.is_replaced).count());
    }
    assert_eq!(most, 40);
    world.check_children(40);
    assert!(!events(&world, LEFT).iter().any(|event| matches!(event, Event::ChildFailed(..))));
}

/// What is to be done later for child SAs that are gone is forgotten with the next.
#[test]
fn who_deletes_its_children_leaves_nothing() {
    let mut world = established(62);
    for _ in 0..50 {
        super::rekey_only_child(&mut world, LEFT);
        world.run_for(100);
    }
    world.check_children(1);
    assert_eq!(world.only_sa(RIGHT).later.len(), 1);
}

#[test]
fn who_deletes_no_ike_sa_may_replace_few() {
    let mut world = established(63);
    let mut made = 0;
    while made < 300 {
        let id = world.only_sa(LEFT).id();
        world.with(LEFT, |engine, cx| assert!(engine.rekey(id, cx)));
        step_until_asked(&mut world);
        // It takes it for deleted, and tells nobody.
        world.with(LEFT, |engine, cx| engine.with(id, cx, |sa, _| sa.is_deleted = true));
        world.run_for(100);
        if world.only_sa(LEFT).id() == id {
            world.with(LEFT, |engine, cx| engine.with(id, cx, |sa, _| sa.is_deleted = false));
            break;
        }
        made += 1;
    }
    assert_eq!((made, replaced_ike_sas(&world, RIGHT)), (8, 8));
    world.check_children(1);
    // They go, and it has been asked again until then.
    world.run_for(900_000);
    assert_eq!((ids(&world, LEFT).len(), ids(&world, RIGHT).len()), (1, 1));
    assert_eq!(world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis());
    assert!(world.only_sa(LEFT).established_ms() > Some(100_000), "it has been replaced");
    world.check_children(1);
}

#[test]
fn there_is_an_end_to_ike_sas() {
    let mut right = config(connection("b", RIGHT));
    (right.most_ike_sas, right.most_half_open_of_one) = (3, 100);
    let mut world = World::new(64, [config(connection("a", LEFT)), right]);
    for _ in 0..5 {
        world.initiate(LEFT, None);
        world.run_for(1000);
    }
    let is_full = |world: &World| {
        let refused = &world.ends[RIGHT].refused;
        !refused.is_empty() && refused.iter().all(|why| *why == Refused::Full)
    };
    assert_eq!(ids(&world, RIGHT).len(), 3);
    assert!(is_full(&world), "{:?}", world.ends[RIGHT].refused);
    // Those that are there go on with new keys.
    let all = ids(&world, RIGHT);
    world.with(RIGHT, |engine, cx| all.iter().for_each(|id| assert!(engine.rekey(*id, cx))));
    world.run_for(1000);
    let anew = ids(&world, RIGHT);
    assert!(anew.len() == 3 && all.iter().all(|id| !anew.contains(id)));
    // Where one goes, one that waits has its place.
    world.with(RIGHT, |engine, cx| assert!(engine.terminate(anew[0], cx)));
    world.run_for(60_000);
    assert_eq!(ids(&world, RIGHT).len(), 3);
    assert!(!ids(&world, RIGHT).contains(&anew[0]) && is_full(&world));
}

/// What of messages in fragments does not come is counted for half-open ones, until they are none.
#[test]
fn fragments_of_half_open_ones_are_counted() {
    let mut some = 0;
    for seed in 0..50 {
        let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        [LEFT, RIGHT].into_iter().for_each(|end| world.configure(end, |c| c.fragment_octets = 300));
        world.loss = 40;
        world.initiate(LEFT, Some(0));
        while world.step(600_000) {
            let held = world.ends[RIGHT].engine.unproven_octets();
            some += usize::from(held > 0);
            assert!(held == 0 || world.ends[RIGHT].engine.half_open() == 1);
        }
        assert_eq!(world.ends[RIGHT].engine.unproven_octets(), 0);
    }
    assert!(some > 0);
}

// RFC 7296 §2.3
#[test]
fn a_wider_window_of_the_peer_changes_nothing() {
    let mut world = established_as(65, |connection| connection.fragment_octets = 0);
    let id = world.only_sa(LEFT).id();
    let says = Notify::new(NotifyType::SET_WINDOW_SIZE, &64u32.to_be_bytes());
    let says = Payloads(vec![Payload::Notify(says)]);
    world.with(LEFT, |engine, cx| {
        engine.with(id, cx, |sa, cx| _ = sa.ask(ExchangeType::INFORMATIONAL, &says, cx))
    });
    world.run_for(1000);
    assert!(world.only_sa(LEFT).is_asking_nothing(), "it is answered");
    // Of three things that it has to ask, the peer asks one until that is answered.
    let (id, child) =
        (world.only_sa(RIGHT).id(), world.ends[RIGHT].config.connections[0].children[0].clone());
    let asked = world.requests.len();
    world.one_way = Some(LEFT);
    for _ in 0..3 {
        world.with(RIGHT, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
    }
    world.run_for(20_000);
    assert_eq!(world.requests.len(), asked + 1);
    world.one_way = None;
    world.run_for(60_000);
    assert_eq!(world.requests.len(), asked + 3);
    world.check_children(4);
}
