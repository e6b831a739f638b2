//! Strict reading of the TOML that users write: every key is known, every value is of the right kind, and what is
//! wrong is told with file, line, key and what to write instead.
//!
//! A [`Table`] hands out its keys one by one, and [`Table::finish`] objects to those that nobody asked for. Files may
//! hold keys, so no error shows a line of its file, nor a value that could be one.

use std::{
    fmt, fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

/// What is wrong with a file that users write, and where.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; {}", .file.display(), remedy(.source))]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key that means nothing here.
    #[error("{place}: unknown key '{key}' in {table}; {hint}")]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// The table it is in.
        table: String,
        /// The key that was meant, or those there are.
        hint: String,
    },
    /// A key that has to be there is not.
    #[error("{place}: {table} has no '{key}'; write for example {example}")]
    Missing {
        /// Where the table begins.
        place: Place,
        /// The key.
        key: String,
        /// The table it belongs in.
        table: String,
        /// What could be written.
        example: String,
    },
    /// A value that the key cannot have.
    #[error("{place}: {key}{shown} must be {expected}")]
    Value {
        /// Where.
        place: Place,
        /// The key, after its table's name where that is not plain from the line.
        key: String,
        /// ` = VALUE`, or nothing when the value should not be shown.
        shown: String,
        /// What it can have.
        expected: String,
    },
    /// Parts of the file that do not go together.
    #[error("{place}: {why}")]
    Contradiction {
        /// Where.
        place: Place,
        /// What contradicts what, and what to do.
        why: String,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "write it, or name its directory with --config DIR",
        io::ErrorKind::PermissionDenied => "run this as root, or as the owner of the file",
        _ => "see that it is a readable text file",
    }
}

/// A line of a file; shown as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The text of a file; wiped on drop, for it may hold keys.
pub struct Document {
    file: PathBuf,
    text: Zeroizing<String>,
    /// Offsets of the line ends.
    line_ends: Vec<usize>,
}

impl Document {
    /// Reads the file.
    pub fn read(file: PathBuf) -> Result<Document, ConfigError> {
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Document::from_text(file, text)),
            Err(source) => Err(ConfigError::Read { file, source }),
        }
    }

    /// A document that is not read from anywhere. Errors name it `file`.
    pub fn from_text(file: impl AsRef<Path>, text: impl Into<String>) -> Document {
        let text = Zeroizing::new(text.into());
        let line_ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        Document { file: file.as_ref().to_owned(), text, line_ends }
    }

    /// Its top level.
    pub fn parse(&self) -> Result<Table<'_>, ConfigError> {
        let table = DeTable::parse(&self.text).map_err(|e| ConfigError::Syntax {
            place: self.place(e.span().map_or(0, |s| s.start)),
            // Of the error only this: all of it would quote the line.
            message: e.message().to_owned(),
        })?;
        Ok(Table::new(self, "the file".to_owned(), 1, table.into_inner()))
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    fn place(&self, offset: usize) -> Place {
        Place { file: self.file.clone(), line: self.line(offset) }
    }
}

