//! portcullis-iked as a process: what it leaves behind, takes over, answers and refuses.

mod bench;

use bench::{ACKNOWLEDGED, Bench, PATIENCE, assert_says, comes_true, connection, nobody};
use portcullis_sadb::{
    ABOUT, Direction, Endpoint, Event, EventKind, Flow, Generation, Reader, SlotIndex, Spi,
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{FileExt, MetadataExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::Path,
    process::Command,
};

fn two() -> String {
    format!("{ACKNOWLEDGED}{}{}", connection("one", 1), connection("two", 2))
}

#[test]
fn it_installs_what_is_configured() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    let status = bench.status();
    assert_eq!((status["sas"].as_u64(), status["policies"].as_u64()), (Some(4), Some(4)));
    let one = &status["connections"][0];
    assert_eq!(
        (one["name"].as_str(), one["up"].as_bool(), one["key"].as_str()),
        (Some("one"), Some(true), Some("(hidden)"))
    );
    assert_eq!(
        (one["inbound"]["spi"].as_str(), one["outbound"]["spi"].as_str()),
        (Some("0x00000101"), Some("0x00000102"))
    );
    // What a datapath finds.
    let (reader, _runtime, _guard) = Reader::attach(&bench.run()).unwrap();
    let flow =
        Flow { src: "10.1.0.1".parse().unwrap(), dst: "10.2.2.1".parse().unwrap(), protocol: 1, ports: None };
    let hit = reader.lookup(Direction::Outbound, &flow).unwrap();
    assert_eq!(reader.spi(hit.sa.unwrap()), Some(Spi(0x202)));
    let (_, sa) = reader.copy_sa(reader.find(Spi(0x101)).unwrap()).unwrap();
    assert_eq!(&sa.key.bytes()[..2], [1, 0xaa]);
    // Nobody else may ask, or read keys.
    for file in ["iked.sock", "sadb"] {
        let mode = fs::metadata(bench.run().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(!bench.log().contains("0000000000"), "{}", bench.log());
}

#[test]
fn killed_and_started_again_it_touches_nothing() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    let before = bench.sas();
    assert_eq!(before.len(), 4);
    let (reader, _runtime, _guard) = Reader::attach(&bench.run()).unwrap();
    let policies: Vec<_> = reader.policies().collect();
    bench.kill();
    // Nothing ends with it.
    assert_eq!(reader.policies().collect::<Vec<_>>(), policies);
    assert!(reader.find(Spi(0x101)).is_some());
    bench.start();
    assert_eq!(bench.sas(), before);
    assert_eq!(reader.policies().collect::<Vec<_>>(), policies);
    assert!(reader.is_current());
    // The same after an orderly stop.
    bench.signal("TERM");
    bench.wait();
    assert!(!bench.socket().exists());
    bench.start();
    assert_eq!(bench.sas(), before);
    // The acknowledgement is for keys that are new.
    bench.kill();
    bench.configure(two().trim_start_matches(ACKNOWLEDGED));
    bench.start();
    assert_eq!(bench.sas(), before);
}

#[test]
fn a_reload_touches_only_what_changed() {
    let mut bench = Bench::new(&format!("{ACKNOWLEDGED}{}", connection("one", 1)), 8);
    bench.start();
    let before = bench.sas();
    bench.configure(&two());
    let done = bench.command("{\"command\": \"reload\"}");
    assert_says(done["done"].as_str().unwrap(), &["2 kept, 2 published, 0 retired"]);
    assert_eq!(bench.sas()[..2], before);
    // By signal, a file that is wrong: all stays as it is, and the log says why.
    bench.configure(&two().replace("aes-gcm-128", "aes-gcm-129"));
    bench.signal("HUP");
    assert!(comes_true(|| bench.log().contains("aes-gcm-129")), "{}", bench.log());
    assert_says(&bench.log(), &["the connections are as before", "connections.toml:9", "connection 'one'"]);
    assert_eq!(bench.sas().len(), 4);
    // By signal, one that is right.
    bench.configure(&format!("{ACKNOWLEDGED}{}", connection("one", 1)));
    bench.signal("HUP");
    assert!(comes_true(|| bench.sas().len() == 2));
    assert_eq!(bench.sas(), before);
    // A key that was used does not come back.
    bench.configure(&two());
    let refused = bench.command("{\"command\": \"reload\"}");
    assert_says(
        refused["error"].as_str().unwrap(),
        &["connection 'two'", "its key is that of an SA before it"],
    );
    assert_eq!(bench.sas(), before);
    // Nor after a restart, as long as there are these regions.
    bench.kill();
    assert_says(&bench.refusal(), &["connection 'two'", "its key is that of an SA before it"]);
    assert!(bench.portcullis(&["down", "--forget"]).status.success());
    assert!(!bench.run().join("spent").exists());
    bench.start();
    assert_eq!(bench.sas().len(), 4);
}

#[test]
fn down_drops_and_up_goes_on() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    let before = bench.sas();
    let out = bench.portcullis(&["down", "one"]);
    assert!(out.status.success());
    assert_says(&String::from_utf8(out.stdout).unwrap(), &["connection 'one' is down"]);
    let status = bench.status();
    assert_eq!(
        (status["connections"][0]["up"].as_bool(), status["connections"][1]["up"].as_bool()),
        (Some(false), Some(true))
    );
    assert_eq!(bench.sas(), before);
    assert!(bench.portcullis(&["up", "one"]).status.success());
    assert_eq!((bench.status()["connections"][0]["up"].as_bool(), bench.sas()), (Some(true), before));
    let out = bench.portcullis(&["down", "three"]);
    assert_eq!(out.status.code(), Some(1));
    assert_says(&String::from_utf8(out.stderr).unwrap(), &["no connection 'three'; there are: one, two"]);
}

