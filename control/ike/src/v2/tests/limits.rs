//! What a peer may take that has proven who it is.

use super::{
    established, events,
    world::{LEFT, RIGHT, World},
};
use crate::v2::output::Event;

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
