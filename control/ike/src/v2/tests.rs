//! Two engines in a box: a network that loses, repeats and mixes up what it carries, and jobs that take their time.

mod child;
pub(crate) mod configuration;
mod eap;
mod followup;
mod id_sync;
mod intermediate;
pub(crate) mod kept;
mod last_answer;
mod limits;
mod mobike;
mod packet;
mod ppk;
mod puzzle;
mod reauth;
mod redirect;
mod resource;
mod resumption;
mod rounds;
mod seeds;
mod settings;
pub(crate) mod signatures;
mod unique;
mod unknown;
mod waiting;
pub(crate) mod world;

use super::{
    child::ChildSa,
    ike_sa::Phase,
    job::Job,
    output::{Datagram, Event, JobId},
    refused::Refused,
};
use crate::{
    connection::{Connection, Unique},
    crypto::keys::Role,
    message::{
        ExchangeType, Flags, Header, IkeSpi, Message, Notify, NotifyType, Payload, PayloadType, Payloads,
        Version,
    },
};
use std::{ops::Range, sync::Arc};
use world::{LEFT, RIGHT, World, config, connection};

/// The events of an end, without the IKE SAs that they are of.
fn events(world: &World, end: usize) -> Vec<Event> {
    world.ends[end].events.iter().map(|(_, event)| event.clone()).collect()
}

#[test]
fn an_ike_sa_and_its_child_come_up() {
    let mut world = World::new(1, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    for end in [LEFT, RIGHT] {
        let [Event::Established, Event::ChildUp(name, _)] = &events(&world, end)[..] else {
            panic!("{:?}", world.ends[end].events);
        };
        assert_eq!(name, "net");
        let sa = world.only_sa(end);
        assert_eq!((sa.phase(), sa.children().len()), (&Phase::Established, 1));
    }
    assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).role()), [Role::Initiator, Role::Responder]);
    world.check_children(1);
    assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
    // One end deletes the child, the other one the IKE SA.
    let spi = world.only_sa(RIGHT).children()[0].spi_in;
    world.with(RIGHT, |engine, cx| assert!(engine.terminate_child(spi, cx)));
    world.run_until_quiet();
    world.check_children(0);
    let id = world.only_sa(LEFT).id();
    world.with(LEFT, |engine, cx| assert!(engine.terminate(id, cx)));
    world.run_until_quiet();
    for (end, why) in [(LEFT, "deleted"), (RIGHT, "the peer has deleted it")] {
        assert_eq!(world.ends[end].engine.sas().count(), 0);
        assert_eq!(events(&world, end).last(), Some(&Event::Closed(why.into())));
    }
}

/// Whatever the network does, what both have in the end is the same.
#[test]
fn whatever_the_network_does_both_have_the_same() {
    let seeds = 0..2000;
    println!("seeds {seeds:?}");
    let mut up = 0;
    for seed in seeds.clone() {
        let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        (world.loss, world.again, world.late_ms) = (20, 10, 3000);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        if world.ends[LEFT].engine.sas().count() == 1 {
            up += 1;
            world.check_children(1);
        } else {
            // It gave up; the other may believe for a while that it is there.
            assert_eq!(world.ends[LEFT].installed.len(), 0, "seed {seed}");
        }
    }
    assert!(up > seeds.end * 9 / 10, "{up}");
}

/// A world in which the IKE SA and its first child are up.
fn established(seed: u64) -> World {
    established_as(seed, |_| {})
}

/// The same, with other connections.
fn established_as(seed: u64, change: fn(&mut Connection)) -> World {
    let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    [LEFT, RIGHT].into_iter().for_each(|end| world.configure(end, change));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    world
}

fn rekey_only_child(world: &mut World, end: usize) {
    let spi = world.only_sa(end).children()[0].spi_in;
    world.with(end, |engine, cx| assert!(engine.rekey_child(spi, cx)));
}