#[test]
fn bad_requests_get_clear_errors() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    for (line, words) in [
        ("", &[][..]),
        ("hello", &["not a request", "{\"command\": \"status\"}"]),
        ("{}", &["not a request", "command"]),
        ("{\"command\": \"fly\"}", &["not a request", "fly", "reload"]),
        ("{\"command\": \"up\"}", &["not a request", "name"]),
        ("{\"command\": \"up\", \"name\": 5}", &["not a request", "5"]),
        ("{\"command\": \"status\", \"name\": \"x\"}", &["not a request", "name"]),
        ("{\"command\": \"up\", \"name\": \"three\"}", &["no connection 'three'; there are: one, two"]),
        ("\u{fffd}\0", &["not a request"]),
    ] {
        let answers = bench.ask(&format!("{line}\n{{\"command\": \"status\"}}\n"));
        let (errors, status) = answers.split_at(answers.len() - 1);
        assert_eq!(errors.len(), usize::from(!line.is_empty()), "{line}");
        assert_eq!(status[0]["sas"], 4);
        for error in errors {
            assert_says(error["error"].as_str().unwrap(), words);
        }
    }
    // A line without end.
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(&vec![b'x'; 80_000]);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_says(&line, &["\"error\"", "at most 65536 octets"]);
    assert_eq!(bench.status()["sas"], 4);
}

#[test]
fn clients_do_not_wait_for_each_other() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    // One that says nothing, one with half a line, one that asks and never reads.
    let _silent = UnixStream::connect(bench.socket()).unwrap();
    let mut half = UnixStream::connect(bench.socket()).unwrap();
    half.write_all(b"{\"command\": ").unwrap();
    let mut greedy = UnixStream::connect(bench.socket()).unwrap();
    greedy.set_nonblocking(true).unwrap();
    let request = b"{\"command\": \"status\"}\n";
    // Until nothing more is taken; what is not read is bounded.
    let mut asked = 0;
    for _ in 0..200_000 {
        match greedy.write(request) {
            Ok(n) if n == request.len() => asked += 1,
            _ => break,
        }
    }
    assert_eq!(bench.status()["sas"], 4);
    half.write_all(b"\"status\"}\n").unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(&half).read_line(&mut line).unwrap();
    assert_says(&line, &["\"sas\":4"]);
    // It gets all its answers when it reads them after all.
    greedy.set_nonblocking(false).unwrap();
    greedy.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(&greedy);
    for i in 0..asked {
        line.clear();
        lines.read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"pid\""), "{i} of {asked}: {line}");
    }
    // Ten at once.
    let mut ten: Vec<_> = (0..10).map(|_| UnixStream::connect(bench.socket()).unwrap()).collect();
    for stream in &mut ten {
        stream.write_all(request).unwrap();
    }
    for stream in &mut ten {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
    }
}

#[test]
fn it_stops_when_asked() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    assert_says(bench.command("{\"command\": \"stop\"}")["done"].as_str().unwrap(), &["stops"]);
    bench.wait();
    assert!(!bench.socket().exists() && bench.run().join("sadb").exists());
    let out = bench.portcullis(&["reload"]);
    assert_eq!(out.status.code(), Some(3));
    assert_says(&String::from_utf8(out.stderr).unwrap(), &["portcullis-iked does not run", "portcullis up"]);
}

