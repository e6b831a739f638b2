//! Debian's `swanctl` with iked: connections and secrets that are loaded, SAs that begin, are replaced and end, what is
//! listed and told. At the other end is another iked, in a network namespace of its own.

mod bench;

use bench::{
    ACKNOWLEDGED, PATIENCE, assert_says, comes_true, connection,
    pair::{Pair, configuration},
};
use portcullis_sadb::{ABOUT, Direction, Event, EventKind, Flow, Reader, Spi};
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

#[test]
fn swanctl_begins_lists_replaces_and_ends() {
    let pair = Pair::new();
    pair.says("--version --daemon", &["portcullis-iked", "Linux"]);
    let threads = format!("worker threads: {} total", thread::available_parallelism().unwrap());
    pair.says("--stats", &["uptime:", &threads, "IKE_SAs: 0 total, 0 half-open"]);
    pair.says(
        "--list-conns",
        &[
            "peer: IKEv2, no reauthentication, rekeying every 14400s",
            "local:  10.99.0.1",
            "remote: 10.99.0.2",
            "local pre-shared key authentication:\n    id: 1.example.org",
            "remote pre-shared key authentication:\n    id: 2.example.org",
            "net: TUNNEL, rekeying every 3600s\n    local:  10.11.1.0/24\n    remote: 10.11.2.0/24",
        ],
    );
    pair.says(
        "--initiate --child net --timeout 10",
        &["is begun with 10.99.0.2:500", "is established", "child 'net' is up", "completed successfully"],
    );
    pair.says("--initiate --child other --ike peer", &["child 'other' is up"]);
    assert_eq!(pair.says("--list-sas", &[]).matches("ESTABLISHED").count(), 1, "both are under one IKE SA");
    let said = pair.says(
        "--list-sas --child net",
        &[
            "peer: #1, ESTABLISHED, IKEv2, ",
            "local  '1.example.org' @ 10.99.0.1[4500]",
            "remote '2.example.org' @ 10.99.0.2[4500]",
            "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519",
            "rekeying in 1",
            "net: #1, reqid ",
            "INSTALLED, TUNNEL, ESP:AES_GCM_16-128",
            "0 bytes,     0 packets",
            "local  10.11.1.0/24",
            "remote 10.11.2.0/24",
        ],
    );
    assert!(!said.contains("other: #2"), "{said}");
    // By name, by number, of either kind.
    let spi = |n: usize| pair.values("spi-in")[n].clone();
    let before = spi(0);
    pair.says("--rekey --child net", &["completed successfully"]);
    assert!(comes_true(|| pair.values("spi-in").len() == 2 && !pair.values("spi-in").contains(&before)));
    // What was sent by the old one may still come.
    let installed = || pair.ours.status()["sas"].as_u64();
    assert_eq!(installed(), Some(5));
    assert!(comes_true(|| installed() == Some(4)));
    let number = pair.values("initiator-spi");
    pair.says("--rekey --ike-id 1", &["completed successfully"]);
    assert!(comes_true(|| pair.values("initiator-spi").len() == 1 && pair.values("initiator-spi") != number));
    assert_eq!(pair.values("spi-in").len(), 2, "its child SAs go on");
    pair.refuses("--rekey --child nothing", &["there is no such SA"]);
    pair.says(
        "--counters",
        &["child-rekey           : 1", "ike-rekey             : 1", "ike-down              : 0"],
    );
    pair.says("--terminate --child-id 2", &["child 'other' is down", "completed successfully"]);
    assert_eq!(pair.values("spi-in").len(), 1);
    pair.refuses("--terminate --child other", &["there is no such SA"]);
    pair.says("--terminate --ike peer --timeout 10", &["is closed: deleted", "completed successfully"]);
    assert!(pair.values("uniqueid").is_empty());
    assert!(comes_true(|| pair.theirs.status()["ike"]["sas"].as_array().unwrap().is_empty()));
    assert_eq!(pair.ours.status()["sas"], 0);
}

