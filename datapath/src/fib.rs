//! The forwarding table: what the kernel knows of routes and neighbours, as one snapshot.
//!
//! A [`Fib`] never changes. The mirror thread makes the next one when the kernel's tables change, and a worker
//! looks up in the one it holds (see [`nexthop`](crate::nexthop)). Its parts are counted references, so that a
//! new neighbour does not cost a copy of the routes.
//!
//! What is mirrored is what the kernel's default rules ask: table `local`, then table `main`. A route whose
//! output device is not one of our ports is kept, so that it hides shorter prefixes, but packets do not take it.
//!
//! Of several equal next hops a packet takes the one that a hash of its *destination* picks, weighted as the
//! route says. All packets to one tunnel endpoint thus go one way and stay in order.

use arrayvec::ArrayVec;
use prefix_trie::PrefixMap;
use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Prefix {
    /// The address; bits after `len` do not count.
    pub addr: IpAddr,
    /// At most 32 or 128.
    pub len: u8,
}

impl Prefix {
    /// The prefix that is one address.
    pub fn host(addr: IpAddr) -> Prefix {
        Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// A port as the kernel sees its device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortLink {
    /// The device's name.
    pub interface: String,
    /// The device's index; 0 while there is no such device.
    pub ifindex: u32,
    /// Its own address.
    pub mac: Mac,
    /// The largest packet without the Ethernet header.
    pub mtu: u16,
    /// Administratively up, and with a carrier.
    pub up: bool,
    /// The other end of a veth pair that is the kernel's: what is for the gateway itself is sent there.
    pub kernel: Option<KernelEnd>,
}

/// A device of the kernel at the other end of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelEnd {
    /// Its index.
    pub ifindex: u32,
    /// Its address.
    pub mac: Mac,
    /// The largest packet that it takes.
    pub mtu: u16,
    /// Administratively up, and with a carrier.
    pub up: bool,
}

/// One way out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    /// Our port, or `None` for a device that is not ours: packets do not go there.
    pub port: Option<u8>,
    /// The router, possibly of the other family; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The route's own MTU, or 0 for the port's.
    pub mtu: u16,
    /// Its share among equal next hops, at least 1.
    pub weight: u16,
    /// The port at whose other end its device is: what comes from there, the kernel expects by that.
    pub kernel: Option<u8>,
}

/// Where the kernel's table leads a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    /// `hops[first..first + count]`.
    Hops { first: u32, count: u16 },
    /// To the gateway itself.
    Local,
    /// Blackhole, unreachable, prohibit, throw, broadcast.
    Refuse,
}

/// A destination prefix as what the kernel's route makes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// Forwarded by one of these, none if all are dead.
    Unicast(Vec<Hop>),
    /// Blackhole, unreachable, prohibit or throw.
    Refuse,
}

/// Collects routes for a [`Routes`]. Of one prefix, the route given first counts.
#[derive(Default, Debug)]
pub struct RoutesBuilder {
    own4: PrefixMap<(u32, u8), Target>,
    own6: PrefixMap<(u128, u8), Target>,
    own: Vec<Prefix>,
    addresses: Vec<(IpAddr, Option<u8>)>,
    main: Vec<(Prefix, Target)>,
    hops: Vec<Hop>,
    groups: HashMap<Vec<Hop>, u32>,
}

impl RoutesBuilder {
    /// Adds a prefix from table `local`: ours, an anycast one included.
    pub fn local(&mut self, prefix: Prefix) -> &mut Self {
        self.local_at(prefix, None)
    }

    /// The same of the device at the other end of a port.
    pub fn local_at(&mut self, prefix: Prefix, kernel: Option<u8>) -> &mut Self {
        if prefix == Prefix::host(prefix.addr) && !prefix.addr.is_loopback() {
            self.addresses.push((prefix.addr, kernel));
        }
        self.own_prefix(prefix, Target::Local)
    }

    /// Adds a broadcast address from table `local`. Such packets are the kernel's, and are not forwarded.
    // RFC 2644 §4
    pub fn broadcast(&mut self, prefix: Prefix) -> &mut Self {
        self.own_prefix(prefix, Target::Refuse)
    }

    fn own_prefix(&mut self, prefix: Prefix, target: Target) -> &mut Self {
        match prefix.addr {
            IpAddr::V4(a) => self.own4.insert((a.to_bits(), prefix.len), target),
            IpAddr::V6(a) => self.own6.insert((a.to_bits(), prefix.len), target),
        };
        self.own.push(prefix);
        self
    }

    /// Adds a route from table `main`.
    pub fn route(&mut self, prefix: Prefix, route: &Route) -> &mut Self {
        let target = match route {
            Route::Refuse => Target::Refuse,
            Route::Unicast(hops) => {
                let first = match self.groups.get(hops) {
                    Some(first) => *first,
                    None => {
                        let first = self.hops.len() as u32;
                        self.hops.extend_from_slice(hops);
                        self.groups.insert(hops.clone(), first);
                        first
                    }
                };
                Target::Hops { first, count: u16::try_from(hops.len()).unwrap_or(u16::MAX) }
            }
        };
        self.main.push((prefix, target));
        self
    }

