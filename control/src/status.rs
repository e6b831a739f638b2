//! What `portcullis status` shows: iked's report, the runtime region, and what the datapath told of itself. The region
//! with the keys is never opened.
//!
//! `--json` prints a [`Status`]. Its keys are stable: some may be added, none changes its meaning. A part that cannot
//! be had is null, and says why in the key `..._error`.

mod text;

use crate::{
    client::{self, ClientError},
    iked::SOCKET_FILE,
    report::{ConnectionReport, IkeReport, InterfaceReport, PairReport, Report, SaReport, StockReport},
};
use portcullis_sadb::{
    BytesPerSa, Generation, RegionError, RuntimeReader, SaRecord, SlotIndex, WorkerRecord,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// What the datapath tells of itself, in the regions' directory.
pub const DATAPATH_FILE: &str = "datapath.json";

/// All that is known.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The control process.
    pub iked: Option<IkedStatus>,
    /// Why that is null.
    pub iked_error: Option<String>,
    /// The connections, in the order of `connections.toml`; null without iked.
    pub connections: Option<Vec<ConnectionStatus>>,
    /// IKE SAs; null without iked or a configuration of IKE.
    pub ike: Option<IkeReport>,
    /// The packet path; also of one that is gone, as it left the counters.
    pub datapath: Option<DatapathStatus>,
    /// Why that is null.
    pub datapath_error: Option<String>,
    /// The shared memory; null if there is none.
    pub regions: Option<RegionsStatus>,
}

/// The control process.
#[derive(Clone, Debug, Serialize)]
pub struct IkedStatus {
    /// Process.
    pub pid: u32,
    /// Whether the keys are kept out of swap.
    pub keys_locked: bool,
    /// SAs installed.
    pub sas: u32,
    /// Policies installed.
    pub policies: usize,
    /// Octets of its own memory that connections, SAs and policies take, beside the regions: sizes of its structures
    /// and what they have room for, without what an allocator adds.
    pub private_bytes: usize,
    /// The same per SA installed; null if there is none.
    pub bytes_per_sa: Option<usize>,
}

/// A connection.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionStatus {
    /// Its name.
    pub name: String,
    /// Whether it was not taken down.
    pub up: bool,
    /// Our outer address.
    pub local: String,
    /// The peer's outer address.
    pub remote: String,
    /// The interface whose routes are its selectors, in place of the next two; null if it has none.
    pub interface: Option<InterfaceReport>,
    /// What is behind us.
    pub local_ts: Vec<String>,
    /// What is behind the peer.
    pub remote_ts: Vec<String>,
    /// What else its packets have in common: `any`, or a protocol with ports or types of messages.
    pub next_layer: String,
    /// `esp` or `ah`.
    pub protocol: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// The transform.
    pub algorithm: String,
    /// Always `(hidden)`.
    pub key: String,
    /// The SA that we receive with.
    pub inbound: Option<SaStatus>,
    /// The SA that we send with.
    pub outbound: Option<SaStatus>,
    /// Other SAs: of classes of traffic, and those that packets asked for.
    pub pairs: Vec<PairStatus>,
    /// What SAs that packets ask for are made of; null if packets cannot ask for any.
    pub stock: Option<StockReport>,
}

/// Two SAs of a connection.
#[derive(Clone, Debug, Serialize)]
pub struct PairStatus {
    /// DSCPs of what leaves by it; none: of all.
    pub dscp: Vec<u8>,
    /// What it is for, as it goes out, if a packet asked for it and it is in use.
    pub selector: Option<String>,
    /// The SA that we receive with.
    pub inbound: Option<SaStatus>,
    /// The SA that we send with.
    pub outbound: Option<SaStatus>,
}

