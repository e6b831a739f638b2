//! What was measured: medians over all rounds, cell by cell.

use crate::{
    pair::{Arrival, Part},
    turns::Took,
};
use clap::ValueEnum;
use portcullis_datapath::meter::Hop;
use portcullis_perf::{
    clock::Machine,
    clocks::{self, HOPS},
    traffic::Size,
};
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
    /// At which worker packets arrive.
    pub arrival: Arrival,
}

impl Conditions {
    /// In one line.
    pub fn line(&self) -> String {
        format!(
            "in memory; {}, TSC {:.3} GHz; {} by {}; chunks of {}{}; arrival: {}; seed {}; medians of {} \
             rounds",
            self.machine.cpu,
            self.machine.hz / 1e9,
            self.algorithm.name().to_uppercase(),
            self.crypto,
            self.frame_size,
            if self.huge_pages { " in huge pages" } else { "" },
            self.arrival,
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

/// All samples.
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
    /// Clocks per packet.
    whole: BTreeMap<Key, Vec<f64>>,
    hops: BTreeMap<Key, [Vec<f64>; HOPS]>,
    /// Packets per second by the clock on the wall.
    rates: BTreeMap<Key, Vec<f64>>,
    packets: u64,
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
        let (whole, hops, rates) = Default::default();
        Results { conditions, ways, sas, sizes, workers, whole, hops, rates, packets: 0 }
    }

    /// Adds the clocks of a part of packets of the size with this index. `workers` is 0 for hops one by one.
    pub fn add(&mut self, sas: u32, size: usize, workers: u32, part: &Part) {
        self.packets += part.packets;
        for (way, took) in self.asked(part) {
            let (key, packets) = (Key { way, sas, size, workers }, part.packets as f64);
            if let Some(hops) = took.hops {
                let samples = self.hops.entry(key.clone()).or_default();
                samples.iter_mut().zip(hops).for_each(|(s, clocks)| s.push(clocks / packets));
            }
            self.whole.entry(key).or_default().push(took.clocks / packets);
        }
    }

    /// Adds what went through by the clock on the wall.
    pub fn add_rate(&mut self, sas: u32, size: usize, workers: u32, part: &Part) {
        self.packets += part.packets;
        for (way, took) in self.asked(part) {
            let rate = part.packets as f64 / took.wall.as_secs_f64();
            self.rates.entry(Key { way, sas, size, workers }).or_default().push(rate);
        }
    }

    fn asked(&self, part: &Part) -> Vec<(Way, Took)> {
        let both = [(Way::Encap, part.encap), (Way::Decap, part.decap)];
        both.into_iter().filter(|(way, _)| self.ways.contains(way)).collect()
    }

    /// Clocks per packet of the whole way, of one worker.
    pub fn whole(&self, way: Way, sas: u32, size: usize) -> Option<f64> {
        self.whole.get(&Key { way, sas, size, workers: 1 }).map(|samples| median(samples))
    }

    /// Packets per second by the clock on the wall, of all workers together.
    pub fn rate(&self, way: Way, sas: u32, size: usize, workers: u32) -> Option<f64> {
        self.rates.get(&Key { way, sas, size, workers }).map(|samples| median(samples))
    }

    /// Clocks per packet of each hop.
    pub fn hops(&self, way: Way, sas: u32, size: usize) -> Option<[f64; HOPS]> {
        let samples = self.hops.get(&Key { way, sas, size, workers: 0 })?;
        Some(std::array::from_fn(|hop| median(&samples[hop])))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let c = &self.conditions;
        let cell = |key: &Key, unit: &str, samples: &[f64], undisturbed: f64| {
            let sorted = sorted(samples);
            let hops = self.hops(key.way, key.sas, key.size).filter(|_| key.workers == 0);
            let hops =
                hops.map(|hops| Hop::ALL.iter().map(|h| (clocks::name(*h), hops[*h as usize])).collect());
            json!({
                "direction": key.way.name(),
                "sas": key.sas,
                "size": self.sizes[key.size].to_string(),
                "workers": key.workers.max(1),
                "hops": hops.map(|hops: BTreeMap<_, _>| json!(hops)),
                unit: median(samples),
                "undisturbed": undisturbed,
                "least": sorted.first(),
                "most": sorted.last(),
            })
        };
        let clocks = self.whole.iter().map(|(key, s)| cell(key, "clocks_per_packet", s, part(s, 0.1)));
        let rates = self.rates.iter().map(|(key, s)| cell(key, "packets_per_second", s, part(s, 0.9)));
        json!({
            "where": "in memory",
            "cpu": c.machine.cpu,
            "tsc_hz": c.machine.hz,
            "seed": c.seed,
            "rounds": c.rounds,
            "algorithm": c.algorithm.name(),
            "crypto": c.crypto,
            "frame_size": c.frame_size,
            "huge_pages": c.huge_pages,
            "arrival": c.arrival.to_string(),
            "packets": self.packets,
            "cells": clocks.collect::<Vec<_>>(),
            "throughput": rates.collect::<Vec<_>>(),
        })
    }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// What so large a part of the samples is below. Of clocks a tenth, and of rates nine: whatever else the machine does only adds
/// to the one and takes from the other, for more or fewer of the rounds, and the best of all may have been measured wrong.
fn part(samples: &[f64], of: f64) -> f64 {
    let sorted = sorted(samples);
    let at = (sorted.len() - 1) as f64 * of;
    sorted.get(at.round() as usize).copied().unwrap_or(f64::NAN)
}

fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    let (low, high) = (sorted.get((sorted.len() - 1) / 2), sorted.get(sorted.len() / 2));
    low.zip(high).map_or(f64::NAN, |(a, b)| (a + b) / 2.0)
}
