//! Child SAs whose connection is another meanwhile, and those that there is no room for.

use super::{
    established, events, rekey_only_child,
    world::{LEFT, RIGHT, World, child, config, connection},
};
use crate::{
    connection::{Child, Hosts},
    traffic_selector::Policy,
    v2::{child::EndedBy, output::Event},
};
use portcullis_sadb::Mode;
use std::sync::Arc;

/// What the child SAs of an end are for, at our end.
fn local(world: &World, end: usize) -> Vec<String> {
    let mut all: Vec<_> =
        world.only_sa(end).children().iter().map(|child| child.policy.local.to_string()).collect();
    all.sort_unstable();
    all
}

/// The children of both ends are others, though of the same name.
fn reload(world: &mut World) {
    let nets = ["10.1.7.0/24", "10.2.7.0/24"];
    for end in [LEFT, RIGHT] {
        world.configure(end, |c| {
            (c.mark, c.children) = (1, vec![child("net", nets[end], nets[1 - end])]);
        });
        let now = world.ends[end].config.connections.clone();
        world.ends[end].engine.follow_connections(&now);
    }
}

/// What replaces a child SA is for no less than that is in use for (RFC 7296 §2.9.2), whatever is configured meanwhile.
#[test]
fn what_replaces_a_child_is_for_the_same_and_further_ones_are_of_the_new_configuration() {
    for by in [LEFT, RIGHT] {
        let mut world = established(3);
        let before = [LEFT, RIGHT].map(|end| local(&world, end));
        assert_eq!(before[0], ["10.1.0.0/16"]);
        reload(&mut world);
        let spi = world.only_sa(LEFT).children()[0].spi_in;
        rekey_only_child(&mut world, by);
        world.run_until_quiet();
        world.check_children(1);
        assert_ne!(world.only_sa(LEFT).children()[0].spi_in, spi);
        assert_eq!([LEFT, RIGHT].map(|end| local(&world, end)), before);
        let (id, net) = (world.only_sa(by).id(), world.ends[by].config.connections[0].children[0].clone());
        world.with(by, |engine, cx| engine.initiate_child(id, &net, cx));
        world.run_until_quiet();
        world.check_children(2);
        assert_eq!(local(&world, LEFT), ["10.1.0.0/16", "10.1.7.0/24"]);
        // It is of this configuration from now on.
        assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).connection().mark), [1, 1]);
    }
}

/// What is at the end of its time has not been ended by anybody; what is taken down has.
#[test]
fn what_is_too_old_has_ended_by_its_age() {
    for is_old in [false, true] {
        let mut world = established(4);
        let spi = world.only_sa(LEFT).children()[0].spi_in;
        world.with(LEFT, |engine, cx| match is_old {
            true => engine.expire_child(spi, cx),
            false => engine.terminate_child(spi, cx),
        });
        world.run_for(1000);
        world.check_children(0);
        assert_eq!(world.ends[LEFT].ended, vec![EndedBy::Age; usize::from(is_old)]);
        assert_eq!(world.ends[RIGHT].ended, [EndedBy::Peer]);
    }
}

