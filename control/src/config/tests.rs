use super::*;
use portcullis_sadb::{Action, Algorithm, Spi};
use std::os::unix::fs::OpenOptionsExt;

/// `connections.toml` with one connection, as the other tests change it.
const SITE_B: &str = r#"
[[connection]]
name = "site-b"
local = "10.99.0.1"
remote = "10.99.0.2"
local_ts = ["10.99.1.0/24", "fd99:1::/64"]
remote_ts = ["10.99.2.0/24", "fd99:2::/64"]
algorithm = "aes-gcm-128"
[connection.inbound]
spi = "0x00001001"
key = "0x000102030405060708090a0b0c0d0e0f10111213"
[connection.outbound]
spi = "0x00001002"
key = "0x202122232425262728292a2b2c2d2e2f30313233"
"#;

const SITE_C: &str = r#"
[[connection]]
name = "site-c"
local = "fd99::1"
remote = "fd99::3"
local_ts = ["10.99.1.0/24"]
remote_ts = ["10.99.3.0/24", "fd99:3::/64"]
algorithm = "aes-gcm-256"
esn = false
replay_window = 64
udp_encap = true
[connection.inbound]
spi = "0x100"
key = "0x404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60616263"
[connection.outbound]
spi = "0xffffffff"
key = "0x707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f90919293"
"#;

const DNS: &str = r#"
[[policy]]
name = "dns"
action = "bypass"
src = "10.99.1.0/24"
dst = "10.99.2.53/32"
protocol = "udp"
dst_ports = "53"
priority = 100
"#;

fn parse(text: &str) -> Result<Connections, ConnectionsError> {
    Connections::parse(&Document::from_text("connections.toml", text))
}

/// The error for a text in which `from` became `to`. It names the file, and shows no key.
fn error(text: &str, from: &str, to: &str) -> ConnectionsError {
    assert!(text.contains(from), "{from}");
    let e = parse(&text.replacen(from, to, 1)).unwrap_err();
    let (shown, debug) = (e.to_string(), format!("{e:?}"));
    assert!(shown.starts_with("connections.toml:"), "{shown}");
    for secret in ["04050607", "24252627", "44454647", "74757677"] {
        assert!(!shown.contains(secret) && !debug.contains(secret), "{debug}");
    }
    e
}

#[test]
fn a_connection_is_read() {
    let all = parse(&format!("{SITE_B}{SITE_C}{DNS}")).unwrap();
    assert!(!all.manual_keys_acknowledged);
    let [b, c] = &all.connections[..] else { panic!() };
    assert_eq!((b.name.as_str(), b.esn, b.replay_window, b.udp_encap), ("site-b", true, 1024, false));
    assert_eq!((b.inbound.spi, b.outbound.spi), (Spi(0x1001), Spi(0x1002)));
    assert_eq!(b.inbound.key.bytes(), (0..20).collect::<Vec<u8>>());
    assert_eq!(b.place.line, 2);
    let pairs: Vec<_> = b.pairs().map(|(l, r)| format!("{l} {r}")).collect();
    assert_eq!(pairs, ["10.99.1.0/24 10.99.2.0/24", "fd99:1::/64 fd99:2::/64"]);
    assert_eq!((c.esn, c.replay_window, c.udp_encap), (false, 64, true));
    assert_eq!((c.algorithm, c.inbound.key.bytes().len()), (Algorithm::AES_GCM_256, 36));
    assert_eq!(c.pairs().count(), 1);
    let [dns] = &all.exceptions[..] else { panic!() };
    assert_eq!((dns.action, dns.priority, dns.selector.protocol), (Action::Bypass, 100, Some(17)));
    assert_eq!((dns.selector.dst_ports.clone(), dns.selector.src_ports.clone()), (53..=53, 0..=65535));
    assert!(parse(&format!("{MANUAL_KEYS} = true\n{SITE_B}")).unwrap().manual_keys_acknowledged);
    assert!(parse("").unwrap().connections.is_empty());
}

