//! What an SA asks for beyond sealing and opening: fields of the outer header, sizes, lifetimes.
//!
//! An SA whose [`Handling`] is plain, but for its lifetime, goes the plain way through the datapath, where none of this
//! costs anything. All others go the general way.

use crate::SadbError;

/// Words of a slot that a [`Handling`] takes.
pub(crate) const HANDLING_WORDS: usize = MAP_WORD + 64usize.div_ceil(DSCPS_PER_WORD);

/// The first word of a map of DSCPs.
const MAP_WORD: usize = 7;

/// DSCPs of 6 bits.
const DSCPS_PER_WORD: usize = 10;

/// Of one field, when a header is made from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum DfBit {
    /// As in the inner header (RFC 4301 §8.1); IPv6 has it always.
    #[default]
    Copy,
    /// Set.
    Set,
    /// Clear: the outer packet may be cut on its way.
    Clear,
}

/// The DSCP of the outer header (RFC 2983, RFC 4301 §5.1.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Dscp {
    /// As in the inner header.
    #[default]
    Copy,
    /// Always the same, below 64.
    Set(u8),
    /// By the inner one, each below 64.
    Map([u8; 64]),
}

/// Where an SA begins to be old, or ends (RFC 4301 §4.4.2.1). Zero is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Limits {
    /// Octets of inner packets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Seconds since the SA was made.
    pub secs: u32,
}

/// How long an SA is good for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lifetime {
    /// Where iked is told, so that another takes its place.
    pub soft: Limits,
    /// Where no packet passes any more.
    pub hard: Limits,
    /// Seconds without a packet, after which iked is told.
    pub idle_secs: u32,
}

/// IP traffic flow security: inner packets are put together and cut to payloads of one size (RFC 9347).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Aggfrag {
    /// Octets of an outer packet, all of one size: with ciphers of larger blocks a few less, and always the same.
    pub packet_size: u16,
    /// Packets a second, less than 2^24: as many leave whatever there is to send, with padding if there is nothing, and
    /// what is more than they carry is dropped. 0 sends when there is something.
    pub packets_per_sec: u32,
    /// Inner packets may be cut.
    pub fragments: bool,
}

/// What an SA asks for. The default is what most want, and the plain way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handling {
    /// DF of the outer header.
    pub df: DfBit,
    /// DSCP of the outer header.
    pub dscp: Dscp,
    /// ECN is copied to the outer header and back (RFC 6040 §4); else the outer is Not-ECT, and none comes back.
    pub ecn: bool,
    /// The inner DSCP is made that of the outer header when a packet is decapsulated (RFC 2983 §4.1).
    pub decap_dscp: bool,
    /// TTL or hop limit of the outer header; 0 copies the inner one.
    pub ttl: u8,
    /// The outer flow label is a hash of the inner flow (RFC 6438 §3), else 0.
    pub flow_label: bool,
    /// What it seals meets the outbound policies again, and what it opens the inbound ones: nested SAs (RFC 4301
    /// Appendix E).
    pub nested: bool,
    /// In transport mode: the packets are carried in GRE (RFC 2784) between the two gateways.
    pub gre: bool,
    /// MSS of TCP connections, at most: 0 leaves it, 65,535 makes it fit the path.
    pub mss: u16,
    /// Payloads are padded to so many octets (RFC 4303 §2.7): 0 is none, 65,535 as far as the path allows.
    pub tfc_pad: u16,
    /// Dummy packets a second while there is nothing to send (RFC 4303 §2.6), which the peer drops: the first when so much
    /// time has passed since the last packet. They are as long as `tfc_pad` says; without, of all lengths that the path
    /// allows, by a hash that takes the key to foretell. They take nothing from packets: whoever copies DSCP or DF shows
    /// which packets are none.
    pub dummies_per_sec: u16,
    /// IP traffic flow security.
    pub aggfrag: Option<Aggfrag>,
    /// How long it is good for.
    pub lifetime: Lifetime,
    /// When it was made, in seconds of the machine's boot clock: what `lifetime` counts from.
    pub born_secs: u32,
}

