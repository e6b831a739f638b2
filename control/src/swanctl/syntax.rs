//! The syntax of `swanctl.conf`, the format that IKE's users have their connections in: sections, keys, and files that
//! are included.
//!
//! ```text
//! connections {
//!     home {                       # a section
//!         local_addrs = 192.0.2.1  # a key; words of its value are parted by one space, whatever is between them
//!         local { id = "a # b" }   # in quotes: \n \r \t \" \\, and line ends
//!     }
//!     office : connections.home {  # has what another section has, and what is its own
//!         local_addrs =            # has no value: not what the other has, either
//!     }
//! }
//! include conf.d/*.conf            # beside this file; there may be none
//! ```
//!
//! A section that is there twice is one, and a key that is there twice has its last value. Here is no meaning: what keys
//! there are is for others to say. Values may be secrets; they are wiped when dropped, and no error shows one.

use portcullis_machine::strict::{ConfigError, Place};
use std::{
    collections::{HashMap, HashSet},
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
    rc::Rc,
    str::CharIndices,
};
use zeroize::Zeroizing;

/// Files that include each other, one in the other, at most.
const INCLUDES: usize = 10;

/// Sections in sections, at most.
const DEPTH: usize = 32;

/// So many entries are looked through faster than they are indexed.
const FEW: usize = 16;

/// Sections in all, at most, with those that others have from them.
const SECTIONS: usize = 1 << 20;

/// What is between the braces of a section, or a whole file.
#[derive(Clone, Debug)]
pub struct Section {
    /// Where it begins.
    pub place: Place,
    entries: Vec<Entry>,
    /// Where each name is, once there are many.
    index: HashMap<String, usize>,
    /// Sections that it has all from that is not its own, by their full names; the first has more say than those
    /// behind it.
    bases: Vec<(Place, String)>,
    /// Of a whole file: the sections in it that others have something from, or from what is in them.
    templates: HashSet<String>,
}

/// A key or a section in a section.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it is: the last time, if it is there more than once.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// What it has.
    pub content: Content,
}

/// What a name stands for.
#[derive(Clone)]
pub enum Content {
    /// A key's value. `None` is one that is set to nothing.
    Value(Option<Rc<Zeroizing<String>>>),
    /// A section.
    Section(Section),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::Value(Some(_)) => f.write_str("(hidden)"),
            Content::Value(None) => f.write_str("(unset)"),
            Content::Section(section) => section.fmt(f),
        }
    }
}

impl Section {
    /// Reads a file, and those that it includes.
    ///
    /// # Errors
    /// [`ConfigError`] with file and line: what cannot be read, or is not in this syntax.
    pub fn read(file: &Path) -> Result<Section, ConfigError> {
        let mut top = Section::at(Place { file: file.to_owned(), line: 1 });
        include(file, &mut top, INCLUDES)?;
        top.resolved()
    }

