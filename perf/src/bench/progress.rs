//! What is told of a measurement on its way, on stderr: a line that changes on a terminal, elsewhere one every ten seconds.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

/// Columns of the bar.
const BAR: usize = 20;

/// Of a measurement.
pub struct Bar {
    start: Instant,
    told: Option<Instant>,
}

impl Default for Bar {
    fn default() -> Bar {
        Bar { start: Instant::now(), told: None }
    }
}

impl Bar {
    /// How long it has taken so far.
    pub fn spent(&self) -> Duration {
        self.start.elapsed()
    }

    /// Tells what was done last. `left`: about how long it takes until the end.
    pub fn tell(&mut self, what: &str, left: Duration) {
        let (mut out, spent) = (stderr(), self.start.elapsed());
        let part = spent.as_secs_f64() / (spent + left).as_secs_f64().max(1e-9);
        let full = ((part * BAR as f64) as usize).min(BAR);
        let line = format!(
            "[{}{}] {:3.0} %, about {} left: {what}",
            "#".repeat(full),
            ".".repeat(BAR - full),
            100.0 * part,
            minutes(left)
        );
        // Who cannot be told is not waiting.
        if out.is_terminal() {
            _ = write!(out, "\r\x1b[K{line}");
        } else if self.told.is_none_or(|told| told.elapsed() >= Duration::from_secs(10)) {
            self.told = Some(Instant::now());
            _ = writeln!(out, "{line}");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if stderr().is_terminal() {
            _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn minutes(left: Duration) -> String {
    let seconds = left.as_secs_f64().round() as u64;
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {} s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_minutes_and_seconds() {
        let of = |seconds| minutes(Duration::from_secs(seconds));
        assert_eq!([of(0), of(59), of(60), of(3601)], ["0 s", "59 s", "1 min 0 s", "60 min 1 s"]);
    }
}