impl Default for Handling {
    fn default() -> Handling {
        Handling {
            df: DfBit::Copy,
            dscp: Dscp::Copy,
            ecn: true,
            decap_dscp: false,
            ttl: OUTER_TTL,
            flow_label: false,
            nested: false,
            gre: false,
            mss: 0,
            tfc_pad: 0,
            dummies_per_sec: 0,
            aggfrag: None,
            lifetime: Lifetime::default(),
            born_secs: 0,
        }
    }
}

/// TTL or hop limit of outer headers, unless an SA asks for another (RFC 4301 §5.1.2.1).
pub const OUTER_TTL: u8 = 64;

impl Handling {
    /// Whether nothing is asked for but a lifetime.
    pub fn is_plain(&self) -> bool {
        let age = Handling { lifetime: self.lifetime, born_secs: self.born_secs, ..Handling::default() };
        *self == age
    }

    pub(crate) fn check(&self) -> Result<(), SadbError> {
        let invalid = |field, value: u64| Err(SadbError::Invalid { field, value });
        match &self.dscp {
            Dscp::Set(dscp) if *dscp > 63 => return invalid("dscp", *dscp as u64),
            Dscp::Map(map) => {
                if let Some(dscp) = map.iter().find(|d| **d > 63) {
                    return invalid("dscp map", *dscp as u64);
                }
            }
            _ => {}
        }
        if self.aggfrag.is_some() && (self.tfc_pad, self.dummies_per_sec) != (0, 0) {
            return invalid("padding and dummies beside aggfrag", self.tfc_pad as u64);
        }
        match self.aggfrag {
            Some(a) if a.packets_per_sec >= 1 << 24 => {
                invalid("aggfrag packets_per_sec", a.packets_per_sec as u64)
            }
            // Outer headers, AGGFRAG header and at least a few octets of the inner packet.
            Some(a) if a.packet_size < 128 => invalid("aggfrag packet_size", a.packet_size as u64),
            _ => Ok(()),
        }
    }

    pub(crate) fn to_words(self) -> [u64; HANDLING_WORDS] {
        let mut w = [0; HANDLING_WORDS];
        let (dscp_kind, dscp) = match &self.dscp {
            Dscp::Copy => (0, 0),
            Dscp::Set(dscp) => (1, *dscp),
            Dscp::Map(_) => (2, 0),
        };
        let flags = [
            self.ecn,
            self.decap_dscp,
            self.flow_label,
            self.nested,
            self.gre,
            self.aggfrag.is_some(),
            self.aggfrag.is_some_and(|a| a.fragments),
        ];
        let flags = flags.iter().rev().fold(0u64, |w, flag| w << 1 | u64::from(*flag));
        w[0] = self.df as u64
            | dscp_kind << 8
            | (dscp as u64) << 16
            | flags << 24
            | (self.ttl as u64) << 32
            | (self.mss as u64) << 48;
        // AGGFRAG has a size and a rate of its own, which stand for those of padding and dummies.
        let padding = (self.tfc_pad, self.dummies_per_sec as u32);
        let (size, rate) = self.aggfrag.map_or(padding, |a| (a.packet_size, a.packets_per_sec));
        w[0] |= (rate as u64 >> 16) << 40;
        w[1] = size as u64 | (rate as u64 & 0xffff) << 16 | (self.lifetime.idle_secs as u64) << 32;
        let Lifetime { soft, hard, .. } = self.lifetime;
        (w[2], w[3], w[4], w[5]) = (soft.bytes, soft.packets, hard.bytes, hard.packets);
        w[6] = soft.secs as u64 | (hard.secs as u64) << 32;
        if let Dscp::Map(map) = &self.dscp {
            for (i, dscp) in map.iter().enumerate() {
                let (word, shift) = (MAP_WORD + i / DSCPS_PER_WORD, i % DSCPS_PER_WORD * 6);
                w[word] |= (*dscp as u64) << shift;
            }
        }
        w[HANDLING_WORDS - 1] |= (self.born_secs as u64) << 32;
        w
    }

