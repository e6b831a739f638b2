//! What one of several boxes takes of each of its resources.

use super::{
    model::Estimate,
    packet::Lengths,
    profile::{IkeCost, Profile, Way},
    question::{Pcie, Question, QuestionError},
    shares::Shares,
};
use portcullis_sadb::{Algorithm, MAX_SAS, MAX_WORKERS};
use serde::Serialize;

/// Octets of a packet of PCIe that carries data (PCI Express Base Specification 3.0 §2.2.1, §3.5, §4.2): the header with an
/// address of 64 bits, framing, sequence number, and LCRC.
const TLP: u32 = 16 + 4 + 4;

/// Octets of data that a packet of PCIe carries at most, as NICs are commonly set up.
const TLP_DATA: u32 = 256;

/// Octets of descriptors that go with a frame each way, in a packet of PCIe of their own.
const DESCRIPTORS: u32 = 32;

/// A tunnel's SAs: one each way.
const SAS: u32 = 2;

/// A resource of a box.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Resource {
    /// What.
    pub name: &'static str,
    /// In what it is counted.
    pub unit: &'static str,
    /// What is taken.
    pub demand: f64,
    /// What there is; none if that is not known.
    pub capacity: Option<f64>,
    /// The part of what there is that is taken.
    pub utilisation: Option<f64>,
}

impl Resource {
    fn new(name: &'static str, unit: &'static str, demand: f64, capacity: Option<f64>) -> Resource {
        Resource { name, unit, demand, capacity, utilisation: capacity.map(|c| demand / c) }
    }
}

/// What a box has to do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Task {
    /// Packets per second, each way.
    pub packets_per_sec: f64,
    /// Tunnels.
    pub tunnels: u32,
    /// Tunnels set up per second.
    pub new_tunnels: f64,
}

/// What a box takes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Load {
    /// Workers: a core, and a queue of each port, for each.
    pub workers: u32,
    /// Cores for iked, the kernel and all else.
    pub other_cores: u32,
    /// Ports on each side, the clear one and ESP's; none if their speed is not known.
    pub ports: Option<u32>,
    /// Worker cores that are busy all the time.
    pub busy_workers: Estimate,
    /// All resources.
    pub resources: Vec<Resource>,
    /// Whether none is used more than it may be.
    pub fits: bool,
}

impl Load {
    /// The resource that is used most, of those whose capacity is known.
    pub fn binding(&self) -> &Resource {
        let used = |r: &&Resource| r.utilisation.unwrap_or(-1.0);
        let most = self.resources.iter().max_by(|a, b| used(a).total_cmp(&used(b)));
        most.expect("each box has workers")
    }
}

/// A question with what of its answers depends neither on how many boxes there are nor on what each has to do.
pub struct Boxes<'a> {
    question: &'a Question,
    profile: &'a Profile,
    port: &'a str,
    ike: Option<&'a IkeCost>,
    lengths: Lengths,
    /// Octets over PCIe for a frame of inner packets, and of outer ones.
    over_pcie: (f64, f64),
}

