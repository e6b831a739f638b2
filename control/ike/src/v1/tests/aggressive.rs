//! Aggressive mode: what it does as main mode does it, and what strangers learn of it.

use super::{address, comes_up, events, install, only, remote_access::world_with, set_aggressive, world_as};
use crate::{
    connection::{Configuration, Connection, Hosts, RemoteAuth, SharedKey},
    ike_sa::{IkeSa as _, Phase},
    message::{
        ExchangeType, Flags, Header, IkeSpi, PayloadType,
        isakmp::{self, Chain, Payload},
    },
    output::{Datagram, Event, Output},
    proposal::Proposals,
    v2::{
        refused::Refused,
        tests::{
            signatures::{Paper, paper},
            world::{LEFT, RIGHT, World},
        },
    },
};
use std::{collections::VecDeque, sync::Arc};

const SHARED: &[u8] = b"a key that both have";

fn world(seed: u64, change: impl Fn(usize, &mut Connection)) -> World {
    world_as(seed, |end, connection| {
        set_aggressive(connection, true);
        change(end, connection);
    })
}

fn sign(paper: &Paper, connection: &mut Connection, end: usize) {
    connection.local_auth = paper.local(end);
    connection.remote_auth = RemoteAuth::PublicKey(Arc::new(paper.trust()));
}

fn header(octets: &[u8]) -> Header {
    Header::parse(octets).unwrap().0
}

fn exchanges(world: &World) -> Vec<(ExchangeType, bool)> {
    world.requests.iter().map(|m| (header(m).exchange, isakmp::is_encrypted(&header(m)))).collect()
}

fn run_until_sent(world: &mut World, messages: usize) {
    while world.requests.len() < messages {
        assert!(world.step(u64::MAX), "something is under way");
    }
}

fn receive(world: &mut World, end: usize, octets: &[u8]) -> Result<(), Refused> {
    let (local, peer) = ((address(end), 500).into(), (address(1 - end), 500).into());
    let datagram = Datagram { local, peer, octets: octets.to_vec(), dscp: 0 };
    world.with(end, |engine, cx| engine.receive(&datagram, cx))
}

// RFC 2409 §5.1, §5.4
#[test]
fn phase_1_has_three_messages() {
    for (kind, proposal) in [
        (None, "aes128-sha256-ecp256"),
        (None, "aes256-sha384-modp2048"),
        (Some("rsa"), "aes128-sha1-modp2048"),
        (Some("ecp256"), "aes128-sha256-x25519"),
        (Some("ecp384"), "aes256-sha384-ecp384"),
    ] {
        let paper = kind.map(paper);
        let mut world = world(1, |end, connection| {
            paper.iter().for_each(|paper| sign(paper, connection, end));
            connection.proposals = Proposals::ike([proposal]).unwrap();
            connection.fragment_octets = 0;
        });
        world.now_ms = 1;
        let world = comes_up(world);
        let (phase_1, quick) = (ExchangeType::AGGRESSIVE, ExchangeType::QUICK_MODE);
        let expected = [
            (phase_1, false),
            (phase_1, false),
            (phase_1, true),
            (quick, true),
            (quick, true),
            (quick, true),
        ];
        assert_eq!(exchanges(&world), expected, "{kind:?} {proposal}");
    }
}

