//! Between which addresses IKE SAs are, when those of this machine, or its routes, are others (RFC 4555 §3.5).
//!
//! | the address that we send from | without MOBIKE | with it |
//! |---|---|---|
//! | is gone, or does not lead to the peer any more | another IKE SA is begun from another, in its place | the peer is told of another |
//! | is written in `local_addrs` by itself, and is there | stays | stays |
//! | is one that the route had, which has another now | stays | the peer is told of that |
//!
//! That is for who has begun; what is still being begun is begun again from the other address. Who has not tells the peer, with
//! MOBIKE, where it is now. Others than what `local_addrs` and `remote_addrs` have are not taken; of the peer's, those that it says
//! to be at. Where there is none, it is as before, until something changes again or the peer is given up.

use super::Ike;
use crate::news::{News, thread_time};
use portcullis_ike::{
    connection::{Connection, Hosts},
    crypto::keys::Role,
    identity::Fit,
    ike_sa::{IkeSaId, Phase},
    v2::ike_sa::IkeSa,
};
use portcullis_netlink::Requests;
use portcullis_sadb::Sadb;
use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::{Duration, Instant},
};

/// Any port: nothing is sent.
const PORT: u16 = 500;

/// What follows addresses and routes.
#[derive(Debug)]
pub(super) struct Watch {
    pub news: News,
    requests: Requests,
}

impl Watch {
    /// What it is from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Watch> {
        Ok(Watch { news: News::open()?, requests: Requests::open()? })
    }

    /// In how long it is to be looked.
    pub fn due(&self) -> Option<Duration> {
        self.news.due().map(|due| due.saturating_duration_since(Instant::now()))
    }
}

/// What leads where, by the kernel: the address that packets to a peer leave from, or whether they can from one. Asked once each.
struct Ways<'a> {
    /// All addresses.
    here: &'a HashSet<IpAddr>,
    /// Those that peers have given us: inside of tunnels.
    virtual_ips: &'a HashSet<IpAddr>,
    known: HashMap<(Option<IpAddr>, IpAddr), Option<IpAddr>>,
}

impl Ways<'_> {
    fn find(&mut self, from: Option<IpAddr>, peer: IpAddr) -> Option<IpAddr> {
        *self.known.entry((from, peer)).or_insert_with(|| {
            let found = source_for(from, peer).ok();
            found.filter(|ip| self.here.contains(ip) && !self.virtual_ips.contains(ip))
        })
    }
}

/// The address that packets to a peer leave from, if it need not be this one. Nothing is sent.
///
/// # Errors
/// There is none, or not this one.
fn source_for(from: Option<IpAddr>, peer: IpAddr) -> io::Result<IpAddr> {
    let any =
        if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0))?;
    socket.connect((peer, PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// Addresses to begin a connection from and to: the first of the peer's that there is a way to.
///
/// # Errors
/// Why there are none, for people.
pub(super) fn ends(connection: &Connection) -> Result<(IpAddr, IpAddr), String> {
    first_ends(connection, &mut |from, peer| source_for(from, peer))
}

type Find<'a> = &'a mut dyn FnMut(Option<IpAddr>, IpAddr) -> io::Result<IpAddr>;

fn first_ends(connection: &Connection, find: Find<'_>) -> Result<(IpAddr, IpAddr), String> {
    let (ours, mut why) = (&connection.local, None);
    for peer in connection.remote.addresses() {
        let written: Vec<_> = ours.addresses().filter(|ip| ip.is_ipv4() == peer.is_ipv4()).collect();
        if let Some(local) = written.iter().copied().find(|ip| find(Some(*ip), peer).is_ok()) {
            return Ok((local, peer));
        }
        let problem = match find(None, peer) {
            Ok(source) if ours.fits(source).is_some() => return Ok((source, peer)),
            Ok(source) => format!("local_addrs does not have {source}, from which packets leave to {peer}"),
            Err(e) => format!("there is no route to {peer}: {e}"),
        };
        why.get_or_insert(problem);
        // It may come to be here.
        if let Some(local) = written.first() {
            return Ok((*local, peer));
        }
    }
    Err(why.unwrap_or_else(|| "remote_addrs has no address to begin with".to_owned()))
}

/// Where an IKE SA is, and where it could be.
struct Place<'a> {
    between: (IpAddr, IpAddr),
    ours: &'a Hosts,
    theirs: &'a Hosts,
    /// Where the peer says to be besides.
    further: &'a [IpAddr],
    follows_routes: bool,
}

impl Place<'_> {
    /// Where it is to go, if it is.
    fn better(
        &self,
        find: &mut dyn FnMut(Option<IpAddr>, IpAddr) -> Option<IpAddr>,
    ) -> Option<(IpAddr, IpAddr)> {
        let (local, peer) = self.between;
        let is_ours = |ip: &IpAddr| self.ours.fits(*ip).is_some();
        if find(Some(local), peer).is_some() {
            let may = self.follows_routes && self.ours.fits(local) != Some(Fit::Exact);
            let best = find(None, peer).filter(|best| may && *best != local && is_ours(best))?;
            return Some((best, peer));
        }
        let further = self.further.iter().filter(|ip| **ip != peer && self.theirs.fits(**ip).is_some());
        [peer].iter().chain(further).find_map(|peer| {
            let best = find(None, *peer).filter(is_ours);
            let written =
                || self.ours.addresses().find(|ip| is_like(ip, peer) && find(Some(*ip), *peer).is_some());
            Some((best.or_else(written)?, *peer))
        })
    }
}