#[test]
fn policies_without_an_sa_are_laid_and_listed() {
    let pair = Pair::new();
    let policies = || pair.ours.status()["policies"].as_u64();
    let shunts = "connections { lan { children {
        dns { remote_ts = 10.11.2.53/32[udp/domain]
            mode = pass
            start_action = trap }
        rest { local_ts = 10.11.0.0/16
            remote_ts = 10.0.0.0/8
            mode = drop } } } }\n";
    pair.load(&format!("{}{shunts}", configuration(1)));
    let pass = "lan/dns, PASS\n  local:  dynamic\n  remote: 10.11.2.53/32[udp/domain]";
    let said = pair.says("--list-pols", &[pass]);
    assert!(!said.contains("DROP") && policies() == Some(2), "{said}");
    pair.says("--install --child rest --ike lan", &["completed successfully"]);
    pair.says("--install --child net", &["completed successfully"]);
    let rest = "lan/rest, DROP\n  local:  10.11.0.0/16\n  remote: 10.0.0.0/8";
    let net = "peer/net, TUNNEL\n  local:  10.11.1.0/24\n  remote: 10.11.2.0/24";
    pair.says("--list-pols", &[pass, rest, net]);
    let said = pair.says("--list-pols --drop", &[rest]);
    assert!(!said.contains("PASS") && !said.contains("TUNNEL") && policies() == Some(6), "{said}");
    // What is loaded as it is stays as it is.
    pair.says("--load-conns", &[]);
    assert_eq!(policies(), Some(6));
    pair.says("--uninstall --child dns", &["completed successfully"]);
    pair.says("--uninstall --child net", &["completed successfully"]);
    pair.says("--load-conns", &[]);
    assert_eq!(policies(), Some(2));
    pair.refuses("--initiate --child dns", &["no connection has a child 'dns'"]);
    // The other's child is not without the connection.
    pair.load(&configuration(1));
    assert!(comes_true(|| policies() == Some(0)));
}

#[test]
fn what_fails_is_told() {
    let mut pair = Pair::new();
    pair.refuses("--initiate --child nothing", &["no connection has a child 'nothing'"]);
    pair.refuses("--redirect --ike peer --gateway 192.0.2.1", &["there is no such IKE SA to redirect"]);
    pair.refuses("--install --child nothing", &["no connection has a child 'nothing'"]);
    // The peer has nothing like it.
    let text =
        configuration(1).replace("10.12.2.0/24", "10.13.2.0/24").replace("10.12.1.0/24", "10.13.1.0/24");
    pair.load(&text);
    pair.refuses("--initiate --child other", &["is established", "the peer says TS_UNACCEPTABLE"]);
    pair.says("--terminate --ike peer", &[]);
    // It has another key.
    pair.load(&configuration(1).replace("of this test", "of another test"));
    pair.refuses("--initiate --child net", &["is closed", "AUTHENTICATION_FAILED"]);
    pair.says("--counters", &["ike-failed            : 1"]);
    // It is away, and what was begun goes on or ends.
    pair.load(&configuration(1));
    pair.says("--initiate --child net", &[]);
    pair.theirs.kill();
    pair.refuses("--terminate --ike peer --timeout 1", &["it is not done after 1000 ms"]);
    pair.says("--terminate --ike peer --force", &["completed successfully"]);
    pair.refuses("--initiate --child net --timeout 1", &["it is not done after 1000 ms"]);
    // What cannot be read is refused with its name; what was loaded stays.
    fs::write(pair.swanctl().join("swanctl.conf"), configuration(1).replace("version = 2", "version = 3"))
        .unwrap();
    let (_, said) = pair.ask("--load-conns");
    assert_says(&said, &["loading connection 'peer' failed", "connections.peer.version"]);
    pair.says("--list-conns", &["peer: IKEv2"]);
}

