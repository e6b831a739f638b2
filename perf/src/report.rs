//! What a measurement has found, for programs and for people: as JSON, text, Markdown, and one HTML page that needs nothing
//! else. Two of them are compared by their figures.

pub mod compare;
mod html;
mod plot;
mod table;

pub use plot::{Axis, Plot, Series};
pub(crate) use table::text as table_text;
pub use table::{Style, Table};

use crate::{clock, interface::cores};
use portcullis_datapath::crypto::Aead;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    error::Error,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Of the keys of a report. Another one is not read.
pub const VERSION: u32 = 1;

/// A report of one measurement or of several.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Its title.
    pub title: String,
    /// Where it was taken: in memory, over veth, on a NIC.
    pub taken: String,
    /// What it was taken on.
    pub host: Host,
    /// The command that it is of.
    pub command: String,
    /// What is compared with another report.
    pub figures: Vec<Figure>,
    /// What people read.
    pub sections: Vec<Section>,
    /// All that was measured, with keys that are stable for each kind of measurement.
    pub data: Value,
}

/// The machine.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Host {
    /// The CPU, as the kernel names it.
    pub cpu: String,
    /// Of the CPU's microcode.
    pub microcode: String,
    /// Of the kernel.
    pub kernel: String,
    /// Cores that this program may run on.
    pub cores: usize,
    /// Octets of memory.
    pub memory: u64,
    /// The AES-GCM that was chosen.
    pub crypto: String,
}

/// One figure that was measured, as often as it was.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Figure {
    /// Its name, the same in another report of the same kind.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Each time.
    pub samples: Vec<f64>,
}

/// A part of a report.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Section {
    /// Its title.
    pub title: String,
    /// What there is to say of it.
    pub note: String,
    /// Its table.
    pub table: Table,
    /// Its plots.
    pub plots: Vec<Plot>,
}

/// A form of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// For a terminal.
    Text,
    /// With stable keys.
    Json,
    /// For notes.
    Markdown,
    /// A page with plots that needs nothing else.
    Html,
}

/// How a report is told.
#[derive(clap::Args, Clone, Debug)]
pub struct Output {
    /// As JSON, with stable keys.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As Markdown.
    #[arg(long)]
    markdown: bool,
    /// Writes it to files as well, which may be several: in the form that the name ends in, .json, .md, .html or .txt.
    #[arg(long, value_name = "FILE", num_args = 1)]
    write: Vec<PathBuf>,
}

impl Host {
    /// This one.
    pub fn this() -> Host {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory =
            meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Host {
            cpu: clock::cpu("model name"),
            microcode: clock::cpu("microcode"),
            kernel: kernel.trim().to_owned(),
            cores: cores(),
            memory: memory.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024,
            crypto: Aead::best().to_string(),
        }
    }

    fn table(&self) -> Table {
        let gib = self.memory as f64 / f64::from(1 << 30);
        Table::of_pairs([
            ("CPU", self.cpu.clone()),
            ("Microcode", self.microcode.clone()),
            ("Kernel", self.kernel.clone()),
            ("Cores", self.cores.to_string()),
            ("Memory", format!("{gib:.1} GiB")),
            ("AES-GCM", self.crypto.clone()),
        ])
    }
}

impl Form {
    /// That which a file's name ends in.
    ///
    /// # Errors
    /// Another end.
    pub fn of(path: &Path) -> Result<Form, String> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("json") => Ok(Form::Json),
            Some("md") => Ok(Form::Markdown),
            Some("html") => Ok(Form::Html),
            Some("txt") => Ok(Form::Text),
            _ => Err(format!("{}: its name must end in .json, .md, .html or .txt", path.display())),
        }
    }
}

impl Output {
    /// Looks at the names of files before anything is measured.
    ///
    /// # Errors
    /// A name that says no form.
    pub fn check(&self) -> Result<(), String> {
        self.write.iter().try_for_each(|path| Form::of(path).map(drop))
    }

    /// Writes the files, and returns what is to be printed.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn tell(&self, report: &Report) -> Result<String, Box<dyn Error>> {
        for path in &self.write {
            let text = report.to_form(Form::of(path)?)?;
            fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let form = match (self.json, self.markdown) {
            (true, _) => Form::Json,
            (_, true) => Form::Markdown,
            _ => Form::Text,
        };
        report.to_form(form)
    }
}

impl Report {
    /// Of this machine and this command, without sections.
    pub fn new(title: &str, taken: &str, data: Value) -> Report {
        let command: Vec<String> = std::env::args().skip(1).collect();
        Report {
            version: VERSION,
            title: title.to_owned(),
            taken: taken.to_owned(),
            host: Host::this(),
            command: format!("portcullis {}", command.join(" ")),
            figures: vec![],
            sections: vec![],
            data,
        }
    }

    /// A file of [`Form::Json`].
    ///
    /// # Errors
    /// What it is instead.
    pub fn read(path: &Path) -> Result<Report, Box<dyn Error>> {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("{name}: no JSON: {e}"))?;
        match value["version"].as_u64() {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(format!("{name}: a report of version {version}, and this reads {VERSION}").into());
            }
            None => return Err(format!("{name}: no report of portcullis bench: it has no version").into()),
        }
        Ok(serde_json::from_value(value)
            .map_err(|e| format!("{name}: no report of portcullis bench: {e}"))?)
    }

    /// Adds a section.
    #[must_use]
    pub fn with(mut self, title: &str, note: &str, table: Table, plots: Vec<Plot>) -> Report {
        self.sections.push(Section { title: title.to_owned(), note: note.to_owned(), table, plots });
        self
    }

    /// Adds a figure.
    pub fn measure(&mut self, name: &str, unit: &str, more_is_better: bool, samples: Vec<f64>) {
        let (name, unit) = (name.to_owned(), unit.to_owned());
        self.figures.push(Figure { name, unit, more_is_better, samples });
    }

    /// In a form.
    ///
    /// # Errors
    /// A plot that cannot be drawn.
    pub fn to_form(&self, form: Form) -> Result<String, Box<dyn Error>> {
        Ok(match form {
            Form::Json => format!("{}\n", serde_json::to_string_pretty(self)?),
            Form::Html => html::page(self)?,
            Form::Text => self.text(Style::Text),
            Form::Markdown => self.text(Style::Markdown),
        })
    }

    fn text(&self, style: Style) -> String {
        let mut out = String::new();
        let heading = |level: usize, title: &str| match style {
            Style::Text => format!("{title}\n"),
            Style::Markdown => format!("{} {title}\n\n", "#".repeat(level)),
        };
        out += &heading(1, &format!("{}, {}", self.title, self.taken));
        if style == Style::Markdown {
            _ = writeln!(out, "`{}`\n\n{}", self.command, self.host.table().to_text(style));
        }
        for Section { title, note, table, .. } in &self.sections {
            _ = write!(out, "\n{}", heading(2, title));
            if !note.is_empty() {
                _ = writeln!(out, "{note}{}", if style == Style::Markdown { "\n" } else { "" });
            }
            out += &table.to_text(style);
        }
        out
    }
}

#[cfg(test)]
mod tests;
