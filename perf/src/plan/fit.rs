//! A model from samples: weighted least squares over terms that are never negative, in which samples that are far from all
//! others count little.
//!
//! Each sample counts by how exact it is, as a part of what it says: to miss 100 clocks by 5 is as bad as to miss 1000 by
//! 50. No cost is negative, so that a term for which the samples say nothing, or less than nothing, is left at 0 (Lawson and
//! Hanson's active set). Then weights go down for what is far from the fit, first by Huber's function and then by Tukey's,
//! which leaves out what is hopeless, until nothing moves.

use super::model::{Model, Per, Point, Reach, Term};
use thiserror::Error;

/// No sample is more exact than this part of what it says: a model of few terms is not either.
const EXACT: f64 = 0.01;

/// Rounds of weights by each function.
const ROUNDS: usize = 20;

/// Where Huber's and Tukey's functions bend, in standard deviations: with these, exact samples lose 5 % of what they say.
const HUBER: f64 = 1.345;
const TUKEY: f64 = 4.685;

/// The median of how far samples are from a fit, of a standard deviation.
const MEDIAN_OF_DEVIATION: f64 = 0.6745;

/// Why there is no model.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum FitError {
    /// There are not enough samples to say anything of what others will be.
    #[error("{have} samples cannot tell {terms} costs apart; measure more sizes or numbers of SAs")]
    TooFew {
        /// Samples.
        have: usize,
        /// Costs that were to be found.
        terms: usize,
    },
    /// A sample is not a measurement.
    #[error("a sample says {clocks} clocks give or take {spread}: neither may be negative, nor the first 0")]
    NotASample {
        /// Its clocks.
        clocks: f64,
        /// Its spread.
        spread: f64,
    },
}

/// What was measured at a point.
#[derive(Clone, Debug)]
pub struct Observation<'a> {
    /// Where.
    pub point: Point<'a>,
    /// Clocks of a packet.
    pub clocks: f64,
    /// How many of these have another cause, which is known: the model is of the rest.
    pub known: f64,
    /// Standard deviation of all, as a part of them.
    pub spread: f64,
}