    /// Makes the table.
    pub fn build(self) -> Routes {
        let (mut v4, mut v6) = (PrefixMap::new(), PrefixMap::new());
        for (prefix, target) in self.main {
            // Table local is asked first: where it matches at all, main has no say.
            match prefix.addr {
                IpAddr::V4(a) => {
                    let key = (a.to_bits(), prefix.len);
                    if self.own4.get_lpm(&key).is_none() {
                        v4.entry(key).or_insert(target);
                    }
                }
                IpAddr::V6(a) => {
                    let key = (a.to_bits(), prefix.len);
                    if self.own6.get_lpm(&key).is_none() {
                        v6.entry(key).or_insert(target);
                    }
                }
            }
        }
        for (prefix, target) in self.own4 {
            v4.insert(prefix, target);
        }
        for (prefix, target) in self.own6 {
            v6.insert(prefix, target);
        }
        let mut own = self.own;
        own.sort_unstable();
        own.dedup();
        Routes { v4, v6, hops: self.hops, own, addresses: self.addresses }
    }
}

/// The routes of both families.
#[derive(Default, Debug, PartialEq)]
pub struct Routes {
    v4: PrefixMap<(u32, u8), Target>,
    v6: PrefixMap<(u128, u8), Target>,
    hops: Vec<Hop>,
    own: Vec<Prefix>,
    /// Addresses of ours, and the port at whose other end their device is.
    addresses: Vec<(IpAddr, Option<u8>)>,
}

impl Routes {
    /// How many prefixes it holds.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lookup(&self, dst: IpAddr) -> Option<Target> {
        match dst {
            IpAddr::V4(a) => self.v4.get_lpm(&(a.to_bits(), 32)).map(|(_, t)| *t),
            IpAddr::V6(a) => self.v6.get_lpm(&(a.to_bits(), 128)).map(|(_, t)| *t),
        }
    }
}

/// The link-layer address of a neighbour that has one.
#[derive(Debug)]
struct Neighbour {
    mac: Mac,
    /// Set by workers that send to it, so that the mirror has the kernel confirm it from time to time. A hint
    /// that orders nothing, hence Relaxed everywhere.
    used: AtomicBool,
}

/// The neighbours that packets can be sent to, by port and address.
#[derive(Default, Debug)]
pub struct Neighbours {
    map: HashMap<(u8, IpAddr), Neighbour>,
}

impl FromIterator<((u8, IpAddr), Mac)> for Neighbours {
    fn from_iter<I: IntoIterator<Item = ((u8, IpAddr), Mac)>>(entries: I) -> Neighbours {
        let map = entries.into_iter().map(|(k, mac)| (k, Neighbour { mac, used: AtomicBool::new(false) }));
        Neighbours { map: map.collect() }
    }
}

impl Neighbours {
    /// Calls `f` with every neighbour used since the last call.
    pub fn take_used(&self, mut f: impl FnMut(u8, IpAddr)) {
        for ((port, addr), n) in &self.map {
            if n.used.load(Ordering::Relaxed) {
                n.used.store(false, Ordering::Relaxed);
                f(*port, *addr);
            }
        }
    }
}

/// What becomes of a packet to some destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Sent by this port to this link-layer address.
    Send {
        /// The port.
        port: u8,
        /// The next hop's address.
        dst_mac: Mac,
        /// The port's address.
        src_mac: Mac,
        /// The largest packet that fits.
        mtu: u16,
    },
    /// The next hop is known, its link-layer address is not.
    Unresolved {
        /// The port.
        port: u8,
        /// The next hop.
        addr: IpAddr,
    },
    /// To the gateway itself.
    Local,
    /// No route, or one that we do not take.
    NoRoute,
}

/// One snapshot of the kernel's tables.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    version: u64,
    ports: Arc<Vec<PortLink>>,
    routes: Arc<Routes>,
    neighbours: Arc<Neighbours>,
}

impl Fib {
    /// A snapshot of these parts. Versions count upwards.
    pub fn new(
        version: u64,
        ports: Arc<Vec<PortLink>>,
        routes: Arc<Routes>,
        neighbours: Arc<Neighbours>,
    ) -> Fib {
        Fib { version, ports, routes, neighbours }
    }

    /// Larger in each later snapshot.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The ports, in the order of the configuration.
    pub fn ports(&self) -> &[PortLink] {
        &self.ports
    }

    /// How many routes and neighbours it holds.
    pub fn sizes(&self) -> (usize, usize) {
        (self.routes.len(), self.neighbours.map.len())
    }

    /// Prefixes that belong to the kernel: the gateway's own addresses, and broadcast. Sorted.
    pub fn own(&self) -> &[Prefix] {
        &self.routes.own
    }

