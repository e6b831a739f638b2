use super::*;
use crate::message::{Payload, PayloadType, Payloads, TsType};
use proptest::{collection::vec, prelude::*, sample::select};
use std::collections::HashSet;

/// A packet as one side of it looks like: address, protocol, and the port if it can be seen.
pub(super) type Point = (IpAddr, u8, Option<u16>);

/// Ports that ranges begin and end with, and one between them.
const ENDS: [u16; 5] = [0, 1, 2, 65534, 65535];
const BETWEEN: u16 = 1000;
const PROTOCOLS: [u8; 3] = [6, 17, 255];

fn addresses() -> impl Iterator<Item = IpAddr> {
    let v4 = (0..6).map(|n| IpAddr::V4((0xffff_fffa + n).into()));
    v4.chain((0..3).map(|n| IpAddr::V6(n.into())))
}

/// All packets of a small world, in which it is enough to look at each.
pub(super) fn points() -> Vec<Point> {
    let ports = ENDS.into_iter().chain([BETWEEN]).map(Some).chain([None]);
    let rest: Vec<_> = PROTOCOLS.into_iter().flat_map(|p| ports.clone().map(move |port| (p, port))).collect();
    addresses()
        .flat_map(|address| rest.iter().map(move |(protocol, port)| (address, *protocol, *port)))
        .collect()
}

/// Whether a packet is in a selector, by what RFC 4301 §4.4.1.1 and RFC 7296 §3.13.1 say and not by how selectors are kept.
pub(super) fn has(selector: &TrafficSelector, (address, protocol, port): Point) -> bool {
    let message::TrafficSelector::Range(range) = selector.emit() else { panic!() };
    let is_address = match (range.addresses, address) {
        (Addresses::V4(range), IpAddr::V4(address)) => range.contains(&address),
        (Addresses::V6(range), IpAddr::V6(address)) => range.contains(&address),
        _ => false,
    };
    let is_port = match port {
        Some(port) => range.ports.contains(&port),
        None => range.ports == (0..=65535) || range.ports == OPAQUE_PORT,
    };
    is_address && (range.protocol == 0 || range.protocol == protocol) && is_port
}

pub(super) fn of_all(selectors: &TrafficSelectors) -> HashSet<Point> {
    points().into_iter().filter(|point| selectors.0.iter().any(|one| has(one, *point))).collect()
}

pub(super) fn selector() -> impl Strategy<Value = TrafficSelector> {
    let all: Vec<_> = addresses().collect();
    let ends = (select(all.clone()), select(all))
        .prop_filter_map("of a family", |(a, b)| TrafficSelector::between(a.min(b), a.max(b)));
    let ports = (select(ENDS.to_vec()), select(ENDS.to_vec())).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let ports = prop_oneof![Just(ANY_PORT), Just(OPAQUE_PORT), ports];
    let protocol = prop_oneof![Just(0), select(PROTOCOLS.to_vec())];
    (ends, protocol, ports).prop_map(|(ends, protocol, ports)| {
        ends.of(protocol, if protocol == 0 { ANY_PORT } else { ports }).unwrap()
    })
}

pub(super) fn selectors() -> impl Strategy<Value = TrafficSelectors> {
    vec(selector(), 0..4).prop_map(TrafficSelectors::new)
}

pub(super) fn read(text: &str) -> TrafficSelectors {
    if text.is_empty() {
        TrafficSelectors::default()
    } else {
        ConfiguredSelectors::parse(text.split(", ")).unwrap().with(&[])
    }
}

fn one(text: &str) -> TrafficSelector {
    read(text).0[0]
}

#[test]
fn selectors_are_what_they_were_made_of() {
    let all = |text| one(text);
    assert_eq!(all("0.0.0.0/0"), TrafficSelector::ALL_V4);
    assert_eq!(all("::/0"), TrafficSelector::ALL_V6);
    let web = one("10.1.0.0/16[tcp/80]");
    assert_eq!(web.addresses(), ([10, 1, 0, 0].into(), [10, 1, 255, 255].into()));
    assert_eq!((web.protocol(), web.ports()), (Some(6), 80..=80));
    assert_eq!((all("::/0").protocol(), all("::/0").ports()), (None, ANY_PORT));
    let v4 = IpAddr::from([10, 0, 0, 1]);
    assert_eq!(TrafficSelector::between(v4, [10, 0, 0, 0].into()), None);
    assert_eq!(TrafficSelector::between(v4, "::ffff".parse().unwrap()), None);
}

// RFC 4301 §4.4.1.1
#[test]
fn any_port_takes_in_what_cannot_be_seen() {
    let (any, opaque) = (one("10.0.0.0/8[tcp]"), one("10.0.0.0/8[tcp/opaque]"));
    let all_seen = one("10.0.0.0/8[tcp/0-65534]");
    assert_eq!(any.and(&opaque), Some(opaque));
    assert_eq!(any.and(&all_seen), Some(all_seen));
    assert_eq!(opaque.and(&all_seen), None);
    assert_eq!(one("10.1.0.0/16").and(&opaque).unwrap().to_string(), "10.1.0.0/16[tcp/opaque]");
    assert!(!TrafficSelectors::new([all_seen, one("10.0.0.0/8[tcp/65535]")]).covers(&any));
    assert!(TrafficSelectors::new([all_seen, one("10.0.0.0/8[tcp/65535]"), opaque]).covers(&any));
}

