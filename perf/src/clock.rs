//! The time-stamp counter, and the machine that it counts on.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Clocks since some time: of the TSC, which need not tick as the core does. On other machines nanoseconds.
#[inline]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has both instructions, and they touch no memory. The fence ends what came before, so
    // that its clocks are not counted as the next hop's.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Seconds that somebody says, from 0 to a day and some hours.
///
/// # Errors
/// Anything else.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|n| (0.0..=1e5).contains(n));
    number.map(Duration::from_secs_f64).ok_or_else(|| "from 0 to 100000 seconds".to_owned())
}

/// The same, but for 0.
///
/// # Errors
/// Anything else.
pub fn some_seconds(text: &str) -> Result<Duration, String> {
    let some = seconds(text).ok().filter(|time| !time.is_zero());
    some.ok_or_else(|| "above 0, and up to 100000 seconds".to_owned())
}

/// What one call of [`now`] costs.
pub fn overhead() -> u64 {
    (0..1000).map(|_| now().abs_diff(now())).min().unwrap_or(0)
}

/// Additions that wait for each other: one clock of the core each.
const ADDITIONS: u64 = 20_000;

/// Clocks of [`now`] that they take.
fn additions() -> u64 {
    let start = now();
    let mut sum = 1u64;
    for _ in 0..ADDITIONS / 100 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: it changes nothing but the operand.
        unsafe {
            std::arch::asm!(".rept 100", "add {0}, {0}", ".endr", inout(reg) sum, options(nomem, nostack));
        }
        #[cfg(not(target_arch = "x86_64"))]
        (0..100).for_each(|_| sum = std::hint::black_box(sum.wrapping_add(sum)));
    }
    std::hint::black_box(sum);
    now() - start
}

/// Rounds of [`piece`].
const ROUNDS: u64 = 200_000;

/// Clocks that a piece of arithmetic takes, which is always the same: products that do not wait for each other, without
/// memory. They are as slow as the core is just now, whoever else has a part of it.
pub fn piece() -> u64 {
    let start = now();
    let mut chains = std::hint::black_box([1u64, 3, 5, 7]);
    for _ in 0..ROUNDS {
        chains = chains.map(|n| n.wrapping_mul(0x2545_f491_4f6c_dd1d));
    }
    std::hint::black_box(chains);
    now() - start
}

/// Where the numbers were taken.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The CPU, as the kernel names it.
    pub cpu: String,
    /// Clocks per second.
    pub hz: f64,
}

impl Machine {
    /// This one; takes a tenth of a second.
    pub fn this() -> Machine {
        let (from, start) = (now(), Instant::now());
        std::thread::sleep(Duration::from_millis(100));
        let hz = (now() - from) as f64 / start.elapsed().as_secs_f64();
        Machine { cpu: cpu("model name"), hz }
    }

    /// Clocks per second of the core itself, just now: it may run faster or slower than the TSC counts.
    pub fn core_hz(&self) -> f64 {
        self.hz * ADDITIONS as f64 / (0..100).map(|_| additions()).min().unwrap_or(1).max(1) as f64
    }
}

/// What the kernel says of the first CPU, by its key in /proc/cpuinfo.
pub fn cpu(key: &str) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix(key)?.split_once(": "));
    line.map_or("unknown", |(_, value)| value).to_owned()
}

/// Octets of memory that this program has, and the most that it had.
pub fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) * 1024, field("VmHWM:").unwrap_or(0) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_what_a_clock_can_count() {
        for (text, millis) in [("0", 0), ("0.5", 500), ("1e5", 100_000_000)] {
            assert_eq!(seconds(text), Ok(Duration::from_millis(millis)));
        }
        for wrong in ["-1", "-0.1", "1e30", "nan", "inf", "", "1s"] {
            assert_eq!(seconds(wrong).unwrap_err(), "from 0 to 100000 seconds", "{wrong}");
        }
        assert_eq!(some_seconds("0.5"), Ok(Duration::from_millis(500)));
        // Less than a clock counts is none.
        for wrong in ["0", "-0", "1e-30", "-1", "1e30"] {
            assert!(some_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
