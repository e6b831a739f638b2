//! Two reports, figure by figure: by how much the means differ, between what bounds with 95 %, and what that says.
//!
//! The bounds are Welch's: samples of each are taken to be normal, with a variance of their own (Welch, Biometrika 34, 1947).
//! One sample has no variance, so that nothing follows from it.

use super::{Figure, Report, Table};
use std::fmt;

/// Two-sided 95 % of Student's t, by degrees of freedom from 1 to 30.
const T95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// What follows of two figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The second is better.
    Better,
    /// The second is worse.
    Worse,
    /// Nothing, at 95 %.
    Same,
    /// One of them was measured once.
    Once,
    /// The second does not have it, which is worse.
    Gone,
}

/// A figure that the first has.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// The means; not a number where the second does not have it.
    pub means: [f64; 2],
    /// What the second is more, as a part of the first, and between what with 95 %, if that can be said. Not a number where the
    /// first is 0, or the second does not have it.
    pub change: (f64, Option<(f64, f64)>),
    /// What follows.
    pub verdict: Verdict,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "no difference",
            Verdict::Once => "unknown: measured once",
            Verdict::Gone => "worse: not in the second",
        })
    }
}

/// Mean and variance of the mean, and degrees of freedom.
fn moments(samples: &[f64]) -> (f64, f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|s| (s - mean).powi(2)).sum();
    (mean, squares / (n - 1.0) / n, n - 1.0)
}

/// How what the second has differs from the first.
fn difference(one: &Figure, other: Option<&Figure>) -> Difference {
    let (name, unit) = (one.name.clone(), one.unit.clone());
    let (a, va, na) = moments(&one.samples);
    let Some(other) = other.filter(|other| !other.samples.is_empty()) else {
        let (means, change) = ([a, f64::NAN], (f64::NAN, None));
        return Difference { name, unit, means, change, verdict: Verdict::Gone };
    };
    let (b, vb, nb) = moments(&other.samples);
    let bounds = (na > 0.0 && nb > 0.0).then(|| {
        let variance = va + vb;
        // Welch and Satterthwaite.
        let freedom = variance.powi(2) / (va.powi(2) / na + vb.powi(2) / nb);
        let freedom = if freedom.is_nan() { na + nb } else { freedom };
        let t = T95.get((freedom.floor() as usize).max(1) - 1).copied().unwrap_or(1.96 + 2.5 / freedom);
        let half = t * variance.sqrt();
        (b - a - half, b - a + half)
    });
    let verdict = match bounds {
        None => Verdict::Once,
        Some((low, high)) if low <= 0.0 && high >= 0.0 => Verdict::Same,
        Some((low, _)) if (low > 0.0) == one.more_is_better => Verdict::Better,
        Some(_) => Verdict::Worse,
    };
    // Nothing is a part of nothing.
    let part = |value: f64| if a == 0.0 { f64::NAN } else { value / a.abs() };
    let change = (part(b - a), bounds.map(|(low, high)| (part(low), part(high))));
    Difference { name, unit, means: [a, b], change, verdict }
}

/// The figures that the first has, in their order.
///
/// # Errors
/// They have none in common, or were taken in different places.
pub fn differences(one: &Report, other: &Report) -> Result<Vec<Difference>, String> {
    if one.taken != other.taken {
        return Err(format!(
            "one was taken {}, and the other {}: they say nothing of each other",
            one.taken, other.taken
        ));
    }
    let same = |figure: &Figure| {
        let is_it = |of: &&Figure| (&of.name, &of.unit) == (&figure.name, &figure.unit);
        other.figures.iter().find(is_it)
    };
    if !one.figures.iter().any(|figure| same(figure).is_some()) {
        return Err(format!("no figure is in both: '{}' and '{}'", one.title, other.title));
    }
    let measured = one.figures.iter().filter(|figure| !figure.samples.is_empty());
    Ok(measured.map(|figure| difference(figure, same(figure))).collect())
}

/// As a table.
pub fn table(differences: &[Difference]) -> Table {
    let mut table = Table::new(&["Figure", "First", "Second", "Change", "Between, at 95 %", "Verdict"]);
    let percent = |part: f64| match part.is_finite() {
        true => format!("{:+.2} %", 100.0 * part),
        false => "-".to_owned(),
    };
    for Difference { name, unit, means, change, verdict } in differences {
        let value = |value: f64| match value.is_nan() {
            true => "-".to_owned(),
            false => format!("{value:.6} {unit}"),
        };
        let bounds =
            change.1.map_or("-".to_owned(), |(low, high)| format!("{} and {}", percent(low), percent(high)));
        table.rows.push(vec![
            name.clone(),
            value(means[0]),
            value(means[1]),
            percent(change.0),
            bounds,
            verdict.to_string(),
        ]);
    }
    table
}