#[test]
fn what_workers_tell_is_logged() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    let (_, slot, generation) = bench.sas()[1].clone();
    let (_reader, runtime, _guard) = Reader::attach(&bench.run()).unwrap();
    let event = |generation| Event {
        kind: EventKind::SeqLow,
        slot: SlotIndex(slot as u32),
        generation: Generation(generation),
        value: 12345,
        about: [0; ABOUT],
    };
    runtime.worker(0).tell(&event(generation));
    runtime.worker(3).tell(&event(generation + 1));
    assert!(comes_true(|| bench.log().matches("SeqLow at 12345").count() == 2), "{}", bench.log());
    assert_says(&bench.log(), &["connection 'one': SeqLow", "connection '(gone)': SeqLow"]);
}

/// RFC 4301 §5.1: as a datapath tells it, and across a kill.
#[test]
fn packets_ask_for_sas_until_the_stock_is_used_up() {
    let (head, _) = connection("one", 1)
        .split_once("[connection.inbound]")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let pair = |n: u8| {
        let of = |way: &str, spi: u8, key: u8| {
            format!(
                "[connection.sas.{way}]\nspi = \"0x{n:02x}{spi:02x}\"\nkey = \"0x{n:02x}{key:02x}{:036x}\"\n",
                0
            )
        };
        format!("[[connection.sas]]\n{}{}", of("inbound", 1, 0xaa), of("outbound", 2, 0xbb))
    };
    let stock = |pairs: u8| {
        let pairs: String = (1..=pairs).map(pair).collect();
        format!("{ACKNOWLEDGED}{head}populate = [\"local\", \"remote\"]\n{pairs}")
    };
    let mut bench = Bench::new(&stock(2), 16);
    bench.start();
    let (reader, runtime, _guard) = Reader::attach(&bench.run()).unwrap();
    assert_eq!(
        bench.status()["connections"][0]["stock"],
        serde_json::json!({"pairs": 2, "taken": 0, "refused": 0})
    );
    let flow = |n: u8| Flow {
        src: [10, 1, 0, n].into(),
        dst: [10, 2, 1, n].into(),
        protocol: 17,
        ports: Some((7, 53)),
    };
    let hit = |n| reader.lookup(Direction::Outbound, &flow(n)).unwrap();
    let ask = |n| {
        let (kind, value, about) = (EventKind::Acquire, hit(n).index.0 as u64, flow(n).words());
        runtime.worker(0).tell(&Event { kind, slot: SlotIndex(0), generation: Generation(0), value, about })
    };
    let spi = |n| hit(n).sa.and_then(|sa| reader.spi(sa));
    // Told twice, as two workers might.
    assert!(ask(1) && ask(1));
    assert!(comes_true(|| spi(1) == Some(Spi(0x102))), "{}", bench.log());
    assert_says(&bench.log(), &["connection 'one': SA 0x00000102 for 10.1.0.1/32 -> 10.2.1.1/32"]);
    // Another iked knows what was taken.
    bench.kill();
    let before: Vec<_> = reader.policies().collect();
    bench.start();
    assert_eq!(reader.policies().collect::<Vec<_>>(), before);
    assert!(ask(2));
    assert!(comes_true(|| spi(2) == Some(Spi(0x202))), "{}", bench.log());
    assert!(ask(3) && ask(4));
    let refused = |bench: &Bench| bench.status()["connections"][0]["stock"]["refused"].as_u64();
    assert!(comes_true(|| refused(&bench) == Some(2)), "{}", bench.log());
    assert_says(
        &bench.log(),
        &["no SA for 10.1.0.3/32 -> 10.2.1.3/32: all 2 pairs of its stock are used up"],
    );
    assert_eq!((spi(3), bench.log().matches("used up").count()), (None, 1), "said once");
    let status = bench.status();
    let pairs = status["connections"][0]["pairs"].as_array().unwrap();
    let selectors: Vec<_> = pairs.iter().map(|p| p["selector"].as_str().unwrap()).collect();
    assert_eq!(selectors, ["10.1.0.1/32 -> 10.2.1.1/32", "10.1.0.2/32 -> 10.2.1.2/32"]);
    bench.configure(&stock(3));
    assert!(bench.portcullis(&["reload"]).status.success());
    assert!(ask(3));
    assert!(comes_true(|| spi(3) == Some(Spi(0x302))), "{}", bench.log());
    assert_eq!([spi(1), spi(2)], [Some(Spi(0x102)), Some(Spi(0x202))]);
}

