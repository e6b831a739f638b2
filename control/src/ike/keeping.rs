//! IKE SAs over a restart: what is written, when, and how it goes on.
//!
//! ```text
//!  engine does ──▶ what has changed ──▶ one frame of the state file ──▶ SADB, datagrams, jobs
//! ```
//!
//! Whatever an engine does is in the file before anybody else can see it. So iked can be killed anywhere: what was not written is
//! as if it had not happened, and what was written and not done is done when it comes back (child SAs), or is as a datagram that
//! was lost. No message ID and no IV is used twice, since what was sent is never newer than what was written.
//!
//! Half-open IKE SAs are not kept: their peers begin again, and so do children with a start action.
//!
//! A connection is kept as what it was read from, as long as an IKE SA or a child is of it. So IKE SAs of connections that are
//! gone or others since are what they would be after a reload: they stay, and new ones are of the new configuration.

use super::{Ike, children::Wanted, rng, unix_secs};
use crate::{
    iked::boot_secs,
    state::{self, Kind, Record, StateError, StateFile},
    swanctl::source::Source,
};
use portcullis_ike::{
    connection::Connection,
    ike_sa::{IkeSa, IkeSaId},
    v2::{context::Context, engine::Engine, kept::Untold, output::Output},
};
use portcullis_sadb::Sadb;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// A file of fewer octets is not written anew.
const LEAST_OCTETS: u64 = 4 << 20;

/// It is, when there are so many times as many octets in it as count.
const TIMES: u64 = 3;

/// The state file, and what is in it.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    place: Option<(PathBuf, u64)>,
    file: Option<StateFile>,
    /// Octets of IKE SAs that count.
    octets: HashMap<IkeSaId, u64>,
    /// What connections were read from, by their marks.
    sources: HashMap<u64, Source>,
    /// Of which the file has some.
    written: HashSet<u64>,
    /// Child SAs that the datapath has lost, and what each was to take the place of.
    lost: Vec<(u32, Option<u32>)>,
}

impl Keeping {
    fn live(&self) -> u64 {
        self.octets.values().sum()
    }
}

/// An IKE SA as it is in a record: the numbers of its child SAs, and what the engine says.
fn packed(numbers: &[(u32, u32)], told: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut octets = Zeroizing::new(Vec::with_capacity(4 + 8 * numbers.len() + told.len()));
    octets.extend((numbers.len() as u32).to_be_bytes());
    for (spi_in, number) in numbers {
        octets.extend(spi_in.to_be_bytes());
        octets.extend(number.to_be_bytes());
    }
    octets.extend(told);
    octets
}

/// Child SAs by our SPIs, each with its number.
type Numbers = Vec<(u32, u32)>;

fn unpacked(octets: &[u8]) -> Option<(Numbers, &[u8])> {
    let (count, mut rest) = octets.split_first_chunk::<4>()?;
    let mut numbers = vec![];
    for _ in 0..u32::from_be_bytes(*count) {
        let (one, behind) = rest.split_first_chunk::<8>()?;
        let (spi_in, number) = one.split_first_chunk::<4>()?;
        numbers.push((u32::from_be_bytes(*spi_in), u32::from_be_bytes(number.try_into().ok()?)));
        rest = behind;
    }
    Some((numbers, rest))
}

/// The marks of all that an IKE SA is of.
fn marks(sa: &dyn IkeSa) -> impl Iterator<Item = u64> + use<'_> {
    [sa.connection().mark].into_iter().chain(sa.children().iter().map(|child| child.config.mark))
}

impl Ike {
    /// Takes up the IKE SAs that a predecessor had, and keeps all from now on: to be called before anything is done to the SADB.
    /// They do nothing before [`Ike::resume`].
    pub fn take_up(&mut self, directory: &Path, sadb: &mut Sadb) {
        let instance = sadb.runtime().instance();
        self.keeping.place = Some((directory.to_owned(), instance));
        let records = state::read(directory, instance).unwrap_or_else(|error| {
            tracing::warn!("no IKE SA from before goes on: {error}");
            None
        });
        self.restore(records.unwrap_or_default(), sadb);
        self.lay_traps(sadb);
        self.hold_traps(sadb);
        self.engine.tell_changes();
        self.write_anew();
    }

