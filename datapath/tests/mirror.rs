//! The mirror against the kernel, whose tables `ip` changes. Needs root, as namespaces do.

mod netns;

use netns::{LAB, Lab};
use portcullis_datapath::{
    confine::{self, ConfineError},
    drop::DropReason,
    fib::{Fib, Prefix, Resolution},
    frame::{Frame, META},
    mirror::{Mirror, MirrorError, MirrorThread, Notice, TICK},
    nexthop::{NextHops, Routed, Via},
};
use std::{
    io::Write,
    net::IpAddr,
    process::{Command, Stdio},
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How soon the mirror must have followed the kernel; generous, since the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(5);

/// A lab, its addresses taken away: a gateway with the ports lan0 and wan0, and who is beyond each.
struct Net {
    lab: Lab,
}

impl Net {
    fn new() -> Net {
        let net = Net { lab: Lab::lend("up") };
        for (node, device) in [("g1", "lan0"), ("g1", "wan0"), ("h1", "eth0"), ("g2", "wan0")] {
            let ip = format!("ip -n {}-{node}", net.lab.name);
            run(&format!("{ip} addr flush dev {device} scope global"), None);
            // The kernel asks for IPv6 neighbours from link-local addresses, which it makes in the background.
            let end = Instant::now() + DEADLINE;
            while run(&format!("{ip} -6 addr show dev {device} scope link -tentative"), None).is_empty() {
                assert!(Instant::now() < end, "no link-local address on {device} of {node}");
                thread::sleep(Duration::from_millis(10));
            }
        }
        net
    }

    /// `ip` in the gateway.
    fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {}-g1 {arguments}", self.lab.name), None)
    }

    /// `ip` beyond lan0.
    fn lan(&self, arguments: &str) -> String {
        run(&format!("ip -n {}-h1 {arguments}", self.lab.name), None)
    }

    /// `ip` beyond wan0.
    fn wan(&self, arguments: &str) -> String {
        run(&format!("ip -n {}-g2 {arguments}", self.lab.name), None)
    }

    /// The address of who is beyond each port.
    fn macs(&self) -> [String; 2] {
        [("h1", "eth0"), ("g2", "wan0")].map(|(node, device)| {
            let file = format!("/sys/class/net/{device}/address");
            run(&format!("{LAB} exec {} {node} cat {file}", self.lab.name), None).trim().to_owned()
        })
    }

    /// A mirror of the gateway, whoever runs it.
    fn open(&self, interfaces: &[&str]) -> Result<Mirror, MirrorError> {
        let interfaces: Vec<String> = interfaces.iter().map(|s| s.to_string()).collect();
        let open = move || {
            self.lab.enter("g1");
            Mirror::open(&interfaces)
        };
        thread::scope(|s| s.spawn(open).join().unwrap())
    }

    fn mirrored(&self) -> (NextHops, MirrorThread) {
        let mut mirror = self.open(&["lan0", "wan0"]).unwrap();
        let hops = mirror.worker();
        (hops, mirror.start(confine::mirror, |_| {}).unwrap())
    }
}

