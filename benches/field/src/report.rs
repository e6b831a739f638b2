//! The results: medians and ranges as tables, and what they say.

use crate::measure::{ALGORITHMS, Cell, IMIX, Load, Mix, Way};
use portcullis_perf::clock::Machine;
use serde_json::{Value, json};
use std::fmt::Write;

/// What the results are of.
pub struct Conditions {
    /// Where they were taken.
    pub machine: Machine,
    /// Clocks per second of the core, before and after.
    pub core_hz: [f64; 2],
    /// Rounds that each median is of.
    pub rounds: usize,
    /// Of the mix and the order.
    pub seed: u64,
    /// How the packets lie.
    pub stride: usize,
    /// The same.
    pub shift: usize,
    /// The version of ipsec-mb, if there is one.
    pub ipsec_mb: Option<String>,
}

impl Conditions {
    /// In two lines.
    pub fn lines(&self) -> String {
        let ghz = |hz: f64| format!("{:.2}", hz / 1e9);
        format!(
            "in memory; {}, TSC {} GHz, core {} to {} GHz; one core; ipsec-mb {}\n\
             bursts of 32 packets, {} octets apart, texts {} behind a cache line; seed {}; medians of {} rounds",
            self.machine.cpu,
            ghz(self.machine.hz),
            ghz(self.core_hz[0].min(self.core_hz[1])),
            ghz(self.core_hz[0].max(self.core_hz[1])),
            self.ipsec_mb.as_deref().unwrap_or("not installed"),
            self.stride,
            self.shift,
            self.seed,
            self.rounds,
        )
    }
}

/// Median and range of a cell, in nanoseconds per packet.
struct Summary {
    ns: f64,
    fastest: f64,
    slowest: f64,
}

/// All cells, with what they were taken under.
pub struct Report {
    conditions: Conditions,
    cells: Vec<(Cell, Summary)>,
}

impl Report {
    /// Of all samples.
    pub fn new(conditions: Conditions, cells: Vec<Cell>) -> Report {
        let per_ns = conditions.machine.hz / 1e9;
        let summary = |cell: &Cell| {
            let mut sorted: Vec<f64> = cell.samples.iter().map(|clocks| clocks / per_ns).collect();
            sorted.sort_by(f64::total_cmp);
            let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
            Summary { ns: (low + high) / 2.0, fastest: sorted[0], slowest: sorted[sorted.len() - 1] }
        };
        let cells = cells.into_iter().map(|cell| {
            let summary = summary(&cell);
            (cell, summary)
        });
        Report { conditions, cells: cells.collect() }
    }

