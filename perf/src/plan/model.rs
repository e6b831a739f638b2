//! What a packet costs on a path of one algorithm and one direction: a sum of terms, each a number of clocks for each of
//! something that packets have.
//!
//! Sizes and SAs count by parts of their way: what a packet of 1000 octets costs is what its first [`SHORT`] cost and what
//! the others do. SAs count by the logarithm of their number between two numbers that were measured, as caches fill. Beyond
//! the largest number, the last part goes on.

use super::shares::Sizes;
use serde::{Deserialize, Serialize};

/// Octets up to which a packet is short: what the AES-GCM kernels seal at once, and several at a time.
pub const SHORT: u32 = 238;

/// What a packet is, as far as its cost goes.
#[derive(Clone, Debug)]
pub struct Point<'a> {
    /// Sizes of packets.
    pub sizes: &'a Sizes,
    /// SAs that the worker sees packets of, each as often as the others. At least 1.
    pub sas: f64,
    /// Packets of a batch.
    pub batch: f64,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// A packet.
    Packet,
    /// A batch, divided by its packets.
    Batch,
    /// Each octet of the first [`SHORT`].
    ShortOctet,
    /// Each octet behind these.
    LongOctet,
    /// A packet that has such.
    LongPacket,
    /// A chunk of a packet that does not fit one, beyond the first.
    Chunk {
        /// Octets of a packet that fit a chunk.
        octets: u32,
    },
    /// A packet that is of another size than the one before it.
    OtherSize,
    /// A packet of one of many SAs: the part of the way from some SAs to more, in the logarithm of their number.
    ManySas {
        /// Where this part begins: nothing of it is counted for fewer.
        from: u32,
        /// Where it ends: all of it is counted for more, if there is another part.
        to: u32,
        /// Whether it goes on beyond.
        open: bool,
    },
    /// The same, times the part of [`SHORT`] octets that the packet has: what is longer touches more of its SA's key.
    ManySasOctets {
        /// As above.
        from: u32,
        /// As above.
        to: u32,
        /// As above.
        open: bool,
    },
}

impl Per {
    /// How much of it a packet has, on average.
    pub fn count(self, point: &Point<'_>) -> f64 {
        let mean = |of: &dyn Fn(u32) -> f64| point.sizes.shares().mean(|octets| of(*octets));
        match self {
            Per::Packet => 1.0,
            Per::Batch => 1.0 / point.batch,
            Per::ShortOctet => mean(&|octets| octets.min(SHORT) as f64),
            Per::LongOctet => mean(&|octets| octets.saturating_sub(SHORT) as f64),
            Per::LongPacket => mean(&|octets| f64::from(u8::from(octets > SHORT))),
            Per::Chunk { octets: room } => {
                mean(&|octets| (octets.div_ceil(room.max(1)) as f64 - 1.0).max(0.0))
            }
            Per::OtherSize => point.sizes.shares().variety(),
            Per::ManySas { from, to, open } => {
                let (from, to) = ((from as f64).ln(), (to as f64).ln());
                let part = (point.sas.max(1.0).ln() - from) / (to - from);
                part.clamp(0.0, if open { f64::INFINITY } else { 1.0 })
            }
            Per::ManySasOctets { from, to, open } => {
                let short = Per::ShortOctet.count(point) / SHORT as f64;
                Per::ManySas { from, to, open }.count(point) * short
            }
        }
    }
}

/// Clocks for each of something.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Term {
    /// Of what.
    pub per: Per,
    /// Never negative.
    pub clocks: f64,
}

/// From where to where something was measured.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reach {
    /// Octets of packets.
    pub octets: (u32, u32),
    /// SAs of a worker.
    pub sas: (u32, u32),
    /// Whether there were packets of several sizes.
    pub mixed: bool,
}

/// What packets of one path cost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Model {
    /// What makes up the cost.
    pub terms: Vec<Term>,
    /// Covariance of the terms' clocks, in their order; of terms at 0, which are not free, none.
    pub covariance: Vec<Vec<f64>>,
    /// Standard deviation of what is measured from what is true, as a part of it.
    pub noise: f64,
    /// How many samples there were beyond those that the terms take.
    pub freedom: u32,
    /// What the samples were of.
    pub reach: Reach,
}

/// A number and how sure it is: with a chance of 95 % it is between two others.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// The likeliest.
    pub value: f64,
    /// Half of the way from one end to the other.
    pub give_or_take: f64,
}

impl Estimate {
    /// One that is certain.
    pub fn certain(value: f64) -> Estimate {
        Estimate { value, give_or_take: 0.0 }
    }

