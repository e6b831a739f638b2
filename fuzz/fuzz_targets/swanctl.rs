//! Any text is in the syntax of `swanctl.conf` or is refused with its line, and so is what it means. Lines are those of
//! the text, and connections mean the same as a message of VICI.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_control::{
    swanctl::{
        Configuration, connections,
        diff::Diff,
        syntax::{Content, Section},
        tree::Branch,
    },
    vici::message::{Writer, parse},
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

/// Whether it reads what is on the disk, which is not this target's.
fn includes(text: &str) -> bool {
    text.match_indices("include")
        .any(|(at, word)| !text[..at].ends_with('_') && text[at + word.len()..].starts_with([' ', '\t', '"']))
}

fn as_message(section: &Section) {
    let branch = Branch::from(section);
    let mut writer = Writer::default();
    writer.branch(&branch);
    let Ok(message) = writer.finish() else { return };
    let of_file = connections(&branch).map_err(|error| error.objection);
    let Ok(tree) = parse(message.octets()) else { return };
    assert_eq!(connections(&tree).map_err(|error| error.objection), of_file);
}

fuzz_target!(|text: &str| {
    if includes(text) {
        return;
    }
    let file = Path::new("f");
    match Section::parse(file, text) {
        Ok(top) => {
            sections(&top, text.matches('\n').count() + 1, 0);
            top.section("connections").into_iter().for_each(as_message);
        }
        Err(error) => assert!(error.to_string().starts_with("f:"), "{error}"),
    }
    match Configuration::parse(file, text) {
        Ok(configuration) => assert!(Diff::between(&configuration, &configuration).is_empty()),
        Err(error) => assert!(error.to_string().starts_with("f:"), "{error}"),
    }
});
