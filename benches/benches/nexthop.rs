//! What it costs a worker to know where a packet goes: from its cache, and without it from 20,000 routes.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_datapath::{
    fib::{Fib, Hop, Mac, PortLink, Prefix, Resolution, Route, RoutesBuilder},
    nexthop::NextHops,
};
use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

const ROUTES: usize = 20_000;

/// The same numbers each time.
fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 32) as u32
}

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from(n & 0x7fff_ffff).into()
}

fn v6(n: u32) -> IpAddr {
    Ipv6Addr::from(0x2001_0db8 << 96 | (n as u128) << 64).into()
}

/// Prefixes of 16 to 24 bits (IPv6: 48 to 64) and a default route, all by one gateway.
fn fib(address: fn(u32) -> IpAddr) -> Arc<Fib> {
    let gateway = address(1);
    let via =
        Route::Unicast(vec![Hop { port: Some(0), gateway: Some(gateway), mtu: 0, weight: 1, kernel: None }]);
    let mut routes = RoutesBuilder::default();
    let mut state = 1;
    for _ in 0..ROUTES {
        let (addr, n) = (address(random(&mut state)), random(&mut state));
        let len = if addr.is_ipv4() { 16 + n % 9 } else { 48 + n % 17 } as u8;
        routes.route(Prefix { addr, len }, &via);
    }
    routes.route(Prefix { addr: address(0), len: 0 }, &via);
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let port = PortLink { interface: "p0".into(), ifindex: 1, mac, mtu: 1500, up: true, kernel: None };
    let neighbours = [((0, gateway), mac)].into_iter().collect();
    Arc::new(Fib::new(1, Arc::new(vec![port]), Arc::new(routes.build()), Arc::new(neighbours)))
}

fn nexthop(c: &mut Criterion) {
    for (family, address) in [("v4", v4 as fn(u32) -> IpAddr), ("v6", v6)] {
        let fib = fib(address);
        let mut state = 7;
        let dsts: Vec<IpAddr> = (0..4096).map(|_| address(random(&mut state))).collect();
        let mut group = c.benchmark_group(format!("nexthop/{family}"));
        let mut next = 0;
        group.bench_function("uncached", |b| {
            b.iter(|| {
                next = (next + 1) % dsts.len();
                assert!(matches!(fib.resolve(black_box(dsts[next])), Resolution::Send { .. }));
            })
        });
        let (mut hops, _publisher) = NextHops::new(fib.clone());
        hops.turn(0, drop);
        group.bench_function("cached", |b| {
            b.iter(|| {
                next = (next + 1) % 32;
                assert!(matches!(hops.resolve(black_box(dsts[next])), Resolution::Send { .. }));
            })
        });
        group.finish();
    }
}

criterion_group!(benches, nexthop);
criterion_main!(benches);
