//! The rate without loss by sizes, SAs and workers.

use super::{
    Measure,
    between::FITTING,
    ndr::Pace,
    pairs::{Pair, Workers},
};
use crate::{
    interface::cores,
    report::{Axis, Plot, Report, Series, Table},
    search::goal::Goal,
    traffic::{Mix, Size},
};
use clap::Args;
use serde_json::json;
use std::error::Error;

/// Which gateways. Each list is tried with each of the others.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  portcullis bench scaling --quick --of-sizes 64 --of-sizes imix --of-sas 1,1000 \
                        --of-workers 1,2 --write scaling.html"
)]
pub struct Options {
    #[command(flatten)]
    workers: Workers,
    #[command(flatten)]
    pace: Pace,
    /// Octets of clear packets; several times [default: --sizes, or 64, 576, 1400, and imix, of which between interfaces the
    /// longest are of 1400, too].
    #[arg(long, value_name = "SIZES", num_args = 1, conflicts_with = "sizes")]
    of_sizes: Vec<Mix>,
    /// SAs [default: --sas, or in memory 1 and 1000].
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "sas", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    of_sas: Vec<u32>,
    /// Workers, in memory [default: --workers, or 1, and as many as there are cores].
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "workers", value_parser = clap::value_parser!(u32).range(1..=64))]
    of_workers: Vec<u32>,
}

/// What is said, of a list or of one; or the usual.
fn list<T: Clone>(said: &[T], one: &Option<T>, usual: Vec<T>) -> Vec<T> {
    match (said, one) {
        ([], Some(one)) => vec![one.clone()],
        ([], None) => usual,
        (said, _) => said.to_vec(),
    }
}

impl Options {
    fn all(&self) -> Vec<Workers> {
        let cores = cores() as u32;
        let in_memory = !self.workers.between.is_used();
        let last: Mix = if in_memory { Size::Imix.into() } else { FITTING.parse().expect("a mix") };
        let sizes = [64, 576, 1400].map(|octets| Size::Octets(octets).into()).into_iter().chain([last]);
        let Pair { sizes: one_size, sas: one_sas, .. } = &self.workers.pair;
        let sizes = list(&self.of_sizes, one_size, sizes.collect());
        let sas = list(&self.of_sas, one_sas, if in_memory { vec![1, 1000] } else { vec![1] });
        let workers = if in_memory && cores > 1 { vec![1, cores] } else { vec![1] };
        let workers = list(&self.of_workers, &self.workers.workers, workers);
        let mut all = vec![];
        for workers in workers {
            for sas in &sas {
                for sizes in &sizes {
                    let mut one = Workers { workers: Some(workers), ..self.workers.clone() };
                    (one.pair.sas, one.pair.sizes) = (Some(*sas), Some(sizes.clone()));
                    all.push(one);
                }
            }
        }
        all
    }
}

