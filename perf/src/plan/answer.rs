//! How many boxes it takes, of what, and what is full first.

pub use super::boxes::{Load, Resource};
use super::{
    boxes::{Boxes, Task},
    model::{Estimate, Point},
    profile::{MEMORY, Machine, Profile, Way, share},
    question::{Headroom, Question, QuestionError},
    shares::Shares,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Boxes, at most.
const MOST_BOXES: u32 = 1_000_000;

/// How exactly the rate at which boxes are full is found: to a part of two to this power.
const HALVINGS: u32 = 30;

/// Traffic each way.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Traffic {
    /// Packets per second.
    pub packets_per_sec: f64,
    /// Bits per second of inner IP packets.
    pub inner_bits_per_sec: f64,
    /// Bits per second of outer IP packets.
    pub outer_bits_per_sec: f64,
    /// Bits per second of links that frames of inner packets take, with all that is between frames.
    pub clear_wire_bits_per_sec: f64,
    /// The same of outer packets.
    pub esp_wire_bits_per_sec: f64,
}

/// What a packet costs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PathClocks {
    /// The algorithm.
    pub algorithm: String,
    /// The direction.
    pub direction: Way,
    /// The part of the packets of this direction.
    pub share: f64,
    /// Clocks, of all workers of a box together.
    pub clocks: Estimate,
    /// Clocks of each hop of one worker over ports in memory, if they were measured.
    pub hops: BTreeMap<String, f64>,
}

/// What was asked for takes this.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Answer {
    /// Whether it can be done with what there is.
    pub fits: bool,
    /// Boxes, with those that are spare.
    pub boxes: u32,
    /// Boxes that may fail.
    pub spare_boxes: u32,
    /// All traffic, each way, with what the headroom adds.
    pub traffic: Traffic,
    /// Which ways.
    pub directions: Vec<Way>,
    /// What the box with most tunnels takes, when the spare ones have failed.
    pub each_box: Load,
    /// The resource that is full first.
    pub binds: &'static str,
    /// Traffic each way at which that is as full as it may be, of all boxes but the spare ones.
    pub full_at: Traffic,
    /// Clocks of packets.
    pub paths: Vec<PathClocks>,
    /// The kind of ports.
    pub port: String,
    /// What was measured.
    pub machine: Machine,
    /// What of it lies outside of what was measured.
    pub guesses: Vec<String>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// Answers a question by a profile.
///
/// # Errors
/// [`QuestionError`]: what was not measured, and what cannot be.
pub fn answer(question: &Question, profile: &Profile) -> Result<Answer, QuestionError> {
    let boxes = Boxes::new(question, profile)?;
    let (times, spare) = match question.headroom {
        Headroom::Boxes(spare) => (1.0, spare),
        Headroom::Factor(times) => (times, 0),
    };
    let rate = question.packets_per_sec() * times;
    // What the box with most tunnels has to do: each tunnel has as much traffic as the others, and none is in two boxes.
    let of = |n: u32, rate: f64| {
        let tunnels = question.tunnels.div_ceil(n);
        let part = f64::from(tunnels) / f64::from(question.tunnels);
        let new_tunnels = question.new_tunnels * times * part;
        Task { packets_per_sec: rate * part, tunnels, new_tunnels }
    };
    let fits = |n: u32, rate: f64| boxes.load(of(n, rate)).fits;

    let most = question.tunnels.min(MOST_BOXES);
    let n = match question.boxes {
        Some(all) if all <= spare => {
            return Err(QuestionError::Value {
                option: "boxes",
                value: all.to_string(),
                why: format!("{spare} of them are to be spare"),
                say: "say more of them than --headroom keeps, or less headroom",
            });
        }
        Some(all) => (all - spare).min(most),
        None => fewest(most, |n| fits(n, rate)).ok_or_else(|| impossible(&boxes.load(of(most, rate))))?,
    };
    let task = of(n, rate);
    let load = boxes.load(task);
    let traffic = |rate: f64| {
        let lengths = boxes.lengths();
        let bits = |octets: f64| rate * octets * 8.0;
        Traffic {
            packets_per_sec: rate,
            inner_bits_per_sec: bits(lengths.inner),
            outer_bits_per_sec: bits(lengths.outer),
            clear_wire_bits_per_sec: bits(lengths.inner_wire),
            esp_wire_bits_per_sec: bits(lengths.outer_wire),
        }
    };
    let binds = load.binding().name;
    Ok(Answer {
        fits: load.fits,
        boxes: n + spare,
        spare_boxes: spare,
        traffic: traffic(rate),
        directions: question.ways.clone(),
        binds,
        full_at: traffic(highest(rate, |rate| fits(n, rate))),
        paths: paths(question, profile, &boxes, (task, load.workers)),
        port: boxes.port().to_owned(),
        machine: profile.host.machine.clone(),
        guesses: boxes.guesses(task, load.workers),
        notes: notes((question, profile), &boxes, &load, task),
        each_box: load,
    })
}

