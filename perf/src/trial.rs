//! A trial: a device is offered a load for a while, and what it received is counted (RFC 2544 §23, RFC 9971 §4.4.3).
//! What makes the traffic is a [`Device`]; what looks for a rate knows nothing else of it.

use std::{cmp::Ordering, error::Error, time::Duration};

/// Frames per second that are offered to a device, the sum over its ports. Ordered as numbers are.
#[derive(Clone, Copy, Debug)]
pub struct Load(pub f64);

impl Ord for Load {
    fn cmp(&self, other: &Load) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Load) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Load) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}

/// What came of a trial.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trial {
    /// The load asked for.
    pub offered: Load,
    /// Frames sent. A source that is too slow sends fewer than it was asked to.
    pub sent: u64,
    /// Frames that came out of the device.
    pub received: u64,
    /// How long it was to send.
    pub duration: Duration,
    /// How long the trial took in all: setting up, sending, waiting for the last frames.
    pub taken: Duration,
}

impl Trial {
    /// Frames that were asked for: load times duration, whole frames. At least those sent.
    pub fn asked(&self) -> u64 {
        self.sent.max((self.offered.0 * self.duration.as_secs_f64()).floor() as u64)
    }

    /// Frames lost, divided by frames asked for, from 0 to 1. What the source did not send is lost: no load passes
    /// that was never offered (RFC 9971 §4.9.1). Nothing asked for is nothing lost.
    pub fn loss_ratio(&self) -> f64 {
        let asked = self.asked();
        if asked == 0 { 0.0 } else { asked.saturating_sub(self.received) as f64 / asked as f64 }
    }

    /// Frames per second that passed: the load less what was lost of it (RFC 9971 §4.5.7).
    pub fn forwarding_rate(&self) -> f64 {
        self.offered.0 * (1.0 - self.loss_ratio())
    }
}

/// What is measured, with its source of traffic: simulated, in memory, over veth or on a NIC.
pub trait Device {
    /// Offers the load for as long as told, waits for the last frames, and counts.
    ///
    /// # Errors
    /// What makes the trial void: it is not a loss, and ends the search.
    fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(sent: u64, received: u64) -> Trial {
        let second = Duration::from_secs(1);
        Trial { offered: Load(1000.0), sent, received, duration: second, taken: second }
    }

    #[test]
    fn what_was_not_sent_is_lost_as_what_was_not_received() {
        assert_eq!(trial(1000, 1000).loss_ratio(), 0.0);
        assert_eq!(trial(1000, 995).loss_ratio(), 0.005);
        assert_eq!(trial(995, 995).loss_ratio(), 0.005);
        assert_eq!(trial(1001, 1001).loss_ratio(), 0.0);
        assert_eq!(trial(1000, 0).loss_ratio(), 1.0);
        assert_eq!(trial(1000, 995).forwarding_rate(), 995.0);
    }

    #[test]
    fn frames_that_come_twice_are_no_gain() {
        assert_eq!(trial(1000, 1100).loss_ratio(), 0.0);
    }

    #[test]
    fn a_load_of_less_than_a_frame_loses_nothing() {
        let trial = Trial { offered: Load(0.5), sent: 0, received: 0, ..trial(0, 0) };
        assert_eq!(trial.loss_ratio(), 0.0);
    }
}