/// A table that hands out its keys.
pub struct Table<'a> {
    document: &'a Document,
    /// As errors name it.
    name: String,
    renamed: bool,
    line: usize,
    entries: DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(document: &'a Document, name: String, line: usize, entries: DeTable<'a>) -> Table<'a> {
        Table { document, name, renamed: false, line, entries, known: Vec::new() }
    }

    /// Has errors name it otherwise.
    pub fn rename(&mut self, name: String) {
        self.name = name;
        self.renamed = true;
    }

    /// Where it begins.
    pub fn place(&self) -> Place {
        Place { file: self.document.file.clone(), line: self.line }
    }

    /// The value of a key that may be left out.
    pub fn optional(&mut self, key: &'static str) -> Result<Option<Value<'a>>, ConfigError> {
        self.known.push(key);
        let Some((found, value)) = self.entries.remove_entry(key) else { return Ok(None) };
        let place = self.document.place(found.span().start);
        let table = if self.renamed { format!("{}: ", self.name) } else { String::new() };
        let (key, value) = (key.to_owned(), value.into_inner());
        Ok(Some(Value { document: self.document, table, key, place, value }))
    }

    /// The value of a key that has to be there; `example` shows how it looks.
    pub fn required(&mut self, key: &'static str, example: &str) -> Result<Value<'a>, ConfigError> {
        match self.optional(key)? {
            Some(value) => Ok(value),
            None => Err(self.missing(key, &format!("{key} = {example}"))),
        }
    }

    /// The table `[key]`; an empty one if there is none.
    pub fn table(&mut self, key: &'static str) -> Result<Table<'a>, ConfigError> {
        let line = self.line;
        Ok(match self.optional_table(key)? {
            Some(table) => table,
            None => Table::new(self.document, format!("[{key}]"), line, DeTable::new()),
        })
    }

    /// The table `[key]`, if there is one.
    pub fn optional_table(&mut self, key: &'static str) -> Result<Option<Table<'a>>, ConfigError> {
        let Some(value) = self.optional(key)? else { return Ok(None) };
        let line = value.place.line;
        match value.value {
            DeValue::Table(entries) => Ok(Some(Table::new(self.document, format!("[{key}]"), line, entries))),
            _ => Err(value.wrong(format!("a table: write [{key}] on a line of its own, and its keys below"))),
        }
    }

    /// The tables `[[key]]`, in the order of the file.
    pub fn tables(&mut self, key: &'static str) -> Result<Vec<Table<'a>>, ConfigError> {
        let Some(value) = self.optional(key)? else { return Ok(Vec::new()) };
        let expected = format!("tables: write [[{key}]] on a line of its own for each, and its keys below");
        let DeValue::Array(items) = &value.value else { return Err(value.wrong(expected)) };
        let mut tables = Vec::new();
        for item in items.iter() {
            let DeValue::Table(entries) = item.get_ref() else { return Err(value.wrong(expected)) };
            let line = self.document.line(item.span().start);
            tables.push(Table::new(self.document, format!("[[{key}]]"), line, entries.clone()));
        }
        Ok(tables)
    }

    /// The error that `key` is not there.
    pub fn missing(&self, key: &str, example: &str) -> ConfigError {
        ConfigError::Missing {
            place: self.place(),
            key: key.to_owned(),
            table: self.name.clone(),
            example: example.to_owned(),
        }
    }

    /// Objects to keys that nobody asked for.
    pub fn finish(self) -> Result<(), ConfigError> {
        let Some(found) = self.entries.keys().min_by_key(|k| k.span().start) else { return Ok(()) };
        let key = found.get_ref().as_ref();
        let hint = match nearest(key, &self.known) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("it can have: {}", self.known.join(", ")),
        };
        let place = self.document.place(found.span().start);
        Err(ConfigError::UnknownKey { place, key: shorten(key), table: self.name, hint })
    }
}

/// The value of a key.
pub struct Value<'a> {
    document: &'a Document,
    table: String,
    key: String,
    place: Place,
    value: DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// It is text.
    pub fn text(&self) -> Result<&str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.wrong("text in quotes"))
    }

    /// It is `true` or `false`.
    pub fn flag(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// It is a whole number from here to there.
    pub fn number_in(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let number = self.value.as_integer().and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        number.filter(|n| range.contains(n)).ok_or_else(|| {
            self.wrong(match *range.end() {
                u64::MAX => "a whole number".to_owned(),
                end => format!("a whole number from {} to {end}", range.start()),
            })
        })
    }

    /// It is a number from here to there, whole or with a point and up to three digits behind it: in thousandths.
    pub fn thousandths_in(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let written = match &self.value {
            DeValue::Float(n) => Some(n.as_str()),
            DeValue::Integer(n) if n.radix() == 10 => Some(n.as_str()),
            _ => None,
        };
        let thousandths = written.and_then(|text| {
            let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
            let is_right = behind.len() <= 3 && behind.bytes().all(|b| b.is_ascii_digit());
            let behind = is_right.then(|| format!("{behind:0<3}"))?;
            whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(behind.parse().ok()?)
        });
        thousandths.filter(|n| range.contains(n)).ok_or_else(|| {
            let of = |n: u64| n as f64 / 1000.0;
            let (first, last) = (of(*range.start()), of(*range.end()));
            self.wrong(format!("a number from {first} to {last}, with three digits behind its point at most"))
        })
    }

    /// It is one of these words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let found = self.value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.wrong(words.join(" or "))
        })
    }

    /// It is a list; each of its values is named like the list.
    pub fn list(&self) -> Result<Vec<Value<'a>>, ConfigError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list in [ ]"))?;
        Ok(items.iter().map(|item| self.part(item)).collect())
    }

    /// It is a table whose keys are not known beforehand: them and their values, each named like the table.
    pub fn entries(&self) -> Result<Vec<(String, Value<'a>)>, ConfigError> {
        let entries = self.value.as_table().ok_or_else(|| self.wrong("a table in { }"))?;
        Ok(entries.iter().map(|(key, item)| (key.get_ref().to_string(), self.part(item))).collect())
    }

    fn part(&self, item: &Spanned<DeValue<'a>>) -> Value<'a> {
        Value {
            document: self.document,
            table: self.table.clone(),
            key: self.key.clone(),
            place: self.document.place(item.span().start),
            value: item.get_ref().clone(),
        }
    }

    /// The error that it must be something else. Shows the value unless it could be a key.
    pub fn wrong(&self, expected: impl Into<String>) -> ConfigError {
        let shown = match &self.value {
            DeValue::String(s) if !could_be_secret(s) => format!(" = \"{s}\""),
            DeValue::Integer(n) if !could_be_secret(n.as_str()) => format!(" = {n}"),
            DeValue::Float(n) if !could_be_secret(n.as_str()) => format!(" = {n}"),
            DeValue::Boolean(b) => format!(" = {b}"),
            DeValue::Array(_) => " is a list and".to_owned(),
            DeValue::Table(_) => " is a table and".to_owned(),
            _ => String::new(),
        };
        self.error(shown, expected.into())
    }

    /// As [`Value::wrong`], without the value.
    pub fn wrong_secret(&self, expected: impl Into<String>) -> ConfigError {
        self.error(String::new(), expected.into())
    }

    fn error(&self, shown: String, expected: String) -> ConfigError {
        let key = format!("{}{}", self.table, self.key);
        ConfigError::Value { place: self.place.clone(), key, shown, expected }
    }
}