// RFC 2409 §5: there is one group, that of the KE payload.
#[test]
fn the_group_is_the_first_that_the_initiator_has() {
    let agreed = |left: &[&str], right: &[&str]| {
        let mut world = world(2, |end, connection| {
            connection.proposals = Proposals::ike([left, right][end].iter().copied()).unwrap();
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let sa = world.ends[LEFT].engine.ike_sas().next()?;
        Some(sa.agreement()?.to_string())
    };
    let (p256, p384) = ("aes128-sha256-ecp256", "aes128-sha256-ecp384");
    assert_eq!(agreed(&[p256, p384], &[p384, p256]).unwrap(), "aes128-sha256-prfsha256-ecp256");
    assert_eq!(
        agreed(&["aes256-sha256-ecp256", p384, p256], &[p256]).unwrap(),
        "aes128-sha256-prfsha256-ecp256"
    );
    assert_eq!(agreed(&[p256, p384], &[p384]), None);
}

// RFC 3947 §4: NAT-D payloads are in the second and the third message, and the third is sent to port 4500.
#[test]
fn behind_a_nat_the_third_message_is_in_udp() {
    for kind in [None, Some("ecp256")] {
        let paper = kind.map(paper);
        let mut world = world(3, |end, connection| {
            paper.iter().for_each(|paper| sign(paper, connection, end));
        });
        world.configure(RIGHT, |connection| connection.remote = Hosts::Any);
        world.nat = Some("203.0.113.1:1000".parse().unwrap());
        world.now_ms = 1;
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        for end in [LEFT, RIGHT] {
            let (sa, install) = (only(&world, end), install(&world, end));
            assert!(install.is_in_udp, "{end}");
            assert_eq!((sa.path().local.port(), install.local.port()), (4500, 4500));
            assert_eq!(sa.path().peer.port(), [4500, 1001][end]);
            assert_eq!((install.nat.is_here, install.nat.is_there), (end == LEFT, end == RIGHT));
        }
    }
}

/// Who comes back after a crash says that it knows no other (RFC 2407 §4.6.3.3).
#[test]
fn who_is_alone_says_so() {
    let mut world = comes_up(world(5, |_, _| {}));
    world.restart(LEFT);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert!([LEFT, RIGHT].iter().all(|end| world.ends[*end].engine.ike_sas().count() == 1));
    world.check_children(1);
}

#[test]
fn there_is_one_mode_of_a_connection() {
    for (left, right) in [(true, false), (false, true)] {
        let mut world = world_as(6, |end, connection| set_aggressive(connection, [left, right][end]));
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(events(&world, LEFT), [Event::Closed("the peer says NO_PROPOSAL_CHOSEN".into())]);
        assert!(world.ends[RIGHT].events.is_empty());
        assert!(world.ends[RIGHT].refused.iter().all(|why| *why == Refused::NoProposal));
        assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
    }
}

#[test]
fn another_key_and_another_identity_prove_nothing() {
    let closed = |world: &mut World| {
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert!(world.ends.iter().all(|end| end.engine.ike_sas().count() == 0 && end.installed.is_empty()));
        [LEFT, RIGHT].map(|end| match events(world, end).pop() {
            Some(Event::Closed(why)) => why,
            event => panic!("{end}: {event:?}"),
        })
    };
    let mut wrong_key = world(7, |_, _| {});
    wrong_key.ends[LEFT].config.shared_keys[0].key = b"another".to_vec().into();
    let [left, right] = closed(&mut wrong_key);
    assert!(left.starts_with("right.example.org is not authenticated"), "{left}");
    assert!(right.starts_with("it was half-open") || right.contains("AUTHENTICATION_FAILED"), "{right}");
    // Each asks for somebody else than answers.
    let mut wrong_peer = world(8, |end, connection| {
        if end == LEFT {
            connection.remote_id = "centre.example.org".parse().unwrap();
        }
    });
    let [left, _] = closed(&mut wrong_peer);
    assert_eq!(left, "the peer is right.example.org, and should be centre.example.org");
    let mut unknown = world(9, |end, connection| {
        if end == LEFT {
            connection.local_id = "mallory.example.org".parse().unwrap();
        }
    });
    let [left, _] = closed(&mut unknown);
    assert!(left.starts_with("right.example.org is not authenticated"), "{left}");
    // With a certificate it is known when the third message comes.
    let paper = paper("ecp256");
    let mut nobody = world(10, |end, connection| {
        sign(&paper, connection, end);
        if end == RIGHT {
            connection.remote_id = "centre.example.org".parse().unwrap();
        }
    });
    nobody.now_ms = 1;
    nobody.ends[LEFT].config.half_open_ms = 30_000;
    nobody.configure(LEFT, |connection| connection.dpd_ms = 30_000);
    let [_, right] = closed(&mut nobody);
    assert!(right.starts_with("no connection is for left.example.org"), "{right}");
}

/// Nobody answers the third message: it is sent again until the peer says something.
#[test]
fn one_lost_message_ends_nothing() {
    for lost in 1..=3 {
        let mut world = world(11, |_, _| {});
        world.initiate(LEFT, Some(0));
        run_until_sent(&mut world, lost - 1);
        // The next one and what goes with it.
        world.one_way = Some([LEFT, RIGHT][usize::from(lost == 2)]);
        run_until_sent(&mut world, lost);
        world.one_way = None;
        world.run_for(20_000);
        assert!([LEFT, RIGHT].iter().all(|end| *only(&world, *end).phase() == Phase::Established), "{lost}");
        world.check_children(1);
        // And not any longer.
        let carried = world.carried;
        world.run_for(600_000);
        assert_eq!(world.carried, carried, "{lost}");
    }
}

/// Who must ask the user does not before it has the third message.
#[test]
fn users_prove_who_they_are_behind_it() {
    for (pushes, loses_third) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = world_with(18, pushes, |_, connection| set_aggressive(connection, true));
        world.initiate(LEFT, Some(0));
        if loses_third {
            run_until_sent(&mut world, 2);
            world.one_way = Some(LEFT);
            run_until_sent(&mut world, 3);
            world.one_way = None;
        }
        world.run_for(30_000);
        for end in [LEFT, RIGHT] {
            assert_eq!(*only(&world, end).phase(), Phase::Established, "{pushes} {loses_third}");
            assert_eq!(world.ends[end].installed.len(), 1);
        }
        assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (1, 0));
    }
}