impl<'a> Boxes<'a> {
    /// Those of a question, if the profile can say what they take.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub fn new(question: &'a Question, profile: &'a Profile) -> Result<Boxes<'a>, QuestionError> {
        question.check(profile)?;
        let needs_ike = question.new_tunnels > 0.0 || question.rekey_secs.is_some();
        let ike = needs_ike.then(|| question.ike(profile)).transpose()?;
        let (sizes, tunnel) = (question.sizes.shares(), question.tunnel);
        let inner = sizes.mean(|octets| over_pcie(*octets));
        let outer = |a: &Algorithm| sizes.mean(|octets| over_pcie(tunnel.outer_len(*a, *octets)));
        let over_pcie = (inner, question.algorithms.mean(outer));
        let port = question.port(profile)?;
        Ok(Boxes { question, profile, port, ike, lengths: question.lengths(), over_pcie })
    }

    /// Octets of packets.
    pub fn lengths(&self) -> Lengths {
        self.lengths
    }

    /// The kind of ports.
    pub fn port(&self) -> &'a str {
        self.port
    }

    /// All SAs of so many tunnels that there are at once.
    fn sas(&self, tunnels: u32) -> f64 {
        // While an SA is rekeyed its successor is there, too, and at worst all are rekeyed at once.
        let rekeyed = if self.question.rekey_secs.is_some() { 2.0 } else { 1.0 };
        f64::from(SAS * tunnels) * rekeyed
    }

    /// Clocks of so many workers together for a packet each way, and what of that is a guess.
    fn clocks(&self, tunnels: u32, workers: u32) -> (Estimate, Vec<String>) {
        let mut guesses = vec![];
        let mut sum = Estimate::default();
        for way in &self.question.ways {
            let (clocks, beyond) = self.clocks_of(*way, &self.question.algorithms, tunnels, workers);
            sum = sum.plus(clocks);
            guesses.extend(beyond);
        }
        guesses.sort();
        guesses.dedup();
        (sum, guesses)
    }

    /// The same in one direction.
    pub fn clocks_of(
        &self,
        way: Way,
        algorithms: &Shares<Algorithm>,
        tunnels: u32,
        workers: u32,
    ) -> (Estimate, Vec<String>) {
        // All SAs whose packets a worker sees are in the same caches.
        let sas = self.question.ways.len() as u32 * tunnels;
        let (mut sum, mut guesses) = (Estimate::default(), vec![]);
        for (algorithm, share) in algorithms.iter() {
            let path = (algorithm.name(), way);
            let known = self.profile.predict(path, &self.question.sizes, (sas, workers), self.port);
            let (clocks, beyond) = known.expect("the question was checked");
            sum = sum.plus(clocks.times(share));
            guesses.extend(beyond);
        }
        (sum, guesses)
    }

    /// What lies outside of what was measured, where a box has so much to do with so many workers.
    pub fn guesses(&self, task: Task, workers: u32) -> Vec<String> {
        self.clocks(task.tunnels, workers).1
    }

    /// What a box takes to do this.
    pub fn load(&self, task: Task) -> Load {
        let (question, may) = (self.question, self.question.utilisation);
        let per_sec = task.packets_per_sec;
        let iked = self.iked_cores(task);
        let other_cores = question.other_cores.max((iked / may).ceil().min(65_536.0) as u32);
        let room = question.cores.map_or(u32::MAX, |cores| cores.saturating_sub(other_cores)).max(1);
        let room = room.min(MAX_WORKERS as u32);
        let busy = |workers: u32| {
            let clocks = self.clocks(task.tunnels, workers).0;
            clocks.times(per_sec / self.profile.host.machine.clocks_per_sec)
        };
        let enough = (1..=room).find(|workers| busy(*workers).high() <= f64::from(*workers) * may);
        let workers = enough.unwrap_or(room);
        let busy_workers = busy(workers);

        let ways = question.ways.len() as f64;
        let Lengths { inner_frame, outer_frame, inner_wire, outer_wire, .. } = self.lengths;
        // How much of a port's time a side takes, in whichever direction: each way has its own.
        let side = |wire: f64| question.port_speed.map(|speed| per_sec * wire * 8.0 / speed);
        let (clear, esp) = (side(inner_wire), side(outer_wire));
        let ports = esp.zip(clear).map(|(a, b)| ((a.max(b) / may).ceil().max(1.0)) as u32);
        let ports = question.ports.or(ports);
        let queues = f64::from(workers) * 2.0 * f64::from(ports.unwrap_or(1));

        // As if no cache kept anything of a frame: a NIC writes it, a core reads and writes it, a NIC reads it.
        let moved = 2.0 * (inner_frame + outer_frame) + self.profile.host.memory.touched_by_packet as f64;

        let (inner, outer) = self.over_pcie;
        let pcie = |way_in: f64, way_out: f64| {
            let of = |way: &Way| if *way == Way::Encap { way_in } else { way_out };
            per_sec * question.ways.iter().map(of).sum::<f64>()
        };
        let lanes = question.pcie.map(lanes);
        let left = question.cores.map(|cores| f64::from(cores.saturating_sub(workers).max(1)));
        let there = question.ports.map(f64::from);
        let mut resources = vec![
            Resource::new("worker cores", "cores", busy_workers.high(), Some(f64::from(room))),
            Resource::new("iked's cores", "cores", iked, left),
            Resource::new("SAs", "SAs", self.sas(task.tunnels), Some(f64::from(MAX_SAS))),
            Resource::new("memory", "octets", self.octets(task.tunnels, workers, queues), question.memory),
            Resource::new("memory bandwidth", "octets/s", per_sec * ways * moved, question.memory_bandwidth),
            Resource::new("PCIe into memory", "octets/s", pcie(inner, outer), lanes),
            Resource::new("PCIe out of memory", "octets/s", pcie(outer, inner), lanes),
        ];
        resources.extend(esp.map(|n| Resource::new("ports on the ESP side", "ports", n, there)));
        resources.extend(clear.map(|n| Resource::new("ports on the clear side", "ports", n, there)));
        let over = |r: &Resource| r.utilisation.is_some_and(|u| u > may * (1.0 + 1e-9));
        let fits = enough.is_some() && !resources.iter().any(over);
        Load { workers, other_cores, ports, busy_workers, resources, fits }
    }

    /// Octets of memory of all processes, as far as the profile knows.
    fn octets(&self, tunnels: u32, workers: u32, queues: f64) -> f64 {
        let (memory, workers) = (self.profile.host.memory, f64::from(workers));
        let of_sa =
            (memory.per_sa + memory.per_sa_of_owner) as f64 + memory.per_sa_and_worker as f64 * workers;
        memory.fixed.unwrap_or(0) as f64
            + memory.per_queue as f64 * queues
            + memory.per_worker as f64 * workers
            + of_sa * self.sas(tunnels)
            + memory.per_tunnel.unwrap_or(0) as f64 * f64::from(tunnels)
    }

    /// Cores that iked keeps busy, at the upper end of what it takes.
    fn iked_cores(&self, task: Task) -> f64 {
        let Some(cost) = self.ike else { return 0.0 };
        let rekeys = self.question.rekey_secs.map_or(0.0, |secs| f64::from(task.tunnels) / secs);
        (task.new_tunnels * cost.set_up_us.high() + rekeys * cost.rekey_us.high()) / 1e6
    }
}

