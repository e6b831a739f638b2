//! The command: exit codes, JSON, help, and `up` and `down` around daemons that fail.

mod bench;

use bench::{ACKNOWLEDGED, Bench, assert_says, comes_true, connection, portcullis};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn one() -> String {
    format!("{ACKNOWLEDGED}{}", connection("one", 1))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// All three programs in one directory; the datapath is a script.
fn install(bench: &Bench, datapath: &str) -> PathBuf {
    let programs = bench.directory.join("bin");
    fs::create_dir_all(&programs).unwrap();
    // By other processes: a file that we have open to write could not be started while a test forks.
    let copied = Command::new("cp").args([bench::PORTCULLIS, bench::IKED]).arg(&programs).status().unwrap();
    let path = programs.join("portcullis-datapath");
    let script = "printf '%s\\n' '#!/bin/sh' \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let written = Command::new("sh").args(["-c", script, "-", datapath]).arg(&path).status().unwrap();
    assert!(copied.success() && written.success());
    programs.join("portcullis")
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn exit_codes_tell_what_is() {
    let bench = Bench::new(&one(), 8);
    let code = |arguments: &[&str]| bench.portcullis(arguments).status.code();
    for not_running in
        [&["status"][..], &["status", "--json"], &["down"], &["reload"], &["up", "one"], &["down", "one"]]
    {
        assert_eq!(code(not_running), Some(3), "{not_running:?}");
    }
    for wrong in [
        &[][..],
        &["fly"],
        &["restart"],
        &["restart", "all"],
        &["status", "extra"],
        &["down", "one", "--forget"],
    ] {
        assert_eq!(code(wrong), Some(2), "{wrong:?}");
    }
    let out = portcullis(Path::new(bench::PORTCULLIS), &["status"], Path::new("/nonexistent"));
    assert_eq!(out.status.code(), Some(1));
    assert_says(
        &text(&out.stderr),
        &["portcullis: cannot read /nonexistent/portcullis.toml", "--config DIR"],
    );
    // Looking changes nothing.
    assert!(!bench.run().exists());
}

#[test]
fn help_has_examples() {
    for arguments in [
        &["--help"][..],
        &["up", "--help"],
        &["down", "--help"],
        &["status", "--help"],
        &["reload", "--help"],
        &["doctor", "--help"],
    ] {
        let out = Command::new(bench::PORTCULLIS).args(arguments).output().unwrap();
        assert!(out.status.success());
        assert_says(&text(&out.stdout), &["Example", "portcullis ", "--config <DIR>"]);
        assert!(!text(&out.stdout).contains("detach"));
    }
    let out = Command::new(bench::IKED).arg("--help").output().unwrap();
    assert_says(&text(&out.stdout), &["SIGHUP", "Example"]);
}

#[test]
fn measuring_is_done_by_the_program_beside() {
    let bench = Bench::new(&one(), 8);
    let program = install(&bench, "true");
    for tool in ["plan", "bench"] {
        let out = portcullis(&program, &[tool, "--help"], &bench.directory);
        assert_eq!(out.status.code(), Some(1));
        assert_says(
            &text(&out.stderr),
            &["no portcullis-perf beside", "cargo build --release -p portcullis-perf"],
        );
    }
    let path = program.with_file_name("portcullis-perf");
    let script = "printf '%s\\n' '#!/bin/sh' 'echo \"$@\"; exit 3' > \"$1\" && chmod 755 \"$1\"";
    assert!(Command::new("sh").args(["-c", script, "-"]).arg(&path).status().unwrap().success());
    for arguments in [&["plan", "--help"][..], &["plan", "--rate", "-1", "--json", "x"], &["bench"]] {
        let out = Command::new(&program).args(arguments).output().unwrap();
        let all = arguments.join(" ");
        assert_eq!((text(&out.stdout).trim(), out.status.code()), (all.as_str(), Some(3)));
    }
}

#[test]
fn status_is_of_iked_without_a_datapath() {
    let mut bench = Bench::new(&one(), 8);
    bench.start();
    let out = bench.portcullis(&["status", "--json"]);
    assert!(out.status.success());
    let status: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(status["iked"]["pid"], bench.pid());
    assert_eq!(
        (status["datapath"]["alive"].as_bool(), status["datapath"]["ready"].as_bool()),
        (Some(false), Some(false))
    );
    assert_eq!(status["connections"][0]["inbound"]["packets"], 0);
    assert_eq!(status["regions"]["max_sas"], 8);
    let out = bench.portcullis(&["status"]);
    let shown = text(&out.stdout);
    assert_says(
        &shown,
        &["one", "up", "(hidden)", "0x00000101", "2 of 8 SAs", "datapath  does not run", "bytes per SA"],
    );
    assert!(!shown.contains("0000000000"), "{shown}");
    // It never opens the region with the keys.
    fs::set_permissions(bench.run().join("sadb"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::rename(bench.run().join("sadb"), bench.directory.join("aside")).unwrap();
    assert!(bench.portcullis(&["status"]).status.success());
}

#[test]
fn up_tells_the_last_words_of_who_fails_and_stops_the_other() {
    let bench = Bench::new(&one(), 8);
    let program =
        install(&bench, "echo starting >&2; sleep 0.2; echo 'no such interface: port0' >&2; exit 4");
    let out = portcullis(&program, &["up"], &bench.directory);
    assert_eq!(out.status.code(), Some(1));
    assert_says(
        &text(&out.stderr),
        &[
            "portcullis-datapath ended before it was ready (exit status: 4)",
            "datapath.log",
            "starting\nno such interface: port0",
        ],
    );
    assert!(!bench.socket().exists(), "iked was stopped");
    assert!(!bench.run().join("iked.pid").exists() && !bench.run().join("datapath.pid").exists());
    // Of the second run only its own words.
    let program = install(&bench, "echo other >&2; exit 5");
    let out = portcullis(&program, &["up"], &bench.directory);
    assert!(
        text(&out.stderr).contains("other") && !text(&out.stderr).contains("starting"),
        "{}",
        text(&out.stderr)
    );
    // An iked that cannot start.
    bench.configure(&one().replace("aes-gcm-128", "rot13"));
    let out = portcullis(&program, &["up"], &bench.directory);
    assert_eq!(out.status.code(), Some(1));
    assert_says(
        &text(&out.stderr),
        &["portcullis-iked ended before it was ready (exit status: 1)", "rot13", "connections.toml:9"],
    );
    // One that is not there.
    bench.configure(&one());
    fs::remove_file(bench.directory.join("bin/portcullis-datapath")).unwrap();
    let out = portcullis(&program, &["up"], &bench.directory);
    assert_eq!(out.status.code(), Some(1));
    assert_says(&text(&out.stderr), &["bin/portcullis-datapath", "No such file"]);
    assert!(!bench.socket().exists());
}

#[test]
fn up_leaves_an_iked_alone_that_it_did_not_start() {
    let mut bench = Bench::new(&one(), 8);
    let program = install(&bench, "exit 1");
    bench.start();
    let out = portcullis(&program, &["up"], &bench.directory);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(bench.sas().len(), 2);
    // And down says whose it is.
    let out = portcullis(&program, &["down"], &bench.directory);
    assert_eq!(out.status.code(), Some(1));
    assert_says(
        &text(&out.stderr),
        &["portcullis-iked", &format!("process {}", bench.pid()), "was not started by `portcullis up`"],
    );
    assert_eq!(bench.sas().len(), 2);
    let out = portcullis(&program, &["restart", "iked"], &bench.directory);
    assert_eq!(out.status.code(), Some(1));
    assert_says(&text(&out.stderr), &["portcullis-iked", "was not started by `portcullis up`"]);
    assert_eq!(bench.sas().len(), 2);
}

#[test]
fn down_stops_what_runs_and_keeps_the_regions() {
    let bench = Bench::new(&one(), 8);
    let program = install(&bench, "exit 0");
    // iked as `up` leaves it when the datapath is killed later: started by hand here, with its pid file.
    fs::create_dir_all(bench.run()).unwrap();
    let mut iked = Command::new(bench::IKED)
        .arg("--config")
        .arg(&bench.directory)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = iked.id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let started = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
    fs::write(bench.run().join("iked.pid"), format!("{pid} {started}\n")).unwrap();
    assert!(comes_true(|| bench.socket().exists()));
    let reaper = std::thread::spawn(move || iked.wait().unwrap());
    let out: Output = portcullis(&program, &["down"], &bench.directory);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_says(
        &text(&out.stdout),
        &[&format!("stopped portcullis-iked (process {pid})"), "the regions stay"],
    );
    assert!(reaper.join().unwrap().success());
    assert!(!is_running(pid) && bench.run().join("sadb").exists());
    let out = portcullis(&program, &["down", "--forget"], &bench.directory);
    assert!(out.status.success());
    assert_says(&text(&out.stdout), &["removed the regions"]);
    assert!(!bench.run().join("sadb").exists() && !bench.run().join("runtime").exists());
    assert_eq!(portcullis(&program, &["down"], &bench.directory).status.code(), Some(3));
}

#[test]
fn doctor_is_read_by_machines_too() {
    let bench = Bench::new(&one(), 8);
    let out = bench.portcullis(&["doctor", "--json"]);
    assert_eq!(out.status.code(), Some(1), "there is no interface port0");
    let findings: Value = serde_json::from_slice(&out.stdout).unwrap();
    let port = findings.as_array().unwrap().iter().find(|f| f["check"] == "interface port0").unwrap();
    assert_eq!(port["verdict"], "fail");
    assert!(port["remedy"].is_string());
    let out = bench.portcullis(&["doctor"]);
    assert_says(
        &text(&out.stdout),
        &["FAIL  interface port0: not in this network namespace", "-> correct [[port]]"],
    );
}