// RFC 7296 §2.8
#[test]
fn a_child_is_replaced_without_a_gap_by_either_end() {
    for end in [LEFT, RIGHT] {
        let mut world = established(10);
        world.is_steady = true;
        let before: Vec<u32> = world.ends[LEFT].installed.keys().copied().collect();
        rekey_only_child(&mut world, end);
        world.run_until_quiet();
        world.check_children(1);
        assert!(!before.contains(world.ends[LEFT].installed.keys().next().unwrap()));
        // With a key exchange of its own, which the first one had not.
        let sa = &world.ends[LEFT].installed.values().next().unwrap().sa;
        assert!(sa.agreement.key_exchange().is_some() && sa.agreement.esn());
    }
}

// RFC 7296 §2.8.1
#[test]
fn one_is_left_where_both_replace_it_at_once() {
    let both = both_replace_a_child(0..500, |_| {});
    assert!(both > 400, "{both} times both had asked");
}

/// How often both had asked.
fn both_replace_a_child(seeds: Range<u64>, change: fn(&mut Connection)) -> usize {
    println!("seeds {seeds:?}");
    let mut both = 0;
    for seed in seeds {
        let mut world = established_as(seed, change);
        world.is_steady = true;
        // In the network and in jobs: long, or so short that both ends' keys are there at the same time.
        world.late_ms = if seed % 2 == 0 { seed * 4 } else { seed % 7 };
        (world.loss, world.again) = (seed as u32 % 3 * 10, seed as u32 % 5);
        let before = world.ends[LEFT].next_spi;
        rekey_only_child(&mut world, LEFT);
        rekey_only_child(&mut world, RIGHT);
        if world.loss == 0 {
            // Each answers once, and what has lost does not wait until it is old.
            world.run_for(60_000);
            world.check_children(1);
        }
        world.run_for(3_000_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            world.check_children(1);
            both += usize::from(world.ends[LEFT].next_spi == before + 2);
        }
    }
    both
}

// RFC 7296 §2.25.1: a request to replace what is being replaced is answered as usual, though our own response, which came
// behind it, is worked out before the answer.
#[test]
fn what_came_first_is_answered_first() {
    for seed in 0..20 {
        let mut world = established(seed);
        (world.is_steady, world.slow) = (true, Some((LEFT, 5)));
        rekey_only_child(&mut world, LEFT);
        world.run_for(5);
        rekey_only_child(&mut world, RIGHT);
        let is_answer = |(_, id, _): &&mut (u64, JobId, Job)| id.answers;
        while !world.ends[LEFT].jobs.iter_mut().any(|job| is_answer(&job)) {
            world.run_for(1);
        }
        world.ends[LEFT].jobs.iter_mut().filter(is_answer).for_each(|(done_ms, ..)| *done_ms += 50);
        world.run_for(5_000);
        world.check_children(1);
        // What both had, and one of the two that were to take its place.
        assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].gone.len()), [2, 2], "seed {seed}");
    }
}

// RFC 7296 §2.8.1: what the peer has lost with is for it to delete. Where it learns of that late, it is not replaced in its turn:
// a peer that knows of none would have us begin another, and there would be two from then on.
#[test]
fn what_has_lost_is_not_replaced() {
    for seed in 0..20 {
        let mut world = established_as(seed, |connection| {
            Arc::make_mut(&mut connection.children[0]).rekey_ms = 60_000;
        });
        (world.is_steady, world.slow) = (true, Some((RIGHT, 5)));
        rekey_only_child(&mut world, RIGHT);
        world.run_for(5);
        rekey_only_child(&mut world, LEFT);
        let is_finish = |(_, id, _): &&mut (u64, JobId, Job)| !id.answers;
        while !world.ends[RIGHT].jobs.iter_mut().any(|job| is_finish(&job)) {
            world.run_for(1);
        }
        world.ends[RIGHT].jobs.iter_mut().filter(is_finish).for_each(|(done_ms, ..)| *done_ms += 5_000);
        world.run_for(2_000);
        let is_to_be_replaced = |child: &&ChildSa| child.rekey_at_ms < u64::MAX;
        assert_eq!(world.only_sa(LEFT).children().iter().filter(is_to_be_replaced).count(), 1, "seed {seed}");
        world.run_for(10_000);
        world.check_children(1);
    }
}

