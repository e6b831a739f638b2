//! Names of hosts in `local_addrs` and `remote_addrs`, as the system looks them up: in the DNS, or in `/etc/hosts`.
//!
//! That takes long at times, so threads do it and nobody waits for them but who is to begin with such a host. What a name has is
//! looked up when it is loaded, when a connection is begun, and now and then, since who answers is to know its peer, too.
//! What it had last stays, if it cannot be looked up. Where a gateway sends us (RFC 5685) is looked up once, for who is sent.

use super::{Ike, Unusable, configured};
use crate::swanctl::connection::{self as written, Host};
use portcullis_ike::{
    child::Wanted,
    connection as ike,
    ike_sa::IkeSaId,
    v2::{job::Outcome, output::JobId},
};
use portcullis_sadb::Sadb;
use rustix::event::{EventfdFlags, eventfd};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    net::{IpAddr, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// What was looked up counts for so long where a connection is begun.
const FRESH_MS: u64 = 5_000;

/// It is looked up again after so long, and after less if it could not be.
const AGAIN_MS: u64 = 60_000;
const FAILED_AGAIN_MS: u64 = 10_000;

/// Names that are looked up at a time, at most.
const AT_A_TIME: usize = 8;

/// What a name was found to have, or why nothing.
type Found = Result<Vec<IpAddr>, String>;

/// The names that there are.
#[derive(Debug)]
pub(super) struct Names {
    known: BTreeMap<String, Name>,
    once: Once,
    sender: Sender<(Whose, Found)>,
    receiver: Receiver<(Whose, Found)>,
    /// Rings when something is found.
    bell: Arc<OwnedFd>,
    look_up: fn(&str) -> Found,
}

/// Whose name is looked up.
#[derive(Debug)]
enum Whose {
    /// A name that is known.
    Known(String),
    /// A job's.
    Job(JobId),
}

/// What is looked up once.
#[derive(Debug, Default)]
struct Once {
    waiting: VecDeque<(JobId, String)>,
    /// How many are being looked up.
    asked: usize,
    found: Vec<(JobId, Vec<IpAddr>)>,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<IpAddr>,
    problem: Option<String>,
    is_asked: bool,
    /// When it was last looked up.
    found_ms: Option<u64>,
    due_ms: u64,
}

impl Names {
    /// Without any. `look_up` takes as long as it takes.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(look_up: fn(&str) -> Found) -> io::Result<Names> {
        let (sender, receiver) = channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        Ok(Names { known: BTreeMap::new(), once: Once::default(), sender, receiver, bell, look_up })
    }

    /// There are these, and no others.
    pub fn want(&mut self, names: &BTreeSet<&str>) {
        self.known.retain(|name, _| names.contains(&**name));
        for name in names {
            self.known.entry((*name).to_owned()).or_default();
        }
    }

    /// Whether a name is still to be looked up for the first time.
    pub fn is_unknown(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|name| name.found_ms.is_none())
    }

    /// What is to be waited for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// When something is to be done.
    pub fn due_ms(&self) -> Option<u64> {
        let is_busy = self.asked() >= AT_A_TIME;
        let waiting = self.known.values().filter(|name| !name.is_asked && !is_busy);
        waiting.map(|name| name.due_ms).min()
    }

    fn asked(&self) -> usize {
        self.known.values().filter(|name| name.is_asked).count()
    }

    /// Takes what was found, and looks up what is due. The names that have others now, or were looked up for the first time.
    pub fn turn(&mut self, now_ms: u64) -> BTreeSet<String> {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        let mut changed = BTreeSet::new();
        while let Ok((whose, found)) = self.receiver.try_recv() {
            let name = match whose {
                Whose::Known(name) => name,
                Whose::Job(job) => {
                    self.once.asked -= 1;
                    self.once.found.push((job, found.unwrap_or_default()));
                    continue;
                }
            };
            let Some(known) = self.known.get_mut(&name) else { continue };
            known.is_asked = false;
            if known.found_ms.replace(now_ms).is_none() {
                changed.insert(name.clone());
            }
            match found {
                Ok(addresses) => {
                    known.problem = None;
                    known.due_ms = now_ms + AGAIN_MS;
                    // Who answers has them in another order each time, so that not all go to the same.
                    if !is_same(&known.addresses, &addresses) {
                        known.addresses = addresses;
                        changed.insert(name);
                    }
                }
                Err(why) => {
                    if known.problem.as_ref() != Some(&why) {
                        tracing::warn!("{name} is not found: {why}");
                    }
                    known.problem = Some(why);
                    known.due_ms = now_ms + FAILED_AGAIN_MS;
                }
            }
        }
        let free = AT_A_TIME - self.asked().min(AT_A_TIME);
        let due = self.known.iter().filter(|(_, name)| !name.is_asked && name.due_ms <= now_ms);
        for name in due.take(free).map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let begun = self.begin(Whose::Known(name.clone()), name.clone());
            let Some(known) = self.known.get_mut(&name) else { continue };
            match begun {
                Ok(()) => known.is_asked = true,
                Err(e) => {
                    (known.problem, known.due_ms) = (Some(e.to_string()), now_ms + FAILED_AGAIN_MS);
                    known.found_ms = Some(now_ms);
                }
            }
        }
        changed
    }

    /// A thread looks a name up.
    fn begin(&self, whose: Whose, name: String) -> io::Result<()> {
        let (sender, bell, look_up) = (self.sender.clone(), self.bell.clone(), self.look_up);
        let look_up = move || {
            let found = look_up(&name);
            if sender.send((whose, found)).is_ok() {
                let _ = rustix::io::write(&*bell, &1u64.to_ne_bytes());
            }
        };
        thread::Builder::new().name("ike-name".to_owned()).spawn(look_up).map(|_| ())
    }

    /// Has a name looked up once, when others are.
    pub fn look_up_for(&mut self, job: JobId, name: String) {
        self.once.waiting.push_back((job, name));
        self.begin_waiting();
    }

    /// Those are looked up that wait, as many at a time as of those that are known.
    fn begin_waiting(&mut self) {
        while self.once.asked < AT_A_TIME {
            let Some((job, name)) = self.once.waiting.pop_front() else { return };
            match self.begin(Whose::Job(job), name) {
                Ok(()) => self.once.asked += 1,
                Err(_) => {
                    self.once.found.push((job, vec![]));
                    let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
                }
            }
        }
    }

    /// What was found for jobs; nothing is if a name is not found.
    pub fn take_found(&mut self) -> Vec<(JobId, Vec<IpAddr>)> {
        self.begin_waiting();
        std::mem::take(&mut self.once.found)
    }

    /// What a name has, as far as is known.
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.known.get(name).map(|name| name.addresses.clone()).unwrap_or_default()
    }

    /// Has a name looked up now, unless it just was. False if that is done, one way or the other.
    pub fn ask(&mut self, name: &str, now_ms: u64) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        let is_fresh = known.found_ms.is_some_and(|found_ms| now_ms < found_ms + FRESH_MS);
        if !is_fresh && !known.is_asked {
            known.due_ms = now_ms;
        }
        !is_fresh
    }

    /// What is wrong with a name.
    pub fn problem(&self, name: &str) -> Option<&str> {
        self.known.get(name)?.problem.as_deref()
    }
}