/// Octets over PCIe for a frame around a packet.
fn over_pcie(packet: u32) -> f64 {
    let frame = super::packet::frame_len(packet);
    f64::from(frame + frame.div_ceil(TLP_DATA) * TLP + DESCRIPTORS + TLP)
}

/// Octets per second of PCIe each way, once its encoding is taken off (PCI Express Base Specification 6.0 §4.2).
fn lanes(pcie: Pcie) -> f64 {
    let of_lane = match pcie.generation {
        1 | 2 => 2.5e9 * f64::from(pcie.generation) * (8.0 / 10.0),
        n @ 3..=5 => 8e9 * f64::from(1 << (n - 3)) * (128.0 / 130.0),
        // Of 256 octets of a flit 242 are for packets.
        _ => 64e9 * (242.0 / 256.0),
    };
    f64::from(pcie.lanes) * of_lane / 8.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcie_is_as_fast_as_its_generation() {
        let gbyte = |generation, lanes_of| lanes(Pcie { generation, lanes: lanes_of }) / 1e9;
        for (generation, of_lane) in [(1, 0.25), (2, 0.5), (3, 0.985), (4, 1.969), (5, 3.938), (6, 7.563)] {
            assert!((gbyte(generation, 1) - of_lane).abs() < 0.001, "{generation}: {}", gbyte(generation, 1));
        }
        assert_eq!(gbyte(1, 16), 4.0);
    }

    #[test]
    fn frames_go_over_pcie_in_packets_of_256_octets() {
        // The frame with its FCS, packets of PCIe for it, and one for descriptors.
        assert_eq!(over_pcie(64), (82 + 24 + 32 + 24) as f64);
        assert_eq!(over_pcie(1400), (1418 + 6 * 24 + 32 + 24) as f64);
    }
}
