//! Any text is in the syntax of `swanctl.conf` or is refused with its line. What is in it has its lines in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_control::swanctl::syntax::{Content, Section};
use std::path::Path;

fn sections(section: &Section, lines: usize, depth: usize) {
    assert!(depth <= 64 && (1..=lines).contains(&section.place.line));
    for entry in &section.entries {
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
    match Section::parse(Path::new("f"), text) {
        Ok(top) => sections(&top, text.matches('\n').count() + 1, 0),
        Err(error) => assert!(error.to_string().starts_with("f:"), "{error}"),
    }
});
