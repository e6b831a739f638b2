use super::*;
use portcullis_sadb::{
    Action, Aggfrag, Algorithm, DfBit, Dscp, Fields, Handling, Lifetime, Limits, Mode, OPAQUE_PORT, Protocol,
    Spi, UdpEncap,
};
use std::os::unix::fs::OpenOptionsExt;

mod keying;

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
    assert_eq!((b.name.as_str(), b.esn, b.replay_window, b.udp), ("site-b", true, 1024, None));
    let [keys] = &b.keys.own[..] else { panic!() };
    assert_eq!((keys.inbound.spi, keys.outbound.spi), (Spi(0x1001), Spi(0x1002)));
    assert_eq!(keys.inbound.key.bytes(), (0..20).collect::<Vec<u8>>());
    assert_eq!(b.place.line, 2);
    let selectors: Vec<_> = b.selectors().map(|s| s.to_string()).collect();
    assert_eq!(selectors, ["10.99.1.0/24 -> 10.99.2.0/24", "fd99:1::/64 -> fd99:2::/64"]);
    let udp = UdpEncap { keepalive_secs: 20, ..UdpEncap::between(4500, 4500) };
    assert_eq!((c.esn, c.replay_window, c.udp), (false, 64, Some(udp)));
    assert_eq!(
        (b.protocol, b.mode, b.mtu, &b.handling),
        (Protocol::Esp, Mode::Tunnel, 0, &Handling::default())
    );
    assert!(c.handling.is_plain(), "ESP in UDP goes the plain way");
    assert_eq!((c.algorithm, c.keys.own[0].inbound.key.bytes().len()), (Algorithm::AES_GCM_256, 36));
    assert_eq!(c.selectors().count(), 1);
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
            "8: policy 'dns': dst_ports = \"53-50\" must be a port such as \"53\", a range",
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
fn routes_take_the_place_of_selectors() {
    let selectors =
        "local_ts = [\"10.99.1.0/24\", \"fd99:1::/64\"]\nremote_ts = [\"10.99.2.0/24\", \"fd99:2::/64\"]\n";
    let routed = SITE_B.replace(selectors, "interface = \"ipsec0\"\n");
    let all = parse(&routed).unwrap();
    assert_eq!(all.interfaces().collect::<Vec<_>>(), ["ipsec0"]);
    assert_eq!(all.connections[0].selectors().count(), 0);
    for (from, to, message) in [
        (
            "\"ipsec0\"",
            "\"ipsec/0\"",
            "6: connection 'site-b': interface = \"ipsec/0\" must be a name of 1 to 10 letters",
        ),
        (
            "\"ipsec0\"",
            "\"portcullis0\"",
            "6: connection 'site-b': interface = \"portcullis0\" must be a name",
        ),
        (
            "interface",
            "local_ts = [\"10.1.0.0/16\"]\ninterface",
            "6: connection 'site-b': local_ts is a list and must be left out: the routes to ipsec0 say",
        ),
        (
            "interface",
            "mode = \"transport\"\ninterface",
            "7: connection 'site-b': interface = \"ipsec0\" must be left out, or mode must be \"tunnel\"",
        ),
    ] {
        let shown = error(&routed, from, to).to_string();
        assert!(shown.starts_with(&format!("connections.toml:{message}")), "{shown}\n{message}");
    }
    for more in ["ts_protocol = \"tcp\"\n", "remote_ports = \"443\"\nts_protocol = \"udp\"\n"] {
        let shown = error(&routed, "interface", &format!("{more}interface")).to_string();
        assert!(shown.contains("with interface = \"ipsec0\" there is neither ts_protocol nor"), "{shown}");
    }
    let policy =
        "\n[[policy]]\nname = \"p\"\naction = \"discard\"\nsrc = \"0.0.0.0/0\"\ndst = \"10.7.0.0/16\"\n";
    for (priority, fits) in [(1999, true), (2000, false), (2128, false), (2129, true)] {
        let all = parse(&format!("{routed}{policy}priority = {priority}\n"));
        assert_eq!(all.is_ok(), fits, "{priority}");
        assert!(parse(&format!("{SITE_B}{policy}priority = {priority}\n")).is_ok());
        if let Err(e) = all {
            let told =
                format!("policy 'p': priority = {priority} is one of those that routes have, 2000 to 2128");
            assert!(e.to_string().contains(&told), "{e}");
        }
    }
    let two = routed.clone()
        + &SITE_C.replace(
            "local_ts = [\"10.99.1.0/24\"]\nremote_ts = [\"10.99.3.0/24\", \"fd99:3::/64\"]",
            "interface = \"ipsec0\"",
        );
    let shown = parse(&two).unwrap_err().to_string();
    assert!(shown.contains("'site-c': interface ipsec0 is that of connection 'site-b'"), "{shown}");
}