    /// The gateway's addresses that a message to `dst` may come from, the best first: of those of its family that of the
    /// kernel's end by which it is routed, as others may not be routed back that way; then of its scope if there are any,
    /// those that have most leading bits in common with it (RFC 6724 §5, rules 2 and 8). Eight at
    /// most.
    pub fn sources_for(&self, dst: IpAddr) -> ArrayVec<IpAddr, 8> {
        let bits = |a: IpAddr| match a {
            IpAddr::V4(a) => (a.to_bits() as u128) << 96,
            IpAddr::V6(a) => a.to_bits(),
        };
        let is_link_local = |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let way = self.hops(dst).iter().find_map(|hop| hop.kernel);
        let rank = |(a, at): (IpAddr, Option<u8>)| {
            let has_scope = is_link_local(a) == is_link_local(dst);
            (has_scope && way.is_some() && at == way, has_scope, (bits(a) ^ bits(dst)).leading_zeros())
        };
        let mut found = ArrayVec::<(IpAddr, Option<u8>), 8>::new();
        for address in self.routes.addresses.iter().filter(|(a, _)| a.is_ipv4() == dst.is_ipv4()) {
            let at = found.iter().position(|f| rank(*f) < rank(*address)).unwrap_or(found.len());
            if found.is_full() && at < found.len() {
                found.pop();
            }
            if !found.is_full() {
                found.insert(at, *address);
            }
        }
        found.into_iter().map(|(address, _)| address).collect()
    }

    /// The hops of the route to an address, if it has any.
    fn hops(&self, dst: IpAddr) -> &[Hop] {
        match self.routes.lookup(dst) {
            Some(Target::Hops { first, count }) => &self.routes.hops[first as usize..][..count as usize],
            _ => &[],
        }
    }

    /// The neighbours of this snapshot.
    pub fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// How a packet from `src`, of a tunnel, reaches the kernel, for which it is: by the port that leads to the device that
    /// `src` is routed by, so that the kernel finds it came the right way (RFC 3704 §2.2). `None` if there is none.
    ///
    /// Danger: the kernel's answer leaves by that route. If any of its hops leads elsewhere than through us, where the
    /// outbound policies are, it would leave in clear: then the kernel must not have the packet.
    pub fn to_kernel(&self, src: IpAddr) -> Option<Resolution> {
        let hops = self.hops(src);
        if hops.iter().any(|hop| hop.kernel.is_none()) {
            return None;
        }
        let leads_there = |port: u8| {
            let link = self.ports.get(port as usize).filter(|l| l.up)?;
            let kernel = link.kernel.filter(|k| k.up)?;
            Some(Resolution::Send { port, dst_mac: kernel.mac, src_mac: link.mac, mtu: kernel.mtu })
        };
        hops.iter().filter_map(|hop| hop.kernel).find_map(leads_there)
    }

    /// Whether an address is the gateway's own. Nothing is marked.
    pub fn is_local(&self, addr: IpAddr) -> bool {
        !addr.is_multicast() && self.routes.lookup(addr) == Some(Target::Local)
    }

    /// Where a packet to `dst` goes. Marks the neighbour as used.
    pub fn resolve(&self, dst: IpAddr) -> Resolution {
        if dst.is_multicast() {
            return Resolution::NoRoute;
        }
        let (first, count) = match self.routes.lookup(dst) {
            None | Some(Target::Refuse) => return Resolution::NoRoute,
            Some(Target::Local) => return Resolution::Local,
            Some(Target::Hops { first, count }) => (first as usize, count as usize),
        };
        // RFC 4291 §2.5.6
        if matches!(dst, IpAddr::V6(a) if a.is_unicast_link_local()) {
            return Resolution::NoRoute;
        }
        let Some((port, hop)) = pick(&self.routes.hops[first..first + count], dst) else {
            return Resolution::NoRoute;
        };
        let Some(link) = self.ports.get(port as usize).filter(|l| l.up) else {
            return Resolution::NoRoute;
        };
        let addr = hop.gateway.unwrap_or(dst);
        let Some(neighbour) = self.neighbours.map.get(&(port, addr)) else {
            return Resolution::Unresolved { port, addr };
        };
        // Looked at first, so that the line stays shared between the cores.
        if !neighbour.used.load(Ordering::Relaxed) {
            neighbour.used.store(true, Ordering::Relaxed);
        }
        let mtu = if hop.mtu == 0 { link.mtu } else { hop.mtu.min(link.mtu) };
        Resolution::Send { port, dst_mac: neighbour.mac, src_mac: link.mac, mtu }
    }
}

/// The hop that `dst` takes, of those by our ports.
fn pick(hops: &[Hop], dst: IpAddr) -> Option<(u8, &Hop)> {
    let ours = || hops.iter().filter_map(|h| Some((h.port?, h)));
    let total: u64 = ours().map(|(_, h)| h.weight as u64).sum();
    let bits = match dst {
        IpAddr::V4(a) => a.to_bits() as u64,
        IpAddr::V6(a) => (a.to_bits() >> 64) as u64 ^ (a.to_bits() as u64).rotate_left(32),
    };
    let hash = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut share = (hash * total) >> 32;
    for (port, hop) in ours() {
        if share < hop.weight as u64 {
            return Some((port, hop));
        }
        share -= hop.weight as u64;
    }
    None
}

#[cfg(test)]
mod tests;
