use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn prefix(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').unwrap();
    Prefix { addr: addr.parse().unwrap(), len: len.parse().unwrap() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(n: u8) -> PortLink {
    PortLink {
        interface: format!("p{n}"),
        ifindex: 10 + n as u32,
        mac: Mac([2, 0, 0, 0, 0, n]),
        mtu: 1500,
        up: true,
        kernel: None,
    }
}

fn hop(port: u8, gateway: Option<&str>) -> Hop {
    Hop { port: Some(port), gateway: gateway.map(ip), mtu: 0, weight: 1, kernel: None }
}

fn fib(routes: RoutesBuilder, neighbours: &[(u8, &str)]) -> Fib {
    let macs = neighbours.iter().enumerate().map(|(i, (p, a))| ((*p, ip(a)), Mac([6, 0, 0, 0, 0, i as u8])));
    Fib::new(1, Arc::new(vec![port(0), port(1)]), Arc::new(routes.build()), Arc::new(macs.collect()))
}

fn via(hops: &[Hop]) -> Route {
    Route::Unicast(hops.to_vec())
}

#[test]
fn resolves_as_the_kernel_would() {
    let mut b = RoutesBuilder::default();
    b.local(prefix("10.0.0.1/32")).broadcast(prefix("10.0.0.255/32")).local(prefix("fd00::1/128"));
    b.route(prefix("10.0.0.0/24"), &via(&[hop(0, None)]));
    b.route(prefix("0.0.0.0/0"), &via(&[hop(0, Some("10.0.0.254"))]));
    b.route(prefix("10.2.0.0/16"), &via(&[Hop { mtu: 1400, ..hop(1, Some("fe80::9")) }]));
    b.route(prefix("10.3.0.0/16"), &via(&[Hop { port: None, ..hop(0, None) }]));
    b.route(prefix("10.4.0.0/16"), &Route::Refuse);
    b.route(prefix("10.5.0.0/16"), &via(&[]));
    b.route(prefix("fd00::/64"), &via(&[hop(1, None)]));
    let fib = fib(b, &[(0, "10.0.0.254"), (1, "fe80::9"), (0, "fd00::7"), (1, "10.0.0.9")]);

    let send = |port: u8, n: u8, mtu: u16| Resolution::Send {
        port,
        dst_mac: Mac([6, 0, 0, 0, 0, n]),
        src_mac: Mac([2, 0, 0, 0, 0, port]),
        mtu,
    };
    for (dst, expected) in [
        ("10.0.0.1", Resolution::Local),
        ("10.0.0.255", Resolution::NoRoute),
        // A neighbour of another port does not count.
        ("10.0.0.9", Resolution::Unresolved { port: 0, addr: ip("10.0.0.9") }),
        ("192.0.2.1", send(0, 0, 1500)),
        ("10.2.9.9", send(1, 1, 1400)),
        ("10.3.0.1", Resolution::NoRoute),
        ("10.4.0.1", Resolution::NoRoute),
        ("10.5.0.1", Resolution::NoRoute),
        ("224.0.0.1", Resolution::NoRoute),
        ("fd00::1", Resolution::Local),
        ("fd00::7", Resolution::Unresolved { port: 1, addr: ip("fd00::7") }),
        ("fd01::7", Resolution::NoRoute),
        ("ff02::1", Resolution::NoRoute),
    ] {
        assert_eq!(fib.resolve(ip(dst)), expected, "{dst}");
    }
    assert_eq!(fib.own(), &["10.0.0.1/32", "10.0.0.255/32", "fd00::1/128"].map(prefix));
}

#[test]
fn a_port_that_is_down_is_no_way() {
    let mut b = RoutesBuilder::default();
    b.route(prefix("0.0.0.0/0"), &via(&[hop(0, Some("10.0.0.254"))]));
    let mut fib = fib(b, &[(0, "10.0.0.254")]);
    assert!(matches!(fib.resolve(ip("8.8.8.8")), Resolution::Send { .. }));
    fib.ports = Arc::new(vec![PortLink { up: false, ..port(0) }]);
    assert_eq!(fib.resolve(ip("8.8.8.8")), Resolution::NoRoute);
}

#[test]
fn of_one_prefix_the_first_route_counts() {
    let mut b = RoutesBuilder::default();
    b.route(prefix("10.0.0.0/8"), &Route::Refuse).route(prefix("10.0.0.0/8"), &via(&[hop(0, None)]));
    assert_eq!(fib(b, &[(0, "10.1.1.1")]).resolve(ip("10.1.1.1")), Resolution::NoRoute);
}

#[test]
fn use_is_told_once() {
    let mut b = RoutesBuilder::default();
    b.route(prefix("10.0.0.0/24"), &via(&[hop(0, None)]));
    let fib = fib(b, &[(0, "10.0.0.2"), (0, "10.0.0.3")]);
    let used = || {
        let mut all = vec![];
        fib.neighbours().take_used(|port, addr| all.push((port, addr)));
        all
    };
    assert_eq!(used(), []);
    let _ = fib.resolve(ip("10.0.0.3"));
    assert_eq!(used(), [(0, ip("10.0.0.3"))]);
    assert_eq!(used(), []);
}

#[test]
fn equal_hops_share_by_weight_and_each_destination_keeps_its_own() {
    let hops = [
        Hop { weight: 3, ..hop(0, None) },
        Hop { port: None, weight: 50, ..hop(0, None) },
        Hop { weight: 1, ..hop(1, None) },
    ];
    for family in [
        |n: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)),
        |n: u32| IpAddr::from(Ipv6Addr::from((0xfd << 120) | n as u128)),
    ] {
        let mut count = [0; 2];
        for n in 0..10_000 {
            let (port, _) = pick(&hops, family(n)).unwrap();
            assert_eq!(pick(&hops, family(n)).unwrap().0, port);
            count[port as usize] += 1;
        }
        assert!((7000..8000).contains(&count[0]), "{count:?}");
    }
}