// RFC 7296 §2.25.1: of what is not there the peer says so, and we begin another.
#[test]
fn nothing_is_replaced_that_the_peer_has_not_heard_of() {
    let mut world = established_as(1, |connection| {
        Arc::make_mut(&mut connection.children[0]).rekey_ms = 1_000;
    });
    (world.is_steady, world.slow) = (true, Some((RIGHT, 5)));
    rekey_only_child(&mut world, RIGHT);
    let asks = |(_, id, _): &(u64, JobId, Job)| !id.answers;
    world.run_for(6);
    while !world.ends[RIGHT].jobs.iter().any(asks) {
        world.run_for(1);
    }
    // It works out its keys for long.
    world.ends[RIGHT].jobs[0].0 += 5_000;
    let created = |world: &World| {
        let is_one = |octets: &&Vec<u8>| {
            Header::parse(octets).is_ok_and(|(h, ..)| h.exchange == ExchangeType::CREATE_CHILD_SA)
        };
        world.requests.iter().filter(is_one).count()
    };
    let before = created(&world);
    world.run_for(4_000);
    assert_eq!(created(&world), before);
    world.run_for(30_000);
    assert!(created(&world) > before + 10, "then it goes on as before: {} times", created(&world) - before);
}

// RFC 7296 §2.18
#[test]
fn an_ike_sa_is_replaced_and_its_children_stay() {
    for end in [LEFT, RIGHT] {
        let mut world = established(20);
        world.is_steady = true;
        let (before, children) = (world.only_sa(LEFT).spis(), world.only_sa(LEFT).children()[0].spi_in);
        let id = world.only_sa(end).id();
        world.with(end, |engine, cx| assert!(engine.rekey(id, cx)));
        world.run_until_quiet();
        world.check_children(1);
        let [left, right] = [LEFT, RIGHT].map(|end| world.only_sa(end));
        assert_eq!((left.spis(), left.children()[0].spi_in), (right.spis(), children));
        assert_ne!(left.spis(), before);
        assert_eq!(
            (left.role() == Role::Initiator, right.role() == Role::Initiator),
            (end == LEFT, end == RIGHT)
        );
        // And go on as before.
        rekey_only_child(&mut world, 1 - end);
        world.run_until_quiet();
        world.check_children(1);
    }
}

/// Packets by what the peer has replaced and deleted may be under way, though we were about to replace it, too.
#[test]
fn what_both_replace_is_known_to_be_replaced_when_it_goes() {
    for seed in 0..20 {
        let mut world = established(seed);
        world.slow = Some((LEFT, 50));
        let old = [LEFT, RIGHT].map(|end| world.only_sa(end).children()[0].spi_in);
        for end in [LEFT, RIGHT] {
            world.with(end, |engine, cx| engine.rekey_child(old[end], cx));
        }
        world.run_for(5_000);
        world.check_children(1);
        for end in [LEFT, RIGHT] {
            assert!(
                world.ends[end].gone.contains(&(old[end], true)),
                "seed {seed}: {:?}",
                world.ends[end].gone
            );
        }
    }
}

/// Nor is it begun again when it goes, though the answer to ours was lost.
#[test]
fn what_the_peer_has_replaced_has_not_ended() {
    let mut won = 0;
    for seed in 0..20 {
        let mut world = established(seed);
        (world.slow, world.unanswered) = (Some((LEFT, 50)), Some(RIGHT));
        let old = [LEFT, RIGHT].map(|end| world.only_sa(end).children()[0].spi_in);
        for end in [LEFT, RIGHT] {
            world.with(end, |engine, cx| engine.rekey_child(old[end], cx));
        }
        world.run_for(5_000);
        won += usize::from(!world.ends[LEFT].installed.contains_key(&old[LEFT]));
        world.unanswered = None;
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(world.ends[LEFT].ended, [], "seed {seed}");
    }
    assert!(won > 0, "the peer has deleted it before its answer came");
}

