//! One report of several on a page: their sections one after the other, or, of the same measurement of several gateways, side
//! by side.

use super::Measure;
use crate::report::{Figure, Report, Section};
use clap::Args;
use serde_json::json;
use std::{error::Error, path::PathBuf};

/// Which.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  portcullis bench report ndr.json latency.json --write all.html\n  \
                        portcullis bench report --names ours,theirs ours.json theirs.json --write both.html")]
pub struct Options {
    /// Reports, as `--write FILE.json` has written them, all of one machine.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A name for each: sections of the same title become one, with all rows in its table and all lines in its plots.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    names: Vec<String>,
}

/// A section of one of several, with its name in the first column and before each line.
fn named(name: &str, section: &Section) -> Section {
    let mut section = section.clone();
    section.table.columns.insert(0, String::new());
    section.table.rows.iter_mut().for_each(|row| row.insert(0, name.to_owned()));
    let series = section.plots.iter_mut().flat_map(|plot| &mut plot.series);
    series.for_each(|series| series.name = format!("{name}, {}", series.name));
    section
}

/// One more, into the section of the same title if there is one.
fn join(sections: &mut Vec<Section>, one: Section) {
    let same = |of: &&mut Section| of.title == one.title && of.table.columns == one.table.columns;
    let Some(section) = sections.iter_mut().find(same) else { return sections.push(one) };
    section.table.rows.extend(one.table.rows);
    for plot in one.plots {
        match section.plots.iter_mut().find(|of| of.title == plot.title) {
            Some(of) => of.series.extend(plot.series),
            None => section.plots.push(plot),
        }
    }
}

impl Measure for Options {
    fn measure(&self, _: Option<usize>) -> Result<Report, Box<dyn Error>> {
        if !self.names.is_empty() && self.names.len() != self.files.len() {
            let (names, files) = (self.names.len(), self.files.len());
            return Err(format!("--names: {names} names, and {files} reports").into());
        }
        let is_twice = |(n, name): &(usize, &String)| self.names[..*n].contains(name);
        if let Some((_, name)) = self.names.iter().enumerate().find(is_twice) {
            return Err(format!("--names: '{name}' twice; a name tells one report from the others").into());
        }
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
        for (n, of) in all.iter().enumerate() {
            let name = self.names.get(n);
            let is_alone = all.iter().filter(|other| other.title == of.title).count() == 1;
            let title = match is_alone {
                true => of.title.clone(),
                false => format!("{} ({})", of.title, self.files[n].display()),
            };
            for section in &of.sections {
                match name {
                    Some(name) => join(&mut report.sections, named(name, section)),
                    None => {
                        let title = format!("{}: {title}, {}", section.title, of.taken);
                        report.sections.push(Section { title, ..section.clone() });
                    }
                }
            }
            report.figures.extend(of.figures.iter().map(|figure| {
                let name = match name {
                    Some(name) => format!("{name}, {}", figure.name),
                    None => format!("{title}: {}", figure.name),
                };
                Figure { name, ..figure.clone() }
            }));
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};
    use crate::report::{Axis, Form, Plot, Series, Table, compare};
    use std::fs;

    #[test]
    fn several_gateways_are_drawn_side_by_side() {
        let dir = std::env::temp_dir().join(format!("portcullis-merge-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, mpps: f64, title: &str| {
            let mut table = Table::new(&["Goal", "Mpps"]);
            table.rows.push(vec!["NDR".to_owned(), mpps.to_string()]);
            let series = vec![Series { name: "1 SA".to_owned(), points: vec![(64.0, mpps)] }];
            let (x, y) = (Axis::linear("octets"), Axis::linear("Mpps"));
            let plot = Plot { title: "Rates".to_owned(), x, y, series };
            let mut report = Report::new(title, "over veth", json!({})).with("Rates", "", table, vec![plot]);
            report.measure("NDR", "Mpps", true, vec![mpps]);
            let path = dir.join(name);
            fs::write(&path, report.to_form(Form::Json).unwrap()).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let [ours, theirs] = [write("ours", 2.0, "Rates"), write("theirs", 1.0, "Rates")];
        let report = |words: &[&str]| parsed::<Options>(words).unwrap().measure(None);
        let both = report(&["--names", "ours,theirs", &ours, &theirs]).unwrap();
        let [section] = both.sections.as_slice() else { panic!("{} sections", both.sections.len()) };
        assert_eq!(section.table.rows, [["ours", "NDR", "2"], ["theirs", "NDR", "1"]]);
        let lines: Vec<_> = section.plots[0].series.iter().map(|series| &*series.name).collect();
        assert_eq!((section.plots.len(), lines), (1, vec!["ours, 1 SA", "theirs, 1 SA"]));
        assert_eq!([&*both.figures[0].name, &*both.figures[1].name], ["ours, NDR", "theirs, NDR"]);
        let alike = report(&[&ours, &theirs]).unwrap();
        assert_eq!(alike.sections.len(), 2);
        let names: Vec<_> = alike.figures.iter().map(|figure| figure.name.clone()).collect();
        assert_eq!(names, [format!("Rates ({ours}): NDR"), format!("Rates ({theirs}): NDR")]);
        // Whose they are is in the names of figures, too: in any order each is compared with itself.
        let long = write("long", 3.0, "Rates of 1400 octets");
        let [one, other] = [report(&[&ours, &long]).unwrap(), report(&[&long, &ours]).unwrap()];
        assert_eq!(one.figures[1].name, "Rates of 1400 octets: NDR");
        assert!(compare::differences(&one, &other).unwrap().iter().all(|d| d.means[0] == d.means[1]));
        let error = report(&["--names", "ours", &ours, &theirs]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "--names: 1 names, and 2 reports");
        let error = report(&["--names", "a,a", &ours, &theirs]).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("--names: 'a' twice"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