#[test]
fn what_is_loaded_again_is_not_touched() {
    let pair = Pair::new();
    pair.says("--initiate --child net", &[]);
    let (ike, child) = (pair.values("initiator-spi"), pair.values("spi-in"));
    pair.load(&configuration(1));
    assert_eq!((pair.values("initiator-spi"), pair.values("spi-in")), (ike.clone(), child.clone()));
    // A child changes: the others and the IKE SA stay, and it comes up under that.
    pair.load(&configuration(1).replace("10.12.1.0/24", "10.12.1.0/25"));
    pair.says("--initiate --child other", &[]);
    assert_eq!(pair.values("initiator-spi"), ike);
    assert_says(&pair.says("--list-sas", &[]), &["10.12.1.0/25", &child[0]]);
    // The connection changes: what is up stays, what is new has an IKE SA of its own.
    pair.load(&configuration(1).replace("version = 2", "version = 2\n dpd_delay = 100s"));
    assert_eq!((pair.values("initiator-spi"), &pair.values("spi-in")[0]), (ike.clone(), &child[0]));
    pair.says("--initiate --child other", &[]);
    assert_eq!((pair.values("initiator-spi").len(), &pair.values("initiator-spi")[0]), (2, &ike[0]));
    // It goes: likewise.
    fs::write(pair.swanctl().join("swanctl.conf"), "").unwrap();
    pair.says("--load-all", &["unloaded"]);
    assert_eq!(pair.says("--list-conns", &[]), "");
    assert_eq!(pair.values("initiator-spi").len(), 2);
    pair.refuses("--initiate --child net", &["no connection has a child 'net'"]);
    pair.says("--terminate --ike peer", &["completed successfully"]);
    // One that is to be up begins by itself.
    pair.load(&configuration(1).replace("esp_proposals", "start_action = start\n esp_proposals"));
    assert!(comes_true(|| pair.values("spi-in").len() == 2));
    // What VICI has loaded stays while the file does not change.
    pair.says("--reload-settings", &[]);
    pair.says("--list-conns", &["peer: IKEv2"]);
    let file = pair.ours.directory.join("swanctl.conf");
    fs::write(
        &file,
        "connections { third { remote_addrs = 10.99.0.3\n local { auth = psk }\n remote { auth = psk } } }",
    )
    .unwrap();
    pair.says("--reload-settings", &[]);
    pair.says("--list-conns", &["peer: IKEv2", "third: IKEv2"]);
    assert_eq!(pair.values("spi-in").len(), 2);
}

/// As strongSwan: what was to be up from the start ends when it is another or gone, and nothing else does.
#[test]
fn what_begins_by_itself_ends_by_itself() {
    let starts = |text: &str| text.replace("esp_proposals", "start_action = start\n esp_proposals");
    let (both, is_kept) = (starts(&configuration(1)), |before: &[String], now: &[String]| {
        now.iter().filter(|spi| before.contains(spi)).count()
    });
    let pair = Pair::of(&both, &configuration(2));
    assert!(comes_true(|| pair.values("spi-in").len() == 2));
    let (ike, before) = (pair.values("initiator-spi"), pair.values("spi-in"));
    pair.load(&both);
    assert_eq!((pair.values("initiator-spi"), pair.values("spi-in")), (ike.clone(), before.clone()));
    // One is another: it ends, and comes anew under the same IKE SA.
    pair.load(&both.replace("10.12.1.0/24", "10.12.1.0/25"));
    let comes_anew = |now: Vec<String>| now.len() == 2 && is_kept(&before, &now) == 1;
    assert!(comes_true(|| comes_anew(pair.values("spi-in"))), "{}", pair.ours.log());
    assert_says(&pair.says("--list-sas", &[]), &["10.12.1.0/25"]);
    // It is not to begin any more, and ends.
    pair.load(&both.replacen("start_action = start\n", "", 2).replacen(
        "esp_p",
        "start_action = start\n esp_p",
        1,
    ));
    assert!(comes_true(|| pair.values("spi-in").len() == 1), "{}", pair.ours.log());
    assert_eq!((is_kept(&before, &pair.values("spi-in")), pair.values("initiator-spi")), (1, ike));
    // What somebody has begun stays when its connection goes, and the IKE SA with it.
    pair.says("--initiate --child other", &[]);
    let file = pair.swanctl().join("swanctl.conf");
    fs::write(&file, "").unwrap();
    pair.says("--load-conns", &["1 unloaded"]);
    assert!(comes_true(|| pair.values("spi-in").len() == 1), "{}", pair.ours.log());
    pair.says("--list-sas", &["10.12.1.0/24"]);
    pair.says("--terminate --ike peer", &["completed successfully"]);
    // Without any the IKE SA ends, too.
    pair.load(&both);
    assert!(comes_true(|| pair.values("spi-in").len() == 2));
    fs::write(&file, "").unwrap();
    pair.says("--load-conns", &["1 unloaded"]);
    assert!(comes_true(|| pair.values("initiator-spi").is_empty()), "{}", pair.ours.log());
}