    /// Makes a connection of what it was read from.
    fn read_again(&mut self, source: &Source) -> Option<Arc<Connection>> {
        let read = source.read().ok_or_else(|| "it cannot be read".to_owned());
        let made = read.and_then(|connection| {
            self.edition += 1;
            let made = self.made(&connection, self.edition);
            made.map_err(|e| e.to_string())
        });
        let unusable =
            |why: &String| tracing::warn!("a connection from before cannot be used any more: {why}");
        made.inspect_err(unusable).ok().map(Arc::new)
    }

    fn restore(&mut self, records: Vec<Record>, sadb: &mut Sadb) {
        // Of what is configured now, the first of its name and content.
        let configured = self.config.connections.iter().rev();
        let mut before: HashMap<u64, Arc<Connection>> = configured.map(|c| (c.mark, c.clone())).collect();
        let (mut untold, mut numbers, mut gone) = (Untold::default(), HashMap::new(), 0);
        let (mut out, config, now_ms) = (VecDeque::new(), self.config.clone(), self.now_ms());
        for Record { kind, name, octets } in records {
            let Some(octets) = octets else { continue };
            if kind == Kind::Connection {
                let source = Source::from(&octets[..]);
                let known = before.get(&name).cloned().or_else(|| self.read_again(&source));
                before.extend(known.map(|connection| (name, connection)));
                self.keeping.sources.insert(name, source);
                continue;
            }
            let mut cx = Context {
                now_ms,
                unix_secs: unix_secs(),
                rng: &mut rng(),
                config: &config,
                child_spi: &mut || None,
                child_room: &mut |_| false,
                out: &mut out,
            };
            let restored = unpacked(&octets).map(|(of, told)| {
                let restored = self.engine.restore(told, &|mark| before.get(&mark).cloned(), &mut cx);
                restored.map(|restored| (of, restored))
            });
            match restored {
                Some(Ok((of, (_, more)))) => {
                    numbers.extend(of);
                    untold.installs.extend(more.installs);
                    untold.moves.extend(more.moves);
                }
                Some(Err(error)) => {
                    tracing::warn!("IKE SA {name} does not go on: {error}");
                    gone += 1;
                }
                None => gone += 1,
            }
        }
        let unknown = self.engine.unknown_children();
        let wanted: Vec<_> = self
            .engine
            .ike_sas()
            .flat_map(|sa| sa.children().iter().map(|child| (&sa.connection().name, child)))
            .map(|(connection, sa)| Wanted {
                connection,
                sa,
                number: numbers.get(&sa.spi_in).copied(),
                is_known: !unknown.contains(&sa.spi_in),
            })
            .collect();
        let (sas, children) = (self.engine.ike_sas().count(), wanted.len());
        for Wanted { sa, .. } in &wanted {
            self.idle.begin(sa.spi_in, sa.config.handling.lifetime.idle_secs, now_ms);
        }
        let lost = self.children.adopt(sadb, &wanted, &untold, boot_secs());
        let replaced = |spi: u32| untold.installs.iter().find(|install| install.sa.spi_in == spi)?.replaces;
        self.keeping.lost = lost.into_iter().map(|spi| (spi, replaced(spi))).collect();
        if sas > 0 || gone > 0 {
            let lost = self.keeping.lost.len();
            tracing::info!("{sas} IKE SAs with {children} child SAs go on; lost: {gone} and {lost}");
        }
    }

    /// The IKE SAs that were taken up go on.
    pub fn resume(&mut self, sadb: &mut Sadb) {
        self.with(sadb, Engine::resume);
        for (spi, replaces) in std::mem::take(&mut self.keeping.lost) {
            self.with(sadb, |engine, cx| engine.withdraw_child(spi, replaces, cx));
        }
    }