// RFC 7296 §2.8.2
#[test]
fn one_ike_sa_is_left_where_both_replace_it_at_once() {
    let alive = both_replace_an_ike_sa(0..500, |_| {});
    assert!(alive > 480, "{alive}");
}

// What its responder asks under an IKE SA whose initiator still makes its keys would be lost, and sent again after seconds.
#[test]
fn nothing_is_asked_of_who_has_no_keys_yet() {
    for seed in 0..20 {
        let mut world = established(seed);
        (world.is_steady, world.slow) = (true, Some((LEFT, 5 * seed)));
        let (id, before) = (world.only_sa(LEFT).id(), world.only_sa(LEFT).spis());
        world.with(LEFT, |engine, cx| engine.rekey(id, cx));
        while world.ends[RIGHT].engine.sas().count() == 1 {
            world.run_for(1);
        }
        let spi = *world.ends[RIGHT].installed.keys().next().expect("a child SA");
        world.with(RIGHT, |engine, cx| assert!(engine.rekey_child(spi, cx)));
        world.run_for(1000);
        world.check_children(1);
        assert_ne!(world.only_sa(RIGHT).spis(), before);
        assert!(!world.ends[RIGHT].installed.contains_key(&spi), "seed {seed}");
    }
}

// RFC 7296 §2.8.2: who has won deletes the old one while the other still makes the keys of what has lost.
#[test]
fn what_has_lost_is_deleted_though_its_keys_came_late() {
    for seed in 0..20 {
        let mut world = established_as(seed, |_| {});
        world.is_steady = true;
        world.slow = Some((LEFT, 50));
        for end in [LEFT, RIGHT] {
            let id = world.only_sa(end).id();
            world.with(end, |engine, cx| engine.rekey(id, cx));
        }
        world.run_for(5_000);
        assert_eq!(world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis(), "seed {seed}");
        world.check_children(1);
    }
}

// Who has lost, and has not got the answer to what it asked before the old one was deleted, cannot delete what it knows nothing
// of. strongSwan does not take an answer while it works at a request with the same ID.
#[test]
fn what_has_lost_goes_though_the_peer_does_not_know_it() {
    let mut won = 0;
    for seed in 0..20 {
        let mut world = established(seed);
        (world.is_steady, world.unanswered) = (true, Some(LEFT));
        let before = world.only_sa(RIGHT).spis();
        for end in [LEFT, RIGHT] {
            let id = world.only_sa(end).id();
            world.with(end, |engine, cx| engine.rekey(id, cx));
        }
        world.run_for(1_000);
        world.unanswered = None;
        let has_won = world.only_sa(RIGHT).spis() != before;
        if has_won {
            won += 1;
            assert_eq!(world.ends[LEFT].engine.sas().count(), 2, "seed {seed}");
        }
        let asked = world.requests.len();
        world.run_for(30_000);
        assert_eq!(world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis(), "seed {seed}");
        world.check_children(1);
        assert!(!has_won || world.requests.len() == asked, "nothing is asked under it, seed {seed}");
    }
    assert!(won > 0 && won < 20, "either has won: {won}");
}

/// How often one is left.
fn both_replace_an_ike_sa(seeds: Range<u64>, change: fn(&mut Connection)) -> usize {
    println!("seeds {seeds:?}");
    let mut alive = 0;
    for seed in seeds {
        let mut world = established_as(seed, change);
        let before = world.only_sa(LEFT).spis();
        world.is_steady = true;
        (world.late_ms, world.loss, world.again) = (seed * 4, seed as u32 % 3 * 10, seed as u32 % 5);
        for end in [LEFT, RIGHT] {
            let id = world.only_sa(end).id();
            world.with(end, |engine, cx| engine.rekey(id, cx));
        }
        world.run_for(3_000_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            alive += 1;
            assert_eq!(world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis());
            assert_ne!(world.only_sa(LEFT).spis(), before, "seed {seed}");
            world.check_children(1);
        }
    }
    alive
}

