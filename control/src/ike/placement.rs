//! Which worker gets the next child SA: an inbound SA belongs to the worker that its SPI names, and the SPI is ours to
//! pick. What we send by goes by the peer's SPI, and where that belongs is the peer's luck.

use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::{RuntimeReader, Sadb, Spi, Traffic};
use rand_core::Rng;

/// How long what workers do is counted before it says anything.
const LOOK_MS: u64 = 1_000;

/// Octets that take a worker as long as a packet does by itself.
const OCTETS_A_PACKET: u64 = 512;

/// SPIs that are tried for a worker, before any other's will do.
const TRIES_A_WORKER: u32 = 32;

/// What is known of workers.
#[derive(Debug, Default)]
pub struct Placement {
    workers: Vec<Worker>,
    /// How many workers a datapath will have, while there is none.
    pub usual: u16,
    looked_ms: Option<u64>,
}

/// What a worker has to do.
#[derive(Clone, Copy, Default, Debug)]
struct Worker {
    /// What it had done when it was looked at: packets, and octets as packets.
    done: u64,
    /// What it did in a second.
    a_second: u64,
    /// What those are likely to bring that were put here since.
    expected: u64,
    /// SAs that were put here.
    placed: u64,
}

impl Placement {
    /// An SPI that no inbound SA has, of the worker that has the least to do (RFC 4303 §2.1: 0 to 255 are reserved).
    /// Nothing if there is no room for a pair of SAs.
    pub fn spi(&mut self, sadb: &Sadb, now_ms: u64, rng: &mut impl Rng) -> Option<u32> {
        let (sizes, live) = (sadb.sizes(), sadb.live_sas());
        if live + 2 > sizes.max_sas {
            return None;
        }
        if self.looked_ms.is_none_or(|then| now_ms >= then + LOOK_MS) {
            self.look(&done(sadb.runtime()), now_ms);
        }
        self.pick(u64::from(live), rng, |spi| sadb.find(Spi(spi)).is_none())
    }

    /// How many workers there are, or will be.
    pub fn workers(&self) -> u16 {
        match self.workers.len() {
            0 => self.usual.max(1),
            workers => workers as u16,
        }
    }

    /// Notes what each worker has done until now.
    fn look(&mut self, done: &[u64], now_ms: u64) {
        let passed_ms = self.looked_ms.map(|then| (now_ms - then).max(1));
        // After another start they count anew, and may be others.
        let is_known = self.workers.len() == done.len();
        self.workers.resize(done.len(), Worker::default());
        for (worker, done) in self.workers.iter_mut().zip(done) {
            let more = done.checked_sub(worker.done).filter(|_| is_known);
            worker.a_second = more.zip(passed_ms).map_or(0, |(more, ms)| more.saturating_mul(1_000) / ms);
            (worker.done, worker.expected) = (*done, 0);
        }
        self.looked_ms = Some(now_ms);
    }

    fn pick(&mut self, live: u64, rng: &mut impl Rng, is_free: impl Fn(u32) -> bool) -> Option<u32> {
        let all: u64 = self.workers.iter().map(|worker| worker.a_second).sum();
        let least = (0u32..)
            .zip(&self.workers)
            .min_by_key(|(_, worker)| (worker.a_second + worker.expected, worker.placed))
            .map(|(at, _)| at);
        let workers = self.workers.len() as u32;
        let mut free = (0..TRIES_A_WORKER * workers.max(2))
            .map(|_| rng.next_u32())
            .filter(|spi| *spi > 255 && is_free(*spi));
        let mut other = None;
        let mut is_of = |spi: &u32| {
            other.get_or_insert(*spi);
            least.is_none_or(|least| worker_of_spi(*spi, workers) == least)
        };
        let spi = free.find(&mut is_of).or(other)?;
        if workers > 0 {
            let worker = &mut self.workers[worker_of_spi(spi, workers) as usize];
            worker.expected += (all / live.max(1)).max(1);
            worker.placed += 1;
        }
        Some(spi)
    }
}

/// What each worker has done: what it seals and opens, it sends. None while there is no datapath.
fn done(runtime: &RuntimeReader) -> Vec<u64> {
    let workers = (0..runtime.workers() as usize).filter_map(|w| runtime.worker(w));
    workers.map(|worker| work(&worker.traffic)).collect()
}

fn work(traffic: &Traffic) -> u64 {
    traffic.tx_packets + traffic.tx_bytes / OCTETS_A_PACKET
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Randomness of a number.
    struct Numbers(u64);

    impl rand_core::TryRng for Numbers {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            self.try_next_u64().map(|n| (n >> 32) as u32)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            Ok(self.0)
        }

        fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
            octets.fill_with(|| self.0 as u8);
            Ok(())
        }
    }

    fn placed(placement: &mut Placement, live: u64, n: usize) -> Vec<usize> {
        let mut rng = Numbers(1);
        let workers = placement.workers.len();
        let mut of = vec![0; workers];
        for _ in 0..n {
            let spi = placement.pick(live, &mut rng, |_| true).unwrap();
            of[worker_of_spi(spi, workers as u32) as usize] += 1;
        }
        of
    }

    #[test]
    fn workers_with_as_much_to_do_get_as_many() {
        let mut placement = Placement::default();
        placement.look(&[0; 4], 0);
        assert_eq!(placed(&mut placement, 0, 400), [100; 4]);
        // As few in a second as can be are spread, too.
        for second in 1..=4 {
            placement.look(&[0; 4], second * 1_000);
            placed(&mut placement, 0, 1);
        }
        let of: Vec<_> = placement.workers.iter().map(|worker| worker.placed).collect();
        assert_eq!(of, [101; 4]);
    }

    #[test]
    fn who_has_much_to_do_gets_few() {
        let mut placement = Placement::default();
        placement.look(&[0; 3], 0);
        placement.look(&[9_000_000, 1_000, 1_000], 10_000);
        // The 10 SAs bring 90 thousand a second each: one worker has them all.
        let of = placed(&mut placement, 10, 20);
        assert_eq!(of.iter().sum::<usize>(), 20);
        assert!(of[0] <= 1 && of[1].abs_diff(of[2]) <= 1, "{of:?}");
        // Another datapath has done less than the one before, or has other workers.
        placement.look(&[5, 5, 5], 11_000);
        assert!(placement.workers.iter().all(|worker| worker.a_second == 0));
        placement.look(&[5, 5], 12_000);
        assert!(placement.workers.iter().all(|worker| worker.a_second == 0));
    }

    #[test]
    fn without_a_datapath_any_spi_that_is_free_will_do() {
        let mut placement = Placement::default();
        placement.look(&[], 0);
        let mut rng = Numbers(1);
        let first = placement.pick(0, &mut rng, |_| true).unwrap();
        let second = placement.pick(0, &mut Numbers(1), |spi| spi != first).unwrap();
        assert!(first > 255 && second > 255 && first != second);
        assert_eq!(placement.pick(0, &mut rng, |_| false), None);
    }

    #[test]
    fn where_no_spi_of_a_worker_is_free_another_gets_it() {
        let mut placement = Placement::default();
        placement.look(&[0, 0], 0);
        let of_second = |spi| worker_of_spi(spi, 2) == 1;
        let spi = placement.pick(0, &mut Numbers(1), of_second).unwrap();
        assert!(of_second(spi));
    }
}