    /// Everything, for people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.conditions.lines());
        for (algorithm, (_, name)) in ALGORITHMS.into_iter().enumerate() {
            for way in Way::ALL {
                self.times(&mut text, &format!("{name} {}", way.name()), algorithm, way);
                self.ratios(&mut text, algorithm, way);
            }
        }
        text
    }

    fn times(&self, text: &mut String, name: &str, algorithm: usize, way: Way) {
        let mixes = self.mixes(algorithm, way, 1);
        let _ = write!(text, "\n{name}: ns per packet, median (fastest-slowest), one key\n{:<24}", "octets");
        mixes.iter().for_each(|mix| *text += &format!("{:>24}", mix.to_string()));
        for entrant in self.names() {
            let _ = write!(text, "\n{entrant:<24}");
            for mix in &mixes {
                let load = Load { algorithm, way, keys: 1, mix: *mix };
                let cell = self
                    .find(&load, entrant)
                    .map_or("-".to_owned(), |s| format!("{:.1} ({:.1}-{:.1})", s.ns, s.fastest, s.slowest));
                let _ = write!(text, "{cell:>24}");
            }
        }
        *text += "\n";
    }

    /// What IMIX and many keys cost, and how many times faster we are than the best of each other.
    fn ratios(&self, text: &mut String, algorithm: usize, way: Way) {
        let many = self.mixes(algorithm, way, 32);
        let _ = write!(text, "{:<24}{:>24}", "times", "IMIX / weighted mean");
        many.iter().for_each(|mix| *text += &format!("{:>24}", format!("{mix}: 32 keys / one")));
        let number = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.3}"));
        for entrant in self.names() {
            let load = |keys, mix| Load { algorithm, way, keys, mix };
            let _ = write!(text, "\n{entrant:<24}{:>24}", number(self.imix(&load(1, Mix::Imix), entrant)));
            for mix in &many {
                let ns = |keys| self.find(&load(keys, *mix), entrant).map(|s| s.ns);
                let _ = write!(text, "{:>24}", number(ns(32).zip(ns(1)).map(|(many, one)| many / one)));
            }
        }
        *text += "\n";
        let mixes = self.mixes(algorithm, way, 1);
        let _ = write!(text, "{:<24}", "times of our best");
        mixes.iter().for_each(|mix| *text += &format!("{:>24}", mix.to_string()));
        for by in ["ring", "aws-lc-rs", "ipsec-mb", "RustCrypto"] {
            let _ = write!(text, "\n{:<24}", format!("{by}, its best"));
            for mix in &mixes {
                let load = Load { algorithm, way, keys: 1, mix: *mix };
                let best = self.best(&load, by).zip(self.best(&load, "ours"));
                let ratio = best.map(|((theirs, name), (ours, _))| format!("{:.2} ({name})", theirs / ours));
                let _ = write!(text, "{:>24}", ratio.unwrap_or("-".to_owned()));
            }
        }
        *text += "\n";
    }

    /// IMIX against the mean of uniform bursts of its lengths.
    fn imix(&self, load: &Load, entrant: &str) -> Option<f64> {
        let (mut mean, mut packets) = (0.0, 0);
        for (n, len) in IMIX {
            mean += n as f64 * self.find(&Load { mix: Mix::Octets(len), ..*load }, entrant)?.ns;
            packets += n;
        }
        Some(self.find(load, entrant)?.ns / (mean / packets as f64))
    }

    fn names(&self) -> Vec<&str> {
        let mut names = vec![];
        for (cell, _) in &self.cells {
            if !names.contains(&cell.name.as_str()) {
                names.push(cell.name.as_str());
            }
        }
        names
    }

    fn mixes(&self, algorithm: usize, way: Way, keys: usize) -> Vec<Mix> {
        let mut mixes = vec![];
        for (Cell { load, .. }, _) in &self.cells {
            let is_wanted = load.algorithm == algorithm && load.way == way && load.keys == keys;
            if is_wanted && !mixes.contains(&load.mix) {
                mixes.push(load.mix);
            }
        }
        mixes
    }

    fn find(&self, load: &Load, entrant: &str) -> Option<&Summary> {
        self.cells.iter().find(|(cell, _)| cell.load == *load && cell.name == entrant).map(|(_, s)| s)
    }

    fn best(&self, load: &Load, by: &str) -> Option<(f64, &str)> {
        let those = self.cells.iter().filter(|(cell, _)| cell.load == *load && cell.by == by);
        let best = those.min_by(|(_, a), (_, b)| a.ns.total_cmp(&b.ns))?;
        Some((best.1.ns, best.0.name.trim_start_matches("ipsec-mb ")))
    }

    /// Everything, for programs.
    pub fn json(&self) -> Value {
        let c = &self.conditions;
        let cells = self.cells.iter().map(|(cell, summary)| {
            let load = &cell.load;
            json!({
                "algorithm": ALGORITHMS[load.algorithm].1,
                "direction": load.way.name(),
                "keys": load.keys,
                "octets": load.mix.to_string(),
                "by": cell.by,
                "cipher": cell.name,
                "ns": summary.ns,
                "fastest": summary.fastest,
                "slowest": summary.slowest,
            })
        });
        json!({
            "where": "in memory",
            "cpu": c.machine.cpu,
            "tsc_hz": c.machine.hz,
            "core_hz": c.core_hz,
            "rounds": c.rounds,
            "seed": c.seed,
            "stride": c.stride,
            "shift": c.shift,
            "ipsec_mb": c.ipsec_mb,
            "conditions": c.lines(),
            "cells": cells.collect::<Vec<_>>(),
        })
    }
}