fn run(line: &str, input: Option<&str>) -> String {
    let mut words = line.split_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.unwrap_or("").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{line}");
    String::from_utf8(output.stdout).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Milliseconds of the test.
fn now_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// Turns until what `dst` resolves to is `wanted`.
#[track_caller]
fn until(hops: &mut NextHops, dst: &str, wanted: impl Fn(&Resolution) -> bool) -> Resolution {
    let end = Instant::now() + DEADLINE;
    loop {
        hops.turn(now_ms(), |_| panic!("nothing is held"));
        let resolution = hops.resolve(ip(dst));
        if wanted(&resolution) {
            return resolution;
        }
        assert!(Instant::now() < end, "{dst} still is {resolution:?}\n{:#?}", hops.fib());
        thread::sleep(Duration::from_millis(1));
    }
}

fn sent_by(port: u8, mac: &str, mtu: u16) -> impl Fn(&Resolution) -> bool {
    move |r| matches!(r, Resolution::Send { port: p, dst_mac, mtu: m, .. } if (*p, *m) == (port, mtu) && dst_mac.to_string() == mac)
}

fn no_route(r: &Resolution) -> bool {
    *r == Resolution::NoRoute
}

#[test]
fn routes_and_neighbours_follow_the_kernel() {
    let net = Net::new();
    net.ip("addr add 10.7.0.1/24 dev lan0");
    let (mut hops, thread) = net.mirrored();
    until(&mut hops, "10.7.0.1", |r| *r == Resolution::Local);
    until(&mut hops, "10.7.0.2", |r| *r == Resolution::Unresolved { port: 0, addr: ip("10.7.0.2") });
    until(&mut hops, "10.7.0.255", no_route);
    until(&mut hops, "127.0.0.1", |r| *r == Resolution::Local);

    // Neighbours.
    net.ip("neigh add 10.7.0.2 lladdr 02:00:00:00:00:aa dev lan0");
    until(&mut hops, "10.7.0.2", sent_by(0, "02:00:00:00:00:aa", 1500));
    net.ip("neigh change 10.7.0.2 lladdr 02:00:00:00:00:bb dev lan0");
    until(&mut hops, "10.7.0.2", sent_by(0, "02:00:00:00:00:bb", 1500));

    // Routes: by a gateway, a better one, one with its own MTU, one by a device that is not ours.
    net.ip("route add 198.51.0.0/16 via 10.7.0.2");
    until(&mut hops, "198.51.100.1", sent_by(0, "02:00:00:00:00:bb", 1500));
    net.ip("route add blackhole 198.51.100.0/24 metric 7");
    until(&mut hops, "198.51.100.1", no_route);
    net.ip("route add 198.51.100.0/24 via 10.7.0.2 mtu 1280 metric 6");
    until(&mut hops, "198.51.100.1", sent_by(0, "02:00:00:00:00:bb", 1280));
    net.ip("route del 198.51.100.0/24 metric 6");
    until(&mut hops, "198.51.100.1", no_route);
    net.ip("link add other type veth peer name rehto");
    net.ip("link set rehto up");
    net.ip("link set other up");
    net.ip("route del blackhole 198.51.100.0/24 metric 7");
    until(&mut hops, "198.51.100.1", sent_by(0, "02:00:00:00:00:bb", 1500));
    net.ip("route add 198.51.100.0/24 dev other");
    until(&mut hops, "198.51.100.1", no_route);
    net.ip("route del 198.51.100.0/24 dev other");
    until(&mut hops, "198.51.100.1", sent_by(0, "02:00:00:00:00:bb", 1500));

    // A local prefix hides longer ones in table main.
    net.ip("route add 198.51.100.0/24 via 10.7.0.2");
    net.ip("route add local 198.51.0.0/16 dev lo");
    until(&mut hops, "198.51.100.1", |r| *r == Resolution::Local);
    let own = Prefix { addr: ip("198.51.0.0"), len: 16 };
    assert!(hops.fib().own().contains(&own));
    net.ip("route del local 198.51.0.0/16 dev lo");
    until(&mut hops, "198.51.100.1", sent_by(0, "02:00:00:00:00:bb", 1500));
    assert!(!hops.fib().own().contains(&own));

    // IPv6, and an IPv4 route by an IPv6 router.
    net.ip("addr add fd07::1/64 dev wan0 nodad");
    net.ip("neigh add fd07::2 lladdr 02:00:00:00:00:cc dev wan0");
    net.ip("route add default via fd07::2");
    net.ip("route add 203.0.113.0/24 via inet6 fd07::2 dev wan0");
    until(&mut hops, "2001:db8::1", sent_by(1, "02:00:00:00:00:cc", 1500));
    until(&mut hops, "203.0.113.9", sent_by(1, "02:00:00:00:00:cc", 1500));
    until(&mut hops, "fd07::1", |r| *r == Resolution::Local);
    until(&mut hops, "fe80::1", no_route);

    // Equal next hops, as attributes of the route and as a next hop group; the one that is down is left out.
    let shares = |hops: &mut NextHops| {
        let mut ports: Vec<_> = (0..64)
            .filter_map(|n| match hops.resolve(ip(&format!("192.0.2.{n}"))) {
                Resolution::Send { port, .. } => Some(port),
                _ => None,
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    net.ip("route add 192.0.2.0/24 nexthop via 10.7.0.2 nexthop via inet6 fd07::2 dev wan0");
    until(&mut hops, "192.0.2.1", |r| !no_route(r));
    assert_eq!(shares(&mut hops), [0, 1]);
    net.ip("route del 192.0.2.0/24");
    until(&mut hops, "192.0.2.1", |r| matches!(r, Resolution::NoRoute));
    net.ip("nexthop add id 1 via 10.7.0.2 dev lan0");
    net.ip("route add 192.0.2.0/24 nhid 1");
    until(&mut hops, "192.0.2.1", sent_by(0, "02:00:00:00:00:bb", 1500));
    net.ip("nexthop replace id 1 via fd07::2 dev wan0");
    until(&mut hops, "192.0.2.1", sent_by(1, "02:00:00:00:00:cc", 1500));

    // The device: MTU, own address, carrier, down, and gone.
    net.ip("link set wan0 mtu 1400");
    until(&mut hops, "2001:db8::1", sent_by(1, "02:00:00:00:00:cc", 1400));
    net.ip("link set wan0 address 02:00:00:00:00:77");
    // The kernel forgot the neighbours of the old address.
    until(&mut hops, "2001:db8::1", |r| matches!(r, Resolution::Unresolved { .. }));
    net.ip("neigh add fd07::2 lladdr 02:00:00:00:00:cc dev wan0");
    until(
        &mut hops,
        "2001:db8::1",
        |r| matches!(r, Resolution::Send { src_mac, .. } if src_mac.0[5] == 0x77),
    );
    net.wan("link set wan0 down");
    until(&mut hops, "2001:db8::1", no_route);
    net.wan("link set wan0 up");
    until(&mut hops, "2001:db8::1", sent_by(1, "02:00:00:00:00:cc", 1400));
    net.ip("link set lan0 down");
    until(&mut hops, "198.51.100.1", no_route);
    net.ip("link set lan0 up");
    // The kernel brings back the route of the address, not the others, and tells of neither loss.
    until(&mut hops, "10.7.0.2", |r| matches!(r, Resolution::Unresolved { .. }));
    until(&mut hops, "198.51.100.1", no_route);
    net.ip("addr del 10.7.0.1/24 dev lan0");
    until(&mut hops, "10.7.0.2", no_route);
    net.ip("link del wan0");
    until(&mut hops, "2001:db8::1", no_route);
    assert_eq!(hops.fib().ports()[1].ifindex, 0);
    // A new device by the same name.
    net.ip(&format!("link add wan0 type veth peer name wan0 netns {}-g2", net.lab.name));
    net.wan("link set wan0 up");
    net.ip("link set wan0 up");
    net.ip("addr add 10.8.0.1/24 dev wan0");
    until(&mut hops, "10.8.0.2", |r| *r == Resolution::Unresolved { port: 1, addr: ip("10.8.0.2") });
    thread.stop().unwrap();
}

#[test]
fn the_kernel_resolves_what_frames_wait_for() {
    let net = Net::new();
    net.ip("addr add 10.7.0.1/24 dev lan0");
    net.lan("addr add 10.7.0.2/24 dev eth0");
    net.ip("addr add fd07::1/64 dev wan0 nodad");
    net.wan("addr add fd07::2/64 dev wan0 nodad");
    let (mut hops, thread) = net.mirrored();

    let mut chunks: Vec<Vec<u64>> = (0..60).map(|_| vec![0; 256]).collect();
    let mut out = 0;
    hops.turn(now_ms(), |_| panic!("nothing is held"));
    for (i, chunk) in chunks.iter_mut().enumerate() {
        let start = NonNull::new(chunk.as_mut_ptr()).unwrap().cast();
        // SAFETY: 2048 zeroed bytes, aligned to 8, of this frame alone, that outlive it.
        let mut frame = unsafe { Frame::from_chunk(start, 2048, META as u16 + 32, 60) };
        let (version, dst) = [(0x45, "10.7.0.2"), (0x60, "fd07::2"), (0x45, "10.7.0.99")][i % 3];
        frame.bytes_mut()[0] = version;
        match hops.route(frame, &mut Via::NONE.clone(), || ip(dst).into()) {
            Routed::Held => out += 1,
            other => panic!("{dst}: {other:?}"),
        }
    }
    let started = now_ms();
    let (mut sent, mut dropped_at) = ([0, 0], vec![]);
    let macs = net.macs();
    while out > 0 {
        assert!(now_ms() < started + 5000, "{out} frames are still held");
        hops.turn(now_ms(), |routed| {
            out -= 1;
            match routed {
                Routed::Send { port, frame } => {
                    let mac: Vec<_> = frame.bytes()[..6].iter().map(|b| format!("{b:02x}")).collect();
                    assert_eq!(mac.join(":"), macs[port as usize]);
                    sent[port as usize] += 1;
                }
                Routed::Drop { reason, .. } => {
                    assert_eq!(reason, DropReason::NeighbourUnresolved);
                    dropped_at.push(now_ms() - started);
                }
                Routed::Held => panic!("held twice"),
            }
        });
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((sent, dropped_at.len()), ([20, 20], 20));
    assert!(dropped_at.iter().all(|ms| (900..3000).contains(ms)), "{dropped_at:?}");
    assert_eq!(hops.held(), 0);
    thread.stop().unwrap();
}

#[test]
fn stale_neighbours_in_use_are_confirmed() {
    let net = Net::new();
    net.ip("addr add 10.7.0.1/24 dev lan0");
    net.lan("addr add 10.7.0.2/24 dev eth0");
    let [mac, _] = net.macs();
    for n in [2, 3] {
        net.ip(&format!("neigh add 10.7.0.{n} lladdr {mac} dev lan0 nud stale"));
    }
    let (mut hops, thread) = net.mirrored();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        hops.turn(now_ms(), |_| panic!("nothing is held"));
        assert!(matches!(hops.resolve(ip("10.7.0.2")), Resolution::Send { .. }));
        if !net.ip("neigh show 10.7.0.2 dev lan0").contains("STALE") {
            break;
        }
        assert!(Instant::now() < end, "it is still stale");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(net.ip("neigh show 10.7.0.3 dev lan0").contains("STALE"), "one that is not in use is left alone");
    thread.stop().unwrap();
}

#[test]
fn a_storm_of_changes_ends_in_the_kernels_table() {
    const ROUTES: usize = 30_000;
    let net = Net::new();
    net.ip("addr add 10.7.0.1/24 dev lan0");
    let mut mirror = net.open(&["lan0", "wan0"]).unwrap();
    let mut hops = mirror.worker();
    let before = hops.fib().sizes().0;
    // A mirror that does not come round to its socket: far more is told than the kernel keeps for it (ENOBUFS).
    let busy = Arc::new(AtomicBool::new(false));
    let tell = {
        let busy = busy.clone();
        move |_: Notice<'_>| {
            while busy.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
        }
    };
    let thread = mirror.start(confine::mirror, tell).unwrap();
    let batch = |verb: &str| -> String {
        (0..ROUTES).map(|n| format!("route {verb} 20.{}.{}.0/24 via 10.7.0.2\n", n / 256, n % 256)).collect()
    };
    for (verb, is_busy, expected) in
        [("add", false, before + ROUTES), ("del", true, before), ("add", true, before + ROUTES)]
    {
        busy.store(is_busy, Ordering::Relaxed);
        run(&format!("ip -n {}-g1 -batch -", net.lab.name), Some(&batch(verb)));
        busy.store(false, Ordering::Relaxed);
        let end = Instant::now() + 4 * DEADLINE;
        while hops.fib().sizes().0 != expected {
            assert!(Instant::now() < end, "{} routes, not {expected}", hops.fib().sizes().0);
            thread::sleep(Duration::from_millis(5));
            hops.turn(now_ms(), |_| ());
        }
    }
    thread.stop().unwrap();
}

#[test]
fn the_owner_is_told() {
    let net = Net::new();
    let mut mirror = net.open(&["lan0"]).unwrap();
    let first = mirror.fib().version();
    let mut hops = mirror.worker();
    let told = Arc::new(Mutex::new(vec![]));
    let tell = {
        let told = told.clone();
        move |notice: Notice<'_>| {
            told.lock().unwrap().push(match notice {
                Notice::Published(fib) => format!("published {}", fib.own().contains(&own())),
                Notice::Tick(_) => "tick".into(),
                Notice::Stopping => "stopping".into(),
            })
        }
    };
    fn own() -> Prefix {
        Prefix::host(ip("10.7.0.1"))
    }
    let begun = Instant::now();
    let thread = mirror.start(confine::mirror, tell).unwrap();
    let ticks = || told.lock().unwrap().iter().filter(|t| *t == "tick").count();
    while ticks() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", told.lock());
        thread::sleep(TICK);
    }
    net.ip("addr add 10.7.0.1/24 dev lan0");
    until(&mut hops, "10.7.0.1", |r| *r == Resolution::Local);
    assert!(hops.fib().version() > first);
    assert!(!thread.is_finished());
    thread.stop().unwrap();
    let most = begun.elapsed().as_millis() / TICK.as_millis() + 1;
    assert!(ticks() as u128 <= most, "{} ticks, {most} at most", ticks());
    let told = told.lock().unwrap();
    assert_eq!(told[0], "published false");
    assert!(told.contains(&"published true".into()), "{told:?}");
    assert_eq!(told.iter().position(|t| t == "stopping"), Some(told.len() - 1));
}

#[test]
fn a_mirror_that_cannot_be_says_why() {
    let net = Net::new();
    match net.open(&["lan0", "eth9"]).err().unwrap() {
        MirrorError::UnknownInterface { name, existing } => {
            assert_eq!(name, "eth9");
            assert_eq!(existing, ["lo", "lan0", "wan0"]);
        }
        e => panic!("{e}"),
    }
    assert_eq!(
        net.open(&["eth9"]).err().unwrap().to_string(),
        "[[port]] interface = \"eth9\": there is no such interface here; there are: lo, lan0, wan0"
    );
    assert!(matches!(net.open(&["lo"]).err(), Some(MirrorError::NotEthernet { name }) if name == "lo"));
    assert!(matches!(net.open(&["lan0", "lan0"]).err(), Some(MirrorError::Twice { name }) if name == "lan0"));
    let refused = net
        .open(&["lan0"])
        .unwrap()
        .start(|| Err(ConfineError::NoNewPrivs(std::io::ErrorKind::Unsupported.into())), |_| {});
    assert!(matches!(refused.err(), Some(MirrorError::Confine(_))));
    assert_eq!(Fib::default().resolve(ip("10.0.0.1")), Resolution::NoRoute);
}