/// An SA and what it counted.
#[derive(Clone, Debug, Serialize)]
pub struct SaStatus {
    /// What iked knows of it.
    #[serde(flatten)]
    pub sa: SaReport,
    /// Packets that were encapsulated, or decapsulated and let in.
    pub packets: u64,
    /// Octets of these: inner packets.
    pub bytes: u64,
    /// Packets whose ICV did not verify.
    pub icv_failures: u64,
    /// Packets with a number that was received before.
    pub replay_duplicates: u64,
    /// Packets left of the window.
    pub replay_too_old: u64,
    /// Packets that came behind one with a higher number, in the window.
    pub out_of_order: u64,
    /// How far behind the highest number the latest of these came.
    pub farthest_late: u64,
    /// Decapsulated packets that were refused: padding, inner header, policy.
    pub refused: u64,
    /// Outbound: numbers up to this one may have been used.
    pub reserved_seq: u64,
    /// Inbound: the highest number received.
    pub highest_seen: u64,
}

/// The packet path.
#[derive(Clone, Debug, Serialize)]
pub struct DatapathStatus {
    /// Whether it runs.
    pub alive: bool,
    /// Whether its workers run.
    pub ready: bool,
    /// How often one was started on these regions.
    pub starts: u32,
    /// Its workers; of one that is gone, those that there were.
    pub workers: Vec<WorkerStatus>,
    /// Packets dropped by all workers, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Frames that the XDP program has steered since the datapath started, by reason.
    pub steering: BTreeMap<String, u64>,
    /// What it told when it started, if it runs: the keys of [`Told`], beside those above.
    #[serde(flatten)]
    pub told: Option<Told>,
}

/// A worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// Turns of its loop.
    pub heartbeat: u64,
    /// Microseconds of turns that found something to do. A worker that has a core for itself is full when this grows by a
    /// second each second.
    pub busy_us: u64,
    /// Frames received.
    pub rx_packets: u64,
    /// Their octets.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Their octets.
    pub tx_bytes: u64,
    /// Frames that other workers have handed over, whose SAs they are not.
    pub handed: u64,
    /// Packets dropped, for any reason.
    pub dropped: u64,
    /// Frames that the kernel dropped before the worker saw them: its receive rings were full.
    pub rx_ring_full: u64,
    /// The same: there was no chunk to put them in.
    pub rx_no_chunk: u64,
    /// The same, for other reasons.
    pub rx_dropped: u64,
    /// Descriptors that made no sense, to the kernel or to the worker.
    pub invalid_descriptors: u64,
    /// Events that iked was too slow for.
    pub events_lost: u64,
    /// Packets that asked for an SA, of which iked was not told, as there were too many.
    pub acquires_untold: u64,
}

/// What a datapath tells of itself when it starts, in `datapath.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// Process.
    pub pid: u32,
    /// Cores of the workers.
    pub cores: Vec<u32>,
    /// What does the AEAD.
    pub crypto: String,
    /// What an SA takes of the workers' own memory, in octets.
    pub bytes_per_sa: Option<WorkerBytesTold>,
    /// Whether the umem is of huge pages.
    pub huge_pages: bool,
    /// Why it is not.
    pub huge_pages_fallback: Option<String>,
    /// Why the kernel copies.
    pub copy_reason: Option<String>,
    /// Whether its view of the keys is kept out of swap.
    pub keys_locked: bool,
    /// Why it is not.
    pub keys_not_locked: Option<String>,
    /// The ports.
    pub ports: Vec<PortTold>,
    /// Names of the drop counters, in their order.
    #[serde(skip_serializing)]
    pub drop_reasons: Vec<String>,
    /// Names of the XDP program's counters, in their order.
    #[serde(skip_serializing)]
    pub steering_reasons: Vec<String>,
}

/// What an SA takes of the workers' own memory, in octets: sizes of their structures.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerBytesTold {
    /// In the worker that owns it: its state with the expanded key. Replay windows over 1024 packets take more.
    pub state: usize,
    /// In each worker, for every SA that there is room for: what finds the state.
    pub index: usize,
}

