//! A profile from samples.

use super::{
    FORMAT, Host, MEMORY, PathCost, PortCost, Profile, ProfileError, Sample, VERSION, Way, WorkersCost,
};
use crate::plan::{
    fit::{self, FitError, Observation},
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
            let mut by_workers: BTreeMap<u32, Vec<&Sample>> = BTreeMap::new();
            for sample in samples.into_iter().filter(|s| s.port == MEMORY) {
                by_workers.entry(sample.workers).or_default().push(sample);
            }
            let Some(alone) = by_workers.remove(&1) else {
                return Err(ProfileError::NothingToCompare { algorithm, direction });
            };
            let path = PathCost::fit((&algorithm, direction), &alone, by_workers, host.chunk);
            paths.push(path.map_err(|source| ProfileError::Fit { algorithm, direction, source })?);
        }
        let mut profile =
            Profile { format: FORMAT.to_owned(), version: VERSION, host, paths, ports: vec![], samples };
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

    fn fit_ports(&self) -> Result<Vec<PortCost>, ProfileError> {
        let mut kinds: BTreeMap<(String, Way), Vec<Observation<'_>>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.port != MEMORY) {
            if let Some(path) = self.path(&sample.algorithm, sample.direction) {
                let point = sample.point();
                let known = path.whole.predict(&point).value;
                let of_port = sample.clocks - known - path.extra(&point, sample.workers).value;
                let clocks = known + of_port / path.on_ports(sample.workers);
                let observed = Observation { point, clocks, known, spread: sample.spread };
                kinds.entry((sample.port.clone(), sample.direction)).or_default().push(observed);
            }
        }
        let fitted = kinds.into_iter().map(|((kind, direction), observed)| {
            let extra = fit::fit(&observed, &[Per::Packet, Per::ShortOctet, Per::LongOctet]);
            let extra =
                extra.map_err(|source| ProfileError::Fit { algorithm: kind.clone(), direction, source })?;
            Ok(PortCost { kind, direction, extra })
        });
        fitted.collect()
    }
}

impl Sample {
    fn observed(&self, clocks: f64, known: f64) -> Observation<'_> {
        Observation { point: self.point(), clocks, known, spread: self.spread }
    }
}

impl PathCost {
    fn fit<'a>(
        (algorithm, direction): (&str, Way),
        samples: &[&'a Sample],
        several: BTreeMap<u32, Vec<&'a Sample>>,
        chunk: u32,
    ) -> Result<PathCost, FitError> {
        let model = |observed: Vec<Observation<'_>>| {
            fit::fit(&observed, &fit::terms(observed.iter().map(|o| &o.point), chunk))
        };
        let whole = model(samples.iter().map(|s| s.observed(s.clocks, 0.0)).collect())?;
        let names: BTreeSet<&String> = samples.iter().flat_map(|s| s.hops.keys()).collect();
        let mut hops = BTreeMap::new();
        for name in names {
            let clocks = samples.iter().filter_map(|s| Some((s, *s.hops.get(name)?)));
            let clocks = clocks.filter(|(_, clocks)| *clocks > 0.0);
            // What few packets need, such as the hop of jumbo packets, may be too little to tell.
            if let Ok(hop) = model(clocks.map(|(s, clocks)| s.observed(clocks, 0.0)).collect()) {
                hops.insert(name.clone(), hop);
            }
        }
        let workers = several.into_iter().map(|(workers, samples)| {
            let beside_one = |s: &&'a Sample| s.observed(s.clocks, whole.predict(&s.point()).value);
            let observed: Vec<Observation<'_>> = samples.iter().map(beside_one).collect();
            let terms = fit::terms_of_several(observed.iter().map(|o| &o.point));
            let extra = match fit::fit(&observed, &terms) {
                // What is alike for all packets takes the fewest to tell.
                Err(FitError::TooFew { .. }) => fit::fit(&observed, &[Per::Packet])?,
                other => other?,
            };
            Ok(WorkersCost { workers, extra })
        });
        let workers = workers.collect::<Result<_, FitError>>()?;
        Ok(PathCost { algorithm: algorithm.to_owned(), direction, whole, hops, workers })
    }
}