/// Few bits, so that prefixes cover each other and destinations hit.
fn address() -> impl Strategy<Value = IpAddr> {
    let bits = proptest::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], 16);
    (any::<bool>(), bits).prop_map(|(v4, b)| {
        let b: [u8; 16] = b.try_into().unwrap();
        // Multicast is refused before any lookup.
        if v4 { IpAddr::from([b[0] & 0x7f, b[1], b[2], b[3]]) } else { IpAddr::from(b.map(|x| x & 0x7f)) }
    })
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    (address(), 0..=128u8).prop_map(|(addr, len)| Prefix { addr, len: len.min(Prefix::host(addr).len) })
}

fn covers(p: &Prefix, dst: IpAddr) -> bool {
    match (p.addr, dst) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - p.len as u32).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - p.len as u32).unwrap_or(0) == 0
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_longest_prefix_wins_and_local_before_main(
        own in proptest::collection::vec(any_prefix(), 0..6),
        main in proptest::collection::vec(any_prefix(), 0..60),
        dsts in proptest::collection::vec(address(), 100),
    ) {
        let mut b = RoutesBuilder::default();
        for p in &own {
            b.local(*p);
        }
        for (i, p) in main.iter().enumerate() {
            b.route(*p, &via(&[hop(0, Some(&format!("10.0.{}.{}", i / 250, i % 250)))]));
        }
        let fib = fib(b, &[]);
        // Each prefix's own address too, where the edges are.
        for dst in dsts.into_iter().chain(main.iter().map(|p| p.addr)) {
            let expected = if own.iter().any(|p| covers(p, dst)) {
                Resolution::Local
            } else {
                let covering = main.iter().enumerate().filter(|(_, p)| covers(p, dst));
                // Of equals the first: max_by_key would take the last.
                match covering.rev().max_by_key(|(_, p)| p.len) {
                    None => Resolution::NoRoute,
                    Some((i, _)) => Resolution::Unresolved {
                        port: 0,
                        addr: IpAddr::from([10, 0, (i / 250) as u8, (i % 250) as u8]),
                    },
                }
            };
            prop_assert_eq!(fib.is_local(dst), expected == Resolution::Local, "{}", dst);
            prop_assert_eq!(fib.resolve(dst), expected, "{}", dst);
        }
    }
}

#[test]
fn what_is_for_the_gateway_goes_to_the_kernel_by_the_way_back() {
    let end =
        |n: u8, up| Some(KernelEnd { ifindex: 90 + n as u32, mac: Mac([4, 0, 0, 0, 0, n]), mtu: 1400, up });
    let mut fib = Fib::default();
    let by = |n: u8| Route::Unicast(vec![Hop { port: None, kernel: Some(n), ..hop(0, None) }]);
    let mut b = RoutesBuilder::default();
    b.route(prefix("10.1.0.0/16"), &by(1)).route(prefix("10.2.0.0/16"), &by(2));
    fib.routes = Arc::new(b.build());
    let with = |one: bool, two: bool| {
        let second = PortLink { kernel: end(2, two), ..port(1) };
        Arc::new(vec![port(0), PortLink { kernel: end(1, one), ..port(1) }, second])
    };
    fib.ports = with(true, true);
    let to = |fib: &Fib, src: &str| match fib.to_kernel(ip(src)) {
        Some(Resolution::Send { port, dst_mac, .. }) => Some((port, dst_mac.0[5])),
        None => None,
        other => panic!("{other:?}"),
    };
    assert_eq!((to(&fib, "10.1.0.9"), to(&fib, "10.2.0.9")), (Some((1, 1)), Some((2, 2))));
    // A message that goes back into a tunnel comes from the address of its interface, if there is one.
    let mut b = RoutesBuilder::default();
    b.route(prefix("10.1.0.0/16"), &by(1)).route(prefix("10.2.0.0/16"), &by(2)).local(prefix("10.1.0.1/32"));
    b.local_at(prefix("169.254.0.1/32"), Some(1)).local_at(prefix("fd00::1/128"), Some(2));
    fib.routes = Arc::new(b.build());
    let sources = |dst| fib.sources_for(ip(dst)).to_vec();
    assert_eq!(sources("10.1.0.9"), [ip("169.254.0.1"), ip("10.1.0.1")]);
    assert_eq!(sources("10.2.0.9"), [ip("10.1.0.1"), ip("169.254.0.1")]);
    // No route back, or one by a device that is down: an answer would leave in clear by another, or not at all.
    assert_eq!((to(&fib, "192.0.2.1"), to(&fib, "fd00::1")), (None, None));
    fib.ports = with(true, false);
    assert_eq!((to(&fib, "10.1.0.9"), to(&fib, "10.2.0.9")), (Some((1, 1)), None));
    // Of several hops, any may be the one that the answer takes.
    let mut b = RoutesBuilder::default();
    let back = |n| Hop { port: None, kernel: Some(n), ..hop(0, None) };
    b.route(prefix("10.1.0.0/16"), &Route::Unicast(vec![back(1), hop(0, None)]));
    b.route(prefix("10.2.0.0/16"), &Route::Unicast(vec![back(2), back(1)]));
    fib.routes = Arc::new(b.build());
    assert_eq!((to(&fib, "10.1.0.9"), to(&fib, "10.2.0.9")), (None, Some((1, 1))));
    fib.ports = with(false, false);
    assert_eq!(to(&fib, "10.2.0.9"), None);
    fib.ports = Arc::new(vec![port(0), port(1)]);
    assert_eq!(to(&fib, "10.2.0.9"), None);
}