/// SITE_B with more keys.
fn with(keys: &str) -> Connection {
    let text = SITE_B.replace("algorithm =", &format!("{keys}\nalgorithm ="));
    parse(&text).unwrap_or_else(|e| panic!("{e}")).connections.remove(0)
}

#[test]
fn all_that_can_be_asked_for_is_read() {
    let c = with(
        "df = \"clear\"\ndscp_map = { 46 = 34, 0 = 10 }\necn = false\ndecap_dscp = true\nttl = \"copy\"\n\
         flow_label = true\nnested = true\nmss = \"auto\"\nidle_secs = 60\nmtu = 1400\n\
         soft = { bytes = 1000, packets = 10, secs = 3000 }\nhard = { bytes = 1001, secs = 3600 }\n\
         aggfrag = { packet_size = 1400, packets_per_sec = 16777215, fragments = false }",
    );
    let mut map: [u8; 64] = std::array::from_fn(|i| i as u8);
    (map[46], map[0]) = (34, 10);
    assert_eq!(c.mtu, 1400);
    assert_eq!(
        c.handling,
        Handling {
            df: DfBit::Clear,
            dscp: Dscp::Map(map),
            ecn: false,
            decap_dscp: true,
            ttl: 0,
            flow_label: true,
            nested: true,
            gre: false,
            mss: 65_535,
            tfc_pad: 0,
            dummies_per_sec: 0,
            aggfrag: Some(Aggfrag { packet_size: 1400, packets_per_sec: 16_777_215, fragments: false }),
            lifetime: Lifetime {
                soft: Limits { bytes: 1000, packets: 10, secs: 3000 },
                hard: Limits { bytes: 1001, packets: 0, secs: 3600 },
                idle_secs: 60,
            },
            born_secs: 0,
        }
    );
    let c = with(
        "dscp = 46\nttl = 1\nmss = 1360\ntfc_pad = \"mtu\"\ndummies_per_sec = 7\nudp_encap = true\nudp_ports = [4500, 4501]",
    );
    let Handling { dscp, ttl, mss, tfc_pad, dummies_per_sec, .. } = c.handling;
    assert_eq!((dscp, ttl, mss), (Dscp::Set(46), 1, 1360));
    assert_eq!((tfc_pad, dummies_per_sec, c.udp.map(|udp| udp.ports())), (65_535, 7, Some((4500, 4501))));
}

#[test]
fn what_is_asked_of_esp_in_udp_is_read() {
    let of = |keys: &str| {
        let text = SITE_B.replace("algorithm", &format!("udp_encap = true\n{keys}algorithm"));
        parse(&text).unwrap().connections.remove(0).udp.unwrap()
    };
    let plain = UdpEncap { keepalive_secs: 20, ..UdpEncap::between(4500, 4500) };
    assert_eq!(of(""), plain);
    // The NAT is the peer's: it keeps it alive (RFC 3948 §4).
    assert_eq!(of("follow_peer = true\n"), UdpEncap { follow_peer: true, keepalive_secs: 0, ..plain });
    let all = of("follow_peer = true\nnat_keepalive_secs = 5\nudp_ports = [4501, 4502]\n");
    let wanted = UdpEncap { follow_peer: true, keepalive_secs: 5, ..UdpEncap::between(4501, 4502) };
    assert_eq!(all, wanted);
    assert_eq!(of("nat_keepalive_secs = 0\n"), UdpEncap { keepalive_secs: 0, ..plain });
    let of_v6 = |keys: &str| {
        let text = SITE_C.replace("udp_encap = true", &format!("udp_encap = true\n{keys}"));
        let c =
            Connections::parse(&Document::from_text(FILE, format!("{MANUAL_KEYS} = true\n{text}"))).unwrap();
        c.connections[0].udp.unwrap().zero_checksum
    };
    assert_eq!((of_v6(""), of_v6("udp6_zero_checksum = true")), (false, true));
}

#[test]
fn our_udp_ports_are_the_machines() {
    let text = SITE_B.replace("algorithm", "udp_encap = true\nudp_ports = [4501, 4500]\nalgorithm");
    let connections = parse(&text).unwrap();
    connections.check_udp_ports(&[4500, 4501]).unwrap();
    let error = connections.check_udp_ports(&[4500, 4502]).unwrap_err().to_string();
    let wanted = "connection 'site-b': udp_ports: ours, 4501, is none of udp_encap_ports = [4500, 4502]";
    assert!(error.contains(wanted), "{error}");
    // The peer's is the peer's.
    let text = text.replace("[4501, 4500]", "[4500, 4501]");
    parse(&text).unwrap().check_udp_ports(&[4500]).unwrap();
    parse(SITE_B).unwrap().check_udp_ports(&[4502]).unwrap();
}

