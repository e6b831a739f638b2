//! Many worlds, each by its seed: whatever their networks and their people do, once all that nobody answers is over, both ends have
//! the same ISAKMP SAs, and the same keys of the child SAs that both have.
//!
//! What IKEv2 has besides, IKEv1 lacks: who deletes only tells it, and nobody answers (RFC 2408 §3.15). Where the other end does not
//! hear of it, or before the child SA is there, that end sends by what is there no more, until its ISAKMP SA ends. How many worlds
//! are so is counted.

use super::{
    bundle, change_child,
    remote_access::{equip, remote},
    world_as,
};
use crate::{
    connection::Ikev1,
    ike_sa::Phase,
    v2::{
        engine::Engine,
        tests::world::{LEFT, RIGHT, World},
    },
};
use std::collections::BTreeSet;

/// As many worlds as this environment variable says, in place of some.
const SEEDS: &str = "PORTCULLIS_SEEDS";

/// Worlds behind those, each of which has once found something.
const OTHERS: [u64; 1] = [
    // What an heir had to do for children that it took over waited without end, and kept it from asking whether its peer was there.
    1206,
];

/// For how long things happen, and how long it takes until nothing is under way any more. What is deleted and not heard stays until
/// its ISAKMP SA ends, so that all of them end and begin again behind it.
const BUSY_MS: u64 = 60_000;
const QUIET_MS: u64 = 600_000;

fn world_of(seed: u64) -> World {
    let mut world = world_as(seed, |end, connection| {
        // Some are of users and gateways, with addresses that are asked for or told.
        if seed % 4 == 1 {
            remote(end, connection, seed % 8 == 5);
        }
        connection.dpd_ms = 30_000;
        // Messages of some are cut, of more or of fewer than there are in phase 1.
        connection.fragment_octets = [0, 1280, 300, 200][seed as usize / 2 % 4];
        connection.ikev1 = Some(Ikev1 {
            dpd_timeout_ms: [0, 60_000][usize::from(seed.is_multiple_of(2))],
            is_aggressive: seed % 5 > 2,
            ..connection.ikev1.take().unwrap_or_default()
        });
        if seed.is_multiple_of(3) {
            change_child(connection, |child| {
                child.proposals = crate::proposal::Proposals::esp(["aes256-sha256"]).unwrap();
            });
        }
        if seed % 7 == 2 {
            bundle::bundle(connection, "aes128gcm16-ecp256", "sha256-ecp256");
        }
    });
    equip(&mut world);
    // Of some an end wants to know when the other has child SAs; where it is the left one, it is told.
    world.commits = [[false; 2], [true; 2], [true, false], [false, true]][seed as usize / 3 % 4];
    world
}

/// What happens next.
fn happen(world: &mut World) {
    let end = [LEFT, RIGHT][world.below(2) as usize];
    let (what, which) = (world.below(8), world.below(8) as usize);
    let connection = world.ends[end].config.connections[0].clone();
    let all = |engine: &Engine| {
        let mut ids: Vec<_> = engine.ike_sas().map(|sa| sa.id()).collect();
        ids.sort_unstable();
        ids
    };
    let ids = all(&world.ends[end].engine);
    let id = ids.get(which % ids.len().max(1)).copied();
    let spis: Vec<u32> = world.ends[end].installed.keys().copied().collect();
    let spi = spis.get(which % spis.len().max(1)).copied().unwrap_or(1);
    match (what, id) {
        // Behind a NAT nobody is found.
        (0, None) if end == LEFT || world.nat.is_none() => world.initiate(end, Some(0)),
        (1, Some(id)) => {
            world.with(end, |engine, cx| engine.initiate_child(id, &connection.children[0], cx));
        }
        (2, Some(id)) => _ = world.with(end, |engine, cx| engine.rekey(id, cx)),
        (3 | 4, _) => _ = world.with(end, |engine, cx| engine.rekey_child(spi, cx)),
        (5, _) => _ = world.with(end, |engine, cx| engine.terminate_child(spi, cx)),
        (6, Some(id)) if which == 0 => _ = world.with(end, |engine, cx| engine.terminate(id, cx)),
        _ => {}
    }
}

/// The cookies of the ISAKMP SAs of an end.
fn cookies(world: &World, end: usize) -> BTreeSet<(u64, u64)> {
    world.ends[end].engine.ike_sas().map(|sa| (sa.spis().initiator.0, sa.spis().responder.0)).collect()
}

