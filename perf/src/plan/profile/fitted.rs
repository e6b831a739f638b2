//! A profile from samples.

use super::{
    Estimate, FORMAT, Host, MEMORY, PathCost, PortCost, Profile, ProfileError, Sample, VERSION, Way,
    WorkersCost,
};
use crate::plan::{
    fit::{self, FitError, Observation, median},
    model::Per,
};
use std::collections::{BTreeMap, BTreeSet};

impl Profile {
    /// The profile that samples of a host tell. Order of samples does not matter.
    ///
    /// # Errors
    /// [`ProfileError::Fit`], [`ProfileError::NothingToCompare`].
    pub fn fit(host: Host, samples: Vec<Sample>) -> Result<Profile, ProfileError> {
        let mut of: BTreeMap<(String, Way), Vec<&Sample>> = BTreeMap::new();
        for sample in &samples {
            of.entry((sample.algorithm.clone(), sample.direction)).or_default().push(sample);
        }
        let mut paths = vec![];
        for ((algorithm, direction), samples) in of {
            let alone = samples.into_iter().filter(|s| s.workers == 1 && s.port == MEMORY);
            let alone: Vec<&Sample> = alone.collect();
            if alone.is_empty() {
                return Err(ProfileError::NothingToCompare { algorithm, direction });
            }
            let path = PathCost::fit((&algorithm, direction), &alone, host.chunk);
            paths.push(path.map_err(|source| ProfileError::Fit { algorithm, direction, source })?);
        }
        let (workers, ports) = (vec![], vec![]);
        let mut profile =
            Profile { format: FORMAT.to_owned(), version: VERSION, host, paths, workers, ports, samples };
        profile.workers = profile.fit_workers();
        profile.ports = profile.fit_ports()?;
        Ok(profile)
    }

    /// How far each sample is from what is predicted for it, as a part of that.
    pub fn residuals(&self) -> Vec<(&Sample, f64)> {
        let residual = |s: &Sample| {
            let known = self.predict((&s.algorithm, s.direction), &s.sizes, (s.sas, s.workers), &s.port);
            known.map(|(clocks, _)| s.clocks / clocks.value - 1.0)
        };
        self.samples.iter().filter_map(|s| Some((s, residual(s)?))).collect()
    }

    fn fit_workers(&self) -> Vec<WorkersCost> {
        let mut ratios: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.workers > 1 && s.port == MEMORY) {
            if let Some(path) = self.path(&sample.algorithm, sample.direction) {
                let ratio = sample.clocks / path.whole.predict(&sample.point()).value;
                ratios.entry(sample.workers).or_default().push(ratio);
            }
        }
        // More of them are never less in each other's way.
        let mut least = 1.0f64;
        let fitted = ratios.into_iter().map(|(workers, ratios)| {
            let middle = median(ratios.clone());
            let off = median(ratios.iter().map(|ratio| (ratio - middle).abs()).collect());
            least = least.max(middle);
            // 1.96 standard deviations, of which the median of what they are off is 0.6745.
            WorkersCost { workers, factor: Estimate { value: least, give_or_take: off * 1.96 / 0.6745 } }
        });
        fitted.collect()
    }

    fn fit_ports(&self) -> Result<Vec<PortCost>, ProfileError> {
        let mut kinds: BTreeMap<(String, Way), Vec<(&Sample, f64)>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.port != MEMORY) {
            let in_memory = self.predict(
                (&sample.algorithm, sample.direction),
                &sample.sizes,
                (sample.sas, sample.workers),
                MEMORY,
            );
            if let Some((clocks, _)) = in_memory {
                // Whatever several workers cost scales what ports do, too.
                let extra = (sample.clocks - clocks.value) / self.factor(sample.workers).value;
                kinds.entry((sample.port.clone(), sample.direction)).or_default().push((sample, extra));
            }
        }
        let fitted = kinds.into_iter().map(|((kind, direction), samples)| {
            let observed = samples.iter().map(|(sample, extra)| Observation {
                point: sample.point(),
                clocks: *extra,
                spread: sample.spread * sample.clocks / extra.max(f64::MIN_POSITIVE),
            });
            let observed: Vec<_> = observed.collect();
            let extra = fit::fit(&observed, &[Per::Packet, Per::ShortOctet, Per::LongOctet]);
            let extra =
                extra.map_err(|source| ProfileError::Fit { algorithm: kind.clone(), direction, source })?;
            Ok(PortCost { kind, direction, extra })
        });
        fitted.collect()
    }
}

impl PathCost {
    fn fit(
        (algorithm, direction): (&str, Way),
        samples: &[&Sample],
        chunk: u32,
    ) -> Result<PathCost, FitError> {
        let model = |samples: &[(&Sample, f64)]| {
            let observed = samples.iter().map(|(s, clocks)| Observation {
                point: s.point(),
                clocks: *clocks,
                spread: s.spread,
            });
            let observed: Vec<Observation<'_>> = observed.collect();
            fit::fit(&observed, &fit::terms(observed.iter().map(|o| &o.point), chunk))
        };
        let whole: Vec<(&Sample, f64)> = samples.iter().map(|s| (*s, s.clocks)).collect();
        let names = samples.iter().flat_map(|s| s.hops.keys());
        let names: BTreeSet<&String> = names.collect();
        let mut hops = BTreeMap::new();
        for name in names {
            let clocks = samples.iter().filter_map(|s| Some((*s, *s.hops.get(name)?)));
            let clocks: Vec<_> = clocks.filter(|(_, clocks)| *clocks > 0.0).collect();
            // What few packets need, such as the hop of jumbo packets, may be too little to tell.
            if let Ok(hop) = model(&clocks) {
                hops.insert(name.clone(), hop);
            }
        }
        Ok(PathCost { algorithm: algorithm.to_owned(), direction, whole: model(&whole)?, hops })
    }
}