/// The model of what was measured on one path, by whichever of these terms the observations tell apart.
///
/// # Errors
/// [`FitError`].
pub fn fit(observed: &[Observation<'_>], terms: &[Per]) -> Result<Model, FitError> {
    let points = || observed.iter().map(|o| &o.point);
    let terms: Vec<Per> =
        terms.iter().copied().filter(|per| *per == Per::Packet || varies(*per, points())).collect();
    let (have, too_few) = (observed.len(), FitError::TooFew { have: observed.len(), terms: terms.len() });
    if have <= terms.len() {
        return Err(too_few);
    }
    for &Observation { clocks, spread, .. } in observed {
        if !(clocks.is_finite() && clocks > 0.0 && spread.is_finite() && spread >= 0.0) {
            return Err(FitError::NotASample { clocks, spread });
        }
    }
    // In units of each observation's own deviation.
    let deviations: Vec<f64> = observed.iter().map(|o| o.spread.max(EXACT) * o.clocks).collect();
    let row =
        |(point, deviation): (&Point<'_>, &f64)| terms.iter().map(|t| t.count(point) / deviation).collect();
    let rows: Vec<Vec<f64>> = points().zip(&deviations).map(row).collect();
    let goals: Vec<f64> =
        observed.iter().zip(&deviations).map(|(o, deviation)| (o.clocks - o.known) / deviation).collect();

    let mut weights = vec![1.0; have];
    let mut found = non_negative(&rows, &goals, &weights);
    for round in 0..2 * ROUNDS {
        let off: Vec<f64> = rows.iter().zip(&goals).map(|(row, goal)| goal - dot(row, &found)).collect();
        let scale = median(off.iter().map(|r| r.abs()).collect()) / MEDIAN_OF_DEVIATION;
        if scale < 1e-9 {
            break; // all but a few are met exactly
        }
        let weigh = |off: &f64| match off.abs() / scale {
            far if round < ROUNDS => (HUBER / far).min(1.0),
            far if far < TUKEY => (1.0 - (far / TUKEY).powi(2)).powi(2),
            _ => 0.0,
        };
        weights = off.iter().map(weigh).collect();
        found = non_negative(&rows, &goals, &weights);
    }

    let free: Vec<usize> = (0..terms.len()).filter(|t| found[*t] > 0.0).collect();
    // How noisy it is, of all that is not left out.
    let kept = rows.iter().zip(&goals).zip(&weights).filter(|(_, weight)| **weight > 0.0);
    let off: Vec<f64> = kept.map(|((row, goal), _)| (goal - dot(row, &found)).powi(2)).collect();
    let freedom = off.len().saturating_sub(free.len());
    if freedom == 0 {
        return Err(too_few);
    }
    let variance = off.iter().sum::<f64>() / freedom as f64;
    let inverse = invert(&products(&rows, &weights, &free)).ok_or(too_few)?;
    let mut covariance = vec![vec![0.0; terms.len()]; terms.len()];
    for (i, &row) in free.iter().enumerate() {
        for (j, &column) in free.iter().enumerate() {
            covariance[row][column] = inverse[i][j] * variance;
        }
    }
    let relative =
        |(o, deviation): (&Observation<'_>, &f64)| deviation / (o.clocks - o.known).max(*deviation);
    let relative = median(observed.iter().zip(&deviations).map(relative).collect());
    let terms = terms.into_iter().zip(found).map(|(per, clocks)| Term { per, clocks }).collect();
    let noise = variance.sqrt() * relative;
    Ok(Model { terms, covariance, noise, freedom: freedom as u32, reach: reach(points()) })
}

/// All terms of a path of which these points are. A packet of more than `chunk` octets is in several chunks.
pub fn terms<'a>(points: impl Iterator<Item = &'a Point<'a>>, chunk: u32) -> Vec<Per> {
    let many = parts(points).into_iter().flat_map(|(from, to, open)| {
        [Per::ManySas { from, to, open }, Per::ManySasOctets { from, to, open }]
    });
    let of_packets = [Per::Packet, Per::Batch, Per::ShortOctet, Per::LongOctet, Per::LongPacket];
    of_packets.into_iter().chain([Per::Chunk { octets: chunk }, Per::OtherSize]).chain(many).collect()
}

/// Those that tell what several workers take beside what one does, of which there is less to tell, and less is measured.
pub fn terms_of_several<'a>(points: impl Iterator<Item = &'a Point<'a>>) -> Vec<Per> {
    let many = parts(points).into_iter().map(|(from, to, open)| Per::ManySas { from, to, open });
    [Per::Packet, Per::ShortOctet, Per::LongOctet, Per::OtherSize].into_iter().chain(many).collect()
}

/// SAs count from each number of them to the next: where each part begins and ends, and whether it goes on beyond.
fn parts<'a>(points: impl Iterator<Item = &'a Point<'a>>) -> Vec<(u32, u32, bool)> {
    let mut sas: Vec<u32> = points.map(|p| p.sas as u32).collect();
    sas.sort_unstable();
    sas.dedup();
    let parts = sas.len().saturating_sub(1);
    sas.windows(2).enumerate().map(|(i, ends)| (ends[0], ends[1], i + 1 == parts)).collect()
}

/// Whether points have more or less of it: else it cannot be told from what each packet costs.
fn varies<'a>(per: Per, points: impl Iterator<Item = &'a Point<'a>>) -> bool {
    let mut counts = points.map(|p| per.count(p));
    let first = counts.next().unwrap_or(0.0);
    counts.any(|n| (n - first).abs() > 1e-12)
}

fn reach<'a>(points: impl Iterator<Item = &'a Point<'a>> + Clone) -> Reach {
    let extremes = || points.clone().map(|p| p.sizes.extremes());
    let sas = || points.clone().map(|p| p.sas as u32);
    Reach {
        octets: (
            extremes().map(|(least, _)| least).min().unwrap_or(0),
            extremes().map(|(_, most)| most).max().unwrap_or(0),
        ),
        sas: (sas().min().unwrap_or(0), sas().max().unwrap_or(0)),
        mixed: points.clone().any(|p| p.sizes.shares().variety() > 0.0),
    }
}

