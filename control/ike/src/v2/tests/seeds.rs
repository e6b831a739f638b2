//! Many worlds, each by its seed: whatever their networks and their people do, in the end both ends have the same SAs, or
//! both have none.

use super::world::{LEFT, RIGHT, World, config, connection};
use crate::{
    connection::Configuration,
    pool::Pool,
    v2::{engine::Engine, ike_sa::IkeSa, ike_sa::Phase, redirect::Gateway},
};
use std::{collections::BTreeSet, sync::Arc};

/// As many worlds as this environment variable says, in place of some.
const SEEDS: &str = "PORTCULLIS_SEEDS";

/// For how long things happen, and how long it takes until nothing is under way any more: a request is given up after 165
/// s, what was replaced goes after 200 s, and a silent peer is asked after 30 s.
const BUSY_MS: u64 = 60_000;
const QUIET_MS: u64 = 1_500_000;

pub fn world_of(seed: u64) -> World {
    let [left, right] = [("a", LEFT), ("b", RIGHT)].map(|(name, end)| {
        let mut connection = connection(name, end);
        connection.dpd_ms = 30_000;
        connection.fragment_octets = [0, 600][usize::from(seed.is_multiple_of(2))];
        connection.mobike = seed.is_multiple_of(3);
        connection.resumes = seed % 4 < 2;
        std::sync::Arc::make_mut(&mut connection.children[0]).per_worker = seed.is_multiple_of(11);
        if seed.is_multiple_of(5) {
            connection.proposals = super::world::ike("aes128gcm16-prfsha256-x25519-ke1_mlkem512");
        }
        if seed.is_multiple_of(4) && end == LEFT {
            connection.vips = vec![[0, 0, 0, 0].into()];
        }
        connection.pools = vec!["p".into(); usize::from(seed.is_multiple_of(4) && end == RIGHT)];
        config(connection)
    });
    let (first, last) = ([10, 1, 0, 1].into(), [10, 1, 0, 200].into());
    let pool = Pool { name: "p".into(), first, last, attributes: vec![] };
    World::new(seed, [left, Configuration { pools: vec![Arc::new(pool)], ..right }])
}

/// What happens next.
fn happen(world: &mut World) {
    let end = [LEFT, RIGHT][world.below(2) as usize];
    let (what, which) = (world.below(10), world.below(8) as usize);
    let connection = world.ends[end].config.connections[0].clone();
    let all = |engine: &Engine| {
        let mut ids: Vec<_> = engine.sas().map(IkeSa::id).collect();
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
        (8, Some(id)) => _ = world.with(end, |engine, cx| engine.reauthenticate(id, cx)),
        // There is no other gateway, but the same one may do.
        (9, Some(id)) => {
            let to = Gateway::Address(super::world::address(end));
            world.with(end, |engine, cx| engine.redirect(id, &to, cx));
        }
        (7, _) => {
            // The NAT gives another place.
            let port = 1000 + 10 * world.below(100) as u16;
            world.nat = world.nat.map(|nat| std::net::SocketAddr::new(nat.ip(), port));
        }
        _ => {}
    }
}

/// The SPIs of the IKE SAs of an end.
fn ike_spis(world: &World, end: usize) -> BTreeSet<(u64, u64)> {
    let sas = world.ends[end].engine.sas();
    sas.map(|sa| (sa.spis().initiator.0, sa.spis().responder.0)).collect()
}

/// True if both have something.
fn ends_in_agreement(seed: u64) -> bool {
    agrees_in_the_end(seed, &mut world_of(seed))
}

pub fn agrees_in_the_end(seed: u64, world: &mut World) -> bool {
    (world.loss, world.again) = (world.below(51) as u32, world.below(20) as u32);
    world.late_ms = world.below(3000);
    if world.below(2) == 0 {
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
    let [left, right] = [LEFT, RIGHT].map(|end| ike_spis(world, end));
    assert_eq!(left, right, "seed {seed}: the IKE SAs");
    for end in [LEFT, RIGHT] {
        assert!(world.ends[end].engine.sas().all(|sa| *sa.phase() == Phase::Established), "seed {seed}");
        let children = world.children_of(end);
        assert!(children.iter().eq(world.ends[end].installed.keys()), "seed {seed}: the datapath of {end}");
        assert_eq!(world.ends[end].sends, children, "seed {seed}: {end} sends by all");
    }
    let theirs = world.ends[RIGHT].engine.sas().flat_map(|sa| &sa.given().theirs);
    let held: BTreeSet<_> = theirs.map(|lease| lease.address).collect();
    assert_eq!(world.ends[RIGHT].engine.leases().counts("p").0, held.len(), "seed {seed}: the addresses");
    let [left, right] = &world.ends;
    assert_eq!(left.installed.len(), right.installed.len(), "seed {seed}: the child SAs");
    for ours in left.installed.values() {
        let theirs = &right.installed[&ours.sa.spi_out];
        assert_eq!((theirs.sa.spi_out, ours.key_in.bytes()), (ours.sa.spi_in, theirs.key_out.bytes()));
        assert_eq!(ours.key_out.bytes(), theirs.key_in.bytes());
        assert_eq!(
            (&ours.sa.policy.local, &ours.sa.policy.remote),
            (&theirs.sa.policy.remote, &theirs.sa.policy.local),
            "seed {seed}: the selectors"
        );
    }
    !left.installed.is_empty()
}

#[test]
fn each_seed_ends_in_agreement() {
    let seeds: u64 = std::env::var(SEEDS).ok().map_or(1000, |n| n.parse().expect("a number of seeds"));
    println!("seeds 0..{seeds}; {SEEDS}=N runs others");
    let up = (0..seeds).filter(|seed| ends_in_agreement(*seed)).count();
    println!("{up} of {seeds} end with SAs at both ends, the others with none");
    assert!(up as u64 > seeds / 10);
}
