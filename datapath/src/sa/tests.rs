//! What others are told of an inbound SA, and when; a state that outlives its SA.

use super::*;
use crate::{general::pmtu::AGE_MS, verified::verified};
use portcullis_sadb::{
    Algorithm, Handling, Key, Lifetime, Limits, Mode, Name, Protocol, Sa, SaCounters, Sadb, Sizes,
};
use std::net::Ipv4Addr;

const SPI: u32 = 0x1234_5678;

fn inbound() -> Sa {
    let ip = |n| Ipv4Addr::new(192, 0, 2, n).into();
    Sa {
        spi: Spi(SPI),
        direction: Direction::Inbound,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_128,
        src: ip(1),
        dst: ip(2),
        udp: None,
        esn: true,
        replay_window: 64,
        reqid: 7,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("told").unwrap(),
        key: Key::new(&[1; 20]).unwrap(),
    }
}

struct Bench {
    sadb: Sadb,
    reader: Reader,
    runtime: Runtime,
    sas: SaTable,
}

impl Bench {
    fn new() -> Bench {
        let (sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas: 4, max_policies: 4 }).unwrap();
        Bench { sadb, reader, runtime, sas: SaTable::new((0, 1), 4, Aead::Portable) }
    }

    /// Without a word of what the worker before knew.
    fn restart(&mut self) {
        self.sas = SaTable::new((0, 1), 4, Aead::Portable);
        self.sas.turn(&self.reader);
    }

    fn find(&mut self) -> Option<u32> {
        match self.sas.find_spi(SPI, &self.reader, &self.runtime) {
            Found::Here(i) => Some(i),
            _ => None,
        }
    }

    fn receive(&mut self, i: u32, seq: u64) -> Result<(), DropReason> {
        self.sas.commit(i, seq, verified(), (&self.reader, &self.runtime))?;
        self.sas.count_inbound(i, 100, &self.reader, &self.runtime);
        Ok(())
    }

    fn tell(&mut self) {
        while self.sas.tell(1, &self.reader, &self.runtime) {}
    }
}

#[test]
fn a_restarted_worker_takes_all_that_was_received_as_seen_and_little_else() {
    let mut bench = Bench::new();
    let slot = bench.sadb.publish(&inbound()).unwrap();
    let highest = |bench: &Bench| bench.sadb.runtime().sa(slot).unwrap().highest_seen;
    for told in [false, true] {
        bench.restart();
        let (i, first) = (bench.find().unwrap(), highest(&bench) + 1);
        for seq in first..first + 40 {
            assert_eq!(bench.receive(i, seq), Ok(()));
            assert!((seq..seq + SEEN_AHEAD).contains(&highest(&bench)));
        }
        if told {
            bench.tell();
            assert_eq!(highest(&bench), first + 39);
        }
        bench.restart();
        let i = bench.find().unwrap();
        for seq in first..=highest(&bench) {
            assert_eq!(bench.receive(i, seq), Err(DropReason::ReplayDuplicate));
        }
    }
    let counters = bench.sadb.runtime().sa(slot).unwrap().counters;
    assert_eq!((counters.packets, counters.bytes), (40, 4000), "those that were told");
}

#[test]
fn what_is_gone_is_neither_used_nor_told() {
    let mut bench = Bench::new();
    let slot = bench.sadb.publish(&inbound()).unwrap();
    bench.restart();
    let i = bench.find().unwrap();
    assert_eq!((bench.receive(i, 5), bench.sas.is_of(i, SPI)), (Ok(()), true));
    bench.sadb.retire(slot).unwrap();
    assert!(bench.sas.is_of(i, SPI), "in this turn it may be used");
    bench.sas.turn(&bench.reader);
    assert_eq!((bench.sas.expect(SPI), bench.sas.is_of(i, SPI), bench.find()), (Some(i), false, None));
    // Its slot and its SPI are another SA's now, which another worker may have.
    assert_eq!(bench.sadb.reclaim(), 0);
    assert_eq!(bench.sadb.publish(&inbound()).unwrap(), slot);
    bench.runtime.sa(slot).adopt(bench.reader.generation(slot).unwrap());
    bench.sas.turn(&bench.reader);
    assert!(!bench.sas.is_of(i, SPI));
    bench.tell();
    let record = bench.sadb.runtime().sa(slot).unwrap();
    assert_eq!((record.highest_seen, record.counters), (0, SaCounters::default()));
    let i = bench.find().unwrap();
    assert_eq!((bench.receive(i, 1), bench.sas.len()), (Ok(()), 1));
}