/// Whether text is long, or a run of digits longer than those of an SPI.
pub fn could_be_secret(text: &str) -> bool {
    let digits = text.trim_start_matches("0x");
    text.len() > 64 || digits.len() > 10 && digits.bytes().all(|b| b.is_ascii_hexdigit() || b == b'_')
}

/// A key as it may be shown: a secret in the wrong place is not.
pub fn shorten(key: &str) -> String {
    if could_be_secret(key) { "...".to_owned() } else { key.escape_debug().collect() }
}

/// The known key that differs from `key` by at most two slips of the finger, or a third of its length.
pub fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let slips = known.iter().map(|k| (distance(key, k), *k)).min()?;
    (slips.0 <= 2.min(key.len() / 3).max(1)).then_some(slips.1)
}

/// Edits that lead from one to the other: a letter more, less or another, two that are swapped, or `-` for `_` at no
/// cost.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().replace('-', "_").chars().take(64).collect();
    let b: Vec<char> = b.chars().collect();
    // d[i][j]: edits from the first i letters of a to the first j of b.
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    d[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        d[i][0] = i;
        for j in 1..=b.len() {
            let other = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            d[i][j] = other.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d[i][j] = d[i][j].min(d[i - 2][j - 2] + 1);
            }
        }
    }
    d[a.len()][b.len()]
}