#[test]
fn wrong_values_are_told() {
    for (from, to, message) in [
        (
            "\"10.99.0.1\"",
            "\"10.99.0\"",
            "4: connection 'site-b': local = \"10.99.0\" must be the address of a gateway",
        ),
        (
            "\"10.99.0.1\"",
            "\"224.0.0.1\"",
            "4: connection 'site-b': local = \"224.0.0.1\" must be the address of a gat",
        ),
        (
            "\"10.99.0.2\"",
            "\"fd99::2\"",
            "5: connection 'site-b': remote = \"fd99::2\" must be of the same family as lo",
        ),
        (
            "\"10.99.0.2\"",
            "\"10.99.0.1\"",
            "5: connection 'site-b': remote = \"10.99.0.1\" must be the peer's address",
        ),
        (
            "\"10.99.1.0/24\"",
            "\"10.99.1.0/33\"",
            "6: connection 'site-b': local_ts = \"10.99.1.0/33\" must be an addr",
        ),
        (
            "\"10.99.1.0/24\"",
            "\"10.99.1.1/24\"",
            "6: connection 'site-b': local_ts = \"10.99.1.1/24\" must be a prefix without bits behind its length: did \
             you mean \"10.99.1.0/24\"?",
        ),
        (
            "[\"10.99.1.0/24\", \"fd99:1::/64\"]",
            "[]",
            "6: connection 'site-b': local_ts is a list and must be a list",
        ),
        ("\"10.99.1.0/24\", ", "1, ", "6: connection 'site-b': local_ts = 1 must be text in quotes"),
        (
            "aes-gcm-128",
            "aes-cbc",
            "8: connection 'site-b': algorithm = \"aes-cbc\" must be an algorithm of ESP, such as",
        ),
        (
            "\"0x00001001\"",
            "\"0xff\"",
            "10: connection 'site-b', inbound: spi = \"0xff\" must be 0x and up to 8 hex",
        ),
        (
            "\"0x00001001\"",
            "\"4097\"",
            "10: connection 'site-b', inbound: spi = \"4097\" must be 0x and up to 8 hex",
        ),
        ("\"0x00001001\"", "4097", "10: connection 'site-b', inbound: spi = 4097 must be text in quotes"),
        (
            "\"0x0001",
            "\"0001",
            "11: connection 'site-b', inbound: key must be 0x and an even number of hex digits",
        ),
        (
            "\"0x0001",
            "\"0xx001",
            "11: connection 'site-b', inbound: key must be 0x and an even number of hex digits",
        ),
        (
            "\"0x0001",
            "\"0x001",
            "11: connection 'site-b', inbound: key must be 0x and an even number of hex digits",
        ),
        (
            "\"0x0001",
            "\"0x",
            "11: connection 'site-b': inbound.key is 18 bytes, aes-gcm-128 wants 16 of key and 4 of salt, 20 in all",
        ),
        (
            "aes-gcm-128",
            "aes-gcm-256",
            "11: connection 'site-b': inbound.key is 20 bytes, aes-gcm-256 wants 32 of key and 4 of salt, 36 in all",
        ),
        (
            "name = \"site-b\"",
            "name = \"\"",
            "3: name = \"\" must be a name of 1 to 32 octets, without quotes",
        ),
        ("name = \"site-b\"", "", "2: [[connection]] has no 'name'; write for example name = \"site-b\""),
        (
            "local = \"10.99.0.1\"",
            "",
            "2: connection 'site-b' has no 'local'; write for example local = \"192.0.2.1\"",
        ),
        (
            "spi = \"0x00001001\"",
            "",
            "9: connection 'site-b', inbound has no 'spi'; write for example spi = \"0x0000",
        ),
        (
            "algorithm",
            "replay_window = 1000\nalgorithm",
            "8: connection 'site-b': replay_window = 1000 must be a multi",
        ),
        (
            "algorithm",
            "replay_window = 65600\nalgorithm",
            "8: connection 'site-b': replay_window = 65600 must be a mu",
        ),
        ("algorithm", "esn = 1\nalgorithm", "8: connection 'site-b': esn = 1 must be true or false"),
        (
            "algorithm",
            "udpencap = true\nalgorithm",
            "8: unknown key 'udpencap' in connection 'site-b'; did you mean 'ud",
        ),
        (
            "spi =",
            "kye = 1\nspi =",
            "10: unknown key 'kye' in connection 'site-b', inbound; did you mean 'key'?",
        ),
    ] {
        let shown = error(SITE_B, from, to).to_string();
        assert!(shown.starts_with(&format!("connections.toml:{message}")), "{shown}\n{message}");
    }
}