/// Whether two have the same addresses, in whatever order.
fn is_same(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|address| other.contains(address))
}

/// By the system's resolver.
pub(super) fn look_up(name: &str) -> Found {
    let found = (name, 0).to_socket_addrs().map_err(|e| e.to_string())?;
    let mut all: Vec<IpAddr> = vec![];
    for address in found.map(|address| address.ip()) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    if all.is_empty() { Err("it has no address".to_owned()) } else { Ok(all) }
}

fn names(hosts: &[Host]) -> impl Iterator<Item = &str> {
    hosts.iter().filter_map(|host| match host {
        Host::Name(name) => Some(&**name),
        _ => None,
    })
}

/// The names of a connection.
pub(super) fn names_of(connection: &written::Connection) -> impl Iterator<Item = &str> {
    names(&connection.local_addrs).chain(names(&connection.remote_addrs))
}

/// Gives connections that have names that have changed their addresses, and no others. Returns those.
fn relocate(
    connections: &mut [Arc<ike::Connection>],
    written: &[written::Connection],
    changed: &BTreeSet<String>,
    names: &Names,
) -> Vec<Arc<ike::Connection>> {
    let has_one = |c: &&written::Connection| names_of(c).any(|name| changed.contains(name));
    let written: HashMap<_, _> = written.iter().filter(has_one).map(|c| (&*c.name, c)).collect();
    let named = |name: &str| names.addresses(name);
    let mut relocated = vec![];
    for connection in connections {
        let Some(written) = written.get(&*connection.name) else { continue };
        let there = Arc::make_mut(connection);
        there.local = configured::hosts(&written.local_addrs, &named);
        there.remote = configured::hosts(&written.remote_addrs, &named);
        relocated.push(connection.clone());
    }
    relocated
}

