//! Ends that die at any time, and go on with what was kept of them.

use super::{change_child, comes_up, events, only, receive_any, remote_access, world_as};
use crate::{
    connection::Connection,
    crypto::key_log::KeyLog,
    ike_sa::Phase,
    output::Event,
    proposal::Proposals,
    v2::tests::{
        kept::{check_damaged, check_keys_are_told},
        world::{self, LEFT, RIGHT, World},
    },
};

/// How long it takes until what was replaced is deleted.
const BUSY_MS: u64 = 20_000;

/// Where something happens all the time.
const MOST_STEPS: u64 = 40;

/// What is done in a world that is up.
type Does = fn(&mut World, usize);

fn rekeys_a_child(world: &mut World, end: usize) {
    let spi = only(world, end).children()[0].spi_in;
    world.with(end, |engine, cx| assert!(engine.rekey_child(spi, cx)));
}

fn rekeys_the_isakmp_sa(world: &mut World, end: usize) {
    let id = only(world, end).id();
    world.with(end, |engine, cx| assert!(engine.rekey(id, cx)));
}

fn asks_for_another_child(world: &mut World, end: usize) {
    let id = only(world, end).id();
    let child = world.ends[end].config.connections[0].children[1].clone();
    world.with(end, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
}

fn deletes_the_child(world: &mut World, end: usize) {
    let spi = only(world, end).children()[0].spi_in;
    world.with(end, |engine, cx| assert!(engine.terminate_child(spi, cx)));
}

/// Both ask whether the other is there.
fn waits(_: &mut World, _: usize) {}

/// With another child besides.
fn world_with_two(seed: u64, change: fn(&mut Connection)) -> World {
    comes_up(world_as(seed, |end, connection| {
        let (here, there) = (["10.1.0.0/16", "10.4.0.0/16"][end], ["10.4.0.0/16", "10.1.0.0/16"][end]);
        connection.children.push(world::child("more", here, there));
        change(connection);
    }))
}

fn failed(world: &World, end: usize) -> bool {
    events(world, end).iter().any(|e| matches!(e, Event::ChildFailed(..) | Event::Closed(_)))
}

/// Steps happen until something has come to its time; false if there are fewer.
fn step(world: &mut World, steps: u64) -> bool {
    let until = world.now_ms + BUSY_MS;
    (0..steps).all(|_| world.step(until))
}

/// An end dies, and is away for a moment.
fn die(world: &mut World, ends: &[usize]) {
    world.now_ms += 100;
    ends.iter().for_each(|end| world.come_back(*end));
}

/// They go on as they should, with child SAs that packets leave by.
fn go_on(world: &mut World, children: usize) {
    world.check_children(children);
    for end in [LEFT, RIGHT] {
        let before = only(world, end).spis();
        rekeys_the_isakmp_sa(world, end);
        world.run_for(100_000);
        assert_ne!(only(world, end).spis(), before);
        if children > 0 {
            rekeys_a_child(world, end);
            world.run_for(100_000);
        }
        world.check_children(children);
    }
    assert_eq!(only(world, LEFT).spis(), only(world, RIGHT).spis());
    let id = only(world, LEFT).id();
    world.with(LEFT, |engine, cx| assert!(engine.terminate(id, cx)));
    world.run_for(1000);
    assert!(world.ends.iter().all(|end| end.installed.is_empty() && end.engine.ike_sas().count() == 0));
}

/// Whoever dies, and whenever: all is as if nobody had.
#[test]
fn at_any_point_of_an_exchange_an_end_may_die() {
    // With the commit bit or without it.
    type Change = (bool, fn(&mut Connection));
    let changes: [Change; 4] = [
        (false, |_| {}),
        (true, |_| {}),
        (false, |c| c.fragment_octets = 200),
        (false, |c| {
            c.dpd_ms = 4000;
            change_child(c, |child| child.proposals = Proposals::esp(["aes256-sha256"]).unwrap());
        }),
    ];
    let all: [(Does, usize); 5] = [
        (rekeys_a_child, 1),
        (rekeys_the_isakmp_sa, 1),
        (asks_for_another_child, 2),
        (deletes_the_child, 0),
        (waits, 1),
    ];
    for ((commits, change), (n, (does, children))) in
        changes.into_iter().flat_map(|change| all.into_iter().enumerate().map(move |of| (change, of)))
    {
        for (end, dead) in [(LEFT, &[LEFT][..]), (LEFT, &[RIGHT]), (RIGHT, &[RIGHT, LEFT])] {
            for steps in 0.. {
                let mut world = world_with_two(30 + steps, change);
                world.commits = [commits; 2];
                world.keep_both(0);
                // Nobody answers that something is deleted.
                world.is_steady = children > 0;
                let ike = only(&world, LEFT).spis();
                does(&mut world, end);
                let is_over = !step(&mut world, steps);
                die(&mut world, dead);
                // A half-open one that its responder has lost is waited for until it is given up.
                world.run_for(200_000);
                let [left, right] = [LEFT, RIGHT].map(|end| only(&world, end).spis());
                assert_eq!(left, right, "{n}: {end} {dead:?} {steps}");
                if n != 1 || dead.contains(&end) {
                    assert_eq!(left != ike, n == 1, "{n}: {end} {dead:?} {steps}");
                }
                world.check_children(children);
                assert!(
                    n == 1 || !failed(&world, LEFT) && !failed(&world, RIGHT),
                    "{n}: {end} {dead:?} {steps}"
                );
                world.is_steady = false;
                go_on(&mut world, children);
                if is_over || steps > MOST_STEPS {
                    break;
                }
            }
        }
    }
}

/// All that there is of users and addresses is there again.
#[test]
fn users_and_addresses_go_on() {
    for (pushes, dead) in [(false, &[LEFT][..]), (true, &[RIGHT]), (false, &[LEFT, RIGHT])] {
        for steps in 0.. {
            let mut world = remote_access::world_with(1, pushes, |_, _| {});
            world.initiate(LEFT, Some(0));
            let is_up = |world: &World, end: usize| {
                world.ends[end].engine.ike_sas().any(|sa| *sa.phase() == Phase::Established)
            };
            while !is_up(&world, LEFT) || !is_up(&world, RIGHT) {
                assert!(world.step(10_000));
            }
            world.keep_both(0);
            let (spis, is_over) = (only(&world, LEFT).spis(), !step(&mut world, steps));
            die(&mut world, dead);
            world.run_for(100_000);
            remote_access::check_up(&world);
            assert_eq!(only(&world, LEFT).spis(), spis);
            // The next one has the address of this one.
            rekeys_the_isakmp_sa(&mut world, LEFT);
            world.run_for(100_000);
            remote_access::check_up(&world);
            if is_over {
                break;
            }
        }
    }
}

// RFC 3947
#[test]
fn behind_a_nat_it_goes_on_at_its_ports() {
    let mut world = world_as(6, |_, connection| connection.dpd_ms = 4000);
    world.configure(RIGHT, |connection| connection.remote = crate::connection::Hosts::Any);
    world.nat = Some("203.0.113.1:1000".parse().unwrap());
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    world.keep_both(0);
    let spis = only(&world, LEFT).spis();
    for end in [LEFT, RIGHT] {
        die(&mut world, &[end]);
        rekeys_a_child(&mut world, LEFT);
        world.run_for(20_000);
        let installs: Vec<_> = world.ends[end].installed.values().collect();
        let [install] = installs[..] else { panic!("{installs:?}") };
        assert!(install.is_in_udp && install.local.port() == 4500);
        assert_eq!(only(&world, end).spis(), spis);
    }
}

/// However long it was away: what has not been answered meanwhile is asked anew, and what has come to its time is done.
#[test]
fn nobody_is_silent_because_we_were_away() {
    let mut world = world_as(7, |end, connection| {
        // The right end does not ask, so that it does not end it meanwhile.
        connection.dpd_ms = [4000, 0][end];
        connection.ikev1.iter_mut().for_each(|v1| v1.dpd_timeout_ms = 10_000);
        change_child(connection, |child| child.rekey_ms = [100_000, 0][end]);
    });
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    world.keep_both(0);
    world.one_way = Some(RIGHT);
    world.run_for(5000);
    world.one_way = None;
    let before = world.children_of(LEFT);
    world.now_ms += 300_000;
    world.come_back(LEFT);
    world.run_for(60_000);
    assert!(!failed(&world, LEFT));
    world.check_children(1);
    assert_ne!(world.children_of(LEFT), before);
}

/// Parts of what never comes to be a message change nothing that is kept, nor does what is dropped.
#[test]
fn what_anybody_sends_is_not_kept() {
    let mut world = comes_up(world_as(8, |_, connection| connection.fragment_octets = 200));
    world.keep_both(0);
    rekeys_a_child(&mut world, LEFT);
    world.run_for(20_000);
    let is_of_right = |octets: &&Vec<u8>| octets[16] == 132;
    let parts: Vec<Vec<u8>> = world.requests.iter().filter(is_of_right).cloned().collect();
    assert!(!parts.is_empty());
    world.kept = [None, None];
    for mut part in parts {
        *part.last_mut().unwrap() ^= 1;
        receive_any(&mut world, RIGHT, &part);
        assert!(!world.ends[RIGHT].engine.has_changed());
    }
}

/// Who may know them has come with the process that it goes on in.
#[test]
fn keys_of_what_goes_on_are_told_where_it_is_asked() {
    for tells in [false, true] {
        let mut world = comes_up(world_as(9, |_, _| {}));
        world.keep_both(0);
        world.come_back(LEFT);
        check_keys_are_told(&mut world, tells);
        if tells {
            let (KeyLog::V1 { initiator, .. }, _) = world.only_keys(LEFT) else {
                panic!("{:?}", world.only_keys(LEFT))
            };
            assert_eq!(*initiator, only(&world, LEFT).spis().initiator);
        }
    }
}

#[test]
fn what_is_damaged_is_refused() {
    let mut world = comes_up(world_as(7, |_, connection| connection.dpd_ms = 4000));
    world.keep_both(0);
    rekeys_a_child(&mut world, LEFT);
    world.run_for(7000);
    check_damaged(&world);
}
