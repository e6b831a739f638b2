//! Policies that are populated from packets, against an ordered list and against the fields one by one (RFC 4301 §4.4.1).

use portcullis_sadb::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SEED: u64 = 0x0f1a_9f1a_95ee_d001;
const SIZES: Sizes = Sizes { max_sas: 4, max_policies: 48 };

struct Rng(u64);

impl Rng {
    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    fn address(&mut self, v4: bool) -> IpAddr {
        let (a, b) = (self.below(2) as u8, self.below(3) as u8);
        if v4 {
            Ipv4Addr::new(10, 0, a, b).into()
        } else {
            Ipv6Addr::new(0xfd00, 0, 0, 0, a as u16, 0, 0, b as u16).into()
        }
    }

    fn selector(&mut self) -> Selector {
        let v4 = self.below(3) > 0;
        let mut prefix = || {
            let len = if v4 { self.of(&[0, 16, 24, 31, 32]) } else { self.of(&[0, 64, 80, 127, 128]) };
            Prefix::new(self.address(v4), len).unwrap()
        };
        let (src, dst) = (prefix(), prefix());
        let protocol = self.of(&[None, None, Some(17), Some(47), Some(1)]);
        let mut ports = || match protocol {
            Some(17 | 1) => self.of(&[ANY_PORT, ANY_PORT, 0..=1, 1..=1]),
            _ => ANY_PORT,
        };
        Selector { src, dst, protocol, src_ports: ports(), dst_ports: ports() }
    }

    fn flow(&mut self) -> Flow {
        let v4 = self.below(3) > 0;
        let protocol = self.of(&[1, 17, 47]);
        let ports = (self.below(3) as u16, self.below(3) as u16);
        let shown = match protocol {
            47 => None,
            1 => Some((ports.0, ports.0)),
            _ => self.of(&[None, Some(ports), Some(ports), Some(ports)]),
        };
        Flow { src: self.address(v4), dst: self.address(v4), protocol, ports: shown }
    }

    fn fields(&mut self) -> Fields {
        let all = [Fields::SRC, Fields::DST, Fields::PROTOCOL, Fields::SRC_PORT, Fields::DST_PORT];
        all.into_iter().filter(|_| self.below(2) == 0).fold(Fields::NONE, |fields, field| fields | field)
    }
}

/// Whether two packets have the same in a set of fields, field by field.
fn agree(fields: Fields, a: &Flow, b: &Flow) -> bool {
    (!fields.has(Fields::SRC) || a.src == b.src)
        && (!fields.has(Fields::DST) || a.dst == b.dst)
        && (!fields.has(Fields::PROTOCOL) || a.protocol == b.protocol)
        && (!fields.has(Fields::SRC_PORT) || a.ports.map(|p| p.0) == b.ports.map(|p| p.0))
        && (!fields.has(Fields::DST_PORT) || a.ports.map(|p| p.1) == b.ports.map(|p| p.1))
}

fn shows_no_port(fields: Fields, flow: &Flow) -> bool {
    (fields.has(Fields::SRC_PORT) || fields.has(Fields::DST_PORT))
        && flow.ports.is_none()
        && flow.protocol != 47
}

#[test]
fn an_sa_is_for_what_its_first_packet_has_in_the_flagged_fields() {
    println!("seed {SEED:#x}");
    let mut rng = Rng(SEED);
    let (mut populated, mut inside, mut refused) = (0, 0, 0);
    for _ in 0..400_000 {
        let (policy, fields, first, other) = (rng.selector(), rng.fields(), rng.flow(), rng.flow());
        assert_eq!(Flow::from_words(&first.words()), first);
        let Some(selector) = policy.populated(fields, &first) else {
            assert!(!policy.matches(&first) || shows_no_port(fields, &first), "RFC 4301 §4.4.2.2");
            refused += usize::from(policy.matches(&first));
            continue;
        };
        populated += 1;
        assert!(policy.matches(&first) && selector.matches(&first) && !shows_no_port(fields, &first));
        // Another packet is for it if it is for the policy, and has the same in those fields. One that has no ports, where
        // the protocol is not flagged, has nothing to agree with: ports are asked for of what has any.
        let is_for = policy.matches(&other) && agree(fields, &first, &other);
        let has_ports = [&first, &other].map(|f| f.ports.is_some());
        if has_ports[0] == has_ports[1] {
            assert_eq!(selector.matches(&other), is_for, "{policy} {fields:?} {first:?} {other:?}");
        }
        if policy.matches(&other) {
            let is_same = fields.of(&first) == fields.of(&other);
            assert_eq!(is_same, is_for && !shows_no_port(fields, &other), "{fields:?} {first:?} {other:?}");
        }
        inside += usize::from(selector.matches(&other));
    }
    println!("{populated} populated, {inside} of them had the second packet too; {refused} refused");
    assert!(populated > 10_000 && inside > 1_000 && refused > 500);
}

