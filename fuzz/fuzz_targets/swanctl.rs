//! Any text is in the syntax of `swanctl.conf` or is refused with its line, and so is what it means. Lines are those of
//! the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_control::swanctl::{
    Configuration,
    diff::Diff,
    syntax::{Content, Section},
};
use std::path::Path;

fn sections(section: &Section, lines: usize, depth: usize) {
    assert!(depth <= 64 && (1..=lines).contains(&section.place.line));
    for entry in section.entries() {
        assert!(!entry.name.is_empty() && (1..=lines).contains(&entry.place.line));
        if let Content::Section(inner) = &entry.content {
            sections(inner, lines, depth + 1);
        }
    }
}

fuzz_target!(|text: &str| {
    // What is on the disk is not this target's.
    if text.contains("include") {
        return;
    }
    let file = Path::new("f");
    match Section::parse(file, text) {
        Ok(top) => sections(&top, text.matches('\n').count() + 1, 0),
        Err(error) => assert!(error.to_string().starts_with("f:"), "{error}"),
    }
    match Configuration::parse(file, text) {
        Ok(configuration) => assert!(Diff::between(&configuration, &configuration).is_empty()),
        Err(error) => assert!(error.to_string().starts_with("f:"), "{error}"),
    }
});