/// The least number up to `most` for which it holds, if it holds for all that are greater.
fn fewest(most: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
    let mut high = 1;
    while !holds(high) {
        if high == most {
            return None;
        }
        high = high.saturating_mul(2).min(most);
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// The highest rate for which it holds, if it holds for all that are lower; 0 if it does for none.
fn highest(rate: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let mut high = rate;
    while holds(high) {
        high *= 2.0;
    }
    let (mut low, mut high) = if high > rate { (high / 2.0, high) } else { (0.0, high) };
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

fn impossible(load: &Load) -> QuestionError {
    let binding = load.binding();
    QuestionError::Impossible {
        resource: binding.name,
        percent: binding.utilisation.unwrap_or(1.0) * 100.0,
        say: "ask for less, for larger boxes or more of --utilisation, or for more tunnels: one is never in two boxes",
    }
}

fn paths(
    question: &Question,
    profile: &Profile,
    boxes: &Boxes<'_>,
    (task, workers): (Task, u32),
) -> Vec<PathClocks> {
    let mut paths = vec![];
    for way in &question.ways {
        for (algorithm, part) in question.algorithms.iter() {
            let clocks = boxes.clocks_of(*way, &Shares::only(*algorithm), task.tunnels, workers).0;
            let sas = question.ways.len() as u32 * task.tunnels;
            let point = Point { sizes: &question.sizes, sas: share(sas, workers), batch: profile.host.batch };
            let hops = profile.path(algorithm.name(), *way).map(|path| &path.hops);
            let hops = hops.into_iter().flatten();
            paths.push(PathClocks {
                algorithm: algorithm.name().to_owned(),
                direction: *way,
                share: part,
                clocks,
                hops: hops.map(|(name, hop)| (name.clone(), hop.predict(&point).value)).collect(),
            });
        }
    }
    paths
}

fn notes(
    (question, profile): (&Question, &Profile),
    boxes: &Boxes<'_>,
    load: &Load,
    task: Task,
) -> Vec<String> {
    let mut notes = vec![];
    if boxes.port() == MEMORY {
        notes.push(
            "ports in memory cost nothing: what a NIC or veth takes of a core is not in this".to_owned(),
        );
    }
    if task.tunnels < load.workers {
        let (tunnels, workers) = (task.tunnels, load.workers);
        notes.push(format!(
            "{tunnels} tunnels of a box keep so many workers busy, and not {workers}, but with per_cpu_sas = yes"
        ));
    }
    let memory = profile.host.memory;
    for (known, what) in [(memory.fixed, "the programs themselves"), (memory.per_tunnel, "tunnels in iked")] {
        if known.is_none() {
            notes.push(format!("memory is without that of {what}: the profile does not have it"));
        }
    }
    if question.port_speed.is_none() {
        notes.push("without --port-speed nothing is said of ports".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_and_the_highest_are_found() {
        for wanted in [1, 2, 3, 7, 64, 999, 1000] {
            assert_eq!(fewest(1000, |n| n >= wanted), Some(wanted));
        }
        assert_eq!(fewest(1000, |_| false), None);
        assert_eq!(fewest(1, |_| true), Some(1));
        for edge in [0.01, 1.0, 7.5, 1234.5] {
            let found = highest(8.0, |rate| rate <= edge);
            assert!((found / edge - 1.0).abs() < 1e-5, "{edge}: {found}");
        }
    }
}
