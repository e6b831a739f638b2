//! One report of several: their sections one after the other, on a page.

use super::Measure;
use crate::report::Report;
use clap::Args;
use serde_json::json;
use std::{error::Error, path::PathBuf};

/// Which.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  portcullis bench report ndr.json latency.json --write all.html")]
pub struct Options {
    /// Reports, as `--write FILE.json` has written them, all of one machine.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Measure for Options {
    fn measure(&self, _: Option<usize>) -> Result<Report, Box<dyn Error>> {
        let all = self.files.iter().map(|path| Report::read(path)).collect::<Result<Vec<_>, _>>()?;
        let first = &all[0];
        if let Some((path, other)) = self.files.iter().zip(&all).find(|(_, of)| of.host != first.host) {
            let (cpu, path) = (&other.host.cpu, path.display());
            return Err(format!(
                "{path}: it is of another machine ({cpu}), kernel or microcode: make a report of its own"
            )
            .into());
        }
        let places: Vec<&str> = all.iter().map(|of| &*of.taken).collect();
        let place =
            if places.iter().all(|place| *place == places[0]) { places[0] } else { "in several places" };
        let data = json!({ "bench": "report", "of": all.iter().map(|of| &of.data).collect::<Vec<_>>() });
        let mut report = Report { host: first.host.clone(), ..Report::new("Measurements", place, data) };
        for of in &all {
            for section in &of.sections {
                let mut section = section.clone();
                section.title = format!("{}: {}, {}", section.title, of.title, of.taken);
                report.sections.push(section);
            }
            report.figures.extend(of.figures.iter().cloned());
        }
        Ok(report)
    }
}