#[test]
fn an_sa_with_much_to_tell_does_not_wait() {
    let mut bench = Bench::new();
    let out = Sa { direction: Direction::Outbound, ..inbound() };
    let (slot, other) = (bench.sadb.publish(&inbound()).unwrap(), bench.sadb.publish(&out).unwrap());
    bench.restart();
    let i = bench.find().unwrap();
    let Found::Here(o) = bench.sas.find(other, &bench.reader, &bench.runtime) else { panic!("it lives") };
    for seq in 1..=70_000 {
        bench.receive(i, seq).unwrap();
        if bench.sas.get_mut(o).count(1, 65_000) {
            bench.sas.note(o, &bench.reader, &bench.runtime);
        }
    }
    for slot in [slot, other] {
        assert!(bench.sadb.runtime().sa(slot).unwrap().counters.packets >= 60_000);
    }
    bench.tell();
    let counters = [slot, other].map(|slot| bench.sadb.runtime().sa(slot).unwrap().counters);
    assert_eq!(counters.map(|c| (c.packets, c.bytes)), [(70_000, 7_000_000), (70_000, 4_550_000_000)]);
}

/// Numbers that an SA with a lifetime has on the plain path, once it has begun, where what was sent is told each 100 packets.
fn numbers_in_a_row(hard: Limits) -> u64 {
    const MOST: u64 = 5 * RESERVED_BLOCK;
    let mut bench = Bench::new();
    let handling = Handling { lifetime: Lifetime { hard, ..Lifetime::default() }, ..Handling::default() };
    let slot = bench.sadb.publish(&Sa { direction: Direction::Outbound, handling, ..inbound() }).unwrap();
    bench.restart();
    let Found::Here(i) = bench.sas.find(slot, &bench.reader, &bench.runtime) else { panic!("it lives") };
    let iked = bench.runtime.worker(0);
    assert!(!bench.sas.get_mut(i).has_seq(&bench.runtime), "what it may have, the general path says");
    bench.sas.reserve(i, 100, (&bench.reader, &bench.runtime, &iked), 0).unwrap();
    (1..=MOST)
        .take_while(|n| {
            let state = bench.sas.get_mut(i);
            let has_one = state.has_seq(&bench.runtime);
            if has_one && state.next_seq() == *n && state.count(1, 100) {
                bench.sas.note(i, &bench.reader, &bench.runtime);
            }
            if n.is_multiple_of(100) {
                bench.tell();
            }
            has_one
        })
        .count() as u64
}

#[test]
fn an_sa_with_a_lifetime_has_new_numbers_before_it_needs_them_and_none_over_its_limit() {
    let all = 5 * RESERVED_BLOCK;
    assert_eq!(numbers_in_a_row(Limits { secs: 1000, ..Limits::default() }), all);
    assert_eq!(numbers_in_a_row(Limits { packets: 1 << 20, ..Limits::default() }), all);
    for packets in [500, RESERVED_BLOCK, RESERVED_BLOCK + 500] {
        let limits = Limits { packets, ..Limits::default() };
        assert_eq!(
            numbers_in_a_row(limits),
            packets.min(RESERVED_BLOCK),
            "the last ones by the general path"
        );
    }
    let had = numbers_in_a_row(Limits { packets: 3 * RESERVED_BLOCK, ..Limits::default() });
    assert!((2 * RESERVED_BLOCK..3 * RESERVED_BLOCK).contains(&had), "{had}");
}

/// RFC 4301 §8.2.2.
#[test]
fn however_many_paths_are_narrow_all_of_them_age() {
    const SAS: u32 = 5000;
    let (mut sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas: SAS, max_policies: 4 }).unwrap();
    let mut sas = SaTable::new((0, 1), SAS, Aead::Portable);
    sas.turn(&reader);
    let mut find = |n| {
        let sa = Sa { spi: Spi(SPI + n), direction: Direction::Outbound, ..inbound() };
        match sas.find(sadb.publish(&sa).unwrap(), &reader, &runtime) {
            Found::Here(i) => i,
            other => panic!("{other:?}"),
        }
    };
    let states: Vec<u32> = (0..SAS).map(&mut find).collect();
    for (i, mtu) in states.iter().flat_map(|i| [(*i, 1400), (*i, 1300)]) {
        sas.associate(i, &reader).unwrap();
        sas.learn_mtu(i, mtu, 0);
    }
    for (now_ms, mtu) in [(AGE_MS - 1, 1300), (AGE_MS, 0)] {
        (0..2).for_each(|_| sas.age(now_ms));
        assert!(states.iter().all(|i| sas.get(*i).mtu == mtu));
    }
    // And then all is new.
    sas.learn_mtu(states[0], 1400, AGE_MS);
    assert_eq!(sas.get(states[0]).mtu, 1400);
    sas.age(2 * AGE_MS);
    assert_eq!(sas.get(states[0]).mtu, 0);
}

