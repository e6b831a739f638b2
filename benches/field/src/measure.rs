//! What is measured, that all do the same, and how long each takes.

use crate::{
    burst::{Burst, Layout, PACKETS},
    ciphers::{Entrant, Keys, entrants},
};
use anyhow::{Result, ensure};
use portcullis_perf::{clock, traffic::Random};
use std::{
    fmt,
    sync::atomic::{Ordering, fence},
};

/// Runs of a workload in a sample, after one that is not counted.
const RUNS: usize = 4;

/// Of 48 packets so many have this length.
pub const IMIX: [(usize, u32); 3] = [(28, 64), (16, 570), (4, 1518)];

/// Key lengths, with the algorithms' names.
pub const ALGORITHMS: [(usize, &str); 2] = [(16, "AES-128-GCM"), (32, "AES-256-GCM")];

/// Seal or open.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // their names say it
pub enum Way {
    Seal,
    Open,
}

impl Way {
    /// Both.
    pub const ALL: [Way; 2] = [Way::Seal, Way::Open];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Way::Seal => "seal",
            Way::Open => "open",
        }
    }
}

/// Lengths of texts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// All the same.
    Octets(u32),
    /// [`IMIX`], shuffled.
    Imix,
}

impl Mix {
    /// Lengths of one or more bursts; of IMIX three, which have its shares exactly.
    fn bursts(self, random: &mut Random) -> Vec<[u32; PACKETS]> {
        let Mix::Octets(len) = self else {
            let mut lens: Vec<u32> = IMIX.iter().flat_map(|&(n, len)| vec![len; 2 * n]).collect();
            random.shuffle(&mut lens);
            return lens.as_chunks().0.to_vec();
        };
        vec![[len; PACKETS]]
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mix::Octets(len) => len.fmt(f),
            Mix::Imix => f.write_str("IMIX"),
        }
    }
}

/// What one sample is of, less who does it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Index into [`ALGORITHMS`].
    pub algorithm: usize,
    /// Seal or open.
    pub way: Way,
    /// Keys, used in turn.
    pub keys: usize,
    /// Lengths.
    pub mix: Mix,
}

/// Samples of one entrant under one load, in clocks per packet.
pub struct Cell {
    /// The load.
    pub load: Load,
    /// Whose it is.
    pub by: &'static str,
    /// Its name.
    pub name: String,
    /// One of each round.
    pub samples: Vec<f64>,
}

/// All entrants with one set of keys, and what they are to seal and open.
struct Field {
    algorithm: usize,
    keys: usize,
    entrants: Vec<Entrant>,
    /// Per mix, each burst as it was sealed by the entrant that comes last.
    mixes: Vec<(Mix, Vec<Burst>)>,
}

/// All of them, and the memory that the packets are in, the same for all.
pub struct Contest {
    fields: Vec<Field>,
    burst: Burst,
    number: u64,
    /// Clocks that it takes to read the clock.
    overhead: u64,
    random: Random,
}

impl Contest {
    /// One key for all of `mixes`, 32 for those of `lens` and IMIX.
    ///
    /// # Errors
    /// Entrants that do not agree.
    pub fn new(layout: &Layout, mixes: &[Mix], many_keys: &[Mix], seed: u64) -> Result<Contest> {
        let mut random = Random::new(seed);
        let mut fields = vec![];
        for (algorithm, (len, _)) in ALGORITHMS.into_iter().enumerate() {
            for (keys, mixes) in [(1, mixes), (PACKETS, many_keys)] {
                let entrants = entrants(&Keys::new(len, keys));
                fields.push(Field { algorithm, keys, entrants, mixes: vec![] });
                let field = fields.last_mut().expect("just pushed");
                for mix in mixes {
                    let bursts = mix.bursts(&mut random);
                    let sealed =
                        bursts.iter().map(|lens| field.agreed(layout, lens)).collect::<Result<_>>()?;
                    field.mixes.push((*mix, sealed));
                }
            }
        }
        let burst = Burst::new(layout, &[64; PACKETS], 0);
        Ok(Contest { fields, burst, number: 1 << 16, overhead: clock::overhead(), random })
    }