#[test]
fn a_second_iked_is_refused() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    let said = bench.refusal();
    assert_says(&said, &["run/sadb", &format!("process {} is using it", bench.pid())]);
    // It took nothing from the first.
    assert_eq!(bench.sas().len(), 4);
}

#[test]
fn manual_keys_want_an_acknowledgement() {
    let bench = Bench::new(&connection("one", 1), 8);
    assert_says(&bench.refusal(), &["connections.toml", "connection 'one'", ACKNOWLEDGED.trim(), "RFC 4106"]);
    assert!(!bench.run().join("sadb").exists());
}

#[test]
fn what_does_not_fit_is_refused() {
    let bench = Bench::new(&two(), 1);
    assert_says(&bench.refusal(), &["connection 'one'", "max_sas = 1", "4 SAs"]);
    assert!(!bench.run().join("sadb").exists() && !bench.run().join("runtime").exists());
    let bench = Bench::new(&two(), 2);
    assert_says(&bench.refusal(), &["connection 'two'", "max_sas = 2"]);
    // Two that want one SPI, or the same packets.
    bench.configure(&two().replace("0x0201", "0x0101"));
    assert_says(
        &bench.refusal(),
        &["connections.toml:17", "0x00000101 is in use by connection 'one'", "connection 'two'"],
    );
    bench.configure(&two().replace("10.2.2.0/24", "10.2.0.0/16"));
    assert_says(&bench.refusal(), &["connection 'two' overlaps connection 'one'", "10.2.0.0/16"]);
    bench.configure(&two().replacen("aa00", "aa", 1));
    assert_says(&bench.refusal(), &["connection 'one': inbound.key is 19 bytes"]);
}

#[test]
fn regions_that_do_not_fit_are_refused() {
    let mut bench = Bench::new(&two(), 8);
    bench.start();
    bench.kill();
    bench.resize(16);
    assert_says(&bench.refusal(), &["max_sas = 8", "16", "portcullis down --forget"]);
    bench.resize(8);
    // The record of used numbers is gone: the SAs must not go on.
    let (runtime, aside) = (bench.run().join("runtime"), bench.directory.join("aside"));
    fs::rename(&runtime, &aside).unwrap();
    assert_says(&bench.refusal(), &["run/runtime", "run/sadb", "must not go on", "portcullis down --forget"]);
    // One of other regions.
    let mut other = Bench::new(&two(), 8);
    other.start();
    fs::copy(other.run().join("runtime"), &runtime).unwrap();
    assert_says(&bench.refusal(), &["run/runtime", "stale", "must not go on"]);
    fs::remove_file(&runtime).unwrap();
    fs::rename(&aside, &runtime).unwrap();
    // Another run of the machine, of which not all may have come to the disk.
    let sadb = fs::OpenOptions::new().write(true).open(bench.run().join("sadb")).unwrap();
    sadb.write_all_at(&[0xff; 8], 48).unwrap();
    let booted = ["run/sadb", "was booted", "[regions] directory", "portcullis down --forget"];
    assert_says(&bench.refusal(), &booted);
    fs::write(bench.run().join("sadb"), vec![7u8; 100_000]).unwrap();
    assert_says(&bench.refusal(), &["run/sadb", "not a Portcullis region"]);
    // It is what `down --forget` is for.
    assert!(bench.portcullis(&["down", "--forget"]).status.success());
    bench.start();
    assert_eq!(bench.sas().len(), 4);
}

