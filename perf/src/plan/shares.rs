//! What traffic is a mix of: sizes of packets, or algorithms of SAs, each with its share of the packets.

use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive};

/// Octets of inner packets that can be asked about: an IPv4 and a UDP header, up to a jumbo frame's.
pub const OCTETS: RangeInclusive<u32> = 28..=9000;

/// IMIX: 28 packets of 64 octets, 16 of 570 and 4 of 1518, as in all programs here.
const IMIX: [(u32, f64); 3] = [(64, 28.0), (570, 16.0), (1518, 4.0)];

/// Kinds with their shares, which are above 0 and add up to 1. No kind is there twice.
#[derive(Clone, PartialEq, Debug)]
pub struct Shares<T>(Vec<(T, f64)>);

/// Lengths of inner packets, in octets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sizes {
    text: String,
    shares: Shares<u32>,
}

impl<T: PartialEq> Shares<T> {
    /// All of one kind.
    pub fn only(kind: T) -> Shares<T> {
        Shares(vec![(kind, 1.0)])
    }

    /// Kinds with weights, if these are numbers above 0. A kind that is there twice has both weights.
    pub fn weighted(kinds: impl IntoIterator<Item = (T, f64)>) -> Option<Shares<T>> {
        let mut shares: Vec<(T, f64)> = vec![];
        for (kind, weight) in kinds {
            if !(weight > 0.0 && weight.is_finite()) {
                return None;
            }
            match shares.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, share)) => *share += weight,
                None => shares.push((kind, weight)),
            }
        }
        let sum: f64 = shares.iter().map(|(_, weight)| weight).sum();
        shares.iter_mut().for_each(|(_, weight)| *weight /= sum);
        (sum > 0.0 && sum.is_finite()).then_some(Shares(shares))
    }

    /// A list as it is typed: `a`, `a,b` or `a:7,b:1`. What is wrong is told.
    ///
    /// # Errors
    /// Those of `kind`, and weights that are no numbers above 0.
    pub fn parse<E: From<String>>(text: &str, kind: impl Fn(&str) -> Result<T, E>) -> Result<Shares<T>, E> {
        let item = |item: &str| {
            let (name, weight) = item.rsplit_once(':').unwrap_or((item, "1"));
            let number = weight.trim().parse::<f64>().ok().filter(|w| *w > 0.0 && w.is_finite());
            let number = number.ok_or_else(|| format!("the weight '{weight}' is not a number above 0"))?;
            Ok((kind(name.trim())?, number))
        };
        let items = text.split(',').map(item).collect::<Result<Vec<_>, E>>()?;
        Shares::weighted(items).ok_or_else(|| "the weights have no sum".to_owned().into())
    }

    /// Each kind and its share.
    pub fn iter(&self) -> impl Iterator<Item = (&T, f64)> {
        self.0.iter().map(|(kind, share)| (kind, *share))
    }

    /// The mean of what is said of each kind.
    pub fn mean(&self, of: impl Fn(&T) -> f64) -> f64 {
        self.iter().map(|(kind, share)| share * of(kind)).sum()
    }

    /// How likely a packet is of another kind than the one before it, where they come at random: 0 if there is one.
    pub fn variety(&self) -> f64 {
        (1.0 - self.mean_share()).max(0.0)
    }

    fn mean_share(&self) -> f64 {
        if self.0.len() == 1 { 1.0 } else { self.0.iter().map(|(_, share)| share * share).sum() }
    }
}

impl Sizes {
    /// All of one length. It is not looked at whether there are such packets.
    pub fn only(octets: u32) -> Sizes {
        Sizes { text: octets.to_string(), shares: Shares::only(octets) }
    }

    /// `imix`, a length, or a list of lengths and weights, `64:7,570:4,1518:1`.
    ///
    /// # Errors
    /// What is wrong, in a few words.
    pub fn parse(text: &str) -> Result<Sizes, String> {
        let shares = match text.eq_ignore_ascii_case("imix") {
            true => Shares::weighted(IMIX).ok_or("no weights")?,
            false => Shares::parse::<String>(text, |octets| {
                let parsed = octets.parse().ok().filter(|n| OCTETS.contains(n));
                parsed.ok_or_else(|| {
                    format!("'{octets}' is not a size from {} to {} octets", OCTETS.start(), OCTETS.end())
                })
            })?,
        };
        Ok(Sizes { text: text.to_ascii_lowercase(), shares })
    }

    /// Octets of a packet, on average.
    pub fn mean(&self) -> f64 {
        self.shares.mean(|octets| *octets as f64)
    }

    /// The shortest and the longest.
    pub fn extremes(&self) -> (u32, u32) {
        let octets = || self.shares.iter().map(|(octets, _)| *octets);
        (octets().min().unwrap_or(0), octets().max().unwrap_or(0))
    }

    /// How many packets there are of each.
    pub fn shares(&self) -> &Shares<u32> {
        &self.shares
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Sizes {
    type Error = String;

    fn try_from(text: String) -> Result<Sizes, String> {
        Sizes::parse(&text)
    }
}

impl From<Sizes> for String {
    fn from(sizes: Sizes) -> String {
        sizes.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_what_its_weights_say() {
        let mix = Sizes::parse("64:7,570:4,1518:1").unwrap();
        assert!((mix.mean() - (7.0 * 64.0 + 4.0 * 570.0 + 1518.0) / 12.0).abs() < 1e-9);
        assert_eq!(mix.extremes(), (64, 1518));
        // The same weights as IMIX's.
        assert_eq!(mix.shares(), Sizes::parse("IMIX").unwrap().shares());
        let variety = 1.0 - (49.0 + 16.0 + 1.0) / 144.0;
        assert!((mix.shares().variety() - variety).abs() < 1e-12);
        assert_eq!(Sizes::parse("64,1518").unwrap().mean(), 791.0);
        assert_eq!(Sizes::parse("64:1,64:5").unwrap().shares(), &Shares::only(64));
        assert_eq!(Sizes::only(64).shares().variety(), 0.0);
    }

    #[test]
    fn what_is_no_mix_is_told() {
        for (text, says) in [
            ("", "''"),
            ("big", "'big'"),
            ("27", "28 to 9000"),
            ("9001", "28 to 9000"),
            ("64:0", "weight '0'"),
            ("64:-1,128:2", "weight '-1'"),
            ("64:inf", "weight 'inf'"),
            ("64:1:1", "'64:1'"),
            ("64,,128", "''"),
        ] {
            let error = Sizes::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