    /// The same of a text that is not in a file. What it includes is looked for beside `file`.
    ///
    /// # Errors
    /// As of [`Section::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Section, ConfigError> {
        let mut top = Section::at(Place { file: file.to_owned(), line: 1 });
        Parser::new(file, text, INCLUDES).entries(&mut top, 0)?;
        top.resolved()
    }

    /// The value of a key, if it has one.
    pub fn value(&self, name: &str) -> Option<&str> {
        match &self.entry(name)?.content {
            Content::Value(value) => value.as_ref().map(|value| value.as_str()),
            Content::Section(_) => None,
        }
    }

    /// A section in it.
    pub fn section(&self, name: &str) -> Option<&Section> {
        match &self.entry(name)?.content {
            Content::Section(section) => Some(section),
            Content::Value(_) => None,
        }
    }

    /// What has this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.position(name).map(|at| &self.entries[at])
    }

    /// All that is in it, in its order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn at(place: Place) -> Section {
        Section { place, entries: vec![], index: HashMap::new(), bases: vec![], templates: HashSet::new() }
    }

    fn position(&self, name: &str) -> Option<usize> {
        match self.entries.len() {
            0..FEW => self.entries.iter().position(|entry| entry.name == name),
            _ => self.index.get(name).copied(),
        }
    }

    /// Its name is not there yet.
    fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        let fresh = match self.entries.len() {
            0..FEW => return,
            FEW => 0,
            many => many - 1,
        };
        self.index.extend((fresh..).zip(&self.entries[fresh..]).map(|(at, entry)| (entry.name.clone(), at)));
    }

    /// The section of a full name, with dots between sections.
    fn of_name(&self, name: &str) -> Option<&Section> {
        name.split('.').try_fold(self, |section, name| section.section(name))
    }

    /// The content of a name, which is new if `fresh` says what it would be.
    fn set(&mut self, place: Place, name: &str, fresh: Content) -> &mut Content {
        let at = match self.position(name) {
            Some(at) => {
                let entry = &mut self.entries[at];
                let is_both = matches!((&entry.content, &fresh), (Content::Section(_), Content::Section(_)));
                if !is_both {
                    entry.content = fresh;
                }
                entry.place = place;
                at
            }
            None => {
                self.push(Entry { place, name: name.to_owned(), content: fresh });
                self.entries.len() - 1
            }
        };
        &mut self.entries[at].content
    }

    /// Whether others have something from the section of this name, or from one in it. Only whole files know.
    pub fn is_template(&self, name: &str) -> bool {
        self.templates.contains(name)
    }

    /// With what each section has from others.
    fn resolved(self) -> Result<Section, ConfigError> {
        let mut left = SECTIONS;
        let mut whole = self.with_bases(&self, &mut vec![], &mut left)?;
        self.each_base(&mut |name| {
            let (first, _) = name.split_once('.').unwrap_or((name, ""));
            if !whole.templates.contains(first) {
                whole.templates.insert(first.to_owned());
            }
        });
        Ok(whole)
    }

    fn each_base(&self, see: &mut impl FnMut(&str)) {
        self.bases.iter().for_each(|(_, name)| see(name));
        for entry in &self.entries {
            if let Content::Section(section) = &entry.content {
                section.each_base(see);
            }
        }
    }

    /// `under` are the sections that this one is looked up for, by their places: one in itself has no end.
    fn with_bases(
        &self,
        top: &Section,
        under: &mut Vec<Place>,
        left: &mut usize,
    ) -> Result<Section, ConfigError> {
        let too_many = || contradiction(&self.place, "sections take too much from each other");
        *left = left.checked_sub(1).ok_or_else(too_many)?;
        let mut whole = Section::at(self.place.clone());
        for entry in &self.entries {
            let content = match &entry.content {
                Content::Section(section) => Content::Section(section.with_bases(top, under, left)?),
                value => value.clone(),
            };
            whole.push(Entry { place: entry.place.clone(), name: entry.name.clone(), content });
        }
        for (place, name) in &self.bases {
            if under.len() == DEPTH {
                return Err(contradiction(place, "too many sections have something from each other"));
            }
            if under.contains(place) {
                return Err(contradiction(place, &format!("section '{name}' is in itself")));
            }
            let base = top.of_name(name).ok_or_else(|| {
                contradiction(
                    place,
                    &format!("there is no section '{name}'; write its full name, as connections.NAME"),
                )
            })?;
            under.push(place.clone());
            let base = base.with_bases(top, under, left)?;
            under.pop();
            whole.take_over(base);
        }
        Ok(whole)
    }

    /// Takes over what it has not itself.
    fn take_over(&mut self, base: Section) {
        for theirs in base.entries {
            match self.position(&theirs.name).map(|at| &mut self.entries[at]) {
                None => self.push(theirs),
                Some(Entry { content: Content::Section(ours), .. }) => {
                    if let Content::Section(theirs) = theirs.content {
                        ours.take_over(theirs);
                    }
                }
                Some(_) => {}
            }
        }
    }
}

fn contradiction(place: &Place, why: &str) -> ConfigError {
    ConfigError::Contradiction { place: place.clone(), why: why.to_owned() }
}

fn include(file: &Path, into: &mut Section, includes: usize) -> Result<(), ConfigError> {
    let text = fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
    Parser::new(file, &text, includes).entries(into, 0)
}

struct Parser<'a> {
    file: &'a Path,
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
    /// How many more may include each other.
    includes: usize,
}

/// What names may not have.
fn ends_name(c: char) -> bool {
    matches!(c, '.' | ',' | ':' | '{' | '}' | '=' | '"' | '#') || c.is_whitespace()
}

