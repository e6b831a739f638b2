//! Ends that die at any time, and go on with what was kept of them, of either version.

use super::{
    established, established_as, events,
    seeds::{agrees_in_the_end, world_of},
    world::{LEFT, RIGHT, World},
};
use crate::{
    connection::{Connection, Hosts},
    crypto::key_log::KeyLog,
    message::{
        ExchangeType, Flags, Header, Message, Version,
        isakmp::{self, Chain, Payload},
    },
    v2::{
        child::Install,
        context::Context,
        engine::Engine,
        ike_sa::{IkeSaId, Phase},
        output::{ChildChange, Event, Output},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Whether it is a response, or the last of three, its message ID, and the number of the fragment.
type Number = (bool, u32, Option<u16>);

/// Octets of what has nothing but a hash in it, at most.
const ONLY_A_HASH: usize = Header::LEN + 4 + 64 + 16;

/// What is kept of an end, as if it were in a file.
#[derive(Default)]
pub struct Kept {
    sas: BTreeMap<IkeSaId, Zeroizing<Vec<u8>>>,
    /// In thousandths, of the things that it does, those that it dies over.
    pub deaths: u32,
    /// How often it has died.
    died: usize,
    /// What it has sealed, by SPIs and IV: each once, whatever is sent again.
    sealed: BTreeMap<(u64, u64, Vec<u8>), Vec<u8>>,
    /// The same by SPIs and what has to be another.
    numbered: BTreeMap<(u64, u64, Number), Vec<u8>>,
}

impl World {
    pub fn keep_both(&mut self, deaths: u32) {
        for end in [LEFT, RIGHT] {
            self.ends[end].engine.tell_changes();
            self.kept[end] = Some(Kept { deaths, ..Kept::default() });
            self.keep(end, &VecDeque::new());
        }
    }

    /// Keeps what has changed, unless it dies before; after how many outputs it dies, if it does.
    pub fn keep(&mut self, at: usize, out: &VecDeque<Output>) -> Option<usize> {
        let deaths = self.kept[at].as_ref()?.deaths;
        let dies = deaths > 0 && self.below(1000) < deaths.into();
        let is_late = dies && self.below(3) == 0;
        let outputs = self.below(1 + out.len() as u64) as usize;
        if is_late {
            return Some(0);
        }
        let (engine, kept) = (&mut self.ends[at].engine, self.kept[at].as_mut()?);
        for id in engine.take_changed() {
            match engine.keep(id, out) {
                Some(octets) => _ = kept.sas.insert(id, octets),
                None => _ = kept.sas.remove(&id),
            }
        }
        dies.then_some(outputs)
    }

    /// A process takes the place of one that died.
    pub fn come_back(&mut self, at: usize) {
        let Some(mut kept) = self.kept[at].take() else { return };
        kept.died += 1;
        let mut all = vec![];
        let (rng, config) = (&mut crate::crypto::vectors::seeded(kept.died as u64), &self.ends[at].config);
        let mut out = VecDeque::new();
        let mut cx = Context {
            now_ms: self.now_ms,
            unix_secs: 0,
            rng,
            config,
            child_spi: &mut || None,
            child_room: &mut |_| false,
            out: &mut out,
        };
        let mut engine = Engine::new(&mut cx);
        let connection = |mark| {
            config.connections.iter().find(|connection: &&Arc<Connection>| connection.mark == mark).cloned()
        };
        for octets in kept.sas.values() {
            all.push(engine.restore(octets, &connection, &mut cx).expect("what was kept is whole").1);
        }
        assert!(out.is_empty(), "nothing is done before it goes on");
        engine.tell_changes();
        self.ends[at].engine = engine;
        self.ends[at].jobs.clear();
        let (installs, moves): (Vec<_>, Vec<_>) = all.into_iter().map(|u| (u.installs, u.moves)).unzip();
        // What the datapath has and nobody wants any more; and what it has not got yet.
        let wanted = self.children_of(at);
        let gone: Vec<u32> =
            self.ends[at].installed.keys().copied().filter(|spi| !wanted.contains(spi)).collect();
        for install in installs.into_iter().flatten() {
            if !self.ends[at].installed.contains_key(&install.sa.spi_in) {
                self.take(at, Output::Child(ChildChange::Install(Box::new(install))));
            }
        }
        for spi in gone {
            let end = &mut self.ends[at];
            end.installed.remove(&spi);
            if end.sends.remove(&spi) {
                let next: Vec<u32> = end
                    .installed
                    .iter()
                    .filter(|(_, install)| install.replaces == Some(spi))
                    .map(|(spi, _)| *spi)
                    .collect();
                end.sends.extend(next);
            }
        }
        assert!(wanted.iter().all(|spi| self.ends[at].installed.contains_key(spi)), "{at}: all are there");
        // What is alone in its place is sent by, if the peer has it.
        let end = &mut self.ends[at];
        let unknown = end.engine.unknown_children();
        let old: BTreeSet<u32> = end.installed.values().filter_map(|install| install.replaces).collect();
        let is_alone = |(spi, install): &(&u32, &Install)| {
            !old.contains(*spi)
                && !unknown.contains(*spi)
                && install.replaces.is_none_or(|old| !end.installed.contains_key(&old))
        };
        end.sends.extend(end.installed.iter().filter(is_alone).map(|(spi, _)| *spi));
        for moved in moves.into_iter().flatten() {
            self.take(at, Output::Child(ChildChange::Move(moved)));
        }
        let deaths = std::mem::take(&mut kept.deaths);
        self.kept[at] = Some(kept);
        self.with(at, |engine, cx| engine.resume(cx));
        self.kept[at].iter_mut().for_each(|kept| kept.deaths = deaths);
    }

    /// How often its ends have died.
    pub fn died(&self) -> usize {
        self.kept.iter().flatten().map(|kept| kept.died).sum()
    }

    /// The child SAs that an end has.
    pub fn children_of(&self, at: usize) -> BTreeSet<u32> {
        self.ends[at].engine.ike_sas().flat_map(|sa| sa.children().iter().map(|c| c.spi_in)).collect()
    }

    /// RFC 2409 §B: the IV of an exchange is by its message ID, and each IV behind it by the message before. So all that an end seals
    /// of an exchange are its question or its answer, and HASH(3).
    fn check_encrypted_once(&mut self, at: usize, octets: &[u8]) {
        let Some(kept) = &mut self.kept[at] else { return };
        let Ok((header, first, body)) = Header::parse(octets) else { return };
        let part = Chain::parse(first, body, false).ok().and_then(|chain| match &chain.payloads[..] {
            [Payload::Fragment(part)] => Some(part.number),
            _ => None,
        });
        let is_encrypted = isakmp::is_encrypted(&header) || part.is_some();
        if header.version != Version::V1 || header.message_id == 0 || !is_encrypted {
            return;
        }
        let is_third = header.exchange == ExchangeType::QUICK_MODE && octets.len() <= ONLY_A_HASH;
        let number = (is_third && part.is_none(), header.message_id, part.map(u16::from));
        let key = (header.initiator_spi.0, header.responder_spi.0, number);
        let before = kept.numbered.entry(key).or_insert_with(|| octets.to_vec());
        assert!(before == octets, "a message ID is used once");
    }

    // RFC 5282 §3.1, RFC 7296 §2.1: an IV is for one message, and so is a message ID.
    pub fn check_sealed_once(&mut self, at: usize, octets: &[u8]) {
        self.check_encrypted_once(at, octets);
        let Some(kept) = &mut self.kept[at] else { return };
        let Ok(Message { header, sealed: Some(sealed), .. }) = Message::parse(octets) else { return };
        let (i, r) = (header.initiator_spi.0, header.responder_spi.0);
        // RFC 9370 §2.2.2: behind each of these, keys are others.
        if header.exchange != ExchangeType::IKE_INTERMEDIATE {
            let iv = (i, r, sealed.body[..8].to_vec());
            let before = kept.sealed.entry(iv).or_insert_with(|| octets.to_vec());
            assert!(before == octets, "an IV is used once");
        }
        let is_response = header.flags.contains(Flags::RESPONSE);
        let number = (i, r, (is_response, header.message_id, sealed.fragment.map(|f| f.number())));
        let before = kept.numbered.entry(number).or_insert_with(|| octets.to_vec());
        assert!(before == octets, "a message ID is used once");
    }
}

/// What is done in an established world.
type Does = fn(&mut World, usize);

fn rekeys_the_child(world: &mut World, end: usize) {
    super::rekey_only_child(world, end);
}

fn rekeys_the_ike_sa(world: &mut World, end: usize) {
    let id = world.only_sa(end).id();
    world.with(end, |engine, cx| assert!(engine.rekey(id, cx)));
}

fn asks_for_another_child(world: &mut World, end: usize) {
    let id = world.only_sa(end).id();
    let child = world.ends[end].config.connections[0].children[0].clone();
    world.with(end, |engine, cx| assert!(engine.initiate_child(id, &child, cx)));
}

fn deletes_the_child(world: &mut World, end: usize) {
    let spi = world.only_sa(end).children()[0].spi_in;
    world.with(end, |engine, cx| assert!(engine.terminate_child(spi, cx)));
}

/// Whoever dies, and whenever: all is as if nobody had.
#[test]
fn at_any_point_of_an_exchange_an_end_may_die() {
    let changes: [fn(&mut Connection); 3] = [
        |_| {},
        |c| c.fragment_octets = 400,
        |c| {
            c.proposals = super::world::ike("aes128gcm16-prfsha256-x25519-ke1_mlkem512");
            let mut net = (*c.children[0]).clone();
            net.proposals = crate::proposal::Proposals::esp(["aes128gcm16-ecp256-ke1_mlkem512"]).unwrap();
            c.children = vec![Arc::new(net)];
        },
    ];
    let all: [(Does, usize); 4] =
        [(rekeys_the_child, 1), (rekeys_the_ike_sa, 1), (asks_for_another_child, 2), (deletes_the_child, 0)];
    for (change, (n, (does, children))) in
        changes.into_iter().flat_map(|change| all.into_iter().enumerate().map(move |of| (change, of)))
    {
        for (end, dead, both) in [(LEFT, LEFT, false), (LEFT, RIGHT, false), (RIGHT, RIGHT, true)] {
            for steps in 0.. {
                let mut world = established_as(30 + steps, change);
                world.keep_both(0);
                let (before, ike) = (world.requests.len(), world.only_sa(LEFT).spis());
                does(&mut world, end);
                let is_over = (0..steps).any(|_| {
                    let until = world.now_ms + 1000;
                    !world.step(until)
                });
                world.come_back(dead);
                if both {
                    world.come_back(1 - dead);
                }
                world.run_until_quiet();
                let [left, right] = [LEFT, RIGHT].map(|end| world.only_sa(end).spis());
                assert_eq!(left, right, "{n}: {end} {dead} {steps}");
                assert_eq!(left != ike, n == 1, "{n}: {end} {dead} {steps}");
                world.check_children(children);
                // Nothing was begun for it that would not have been.
                assert!(world.requests.len() > before);
                let failed = |end| {
                    events(&world, end)
                        .iter()
                        .any(|e| matches!(e, Event::ChildFailed(..) | Event::RekeyFailed(_)))
                };
                assert!(!failed(LEFT) && !failed(RIGHT), "{n}: {end} {dead} {steps}");
                // They go on as they should: message IDs are right.
                for end in [LEFT, RIGHT] {
                    rekeys_the_ike_sa(&mut world, end);
                    world.run_until_quiet();
                }
                world.check_children(children);
                if is_over {
                    break;
                }
            }
        }
    }
}

/// What was to take the place of another does so, if it was there; else that is tried again later.
#[test]
fn while_it_is_authenticated_anew_an_end_may_die() {
    for steps in 0.. {
        let mut world = established_as(60 + steps, |c| c.dpd_ms = 30_000);
        asks_for_another_child(&mut world, LEFT);
        world.run_until_quiet();
        world.check_children(2);
        world.keep_both(0);
        let (id, before) = (world.only_sa(LEFT).id(), world.only_sa(LEFT).spis());
        world.with(LEFT, |engine, cx| assert!(engine.reauthenticate(id, cx)));
        let until = world.now_ms + 1000;
        let is_over = (0..steps).any(|_| !world.step(until));
        world.come_back(LEFT);
        world.run_for(2_000_000);
        let [left, right] = [LEFT, RIGHT].map(|end| world.only_sa(end).spis());
        assert!(left == right && left != before, "{steps}");
        world.check_children(2);
        if is_over {
            break;
        }
    }
}

/// When who has won dies, in [`what_has_lost_goes_though_who_has_won_dies`].
#[derive(Clone, Copy, PartialEq, Debug)]
enum Dies {
    /// Its deletion of the old IKE SA was lost.
    Unheard,
    /// The answer is under way.
    Unanswered,
    /// It is answered since so long.
    Answered(u64),
}

// RFC 7296 §2.8.2: as in `what_has_lost_goes_though_the_peer_does_not_know_it`.
#[test]
fn what_has_lost_goes_though_who_has_won_dies() {
    let all = [Dies::Unheard, Dies::Unanswered, Dies::Answered(0), Dies::Answered(20_000)];
    for dies in all {
        let mut won = 0;
        for seed in 0..20 {
            let mut world = established(seed);
            world.keep_both(0);
            world.unanswered = Some(LEFT);
            world.lost = (dies == Dies::Unheard).then_some(ExchangeType::INFORMATIONAL);
            let before = world.only_sa(RIGHT).spis();
            for end in [LEFT, RIGHT] {
                rekeys_the_ike_sa(&mut world, end);
            }
            let old = |world: &World, end: usize| {
                let mut sas = world.ends[end].engine.sas();
                sas.find(|sa| sa.spis() == before).map(|sa| sa.phase().clone())
            };
            // The left end has lost if it does not delete the old one.
            let until = world.now_ms + 1_000;
            while old(&world, LEFT) != Some(Phase::Closing) && world.step(until) {}
            if old(&world, LEFT) != Some(Phase::Closing) {
                continue;
            }
            won += 1;
            let asked = world.requests.len();
            match dies {
                Dies::Unheard => world.run_for(1_000),
                Dies::Unanswered => while old(&world, RIGHT).is_some() && world.step(until) {},
                Dies::Answered(ms) => {
                    while old(&world, LEFT).is_some() && world.step(until) {}
                    world.run_for(ms);
                }
            }
            assert_eq!(
                old(&world, LEFT).is_none(),
                matches!(dies, Dies::Answered(_)),
                "{dies:?}, seed {seed}"
            );
            world.lost = None;
            world.come_back(LEFT);
            // Until the deletion is answered, the old one is there, too.
            let there = 2 + usize::from(old(&world, LEFT).is_some());
            assert_eq!(world.ends[LEFT].engine.sas().count(), there, "{dies:?}, seed {seed}");
            world.run_for(100);
            world.unanswered = None;
            assert_eq!(old(&world, LEFT), None, "{dies:?}, seed {seed}");
            assert_eq!(world.ends[LEFT].engine.sas().count(), 2, "{dies:?}, seed {seed}");
            // The 30 s do not begin again.
            let gone = if let Dies::Answered(ms) = dies { ms } else { 0 };
            world.run_for(30_000 - gone);
            assert_eq!(world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis(), "{dies:?}, seed {seed}");
            world.check_children(1);
            assert_eq!(world.requests.len(), asked, "nothing is asked under it: {dies:?}, seed {seed}");
        }
        assert!(won > 0 && won < 20, "either has won: {won}");
    }
}

#[test]
fn ends_that_die_again_and_again_agree_in_the_end() {
    let seeds = 0..1000;
    println!("seeds {seeds:?}");
    let (mut up, mut died) = (0, 0);
    for seed in seeds.clone() {
        let mut world = world_of(seed);
        world.keep_both(100);
        up += u64::from(agrees_in_the_end(seed, &mut world));
        died += world.died();
    }
    println!("{up} of {seeds:?} end with SAs; {died} deaths");
    assert!(up > seeds.end / 10 && died > 1000);
}

/// A name is looked up behind a restart: what went on before that goes where it is.
#[test]
fn what_goes_on_has_the_addresses_that_its_connection_comes_to_have() {
    let mut world = established(7);
    world.keep_both(0);
    let known = world.ends[LEFT].config.connections.clone();
    let nowhere =
        |c: &Arc<Connection>| Arc::new(Connection { remote: Hosts::Ranges(vec![]), ..(**c).clone() });
    world.ends[LEFT].config.connections = known.iter().map(nowhere).collect();
    world.come_back(LEFT);
    let engine = &mut world.ends[LEFT].engine;
    let remote = |engine: &Engine| engine.sas().map(|sa| sa.connection().remote.clone()).collect::<Vec<_>>();
    assert_eq!(remote(engine), [Hosts::Ranges(vec![])]);
    // Those of this name that are not it.
    let other = |c: &Arc<Connection>| Connection { edition: c.edition + 1, ..(**c).clone() };
    engine.follow_connections(&known.iter().map(|c| Arc::new(other(c))).collect::<Vec<_>>());
    assert_eq!(remote(engine), [Hosts::Ranges(vec![])]);
    engine.follow_connections(&known);
    assert_eq!(remote(engine), [known[0].remote.clone()]);
}

/// Who may know them has come with the process that it goes on in.
#[test]
fn keys_of_what_goes_on_are_told_where_it_is_asked() {
    for tells in [false, true] {
        let mut world = established(7);
        world.keep_both(0);
        world.come_back(LEFT);
        check_keys_are_told(&mut world, tells);
        if tells {
            let (KeyLog::V2(keys), _) = world.only_keys(LEFT) else { panic!("{:?}", world.only_keys(LEFT)) };
            assert_eq!(keys.spis, world.only_sa(LEFT).spis());
        }
    }
}

/// Of one IKE SA that nobody was told of yet, both ends tell the same keys, if they tell any.
pub fn check_keys_are_told(world: &mut World, tells: bool) {
    for end in [LEFT, RIGHT] {
        assert!(world.ends[end].keys.is_empty());
        world.ends[end].config.tells_keys = tells;
        world.with(end, |engine, cx| engine.tell_keys(cx));
    }
    match tells {
        true => assert!(world.only_keys(LEFT).1),
        false => assert!(world.ends.iter().all(|end| end.keys.is_empty())),
    }
}

#[test]
fn what_is_damaged_is_refused() {
    let mut world = established_as(7, |c| c.dpd_ms = 1000);
    world.keep_both(0);
    super::rekey_only_child(&mut world, LEFT);
    check_damaged(&world);
}

/// A configuration that is not known, and octets that are no IKE SA of this version.
pub fn check_damaged(world: &World) {
    let kept = world.kept[LEFT].as_ref().unwrap();
    let octets = kept.sas.values().next().unwrap().clone();
    println!("{} octets", octets.len());
    let connections = world.ends[LEFT].config.connections.clone();
    let restore = |octets: &[u8], is_known: bool| {
        let (rng, mut out) = (&mut crate::crypto::vectors::seeded(1), VecDeque::new());
        let config = Default::default();
        let mut cx = Context {
            now_ms: 0,
            unix_secs: 0,
            rng,
            config: &config,
            child_spi: &mut || None,
            child_room: &mut |_| false,
            out: &mut out,
        };
        let mut engine = Engine::new(&mut cx);
        let connection = |_| connections.first().filter(|_| is_known).cloned();
        let restored = engine.restore(octets, &connection, &mut cx).map(|(id, _)| id);
        assert_eq!(engine.ike_sas().count(), usize::from(restored.is_ok()));
        // The same twice is once too often.
        assert!(engine.restore(octets, &connection, &mut cx).is_err());
        restored
    };
    assert!(restore(&octets, true).is_ok());
    assert!(restore(&octets, false).is_err(), "the connection is not known");
    for len in 0..octets.len() {
        assert!(restore(&octets[..len], true).is_err(), "{len} octets");
    }
    assert!(restore(&[&octets[..], &[0]].concat(), true).is_err());
    // Of these some are another IKE SA; none is a panic.
    for at in 0..octets.len() {
        for bit in 0..8 {
            let mut other = octets.to_vec();
            other[at] ^= 1 << bit;
            let _ = restore(&other, true);
        }
    }
}
