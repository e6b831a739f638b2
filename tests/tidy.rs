//! Style that matters is a test: length of files, names, the form of citations, no debts without an issue.

use std::{fs, path::PathBuf, process::Command};

/// A file is looked at again well before this.
const MAX_LINES: usize = 800;

/// Names that say nothing of what is in the file.
const BANNED_FILES: &[&str] = &["utils", "util", "common", "types", "misc", "helpers", "helper", "manager"];

/// Prefixes of functions and endings of types that say nothing.
const BANNED_FUNCTIONS: &[&str] = &["process_", "do_"];
const BANNED_TYPES: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils"];

/// The crates that each crate may depend on: every arrow points one way.
const ARROWS: &[(&str, &[&str])] = &[
    ("ebpf", &[]),
    ("datapath/sadb", &[]),
    ("datapath/machine", &[]),
    ("datapath/netlink", &[]),
    ("datapath/crypto", &["portcullis-sadb"]),
    (
        "datapath",
        &[
            "portcullis-crypto",
            "portcullis-ebpf",
            "portcullis-sadb",
            "portcullis-machine",
            "portcullis-netlink",
        ],
    ),
    ("control/ike", &["portcullis-sadb"]),
    (
        "control",
        &["portcullis-ebpf", "portcullis-sadb", "portcullis-machine", "portcullis-netlink", "portcullis-ike"],
    ),
    ("benches", &["portcullis-sadb", "portcullis-datapath", "portcullis-perf"]),
    ("benches/field", &["portcullis-datapath", "portcullis-sadb", "portcullis-perf"]),
    (
        "perf",
        &[
            "portcullis-ebpf",
            "portcullis-netlink",
            "portcullis-sadb",
            "portcullis-datapath",
            "portcullis-control",
            "portcullis-ike",
        ],
    ),
];

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files of the tree as git knows them, new ones included, with their text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let out = Command::new("git")
        .args(["-C", top().to_str().unwrap(), "ls-files", "-co", "--exclude-standard"])
        .output()
        .expect("git runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let files: Vec<_> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .filter(|path| endings.iter().any(|e| path.ends_with(e)) && *path != "tests/tidy.rs")
        .filter_map(|path| Some((path.to_owned(), fs::read_to_string(top().join(path)).ok()?)))
        .collect();
    assert!(!files.is_empty());
    files
}

/// Runs `rule` over the lines of all files and fails with all that it objects to.
fn check(endings: &[&str], rule: impl Fn(&str) -> Option<String>) {
    let mut objections = String::new();
    for (path, text) in files(endings) {
        for (i, line) in text.lines().enumerate() {
            if let Some(objection) = rule(line) {
                objections += &format!("\n{path}:{}: {objection}", i + 1);
            }
        }
    }
    assert!(objections.is_empty(), "{objections}");
}

/// The words of a line: runs of letters, digits and `_`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty())
}

/// What is after each `word` that stands as a word of its own.
fn after<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(word)
        .filter(|(at, _)| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .map(move |(at, _)| &line[at + word.len()..])
}

fn banned_name(line: &str) -> Option<String> {
    for name in after(line, "fn ").filter_map(|rest| words(rest).next()) {
        if BANNED_FUNCTIONS.iter().any(|p| name.starts_with(p)) {
            return Some(format!("'{name}' does not say what it does"));
        }
    }
    for name in ["struct ", "enum ", "trait ", "type "].iter().flat_map(|k| after(line, k)) {
        let name = words(name).next().unwrap_or_default();
        if BANNED_TYPES.iter().any(|e| name.ends_with(e)) {
            return Some(format!("'{name}' does not say what it is"));
        }
    }
    None
}

/// The one form is `RFC 4303 §3.4.3`, or `RFC 4303` alone.
fn citation(line: &str) -> Option<String> {
    for (at, found) in line.match_indices("RFC").chain(line.match_indices("rfc")) {
        // Behind a bracket: tshark's name of an algorithm.
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '[') {
            continue;
        }
        let rest = &line[at + 3..];
        let digits = rest.trim_start_matches([' ', '-']);
        let number = digits.len() - digits.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let ends = |s: &str| !s.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '(');
        // Names of code and of algorithms, such as rfc4106(gcm(aes)), are no citations.
        if number < 3 || found == "rfc" && !(rest.starts_with(' ') && ends(&digits[number..])) {
            continue;
        }
        let tail = digits[number..].trim_start_matches([',', ' ']).to_lowercase();
        let section =
            ["section", "sec.", "appendix", "paragraph", "§"].iter().find(|s| tail.starts_with(**s));
        let is_right = match section {
            None => true,
            Some(&"§") => {
                let rest = digits[number..].strip_prefix(" §").unwrap_or_default();
                rest.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
            }
            Some(_) => false,
        };
        if found != "RFC" || !rest.starts_with(' ') || rest.starts_with("  ") || !is_right {
            return Some(format!("cite as 'RFC {} §1.2'", &digits[..number]));
        }
    }
    None
}