/// RFC 4301 §4.4.1: an ordered list, in which what was populated stands directly above what it was populated from.
#[test]
fn what_was_populated_comes_just_before_what_it_was_populated_from() {
    println!("seed {SEED:#x}");
    let mut rng = Rng(SEED);
    let (mut above, mut asked) = (0, 0);
    for _ in 0..400 {
        let (mut sadb, reader, _) = Sadb::heap(&SIZES).unwrap();
        let mut list: Vec<(PolicyIndex, Policy, Fields)> = vec![];
        for _ in 0..12 {
            let policy = Policy {
                direction: Direction::Outbound,
                selector: rng.selector(),
                priority: rng.of(&[1, 1, 2]),
                action: Action::Protect,
                reqid: 0,
                sa: None,
            };
            let fields = rng.fields();
            if let Ok(index) = sadb.add_populated(&policy, Populate::From(fields)) {
                assert_eq!(reader.populate(index).fields(), fields);
                list.push((index, policy, fields));
            }
        }
        let selects = |(_, p, f): &(PolicyIndex, Policy, Fields)| {
            let s = &p.selector;
            s.src_ports != ANY_PORT
                || s.dst_ports != ANY_PORT
                || s.protocol.is_some() && !s.src.addr().is_ipv4()
                || f.has(Fields::SRC_PORT)
                || f.has(Fields::DST_PORT)
                || f.has(Fields::PROTOCOL)
        };
        assert_eq!(reader.selects_ports(), list.iter().any(selects));
        list.sort_by_key(|(i, p, _)| {
            (p.priority, 256 - p.selector.src.len() as u32 - p.selector.dst.len() as u32, *i)
        });
        for _ in 0..30 {
            let flow = rng.flow();
            let found = list.iter().position(|(_, p, _)| p.selector.matches(&flow));
            assert_eq!(
                reader.lookup(Direction::Outbound, &flow).map(|h| h.index),
                found.map(|at| list[at].0)
            );
            asked += 1;
            let Some((at, (from, policy, fields))) = found.map(|at| (at, list[at].clone())) else { continue };
            // As iked does for the first packet of a kind; what has no fields was populated.
            let Some(selector) = policy.selector.populated(fields, &flow).filter(|_| fields != Fields::NONE)
            else {
                continue;
            };
            let populated = Policy { selector, ..policy };
            let index = match sadb.add_populated(&populated, Populate::Above(from)) {
                Ok(index) => index,
                Err(SadbError::Full { .. }) => break,
                other => panic!("{other:?}"),
            };
            assert_eq!(reader.populate(index), Populate::Above(from));
            assert_eq!(reader.lookup(Direction::Outbound, &flow).map(|h| h.index), Some(index));
            list.insert(at, (index, populated, Fields::NONE));
            above += 1;
        }
        // In any order, children first.
        let is_above = |i: &PolicyIndex| sadb.populate(*i).above().is_some();
        let (children, parents): (Vec<_>, Vec<_>) = list.iter().map(|(i, ..)| *i).partition(is_above);
        children.into_iter().chain(parents).for_each(|i| sadb.remove_policy(i).unwrap());
        assert!(!reader.selects_ports());
    }
    println!("{asked} packets, {above} policies above others");
    assert!(above > 2_000);
}

#[test]
fn what_stands_above_another_has_its_direction_and_priority() {
    let (mut sadb, ..) = Sadb::heap(&SIZES).unwrap();
    let any = "10.0.0.0/8".parse().unwrap();
    let policy = Policy {
        direction: Direction::Outbound,
        selector: Selector::between(any, any),
        priority: 7,
        action: Action::Protect,
        reqid: 1,
        sa: None,
    };
    let index = sadb.add_populated(&policy, Populate::From(Fields::SRC)).unwrap();
    let above = Populate::Above(index);
    let refused = Err(SadbError::NotAbove { above: index });
    assert_eq!(sadb.add_populated(&Policy { priority: 6, ..policy.clone() }, above), refused);
    let inbound = Policy { direction: Direction::Inbound, ..policy.clone() };
    assert_eq!(sadb.add_populated(&inbound, above), refused);
    // The same selector is no overlap, once.
    let populated = sadb.add_populated(&policy, above).unwrap();
    assert!(
        matches!(sadb.add_populated(&policy, above), Err(SadbError::Overlap { with, .. }) if with == populated)
    );
    assert!(matches!(sadb.add_policy(&policy), Err(SadbError::Overlap { with, .. }) if with == index));
    let none = Err(SadbError::NotAbove { above: populated });
    assert_eq!(sadb.add_populated(&policy, Populate::Above(populated)), none);
}

#[test]
fn what_anybody_asks_for_leaves_room_for_what_is_known_of_sas() {
    let (mut sadb, _, runtime) = Sadb::heap(&SIZES).unwrap();
    let worker = runtime.worker(0);
    let event = |kind, value| Event {
        kind,
        slot: SlotIndex(0),
        generation: Generation(1),
        value,
        about: [value; ABOUT],
    };
    let told = (0..EVENTS as u64).filter(|n| worker.tell(&event(EventKind::Acquire, *n))).count();
    assert_eq!(told, EVENTS / 2);
    assert!((0..EVENTS as u64 / 2).all(|n| worker.tell(&event(EventKind::SoftLifetime, n))));
    assert!(!worker.tell(&event(EventKind::SoftLifetime, 0)));
    assert_eq!(sadb.poll_event(), Some(event(EventKind::Acquire, 0)));
    worker.count_acquires_untold(5);
    let record = sadb.runtime().worker(0).unwrap();
    assert_eq!((record.events_lost, record.acquires_untold), (1, 5), "each is counted where it belongs");
}
