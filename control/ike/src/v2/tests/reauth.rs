use super::{
    established, established_as, events, rekey_only_child,
    world::{LEFT, RIGHT, World, address, child, config, connection},
};
use crate::{
    connection::{Connection, Hosts, Unique},
    v2::{ike_sa::Phase, output::Event, window::Retransmission},
};
use std::net::IpAddr;

fn reauthenticate(world: &mut World, end: usize) -> bool {
    let id = world.only_sa(end).id();
    world.with(end, |engine, cx| engine.reauthenticate(id, cx))
}

fn ups(world: &World, end: usize) -> usize {
    events(world, end).iter().filter(|event| **event == Event::Established).count()
}

// RFC 7296 §2.8.3
#[test]
fn who_has_begun_authenticates_anew_without_a_gap() {
    for unique in [Unique::No, Unique::Never, Unique::Keep, Unique::Replace] {
        let mut world = established(1);
        world.configure(RIGHT, |connection| connection.unique = unique);
        world.is_steady = true;
        let before = (world.only_sa(LEFT).spis(), world.only_sa(LEFT).children()[0].spi_in);
        assert!(!reauthenticate(&mut world, RIGHT), "it is not for who has answered");
        assert!(reauthenticate(&mut world, LEFT));
        world.run_until_quiet();
        world.check_children(1);
        let after = (world.only_sa(LEFT).spis(), world.only_sa(LEFT).children()[0].spi_in);
        assert!(after.0 == world.only_sa(RIGHT).spis() && after.0 != before.0 && after.1 != before.1);
        assert_eq!([LEFT, RIGHT].map(|end| ups(&world, end)), [2, 2], "{unique:?}");
        // Of the right end too, nothing is left to be asked later.
        world.run_for(1_000_000);
        world.check_children(1);
        assert_eq!([LEFT, RIGHT].map(|end| ups(&world, end)), [2, 2], "{unique:?}");
    }
}

/// All children come anew, those of a rekeyed IKE SA too.
#[test]
fn all_children_come_anew() {
    let mut world = World::new(2, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    let nets = [("net", "10.1.0.0/16", "10.2.0.0/16"), ("six", "fd01::/16", "fd02::/16")];
    for (end, (name, left, right)) in [LEFT, RIGHT].into_iter().flat_map(|end| nets.map(|net| (end, net))) {
        let (local, remote) = if end == LEFT { (left, right) } else { (right, left) };
        world.configure(end, |connection| {
            connection.children.retain(|child| child.name != name);
            connection.children.push(child(name, local, remote));
        });
    }
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let (id, six) = (world.only_sa(LEFT).id(), world.ends[LEFT].config.connections[0].children[1].clone());
    world.with(LEFT, |engine, cx| engine.initiate_child(id, &six, cx));
    let id = world.only_sa(RIGHT).id();
    world.with(RIGHT, |engine, cx| engine.rekey(id, cx));
    world.run_until_quiet();
    world.check_children(2);
    let before: Vec<u32> = world.ends[LEFT].installed.keys().copied().collect();
    world.is_steady = true;
    assert!(reauthenticate(&mut world, LEFT), "it has begun the first");
    world.run_until_quiet();
    world.check_children(2);
    assert!(before.iter().all(|spi| !world.ends[LEFT].installed.contains_key(spi)));
    let mut names: Vec<_> =
        world.ends[RIGHT].installed.values().map(|install| &*install.sa.config.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["net", "six"]);
}

/// What has none of the children does not take the place of what has them: it is tried again.
#[test]
fn what_the_peer_gives_no_child_takes_no_place() {
    let mut world = established(6);
    world.is_steady = true;
    let (spis, children) =
        (world.only_sa(LEFT).spis(), world.ends[RIGHT].config.connections[0].children.clone());
    world.configure(RIGHT, |c| c.children = vec![child("other", "10.4.0.0/16", "10.3.0.0/16")]);
    assert!(reauthenticate(&mut world, LEFT));
    world.run_for(300_000);
    assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).spis()), [spis; 2]);
    world.check_children(1);
    world.configure(RIGHT, |c| c.children = children);
    world.run_for(200_000);
    assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).spis() == spis), [false; 2]);
    world.check_children(1);
}