/// All is as the files say, or as it was.
#[test]
fn a_reload_with_one_file_that_is_wrong_changes_nothing() {
    let pair = Pair::new();
    let (ours, file) = (&pair.ours, pair.ours.directory.join("swanctl.conf"));
    let third =
        "connections { third { remote_addrs = 10.99.0.3\n local { auth = psk }\n remote { auth = psk } } }";
    let manual = format!("{ACKNOWLEDGED}{}", connection("one", 1));
    let reload = || ours.command("{\"command\": \"reload\"}");
    let is_as_before = || {
        assert!(ours.sas().is_empty() && ours.status()["policies"] == 0);
        assert!(!pair.says("--list-conns", &["peer: IKEv2"]).contains("third"));
    };
    // What cannot be read, what cannot be used, and what is beside it.
    ours.configure(&manual);
    for (text, why) in [
        (third.replace("remote_addrs", "remot_addrs"), "did you mean 'remote_addrs'?"),
        (third.replace("remote_addrs", "local_port = 501\n remote_addrs"), "connections.third.local_port"),
        (third.replace("psk", "pubkey"), "connections.third.local.certs"),
    ] {
        fs::write(&file, text).unwrap();
        assert_says(reload()["error"].as_str().unwrap(), &[why]);
        is_as_before();
    }
    fs::write(&file, third).unwrap();
    fs::create_dir(ours.directory.join("x509ca")).unwrap();
    fs::write(ours.directory.join("x509ca/wrong.pem"), "no certificate").unwrap();
    assert_says(reload()["error"].as_str().unwrap(), &["x509ca/wrong.pem"]);
    is_as_before();
    fs::remove_file(ours.directory.join("x509ca/wrong.pem")).unwrap();
    ours.configure(&manual.replace("aes-gcm-128", "aes-gcm-129"));
    assert_says(reload()["error"].as_str().unwrap(), &["aes-gcm-129"]);
    is_as_before();
    // Both are right.
    ours.configure(&manual);
    assert_says(reload()["done"].as_str().unwrap(), &["2 published"]);
    pair.says("--list-conns", &["peer: IKEv2", "third: IKEv2"]);
    assert_eq!(ours.sas().len(), 2);
}

/// What a command writes to a file until it is killed.
struct Listener {
    child: Child,
    file: PathBuf,
}

