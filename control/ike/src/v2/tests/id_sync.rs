use super::{
    established_as, rekey_only_child,
    world::{LEFT, RIGHT, World},
};
use crate::{
    message::{ExchangeType, Header},
    v2::output::Datagram,
};

/// A world in which both ends have asked some things, and one of them was taken over by who knows of fewer.
fn taken_over(seed: u64, end: usize) -> World {
    let mut world = established_as(seed, |connection| {
        connection.dpd_ms = 10_000;
        connection.retransmission.tries = 12;
        connection.retransmission.limit_ms = 8000;
    });
    for end in [LEFT, RIGHT, LEFT, RIGHT] {
        rekey_only_child(&mut world, end);
        world.run_for(1000);
    }
    let id = world.only_sa(end).id();
    world.with(end, |engine, cx| engine.forget_last(id, 3, cx));
    world
}

// RFC 6311 §5
#[test]
fn both_go_on_after_a_failover() {
    for end in [LEFT, RIGHT] {
        let mut world = taken_over(1, end);
        world.is_steady = true;
        let id = world.only_sa(end).id();
        assert!(world.with(end, |engine, cx| engine.synchronize(id, cx)));
        world.run_for(1000);
        for by in [LEFT, RIGHT] {
            rekey_only_child(&mut world, by);
            world.run_for(1000);
            let id = world.only_sa(by).id();
            world.with(by, |engine, cx| engine.rekey(id, cx));
            world.run_for(1000);
        }
        world.run_for(100_000);
        world.check_children(1);
    }
}

/// What the peer has asked and nobody has answered is asked again.
#[test]
fn what_is_under_way_is_asked_again() {
    let seeds = 0..300;
    println!("seeds {seeds:?}");
    let mut alive = 0;
    for seed in seeds.clone() {
        let end = seed as usize % 2;
        let mut world = taken_over(seed, end);
        (world.loss, world.again, world.late_ms) = (seed as u32 % 4 * 10, 5, seed * 5);
        let before = world.only_sa(1 - end).children()[0].spi_in;
        rekey_only_child(&mut world, 1 - end);
        let ms = world.below(3000);
        world.run_for(ms);
        let id = world.only_sa(end).id();
        world.with(end, |engine, cx| engine.synchronize(id, cx));
        world.run_for(300_000);
        (world.loss, world.again, world.late_ms) = (0, 0, 10);
        world.run_for(600_000);
        if world.ends.iter().all(|end| end.engine.sas().count() == 1) {
            world.check_children(1);
            assert_ne!(world.only_sa(1 - end).children()[0].spi_in, before, "seed {seed}");
            alive += 1;
        }
    }
    assert!(alive > seeds.end * 8 / 10, "{alive}");
}

// RFC 6311 §5.1, §8: who has seen it can send it again.
#[test]
fn what_is_sent_again_changes_nothing() {
    let mut world = taken_over(2, RIGHT);
    let id = world.only_sa(RIGHT).id();
    world.requests.clear();
    world.with(RIGHT, |engine, cx| engine.synchronize(id, cx));
    world.run_for(1000);
    let is_sync = |octets: &&Vec<u8>| {
        let header = Header::parse(octets).unwrap().0;
        (header.exchange, header.message_id) == (ExchangeType::INFORMATIONAL, 0)
    };
    let octets = world.requests.iter().find(is_sync).unwrap().clone();
    for n in 0..3 {
        rekey_only_child(&mut world, n % 2);
        let path = world.only_sa(LEFT).path();
        let datagram = Datagram { local: path.local, peer: path.peer, octets: octets.clone(), dscp: 0 };
        world.with(LEFT, |engine, cx| engine.receive(&datagram, cx)).unwrap();
        world.run_for(1000);
    }
    world.run_for(60_000);
    world.check_children(1);
}