/// There are peers that send it only when they are told the second again, as we do by ourselves.
#[test]
fn who_goes_on_without_the_third_message_hears_the_second() {
    let mut world = world(12, |_, _| {});
    world.initiate(LEFT, Some(0));
    run_until_sent(&mut world, 2);
    world.one_way = Some(LEFT);
    run_until_sent(&mut world, 4);
    world.one_way = None;
    let [second, third, quick] = [1, 2, 3].map(|n| world.requests[n].clone());
    let said = |world: &mut World, end, octets: &[u8]| {
        let (local, peer) = ((address(end), 500).into(), (address(1 - end), 500).into());
        let datagram = Datagram { local, peer, octets: octets.to_vec(), dscp: 0 };
        world.with(end, |engine, cx| {
            let _ = engine.receive(&datagram, cx);
            sent(cx.out)
        })
    };
    assert_eq!(said(&mut world, RIGHT, &quick), std::slice::from_ref(&second));
    assert_eq!(said(&mut world, LEFT, &second), std::slice::from_ref(&third));
    // Not on and on.
    let again = (0..20).filter(|_| !said(&mut world, RIGHT, &quick).is_empty()).count();
    assert_eq!(again, 9);
    assert!(said(&mut world, RIGHT, &third).is_empty());
    assert_eq!(*only(&world, RIGHT).phase(), Phase::Established);
    assert_eq!(said(&mut world, RIGHT, &quick).len(), 0);
    world.run_for(30_000);
    world.check_children(1);
}

