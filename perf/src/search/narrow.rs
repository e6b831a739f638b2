//! Which load to try next.

use super::Bounds;
use crate::trial::Load;

/// Where the bounds of a target are looked for first.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Guess {
    pub(super) lower: Load,
    pub(super) upper: Load,
}

impl Guess {
    /// As far from a load, either way, as the width says.
    pub(super) fn around(load: Load, width: f64) -> Guess {
        Guess { lower: Load(load.0 * (1.0 - width)), upper: Load(load.0 / (1.0 - width)) }
    }

    /// What a target has found, for the next; as it was, if that is nothing.
    pub(super) fn refine(self, found: Bounds) -> Guess {
        let lower = found.lower.or(found.upper).unwrap_or(self.lower);
        Guess { lower, upper: found.upper.or(found.lower).unwrap_or(self.upper) }
    }
}

/// The load to try, between the limits, while the bounds are not yet within the width; None if they are, or if one of them
/// is a limit and there is no other. It is never one that is decided.
pub(super) fn next(bounds: Bounds, guess: Guess, width: f64, (min, max): (Load, Load)) -> Option<Load> {
    let Bounds { lower, upper } = bounds;
    if bounds.are_within(width) || lower == Some(max) || upper == Some(min) {
        return None;
    }
    // First the middle of the guess: whatever it proves to be, one end of the guess is left to try. The lower end comes
    // before the upper: what a small load is may change what is known of larger ones (§5.3.4).
    let middle = middle(guess.lower, guess.upper).clamp(min, max);
    let between = |load: &Load| lower.is_none_or(|l| l < *load) && upper.is_none_or(|u| *load < u);
    let ends = [guess.lower.clamp(min, max), guess.upper.clamp(min, max)];
    let guessed = [middle].into_iter().chain(ends).find(between);
    guessed.or_else(|| beyond(bounds, middle, width)).map(|load| load.clamp(min, max))
}

/// Beyond the guess: twice as far from its middle each time, by ratio, and at least by the width; between two bounds at
/// most to half way.
fn beyond(Bounds { lower, upper }: Bounds, guessed: Load, width: f64) -> Option<Load> {
    let above = |l: Load| Load(l.0 * (l.0 / guessed.0).max(1.0 / (1.0 - width)));
    let below = |u: Load| Load(u.0 * (u.0 / guessed.0).min(1.0 - width));
    Some(match (lower, upper) {
        (None, None) => return None,
        (Some(l), None) => above(l),
        (None, Some(u)) => below(u),
        (Some(l), Some(u)) if l > guessed => above(l).min(middle(l, u)),
        (Some(l), Some(u)) if u < guessed => below(u).max(middle(l, u)),
        (Some(l), Some(u)) => middle(l, u),
    })
}

/// As many times one as the other is times it.
fn middle(l: Load, u: Load) -> Load {
    if l == u { l } else { Load((l.0 * u.0).sqrt()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: (Load, Load) = (Load(1e3), Load(1e8));
    const WIDTH: f64 = 0.005;

    /// The loads that are tried where all up to a rate pass, and how it ends.
    fn tried(rate: f64, guess: Guess, width: f64) -> (Vec<f64>, Bounds) {
        let (mut bounds, mut tried) = (Bounds { lower: None, upper: None }, Vec::new());
        while let Some(load) = next(bounds, guess, width, LIMITS) {
            assert!(!tried.contains(&load.0), "{load:?} twice");
            tried.push(load.0);
            *if load.0 <= rate { &mut bounds.lower } else { &mut bounds.upper } = Some(load);
        }
        (tried, bounds)
    }

    #[test]
    fn a_good_guess_takes_two_loads() {
        for rate in [9.951e6, 9.99e6, 1e7, 1.0049e7] {
            let (tried, bounds) = tried(rate, Guess::around(Load(1e7), WIDTH), WIDTH * 1.000_001);
            assert_eq!(tried.len(), 2, "{rate}: {tried:?}");
            assert!(bounds.are_within(WIDTH * 1.000_001));
        }
    }

    #[test]
    fn a_limit_is_tried_and_ends_it() {
        let guess = Guess::around(Load(5e7), WIDTH);
        assert_eq!(tried(2e8, guess, WIDTH).1, Bounds { lower: Some(LIMITS.1), upper: None });
        assert_eq!(tried(1.0, guess, WIDTH).1, Bounds { lower: None, upper: Some(LIMITS.0) });
        let (at_limit, _) = tried(2e8, Guess::around(Load(9e8), WIDTH), WIDTH);
        assert_eq!(at_limit, [LIMITS.1.0]);
    }

    #[test]
    fn a_hidden_rate_is_found_below_an_upper_bound_far_above() {
        let bounds = Bounds { lower: Some(Load(2.1e6)), upper: Some(LIMITS.1) };
        let load = next(bounds, Guess::around(Load(2e6), 0.05), WIDTH, LIMITS).unwrap();
        assert!(load.0 < 2.5e6, "{load:?} is too far from where the rate was guessed");
    }

    proptest! {
        #[test]
        fn any_rate_is_found_from_any_guess(
            rate in (3.01..7.99f64).prop_map(|e| 10f64.powf(e)),
            guess in (2.0..9.0f64).prop_map(|e| 10f64.powf(e)),
            guess_width in 0.0..0.5f64,
            width in prop::sample::select(vec![1e-6, 0.005, 0.05, 0.5]),
        ) {
            let (tried, bounds) = tried(rate, Guess::around(Load(guess), guess_width), width);
            prop_assert!(bounds.are_within(width));
            prop_assert!(bounds.lower.unwrap().0 <= rate && rate < bounds.upper.unwrap().0);
            prop_assert!(tried.len() < 60, "{} loads", tried.len());
        }
    }
}