fn is_like(one: &IpAddr, other: &IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

/// What is to be done about an IKE SA.
enum Step {
    /// It goes elsewhere.
    Go((IpAddr, IpAddr)),
    /// The peer is told where we are, from elsewhere if it has to be.
    Tell(Option<(IpAddr, IpAddr)>),
}

fn step(sa: &IkeSa, before: &[IpAddr], now: &[IpAddr], ways: &mut Ways<'_>) -> Option<Step> {
    let is_begun = *sa.phase() == Phase::Connecting && sa.role() == Role::Initiator;
    if *sa.phase() != Phase::Established && !is_begun {
        return None;
    }
    let connection = sa.connection();
    let between = (sa.path().local.ip(), sa.path().peer.ip());
    let place = Place {
        between,
        ours: &connection.local,
        theirs: &connection.remote,
        further: sa.peer_addresses(),
        follows_routes: sa.has_mobike() && sa.leads(),
    };
    match place.better(&mut |from, peer| ways.find(from, peer)) {
        Some(to) if sa.leads() => Some(Step::Go(to)),
        Some(to) if sa.has_mobike() => Some(Step::Tell(Some(to))),
        _ => {
            let is_told = before.is_empty() || !sa.has_mobike() || sa.further(before) == sa.further(now);
            (!is_told).then_some(Step::Tell(None))
        }
    }
}

impl Ike {
    /// Has IKE SAs go where they are to be, if addresses or routes are others.
    pub(super) fn follow_addresses(&mut self, sadb: &mut Sadb) {
        let Some(watch) = &mut self.watch else { return };
        if !watch.news.turn() {
            return;
        }
        let since = thread_time();
        let all = match watch.requests.addresses() {
            Ok(all) => all,
            Err(e) => return watch.news.retry(&e),
        };
        watch.news.read();
        let virtual_ips: HashSet<IpAddr> =
            self.engine.ike_sas().flat_map(|sa| sa.given().ours.iter().copied()).collect();
        let global = all.iter().filter(|address| address.is_global && !virtual_ips.contains(&address.ip));
        let mut now: Vec<IpAddr> = global.map(|address| address.ip).collect();
        now.sort_unstable();
        now.dedup();
        let before = std::mem::replace(&mut self.config.here, now.clone());
        let here = all.iter().map(|address| address.ip).collect();
        let mut ways = Ways { here: &here, virtual_ips: &virtual_ips, known: HashMap::new() };
        let steps: Vec<(IkeSaId, Step)> =
            self.engine.sas().filter_map(|sa| Some((sa.id(), step(sa, &before, &now, &mut ways)?))).collect();
        for (id, step) in steps {
            match step {
                Step::Go((local, peer)) => {
                    if let Some(sa) = self.engine.sa(id) {
                        let name = &sa.connection().name;
                        tracing::info!(
                            "connection '{name}': IKE SA {} goes to between {local} and {peer}",
                            id.0
                        );
                    }
                    self.with(sadb, |engine, cx| engine.go_between(id, (local, peer), cx));
                }
                Step::Tell(elsewhere) => _ = self.with(sadb, |engine, cx| engine.announce(id, elsewhere, cx)),
            }
        }
        self.watch.iter_mut().for_each(|watch| watch.news.rest(since));
        self.try_again();
    }
}

#[cfg(test)]
mod tests;
