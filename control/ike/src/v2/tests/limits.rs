//! What a peer may take that has proven who it is, and what one may that has not yet.

use super::{
    established, established_as, events,
    world::{LEFT, RIGHT, World, address, config, connection},
};
use crate::{
    connection::{Configuration, Hosts},
    message::{
        ExchangeType, Flags, Header, IkeSpi, Message, Notify, NotifyType, Payload, PayloadType, Payloads,
        Version,
    },
    v2::{
        ike_sa::{IkeSa, IkeSaId, Phase},
        output::{Datagram, Event, Output},
        refused::Refused,
    },
};
use std::net::SocketAddr;

fn ids(world: &World, end: usize) -> Vec<IkeSaId> {
    let mut ids: Vec<_> = world.ends[end].engine.sas().map(IkeSa::id).collect();
    ids.sort_unstable();
    ids
}

fn replaced_ike_sas(world: &World, end: usize) -> usize {
    world.ends[end].engine.sas().filter(|sa| *sa.phase() == Phase::Replaced).count()
}

/// Until the left end asks.
fn step_until_asked(world: &mut World) {
    while world.only_sa(LEFT).asked.is_none() {
        assert!(world.step(u64::MAX));
    }
}

#[test]
fn who_deletes_no_child_may_replace_few() {
    let mut world = established(60);
    let mut made = 0;
    while made < 300 {
        let Some(old) = world.only_sa(LEFT).children().first().map(|child| child.spi_in) else { break };
        world.with(LEFT, |engine, cx| assert!(engine.rekey_child(old, cx)));
        step_until_asked(&mut world);
        // It forgets what it replaces, and tells nobody.
        let id = world.only_sa(LEFT).id();
        world.with(LEFT, |engine, cx| engine.with(id, cx, |sa, cx| sa.remove_child(old, cx)));
        world.run_for(100);
        made += world.only_sa(LEFT).children().len();
    }
    assert_eq!(made, 9);
    let right = world.only_sa(RIGHT);
    assert_eq!((right.children().len(), right.later.len()), (10, 9));
    // They go, though nobody says so.
    world.run_for(300_000);
    let right = world.only_sa(RIGHT);
    assert_eq!((right.children().len(), right.later.len()), (1, 0));
}