impl Measure for Options {
    fn measure(&self, core: Option<usize>) -> Result<Report, Box<dyn Error>> {
        let all = self.all();
        // Not after hours of others.
        all.iter().try_for_each(Workers::check)?;
        let mut table =
            Table::new(&["Gateways", "Mpps", "Gbit/s inside", "Gbit/s outside", "Turns interrupted"]);
        let (mut figures, mut rows, mut lines) = (vec![], vec![], Vec::<Series>::new());
        for (n, workers) in all.iter().enumerate() {
            let mut pairs = workers.pairs(core)?;
            let what = format!("{} of {}, ", n + 1, all.len());
            let found = self.pace.search(&mut pairs, &[Goal::NDR], &what)?;
            let pps = found.results[0].throughput.unwrap_or(0.0);
            let (inner, outer) = workers.pair.gbits(pps);
            let (noise, name) = (&pairs.noise, workers.line());
            table.rows.push(vec![
                name.clone(),
                format!("{:.3}", pps / 1e6),
                format!("{inner:.2}"),
                format!("{outer:.2}"),
                noise.interrupted(),
            ]);
            figures.push((name, pps / 1e6));
            rows.push(
                json!({ "gateways": workers.json(), "ndr_pps": pps, "inner_gbits": inner, "noise": noise.json() }),
            );
            let line = format!("{} SAs, {} workers", workers.pair.sas(), workers.workers());
            let point = (workers.pair.sizes().mean(), inner);
            match lines.iter_mut().find(|series| series.name == line) {
                Some(series) => series.points.push(point),
                None => lines.push(Series { name: line, points: vec![point] }),
            }
        }
        lines.iter_mut().for_each(|series| series.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
        let place = self.workers.place();
        let data = json!({ "bench": "scaling", "where": place, "quick": self.pace.quick, "rates": rows });
        let mut report = Report::new("Rates without loss", &place, data);
        figures.into_iter().for_each(|(name, mpps)| report.measure(&name, "Mpps", true, vec![mpps]));
        let plot = Plot {
            title: "Throughput by size".to_owned(),
            x: Axis::linear("octets of clear packets, on average"),
            y: Axis::linear("Gbit/s inside"),
            series: lines,
        };
        Ok(report.with("Rates without loss", "", table, vec![plot]))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    #[test]
    fn each_is_tried_with_each() {
        let words = ["--of-sizes", "64", "--of-sizes", "imix", "--of-sas", "1,10,100", "--of-workers", "1,2"];
        let all = parsed::<Options>(&words).unwrap().all();
        let lines: Vec<_> = all.iter().map(Workers::line).collect();
        assert_eq!((all.len(), &lines[0][..]), (12, "both, 64 octets, 1 SAs of aes-gcm-128, 1 workers"));
        assert_eq!(lines[11], "both, IMIX octets, 100 SAs of aes-gcm-128, 2 workers");
    }

    #[test]
    fn options_of_one_are_lists_of_one() {
        let words = ["--sizes", "100", "--sas", "7", "--workers", "1"];
        let all = parsed::<Options>(&words).unwrap().all();
        let lines: Vec<_> = all.iter().map(Workers::line).collect();
        assert_eq!(lines, ["both, 100 octets, 7 SAs of aes-gcm-128, 1 workers"]);
        for (words, told) in [
            (&["--sizes", "64", "--of-sizes", "100"][..], "cannot be used with"),
            (&["--sas", "7", "--of-sas", "1,2"], "cannot be used with"),
            (&["--workers", "1", "--of-workers", "1,2"], "cannot be used with"),
            (&["--of-workers", "0"], "0 is not in 1..=64"),
            (&["--of-sas", "1,0"], "0 is not in 1..=100000"),
        ] {
            let error = parsed::<Options>(words).map(drop).unwrap_err();
            assert!(error.contains(told), "{words:?}: {error}");
        }
    }

    /// Words of a measurement from an interface that carries packets of 65536 octets to itself.
    const LO: [&str; 10] = [
        "--out",
        "lo",
        "--in",
        "lo",
        "--dst-mac",
        "02:00:00:00:00:01",
        "--src",
        "10.0.1.2",
        "--dst",
        "10.0.2.2",
    ];

    #[test]
    fn all_are_looked_at_before_the_first_is_measured() {
        let sizes = |words: &[&str]| {
            let all = parsed::<Options>(words).unwrap().all();
            all.iter().map(|one| one.pair.sizes().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&["--of-sas", "1", "--of-workers", "1"]), ["64", "576", "1400", "IMIX"]);
        assert_eq!(sizes(&LO), ["64", "576", "1400", "64:28,570:16,1400:4"]);
        // It would be measured for half a minute before.
        let words = ["--of-sizes", "64", "--of-sas", "1", "--of-workers", "1,64"];
        let error = parsed::<Options>(&words).unwrap().measure(None).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("--workers 64: there are"), "{error}");
    }
}