#[test]
fn in_transport_mode_the_ends_are_what_is_protected() {
    let without = |key: &str, text: &str| {
        text.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n")
    };
    let bare = without("remote_ts", &without("local_ts", SITE_B));
    let transport = bare.replace("algorithm =", "mode = \"transport\"\nalgorithm =");
    let c = parse(&transport).unwrap().connections.remove(0);
    let selectors: Vec<_> = c.selectors().map(|s| s.to_string()).collect();
    assert_eq!((c.mode, &selectors[..]), (Mode::Transport, &["10.99.0.1/32 -> 10.99.0.2/32".to_owned()][..]));
    let same = transport.replace("algorithm =", "local_ts = [\"10.99.0.1\"]\nalgorithm =");
    assert_eq!(parse(&same).unwrap().connections[0].local_ts, c.local_ts);
    let e = error(&same, "[\"10.99.0.1\"]", "[\"10.99.0.0/24\"]").to_string();
    assert!(e.contains("local_ts is a list and must be [\"10.99.0.1\"], or left out: in transport"), "{e}");
    let e = error(&transport, "algorithm =", "ttl = 3\nalgorithm =").to_string();
    assert!(e.contains("ttl = 3 must be left out: transport mode has no outer header"), "{e}");
    // In GRE it is about the networks behind, and has an outer header.
    let gre = SITE_B.replace("algorithm =", "mode = \"transport\"\ngre = true\nttl = 3\nalgorithm =");
    let c = parse(&gre).unwrap().connections.remove(0);
    assert_eq!((c.handling.gre, c.handling.ttl, c.selectors().count()), (true, 3, 2));
}

#[test]
fn selectors_are_more_than_prefixes() {
    let of = |keys: &str| {
        let c = with(keys);
        let s = c.selectors().next().unwrap();
        ((s.protocol, s.src_ports, s.dst_ports), c.next_layer.to_string())
    };
    assert_eq!(of(""), ((None, 0..=65535, 0..=65535), "any".to_owned()));
    assert_eq!(
        of("ts_protocol = \"tcp\"\nlocal_ports = \"1024-65535\"\nremote_ports = \"443\""),
        ((Some(6), 1024..=65535, 443..=443), "tcp, local ports 1024-65535, remote port 443".to_owned())
    );
    assert_eq!(
        of("ts_protocol = 33\nremote_ports = \"opaque\""),
        ((Some(33), 0..=65535, OPAQUE_PORT), "protocol 33, remote port opaque".to_owned())
    );
    // RFC 4301 §4.4.1.1: the type is the upper octet; the same both ways.
    for (icmp, range, shown) in [
        ("8", 0x800..=0x8ff, "icmp type 8"),
        ("8/0", 0x800..=0x800, "icmp type 8 code 0"),
        ("0-8", 0..=0x8ff, "icmp types 0-8"),
        ("0-255", 0..=0xffff, "icmp"),
        ("opaque", OPAQUE_PORT, "icmp type opaque"),
    ] {
        let found = of(&format!("ts_protocol = \"icmp\"\nicmp = \"{icmp}\""));
        assert_eq!(found, ((Some(1), range.clone(), range), shown.to_owned()));
    }
    let found = of("ts_protocol = 135\nmobility = \"5\"");
    assert_eq!(found, ((Some(135), 0x500..=0x5ff, 0x500..=0x5ff), "protocol 135 type 5".to_owned()));
    let c =
        parse(&SITE_B.replace("\"10.99.1.0/24\"", "\"10.99.1.5-10.99.1.9\"")).unwrap().connections.remove(0);
    let all: Vec<_> = c.local_ts.iter().map(ToString::to_string).collect();
    assert_eq!(all, ["10.99.1.5/32", "10.99.1.6/31", "10.99.1.8/31", "fd99:1::/64"]);
    // What shows its ports and what does not have nothing in common.
    let dns = |name: &str, ports: &str| {
        DNS.replace("\"dns\"", &format!("\"{name}\"")).replace("\"53\"", &format!("\"{ports}\""))
    };
    parse(&format!("{}{}", dns("a", "0-65534"), dns("b", "opaque"))).unwrap();
    parse(&format!("{}{}", dns("a", "opaque"), dns("b", "opaque"))).unwrap_err();
    parse(&format!("{}{}", dns("a", "0-65535"), dns("b", "opaque"))).unwrap_err();
}

