use super::world::{LEFT, RIGHT, World, address, config, connection};
use crate::{
    connection::Unique,
    message::{ExchangeType, Flags, Header, IkeSpi, Message, Notify, NotifyType, Payload, Payloads, Version},
    v2::{output::Datagram, refused::Refused},
};

/// A world in which a puzzle is set as soon as an IKE SA is half-open.
fn puzzled(seed: u64) -> World {
    let mut right = config(connection("b", RIGHT));
    (right.cookies_from, right.puzzles_from, right.most_half_open_of_one) = (1, 1, 50);
    let mut world = World::new(seed, [config(connection("a", LEFT)), right]);
    world.configure(LEFT, |connection| connection.unique = Unique::Never);
    // Somebody begins, and does not go on.
    world.one_way = Some(RIGHT);
    world.initiate(LEFT, None);
    world.run_for(100);
    assert_eq!(world.ends[RIGHT].engine.half_open(), 1);
    world.one_way = None;
    world
}

// RFC 8019 §7.1
#[test]
fn who_begins_solves_a_puzzle_under_load() {
    let mut world = puzzled(1);
    for loss in [0, 20] {
        world.loss = loss;
        world.initiate(LEFT, Some(0));
        world.run_for(3000);
    }
    world.loss = 0;
    world.run_for(300_000);
    assert!(world.ends[RIGHT].refused.contains(&Refused::Puzzle), "{:?}", world.ends[RIGHT].refused);
    world.check_children(2);
}

/// Who has solved it comes in at once, and not by chance.
#[test]
fn a_solution_is_taken() {
    for seed in 0..4 {
        let mut world = puzzled(seed);
        let before = world.ends[RIGHT].refused.len();
        world.initiate(LEFT, Some(0));
        world.run_for(100);
        assert_eq!(world.ends[RIGHT].refused[before..], [Refused::Puzzle]);
        world.check_children(1);
    }
}

/// Of those that do not solve it some come in, and no others.
#[test]
fn who_does_not_work_seldom_comes_in() {
    let mut world = puzzled(2);
    world.ends[RIGHT].config.half_open_ms = 1_000_000;
    let (local, peer) = (world.only_sa(LEFT).path().peer, (address(LEFT), 9).into());
    let first = Message::parse(&world.requests[0]).unwrap();
    let mut count = 0;
    for n in 0..400 {
        let header = Header { initiator_spi: IkeSpi(1000 + n), ..first.header };
        let send = |world: &mut World, payloads: Payloads| {
            let octets = Message { header, payloads, sealed: None }.emit().unwrap();
            let datagram = Datagram { local, peer, octets, dscp: 0 };
            world.with(RIGHT, |engine, cx| {
                let received = engine.receive(&datagram, cx);
                let answer = cx.out.iter().find_map(|output| match output {
                    crate::v2::output::Output::Send(datagram) => Message::parse(&datagram.octets).ok(),
                    _ => None,
                });
                cx.out.clear();
                (received, answer)
            })
        };
        let (received, answer) = send(&mut world, first.payloads.clone());
        assert_eq!(received, Err(Refused::Puzzle));
        let cookie = answer.unwrap().payloads.notifies(NotifyType::COOKIE).next().unwrap().clone();
        let mut with_cookie = first.payloads.clone();
        with_cookie.0.insert(0, Payload::Notify(cookie));
        let (received, _) = send(&mut world, with_cookie);
        count += usize::from(received.is_ok());
        if count == 40 {
            break;
        }
    }
    assert!((20..=45).contains(&count), "{count} of 400");
}

/// Anybody can send what is in clear while the puzzle is being solved.
#[test]
fn what_is_in_clear_ends_nothing_meanwhile() {
    for kind in [NotifyType::INVALID_SYNTAX, NotifyType::AUTHENTICATION_FAILED, NotifyType::COOKIE] {
        let mut world = puzzled(3);
        world.late_ms = 2000;
        world.initiate(LEFT, Some(0));
        let forge = |world: &mut World| {
            let ids: Vec<_> = world.ends[LEFT].engine.sas().map(|sa| (sa.spis(), sa.path())).collect();
            for (spis, path) in ids {
                let header = Header {
                    initiator_spi: spis.initiator,
                    responder_spi: IkeSpi(7),
                    version: Version::V2,
                    exchange: ExchangeType::IKE_SA_INIT,
                    flags: Flags::RESPONSE,
                    message_id: 0,
                };
                let payloads = Payloads(vec![Payload::Notify(Notify::new(kind, &[]))]);
                let octets = Message { header, payloads, sealed: None }.emit().unwrap();
                let datagram = Datagram { local: path.local, peer: path.peer, octets, dscp: 0 };
                let _ = world.with(LEFT, |engine, cx| engine.receive(&datagram, cx));
            }
        };
        for _ in 0..40 {
            forge(&mut world);
            world.run_for(100);
        }
        world.run_for(300_000);
        world.check_children(1);
    }
}
