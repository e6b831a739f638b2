use super::{
    events, rekey_only_child,
    world::{LEFT, RIGHT, World, config, connection},
};
use crate::{
    connection::Child,
    v2::{ike_sa::IkeSa, output::Event},
};
use std::{collections::BTreeSet, sync::Arc};

/// A world in which an end has so many workers, and none takes more of a child SA if it is 0.
fn with_workers(seed: u64, workers: [u16; 2]) -> World {
    let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    for end in [LEFT, RIGHT] {
        world.ends[end].config.workers = workers[end];
        world.configure(end, |connection| {
            let child: &mut Child = Arc::make_mut(&mut connection.children[0]);
            child.per_worker = workers[end] > 0;
        });
    }
    world
}

fn resources(world: &World, end: usize) -> BTreeSet<Option<u32>> {
    world.ends[end].engine.sas().flat_map(IkeSa::children).map(|child| child.resource).collect()
}

fn up_to(workers: u32) -> BTreeSet<Option<u32>> {
    [None].into_iter().chain((0..workers).map(Some)).collect()
}

// RFC 9611 §3
#[test]
fn there_is_a_child_for_each_worker_and_one_for_all() {
    for (workers, children) in [([3, 1], 4), ([1, 3], 2), ([3, 0], 1), ([0, 3], 1)] {
        let mut world = with_workers(1, workers);
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        world.check_children(children);
        let wanted = up_to(children as u32 - 1);
        assert_eq!([LEFT, RIGHT].map(|end| resources(&world, end)), [wanted.clone(), wanted], "{workers:?}");
        assert!(!events(&world, LEFT).iter().any(|event| matches!(event, Event::ChildFailed(..))));
    }
}

// RFC 9611 §4: one in the place of another is for the same resource.
#[test]
fn a_child_that_is_replaced_stays_with_its_worker() {
    for end in [LEFT, RIGHT] {
        let mut world = with_workers(2, [2, 2]);
        world.initiate(LEFT, Some(0));
        world.run_for(10_000);
        world.is_steady = true;
        let before: Vec<u32> = world.ends[end].installed.keys().copied().collect();
        for spi in &before {
            world.with(end, |engine, cx| engine.rekey_child(*spi, cx));
        }
        let id = world.only_sa(end).id();
        world.with(end, |engine, cx| engine.rekey(id, cx));
        world.run_for(10_000);
        world.check_children(3);
        assert!(before.iter().all(|spi| !world.ends[end].installed.contains_key(spi)));
        assert_eq!([LEFT, RIGHT].map(|end| resources(&world, end)), [up_to(2), up_to(2)]);
        // And authenticated anew it has all again.
        let id = world.only_sa(LEFT).id();
        world.with(LEFT, |engine, cx| assert!(engine.reauthenticate(id, cx)));
        world.run_for(10_000);
        world.check_children(3);
        assert_eq!([LEFT, RIGHT].map(|end| resources(&world, end)), [up_to(2), up_to(2)]);
    }
}

// RFC 9611 §5.2
#[test]
fn there_is_an_end_to_them() {
    let mut world = with_workers(3, [2, 2]);
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    let (id, config) = (world.only_sa(LEFT).id(), world.ends[LEFT].config.connections[0].children[0].clone());
    // Each further one has all that there may be more of asked for.
    for _ in 0..80 {
        world.with(LEFT, |engine, cx| engine.initiate_further(id, &config, 7, cx));
    }
    world.run_for(60_000);
    world.check_children(65);
    assert!(!events(&world, LEFT).iter().any(|event| matches!(event, Event::ChildFailed(..))));
}

#[test]
fn whatever_the_network_does_both_have_the_same_for_each_worker() {
    let seeds = 0..200;
    println!("seeds {seeds:?}");
    let mut up = 0;
    for seed in seeds.clone() {
        let mut world = with_workers(seed, [4, 2]);
        world.initiate(LEFT, Some(0));
        (world.loss, world.again, world.late_ms) = (15, 10, 2000);
        world.run_for(20_000);
        if let Some(end) = [LEFT, RIGHT].into_iter().find(|end| world.ends[*end].installed.len() == 1) {
            rekey_only_child(&mut world, end);
        }
        world.run_for(300_000);
        (world.loss, world.again, world.late_ms) = (0, 0, 10);
        world.run_for(300_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            world.check_children(5);
            assert_eq!(resources(&world, LEFT), resources(&world, RIGHT), "seed {seed}");
            up += 1;
        }
    }
    assert!(up > seeds.end * 8 / 10, "{up}");
}
