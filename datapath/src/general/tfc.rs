//! What an SA keeps for traffic flow confidentiality: the stream of inner packets that it sends or receives in payloads
//! of one size (RFC 9347), and its dummy packets (RFC 4303 §2.6).
//!
//! All memory is taken when the SA is met. What leaves or is given up as time passes, [`General`](super::General) asks
//! for by the worker's clock.

use super::{
    aggfrag::{HEADER, Receiver, Sender},
    association::Association,
    esp, header,
};
use crate::wire::UDP;
use portcullis_sadb::{Direction, Mode, Protocol, Sa};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Octets of inner packets that wait for payloads, at most: the largest one, and some time's worth at most rates.
const QUEUE: usize = 256 << 10;

/// Octets of a payload that a peer sends, if it has longer packets than we have.
const JUMBO: usize = 9216;

/// How long a payload that is missing is waited for (RFC 9347 §2.2.3).
const PATIENCE_MS: u64 = 100;

/// Packets that leave at once after a pause, at most; or what this time brings, if that is more. The rest of the pause
/// is not made up for.
const BURST: u64 = 64;
const BURST_MS: u64 = 4;

/// One packet, in the unit of [`Pace::credit`].
const PACKET: u64 = 1000;

/// So many packets a second, by a clock of milliseconds.
pub struct Pace {
    per_sec: u32,
    /// Thousandths of packets that are due.
    credit: u64,
    /// When it was last asked.
    at_ms: Option<u64>,
}

impl Pace {
    /// Begins when it is first asked.
    pub fn new(per_sec: u32) -> Pace {
        Pace { per_sec, credit: 0, at_ms: None }
    }

    /// How many are due.
    pub fn due(&mut self, now_ms: u64) -> u64 {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms.replace(now_ms).unwrap_or(now_ms));
        let per_sec = u64::from(self.per_sec);
        let most = (BURST * PACKET).max(BURST_MS * per_sec);
        self.credit = elapsed_ms.saturating_mul(per_sec).saturating_add(self.credit).min(most);
        self.credit / PACKET
    }

    /// One that was due has left.
    pub fn take(&mut self) {
        self.credit = self.credit.saturating_sub(PACKET);
    }

    /// Begins again.
    pub fn restart(&mut self, now_ms: u64) {
        (self.credit, self.at_ms) = (0, Some(now_ms));
    }

    /// When the next is due.
    pub fn next_ms(&self, now_ms: u64) -> u64 {
        match self.per_sec {
            0 => u64::MAX,
            per_sec => now_ms + PACKET.saturating_sub(self.credit).div_ceil(per_sec.into()).max(1),
        }
    }
}

/// The stream that an outbound SA sends.
pub struct Sending {
    /// What waits.
    pub sender: Sender,
    /// Octets of a payload.
    pub octets: usize,
    /// Whether inner packets may be cut.
    pub may_fragment: bool,
    /// With a rate: payloads leave at their times, whatever there is to send. Else they leave when there is something.
    pub pace: Option<Pace>,
    /// Whether what waits leaves at the end of this turn.
    pub is_listed: bool,
}

impl Sending {
    /// Octets of inner packets that fill a payload.
    pub fn room(&self) -> usize {
        self.octets - HEADER
    }
}

/// The stream that an inbound SA receives.
pub struct Receiving {
    /// What waits.
    pub receiver: Receiver,
    /// The number that is waited for, and since when.
    waits: Option<(u64, u64)>,
}

impl Receiving {
    /// To be called after each payload: when the missing one is to be given up.
    pub fn settle(&mut self, now_ms: u64) -> u64 {
        let awaited = self.receiver.awaited();
        self.waits = match self.waits {
            _ if !self.receiver.is_waiting() => None,
            Some((seq, since_ms)) if seq == awaited => Some((seq, since_ms)),
            _ => Some((awaited, now_ms)),
        };
        self.give_up_ms()
    }

    /// When the missing payload is to be given up.
    pub fn give_up_ms(&self) -> u64 {
        self.waits.map_or(u64::MAX, |(_, since_ms)| since_ms + PATIENCE_MS)
    }
}

/// The dummy packets of an outbound SA.
pub struct Dummies {
    /// When they leave, unless others do.
    pub pace: Pace,
    /// Their sizes are told from sequence numbers by this, which those on the way do not know.
    secret: Zeroizing<[u8; 32]>,
}

impl Dummies {
    fn new(sa: &Sa) -> Dummies {
        let secret =
            Sha256::new().chain_update(b"sizes of dummy packets").chain_update(sa.key.bytes()).finalize();
        Dummies { pace: Pace::new(sa.handling.dummies_per_sec.into()), secret: Zeroizing::new(secret.into()) }
    }