/// How a port came up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PortTold {
    /// The interface.
    pub interface: String,
    /// `driver` or `generic`.
    pub mode: String,
    /// Why it is not driver mode.
    pub mode_fallback: Option<String>,
    /// Whether the kernel does without copies.
    pub zero_copy: bool,
    /// Whether the kernel is woken only when it wants to be.
    pub need_wakeup: bool,
    /// Queues in use.
    pub queues: u32,
    /// The interface's MTU.
    pub mtu: u32,
}

/// The shared memory.
#[derive(Clone, Debug, Serialize)]
pub struct RegionsStatus {
    /// Where it is.
    pub directory: PathBuf,
    /// The number that both files share.
    pub instance: String,
    /// Room for SAs.
    pub max_sas: u32,
    /// Room for policies.
    pub max_policies: u32,
    /// Size of the region with the keys.
    pub sadb_bytes: usize,
    /// Size of the region with the counters.
    pub runtime_bytes: usize,
    /// What each SA costs in the regions.
    pub bytes_per_sa: BytesPerSaStatus,
}

/// What each SA costs in the regions, in octets.
#[derive(Clone, Debug, Serialize)]
pub struct BytesPerSaStatus {
    /// Its slot in the SAD.
    pub slot: usize,
    /// Its share of the SPI index.
    pub index: usize,
    /// Its line in the runtime region.
    pub runtime: usize,
    /// These three.
    pub total: usize,
    /// Beside them, its share of the room for policies.
    pub policies: usize,
}

impl Status {
    /// Looks at what runs over the regions in a directory.
    pub fn collect(directory: &Path) -> Status {
        let report = client::report(&directory.join(SOCKET_FILE));
        let runtime = RuntimeReader::open(directory);
        Status::of(directory, report, runtime, read_told(directory))
    }

    fn of(
        directory: &Path,
        report: Result<Report, ClientError>,
        runtime: Result<RuntimeReader, RegionError>,
        told: Option<Told>,
    ) -> Status {
        let (report, iked_error) = part(report);
        let (runtime, datapath_error) = part(runtime);
        let runtime = runtime.as_ref();
        let iked = report.as_ref().map(|r| IkedStatus {
            pid: r.pid,
            keys_locked: r.keys_locked,
            sas: r.sas,
            policies: r.policies,
            private_bytes: r.private_bytes,
            bytes_per_sa: r.private_bytes.checked_div(r.sas as usize),
        });
        let ike = report.as_ref().and_then(|r| r.ike.clone());
        let connections = report.map(|r| r.connections.into_iter().map(|c| connection(c, runtime)).collect());
        let datapath = runtime.map(|r| datapath(r, told));
        let regions = runtime.map(|r| regions(r, directory));
        Status { iked, iked_error, connections, ike, datapath, datapath_error, regions }
    }

    /// Whether a part of the gateway runs.
    pub fn is_running(&self) -> bool {
        self.iked.is_some() || self.datapath.as_ref().is_some_and(|d| d.alive)
    }
}

fn part<T, E: fmt::Display>(result: Result<T, E>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(e) => (None, Some(e.to_string())),
    }
}

/// A file that is not there or damaged is no error: it only has names and what was told at start.
fn read_told(directory: &Path) -> Option<Told> {
    let text = fs::read(directory.join(DATAPATH_FILE)).ok()?;
    serde_json::from_slice(&text).map_err(io::Error::from).ok()
}

fn connection(c: ConnectionReport, runtime: Option<&RuntimeReader>) -> ConnectionStatus {
    let count = |sa: SaReport| {
        let record = runtime.and_then(|r| r.sa(SlotIndex(sa.slot)));
        counted(record, sa)
    };
    let pair = |p: PairReport| PairStatus {
        dscp: p.dscp,
        selector: p.selector,
        inbound: p.inbound.map(count),
        outbound: p.outbound.map(count),
    };
    ConnectionStatus {
        inbound: c.inbound.map(count),
        outbound: c.outbound.map(count),
        pairs: c.pairs.into_iter().map(pair).collect(),
        stock: c.stock,
        name: c.name,
        up: c.up,
        local: c.local,
        remote: c.remote,
        interface: c.interface,
        local_ts: c.local_ts,
        remote_ts: c.remote_ts,
        next_layer: c.next_layer,
        protocol: c.protocol,
        mode: c.mode,
        algorithm: c.algorithm,
        key: c.key,
    }
}

