//! What was measured: medians over all rounds, cell by cell.

use crate::{
    clock::Machine,
    clocks::{self, HOPS},
    pair::{Clocks, Part},
    traffic::Size,
};
use clap::ValueEnum;
use portcullis_datapath::meter::Hop;
use portcullis_sadb::Algorithm;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Which half of the way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Way {
    /// Clear packets to ESP.
    Encap,
    /// ESP to clear packets.
    Decap,
}

impl Way {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Way::Encap => "encap",
            Way::Decap => "decap",
        }
    }
}

/// What the results are of.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Where they were taken.
    pub machine: Machine,
    /// Of the flows and SAs picked.
    pub seed: u64,
    /// Rounds that each median is of.
    pub rounds: usize,
    /// What packets are sealed with.
    pub algorithm: Algorithm,
    /// What does that.
    pub crypto: &'static str,
    /// Octets of a chunk.
    pub frame_size: u16,
    /// Whether the chunks are in huge pages.
    pub huge_pages: bool,
}

impl Conditions {
    /// In one line.
    pub fn line(&self) -> String {
        format!(
            "in memory; {}, TSC {:.3} GHz; {} by {}; chunks of {}{}; seed {}; medians of {} rounds",
            self.machine.cpu,
            self.machine.hz / 1e9,
            match self.algorithm {
                Algorithm::AesGcm128 => "AES-GCM-128",
                Algorithm::AesGcm256 => "AES-GCM-256",
            },
            self.crypto,
            self.frame_size,
            if self.huge_pages { " in huge pages" } else { "" },
            self.seed,
            self.rounds,
        )
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    way: Way,
    sas: u32,
    /// Index of the size.
    size: usize,
    /// 0 for the hops one by one.
    workers: u32,
}

/// All samples, in clocks per packet.
pub struct Results {
    /// What they are of.
    pub conditions: Conditions,
    /// Which ways were asked for.
    pub ways: Vec<Way>,
    /// Which numbers of SAs.
    pub sas: Vec<u32>,
    /// Which sizes.
    pub sizes: Vec<Size>,
    /// Which numbers of workers.
    pub workers: Vec<u32>,
    whole: BTreeMap<Key, Vec<f64>>,
    hops: BTreeMap<Key, [Vec<f64>; HOPS]>,
}

impl Results {
    /// None yet.
    pub fn new(
        conditions: Conditions,
        ways: Vec<Way>,
        sas: Vec<u32>,
        sizes: Vec<Size>,
        workers: Vec<u32>,
    ) -> Results {
        let (whole, hops) = Default::default();
        Results { conditions, ways, sas, sizes, workers, whole, hops }
    }

    /// Adds a part of packets of the size with this index. `workers` is 0 for hops one by one.
    pub fn add(&mut self, sas: u32, size: usize, workers: u32, part: &Part) {
        for (way, clocks) in [(Way::Encap, part.encap), (Way::Decap, part.decap)] {
            self.add_clocks(Key { way, sas, size, workers }, &clocks, part.packets as f64);
        }
    }

    fn add_clocks(&mut self, key: Key, clocks: &Clocks, packets: f64) {
        if let Some(hops) = clocks.hops {
            let samples = self.hops.entry(key.clone()).or_default();
            samples.iter_mut().zip(hops).for_each(|(s, clocks)| s.push(clocks / packets));
        }
        self.whole.entry(key).or_default().push(clocks.whole / packets);
    }

    /// Clocks per packet of the whole way, of all workers together.
    pub fn whole(&self, way: Way, sas: u32, size: usize, workers: u32) -> Option<f64> {
        self.whole.get(&Key { way, sas, size, workers }).map(|samples| median(samples))
    }

    /// Clocks per packet of each hop.
    pub fn hops(&self, way: Way, sas: u32, size: usize) -> Option<[f64; HOPS]> {
        let samples = self.hops.get(&Key { way, sas, size, workers: 0 })?;
        Some(std::array::from_fn(|hop| median(&samples[hop])))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let c = &self.conditions;
        let mut cells = vec![];
        for (key, samples) in &self.whole {
            let mut sorted = samples.clone();
            sorted.sort_by(f64::total_cmp);
            let hops = self.hops(key.way, key.sas, key.size).filter(|_| key.workers == 0);
            let hops =
                hops.map(|hops| Hop::ALL.iter().map(|h| (clocks::name(*h), hops[*h as usize])).collect());
            cells.push(json!({
                "direction": key.way.name(),
                "sas": key.sas,
                "size": self.sizes[key.size].to_string(),
                "workers": key.workers.max(1),
                "hops": hops.map(|hops: BTreeMap<_, _>| json!(hops)),
                "clocks_per_packet": median(samples),
                "fastest": sorted.first(),
                "slowest": sorted.last(),
            }));
        }
        json!({
            "where": "in memory",
            "cpu": c.machine.cpu,
            "tsc_hz": c.machine.hz,
            "seed": c.seed,
            "rounds": c.rounds,
            "algorithm": format!("{:?}", c.algorithm),
            "crypto": c.crypto,
            "frame_size": c.frame_size,
            "huge_pages": c.huge_pages,
            "cells": cells,
        })
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get((sorted.len() - 1) / 2), sorted.get(sorted.len() / 2));
    low.zip(high).map_or(f64::NAN, |(a, b)| (a + b) / 2.0)
}