#[test]
fn what_does_not_go_together_is_told() {
    for (keys, message) in [
        ("protocol = \"ah\"", "algorithm = \"aes-gcm-128\" must be an algorithm of AH, such as"),
        ("protocol = \"ipcomp\"", "protocol = \"ipcomp\" must be \"esp\" or \"ah\""),
        ("mode = \"beet\"", "mode = \"beet\" must be \"tunnel\" or \"transport\""),
        ("gre = true", "gre = true must be left out, or mode must be \"transport\""),
        ("udp_ports = [1, 2]", "udp_ports is a list and must be left out, or udp_encap must be true"),
        (
            "udp_encap = true\nudp_ports = [4500]",
            "udp_ports is a list and must be two ports, ours and the peer's",
        ),
        ("udp_encap = true\nudp_ports = [0, 4500]", "udp_ports = 0 must be a whole number from 1 to 65535"),
        ("follow_peer = true", "follow_peer = true must be left out, or udp_encap must be true"),
        (
            "udp_encap = true\nreplay_window = 0\nfollow_peer = true",
            "follow_peer = true must be left out with replay_window = 0: whoever copies a packet",
        ),
        ("nat_keepalive_secs = 0", "nat_keepalive_secs = 0 must be left out, or udp_encap must be true"),
        ("udp_encap = true\nnat_keepalive_secs = 65536", "nat_keepalive_secs = 65536 must be a whole number"),
        (
            "udp_encap = true\nudp6_zero_checksum = true",
            "udp6_zero_checksum = true must be left out: over IPv4",
        ),
        ("mtu = 500", "mtu = 500 must be a whole number from 576 to 65535"),
        ("df = true", "df = true must be \"copy\" or \"set\" or \"clear\""),
        ("dscp = 64", "dscp = 64 must be \"copy\" or a number from 0 to 63"),
        ("dscp_map = { 64 = 1 }", "dscp_map is a table and must be of inner and outer DSCPs from 0 to 63"),
        ("dscp_map = { 1 = 64 }", "dscp_map = 64 must be a whole number from 0 to 63"),
        ("ecn = 1", "ecn = 1 must be true or false"),
        ("ttl = 0", "ttl = 0 must be \"copy\" or a number from 1 to 255"),
        ("mss = 100", "mss = 100 must be \"auto\" or a number from 536 to 65534"),
        ("tfc_pad = 0", "tfc_pad = 0 must be \"mtu\" or a number from 1 to 65534"),
        ("dummies_per_sec = 65536", "dummies_per_sec = 65536 must be a whole number from 0 to 65535"),
        ("idle_secs = 0", "idle_secs = 0 must be a whole number from 1 to 4294967295"),
        (
            "ts_protocol = \"icmp\"\nlocal_ports = \"1\"",
            "local_ports = \"1\" must be left out, or ts_protocol must be one with p",
        ),
        (
            "ts_protocol = \"tcp\"\nicmp = \"8\"",
            "icmp = \"8\" must be left out, or ts_protocol must be \"icmp\" or",
        ),
        (
            "ts_protocol = \"icmp\"\nicmp = \"256\"",
            "icmp = \"256\" must be a type such as \"8\", with a code such as \"8/0\"",
        ),
        ("ts_protocol = 135\nmobility = \"5/1\"", "mobility = \"5/1\" must be a type such as \"8\", a range"),
        (
            "ts_protocol = \"udp\"\nlocal_ports = \"9\"\nremote_ports = \"opaque\"",
            "remote_ports = \"opaque\" must be opaque where the other is",
        ),
        ("soft = { secs = 1 }\nhard = { secs = 1 }", "soft.secs = 1 must be below hard.secs = 1"),
        (
            "soft = { minutes = 1 }",
            "unknown key 'minutes' in connection 'site-b', soft; it can have: bytes, packets, secs",
        ),
        (
            "aggfrag = { packets_per_sec = 1 }",
            "connection 'site-b', aggfrag has no 'packet_size'; write for example packet_size = 1400",
        ),
        (
            "aggfrag = { packet_size = 1400 }\ntfc_pad = \"mtu\"",
            "[connection.aggfrag] is for ESP in tunnel mode, and pads by itself",
        ),
    ] {
        let shown = error(SITE_B, "algorithm =", &format!("{keys}\nalgorithm =")).to_string();
        assert!(shown.contains(message), "{shown}\n{message}");
    }
    for (range, message) in [
        ("10.1.0.9-10.1.0.5", "must be a range of addresses of one family, the lower one first"),
        ("10.1.0.9-fd00::1", "must be a range of addresses of one family, the lower one first"),
        (
            "fd00::1-fd00::ffff:ffff:ffff:fffe",
            "must be a range that needs at most 64 prefixes, this one needs 126",
        ),
    ] {
        let shown = error(SITE_B, "10.99.1.0/24", range).to_string();
        assert!(shown.contains(message), "{shown}\n{message}");
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