/// One that no worker has met yet has counted nothing; a line of another generation is not about this SA.
fn counted(record: Option<SaRecord>, sa: SaReport) -> SaStatus {
    let record = record.filter(|r| r.generation == Generation(sa.generation));
    let counters = record.map(|r| r.counters).unwrap_or_default();
    SaStatus {
        sa,
        packets: counters.packets,
        bytes: counters.bytes,
        icv_failures: counters.icv_failures,
        replay_duplicates: counters.replay_duplicates,
        replay_too_old: counters.replay_too_old,
        out_of_order: counters.out_of_order,
        farthest_late: record.map_or(0, |r| r.farthest_late),
        refused: counters.refused,
        reserved_seq: record.map_or(0, |r| r.reserved_seq),
        highest_seen: record.map_or(0, |r| r.highest_seen),
    }
}

fn datapath(runtime: &RuntimeReader, told: Option<Told>) -> DatapathStatus {
    let (alive, ready) = (runtime.datapath_alive(), runtime.workers());
    let names = told.as_ref().map(|t| t.drop_reasons.clone()).unwrap_or_default();
    // The file outlives a datapath that was killed; what it says of names is true still, of ports it is not.
    let told = told.filter(|t| alive && t.pid == runtime.datapath_pid());
    let mut drops: BTreeMap<String, u64> = names.iter().map(|name| (name.clone(), 0)).collect();
    let counted = told.as_ref().map(|t| t.steering_reasons.clone()).unwrap_or_default();
    let steering = counted.into_iter().zip(runtime.steering()).collect();
    let mut workers = vec![];
    for (w, record) in (0..).map_while(|w| Some((w, runtime.worker(w)?))) {
        for (i, n) in record.drops.iter().enumerate().filter(|(_, n)| **n != 0) {
            let name = names.get(i).cloned().unwrap_or_else(|| format!("reason_{i}"));
            *drops.entry(name).or_default() += n;
        }
        if w < ready as usize || !alive && record.heartbeat != 0 {
            workers.push(worker(w, &record));
        }
    }
    DatapathStatus {
        alive,
        ready: ready > 0,
        starts: runtime.datapath_starts(),
        workers,
        drops,
        steering,
        told,
    }
}

fn worker(worker: usize, record: &WorkerRecord) -> WorkerStatus {
    let t = record.traffic;
    WorkerStatus {
        worker,
        heartbeat: record.heartbeat,
        busy_us: record.busy.as_micros() as u64,
        rx_packets: t.rx_packets,
        rx_bytes: t.rx_bytes,
        tx_packets: t.tx_packets,
        tx_bytes: t.tx_bytes,
        handed: t.handed,
        dropped: record.drops.iter().sum(),
        rx_ring_full: record.ports.rx_ring_full,
        rx_no_chunk: record.ports.rx_no_chunk,
        rx_dropped: record.ports.rx_dropped,
        invalid_descriptors: record.ports.invalid,
        events_lost: record.events_lost,
        acquires_untold: record.acquires_untold,
    }
}

fn regions(runtime: &RuntimeReader, directory: &Path) -> RegionsStatus {
    let sizes = runtime.sizes();
    let BytesPerSa { slot, index, runtime: line, policies } = sizes.bytes_per_sa();
    RegionsStatus {
        directory: directory.to_owned(),
        instance: format!("{:016x}", runtime.instance()),
        max_sas: sizes.max_sas,
        max_policies: sizes.max_policies,
        sadb_bytes: sizes.sadb_bytes(),
        runtime_bytes: sizes.runtime_bytes(),
        bytes_per_sa: BytesPerSaStatus { slot, index, runtime: line, total: slot + index + line, policies },
    }
}

/// For people.
#[cfg(test)]
mod tests;
