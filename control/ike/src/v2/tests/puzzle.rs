use super::{
    events,
    world::{LEFT, RIGHT, World, address, config, connection},
};
use crate::{
    connection::Unique,
    message::{
        ExchangeType, Flags, Fragment, Header, IkeSpi, Message, Notify, NotifyType, Payload, PayloadType,
        Payloads, Sealed, Version,
    },
    v2::{
        auth_puzzle,
        channel::Dropped,
        fragments::{MOST_FRAGMENTS, MOST_OCTETS},
        ike_sa::{Closed, IkeSa, Path, Phase},
        job::{Job, Outcome},
        output::{Datagram, Event},
        puzzle::{self, Puzzle},
        refused::Refused,
    },
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

/// An IKE SA whose initiator has solved a puzzle, and is to solve another: nothing of IKE_AUTH has come. With the datagrams of that.
fn asked_twice(seed: u64, fragment_octets: usize) -> (World, Vec<Vec<u8>>) {
    let mut world = puzzled(seed);
    [LEFT, RIGHT].into_iter().for_each(|end| world.configure(end, |c| c.fragment_octets = fragment_octets));
    world.lost = Some(ExchangeType::IKE_AUTH);
    world.initiate(LEFT, Some(0));
    world.run_for(100);
    world.lost = None;
    let is_auth = |octets: &&Vec<u8>| {
        Header::parse(octets).is_ok_and(|(header, ..)| header.exchange == ExchangeType::IKE_AUTH)
    };
    let requests = world.requests.iter().filter(is_auth).cloned().collect();
    (world, requests)
}

/// The right end gets this from the left one.
fn give(world: &mut World, octets: &[u8]) -> Result<(), Refused> {
    let path = world.ends[LEFT].engine.sas().next().expect("there is an IKE SA").path();
    let datagram = Datagram { local: path.peer, peer: path.local, octets: octets.to_vec(), dscp: 0 };
    world.with(RIGHT, |engine, cx| engine.receive(&datagram, cx))
}

/// The IKE SA of the right end whose puzzle is not solved.
fn unsolved(world: &World) -> Option<&IkeSa> {
    world.ends[RIGHT].engine.sas().find(|sa| sa.unsolved.is_some())
}

fn solution_of(octets: &[u8]) -> Option<Vec<u8>> {
    match &Message::parse(octets).unwrap().payloads.0[..] {
        [] => None,
        [Payload::PuzzleSolution(solution)] => Some(solution.clone()),
        other => panic!("{other:?}"),
    }
}

// RFC 8019 §7.2.2, §7.2.3
#[test]
fn who_has_solved_a_puzzle_solves_another_for_ike_auth() {
    let (mut world, requests) = asked_twice(1, 1280);
    assert_eq!(requests.len(), 1);
    let solution = solution_of(&requests[0]).expect("PS comes first, in clear");
    let sa = unsolved(&world).expect("it is waited for");
    let string = [sa.unsolved.as_ref().unwrap().nr(), &sa.spis().responder.octets()].concat();
    let agreement = world.ends[LEFT].config.connections[0].proposals.offer(&[]);
    assert!(Puzzle::new(&agreement, 16, &string).unwrap().is_solved_by(&solution));
    assert!(sa.keys.is_none(), "there is no secret yet");
    world.run_for(300_000);
    world.check_children(1);
    assert!(unsolved(&world).is_none());
}

// RFC 8019 §7.2.4
#[test]
fn without_a_solution_nothing_is_opened() {
    let (mut world, requests) = asked_twice(2, 1280);
    let right = Message::parse(&requests[0]).unwrap();
    let without = Message { payloads: Payloads::default(), ..right.clone() };
    let in_clear = Message { sealed: None, ..right.clone() };
    let mut keys = solution_of(&requests[0]).unwrap();
    keys[7] ^= 1;
    let wrong = Message { payloads: Payloads(vec![Payload::PuzzleSolution(keys.clone())]), ..right.clone() };
    keys.truncate(3);
    let short = Message { payloads: Payloads(vec![Payload::PuzzleSolution(keys)]), ..right.clone() };
    let refused = [
        (without, Dropped::Puzzle),
        (wrong, Dropped::Puzzle),
        (short, Dropped::Puzzle),
        (in_clear, Dropped::Sealing),
    ];
    for (message, why) in refused {
        assert_eq!(give(&mut world, &message.emit().unwrap()), Err(why.into()));
        assert!(world.ends[RIGHT].jobs.is_empty() && unsolved(&world).is_some_and(|sa| sa.keys.is_none()));
    }
    // What is solved and not the peer's leaves the keys, and no more.
    let mut forged = requests[0].clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(give(&mut world, &forged), Ok(()));
    assert_eq!(world.ends[RIGHT].jobs.len(), 1);
    world.run_for(1);
    assert!(unsolved(&world).is_none() && world.ends[RIGHT].installed.is_empty());
    assert_eq!(give(&mut world, &requests[0]), Ok(()));
    world.run_for(20_000);
    world.check_children(1);
}

// RFC 8019 §7.2.2, §7.2.4
#[test]
fn the_first_of_fragments_has_the_solution() {
    let (_, requests) = asked_twice(3, 250);
    assert!(requests.len() > 2);
    let has: Vec<bool> = requests.iter().map(|octets| solution_of(octets).is_some()).collect();
    assert!(has[0] && !has[1..].contains(&true));
    for seed in 3..9 {
        let (mut world, mut requests) = asked_twice(seed, 250);
        for at in (1..requests.len()).rev() {
            requests.swap(at, world.below(at as u64 + 1) as usize);
        }
        for octets in requests {
            let path = world.ends[LEFT].engine.sas().next().unwrap().path();
            assert_eq!(give(&mut world, &octets), Ok(()), "from {}", path.local);
        }
        // None is sent again before that.
        world.run_for(1000);
        assert_eq!(world.ends[RIGHT].installed.len(), 1, "seed {seed}");
        world.run_for(20_000);
        world.check_children(1);
    }
}

#[test]
fn there_is_an_end_to_what_is_held_without_a_solution() {
    let (mut world, requests) = asked_twice(4, 1280);
    let header = Message::parse(&requests[0]).unwrap().header;
    let (mut held, each) = (0, size_of::<(Vec<u8>, Path)>());
    for n in 2..400 {
        let sealed =
            Sealed { first: PayloadType::NONE, fragment: Fragment::new(n, 400), body: vec![0; 1000] };
        let message = Message { header, payloads: Payloads::default(), sealed: Some(sealed) };
        held += usize::from(give(&mut world, &message.emit().unwrap()).is_ok());
        assert!(world.ends[RIGHT].engine.unproven_octets() <= MOST_OCTETS + held * each);
    }
    assert_eq!(held, MOST_OCTETS / 1036);
    // It is no use to who does that, and keeps nobody out who solves it.
    assert_eq!(give(&mut world, &requests[0]), Ok(()));
    assert!(world.ends[RIGHT].engine.unproven_octets() < 2000);
    world.run_for(20_000);
    world.check_children(1);
}

/// Whoever sees the SPIs can fill what is held, and does not keep out who solves it in fragments.
#[test]
fn what_is_held_leaves_room_for_the_first_of_fragments() {
    let (mut world, requests) = asked_twice(5, 250);
    let header = Message::parse(&requests[0]).unwrap().header;
    for n in 2..400 {
        let sealed = Sealed { first: PayloadType::NONE, fragment: Fragment::new(n, 400), body: vec![0; 4] };
        let message = Message { header, payloads: Payloads::default(), sealed: Some(sealed) };
        let _ = give(&mut world, &message.emit().unwrap());
    }
    assert_eq!(give(&mut world, &requests[0]), Ok(()));
    world.run_for(1);
    assert!(unsolved(&world).is_none());
    world.run_for(20_000);
    world.check_children(1);
}

/// Short datagrams take more than their octets.
#[test]
fn what_is_held_counts_with_what_it_takes() {
    let (mut world, requests) = asked_twice(6, 1280);
    let header = Message::parse(&requests[0]).unwrap().header;
    let mut held = 0;
    for n in 2..400 {
        let sealed = Sealed { first: PayloadType::NONE, fragment: Fragment::new(n, 400), body: vec![0; 4] };
        let message = Message { header, payloads: Payloads::default(), sealed: Some(sealed) };
        held += usize::from(give(&mut world, &message.emit().unwrap()).is_ok());
    }
    assert_eq!(held, usize::from(MOST_FRAGMENTS));
    let each = Header::LEN + 8 + 4 + size_of::<(Vec<u8>, Path)>();
    assert_eq!(world.ends[RIGHT].engine.unproven_octets(), held * each);
}

/// The right end is about to set a puzzle of so many bits for IKE_AUTH, whatever it has to do.
fn about_to_ask(bits: u8) -> World {
    let mut world = World::new(7, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.slow = Some((RIGHT, 10));
    world.initiate(LEFT, Some(0));
    while world.ends[RIGHT].jobs.is_empty() {
        world.run_for(1);
    }
    world.slow = None;
    let id = world.only_sa(RIGHT).id();
    world.with(RIGHT, |engine, cx| engine.with(id, cx, |sa, _| sa.puzzle_bits = Some(bits)));
    world
}

fn is_too_hard(event: &Event) -> bool {
    *event == Event::Closed(Closed::TooHard.to_string())
}

// RFC 8019 §7.2.3: the initiator decides how much it does.
#[test]
fn who_is_set_too_hard_a_puzzle_gives_up() {
    for bits in [21, 255] {
        let mut world = about_to_ask(bits);
        world.run_for(1000);
        let sa = world.only_sa(LEFT);
        assert!(
            sa.phase() == &Phase::Connecting && world.ends[LEFT].jobs.is_empty(),
            "another answer may come"
        );
        world.run_until_quiet();
        assert!(
            matches!(&events(&world, LEFT)[..], [event] if is_too_hard(event)),
            "{:?}",
            events(&world, LEFT)
        );
        assert!(world.ends.iter().all(|end| end.engine.sas().count() == 0 && end.installed.is_empty()));
    }
}

/// There may be no solution.
#[test]
fn who_finds_no_solution_gives_up() {
    let mut world = about_to_ask(16);
    world.slow = Some((LEFT, 1000));
    let at = |world: &World| world.ends[LEFT].jobs.iter().position(|(.., job)| matches!(job, Job::Solve(_)));
    while at(&world).is_none() {
        world.run_for(1);
        assert!(world.now_ms < 10_000);
    }
    let n = at(&world).expect("it was there");
    let (_, id, _) = world.ends[LEFT].jobs.remove(n);
    world.with(LEFT, |engine, cx| engine.done(id, Outcome::Solved(None), cx));
    assert!(events(&world, LEFT).iter().any(is_too_hard));
    assert_eq!(world.ends[LEFT].engine.sas().count(), 0);
}

// RFC 8019 §7.1.1, §7.2.3: how hard it is is for the initiator to say.
#[test]
fn a_puzzle_without_bits_is_solved_by_as_many_as_we_choose() {
    let mut world = about_to_ask(0);
    while unsolved(&world).is_none() {
        world.run_for(1);
    }
    let sa = unsolved(&world).expect("it is waited for");
    let string = auth_puzzle::string(&sa.init.as_ref().expect("there are keys").nr, sa.spis().responder);
    world.run_until_quiet();
    world.check_children(1);
    let solution = world.requests.iter().find_map(|octets| {
        let message = Message::parse(octets).unwrap();
        puzzle::solution(&message.payloads).map(<[u8]>::to_vec)
    });
    let offered = world.ends[LEFT].config.connections[0].proposals.offer(&[]);
    assert!(Puzzle::new(&offered, 12, &string).unwrap().is_solved_by(&solution.expect("it has solved it")));
}

// RFC 8019 §7.1.1: so it is of what comes with a cookie; what is too hard is not solved.
#[test]
fn who_begins_solves_what_comes_with_a_cookie_if_it_is_not_too_hard() {
    for (bits, solves) in [(0, Some(12)), (16, Some(16)), (21, None)] {
        let mut world = World::new(8, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        world.one_way = Some(LEFT);
        world.initiate(LEFT, Some(0));
        world.run_for(1);
        world.one_way = None;
        let (path, offered) =
            (world.only_sa(LEFT).path(), world.ends[LEFT].config.connections[0].proposals.offer(&[]));
        let first = Message::parse(&world.requests[0]).unwrap();
        let header = Header { flags: Flags::RESPONSE, ..first.header };
        let notify = Puzzle::new(&offered, bits, b"a cookie").unwrap().notify();
        let payloads = vec![Notify::new(NotifyType::COOKIE, b"a cookie"), notify];
        let payloads = Payloads(payloads.into_iter().map(Payload::Notify).collect());
        let octets = Message { header, payloads, sealed: None }.emit().unwrap();
        let datagram = Datagram { local: path.local, peer: path.peer, octets, dscp: 0 };
        assert_eq!(world.with(LEFT, |engine, cx| engine.receive(&datagram, cx)), Ok(()));
        world.run_for(1);
        let again = Message::parse(&world.requests[1]).unwrap();
        assert_eq!(again.payloads.notifies(NotifyType::COOKIE).next().unwrap().data, b"a cookie");
        let is_solved = |bits, keys| Puzzle::new(&offered, bits, b"a cookie").unwrap().is_solved_by(keys);
        match (puzzle::solution(&again.payloads), solves) {
            (Some(keys), Some(bits)) => assert!(is_solved(bits, keys)),
            (solution, _) => assert!(solution.is_none() && solves.is_none(), "{bits}"),
        }
        world.run_until_quiet();
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
        // RFC 8019 §7.2.1
        assert!(world.ends[RIGHT].engine.sas().all(|sa| sa.puzzle_bits.is_none()));
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