/// What a world ends with.
struct Ended {
    /// Both ends have something.
    is_up: bool,
    /// An end sends by what the other has not.
    sends_alone: bool,
}

fn ends_in_agreement(seed: u64) -> Ended {
    agrees_in_the_end(seed, &mut world_of(seed))
}

fn agrees_in_the_end(seed: u64, world: &mut World) -> Ended {
    (world.loss, world.again) = (world.below(51) as u32, world.below(20) as u32);
    world.late_ms = world.below(3000);
    if world.below(2) == 0 {
        world.configure(RIGHT, |connection| connection.remote = crate::connection::Hosts::Any);
        world.nat = Some("203.0.113.1:1000".parse().unwrap());
    }
    world.initiate(LEFT, Some(0));
    while world.now_ms < BUSY_MS {
        let ms = world.below(6000);
        world.run_for(ms);
        happen(world);
    }
    (world.loss, world.again, world.late_ms) = (0, 0, 20);
    world.kept.iter_mut().flatten().for_each(|kept| kept.deaths = 0);
    world.run_for(QUIET_MS);
    let [left, right] = [LEFT, RIGHT].map(|end| cookies(world, end));
    assert_eq!(left, right, "seed {seed}: the ISAKMP SAs");
    for end in [LEFT, RIGHT] {
        assert!(world.ends[end].engine.ike_sas().all(|sa| *sa.phase() == Phase::Established), "seed {seed}");
        let children = world.children_of(end);
        assert!(children.iter().eq(world.ends[end].installed.keys()), "seed {seed}: the datapath of {end}");
        assert!(world.ends[end].sends.is_subset(&children), "seed {seed}: {end} sends by what is there");
    }
    let sends_alone = [LEFT, RIGHT].into_iter().any(|end| {
        let [ours, theirs] = [end, 1 - end].map(|end| &world.ends[end]);
        ours.sends.iter().any(|spi| !theirs.installed.contains_key(&ours.installed[spi].sa.spi_out))
    });
    // Of what both have, the keys are the same.
    let [left, right] = &world.ends;
    let both =
        left.installed.values().filter_map(|ours| Some((ours, right.installed.get(&ours.sa.spi_out)?)));
    let mut up = 0;
    for (ours, theirs) in both {
        assert_eq!((theirs.sa.spi_out, ours.key_in.bytes()), (ours.sa.spi_in, theirs.key_out.bytes()));
        assert_eq!(ours.key_out.bytes(), theirs.key_in.bytes());
        let [ah_out, ah_in] = [(ours, true), (theirs, false)].map(|(install, out)| {
            let (sa, keyed) = (install.sa.around.as_deref()?, install.around.as_deref()?);
            Some(if out { (sa.spi_out, keyed.key_out.clone()) } else { (sa.spi_in, keyed.key_in.clone()) })
        });
        assert_eq!(ah_out, ah_in);
        up += 1;
    }
    Ended { is_up: up > 0, sends_alone }
}

#[test]
fn each_seed_ends_in_agreement() {
    let seeds: u64 = std::env::var(SEEDS).ok().map_or(500, |n| n.parse().expect("a number of seeds"));
    println!("seeds 0..{seeds}; {SEEDS}=N runs others");
    let (mut up, mut alone) = (0, 0);
    for ended in (0..seeds).map(ends_in_agreement) {
        up += u64::from(ended.is_up);
        alone += u64::from(ended.sends_alone);
    }
    println!(
        "{up} of {seeds} end with SAs at both ends, {alone} with an end that sends by what the other has no more"
    );
    assert!(up > seeds / 10 && alone < seeds / 10);
    OTHERS.into_iter().filter(|seed| *seed >= seeds).for_each(|seed| _ = ends_in_agreement(seed));
}

#[test]
fn ends_that_die_again_and_again_agree_in_the_end() {
    let seeds: u64 = std::env::var(SEEDS).ok().map_or(500, |n| n.parse().expect("a number of seeds"));
    println!("seeds 0..{seeds}; {SEEDS}=N runs others");
    let (mut up, mut died) = (0, 0);
    for seed in 0..seeds {
        let mut world = world_of(seed);
        world.keep_both(100);
        up += u64::from(agrees_in_the_end(seed, &mut world).is_up);
        died += world.died();
    }
    println!("{up} of {seeds} end with SAs at both ends; {died} deaths");
    assert!(up > seeds / 10 && died as u64 > seeds);
}