fn debt(line: &str) -> Option<String> {
    for word in ["TODO", "FIXME", "XXX", "HACK"] {
        for rest in after(line, word) {
            let issue = rest.strip_prefix("(#").is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
            if !issue && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                return Some(format!("'{word}' without an issue; write '{word}(#12)'"));
            }
        }
    }
    None
}

fn ignored_test(line: &str) -> Option<String> {
    line.trim_start().starts_with("#[ignore").then(|| "a test that does not run proves nothing".to_owned())
}

fn machine_path(line: &str) -> Option<String> {
    ["/work/", "/home/", "/root/"]
        .iter()
        .find(|p| after(line, p).next().is_some())
        .map(|p| format!("'{p}' is a path of somebody's machine"))
}

#[test]
fn files_are_short() {
    let long: Vec<_> = files(&[".rs", ".py", ".toml", "scripts/lab", "scripts/demo", "scripts/prove"])
        .into_iter()
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|(lines, path)| *lines > MAX_LINES && !path.ends_with("Cargo.lock"))
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {long:?}");
}

#[test]
fn files_are_named_after_what_they_hold() {
    let bad: Vec<_> = files(&[".rs", ".py", ".sh"])
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| {
            let stem = path.rsplit('/').next().unwrap().split('.').next().unwrap();
            BANNED_FILES.contains(&stem) || stem.ends_with("_new") || stem.ends_with("_old")
        })
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn names_are_nouns_of_the_field() {
    check(&[".rs"], banned_name);
}

#[test]
fn citations_have_one_form() {
    check(&[".rs", ".md", ".py", ".toml", "scripts/lab", "scripts/demo"], citation);
}

#[test]
fn debts_have_an_issue() {
    check(&[".rs", ".py", ".toml", ".md", ".sh"], debt);
}

#[test]
fn no_test_is_ignored() {
    check(&[".rs"], ignored_test);
}

#[test]
fn no_path_is_of_one_machine() {
    check(
        &[".rs", ".py", ".toml", ".md", ".sh", "scripts/lab", "scripts/demo", "scripts/setup"],
        machine_path,
    );
}

#[test]
fn arrows_between_crates_point_one_way() {
    for (krate, allowed) in ARROWS {
        let text = fs::read_to_string(top().join(krate).join("Cargo.toml")).unwrap();
        let own = format!("portcullis-{}", krate.rsplit('/').next().unwrap());
        for name in text.lines().filter_map(|l| l.split(['.', ' ', '=']).next()) {
            let is_arrow = name.starts_with("portcullis-") && name != own;
            assert!(!is_arrow || allowed.contains(&name), "{krate} must not depend on {name}");
        }
    }
}

#[test]
fn control_has_no_unsafe_code() {
    let (_, text) = files(&["control/src/lib.rs"]).pop().unwrap();
    assert!(text.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn the_rules_see_what_they_are_for() {
    for good in
        ["// RFC 4303 §3.4.3", "as RFC 4106 says", "RFC 4303 §A2.1", "rfc4106(gcm(aes))", "rfc_4303()"]
    {
        assert_eq!(citation(good), None, "{good}");
    }
    for bad in [
        "RFC4303",
        "RFC-4303 §2",
        "RFC 4303, section 3",
        "RFC 4303 Section 3",
        "RFC 4303 appendix A",
        "rfc 4303",
        "RFC 4303§2",
    ] {
        assert!(citation(bad).is_some(), "{bad}");
    }
    assert!(banned_name("pub(crate) fn process_packet(").is_some());
    assert!(banned_name("struct SaManager {").is_some());
    assert!(banned_name("fn undo_it()").is_none());
    let todo = "TO".to_owned() + "DO";
    assert!(debt(&format!("// {todo}: later")).is_some());
    assert!(debt(&format!("// {todo}(#7): later")).is_none());
    assert!(ignored_test("    #[ignore = \"slow\"]").is_some());
    assert!(machine_path("see /work/x").is_some());
    assert!(machine_path("the path network/work/x").is_none());
}