/// All may be replaced before any is deleted.
#[test]
fn who_has_many_children_may_replace_them_all() {
    let mut world = established(61);
    let (id, child) = (world.only_sa(LEFT).id(), world.ends[LEFT].config.connections[0].children[0].clone());
    for _ in 0..39 {
        world.with(LEFT, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
    }
    world.run_for(10_000);
    world.check_children(40);
    for spi in world.ends[LEFT].installed.keys().copied().collect::<Vec<_>>() {
        world.with(LEFT, |engine, cx| assert!(engine.rekey_child(spi, cx)));
    }
    let mut most = 0;
    let until_ms = world.now_ms + 1000;
    while world.step(until_ms) {
        most = most.max(world.only_sa(RIGHT).children().iter().filter(|child| child.is_replaced).count());
    }
    assert_eq!(most, 40);
    world.check_children(40);
    assert!(!events(&world, LEFT).iter().any(|event| matches!(event, Event::ChildFailed(..))));
}

/// What is to be done later for child SAs that are gone is forgotten with the next.
#[test]
fn who_deletes_its_children_leaves_nothing() {
    let mut world = established(62);
    for _ in 0..50 {
        super::rekey_only_child(&mut world, LEFT);
        world.run_for(100);
    }
    world.check_children(1);
    assert_eq!(world.only_sa(RIGHT).later.len(), 1);
}

#[test]
fn who_deletes_no_ike_sa_may_replace_few() {
    let mut world = established(63);
    let mut made = 0;
    while made < 300 {
        let id = world.only_sa(LEFT).id();
        world.with(LEFT, |engine, cx| assert!(engine.rekey(id, cx)));
        step_until_asked(&mut world);
        // It takes it for deleted, and tells nobody.
        world.with(LEFT, |engine, cx| engine.with(id, cx, |sa, _| sa.is_deleted = true));
        world.run_for(100);
        if world.only_sa(LEFT).id() == id {
            world.with(LEFT, |engine, cx| engine.with(id, cx, |sa, _| sa.is_deleted = false));
            break;
        }
        made += 1;
    }
    assert_eq!((made, replaced_ike_sas(&world, RIGHT)), (8, 8));
    world.check_children(1);
    // They go, and it has been asked again until then.
    world.run_for(900_000);
    assert_eq!((ids(&world, LEFT).len(), ids(&world, RIGHT).len()), (1, 1));
    assert_eq!(world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis());
    assert!(world.only_sa(LEFT).established_ms() > Some(100_000), "it has been replaced");
    world.check_children(1);
}

#[test]
fn there_is_an_end_to_ike_sas() {
    let mut right = config(connection("b", RIGHT));
    (right.most_ike_sas, right.most_half_open_of_one) = (3, 100);
    let mut world = World::new(64, [config(connection("a", LEFT)), right]);
    for _ in 0..5 {
        world.initiate(LEFT, None);
        world.run_for(1000);
    }
    let is_full = |world: &World| {
        let refused = &world.ends[RIGHT].refused;
        !refused.is_empty() && refused.iter().all(|why| *why == Refused::Full)
    };
    assert_eq!(ids(&world, RIGHT).len(), 3);
    assert!(is_full(&world), "{:?}", world.ends[RIGHT].refused);
    // Those that are there go on with new keys.
    let all = ids(&world, RIGHT);
    world.with(RIGHT, |engine, cx| all.iter().for_each(|id| assert!(engine.rekey(*id, cx))));
    world.run_for(1000);
    let anew = ids(&world, RIGHT);
    assert!(anew.len() == 3 && all.iter().all(|id| !anew.contains(id)));
    // Where one goes, one that waits has its place.
    world.with(RIGHT, |engine, cx| assert!(engine.terminate(anew[0], cx)));
    world.run_for(60_000);
    assert_eq!(ids(&world, RIGHT).len(), 3);
    assert!(!ids(&world, RIGHT).contains(&anew[0]) && is_full(&world));
}

/// A right end that answers whoever is anywhere, and those who begin with it and do not go on.
struct Crowd {
    world: World,
    first: Message,
    begun: u64,
}

impl Crowd {
    fn new(change: impl FnOnce(&mut Configuration)) -> Crowd {
        let mut right = connection("b", RIGHT);
        (right.local, right.remote) = (Hosts::Any, Hosts::Any);
        let mut right = config(right);
        change(&mut right);
        let mut world = World::new(66, [config(connection("a", LEFT)), right]);
        world.one_way = Some(LEFT);
        world.initiate(LEFT, None);
        world.run_for(10);
        let first = Message::parse(&world.requests[0]).unwrap();
        Crowd { world, first, begun: 0 }
    }

    /// Another first message comes from there.
    fn begin(&mut self, from: &str) -> Result<(), Refused> {
        self.begun += 1;
        self.send(from, None).0
    }

    /// The same, and once more with the cookie that is asked for.
    fn begin_with_cookie(&mut self, from: &str) -> Result<(), Refused> {
        self.begun += 1;
        let (received, answer) = self.send(from, None);
        assert_eq!(received, Err(Refused::Cookie));
        let cookie = answer.unwrap().payloads.notifies(NotifyType::COOKIE).next().unwrap().clone();
        self.send(from, Some(cookie)).0
    }

    fn send(&mut self, from: &str, cookie: Option<Notify>) -> (Result<(), Refused>, Option<Message>) {
        let peer: SocketAddr = from.parse().unwrap();
        let local = if peer.is_ipv4() { "192.0.2.2:500" } else { "[2001:db8::2]:500" }.parse().unwrap();
        let header = Header { initiator_spi: IkeSpi(1000 + self.begun), ..self.first.header };
        let mut payloads = self.first.payloads.clone();
        payloads.0.splice(0..0, cookie.map(Payload::Notify));
        let octets = Message { header, payloads, sealed: None }.emit().unwrap();
        let datagram = Datagram { local, peer, octets, dscp: 0 };
        let (received, answer) = self.world.with(RIGHT, |engine, cx| {
            let (received, mut answer) = (engine.receive(&datagram, cx), None);
            while let Some(output) = cx.out.pop_front() {
                match output {
                    Output::Job(id, job) => {
                        let outcome = job.run(cx.rng);
                        engine.done(id, outcome, cx);
                    }
                    Output::Send(sent) => {
                        assert_eq!((sent.local, sent.peer), (local, peer));
                        answer = Message::parse(&sent.octets).ok();
                    }
                    _ => {}
                }
            }
            (received, answer)
        });
        let has_begun = answer.as_ref().map(|answer| answer.header.responder_spi != IkeSpi::NONE);
        let expected = match received {
            Ok(()) => Some(true),
            Err(Refused::Cookie) => Some(false),
            Err(_) => None,
        };
        assert_eq!(has_begun, expected, "{received:?}");
        (received, answer)
    }

    fn half_open(&self) -> usize {
        self.world.ends[RIGHT].engine.half_open()
    }
}

// RFC 7296 §2.6
#[test]
fn there_is_an_end_to_the_half_open_ones_of_a_host() {
    for (of_host, other) in [
        (["198.51.100.1:500", "198.51.100.1:4500"], "198.51.100.2:500"),
        (["[2001:db8:1::1]:500", "[2001:db8:1::2]:500"], "[2001:db8:1:1::1]:500"),
    ] {
        let mut crowd = Crowd::new(|config| (config.most_half_open_of_one, config.cookies_from) = (4, 100));
        for from in of_host {
            assert_eq!(crowd.begin(from), Ok(()));
        }
        // From half as many on it must show where it is.
        assert_eq!(crowd.begin(of_host[0]), Err(Refused::Cookie));
        for from in of_host {
            assert_eq!(crowd.begin_with_cookie(from), Ok(()));
        }
        for from in of_host {
            assert_eq!(crowd.begin_with_cookie(from), Err(Refused::TooMany));
        }
        assert_eq!(crowd.half_open(), 4);
        // Another host has as many.
        for _ in 0..2 {
            assert_eq!(crowd.begin(other), Ok(()));
        }
        for _ in 0..2 {
            assert_eq!(crowd.begin_with_cookie(other), Ok(()));
        }
        assert_eq!(crowd.begin_with_cookie(other), Err(Refused::TooMany));
        assert_eq!(crowd.half_open(), 8);
        // When they are gone it may begin again.
        crowd.world.run_for(crowd.world.ends[RIGHT].config.half_open_ms);
        assert_eq!(crowd.half_open(), 0);
        assert_eq!(crowd.begin(of_host[0]), Ok(()));
    }
}

#[test]
fn there_is_an_end_to_the_first_messages_of_a_prefix_in_a_second() {
    for (of_prefix, other) in [
        (["198.51.100.1:500", "198.51.100.2:500", "198.51.100.255:501"], "198.51.101.1:500"),
        (["[2001:db8:1::1]:500", "[2001:db8:1:1::1]:500", "[2001:db8:1:2::1]:500"], "[2001:db8:2::1]:500"),
    ] {
        // Without cookies, and where each is asked for one.
        for (cookies_from, is_told) in [(100, Ok(())), (0, Err(Refused::Cookie))] {
            let mut crowd = Crowd::new(|config| {
                (config.firsts_a_second, config.cookies_from) = (3, cookies_from);
                config.most_half_open_of_one = 100;
            });
            for second in 0..3 {
                for from in of_prefix {
                    assert_eq!(crowd.begin(from), is_told);
                }
                for from in of_prefix {
                    assert_eq!(crowd.begin(from), Err(Refused::TooOften));
                }
                if second == 0 {
                    assert_eq!(crowd.begin(other), is_told);
                }
                crowd.world.run_for(1000);
            }
            assert_eq!(crowd.half_open(), if is_told.is_ok() { 10 } else { 0 });
        }
    }
}

/// Whoever has a cookie is where it says, and is let in though others have sent as many as its prefix may.
#[test]
fn first_messages_with_a_cookie_are_not_counted() {
    let mut crowd = Crowd::new(|config| (config.firsts_a_second, config.cookies_from) = (1, 0));
    let from = "198.51.100.1:500";
    crowd.begun += 1;
    let (received, answer) = crowd.send(from, None);
    assert_eq!(received, Err(Refused::Cookie));
    let cookie = answer.unwrap().payloads.notifies(NotifyType::COOKIE).next().unwrap().clone();
    assert_eq!(crowd.send(from, None).0, Err(Refused::TooOften));
    // One that is none of ours is as good as none.
    let mut forged = cookie.clone();
    forged.data[0] ^= 1;
    assert_eq!(crowd.send(from, Some(forged)).0, Err(Refused::TooOften));
    assert_eq!(crowd.send("198.51.100.2:500", Some(cookie.clone())).0, Err(Refused::TooOften));
    assert_eq!(crowd.send(from, Some(cookie)).0, Ok(()));
    assert_eq!(crowd.half_open(), 1);
}

/// What of messages in fragments does not come is counted for half-open ones, until they are none.
#[test]
fn fragments_of_half_open_ones_are_counted() {
    let mut some = 0;
    for seed in 0..50 {
        let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        [LEFT, RIGHT].into_iter().for_each(|end| world.configure(end, |c| c.fragment_octets = 300));
        world.loss = 40;
        world.initiate(LEFT, Some(0));
        while world.step(600_000) {
            let held = world.ends[RIGHT].engine.unproven_octets();
            some += usize::from(held > 0);
            assert!(held == 0 || world.ends[RIGHT].engine.half_open() == 1);
        }
        assert_eq!(world.ends[RIGHT].engine.unproven_octets(), 0);
    }
    assert!(some > 0);
}

// RFC 7296 §2.3
#[test]
fn a_wider_window_of_the_peer_changes_nothing() {
    let mut world = established_as(65, |connection| connection.fragment_octets = 0);
    let id = world.only_sa(LEFT).id();
    let says = Notify::new(NotifyType::SET_WINDOW_SIZE, &64u32.to_be_bytes());
    let says = Payloads(vec![Payload::Notify(says)]);
    world.with(LEFT, |engine, cx| {
        engine.with(id, cx, |sa, cx| _ = sa.ask(ExchangeType::INFORMATIONAL, &says, cx))
    });
    world.run_for(1000);
    assert!(world.only_sa(LEFT).is_asking_nothing(), "it is answered");
    // Of three things that it has to ask, the peer asks one until that is answered.
    let (id, child) =
        (world.only_sa(RIGHT).id(), world.ends[RIGHT].config.connections[0].children[0].clone());
    let asked = world.requests.len();
    world.one_way = Some(LEFT);
    for _ in 0..3 {
        world.with(RIGHT, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
    }
    world.run_for(20_000);
    assert_eq!(world.requests.len(), asked + 1);
    world.one_way = None;
    world.run_for(60_000);
    assert_eq!(world.requests.len(), asked + 3);
    world.check_children(4);
}

/// Whoever it seems to come from may not have sent it, and gets no more octets than were sent.
#[test]
fn what_is_answered_to_anybody_is_no_longer_than_what_came() {
    let mut right = config(connection("b", RIGHT));
    right.cookies_from = 0;
    let mut world = World::new(65, [config(connection("a", LEFT)), right]);
    let (local, peer) = (SocketAddr::new(address(RIGHT), 500), SocketAddr::new(address(LEFT), 500));
    let mut answered = |major, payloads: Vec<Payload>| {
        let header = Header {
            initiator_spi: IkeSpi(1),
            responder_spi: IkeSpi::NONE,
            version: Version { major, ..Version::V2 },
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::INITIATOR,
            message_id: 0,
        };
        let octets = Message { header, payloads: Payloads(payloads), sealed: None }.emit().unwrap();
        let came = octets.len();
        let datagram = Datagram { local, peer, octets, dscp: 0 };
        let sent = world.with(RIGHT, |engine, cx| {
            assert!(engine.receive(&datagram, cx).is_err());
            let sent = cx.out.iter().filter_map(|output| match output {
                Output::Send(sent) => Some(sent.octets.len()),
                _ => None,
            });
            let sent = sent.collect::<Vec<_>>();
            cx.out.clear();
            sent
        });
        assert!(sent.iter().sum::<usize>() <= came, "{came} octets are answered by {sent:?}");
        !sent.is_empty()
    };
    let nonce = |octets| Payload::Nonce(vec![7; octets]);
    let critical =
        |octets| Payload::Unknown { kind: PayloadType(200), critical: true, body: vec![0; octets] };
    // RFC 7296 §2.5, §2.6
    for (major, payloads, is_answered) in [
        (3, vec![], false),
        (3, vec![nonce(16)], true),
        (2, vec![critical(0)], false),
        (2, vec![critical(5)], true),
        (2, vec![nonce(16)], false),
        (2, vec![nonce(37)], false),
        (2, vec![nonce(38)], true),
    ] {
        assert_eq!(answered(major, payloads.clone()), is_answered, "{major}, {payloads:?}");
    }
}