#[test]
fn without_permission_it_names_the_file() {
    let Some(nobody) = nobody() else { return };
    let mut bench = Bench::new(&two(), 65536);
    assert_says(&bench.refusal_by(&nobody), &["connections.toml", "Permission denied", "run this as root"]);
    let give = |path: &Path, user| chown(path, Some(user), Some(user)).unwrap();
    let (file, run) = (bench.directory.join("connections.toml"), bench.run());
    give(&file, 65534);
    // It cannot make its directory.
    assert_says(&bench.refusal_by(&nobody), &["/run", "Permission denied", "run as root"]);
    // It cannot have the regions of another.
    give(&file, 0);
    bench.start();
    bench.kill();
    give(&file, 65534);
    give(&run, 65534);
    assert_says(&bench.refusal_by(&nobody), &["run/sadb", "Permission denied", "run as root"]);
    fs::remove_dir_all(&run).unwrap();
    // Nor does root take the word of another on keys.
    assert_says(&bench.refusal(), &["connections.toml", "belongs to user 65534", "chown"]);
    // It can work without privileges, but not lock more than a little memory: that is told.
    give(&bench.directory, 65534);
    let mut limited = vec!["prlimit", "--memlock=65536:65536"];
    limited.extend(nobody);
    bench.start_by(&limited);
    assert_eq!((bench.sas().len(), bench.status()["keys_locked"].as_bool()), (4, Some(false)));
    assert_says(&bench.log(), &["the keys can be swapped out", "CAP_IPC_LOCK"]);
    // Nobody of the same user reads its keys, and there is no core dump (proc_pid(5): what is not dumpable is root's).
    assert_eq!(fs::metadata(format!("/proc/{}/mem", bench.pid())).unwrap().uid(), 0);
    // Others may not ask it, and are told so.
    let mut words = limited[2..].to_vec();
    words[2] = "65533";
    words.extend([bench::PORTCULLIS, "reload", "--config"]);
    let out = Command::new(words[0]).args(&words[1..]).arg(&bench.directory).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert_says(&String::from_utf8(out.stderr).unwrap(), &["iked.sock", "Permission denied", "run as root"]);
}

/// RFC 7296 §2.23: the SAs of a connection lead to where its peer is, as they are, and still do under the next iked.
#[test]
fn a_peer_that_has_moved_is_followed_with_the_same_sas() {
    let udp =
        |keys: &str| connection("one", 1).replace("algorithm", &format!("udp_encap = true\n{keys}algorithm"));
    let mut bench = Bench::new(&format!("{ACKNOWLEDGED}{}", udp("follow_peer = true\n")), 8);
    bench.start();
    let sas = bench.sas();
    let (reader, runtime, _guard) = Reader::attach(&bench.run()).unwrap();
    let slots = [0, 1].map(|i| (SlotIndex(sas[i].1 as u32), Generation(sas[i].2)));
    let [(inbound, generation), (outbound, _)] = slots;
    let worker = runtime.worker(0);
    let seen = |slot| {
        let (_, sa) = reader.copy_sa(slot).unwrap();
        (sa.src.to_string(), sa.dst.to_string(), sa.udp.unwrap().ports())
    };
    let (us, there) = ("192.0.2.1".to_owned(), "203.0.113.9".to_owned());
    assert_eq!(seen(outbound), (us.clone(), "198.51.100.1".to_owned(), (4500, 4500)));
    let to = |port| Endpoint::new(there.parse().unwrap(), port).unwrap();
    // What is of an SA that is gone, or cannot be, has no effect; of several moves the last one counts.
    assert!(worker.tell(&Event::peer_moved(inbound, Generation(generation.0 + 2), to(1))));
    assert!(worker.tell(&Event::peer_moved(inbound, generation, to(40_001))));
    assert!(worker.tell(&Event::peer_moved(inbound, generation, to(40_002))));
    assert!(comes_true(|| seen(outbound).1 == there), "{}", bench.log());
    assert_eq!(seen(outbound), (us.clone(), there.clone(), (4500, 40_002)));
    assert!(comes_true(|| seen(inbound) == (there.clone(), us.clone(), (40_002, 4500))));
    assert_eq!(bench.sas(), sas, "the same SAs, and with them keys, numbers and windows");
    let peer = &bench.status()["connections"][0]["outbound"]["peer"];
    assert_eq!(peer.as_str(), Some("203.0.113.9:40002"));
    assert_says(&bench.log(), &["connection 'one': its peer is at 203.0.113.9:40002 now"]);
    // The next iked tells the workers that it is there: what its predecessor took and did not do is told again.
    let version = reader.endpoint_version(inbound);
    bench.kill();
    bench.start();
    assert_eq!((bench.sas(), seen(outbound)), (sas, (us, there, (4500, 40_002))));
    assert!(reader.endpoint_version(inbound) > version);
    // A port that the datapath does not look at.
    bench.kill();
    bench.configure(&format!("{ACKNOWLEDGED}{}", udp("udp_ports = [4501, 4500]\n")));
    assert_says(
        &bench.refusal(),
        &["connection 'one'", "4501", "udp_encap_ports = [4500]", "portcullis.toml"],
    );
}