// RFC 7296 §3.13, §3.13.1
#[test]
fn payloads_have_selectors() {
    let all = read("10.1.0.0/16, 10.2.0.5-10.2.0.9[tcp/80-90], fd00::/8[udp/opaque], 0.0.0.0/0[icmp/8]");
    let payloads = Payloads(vec![Payload::TsInitiator(all.emit())]);
    let (first, octets) = payloads.emit().unwrap();
    assert_eq!(first, PayloadType::TSI);
    let Payload::TsInitiator(parsed) = Payloads::parse(first, &octets).unwrap().0.remove(0) else { panic!() };
    assert_eq!(TrafficSelectors::parse(&parsed), all);
    let any = TrafficSelector::ALL_V4.emit();
    let everything = Addresses::V4([0; 4].into()..=[255; 4].into());
    assert_eq!(
        any,
        message::TrafficSelector::Range(TsRange {
            protocol: 0,
            ports: 0..=65535,
            addresses: everything.clone()
        })
    );
    // What is of another type, or of nothing, is passed over.
    let range =
        |protocol, ports, addresses| message::TrafficSelector::Range(TsRange { protocol, ports, addresses });
    #[allow(clippy::reversed_empty_ranges, reason = "what a peer might send")]
    let others = [
        message::TrafficSelector::Unknown { kind: TsType::TS_SECLABEL, octet: 0, data: vec![1] },
        range(0, 80..=80, everything.clone()),
        range(0, 65535..=0, everything.clone()),
        range(6, 2..=1, everything),
        range(0, 0..=65535, Addresses::V4([10, 0, 0, 1].into()..=[10, 0, 0, 0].into())),
    ];
    for other in &others {
        assert_eq!(TrafficSelector::parse(other), None, "{other:?}");
    }
    assert_eq!(TrafficSelectors::parse(&[&others[..], &all.emit()].concat()), all);
}

// RFC 7296 §2.9
#[test]
fn a_packet_has_a_selector_for_each_side() {
    let flow = |ports| Flow { src: [10, 1, 0, 1].into(), dst: [10, 2, 0, 2].into(), protocol: 17, ports };
    let shown = |ports| TrafficSelector::of_flow(&flow(ports)).map(|side| side.to_string());
    assert_eq!(shown(Some((1024, 53))), ["10.1.0.1/32[udp/1024]", "10.2.0.2/32[udp/53]"]);
    assert_eq!(shown(None), ["10.1.0.1/32[udp]", "10.2.0.2/32[udp]"]);
    assert_eq!(read("10.0.0.0/8").behind(one("10.1.0.1")).to_string(), "10.1.0.1/32, 10.0.0.0/8");
}

#[test]
fn what_is_in_another_is_not_added() {
    let mut all = read("10.1.0.1, 10.2.0.0/16, 10.1.0.2");
    all.add(one("10.2.3.0/24[tcp/80]")).unwrap();
    assert_eq!(all, read("10.1.0.1, 10.2.0.0/16, 10.1.0.2"));
    all.add(one("10.1.0.0/24")).unwrap();
    assert_eq!(all, read("10.1.0.0/24, 10.2.0.0/16"));
    let mut full = TrafficSelectors::new((0..=255).map(|n| one(&format!("10.3.{n}.0/24"))));
    assert_eq!((full.0.len(), full.add(one("10.4.0.0/24")), full.0.len()), (255, None, 255));
    assert_eq!(
        (full.add(one("10.3.0.1")), full.add(one("10.3.0.0/16")), full.0.len()),
        (Some(()), Some(()), 1)
    );
}

proptest! {
    #[test]
    fn common_is_what_is_in_both(a in selector(), b in selector()) {
        let both = a.and(&b);
        for point in points() {
            prop_assert_eq!(both.is_some_and(|both| has(&both, point)), has(&a, point) && has(&b, point));
        }
        prop_assert_eq!(b.and(&a), both);
        prop_assert_eq!(both.map(|both| TrafficSelector::parse(&both.emit())), both.map(Some));
    }

    #[test]
    fn covered_is_what_has_no_point_outside(all in selectors(), selector in selector()) {
        let outside = points().into_iter().filter(|p| has(&selector, *p)).any(|p| !all.0.iter().any(|one| has(one, p)));
        prop_assert_eq!(all.covers(&selector), !outside);
    }

    /// What is left and what is taken away are all there was, and nothing twice.
    #[test]
    fn a_difference_has_no_point_twice(a in selector(), b in selector()) {
        let pieces = a.without(&b);
        for (at, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.and(&b).is_none() && piece.and(&a) == Some(*piece));
            prop_assert!(pieces[..at].iter().all(|other| other.and(piece).is_none()));
        }
        let left = TrafficSelectors::new(pieces.into_iter().chain(a.and(&b)));
        prop_assert!(left.covers(&a));
    }

    #[test]
    fn adding_keeps_all_points(all in vec(selector(), 0..8)) {
        let mut added = TrafficSelectors::default();
        for selector in &all {
            prop_assert_eq!(added.add(*selector), Some(()));
            prop_assert!(added.covers(&all[0]));
        }
        prop_assert_eq!(of_all(&added), of_all(&TrafficSelectors::new(all)));
        for (at, one) in added.0.iter().enumerate() {
            let mut others = added.0.iter().enumerate().filter(|(other, _)| *other != at);
            prop_assert!(others.all(|(_, other)| one.and(other) != Some(*one)));
        }
    }
}