/// Keys are wiped in as many sweeps, however many there are.
#[test]
fn sweeps_come_round_in_time() {
    let many = 8192;
    let (mut sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas: many, max_policies: 4 }).unwrap();
    let mut sas = SaTable::new((0, 1), many, Aead::best());
    let publish = |n| sadb.publish(&Sa { spi: Spi(SPI + n), ..inbound() }).unwrap();
    let slots: Vec<_> = (0..many).map(publish).collect();
    sas.turn(&reader);
    for slot in &slots {
        sas.find(*slot, &reader, &runtime);
    }
    assert_eq!(sas.len(), many as usize);
    slots.iter().for_each(|slot| sadb.retire(*slot).unwrap());
    sas.turn(&reader);
    (0..SWEPT).for_each(|_| sas.sweep(&reader, &runtime));
    assert!(sas.is_empty(), "{}", sas.len());
}

/// `[datapath] crypto` is for packets of either path.
#[test]
fn the_general_path_has_the_aead_of_its_table() {
    let mut bench = Bench::new();
    bench.sadb.publish(&Sa { mode: Mode::Transport, ..inbound() }).unwrap();
    bench.restart();
    let found = bench.sas.find_spi(SPI, &bench.reader, &bench.runtime);
    let Found::General(i) = found else { panic!("{found:?}") };
    assert_eq!(bench.sas.associate(i, &bench.reader).unwrap().suite.aead(), Some(Aead::Portable));
    // And of what goes there by accident only.
    let slot = bench.sadb.publish(&Sa { direction: Direction::Outbound, ..inbound() }).unwrap();
    let Found::Here(i) = bench.sas.find(slot, &bench.reader, &bench.runtime) else { panic!() };
    assert_eq!(bench.sas.associate(i, &bench.reader).unwrap().suite.aead(), Some(Aead::Portable));
}

/// A packet that proves too long was counted, and is again when it leaves: told or not, its line is never below zero.
#[test]
fn what_is_taken_back_was_never_told_or_is_in_the_line() {
    let mut bench = Bench::new();
    let slot = bench.sadb.publish(&Sa { direction: Direction::Outbound, ..inbound() }).unwrap();
    bench.restart();
    let Found::Here(i) = bench.sas.find(slot, &bench.reader, &bench.runtime) else { panic!() };
    let told = |bench: &Bench| {
        let counters = bench.sadb.runtime().sa(slot).unwrap().counters;
        (counters.packets, counters.bytes)
    };
    let count = |bench: &mut Bench, octets| {
        if bench.sas.get_mut(i).count(1, octets) {
            bench.sas.note(i, &bench.reader, &bench.runtime);
        }
    };
    let uncount = |bench: &mut Bench, octets| bench.sas.uncount(i, octets, &bench.reader, &bench.runtime);
    count(&mut bench, 100);
    uncount(&mut bench, 100);
    assert_eq!(told(&bench), (0, 0));
    bench.tell();
    assert_eq!(told(&bench), (0, 0));
    // It was told meanwhile, and so was another of fewer octets not.
    count(&mut bench, 100);
    bench.tell();
    uncount(&mut bench, 100);
    assert_eq!(told(&bench), (0, 0));
    count(&mut bench, 100);
    bench.tell();
    count(&mut bench, 30);
    uncount(&mut bench, 100);
    assert_eq!(told(&bench), (1, 30));
    count(&mut bench, 5);
    bench.tell();
    assert_eq!(told(&bench), (2, 35));
    // Its line is another's.
    bench.sadb.retire(slot).unwrap();
    uncount(&mut bench, 30);
    assert_eq!(bench.runtime.sa(slot).counters().packets, 2);
}