/// Whatever both ask for, and whatever the network does: in the end both have the same.
#[test]
fn whatever_is_asked_for_both_have_the_same() {
    let alive = whatever_is_asked_for(0..2000, |_| {});
    assert!(alive > 1800, "{alive}");
}

/// How often the IKE SA is left in the end.
fn whatever_is_asked_for(seeds: Range<u64>, change: fn(&mut Connection)) -> usize {
    println!("seeds {seeds:?}");
    let mut alive = 0;
    for seed in seeds {
        let mut world = established_as(seed, change);
        (world.late_ms, world.loss, world.again) = (2000, 10, 10);
        let config = world.ends[LEFT].config.connections[0].children[0].clone();
        let theirs = world.ends[RIGHT].config.connections[0].children[0].clone();
        for _ in 0..8 {
            let (end, what, which) = (world.below(2) as usize, world.below(6), world.below(8));
            let (id, spis) = match world.ends[end].engine.sas().next() {
                Some(sa) => (sa.id(), sa.children().iter().map(|c| c.spi_in).collect::<Vec<_>>()),
                None => break,
            };
            let spi = spis.get(which as usize % spis.len().max(1)).copied().unwrap_or(1);
            let child = if end == LEFT { &config } else { &theirs };
            world.with(end, |engine, cx| match what {
                0 => engine.initiate_child(id, child, cx),
                1 => engine.terminate_child(spi, cx),
                2 => engine.rekey(id, cx),
                _ => engine.rekey_child(spi, cx),
            });
            let ms = world.below(6000);
            world.run_for(ms);
        }
        world.run_for(3_000_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            alive += 1;
            let children = world.ends[LEFT].installed.len();
            world.check_children(children);
        }
    }
    alive
}