impl Listener {
    fn new(mut command: Command, file: PathBuf) -> Listener {
        let out = File::create(&file).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).spawn().unwrap();
        Listener { child, file }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    fn hears(&self, words: &[&str]) {
        let has_all = || words.iter().all(|word| self.text().contains(word));
        assert!(comes_true(has_all), "{words:?} in {}", self.text());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pools_are_loaded_and_it_is_told_who_has_which_address() {
    let with = |n: u8, more: &str, selectors: &str| {
        let text = configuration(n).replace("version = 2", &format!("version = 2\n {more}"));
        text.replace(&format!("{selectors} = 10.11.2.0/24"), &format!("{selectors} = dynamic"))
    };
    let pools = "pools { v4 { addrs = 10.3.0.0/30\n dns = 10.3.0.1 } }\n";
    let ours = with(1, "pools = v4", "remote_ts") + pools;
    let pair = Pair::of(&ours, &with(2, "vips = 0.0.0.0", "local_ts"));
    pair.says("--list-pools", &["v4", "10.3.0.1", "0 / 0 / 2"]);
    let begun = pair.command_at(&pair.theirs, "--initiate --child net").output().unwrap();
    assert!(begun.status.success(), "{begun:?}\n{}", pair.theirs.log());
    pair.says("--list-pools --leases", &["1 / 0 / 2", "10.3.0.1", "online", "'2.example.org'"]);
    pair.says("--list-sas", &["[10.3.0.1]", "10.3.0.1/32"]);
    // While somebody has an address, they are what they are.
    let file = pair.swanctl().join("swanctl.conf");
    fs::write(&file, ours.replace("10.3.0.0/30", "10.4.0.0/30")).unwrap();
    assert_says(&pair.ask("--load-pools").1, &["peers have addresses of it; end their IKE SAs first"]);
    fs::write(&file, configuration(1)).unwrap();
    assert_says(&pair.ask("--load-pools").1, &["peers have addresses of it"]);
    pair.says("--list-pools", &["1 / 0 / 2"]);
    // A reload says so, too, and the next one does what this could not.
    let reload = || pair.ours.command("{\"command\": \"reload\"}")["done"].as_str().unwrap().to_owned();
    fs::write(pair.ours.directory.join("swanctl.conf"), "pools { v4 { addrs = 10.5.0.0/30 } }").unwrap();
    for _ in 0..2 {
        assert_says(&reload(), &["it is as before: pools.v4.addrs: peers have addresses of it"]);
    }
    pair.says("--terminate --ike peer", &[]);
    pair.says("--list-pools --leases", &["0 / 1 / 2", "10.3.0.1", "offline", "'2.example.org'"]);
    assert!(!reload().contains("v4"));
    pair.says("--list-pools", &["10.5.0.1", "0 / 0 / 2"]);
    pair.load(&ours.replace("10.3.0.0/30", "10.4.0.0/30"));
    pair.says("--list-pools", &["10.4.0.1", "0 / 0 / 2"]);
    fs::write(&file, configuration(1)).unwrap();
    pair.says("--load-pools", &["1 unloaded"]);
    assert!(!pair.says("--list-pools", &[]).contains("v4"));
}

#[test]
fn events_are_told_to_all_who_listen() {
    let pair = Pair::new();
    let file = |name: &str| pair.ours.directory.join(name);
    // Without a buffer between, since it is killed.
    let unbuffered = |command: Command| {
        let mut with = Command::new("stdbuf");
        with.arg("-o0").arg(command.get_program()).args(command.get_args());
        with.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        with
    };
    let mut rekeys = pair.register(&["child-rekey", "ike-rekey"]);
    let log = Listener::new(unbuffered(pair.command("--log")), file("log.vici"));
    let sas = Listener::new(unbuffered(pair.command("--monitor-sa --raw")), file("sas.vici"));
    let mut ours = Command::new(bench::PORTCULLIS);
    ours.args(["monitor", "--json", "--config"]).arg(&pair.ours.directory);
    let ours = Listener::new(ours, file("monitor"));
    let mut text = Command::new(bench::PORTCULLIS);
    text.args(["monitor", "--config"]).arg(&pair.ours.directory);
    let text = Listener::new(text, file("monitor.text"));
    // They say nothing when they begin to listen: until they hear of it, an SA comes and goes.
    assert!(comes_true(|| {
        pair.says("--initiate --child other", &[]);
        pair.says("--terminate --ike peer", &[]);
        [&log, &sas, &ours, &text].iter().all(|listener| !listener.text().is_empty())
    }));
    pair.says("--initiate --child net", &[]);
    let before = pair.values("spi-in")[0].clone();
    pair.says("--rekey --child net", &[]);
    assert!(comes_true(|| pair.values("spi-in").len() == 1 && pair.values("spi-in")[0] != before));
    pair.says("--rekey --ike peer", &[]);
    ours.hears(&["\"ike-replaced\""]);
    pair.says("--terminate --ike peer", &[]);
    log.hears(&[
        "[IKE] connection 'peer': IKE SA",
        "[CHD] connection 'peer': child 'net' is up",
        "is closed: deleted",
    ]);
    sas.hears(&[
        "ike-updown event {up=yes peer {",
        "child-updown event {up=yes peer {",
        "event {peer {",
        &before,
    ]);
    for event in ["child-rekey", "ike-rekey"] {
        let told = rekeys();
        assert_says(&told, &[event, "peer", "old", "new", "state", "ESTABLISHED"]);
    }
    ours.hears(&[
        "{\"event\":\"ike-up\"",
        "\"event\":\"child-up\",\"child\":\"net\"",
        "\"event\":\"child-replaced\"",
        "\"event\":\"child-down\"",
        "\"event\":\"ike-down\",\"replaced\":false",
    ]);
    let last: Vec<serde_json::Value> =
        ours.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = &last[last.len() - 4..];
    assert_eq!((&last[3]["sa"]["connection"], &last[3]["sa"]["state"]), (&"peer".into(), &"closed".into()));
    // For people there is a line of each.
    let lines: Vec<_> = last.iter().map(|event| format!("{}\n", event["text"].as_str().unwrap())).collect();
    text.hears(&["is established\n", "child 'net' is up, SPI 0x", &lines.concat()]);
    assert!(text.text().ends_with(&lines.concat()), "{}", text.text());
}

/// Packets and IKE go different ways: what was sent before a deletion may come behind it.
#[test]
fn what_the_peer_deletes_takes_no_packet_more_but_those_on_their_way() {
    let pair = Pair::new();
    pair.says("--initiate --child net", &[]);
    let (reader, _, _guard) = Reader::attach(&pair.theirs.run()).unwrap();
    let back = Flow {
        src: "10.11.2.1".parse().unwrap(),
        dst: "10.11.1.1".parse().unwrap(),
        protocol: 17,
        ports: Some((53, 7)),
    };
    let sends = || reader.lookup(Direction::Outbound, &back).is_some_and(|found| found.sa.is_some());
    let spi = u32::from_str_radix(&pair.values("spi-out")[0], 16).unwrap();
    assert!(sends() && reader.find(Spi(spi)).is_some());
    pair.says("--terminate --child net", &["completed successfully"]);
    assert!(!sends() && reader.find(Spi(spi)).is_some(), "{}", pair.theirs.log());
    assert_eq!(pair.theirs.status()["ike"]["sas"][0]["children"].as_array().map(Vec::len), Some(0));
    assert_eq!(pair.ours.status()["sas"], 0, "who has asked for it has waited for the answer");
    assert!(comes_true(|| pair.theirs.status()["sas"] == 0), "{}", pair.theirs.log());
}

/// A child that is to be up and cannot be begun, since no packet could leave, is begun when one can; who asks for it is told.
#[test]
fn a_child_without_a_route_is_begun_when_there_is_one() {
    let elsewhere = |n: u8| configuration(n).replace("10.99.0.", "10.98.0.");
    let first = elsewhere(1).replace("local_addrs = 10.98.0.1\n", "");
    let first = first.replace("net { ", "net { start_action = start\n ");
    let pair = Pair::of(&first, &elsewhere(2));
    let (_, said) = pair.ask("--initiate --child net --timeout 5");
    assert_says(&said, &["there is no route to 10.98.0.2"]);
    for (node, n) in [("b", 2), ("a", 1)] {
        let node = format!("{}-{node}", pair.lab.name);
        let address = format!("10.98.0.{n}/24");
        let added = Command::new("ip").args(["-n", &node, "addr", "add", &address, "dev", "wire0"]).status();
        assert!(added.unwrap().success());
    }
    assert!(comes_true(|| !pair.values("spi-in").is_empty()), "{}", pair.ours.log());
}

/// RFC 4301 §4.4.2.1, as a datapath tells it.
#[test]
fn a_child_at_a_soft_limit_is_replaced_and_one_at_a_hard_limit_is_deleted() {
    let pair = Pair::new();
    let (reader, runtime, _guard) = Reader::attach(&pair.ours.run()).unwrap();
    let flow = Flow {
        src: "10.11.1.1".parse().unwrap(),
        dst: "10.11.2.1".parse().unwrap(),
        protocol: 17,
        ports: Some((7, 53)),
    };
    // Of both SAs of the child at once.
    let tell = |kind| {
        let spi = pair.values("spi-in")[0].clone();
        let inbound = reader.find(Spi(u32::from_str_radix(&spi, 16).unwrap())).unwrap();
        let outbound = reader.lookup(Direction::Outbound, &flow).unwrap().sa.unwrap();
        let slots = [inbound, outbound].map(|slot| (slot, reader.generation(slot).unwrap()));
        for (slot, generation) in slots {
            let event = Event { kind, slot, generation, value: 1, about: [0; ABOUT] };
            assert!(runtime.worker(0).tell(&event));
        }
        spi
    };
    let theirs = || {
        let status = pair.theirs.status();
        let children = status["ike"]["sas"][0]["children"].as_array().unwrap().clone();
        children.iter().map(|child| child["spi_out"].as_str().unwrap()[2..].to_owned()).collect::<Vec<_>>()
    };
    pair.says("--initiate --child net", &[]);
    for (n, kind) in [EventKind::SoftLifetime, EventKind::SeqLow].into_iter().enumerate() {
        let before = tell(kind);
        let is_replaced = || {
            let ours = pair.values("spi-in");
            ours.len() == 1 && ours[0] != before && theirs() == ours
        };
        assert!(comes_true(is_replaced), "{kind:?}: {}", pair.ours.log());
        // Once, though both of its SAs were at their limit.
        pair.says("--counters", &[&format!("child-rekey           : {}", n + 1)]);
    }
    for kind in [EventKind::HardLifetime, EventKind::SeqExhausted] {
        if pair.values("spi-in").is_empty() {
            pair.says("--initiate --child net", &[]);
        }
        let spi = tell(kind);
        let is_gone = || pair.values("spi-in").is_empty() && theirs().is_empty();
        assert!(comes_true(is_gone), "{kind:?}: {}", pair.ours.log());
        assert!(comes_true(|| pair.ours.status()["sas"] == 0), "{kind:?}");
        assert_says(&pair.ours.log(), &[&format!("child SA 0x{spi}: {kind:?}")]);
    }
    assert_eq!(pair.values("uniqueid").len(), 1, "the IKE SA stays, and is the only one");
    pair.says("--counters", &["child-rekey           : 2"]);
}

/// How often octets are in what a process may write to of its memory.
fn count_in_memory(pid: u32, octets: &[u8]) -> usize {
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut count = 0;
    for map in maps.lines().filter(|map| map.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = map.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut room = vec![0; (to - from) as usize];
        memory.seek(SeekFrom::Start(from)).unwrap();
        // What nobody may read has none.
        if memory.read_exact(&mut room).is_ok() {
            count += room.windows(octets.len()).filter(|window| *window == octets).count();
        }
    }
    count
}

#[test]
fn a_secret_is_nowhere_in_memory_when_it_is_unloaded() {
    let pair = Pair::new();
    let pid = pair.ours.pid();
    let key = "a key of this test alone";
    let mark = &key.as_bytes()[2..];
    assert!(count_in_memory(pid, mark) > 0, "it is found where it is");
    // It is used, too: by both ends of a connection.
    pair.says("--initiate --child net", &[]);
    pair.says("--terminate --ike peer", &[]);
    pair.load(&configuration(1).replace(key, "another"));
    assert!(comes_true(|| count_in_memory(pid, mark) == 0), "{} times", count_in_memory(pid, mark));
    pair.load(&configuration(1));
    assert!(count_in_memory(pid, mark) > 0);
    pair.says("--load-creds --clear --file /dev/null", &[]);
    assert!(comes_true(|| count_in_memory(pid, mark) == 0), "{} times", count_in_memory(pid, mark));
}

/// What is up stays, and so do traps; nothing begins of what has lost its key, until that is loaded again.
#[test]
fn a_private_key_that_is_unloaded_is_used_no_more() {
    let pair = Pair::new();
    let made = rcgen::generate_simple_self_signed(["1.example.org".to_owned()]).unwrap();
    let (certificate, key) = (pair.swanctl().join("1.der"), pair.swanctl().join("private/1.der"));
    let by_key = |n, side: &str| {
        let signs = format!("{side} {{ auth = pubkey\n certs = {}", certificate.display());
        let text = configuration(n).replace(&format!("{side} {{ auth = psk"), &signs);
        text.replacen("esp_proposals", "start_action = trap\n esp_proposals", 1)
    };
    fs::create_dir_all(pair.swanctl().join("private")).unwrap();
    fs::write(&certificate, made.cert.der()).unwrap();
    fs::write(pair.theirs.directory.join("swanctl.conf"), by_key(2, "remote")).unwrap();
    assert_says(pair.theirs.command("{\"command\": \"reload\"}")["done"].as_str().unwrap(), &["reloaded"]);
    let load_key = || {
        fs::write(&key, made.signing_key.serialized_der()).unwrap();
        pair.says("--load-creds", &[]);
    };
    load_key();
    pair.load(&by_key(1, "local"));
    pair.says("--initiate --child net", &[]);
    let (ike, child) = (pair.values("initiator-spi"), pair.values("spi-in"));
    let traps = || pair.says("--list-pols --trap", &["net, TUNNEL"]);
    let traps_before = traps();
    // The number of RFC 5915 alone.
    let (pid, secret) = (pair.ours.pid(), &made.signing_key.serialized_der()[36..68]);
    assert!(count_in_memory(pid, secret) > 0, "it is found where it is");
    fs::remove_file(&key).unwrap();
    pair.says("--load-creds", &[]);
    assert!(comes_true(|| count_in_memory(pid, secret) == 0), "{} times", count_in_memory(pid, secret));
    assert_says(&pair.ours.log(), &["'peer' cannot be used any more: connections.peer.local.certs"]);
    assert_eq!((pair.values("initiator-spi"), pair.values("spi-in")), (ike.clone(), child));
    assert_eq!(traps(), traps_before);
    let (_, said) = pair.ask("--load-conns");
    assert_says(&said, &["connections.peer.local.certs"]);
    // It comes back, and what is up is of it.
    load_key();
    pair.says("--initiate --child other", &[]);
    assert_eq!(pair.values("initiator-spi"), ike);
    fs::remove_file(&key).unwrap();
    pair.says("--load-creds", &[]);
    pair.says("--terminate --ike peer", &["completed successfully"]);
    pair.refuses("--initiate --child net", &["connections.peer.local.certs", "put it into private"]);
    load_key();
    pair.says("--initiate --child net", &[]);
}

#[test]
fn the_same_is_listed_on_the_control_socket() {
    let pair = Pair::new();
    pair.says("--initiate --child net", &[]);
    let out = pair.ours.portcullis(&["list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let (sa, child) = (&list["sas"][0], &list["sas"][0]["children"][0]);
    assert_eq!(sa["initiator_spi"], pair.values("initiator-spi")[0]);
    assert_eq!(child["spi_in"], format!("0x{}", pair.values("spi-in")[0]));
    assert_eq!((&child["state"], &child["udp_encap"]), (&"installed".into(), &false.into()));
    let out = pair.ours.portcullis(&["list"]);
    assert_says(
        &String::from_utf8(out.stdout).unwrap(),
        &["IKE SA 1 of 'peer': established", "child 'net' (installed)"],
    );
}

#[test]
fn algorithms_are_listed_by_the_names_that_others_have_for_them() {
    let pair = Pair::new();
    pair.says(
        "--list-algs",
        &[
            "encryption:\n  3DES_CBC[portcullis]\n",
            "  AES_CBC[portcullis]\n",
            "integrity:\n  HMAC_SHA1_96[portcullis]\n",
            "aead:\n  AES_CCM_8[portcullis]\n",
            "  AES_GCM_16[portcullis]\n",
            "prf:\n  PRF_HMAC_SHA1[portcullis]\n",
            "ke:\n  MODP_2048[portcullis]\n",
            "  ML_KEM_768[portcullis]\n",
        ],
    );
}

/// There are no others than those that were loaded, and what was loaded stays.
#[test]
fn certificates_that_were_loaded_are_not_flushed() {
    let pair = Pair::new();
    pair.says("--flush-certs --raw", &["success=yes"]);
    let made = rcgen::generate_simple_self_signed(["gw.example.org".to_owned()]).unwrap();
    fs::create_dir_all(pair.swanctl().join("x509")).unwrap();
    fs::write(pair.swanctl().join("x509/gw.der"), made.cert.der()).unwrap();
    pair.says("--load-creds", &[]);
    let before = pair.says("--list-certs --raw", &["X509"]);
    pair.says("--flush-certs --raw", &["success=yes"]);
    assert_eq!(pair.says("--list-certs --raw", &[]), before);
}

/// `--keylog` may come when there are IKE SAs already.
#[test]
fn keys_of_ike_sas_that_go_on_are_written() {
    for (version, ike, table) in [
        (1, "aes256-sha256-ecp256", "ikev1_decryption_table"),
        (2, "aes128gcm16-prfsha256-x25519", "ikev2_decryption_table"),
    ] {
        let of = |n| {
            let text = configuration(n).replace("aes128gcm16-prfsha256-x25519", ike);
            text.replace("version = 2", &format!("version = {version}"))
        };
        // They are kept on a tmpfs alone.
        let mut pair = Pair::under(Path::new("/dev/shm"), &of(1), &of(2));
        pair.says("--initiate --child net", &[]);
        let (spi, keys) = (pair.values("initiator-spi"), pair.ours.directory.join("keys"));
        pair.start_again(&["--keylog", keys.to_str().unwrap()]);
        assert_eq!(pair.values("initiator-spi"), spi, "{}", pair.ours.log());
        let rows = fs::read_to_string(keys.join(table)).unwrap();
        assert!(rows.starts_with(&format!("{},", spi[0])) && rows.lines().count() == 1, "{rows}");
        assert_says(
            &pair.ours.log(),
            &["KEYLOG", &format!("the keys of the IKE SA of {} are written", spi[0])],
        );
    }
}

#[test]
fn octets_that_are_no_vici_end_a_client_alone() {
    let pair = Pair::new();
    let socket = pair.ours.run().join("charon.vici");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for octets in [
        &b"\0\0\0\x01\x09"[..],
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\x02\x00\x05",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(octets);
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "{octets:?}");
    }
    // A command that there is not, and a message that cannot be read.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\0\0\0\x05\0\x03fly").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"\0\0\0\x01\x02");
    stream.write_all(b"\0\0\0\x0b\0\x08list-sas\x09").unwrap();
    let mut answer = [0; 18];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[4..], b"\x01\x03\x07success\0\x02no");
    // More clients than there is room for wait their turn; those that do not read hold up nobody.
    let all: Vec<_> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for mut stream in all.iter().take(8) {
        for _ in 0..100 {
            stream.write_all(b"\0\0\0\x10\0\x0eget-algorithms").unwrap();
        }
    }
    assert_eq!(pair.ours.status()["sas"], 0);
    drop(all);
    pair.says("--stats", &["IKE_SAs: 0 total"]);
}