    pub(crate) fn from_words(w: &[u64; HANDLING_WORDS]) -> Result<Handling, SadbError> {
        let flag = |i: u32| w[0] >> (24 + i) & 1 == 1;
        let invalid = |field, value: u8| SadbError::Invalid { field, value: value as u64 };
        let dscp = match ((w[0] >> 8) as u8, (w[0] >> 16) as u8) {
            (0, _) => Dscp::Copy,
            (1, dscp) => Dscp::Set(dscp),
            (2, _) => {
                let mut map = [0; 64];
                for (i, dscp) in map.iter_mut().enumerate() {
                    *dscp = (w[MAP_WORD + i / DSCPS_PER_WORD] >> (i % DSCPS_PER_WORD * 6)) as u8 & 63;
                }
                Dscp::Map(map)
            }
            (other, _) => return Err(invalid("dscp", other)),
        };
        let df = match w[0] as u8 {
            0 => DfBit::Copy,
            1 => DfBit::Set,
            2 => DfBit::Clear,
            other => return Err(invalid("df", other)),
        };
        let (size, rate) = (w[1] as u16, (w[1] >> 16) as u16);
        let handling = Handling {
            df,
            dscp,
            ecn: flag(0),
            decap_dscp: flag(1),
            ttl: (w[0] >> 32) as u8,
            flow_label: flag(2),
            nested: flag(3),
            gre: flag(4),
            mss: (w[0] >> 48) as u16,
            tfc_pad: if flag(5) { 0 } else { size },
            dummies_per_sec: if flag(5) { 0 } else { rate },
            aggfrag: flag(5).then_some(Aggfrag {
                packet_size: size,
                packets_per_sec: rate as u32 | ((w[0] >> 40) as u8 as u32) << 16,
                fragments: flag(6),
            }),
            lifetime: Lifetime {
                soft: Limits { bytes: w[2], packets: w[3], secs: w[6] as u32 },
                hard: Limits { bytes: w[4], packets: w[5], secs: (w[6] >> 32) as u32 },
                idle_secs: (w[1] >> 32) as u32,
            },
            born_secs: (w[HANDLING_WORDS - 1] >> 32) as u32,
        };
        handling.check()?;
        Ok(handling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Handling {
        Handling {
            df: DfBit::Clear,
            dscp: Dscp::Map(std::array::from_fn(|i| 63 - i as u8)),
            ecn: false,
            decap_dscp: true,
            ttl: 0,
            flow_label: true,
            nested: true,
            gre: true,
            mss: 1360,
            tfc_pad: 0,
            dummies_per_sec: 0,
            aggfrag: Some(Aggfrag { packet_size: 1400, packets_per_sec: (1 << 24) - 1, fragments: true }),
            lifetime: Lifetime {
                soft: Limits { bytes: 1 << 40, packets: 1 << 33, secs: 3000 },
                hard: Limits { bytes: u64::MAX, packets: u64::MAX - 1, secs: 3600 },
                idle_secs: 60,
            },
            born_secs: 1 << 31,
        }
    }

    #[test]
    fn words_hold_all_of_it() {
        let set = Handling {
            dscp: Dscp::Set(46),
            df: DfBit::Set,
            tfc_pad: u16::MAX,
            dummies_per_sec: 7,
            ..Handling::default()
        };
        for handling in [Handling::default(), set, all()] {
            assert_eq!(Handling::from_words(&handling.to_words()).expect("as written"), handling);
        }
    }

    #[test]
    fn a_lifetime_is_plain_and_nothing_else() {
        let Handling { lifetime, born_secs, .. } = all();
        assert!(Handling { lifetime, born_secs, ..Handling::default() }.is_plain());
        assert!(!Handling { ttl: 63, ..Handling::default() }.is_plain());
        assert!(!all().is_plain());
    }

    #[test]
    fn what_no_header_can_carry_is_refused() {
        let wrong = Handling { dscp: Dscp::Set(64), ..Handling::default() };
        assert!(wrong.check().is_err() && Handling::from_words(&wrong.to_words()).is_err());
        let wrong = Handling { dscp: Dscp::Map([64; 64]), ..Handling::default() };
        assert!(wrong.check().is_err());
    }
}
