//! Which flows there are: their addresses and ports, and in what order packets are of them.

use crate::traffic::Random;
use std::{collections::HashSet, net::IpAddr};
use thiserror::Error;

/// Flows, at most: each wants a cache line at both ends.
pub const MAX_FLOWS: u32 = 1 << 24;

/// How one of many is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// One after the other, and from the start again.
    InTurn,
    /// Any, each as likely as the others.
    Random,
}

/// Addresses, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// The first.
    pub first: IpAddr,
    /// How many.
    pub count: u32,
}

/// Ports, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// How many.
    pub count: u16,
}

/// All flows of a stream. No two have the same addresses and ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flows {
    /// Source addresses.
    pub src: Addresses,
    /// Destination addresses.
    pub dst: Addresses,
    /// Source ports.
    pub src_ports: Ports,
    /// Destination ports.
    pub dst_ports: Ports,
    /// How many flows.
    pub count: u32,
    /// How flows have their addresses and ports: in turn the destination address changes first, then the source address,
    /// the source port, and the destination port.
    pub places: Choice,
    /// How packets have their flows.
    pub packets: Choice,
    /// Of what is random.
    pub seed: u64,
}

/// Addresses and ports of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// Why there are no such flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FlowsError {
    /// None, or too many.
    #[error("{0} flows; there are from 1 to {MAX_FLOWS}")]
    Count(u32),
    /// Some of both versions.
    #[error("flows from {0} to {1}: both are IPv4, or both IPv6")]
    Versions(IpAddr, IpAddr),
    /// More addresses or ports than there are.
    #[error("{count} {what} from {first} on: there are not as many")]
    Range {
        /// Of what.
        what: &'static str,
        /// The first.
        first: u128,
        /// How many.
        count: u32,
    },
    /// More flows than addresses and ports make.
    #[error("{count} flows, and {places} pairs of addresses and ports: allow more of these")]
    Places {
        /// Flows.
        count: u32,
        /// What they may have.
        places: u128,
    },
}

impl Flows {
    /// One flow, with the source port 10000 to the port 9, which discards what comes (RFC 863).
    pub fn one(src: IpAddr, dst: IpAddr) -> Flows {
        Flows {
            src: Addresses { first: src, count: 1 },
            dst: Addresses { first: dst, count: 1 },
            src_ports: Ports { first: 10_000, count: 1 },
            dst_ports: Ports { first: 9, count: 1 },
            count: 1,
            places: Choice::InTurn,
            packets: Choice::InTurn,
            seed: 1,
        }
    }

    /// Addresses and ports of each flow.
    ///
    /// # Errors
    /// [`FlowsError`].
    pub fn all(&self) -> Result<Vec<Flow>, FlowsError> {
        let Flows { src, dst, src_ports, dst_ports, count, .. } = *self;
        if !(1..=MAX_FLOWS).contains(&count) {
            return Err(FlowsError::Count(count));
        }
        if src.first.is_ipv4() != dst.first.is_ipv4() {
            return Err(FlowsError::Versions(src.first, dst.first));
        }
        for (what, first, count, most) in [
            ("source addresses", bits(src.first), src.count, most(src.first)),
            ("destination addresses", bits(dst.first), dst.count, most(dst.first)),
            ("source ports", src_ports.first.into(), src_ports.count.into(), u16::MAX.into()),
            ("destination ports", dst_ports.first.into(), dst_ports.count.into(), u16::MAX.into()),
        ] {
            if count == 0 || most - first < count as u128 - 1 {
                return Err(FlowsError::Range { what, first, count });
            }
        }
        let sides = [dst.count, src.count, src_ports.count.into(), dst_ports.count.into()];
        let places = sides.iter().map(|n| *n as u128).product();
        if places < count as u128 {
            return Err(FlowsError::Places { count, places });
        }
        let (mut random, mut taken) = (Random::new(self.seed), HashSet::new());
        let mut pick = |n: u32| match self.places {
            Choice::InTurn => digits(n, sides),
            Choice::Random => {
                let mut picks = std::iter::repeat_with(|| sides.map(|side| random.below(side)));
                picks.find(|pick| taken.insert(*pick)).expect("there are always more")
            }
        };
        let flow = |[to, from, src_port, dst_port]: [u32; 4]| Flow {
            src: address(src.first, from),
            dst: address(dst.first, to),
            src_port: src_ports.first + src_port as u16,
            dst_port: dst_ports.first + dst_port as u16,
        };
        Ok((0..count).map(|n| flow(pick(n))).collect())
    }
}

/// A number as digits, the lowest first, of which each has a base of its own.
fn digits(n: u32, bases: [u32; 4]) -> [u32; 4] {
    let mut rest = n;
    bases.map(|base| {
        let digit = rest % base;
        rest /= base;
        digit
    })
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_bits() as u128,
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn most(address: IpAddr) -> u128 {
    if address.is_ipv4() { u32::MAX as u128 } else { u128::MAX }
}

fn address(first: IpAddr, n: u32) -> IpAddr {
    match first {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() + n).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() + n as u128).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(places: Choice) -> Flows {
        Flows {
            src: Addresses { first: [10, 0, 0, 1].into(), count: 2 },
            dst: Addresses { first: [11, 0, 0, 254].into(), count: 3 },
            src_ports: Ports { first: 1000, count: 2 },
            count: 12,
            places,
            ..Flows::one([0; 4].into(), [0; 4].into())
        }
    }

    #[test]
    fn in_turn_the_destination_changes_first() {
        let all = flows(Choice::InTurn).all().unwrap();
        let seen: Vec<_> =
            all.iter().map(|f| format!("{}:{} {}:{}", f.src, f.src_port, f.dst, f.dst_port)).collect();
        assert_eq!(seen[0], "10.0.0.1:1000 11.0.0.254:9");
        assert_eq!(seen[2], "10.0.0.1:1000 11.0.1.0:9");
        assert_eq!(seen[3], "10.0.0.2:1000 11.0.0.254:9");
        assert_eq!(seen[11], "10.0.0.2:1001 11.0.1.0:9");
    }

    #[test]
    fn at_random_no_two_are_the_same_and_a_seed_makes_the_same_ones() {
        let (all, again) = (flows(Choice::Random).all().unwrap(), flows(Choice::Random).all().unwrap());
        let other = Flows { seed: 2, ..flows(Choice::Random) }.all().unwrap();
        assert_eq!(all, again);
        assert_ne!(all, other);
        let sorted = |mut flows: Vec<Flow>| {
            flows.sort_by_key(|f| (f.src, f.dst, f.src_port));
            flows
        };
        assert_eq!(sorted(all), sorted(flows(Choice::InTurn).all().unwrap()), "all there are");
    }

    #[test]
    fn what_there_is_not_is_refused() {
        let refused = |change: fn(&mut Flows)| {
            let mut flows = flows(Choice::InTurn);
            change(&mut flows);
            flows.all().unwrap_err()
        };
        assert_eq!(refused(|f| f.count = 0), FlowsError::Count(0));
        assert_eq!(refused(|f| f.count = 13), FlowsError::Places { count: 13, places: 12 });
        let both = refused(|f| f.dst.first = "fd00::1".parse().unwrap());
        assert!(matches!(both, FlowsError::Versions(..)));
        for change in [
            (|f| f.src_ports = Ports { first: 65_535, count: 2 }) as fn(&mut Flows),
            |f| f.dst_ports.count = 0,
            |f| f.dst = Addresses { first: [255; 4].into(), count: 2 },
        ] {
            assert!(matches!(refused(change), FlowsError::Range { .. }));
        }
    }
}