#[test]
fn wrong_policies_are_told() {
    for (from, to, message) in [
        ("bypass", "protect", "4: policy 'dns': action = \"protect\" must be \"bypass\" or \"discard\""),
        (
            "10.99.2.53/32",
            "fd99::/64",
            "6: policy 'dns': dst = \"fd99::/64\" must be of the same family as src, 10.99",
        ),
        (
            "\"udp\"",
            "\"upd\"",
            "7: policy 'dns': protocol = \"upd\" must be \"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a",
        ),
        (
            "\"udp\"",
            "\"icmp\"",
            "8: policy 'dns': dst_ports = \"53\" must be left out, or protocol must be one with po",
        ),
        (
            "\"53\"",
            "\"53-50\"",
            "8: policy 'dns': dst_ports = \"53-50\" must be a port such as \"53\" or a range",
        ),
        ("100", "0", "9: policy 'dns': priority = 0 must be a whole number from 1 to 4294967294"),
        ("[[policy]]", "[[polcy]]", "2: unknown key \'polcy\' in the file; did you mean \'policy\'?"),
        ("priority = 100", "", "2: policy 'dns' has no 'priority'; write for example priority = 100"),
    ] {
        let shown = error(DNS, from, to).to_string();
        assert!(shown.starts_with(&format!("connections.toml:{message}")), "{shown}\n{message}");
    }
}

#[test]
fn a_missing_half_is_told() {
    let (head, _) = SITE_B.split_once("[connection.outbound]").unwrap();
    let e = parse(head).unwrap_err();
    assert!(
        matches!(&e, ConnectionsError::Config(ConfigError::Missing { key, .. }) if key == "outbound"),
        "{e}"
    );
}

#[test]
fn names_are_used_once() {
    let two = format!("{SITE_B}{SITE_C}{DNS}");
    match error(&two, "site-c", "site-b") {
        ConnectionsError::DuplicateName { place, name, other } => {
            assert_eq!((place.line, name.as_str(), other.line), (16, "site-b", 2));
        }
        other => panic!("{other}"),
    }
    assert!(matches!(error(&two, "\"dns\"", "\"site-c\""), ConnectionsError::DuplicateName { .. }));
}

#[test]
fn spis_are_used_once() {
    let two = format!("{SITE_B}{SITE_C}");
    let e = error(&two, "0x100\"", "0x1001\"");
    let shown = "connections.toml:16: connection 'site-c': inbound.spi 0x00001001 is in use by connection 'site-b'; \
                 choose another";
    assert_eq!(e.to_string(), shown);
    // Another peer may have chosen the same; the same peer may not.
    parse(&two.replace("0xffffffff", "0x1002")).unwrap();
    let one_peer = two.replace("fd99::1\"", "10.99.0.1\"").replace("fd99::3\"", "10.99.0.2\"");
    match error(&one_peer, "0xffffffff", "0x1002") {
        ConnectionsError::DuplicateSpi { direction, spi, .. } => {
            assert_eq!((direction, spi), ("outbound", Spi(0x1002)));
        }
        other => panic!("{other}"),
    }
    // Ours and the peer's are of different tables.
    parse(&SITE_B.replace("0x00001002", "0x00001001")).unwrap();
}