fn sent(out: &VecDeque<Output>) -> Vec<Vec<u8>> {
    let of = |output: &Output| match output {
        Output::Send(datagram) => Some(datagram.octets.clone()),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

// RFC 2409 §5.1: the third message may be in clear.
#[test]
fn the_third_message_may_be_in_clear_and_says_nothing_else() {
    let mut world = comes_up(world(13, |_, _| {}));
    let before = only(&world, RIGHT).id();
    world.restart(LEFT);
    world.requests.clear();
    world.initiate(LEFT, None);
    run_until_sent(&mut world, 2);
    world.one_way = Some(LEFT);
    run_until_sent(&mut world, 3);
    let third = world.requests[2].clone();
    let (header, first, body) = Header::parse(&third).unwrap();
    let right = world.ends[RIGHT].engine.v1().find(|sa| sa.id() != before).unwrap();
    let iv = right.phase_1.as_ref().unwrap().iv.unwrap();
    let (plain, _) = right.keys.as_ref().unwrap().decrypt(iv, body).unwrap();
    let chain = Chain::parse(first, &plain, true).unwrap();
    let kinds: Vec<_> = chain.payloads.iter().map(Payload::kind).collect();
    assert_eq!(kinds, [PayloadType::HASH, PayloadType::NAT_D, PayloadType::NAT_D, PayloadType::N_V1]);
    let in_clear = |payloads: &[Payload]| {
        let (first, octets) = isakmp::emit(payloads).unwrap();
        isakmp::message(&Header { flags: Flags::default(), ..header }, first, &octets).unwrap()
    };
    let wrong = [&[Payload::Hash(vec![0; 32])], &chain.payloads[1..]].concat();
    assert!(receive(&mut world, RIGHT, &in_clear(&wrong)).is_err());
    assert!(receive(&mut world, RIGHT, &in_clear(&chain.payloads[1..])).is_err());
    receive(&mut world, RIGHT, &in_clear(&chain.payloads)).unwrap();
    // RFC 2409 §B: there is no block that was encrypted before.
    let right = world.ends[RIGHT].engine.v1().find(|sa| sa.id() != before).unwrap();
    assert_eq!((right.phase(), right.last), (&Phase::Established, Some(iv)));
    // What the other had is not gone, by what anybody can have put there.
    assert_eq!(world.ends[RIGHT].installed.len(), 1);
}

/// What anybody can have sent ends nothing, and has few signatures checked.
#[test]
fn a_forged_third_message_ends_nothing() {
    for (forged, is_up) in [(0, true), (3, true), (40, true)] {
        let paper = paper("ecp256");
        let mut world = world(19, |end, connection| sign(&paper, connection, end));
        world.now_ms = 1;
        world.initiate(LEFT, Some(0));
        run_until_sent(&mut world, 2);
        let second = header(&world.requests[1]);
        let jobs = world.ends[RIGHT].jobs.len();
        let in_clear = |payloads: &[Payload]| {
            let (first, body) = isakmp::emit(payloads).unwrap();
            isakmp::message(&Header { flags: Flags::default(), ..second }, first, &body).unwrap()
        };
        assert!(receive(&mut world, RIGHT, &in_clear(&[Payload::Hash(vec![1; 32])])).is_err());
        let mut checked = 0;
        for n in 0..forged {
            let octets = in_clear(&[Payload::Signature(vec![n; 64])]);
            let taken = receive(&mut world, RIGHT, &octets);
            assert_eq!(taken.is_ok(), n < 4, "{n}");
            while world.ends[RIGHT].jobs.len() > jobs {
                let (_, id, job) = world.ends[RIGHT].jobs.pop().unwrap();
                let outcome = job.run(&mut crate::crypto::vectors::seeded(n.into()));
                world.with(RIGHT, |engine, cx| engine.done(id, outcome, cx));
                checked += 1;
            }
            assert_eq!(world.ends[RIGHT].engine.half_open(), 1);
        }
        assert_eq!(checked, forged.min(4));
        world.run_for(30_000);
        assert_eq!(world.ends[RIGHT].installed.len() == 1, is_up, "{forged}");
    }
    // Nobody else is waited for without end, and what was wrong is said then.
    let paper = paper("ecp256");
    let mut world = world(20, |end, connection| sign(&paper, connection, end));
    world.now_ms = 1;
    world.initiate(LEFT, Some(0));
    run_until_sent(&mut world, 2);
    let second = header(&world.requests[1]);
    world.one_way = Some(LEFT);
    let (first, body) = isakmp::emit(&[Payload::Signature(vec![7; 64])]).unwrap();
    let octets = isakmp::message(&Header { flags: Flags::default(), ..second }, first, &body).unwrap();
    receive(&mut world, RIGHT, &octets).unwrap();
    world.run_for(40_000);
    let Some(Event::Closed(why)) = events(&world, RIGHT).pop() else { panic!() };
    assert!(why.starts_with("left.example.org is not authenticated"), "{why}");
}

/// What an end does: what it sends, and what takes long.
fn done(out: &VecDeque<Output>) -> Vec<String> {
    let of = |output: &Output| match output {
        Output::Send(Datagram { octets, .. }) => {
            let (header, first, body) = Header::parse(octets).unwrap();
            let chain = Chain::parse(first, body, false).map(|chain| {
                chain
                    .payloads
                    .iter()
                    .zip(&chain.bodies)
                    .map(|(p, at)| (p.kind(), at.len()))
                    .collect::<Vec<_>>()
            });
            Some(format!("{} octets of {}: {chain:?}", octets.len(), header.exchange))
        }
        Output::Job(_, job) => Some(format!("{:?}", std::mem::discriminant(job))),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

/// What the right end does for what the left end sends, until nothing is left to be done at once.
fn answers(world: &mut World) -> Vec<Vec<String>> {
    world.initiate(LEFT, None);
    let (mut all, mut carried) = (vec![], 0);
    let mut senders = vec![];
    loop {
        let at = [LEFT, RIGHT].into_iter().find(|end| !world.ends[*end].jobs.is_empty());
        let (at, out) = if let Some(at) = at {
            let (_, id, job) = world.ends[at].jobs.remove(0);
            let outcome = job.run(&mut crate::crypto::vectors::seeded(all.len() as u64));
            (at, world.with(at, |engine, cx| (engine.done(id, outcome, cx), done(cx.out)).1))
        } else if let Some(octets) = world.requests.get(carried).cloned() {
            let at: usize = 1 - senders[carried];
            carried += 1;
            let (local, peer) = ((address(at), 500).into(), (address(1 - at), 500).into());
            let datagram = Datagram { local, peer, octets, dscp: 0 };
            (at, world.with(at, |engine, cx| (_ = engine.receive(&datagram, cx), done(cx.out)).1))
        } else {
            return all;
        };
        senders.resize(world.requests.len(), at);
        if at == RIGHT {
            all.push(out);
        }
    }
}

/// What strangers find out by naming somebody: for each name, what is done, what becomes of guesses, and when it ends.
type Learned = (Vec<Vec<String>>, Vec<Result<(), Refused>>, Option<u64>);

fn learned(names: &[&str], world: impl Fn(&str) -> World) -> Vec<Learned> {
    let of = |name: &&str| {
        let mut world = world(name);
        world.now_ms = 1;
        let answers = answers(&mut world);
        assert!(answers.len() >= 2, "{name}: {answers:?}");
        let second = header(&world.requests[1]);
        let guess = |flags| {
            let (first, body) = isakmp::emit(&[Payload::Hash(vec![1; 28])]).unwrap();
            isakmp::message(&Header { flags, ..second }, first, &body).unwrap()
        };
        let guesses = [Flags::default(), Flags::ENCRYPTION].map(guess);
        let guessed = guesses.map(|octets| receive(&mut world, RIGHT, &octets)).into();
        (answers, guessed, world.ends[RIGHT].engine.due_ms())
    };
    names.iter().map(of).collect()
}

fn is_all_the_same<T: PartialEq + std::fmt::Debug>(all: &[T]) {
    all.windows(2).for_each(|two| assert_eq!(two[0], two[1]));
}

/// Whoever names somebody gets the same answer, in the same steps, whether there is such a one or not.
#[test]
fn strangers_do_not_learn_who_there_is() {
    const NAMES: [&str; 5] = [
        "left.example.org",
        "centre.example.org",
        "keyless.example.org",
        "nobody.example.org",
        "x@example.org",
    ];
    let with_key =
        |name: &str, key: &[u8]| SharedKey { ids: vec![name.parse().unwrap()], key: key.to_vec().into() };
    let responder = |config: &mut Configuration| {
        let one = config.connections[0].clone();
        let others = ["centre.example.org", "keyless.example.org"].map(|name| {
            Arc::new(Connection { name: name.into(), remote_id: name.parse().unwrap(), ..(*one).clone() })
        });
        config.connections.extend(others);
    };
    // By shared keys: the third message cannot be made.
    let by_key = learned(&NAMES, |name| {
        let mut world = world(14, |_, _| {});
        responder(&mut world.ends[RIGHT].config);
        world.ends[RIGHT].config.shared_keys =
            vec![with_key("left.example.org", SHARED), with_key("centre.example.org", b"another")];
        world.ends[LEFT].config.shared_keys[0].key = b"a guess".to_vec().into();
        world.configure(LEFT, |connection| connection.local_id = name.parse().unwrap());
        world
    });
    is_all_the_same(&by_key);
    // By signatures: it is made, and proves nothing.
    let (ours, theirs) = (paper("ecp256"), paper("ecp256"));
    let by_signature = learned(&NAMES, |name| {
        let mut world = world(15, |end, connection| {
            sign(&ours, connection, end);
            if end == LEFT {
                connection.local_auth = theirs.local(end);
                connection.local_id = name.parse().unwrap();
            }
        });
        responder(&mut world.ends[RIGHT].config);
        world
    });
    is_all_the_same(&by_signature);
    assert!(by_signature[0].0.len() > by_key[0].0.len());
}

/// Nor by who we say to be, or by what is agreed on.
#[test]
fn strangers_do_not_learn_it_by_other_connections() {
    let said = |name: &str| {
        let mut world = world(16, |_, _| {});
        world.configure(LEFT, |connection| connection.local_id = name.parse().unwrap());
        let one = world.ends[RIGHT].config.connections[0].clone();
        let other = Connection {
            name: "other".into(),
            local_id: "other.example.org".parse().unwrap(),
            remote_id: "centre.example.org".parse().unwrap(),
            ..(*one).clone()
        };
        world.ends[RIGHT].config.connections.push(Arc::new(other));
        world.initiate(LEFT, None);
        run_until_sent(&mut world, 2);
        let (_, first, body) = Header::parse(&world.requests[1]).unwrap();
        Chain::parse(first, body, false).unwrap().identification().unwrap().to_string()
    };
    assert_eq!(said("left.example.org"), "right.example.org");
    assert_eq!(said("centre.example.org"), "other.example.org");
    let all: Vec<_> = (0..40).map(|n| said(&format!("{n}.example.org"))).collect();
    let others = all.iter().filter(|id| *id == "other.example.org").count();
    assert!((8..32).contains(&others), "{others}");
    // The same name hears the same.
    assert!((0..40).all(|n| said(&format!("{n}.example.org")) == all[n]));
}

/// A first message that has not all that it must have leads to nothing.
#[test]
fn half_a_first_message_is_none() {
    let mut world = world(17, |_, _| {});
    world.initiate(LEFT, None);
    run_until_sent(&mut world, 1);
    let octets = world.requests[0].clone();
    let (header, first, body) = Header::parse(&octets).unwrap();
    let chain = Chain::parse(first, body, false).unwrap();
    for without in [PayloadType::SA_V1, PayloadType::KE_V1, PayloadType::NONCE_V1, PayloadType::ID] {
        let left: Vec<_> = chain.payloads.iter().filter(|p| p.kind() != without).cloned().collect();
        let (first, body) = isakmp::emit(&left).unwrap();
        let half = isakmp::message(&header, first, &body).unwrap();
        assert!(receive(&mut world, RIGHT, &half).is_err(), "{without:?}");
        assert_eq!((world.ends[RIGHT].engine.half_open(), world.ends[RIGHT].jobs.len()), (0, 0));
    }
    // Nor does a public value that is none, or one of another group.
    for public in [vec![0; 64], vec![4; 32]] {
        let mut payloads = chain.payloads.clone();
        let ke = payloads.iter_mut().find(|p| p.kind() == PayloadType::KE_V1).unwrap();
        *ke = Payload::KeyExchange(public);
        let (first, body) = isakmp::emit(&payloads).unwrap();
        let initiator_spi = IkeSpi(header.initiator_spi.0 + 1);
        let _ = receive(
            &mut world,
            RIGHT,
            &isakmp::message(&Header { initiator_spi, ..header }, first, &body).unwrap(),
        );
        world.run_for(10);
        assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
    }
}