/// A child that the peer refuses does not keep the others, and is asked for again.
#[test]
fn what_the_peer_refuses_is_asked_for_when_the_others_are_there() {
    let mut world = World::new(7, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    for (end, [local, remote]) in [(LEFT, ["fd01::/16", "fd02::/16"]), (RIGHT, ["fd02::/16", "fd01::/16"])] {
        world.configure(end, |c| c.children.push(child("six", local, remote)));
    }
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let (id, six) = (world.only_sa(LEFT).id(), world.ends[LEFT].config.connections[0].children[1].clone());
    world.with(LEFT, |engine, cx| engine.initiate_child(id, &six, cx));
    world.run_until_quiet();
    world.check_children(2);
    let six = world.ends[RIGHT].config.connections[0].children[1].clone();
    world.configure(RIGHT, |c| _ = c.children.pop());
    assert!(reauthenticate(&mut world, LEFT));
    world.run_for(5000);
    world.check_children(1);
    world.configure(RIGHT, |c| c.children.push(six));
    let connections = world.ends[RIGHT].config.connections.clone();
    world.ends[RIGHT].engine.follow_connections(&connections);
    world.run_for(20_000);
    assert_ne!(world.only_sa(LEFT).id(), id);
    world.check_children(2);
}

fn for_a_while(connection: &mut Connection) {
    (connection.reauth_ms, connection.over_ms, connection.rand_ms) = (100_000, 50_000, 10_000);
}

// RFC 4478 §2: who has begun does it by the time of either.
#[test]
fn it_is_done_again_and_again_by_the_time_of_either() {
    for by in [LEFT, RIGHT] {
        let mut world = World::new(3, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        world.configure(by, for_a_while);
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        world.is_steady = true;
        world.run_for(1_049_000);
        world.check_children(1);
        world.only_sa(RIGHT);
        let times = ups(&world, RIGHT);
        assert!((11..=12).contains(&times), "{times} times in 1,050 s, each 90 to 100 s");
    }
}

// RFC 4478 §2
#[test]
fn who_does_not_do_it_is_left() {
    let mut world = established_as(4, |connection| {
        if connection.name == "b" {
            for_a_while(connection);
        }
    });
    // The peer does not find us any more, and what it has gets through.
    let id = world.only_sa(LEFT).id();
    world.with(LEFT, |engine, cx| engine.rekey(id, cx));
    world.run_for(1000);
    world.ends[RIGHT].config.shared_keys.clear();
    world.run_for(600_000);
    let all = events(&world, RIGHT);
    let closed: Vec<_> = all.iter().filter(|event| matches!(event, Event::Closed(_))).collect();
    assert!(closed.iter().any(|event| **event == Event::Closed("deleted".into())), "{closed:?}");
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].installed.len()), [0, 0]);
}

/// What is taken down while it authenticates anew stays down.
#[test]
fn who_is_taken_down_meanwhile_stays_down() {
    for after_ms in 0..60 {
        let mut world = established_as(after_ms, |connection| connection.dpd_ms = 30_000);
        world.late_ms = 10;
        let id = world.only_sa(LEFT).id();
        reauthenticate(&mut world, LEFT);
        world.run_for(after_ms);
        if world.ends[LEFT].engine.sa(id).is_none_or(|sa| *sa.phase() != Phase::Established) {
            continue;
        }
        world.with(LEFT, |engine, cx| engine.terminate(id, cx));
        world.run_until_quiet();
        world.check_children(0);
        assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), [0, 0], "{after_ms} ms");
    }
}

/// Whatever the network does, and whatever is replaced meanwhile.
#[test]
fn whatever_the_network_does_packets_have_an_sa() {
    let seeds = 0..500;
    println!("seeds {seeds:?}");
    let mut anew = 0;
    for seed in seeds.clone() {
        let mut world = established_as(seed, |connection| {
            let patient = Retransmission { tries: 16, limit_ms: 10_000, ..Retransmission::default() };
            connection.retransmission = patient;
        });
        world.is_steady = true;
        (world.late_ms, world.loss, world.again) = (seed * 4, seed as u32 % 3 * 10, seed as u32 % 5);
        let before = ups(&world, LEFT);
        reauthenticate(&mut world, LEFT);
        let ms = world.below(3000);
        world.run_for(ms);
        let end = world.below(2) as usize;
        match world.below(3) {
            0 if world.ends[end].engine.sas().count() == 1 => rekey_only_child(&mut world, end),
            1 if world.ends[end].engine.sas().count() == 1 => {
                let id = world.only_sa(end).id();
                world.with(end, |engine, cx| engine.rekey(id, cx));
            }
            _ => {}
        }
        // Nobody is deleted because of silence, but who has not been heard may be there twice.
        world.run_for(3_000_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            world.check_children(1);
            anew += ups(&world, LEFT) - before;
        }
    }
    assert!(anew as u64 > seeds.end * 8 / 10, "{anew}");
}

/// Who comes from elsewhere with the name of who is there is refused, if that is to stay.
#[test]
fn who_comes_from_elsewhere_does_not_take_the_place() {
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
    let mut world = established_as(5, |connection| {
        if connection.name == "b" {
            (connection.unique, connection.remote) = (Unique::Keep, Hosts::Any);
        }
    });
    let first = world.only_sa(RIGHT).spis();
    world.addresses[LEFT] = ELSEWHERE;
    let connection = world.ends[LEFT].config.connections[0].clone();
    world.with(LEFT, |engine, cx| engine.initiate(&connection, None, (ELSEWHERE, address(RIGHT)), cx));
    world.run_for(10_000);
    let refused = Event::Closed("there is an IKE SA with left.example.org already".into());
    assert_eq!(events(&world, RIGHT).last(), Some(&refused));
    assert_eq!(world.only_sa(RIGHT).spis(), first);
}