#[test]
fn keys_are_used_once() {
    // RFC 4106 §3.1: never one key and one nonce twice.
    match error(SITE_B, "0x202122232425262728292a2b2c2d2e2f", "0x000102030405060708090a0b0c0d0e0f") {
        ConnectionsError::KeyReused { name, direction, other, other_direction, .. } => {
            assert_eq!((name.as_str(), direction), ("site-b", "outbound"));
            assert_eq!((other.as_str(), other_direction), ("site-b", "inbound"));
        }
        other => panic!("{other}"),
    }
    let c = SITE_C
        .replace("aes-gcm-256", "aes-gcm-128")
        .replace("505152535455565758595a5b5c5d5e5f60616263", "50515253")
        .replace("808182838485868788898a8b8c8d8e8f90919293", "80818283");
    let two = format!("{SITE_B}{c}");
    parse(&two).unwrap();
    match error(&two, "0x707172737475767778797a7b7c7d7e7f", "0x202122232425262728292a2b2c2d2e2f") {
        ConnectionsError::KeyReused { name, other, .. } => {
            assert_eq!((name.as_str(), other.as_str()), ("site-c", "site-b"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn overlaps_are_told() {
    let two = format!("{SITE_B}{SITE_C}");
    let e = error(&two, "10.99.3.0/24", "10.99.2.128/25");
    assert_eq!(
        e.to_string(),
        "connections.toml:16: connection 'site-c' overlaps connection 'site-b': 10.99.1.0/24 -> 10.99.2.128/25 and \
         10.99.1.0/24 -> 10.99.2.0/24 have packets in common and the same priority, 1000; make them disjoint"
    );
    // Crosswise: each is wider at one end.
    let crosswise = two.replace("10.99.3.0/24", "10.99.0.0/16");
    let crosswise = crosswise.replacen("local_ts = [\"10.99.1.0/24\"]", "local_ts = [\"10.99.1.128/25\"]", 1);
    assert!(matches!(parse(&crosswise).unwrap_err(), ConnectionsError::Overlap(_)));
    // The same destination for other sources is no overlap.
    parse(&crosswise.replace("10.99.1.128/25", "10.99.7.0/24")).unwrap();
    // Inside one connection too.
    assert!(matches!(
        error(SITE_B, "[\"10.99.2.0/24\"", "[\"10.99.2.0/24\", \"10.99.2.0/25\""),
        ConnectionsError::Overlap(_)
    ));
}

#[test]
fn exceptions_overlap_at_one_priority_only() {
    let at_1000 = format!("{SITE_B}{}", DNS.replace("= 100", "= 1000"));
    assert!(matches!(parse(&at_1000).unwrap_err(), ConnectionsError::Overlap(o) if o.priority == 1000));
    let two = format!("{DNS}{}", DNS.replace("\"dns\"", "\"more\""));
    let e = error(&two, "\"dns\"", "\"dns\"");
    assert!(e.to_string().contains("make them disjoint, or give one another priority"), "{e}");
    parse(&two.replacen("\"53\"", "\"54-60\"", 1)).unwrap();
    parse(&two.replacen("\"udp\"", "\"tcp\"", 1)).unwrap();
    parse(&two.replacen("= 100", "= 101", 1)).unwrap();
}

#[test]
fn overlaps_are_found_as_by_comparing_all() {
    // Small prefixes of few addresses, so that many overlap; the oracle compares each pair.
    let mut state = 1u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let (mut overlapping, mut disjoint) = (0, 0);
    for _ in 0..400 {
        let mut text = String::new();
        let mut selectors = vec![];
        for i in 0..4 {
            let mut prefix = || {
                let len = 26 + random(7) as u8;
                let address = IpAddr::V4((0x0a00_0000 | random(64) as u32).into());
                Prefix::new(address, len).unwrap()
            };
            let selector = Selector::between(prefix(), prefix());
            text += &format!(
                "[[policy]]\nname = \"{i}\"\naction = \"discard\"\nsrc = \"{}\"\ndst = \"{}\"\npriority = 5\n",
                selector.src, selector.dst
            );
            selectors.push(selector);
        }
        let wanted = (0..4).any(|i| (0..i).any(|j| intersect(&selectors[i], &selectors[j])));
        *if wanted { &mut overlapping } else { &mut disjoint } += 1;
        assert_eq!(parse(&text).is_err(), wanted, "{text}");
    }
    assert!(overlapping > 50 && disjoint > 50, "{overlapping} {disjoint}");
}

#[test]
fn many_connections_are_read_in_time() {
    let text: String = (0..2000u32)
        .map(|i| {
            let (high, low, spi, other) = (i >> 8, i & 255, 0x1000 + i, 0x10_0000 + i);
            format!(
                "[[connection]]\nname = \"c{i}\"\nlocal = \"10.0.0.1\"\nremote = \"10.1.{high}.{low}\"\n\
                 local_ts = [\"10.9.0.0/16\"]\nremote_ts = [\"172.16.{high}.{low}/32\"]\n\
                 algorithm = \"aes-gcm-128\"\n[connection.inbound]\nspi = \"{spi:#x}\"\n\
                 key = \"0x{i:032x}00000000\"\n[connection.outbound]\nspi = \"{spi:#x}\"\n\
                 key = \"0x{other:032x}00000000\"\n"
            )
        })
        .collect();
    let start = std::time::Instant::now();
    assert_eq!(parse(&text).unwrap().connections.len(), 2000);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn others_may_not_read_the_file() {
    let directory = std::env::temp_dir().join(format!("portcullis-config-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(FILE);
    for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
        let _ = fs::remove_file(&path);
        fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match Connections::load(&directory) {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(ConnectionsError::Mode { mode: found, .. }) => assert!(!good && found == mode, "{found:o}"),
            Err(e) => panic!("{e}"),
        }
    }
    fs::remove_dir_all(&directory).unwrap();
    let e = Connections::load(&directory).unwrap_err();
    assert!(matches!(e, ConnectionsError::Config(ConfigError::Read { .. })), "{e}");
}