#[test]
fn another_key_exchange_is_asked_for() {
    let mut left = connection("a", LEFT);
    left.proposals = world::ike("aes128gcm16-sha256-x25519-ecp256");
    let mut right = connection("b", RIGHT);
    right.proposals = world::ike("aes128gcm16-sha256-ecp256");
    let mut world = World::new(2, [config(left), config(right)]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(world.ends[RIGHT].refused, [Refused::KeyExchange]);
    world.check_children(1);
}

#[test]
fn a_cookie_is_asked_for_under_load() {
    let mut right = config(connection("b", RIGHT));
    right.cookies_from = 0;
    let mut world = World::new(3, [config(connection("a", LEFT)), right]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(world.ends[RIGHT].refused, [Refused::Cookie]);
    world.check_children(1);
}

#[test]
fn what_does_not_fit_is_refused_and_both_are_told_why() {
    type Change = fn(&mut World);
    let cases: [(Change, &str, Option<&str>); 4] = [
        (
            |world| world.configure(RIGHT, |c| c.proposals = world::ike("aes256-sha512-modp2048")),
            "the peer says NO_PROPOSAL_CHOSEN: it was offered aes128gcm16-prfsha256-x25519",
            None,
        ),
        (
            |world| world.ends[RIGHT].config.shared_keys[0].key = b"another".to_vec().into(),
            "the peer says AUTHENTICATION_FAILED: we are left.example.org, by a shared key, and asked for right.example.org",
            Some("left.example.org is not authenticated: it has another shared key"),
        ),
        (
            |world| world.configure(RIGHT, |c| c.remote_id = "other.example.org".parse().unwrap()),
            "the peer says AUTHENTICATION_FAILED: we are left.example.org, by a shared key, and asked for right.example.org",
            Some(
                "no connection is for left.example.org, which asks for right.example.org: 'b' is for other.example.org",
            ),
        ),
        (
            |world| world.configure(LEFT, |c| c.remote_id = "*.example.com".parse().unwrap()),
            "the peer is right.example.org, and should be *.example.com",
            None,
        ),
    ];
    for (change, left, right) in cases {
        let mut world = World::new(4, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        change(&mut world);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed(left.into())));
        if let Some(right) = right {
            assert_eq!(events(&world, RIGHT).last(), Some(&Event::Closed(right.into())));
        }
        assert_eq!(world.ends[LEFT].engine.sas().count(), 0);
    }
}

/// RFC 7296 §1.2: where there is no child SA, the IKE SA is there all the same.
#[test]
fn an_ike_sa_stands_without_a_child() {
    let mut right = connection("b", RIGHT);
    right.children = vec![world::child("net", "10.2.0.0/16", "10.99.0.0/16")];
    let mut world = World::new(5, [config(connection("a", LEFT)), config(right)]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let failed = |end: usize| events(&world, end)[1].clone();
    let kind = NotifyType::TS_UNACCEPTABLE;
    let why = format!("the peer says {kind}: it was offered 10.1.0.0/16 here and 10.2.0.0/16 there");
    assert_eq!(failed(LEFT), Event::ChildFailed("net".into(), why));
    let why = "no traffic selectors in common: the peer asks for 10.2.0.0/16 here and 10.1.0.0/16 there, \
               and configured are 10.2.0.0/16 here and 10.99.0.0/16 there by 'net'";
    assert_eq!(failed(RIGHT), Event::ChildFailed("net".into(), why.into()));
    for end in [LEFT, RIGHT] {
        assert_eq!(world.only_sa(end).phase(), &Phase::Established);
    }
    // And one that wants none from the beginning (RFC 6023).
    let mut world = World::new(6, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.initiate(LEFT, None);
    world.run_until_quiet();
    for end in [LEFT, RIGHT] {
        assert_eq!(events(&world, end), [Event::Established]);
    }
}

/// RFC 7296 §2.4
#[test]
fn a_peer_that_is_gone_is_found_out() {
    let mut left = connection("a", LEFT);
    left.dpd_ms = 30_000;
    let mut world = World::new(7, [config(left), config(connection("b", RIGHT))]);
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    world.check_children(1);
    let before = world.carried;
    world.run_for(100_000);
    // Three questions and their answers.
    assert_eq!(world.carried - before, 6);
    world.loss = 100;
    world.run_for(300_000);
    assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed("the peer does not answer".into())));
    assert!(world.ends[LEFT].installed.is_empty());
}

/// Nobody has the place of a host by saying to be there.
#[test]
fn who_begins_often_must_show_where_it_is() {
    let mut right = config(connection("b", RIGHT));
    (right.cookies_from, right.most_half_open_of_one) = (100, 4);
    let mut world = World::new(9, [config(connection("a", LEFT)), right]);
    world.configure(LEFT, |connection| connection.unique = Unique::Never);
    for _ in 0..5 {
        world.initiate(LEFT, None);
    }
    // The cookies do not come through.
    world.one_way = Some(RIGHT);
    world.run_for(1000);
    assert_eq!(world.ends[RIGHT].engine.half_open(), 2);
    assert_eq!(world.ends[RIGHT].refused, [Refused::Cookie; 3]);
    // Whoever gets them comes in.
    world.one_way = None;
    world.run_for(100_000);
    assert_eq!(world.ends[RIGHT].engine.sas().count(), 5);
}

/// What anybody sends in clear does nothing to an IKE SA that is there (RFC 7296 §2.3, §2.5).
#[test]
fn first_messages_do_nothing_to_what_is_there() {
    for end in [LEFT, RIGHT] {
        let mut world = established(30);
        let sa = world.only_sa(end);
        let (spis, path, role) = (sa.spis(), sa.path(), sa.role());
        let flags = if role == Role::Initiator { Flags::default() } else { Flags::INITIATOR };
        for flags in [flags, flags | Flags::RESPONSE] {
            let header = Header {
                initiator_spi: spis.initiator,
                responder_spi: spis.responder,
                version: Version::V2,
                exchange: ExchangeType::IKE_SA_INIT,
                flags,
                message_id: 0,
            };
            let octets = Message { header, payloads: Payloads::default(), sealed: None }.emit().unwrap();
            let datagram =
                Datagram { local: path.local, peer: "203.0.113.1:500".parse().unwrap(), octets, dscp: 0 };
            assert!(world.with(end, |engine, cx| engine.receive(&datagram, cx)).is_err());
            assert_eq!(world.only_sa(end).path(), path);
        }
        // The peer's first request comes through all the same.
        rekey_only_child(&mut world, 1 - end);
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(world.only_sa(end).spis(), spis);
    }
}

/// Whoever sees the first message can answer it before the peer does: the peer's answer counts (RFC 7296 §2.21.1).
#[test]
fn an_answer_that_says_no_is_not_believed_at_once() {
    let cookie = |octets: usize| Notify::new(NotifyType::COOKIE, &vec![7; octets]);
    let forged = [
        Payload::Notify(Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, &[])),
        Payload::Notify(Notify::new(NotifyType::INVALID_SYNTAX, &[])),
        Payload::Notify(Notify::new(NotifyType::INVALID_KE_PAYLOAD, &14u16.to_be_bytes())),
        Payload::Notify(Notify::new(NotifyType::INVALID_KE_PAYLOAD, &31u16.to_be_bytes())),
        Payload::Notify(cookie(0)),
        Payload::Notify(cookie(65)),
        Payload::Nonce(vec![1; 16]),
        Payload::Unknown { kind: PayloadType(200), critical: true, body: vec![] },
    ];
    for payload in forged {
        let mut world = World::new(31, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        world.late_ms = 100;
        world.initiate(LEFT, Some(0));
        while world.carried == 0 {
            world.run_for(1);
        }
        let sa = world.only_sa(LEFT);
        let header = Header {
            initiator_spi: sa.spis().initiator,
            responder_spi: IkeSpi(9),
            version: Version::V2,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::RESPONSE,
            message_id: 0,
        };
        let (local, peer) = (sa.path().local, sa.path().peer);
        let octets = Message { header, payloads: Payloads(vec![payload]), sealed: None }.emit().unwrap();
        world
            .with(LEFT, |engine, cx| engine.receive(&Datagram { local, peer, octets, dscp: 0 }, cx))
            .unwrap();
        world.run_until_quiet();
        world.check_children(1);
    }
}

/// A peer that falls silent at the worst time is given up, and nothing turns in a circle meanwhile.
#[test]
fn who_falls_silent_at_any_time_is_given_up() {
    for silent_from in (0..400).map(|n| n * 25) {
        let mut left = connection("a", LEFT);
        (left.dpd_ms, left.rekey_ms) = (2000, 2000);
        let mut world = World::new(silent_from, [config(left), config(connection("b", RIGHT))]);
        world.late_ms = 300;
        world.initiate(LEFT, Some(0));
        world.run_for(silent_from);
        let id = world.ends[RIGHT].engine.sas().next().map(|sa| sa.id());
        world.with(RIGHT, |engine, cx| id.map(|id| engine.rekey(id, cx)));
        world.run_for(silent_from % 1000);
        world.one_way = Some(RIGHT);
        world.run_for(1_000_000);
        assert_eq!(world.ends[LEFT].engine.sas().count(), 0, "silent from {silent_from} ms");
        assert!(world.ends[LEFT].installed.is_empty());
    }
}

/// Who begins and does not go on is forgotten, and there is an end to how many there are.
#[test]
fn half_open_ones_have_an_end() {
    let mut right = config(connection("b", RIGHT));
    (right.most_half_open, right.most_half_open_of_one) = (2, 100);
    let mut world = World::new(8, [config(connection("a", LEFT)), right]);
    for _ in 0..5 {
        world.initiate(LEFT, None);
    }
    // The answers do not come through.
    world.one_way = Some(RIGHT);
    world.run_for(1000);
    assert_eq!(world.ends[RIGHT].engine.half_open(), 2);
    assert_eq!(world.ends[RIGHT].refused, [Refused::TooMany; 3]);
    world.run_for(400_000);
    assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), [0, 0]);
}