    /// What connections are read from is needed as long as IKE SAs are of them.
    fn source(&self, mark: u64) -> Option<&Source> {
        let configured = || self.swanctl.connections.iter().map(|c| &c.source).find(|s| s.mark() == mark);
        self.keeping.sources.get(&mark).or_else(configured)
    }

    /// Remembers what a connection was read from that may go.
    pub(super) fn note_source(&mut self, source: &Source) {
        if self.keeping.place.is_some() {
            self.keeping.sources.insert(source.mark(), source.clone());
        }
    }

    fn record(&self, id: IkeSaId, out: &VecDeque<Output>) -> Option<Record> {
        let told = self.engine.keep(id, out)?;
        let children = self.engine.ike_sa(id)?.children();
        let numbers: Vec<_> =
            children.iter().filter_map(|child| Some((child.spi_in, self.child_id(child.spi_in)?))).collect();
        let octets = packed(&numbers, &told);
        Some(Record { kind: Kind::IkeSa, name: id.0, octets: Some(octets) })
    }

    /// Writes what has changed, before what comes of it is done.
    pub(super) fn keep(&mut self, out: &VecDeque<Output>) {
        let changed = self.engine.take_changed();
        if changed.is_empty() || self.keeping.file.is_none() {
            return;
        }
        let mut records = vec![];
        for id in changed {
            match self.record(id, out) {
                Some(record) => {
                    let all: Vec<_> = self.engine.ike_sa(id).into_iter().flat_map(marks).collect();
                    for mark in all {
                        if self.keeping.written.insert(mark) {
                            records.extend(self.connection_record(mark));
                        }
                    }
                    let octets = record.octets.as_ref().map_or(0, |octets| octets.len() as u64);
                    self.keeping.octets.insert(id, octets);
                    records.push(record);
                }
                None if self.keeping.octets.remove(&id).is_some() => {
                    records.push(Record { kind: Kind::IkeSa, name: id.0, octets: None });
                }
                None => {}
            }
        }
        let written = self.keeping.file.as_mut().map(|file| file.append(&records));
        if let Some(Err(error)) = written {
            self.stop_keeping(&error);
        }
    }

    fn connection_record(&self, mark: u64) -> Option<Record> {
        let octets = Zeroizing::new(self.source(mark)?.octets().to_vec());
        Some(Record { kind: Kind::Connection, name: mark, octets: Some(octets) })
    }

    /// Writes another file when there is much more in this one than counts.
    pub(super) fn tidy(&mut self) {
        let octets = self.keeping.file.as_ref().map_or(0, StateFile::octets);
        if octets > LEAST_OCTETS && octets > TIMES * self.keeping.live() {
            self.write_anew();
        }
    }

    /// Writes all that counts into another file.
    fn write_anew(&mut self) {
        let Some((directory, instance)) = self.keeping.place.clone() else { return };
        let used: HashSet<u64> = self.engine.ike_sas().flat_map(marks).collect();
        self.keeping.sources.retain(|mark, _| used.contains(mark));
        let mut records: Vec<_> = used.iter().filter_map(|mark| self.connection_record(*mark)).collect();
        let nothing = VecDeque::new();
        let sas: Vec<_> = self.ids().into_iter().filter_map(|id| self.record(id, &nothing)).collect();
        self.keeping.octets = sas
            .iter()
            .map(|record| (IkeSaId(record.name), record.octets.as_ref().map_or(0, |o| o.len() as u64)))
            .collect();
        records.extend(sas);
        // All that has changed is in it.
        self.engine.take_changed();
        self.keeping.written = used;
        match StateFile::create(&directory, instance, &records) {
            Ok(file) => self.keeping.file = Some(file),
            Err(error) => self.stop_keeping(&error),
        }
    }

    /// What is in the file is too old from now on: it goes.
    fn stop_keeping(&mut self, error: &StateError) {
        tracing::warn!("IKE SAs end with this process: {error}");
        self.keeping.file = None;
        let Some((directory, _)) = self.keeping.place.take() else { return };
        if let Err(error) = state::forget(&directory) {
            tracing::error!("{error}; remove it before iked is started again");
        }
    }
}

#[cfg(test)]
mod tests;