impl<'a> Parser<'a> {
    fn new(file: &'a Path, text: &'a str, includes: usize) -> Parser<'a> {
        Parser { file, text, chars: text.char_indices().peekable(), line: 1, includes }
    }

    fn place(&self) -> Place {
        Place { file: self.file.to_owned(), line: self.line }
    }

    fn error(&self, message: &str) -> ConfigError {
        ConfigError::Syntax { place: self.place(), message: message.to_owned() }
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        let (_, c) = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Over what is blank, and comments; over line ends too, if `lines` says so.
    fn skip(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                '\n' if !lines => break,
                c if c.is_whitespace() => {
                    self.next();
                }
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                }
                _ => break,
            }
        }
    }

    /// Octets as long as they are not what `ends` says.
    fn word(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let start = self.offset();
        while self.peek().is_some_and(|c| !ends(c)) {
            self.next();
        }
        &self.text[start..self.offset()]
    }

    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    /// What is in a section, or in a file at `depth` 0, to its end.
    fn entries(&mut self, section: &mut Section, depth: usize) -> Result<(), ConfigError> {
        loop {
            self.skip(true);
            let place = self.place();
            match self.peek() {
                None if depth == 0 => return Ok(()),
                None => return Err(self.error("the file ends in a section; a '}' is missing")),
                Some('}') if depth > 0 => {
                    self.next();
                    return Ok(());
                }
                Some('}') => return Err(self.error("a '}' without a '{'")),
                Some(_) => {}
            }
            let name = self.word(ends_name);
            if name.is_empty() {
                return Err(self.error("a key or a section's name is wanted here"));
            }
            if name == "include" && self.peek().is_some_and(|c| c == ' ' || c == '\t' || c == '"') {
                self.include(section)?;
                continue;
            }
            self.skip(true);
            match self.next() {
                Some('=') => {
                    let value = self.value()?.map(Rc::new);
                    section.set(place, name, Content::Value(value));
                }
                Some('{') => self.section(section, (place, name), vec![], depth)?,
                Some(':') => {
                    let bases = self.bases()?;
                    self.section(section, (place, name), bases, depth)?;
                }
                _ => {
                    return Err(
                        self.error(&format!("'{name}' has neither a value with '=' nor a section in '{{}}'"))
                    );
                }
            }
        }
    }

    fn section(
        &mut self,
        within: &mut Section,
        (place, name): (Place, &str),
        bases: Vec<(Place, String)>,
        depth: usize,
    ) -> Result<(), ConfigError> {
        if depth == DEPTH {
            return Err(self.error("too many sections in each other"));
        }
        let fresh = Content::Section(Section::at(place.clone()));
        if let Content::Section(section) = within.set(place, name, fresh) {
            section.bases.extend(bases);
            self.entries(section, depth + 1)?;
        }
        Ok(())
    }

    /// Names of sections, and the brace behind them.
    fn bases(&mut self) -> Result<Vec<(Place, String)>, ConfigError> {
        let mut bases = vec![];
        loop {
            self.skip(true);
            let place = self.place();
            let name = self.word(|c| c != '.' && ends_name(c));
            if name.is_empty() {
                return Err(self.error("a section's full name is wanted behind ':'"));
            }
            bases.push((place, name.to_owned()));
            self.skip(true);
            match self.next() {
                Some(',') => {}
                Some('{') => return Ok(bases),
                _ => return Err(self.error("after a section's name behind ':' there is ',' or '{'")),
            }
        }
    }

    /// Words and quoted texts to the end of the line, or of the section.
    fn value(&mut self) -> Result<Option<Zeroizing<String>>, ConfigError> {
        let mut value = None::<Zeroizing<String>>;
        loop {
            self.skip(false);
            let part = match self.peek() {
                None | Some('\n' | '}') => return Ok(value),
                Some('"') => self.quoted()?,
                Some('{') => return Err(self.error("a value with '{' in it must be in quotes")),
                Some(_) => {
                    let ends = |c: char| matches!(c, '{' | '}' | '"' | '#') || c.is_whitespace();
                    Zeroizing::new(self.word(ends).to_owned())
                }
            };
            match &mut value {
                None => value = Some(part),
                Some(value) => {
                    let len = value.len() + 1 + part.len();
                    if len > value.capacity() {
                        // A text that grows by itself leaves a copy behind; what is left behind here is wiped.
                        let mut more = Zeroizing::new(String::with_capacity(2 * len));
                        more.push_str(value);
                        *value = more;
                    }
                    value.push(' ');
                    value.push_str(&part);
                }
            }
        }
    }

    fn quoted(&mut self) -> Result<Zeroizing<String>, ConfigError> {
        let start = self.place();
        self.next();
        let rest = &self.text[self.offset()..];
        let mut is_escaped = false;
        let written = rest.find(|c: char| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        // At its full size from the start, as a text that grows leaves copies behind: it is no longer than it is written.
        let mut text = Zeroizing::new(String::with_capacity(written.unwrap_or(rest.len())));
        loop {
            match self.next() {
                None => {
                    let message = "this text has no '\"' at its end".to_owned();
                    return Err(ConfigError::Syntax { place: start, message });
                }
                Some('"') => return Ok(text),
                Some('\\') => match self.next() {
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some('\n') => {}
                    Some(c) => text.push(c),
                    None => {}
                },
                Some(c) => text.push(c),
            }
        }
    }

    /// All files of a pattern, in the order of their names.
    fn include(&mut self, section: &mut Section) -> Result<(), ConfigError> {
        let place = self.place();
        let pattern = self.value()?.unwrap_or_default();
        let Some(includes) = self.includes.checked_sub(1) else {
            return Err(contradiction(&place, "files include each other"));
        };
        let beside = self.file.parent().unwrap_or(Path::new("")).join(pattern.as_str());
        for file in matching(&beside) {
            include(&file, section, includes)?;
        }
        Ok(())
    }
}

/// The files of a path, with `*` and `?` in its last part.
fn matching(path: &Path) -> Vec<PathBuf> {
    let pattern = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !pattern.contains(['*', '?']) {
        return if path.exists() { vec![path.to_owned()] } else { vec![] };
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(directory) else { return vec![] };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| {
                (!name.starts_with('.') || pattern.starts_with('.'))
                    && is_match(pattern.as_bytes(), name.as_bytes())
            })
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// Whether a name is as a pattern with `*` and `?` says.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and how much of the name it has.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests;
