//! Classes of traffic, and stocks of keys.

use super::*;

/// A class of traffic of site B.
const CLASS: &str = r#"
[[connection.class]]
dscp = [46, 34]
[connection.class.inbound]
spi = "0x00001003"
key = "0x404142434445464748494a4b4c4d4e4f50515253"
[connection.class.outbound]
spi = "0x00001004"
key = "0x606162636465666768696a6b6c6d6e6f70717273"
"#;

#[test]
fn classes_are_read() {
    let second = CLASS
        .replace("[46, 34]", "[10]")
        .replace("1003", "1005")
        .replace("1004", "1006")
        .replace("0x40", "0x41")
        .replace("0x60", "0x61");
    let all = format!("{SITE_B}{CLASS}{second}");
    let keys = parse(&all).unwrap().connections.remove(0).keys;
    assert!(keys.stock.is_empty());
    let of: Vec<_> = keys.own.iter().map(|p| (p.dscps.clone(), p.inbound.spi.0, p.outbound.spi.0)).collect();
    assert_eq!(of, [(vec![], 0x1001, 0x1002), (vec![46, 34], 0x1003, 0x1004), (vec![10], 0x1005, 0x1006)]);
    for (from, to, message) in [
        (
            "dscp = [46, 34]",
            "",
            "16: connection 'site-b', class has no 'dscp'; write for example dscp = [46, 34]",
        ),
        ("[46, 34]", "46", "17: connection 'site-b', class: dscp = 46 must be a list in [ ]"),
        (
            "[46, 34]",
            "[]",
            "17: connection 'site-b', class: dscp is a list and must be a list of at least one DSCP",
        ),
        ("[46, 34]", "[64]", "17: connection 'site-b', class: dscp = 64 must be a whole number from 0 to 63"),
        (
            "[46, 34]",
            "[46, 46]",
            "17: connection 'site-b', class: dscp = 46 must be in one class, and there once",
        ),
        ("[10]", "[46]", "26: connection 'site-b', class: dscp = 46 must be in one class, and there once"),
        (
            "dscp = [46",
            "dcsp = 1\ndscp = [46",
            "17: unknown key 'dcsp' in connection 'site-b', class; did you mean",
        ),
        (
            "[connection.class.inbound]",
            "[connection.class.inbund]",
            "16: connection 'site-b', class has no 'inbound'",
        ),
        (
            "0x40414243",
            "0x404142",
            "20: connection 'site-b', class: inbound.key is 19 bytes, aes-gcm-128 wants 16",
        ),
        (
            "00001003",
            "00001001",
            "16: connection 'site-b': class.inbound.spi 0x00001001 is in use by connection 'site",
        ),
        (
            "00001004",
            "00001002",
            "16: connection 'site-b': class.outbound.spi 0x00001002 is in use by connection 'sit",
        ),
        (
            "0x404142434445464748494a4b4c4d4e4f50515253",
            "0x202122232425262728292a2b2c2d2e2f50515253",
            "16: connection 'site-b': class.inbound.key is also outbound.key of connection 'site-b'",
        ),
    ] {
        let shown = error(&all, from, to).to_string();
        assert!(shown.starts_with(&format!("connections.toml:{message}")), "{shown}\n{message}");
    }
    // Eight, with that of all others.
    let more: String = (2..9u32)
        .map(|n| {
            CLASS
                .replace("[46, 34]", &format!("[{n}]"))
                .replace("1003", &format!("{}", 2000 + n))
                .replace("1004", &format!("{}", 3000 + n))
                .replace("0x40", &format!("0x4{n}"))
                .replace("0x60", &format!("0x6{n}"))
        })
        .collect();
    assert_eq!(parse(&format!("{SITE_B}{more}")).unwrap().connections[0].keys.own.len(), 8);
}

#[test]
fn a_stock_is_read() {
    let (site, _) = SITE_B.split_once("[connection.inbound]").unwrap();
    let stock = CLASS.replace("connection.class", "connection.sas").replace("dscp = [46, 34]\n", "");
    let second =
        stock.replace("1003", "1005").replace("1004", "1006").replace("0x40", "0x41").replace("0x60", "0x61");
    let populate = "populate = [\"local\", \"protocol\", \"remote_port\"]\n";
    let all = format!("{site}{populate}{stock}{second}");
    let keys = parse(&all).unwrap().connections.remove(0).keys;
    let spis: Vec<_> = keys.stock.iter().map(|p| (p.inbound.spi.0, p.outbound.spi.0)).collect();
    assert_eq!((keys.own.len(), spis), (0, vec![(0x1003, 0x1004), (0x1005, 0x1006)]));
    assert_eq!(keys.populate, Fields::SRC | Fields::PROTOCOL | Fields::DST_PORT);
    let trap = parse(&all.replace(populate, "")).unwrap().connections.remove(0).keys;
    assert_eq!(trap.populate, Fields::NONE);
    let routed = site.split_once("local_ts").unwrap().0.to_owned()
        + "interface = \"ipsec0\"\nalgorithm = \"aes-gcm-128\"\n";
    let e = parse(&format!("{routed}{stock}")).unwrap_err().to_string();
    assert!(
        e.contains("with interface = \"ipsec0\" there is neither ts_protocol nor [[connection.sas]]"),
        "{e}"
    );
    for (from, to, message) in [
        (
            "\"local\"",
            "\"src\"",
            "9: connection 'site-b': populate = \"src\" must be \"local\" or \"remote\" or \"proto",
        ),
        (
            ", \"protocol\"",
            "",
            "9: connection 'site-b': populate is a list and must be with \"protocol\" too, or ts_proto",
        ),
        (
            "[[connection.sas]]",
            "[connection.inbound]\nspi = \"0x7777\"\n[[connection.sas]]",
            "11: connection 'site-b': inbound must be left out: its SAs are those of [[connection.sas]]",
        ),
        (
            "[[connection.sas]]",
            "[[connection.class]]\n[[connection.sas]]",
            "11: connection 'site-b': class must be left out: its SAs are those of [[connection.sas]]",
        ),
        (
            "sas.inbound]",
            "sas.inbuond]",
            "11: connection 'site-b', sas has no 'inbound'; write for example [connection.sa",
        ),
        (
            "00001005",
            "00001003",
            "19: connection 'site-b': sas.inbound.spi 0x00001003 is in use by connection 'site-b'",
        ),
    ] {
        let shown = error(&all, from, to).to_string();
        assert!(shown.starts_with(&format!("connections.toml:{message}")), "{shown}\n{message}");
    }
    let tcp = all.replace(", \"protocol\"", "").replace("populate", "ts_protocol = \"tcp\"\npopulate");
    parse(&tcp).unwrap();
    let opaque = tcp.replace("populate", "remote_ports = \"opaque\"\npopulate");
    let e = parse(&opaque).unwrap_err().to_string();
    assert!(e.contains("populate is a list and must be without ports"), "{e}");
    let e = error(SITE_B, "algorithm", "populate = []\nalgorithm").to_string();
    assert!(
        e.contains("8: connection 'site-b': populate is a list and must be left out, or there must be"),
        "{e}"
    );
}