    /// Octets of a payload, of at most so many.
    pub fn octets(&self, seq: u64, most: usize) -> usize {
        let digest = Sha256::new().chain_update(&self.secret[..]).chain_update(seq.to_be_bytes()).finalize();
        let number = digest.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets));
        (number % (most as u64 + 1)) as usize
    }
}

/// What an SA keeps, by what it is.
#[derive(Default)]
pub struct Tfc {
    /// Outbound, with AGGFRAG payloads.
    pub sending: Option<Sending>,
    /// Inbound, with AGGFRAG payloads.
    pub receiving: Option<Box<Receiving>>,
    /// Outbound, with dummy packets.
    pub dummies: Option<Dummies>,
}

impl Tfc {
    /// Of a new SA, or of one whose first number to be received is `next_seq`.
    pub fn new(sa: &Sa, next_seq: u64) -> Tfc {
        let (handling, is_outbound) = (&sa.handling, sa.direction == Direction::Outbound);
        let is_esp = sa.protocol == Protocol::Esp;
        let mut tfc = Tfc::default();
        if is_esp && is_outbound && handling.dummies_per_sec > 0 {
            tfc.dummies = Some(Dummies::new(sa));
        }
        let Some(aggfrag) = handling.aggfrag.filter(|_| is_esp && sa.mode == Mode::Tunnel) else {
            return tfc;
        };
        let front = header::outer_len(sa) + if sa.udp.is_some() { UDP } else { 0 };
        let packet_size = aggfrag.packet_size as usize;
        let octets = esp::text_for(sa.algorithm, packet_size.saturating_sub(front));
        if !is_outbound {
            let receiver = Receiver::new(Receiver::REORDER_WINDOW, packet_size.max(JUMBO), next_seq);
            tfc.receiving = Some(Box::new(Receiving { receiver, waits: None }));
        } else if octets > HEADER {
            tfc.sending = Some(Sending {
                sender: Sender::new(QUEUE, aggfrag.fragments),
                octets,
                may_fragment: aggfrag.fragments,
                pace: (aggfrag.packets_per_sec > 0).then(|| Pace::new(aggfrag.packets_per_sec)),
                is_listed: false,
            });
        }
        tfc
    }

    /// Whether the SA wants to be looked at as time passes.
    pub fn is_timed(&self) -> bool {
        self.sending.as_ref().is_some_and(|s| s.pace.is_some())
            || self.receiving.is_some()
            || self.dummies.is_some()
    }

    /// Whether an SA sends by itself, and must be met before there is a packet for it.
    pub fn sends_by_itself(sa: &Sa) -> bool {
        let handling = &sa.handling;
        sa.direction == Direction::Outbound
            && (handling.dummies_per_sec > 0 || handling.aggfrag.is_some_and(|a| a.packets_per_sec > 0))
    }
}

impl Association {
    /// What it sends in AGGFRAG payloads.
    pub fn sending(&mut self) -> Option<&mut Sending> {
        self.tfc.sending.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_the_rate_times_time_however_often_it_is_asked() {
        for per_sec in [1, 3, 10, 999, 1000, 1001, 50_000, 1 << 20] {
            for step_ms in [1, 2, 7] {
                let (mut pace, mut left) = (Pace::new(per_sec), 0);
                let from = 12_345;
                for now_ms in (from..=from + 3500).step_by(step_ms) {
                    let due = pace.due(now_ms);
                    // As many as a burst takes: at most rates, what 7 ms bring is more.
                    (0..due).for_each(|_| pace.take());
                    left += due;
                    let all = (now_ms - from) * u64::from(per_sec) / 1000;
                    if step_ms as u64 <= BURST_MS || per_sec <= 9000 {
                        assert_eq!(left, all, "{per_sec} a second, asked each {step_ms} ms");
                    }
                    assert!(pace.next_ms(now_ms) > now_ms);
                }
            }
        }
    }

    #[test]
    fn a_pause_is_made_up_for_by_a_burst_at_most() {
        let mut pace = Pace::new(1000);
        assert_eq!((pace.due(5), pace.next_ms(5)), (0, 6));
        assert_eq!(pace.due(5 + 63), 63);
        assert_eq!(pace.due(60_000), 64);
        (0..64).for_each(|_| pace.take());
        assert_eq!((pace.due(60_000), pace.due(60_001)), (0, 1));
        pace.restart(60_002);
        assert_eq!((pace.due(60_002), pace.due(60_003)), (0, 1));
        assert_eq!(Pace::new(4).next_ms(7), 7 + 250);
        assert_eq!(Pace::new(0).next_ms(7), u64::MAX);
    }
}