/// A connection that is to be begun, when its names are looked up.
#[derive(Debug)]
pub(super) struct Waiting {
    pub id: IkeSaId,
    pub connection: String,
    pub child: Option<Wanted>,
    /// It is to be up without anybody asking: what cannot be begun is tried again.
    pub is_to_be_up: bool,
    /// When that is; 0 is as soon as names are looked up.
    pub again_ms: u64,
}

impl Waiting {
    /// Whether it is for this child, by its name.
    pub fn is_for(&self, connection: &str, child: &Option<Wanted>) -> bool {
        let name = |child: &Option<Wanted>| child.as_ref().map(|child| child.config.name.clone());
        self.connection == connection && name(&self.child) == name(child)
    }

    /// What is tried again is of the child as it is configured now. False if there is none any more.
    fn is_there(&mut self, connection: &ike::Connection) -> bool {
        let Some(wanted) = self.child.as_mut().filter(|_| self.is_to_be_up) else { return true };
        let now = connection.children.iter().find(|child| child.name == wanted.config.name);
        now.inspect(|now| wanted.config = (*now).clone()).is_some()
    }
}

/// How long it takes until a child that is to be up is tried again, if nothing is heard of addresses and routes before.
const TRY_AGAIN_MS: u64 = 10_000;

impl Ike {
    /// A connection as the engine takes it, with what is not written in it.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub(super) fn made(
        &self,
        written: &written::Connection,
        edition: u64,
    ) -> Result<ike::Connection, Unusable> {
        let made = configured::connection(written, &self.credentials, edition)?;
        let named = |name: &str| self.names.addresses(name);
        Ok(ike::Connection {
            local: configured::hosts(&written.local_addrs, &named),
            remote: configured::hosts(&written.remote_addrs, &named),
            retransmission: self.retransmission,
            ..made
        })
    }

    /// Connections have names, or no more.
    pub(super) fn note_names(&mut self) {
        let all = self.swanctl.connections.iter().flat_map(names_of).collect();
        self.names.want(&all);
    }

    /// Takes what was looked up, and begins what has waited for it.
    pub(super) fn turn_names(&mut self, sadb: &mut Sadb) {
        // Also where there are none: one that is gone may still have been looked up, and rings until it is heard.
        let changed = self.names.turn(self.now_ms());
        if !changed.is_empty() {
            self.follow_names(&changed);
            self.note_connections();
        }
        for (job, addresses) in self.names.take_found() {
            self.with(sadb, |engine, cx| engine.done(job, Outcome::LookedUp(addresses), cx));
        }
        let now_ms = self.now_ms();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match self.config.connection(&waiting.connection).cloned() {
                Some(_) if now_ms < waiting.again_ms => self.waiting.push(waiting),
                Some(connection) if !waiting.is_there(&connection) || self.is_up(&waiting) => {}
                Some(connection) if self.waits_for_names(&connection.name) => {
                    self.waiting.push(Waiting { again_ms: 0, ..waiting });
                }
                Some(connection) => self.begin_named(&connection, waiting, sadb),
                None => self.tell_not_begun(&waiting, "it is not configured any more"),
            }
        }
    }

    /// Gives connections that have these names their addresses, and IKE SAs that are of them.
    fn follow_names(&mut self, changed: &BTreeSet<String>) {
        let written = &self.swanctl.connections;
        let relocated = relocate(&mut self.config.connections, written, changed, &self.names);
        self.engine.follow_connections(&relocated);
    }

    /// Has the names of a connection looked up, if they were not just now. False if all are.
    pub(super) fn waits_for_names(&mut self, connection: &str) -> bool {
        let now_ms = self.now_ms();
        let Some(written) = self.swanctl.connections.iter().find(|c| c.name == connection) else {
            return false;
        };
        names_of(written).fold(false, |waits, name| self.names.ask(name, now_ms) | waits)
    }

    /// Begins a child that is to be up without anybody asking; what cannot be begun is tried again.
    pub(super) fn start(&mut self, connection: &str, child: &str, sadb: &mut Sadb) {
        let begun = self.initiate(Some(connection), Some(child), sadb);
        let configured = self.config.connection(connection);
        let configured = configured.and_then(|c| c.children.iter().find(|config| config.name == child));
        let wanted = configured.map(Wanted::from);
        match begun {
            Ok(_) => {
                let waiting = self.waiting.iter_mut().filter(|waiting| waiting.is_for(connection, &wanted));
                waiting.for_each(|waiting| waiting.is_to_be_up = true);
            }
            Err(why) => {
                tracing::error!("connection '{connection}': '{child}' is not begun: {why}");
                let is_known = self.waiting.iter().any(|waiting| waiting.is_for(connection, &wanted));
                if wanted.is_some() && !is_known {
                    let (id, again_ms) = (self.engine.reserve(), self.now_ms() + TRY_AGAIN_MS);
                    let connection = connection.to_owned();
                    self.waiting.push(Waiting { id, connection, child: wanted, is_to_be_up: true, again_ms });
                }
            }
        }
    }

    /// Whether what is to be up is, by the peer.
    fn is_up(&self, waiting: &Waiting) -> bool {
        let Some(wanted) = waiting.child.as_ref().filter(|_| waiting.is_to_be_up) else { return false };
        let of_connection = self.engine.ike_sas().filter(|sa| sa.connection().name == waiting.connection);
        of_connection.flat_map(|sa| sa.children()).any(|up| up.config.name == wanted.config.name)
    }

    /// What could not be begun is tried again at once.
    pub(super) fn try_again(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.again_ms = 0);
    }

    fn begin_named(&mut self, connection: &Arc<ike::Connection>, mut waiting: Waiting, sadb: &mut Sadb) {
        if self.begin_under(connection, waiting.child.as_ref(), sadb).is_some() {
            return;
        }
        match self.ends(connection) {
            Ok(between) => self.begin_between(waiting.id, connection, waiting.child, between, sadb),
            Err(why) if waiting.is_to_be_up => {
                // Whoever waits for it hears of the first time.
                if waiting.again_ms == 0 {
                    self.tell_not_begun(&waiting, &why);
                    waiting.id = self.engine.reserve();
                }
                waiting.again_ms = self.now_ms() + TRY_AGAIN_MS;
                self.waiting.push(waiting);
            }
            Err(why) => self.tell_not_begun(&waiting, &why),
        }
    }

    /// Addresses to begin a connection between.
    ///
    /// # Errors
    /// Why there are none, for people: with the name of the key.
    pub(super) fn ends(&self, connection: &ike::Connection) -> Result<(IpAddr, IpAddr), String> {
        super::paths::ends(connection).map_err(|why| {
            let of = &connection.name;
            let written = self.swanctl.connections.iter().find(|c| c.name == *of);
            let keys = written.map(|c| [("remote_addrs", &c.remote_addrs), ("local_addrs", &c.local_addrs)]);
            let problem = keys.into_iter().flatten().find_map(|(key, hosts)| {
                names(hosts).find_map(|name| {
                    let problem = self.names.problem(name)?;
                    Some(format!("{key} of connection '{of}': {name} is not found: {problem}"))
                })
            });
            problem.unwrap_or(why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Found {
        match name {
            "gw.example.org" => Ok(vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]),
            _ => Err("no such host".to_owned()),
        }
    }

    /// Until it has found what it is asked. Whether anything has changed.
    fn turn(names: &mut Names, now_ms: u64) -> bool {
        let mut changed = names.turn(now_ms);
        while names.asked() > 0 {
            thread::sleep(std::time::Duration::from_millis(1));
            changed.extend(names.turn(now_ms));
        }
        !changed.is_empty()
    }

    #[test]
    fn a_name_is_looked_up_at_once_and_now_and_then() {
        let mut names = Names::new(found).unwrap();
        names.want(&BTreeSet::from(["nobody.example.org"]));
        assert!(turn(&mut names, 1000), "it is known that it has nothing");
        names.want(&BTreeSet::from(["gw.example.org", "nobody.example.org"]));
        assert!(names.ask("gw.example.org", 1000), "it is not known yet");
        assert!(turn(&mut names, 1000));
        assert_eq!(names.addresses("gw.example.org").len(), 2);
        assert_eq!(names.problem("gw.example.org"), None);
        assert_eq!(names.problem("nobody.example.org"), Some("no such host"));
        assert!(!names.ask("gw.example.org", 1000 + FRESH_MS - 1));
        assert_eq!(names.due_ms(), Some(1000 + FAILED_AGAIN_MS));
        // It is looked up again where a connection is begun; what it has is the same.
        assert!(names.ask("gw.example.org", 1000 + FRESH_MS));
        assert!(!turn(&mut names, 1000 + FRESH_MS));
        assert!(!names.ask("gw.example.org", 1000 + FRESH_MS));
        assert_eq!(names.due_ms(), Some(1000 + FAILED_AGAIN_MS));
        assert!(!turn(&mut names, 1000 + FAILED_AGAIN_MS), "it is known that it has nothing");
        names.want(&BTreeSet::from(["gw.example.org"]));
        assert_eq!(names.due_ms(), Some(1000 + FRESH_MS + AGAIN_MS));
        assert!(names.addresses("nobody.example.org").is_empty());
    }

    // As a gateway that sends peers to others may have it: many at a time, and none of them known.
    #[test]
    fn what_is_looked_up_once_is_found_for_who_asks() {
        let mut names = Names::new(found).unwrap();
        let job = |n| JobId { ike_sa: IkeSaId(n), answers: false };
        let asked = 3 * AT_A_TIME as u64;
        for n in 0..asked {
            let name = if n % 2 == 0 { "gw.example.org" } else { "nobody.example.org" };
            names.look_up_for(job(n), name.to_owned());
            assert!(names.once.asked <= AT_A_TIME);
        }
        let mut all = BTreeMap::new();
        while (all.len() as u64) < asked {
            let bell = rustix::event::PollFd::from_borrowed_fd(names.fd(), rustix::event::PollFlags::IN);
            let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut [bell], Some(&limit)), Ok(1), "it rings");
            assert!(names.turn(1000).is_empty());
            all.extend(names.take_found().into_iter().map(|(job, found)| (job.ike_sa.0, found.len())));
        }
        assert!(all.iter().all(|(n, found)| *found == if n % 2 == 0 { 2 } else { 0 }), "{all:?}");
    }

    #[test]
    fn another_order_is_nothing_new() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let (one, turned) = (ips(&["192.0.2.7", "192.0.2.8"]), ips(&["192.0.2.8", "192.0.2.7"]));
        assert!(is_same(&one, &turned));
        assert!(!is_same(&one, &turned[..1]) && !is_same(&[], &one));
        assert!(!is_same(&one, &ips(&["192.0.2.7", "192.0.2.9"])));
    }

    #[test]
    fn only_connections_with_the_name_have_other_addresses() {
        let of = |name: &str, host: &str| {
            format!(
                "{name} {{ remote_addrs = {host}, 192.0.2.1\nlocal {{ auth = psk }}\nremote {{ auth = psk }} }}"
            )
        };
        let all = [of("one", "gw.example.org"), of("other", "nobody.example.org"), of("none", "192.0.2.9")];
        let text = format!("connections {{ {} }}", all.join("\n"));
        let swanctl =
            crate::swanctl::Configuration::parse(std::path::Path::new("swanctl.conf"), &text).unwrap();
        let before = configured::configuration(&swanctl, &Default::default()).unwrap().connections;
        let mut names = Names::new(found).unwrap();
        names.want(&swanctl.connections.iter().flat_map(names_of).collect());
        let mut now = before.clone();
        let mut relocate = |names: &Names, changed: &[&str]| {
            let changed = changed.iter().map(|name| (*name).to_owned()).collect();
            relocate(&mut now, &swanctl.connections, &changed, names);
            now.clone()
        };
        assert!(turn(&mut names, 1000));
        let now = relocate(&names, &["gw.example.org"]);
        assert!(Arc::ptr_eq(&now[1], &before[1]) && Arc::ptr_eq(&now[2], &before[2]));
        let gateway = IpAddr::from([192, 0, 2, 7]);
        assert!(now[0].remote.fits(gateway).is_some() && before[0].remote.fits(gateway).is_none());
        assert_eq!((now[0].mark, now[0].edition), (before[0].mark, before[0].edition));
    }

    #[test]
    fn the_system_knows_this_machine() {
        assert!(look_up("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(look_up("nobody.invalid").is_err());
    }
}