    /// Measures all, `rounds` times in turn, in another order each time.
    ///
    /// # Errors
    /// Packets that were not opened.
    pub fn measure(&mut self, rounds: usize) -> Result<Vec<Cell>> {
        let mut cells = vec![];
        for round in 0..rounds {
            let mut place = 0;
            for f in 0..self.fields.len() {
                let (mixes, entrants) = (self.fields[f].mixes.len(), self.fields[f].entrants.len());
                for (way, m) in Way::ALL.into_iter().flat_map(|way| (0..mixes).map(move |m| (way, m))) {
                    let mut order: Vec<usize> = (0..entrants).collect();
                    self.random.shuffle(&mut order);
                    if round == 0 {
                        let Field { algorithm, keys, mixes, entrants } = &self.fields[f];
                        let load = Load { algorithm: *algorithm, way, keys: *keys, mix: mixes[m].0 };
                        let cell =
                            |e: &Entrant| Cell { load, by: e.by, name: e.name.clone(), samples: vec![] };
                        cells.extend(entrants.iter().map(cell));
                    }
                    for e in order {
                        let clocks = self.sample(f, m, e, way)?;
                        cells[place + e].samples.push(clocks);
                    }
                    place += entrants;
                }
            }
        }
        Ok(cells)
    }

    fn sample(&mut self, field: usize, mix: usize, entrant: usize, way: Way) -> Result<f64> {
        let Field { entrants, mixes, .. } = &mut self.fields[field];
        let (cipher, sealed) = (&mut entrants[entrant].cipher, &mut mixes[mix].1);
        let (mut clocks, mut packets) = (0, 0);
        for run in 0..=RUNS {
            for sealed in sealed.iter_mut() {
                // It brings the packets into the cache as it writes them, whoever comes next.
                self.burst.copy(sealed);
                if way == Way::Seal {
                    self.burst.number(self.number);
                    self.number += PACKETS as u64;
                }
                // What was just written is in the cache before the clock runs, as if a port had written it, and not
                // on its way there.
                fence(Ordering::SeqCst);
                let start = clock::now();
                let good = match way {
                    Way::Seal => {
                        cipher.seal(&mut self.burst);
                        true
                    }
                    Way::Open => cipher.open(&mut self.burst),
                };
                let end = clock::now();
                ensure!(good, "{} did not open what was sealed", entrants[entrant].name);
                if run > 0 {
                    clocks += end - start;
                    packets += PACKETS;
                }
            }
        }
        let overhead = self.overhead * (RUNS * sealed.len()) as u64;
        Ok(clocks.saturating_sub(overhead) as f64 / packets as f64)
    }
}

impl Field {
    /// A burst of these lengths, sealed; all entrants seal it so, open it, and refuse what was changed.
    fn agreed(&mut self, layout: &Layout, lens: &[u32; PACKETS]) -> Result<Burst> {
        let mut clear = Burst::new(layout, lens, 1);
        let mut sealed = Burst::new(layout, lens, 1);
        self.entrants.last_mut().expect("RustCrypto").cipher.seal(&mut sealed);
        let mut burst = Burst::new(layout, lens, 1);
        for Entrant { name, cipher, .. } in &mut self.entrants {
            burst.copy(&mut clear);
            cipher.seal(&mut burst);
            ensure!(burst.packets().eq(sealed.packets()), "{name} seals otherwise than RustCrypto");
            ensure!(cipher.open(&mut burst), "{name} does not open what was sealed");
            let texts = burst.packets().zip(clear.packets());
            for (i, (opened, clear)) in texts.enumerate() {
                let text = ..clear.len() - portcullis_datapath::crypto::ICV;
                ensure!(opened[text] == clear[text], "{name} opens packet {i} to something else");
            }
            for packet in 0..PACKETS {
                let last = burst.packets().nth(packet).map_or(0, |p| p.len() - 1);
                for octet in [0, 7, 8, 15, 16, last - 16, last] {
                    burst.copy(&mut sealed);
                    burst.packets().nth(packet).expect("PACKETS of them")[octet] ^= 1;
                    ensure!(
                        !cipher.open(&mut burst),
                        "{name} opens packet {packet} with octet {octet} changed"
                    );
                }
            }
        }
        Ok(sealed)
    }
}