    /// The mean of what was measured several times; of one measurement nobody knows how sure it is: it may be as far off as it is.
    pub fn of(measured: &[f64]) -> Estimate {
        let n = measured.len() as f64;
        let value = measured.iter().sum::<f64>() / n;
        let variance = measured.iter().map(|x| (x - value).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let give_or_take = match measured.len() {
            1 => value.abs(),
            len => t_95(len as u32 - 1) * (variance / n).sqrt(),
        };
        Estimate { value, give_or_take }
    }

    /// The lower end, which is not below 0.
    pub fn low(self) -> f64 {
        (self.value - self.give_or_take).max(0.0)
    }

    /// The upper end.
    pub fn high(self) -> f64 {
        self.value + self.give_or_take
    }

    /// So many times.
    #[must_use]
    pub fn times(self, n: f64) -> Estimate {
        Estimate { value: self.value * n, give_or_take: self.give_or_take * n }
    }

    /// Two of the same host added: where one is wrong the other is likely to be wrong in the same direction.
    #[must_use]
    pub fn plus(self, other: Estimate) -> Estimate {
        Estimate { value: self.value + other.value, give_or_take: self.give_or_take + other.give_or_take }
    }
}

impl Model {
    /// Clocks of a packet.
    pub fn predict(&self, point: &Point<'_>) -> Estimate {
        let counts: Vec<f64> = self.terms.iter().map(|term| term.per.count(point)).collect();
        let value = self.terms.iter().zip(&counts).map(|(term, n)| term.clocks * n).sum::<f64>();
        // What of the terms is uncertain, and how far a measurement is from what they say.
        let rows = self.covariance.iter().zip(&counts);
        let of_terms: f64 =
            rows.map(|(row, n)| n * row.iter().zip(&counts).map(|(c, m)| c * m).sum::<f64>()).sum();
        let deviation = (of_terms.max(0.0) + (self.noise * value).powi(2)).sqrt();
        Estimate { value, give_or_take: t_95(self.freedom) * deviation }
    }

    /// What of a point lies outside of what was measured, in words.
    pub fn beyond(&self, point: &Point<'_>) -> Vec<String> {
        let (Reach { octets, sas, mixed }, (least, most)) = (self.reach, point.sizes.extremes());
        let mut beyond = vec![];
        if least < octets.0 || most > octets.1 {
            beyond.push(format!(
                "packets of {least} to {most} octets ({} to {} were measured)",
                octets.0, octets.1
            ));
        }
        if point.sas > sas.1 as f64 {
            beyond.push(format!("{:.0} SAs of a worker ({} to {} were measured)", point.sas, sas.0, sas.1));
        }
        if point.sizes.shares().variety() > 0.0 && !mixed {
            beyond.push("packets of several sizes (none were measured together)".to_owned());
        }
        beyond
    }
}

/// The number of standard deviations within which 95 % of Student's distribution lies.
fn t_95(freedom: u32) -> f64 {
    const FIRST: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let known = (freedom as usize).checked_sub(1).and_then(|i| FIRST.get(i));
    // Within 0.4 % of the table for 11 and more.
    known.copied().unwrap_or(if freedom == 0 { FIRST[0] } else { 1.96 + 2.5 / freedom as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(per: Per, sizes: &str, sas: f64) -> f64 {
        per.count(&Point { sizes: &Sizes::parse(sizes).unwrap(), sas, batch: 64.0 })
    }

    #[test]
    fn what_packets_have_is_counted() {
        assert_eq!(count(Per::Packet, "64", 1.0), 1.0);
        assert_eq!(count(Per::Batch, "64", 1.0), 1.0 / 64.0);
        assert_eq!((count(Per::ShortOctet, "64", 1.0), count(Per::LongOctet, "64", 1.0)), (64.0, 0.0));
        assert_eq!(
            (count(Per::ShortOctet, "1400", 1.0), count(Per::LongOctet, "1400", 1.0)),
            (238.0, 1162.0)
        );
        assert_eq!(count(Per::LongOctet, "56:3,438:1", 1.0), 50.0);
        assert_eq!(count(Per::LongPacket, "56:3,438:1", 1.0), 0.25);
        let chunk = Per::Chunk { octets: 4000 };
        assert_eq!(
            (count(chunk, "4000", 1.0), count(chunk, "4001", 1.0), count(chunk, "9000", 1.0)),
            (0.0, 1.0, 2.0)
        );
        assert_eq!((count(Per::OtherSize, "64", 1.0), count(Per::OtherSize, "64,128", 1.0)), (0.0, 0.5));
    }

    #[test]
    fn sas_count_by_the_logarithm_of_their_number() {
        let part = Per::ManySas { from: 10, to: 1000, open: false };
        let counts = [1.0, 10.0, 100.0, 1000.0, 1e6].map(|sas| count(part, "64", sas));
        assert_eq!(counts.map(|n| (n * 1e9).round() / 1e9), [0.0, 0.0, 0.5, 1.0, 1.0]);
        let last = Per::ManySas { from: 10, to: 1000, open: true };
        assert!((count(last, "64", 1e5) - 2.0).abs() < 1e-9, "the last part goes on");
        let octets = Per::ManySasOctets { from: 10, to: 1000, open: false };
        let counts = ["119", "238", "1400"].map(|size| count(octets, size, 100.0));
        assert_eq!(counts.map(|n| (n * 1e9).round() / 1e9), [0.25, 0.5, 0.5]);
    }

    #[test]
    fn estimates_add_and_multiply() {
        let a = Estimate { value: 100.0, give_or_take: 3.0 };
        assert_eq!(a.plus(a), Estimate { value: 200.0, give_or_take: 6.0 });
        assert_eq!(a.times(2.0).high(), 206.0);
        assert_eq!(Estimate { value: 1.0, give_or_take: 2.0 }.low(), 0.0);
        let measured = Estimate::of(&[9.0, 10.0, 11.0]);
        assert!((measured.value, (measured.give_or_take - 4.303 / 3f64.sqrt()).abs() < 1e-3) == (10.0, true));
        assert_eq!(Estimate::of(&[7.0]), Estimate { value: 7.0, give_or_take: 7.0 });
    }

    #[test]
    fn students_distribution_is_as_in_tables() {
        for (freedom, t) in
            [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.0), (1000, 1.962)]
        {
            assert!((t_95(freedom) / t - 1.0).abs() < 0.01, "{freedom}: {}", t_95(freedom));
        }
    }
}