/// Of hosts behind NATs packets have other addresses than they know themselves.
// RFC 7296 §2.23.1
#[test]
fn transport_mode_goes_through_a_nat() {
    for (mode, by) in [(Mode::Transport, LEFT), (Mode::Transport, RIGHT), (Mode::Tunnel, LEFT)] {
        let mut world = World::new(7, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        for end in [LEFT, RIGHT] {
            let host = Child { mode: Mode::Transport, ..(*child("host", "dynamic[udp]", "dynamic")).clone() };
            world.configure(end, |c| c.children = vec![Arc::new(host)]);
        }
        if mode == Mode::Tunnel {
            let net = child("host", "dynamic[udp]", "dynamic");
            world.configure(LEFT, |c| c.children = vec![net]);
        }
        world.configure(RIGHT, |c| c.remote = Hosts::Any);
        world.nat = Some("203.0.113.1:1000".parse().unwrap());
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        if mode == Mode::Tunnel {
            // Inside of a tunnel packets have the addresses that they were sent with.
            let failed = |event: &Event| matches!(event, Event::ChildFailed(..));
            assert!(events(&world, RIGHT).iter().any(failed), "{:?}", events(&world, RIGHT));
            continue;
        }
        rekey_only_child(&mut world, by);
        world.run_until_quiet();
        for (end, [ours, theirs]) in
            [(LEFT, ["192.0.2.1", "192.0.2.2"]), (RIGHT, ["192.0.2.2", "203.0.113.1"])]
        {
            let [install] = &world.ends[end].installed.values().collect::<Vec<_>>()[..] else { panic!() };
            let Policy { local, remote } = &*install.sa.policy;
            assert!(install.sa.mode == Mode::Transport && install.is_in_udp);
            let host = |ip: &str| format!("{ip}/32[udp]");
            assert_eq!((local.to_string(), remote.to_string()), (host(ours), host(theirs)), "{end} {by}");
        }
    }
}

/// Whichever end tries first: who answers looks for room before it does (RFC 7296 §2.8), and who asks deletes what is new.
#[test]
fn what_cannot_be_replaced_stays_and_is_tried_again() {
    let seeds = 0..200;
    println!("seeds {seeds:?}");
    let mut refused = 0;
    for (seed, by) in seeds.clone().flat_map(|seed| [(seed, LEFT), (seed, RIGHT)]) {
        let mut world = established(seed);
        (world.is_steady, world.late_ms) = (true, seed % 4 * 300);
        let spis = |world: &World| [LEFT, RIGHT].map(|end| world.only_sa(end).children()[0].spi_in);
        let before = spis(&world);
        world.full = Some((by, 100));
        rekey_only_child(&mut world, by);
        world.run_for(50_000);
        world.check_children(1);
        assert_eq!(spis(&world), before);
        for end in [LEFT, RIGHT] {
            let child = &world.only_sa(end).children()[0];
            assert!(!child.is_replaced && child.successor.is_none() && child.rekey_at_ms < u64::MAX);
        }
        // Longer than the peer would have to delete what it has replaced.
        world.run_for(300_000);
        assert_eq!(spis(&world), before);
        world.full = None;
        world.run_for(300_000);
        world.check_children(1);
        assert_ne!(spis(&world), before);
        assert!(!events(&world, by).iter().any(|event| matches!(event, Event::Closed(_))));
        let has_refused = |event: &Event| matches!(event, Event::ChildFailed(..));
        refused += usize::from(events(&world, by).iter().any(has_refused));
    }
    assert!(refused as u64 > seeds.end, "{refused} have answered, too");
}

/// Whatever both replace, and whatever there is no room for: in the end both have the same.
#[test]
fn wherever_there_is_no_room_both_have_the_same() {
    let seeds = 0..500;
    println!("seeds {seeds:?}");
    let mut alive = 0;
    for seed in seeds.clone() {
        let mut world = established(seed);
        (world.late_ms, world.loss, world.again) = (2000, 10, 10);
        for _ in 0..6 {
            let (end, full) = (world.below(2) as usize, world.below(2) as usize);
            world.full = Some((full, 50));
            let spis: Vec<u32> =
                world.ends[end].engine.sas().flat_map(|sa| sa.children()).map(|child| child.spi_in).collect();
            let Some(spi) = spis.get(world.below(spis.len() as u64) as usize).copied() else { break };
            world.with(end, |engine, cx| engine.rekey_child(spi, cx));
            let ms = world.below(6000);
            world.run_for(ms);
        }
        world.full = None;
        world.run_for(3_000_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            let children = world.ends[LEFT].installed.len();
            world.check_children(children);
            alive += usize::from(children > 0);
        }
    }
    println!("{alive} have a child SA");
    assert!(alive > 100, "{alive}");
}