/// The x of least squares none of which is negative: Lawson and Hanson, Solving Least Squares Problems, chapter 23.
fn non_negative(rows: &[Vec<f64>], goals: &[f64], weights: &[f64]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    let all: Vec<usize> = (0..n).collect();
    // Columns of about the same length, for numbers that can be compared.
    let scale: Vec<f64> =
        (0..n).map(|t| rows.iter().map(|row| row[t] * row[t]).sum::<f64>().sqrt()).collect();
    let scaled =
        |row: &Vec<f64>| row.iter().zip(&scale).map(|(x, s)| if *s > 0.0 { x / s } else { 0.0 }).collect();
    let rows: Vec<Vec<f64>> = rows.iter().map(scaled).collect();
    let full = products(&rows, weights, &all);
    let right: Vec<f64> = (0..n)
        .map(|t| rows.iter().zip(goals).zip(weights).map(|((row, g), w)| w * row[t] * g).sum())
        .collect();
    let enough = 1e-10 * right.iter().fold(0.0f64, |most, r| most.max(r.abs()));
    let (mut x, mut free) = (vec![0.0; n], Vec::<usize>::new());
    // Each round frees one more; that some are bound again ends, since the sum of squares falls each time.
    for _ in 0..10 * n {
        let gain = |t: &usize| right[*t] - dot(&full[*t], &x);
        let bound = all.iter().copied().filter(|t| !free.contains(t)).map(|t| (gain(&t), t));
        let Some((_, next)) = bound.filter(|(gain, _)| *gain > enough).max_by(|a, b| a.0.total_cmp(&b.0))
        else {
            break;
        };
        free.push(next);
        loop {
            let chosen: Vec<Vec<f64>> =
                free.iter().map(|i| free.iter().map(|j| full[*i][*j]).collect()).collect();
            let goal: Vec<f64> = free.iter().map(|t| right[*t]).collect();
            let Some(inverse) = invert(&chosen) else {
                free.pop(); // it is a sum of others: they have its clocks already
                break;
            };
            let best: Vec<f64> = inverse.iter().map(|row| dot(row, &goal)).collect();
            let step = free.iter().zip(&best).filter(|(_, b)| **b <= 0.0);
            let step = step.map(|(t, b)| x[*t] / (x[*t] - b)).fold(1.0, f64::min);
            for (t, b) in free.iter().zip(&best) {
                x[*t] += step * (b - x[*t]);
            }
            if step >= 1.0 {
                break;
            }
            let gone: Vec<usize> = free.iter().copied().filter(|t| x[*t] <= 1e-12).collect();
            gone.iter().for_each(|t| x[*t] = 0.0);
            free.retain(|t| !gone.contains(t));
        }
    }
    x.iter().zip(&scale).map(|(x, s)| if *s > 0.0 { x / s } else { 0.0 }).collect()
}

/// Weighted sums of products of columns.
fn products(rows: &[Vec<f64>], weights: &[f64], of: &[usize]) -> Vec<Vec<f64>> {
    let sum = |i: usize, j: usize| rows.iter().zip(weights).map(|(row, w)| w * row[i] * row[j]).sum();
    of.iter().map(|i| of.iter().map(|j| sum(*i, *j)).collect()).collect()
}

/// The inverse of a symmetric matrix, by elimination; none if it has none that could be told from noise.
fn invert(matrix: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let n = matrix.len();
    let unit = |i: usize| (0..n).map(move |j| if i == j { 1.0 } else { 0.0 });
    let mut both: Vec<Vec<f64>> =
        matrix.iter().enumerate().map(|(i, row)| row.iter().copied().chain(unit(i)).collect()).collect();
    for i in 0..n {
        let pivot = (i..n).max_by(|a, b| both[*a][i].abs().total_cmp(&both[*b][i].abs()))?;
        both.swap(i, pivot);
        let of = both[i][i];
        let largest = matrix.iter().map(|row| row[i].abs()).fold(0.0, f64::max);
        if of.abs() <= 1e-12 * largest || !of.is_normal() {
            return None;
        }
        both[i].iter_mut().for_each(|x| *x /= of);
        let row = both[i].clone();
        for (_, other) in both.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = other[i];
            other.iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
        }
    }
    Some(both.into_iter().map(|row| row[n..].to_vec()).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The middle one, or between the two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    values.get(low).zip(values.get(high)).map_or(0.0, |(a, b)| (a + b) / 2.0)
}
