use super::*;
use strict::Place;

const LEAST: &str = "[[port]]\ninterface = \"eth0\"\n";

fn machine(text: &str) -> Result<Machine, ConfigError> {
    Machine::parse(&Document::from_text("portcullis.toml", text))
}

/// The error and the line it names.
fn error(text: &str) -> (ConfigError, usize) {
    let error = machine(text).unwrap_err();
    let line = match &error {
        ConfigError::Syntax { place, .. }
        | ConfigError::UnknownKey { place, .. }
        | ConfigError::Missing { place, .. }
        | ConfigError::Value { place, .. }
        | ConfigError::Contradiction { place, .. } => place.line,
        ConfigError::Read { .. } => 0,
    };
    assert!(line == 0 || error.to_string().starts_with(&format!("portcullis.toml:{line}: ")), "{error}");
    (error, line)
}

#[test]
fn all_but_a_port_has_a_default() {
    let m = machine(LEAST).unwrap();
    assert_eq!(
        m.regions,
        Regions { directory: "/run/portcullis".into(), max_sas: 65536, max_policies: 16384 }
    );
    assert_eq!(
        m.datapath,
        Datapath {
            workers: None,
            cores: None,
            frames: 16384,
            frame_size: 4096,
            ring: 2048,
            xdp_mode: XdpMode::Auto,
            huge_pages: HugePages::Auto,
            udp_encap_ports: vec![4500],
            crypto: Crypto::Auto,
            icmp_prohibited: vec![],
        }
    );
    assert_eq!(
        m.ike,
        Ike {
            threads: None,
            half_open: 10_000,
            half_open_per_host: 10,
            ike_sas: 100_000,
            cookies_from: 30,
            init_per_second: 1000,
            vip_interface: None,
            retransmit_timeout_ms: 4000,
            retransmit_base: 1800,
            retransmit_tries: 5,
            retransmit_limit_ms: 0,
            retransmit_jitter: 0,
        }
    );
    assert_eq!(m.ports, [Port { interface: "eth0".into(), queues: None }]);
}

#[test]
fn all_keys_are_read() {
    let m = machine(
        "[regions]\ndirectory = \"/tmp/r\"\nmax_sas = 1_048_576\nmax_policies = 0x10\n\
         [datapath]\nworkers = 2\ncores = [3, 1]\nframes = 2048\nframe_size = 2048\nring = 512\nxdp_mode = \"generic\"\n\
         huge_pages = \"off\"\nudp_encap_ports = [4501, 4500]\ncrypto = \"aes-ni\"\nicmp_prohibited = [\"10.1.0.0/16\", \"fd00::1\"]\n\
         [ike]\nthreads = 3\nhalf_open = 7\nhalf_open_per_host = 5\nike_sas = 8\ncookies_from = 6\ninit_per_second = 0\n\
         retransmit_timeout_ms = 500\nretransmit_base = 1.25\nretransmit_tries = 9\nretransmit_limit_ms = 30_000\nretransmit_jitter = 20\n\
         [[port]]\ninterface = \"b\"\nqueues = 4\n[[port]]\ninterface = \"a\"\n",
    )
    .unwrap();
    assert_eq!(m.regions, Regions { directory: "/tmp/r".into(), max_sas: 1 << 20, max_policies: 16 });
    assert_eq!(
        m.datapath,
        Datapath {
            workers: NonZeroU32::new(2),
            cores: Some(vec![3, 1]),
            frames: 2048,
            frame_size: 2048,
            ring: 512,
            xdp_mode: XdpMode::Generic,
            huge_pages: HugePages::Off,
            udp_encap_ports: vec![4501, 4500],
            crypto: Crypto::AesNi,
            icmp_prohibited: vec![([10, 1, 0, 0].into(), 16), ("fd00::1".parse().unwrap(), 128)],
        }
    );
    let threads = NonZeroU32::new(3);
    let (half_open, half_open_per_host, ike_sas, cookies_from, init_per_second) = (7, 5, 8, 6, 0);
    let of_peers = Ike {
        threads,
        half_open,
        half_open_per_host,
        ike_sas,
        cookies_from,
        init_per_second,
        ..m.ike.clone()
    };
    assert_eq!(m.ike, of_peers);
    let Ike { retransmit_timeout_ms, retransmit_base, retransmit_tries, .. } = m.ike;
    assert_eq!((retransmit_timeout_ms, retransmit_base, retransmit_tries), (500, 1250, 9));
    assert_eq!((m.ike.retransmit_limit_ms, m.ike.retransmit_jitter), (30_000, 20));
    let port =
        |interface: &str, queues| Port { interface: interface.into(), queues: NonZeroU32::new(queues) };
    assert_eq!(m.ports, [port("b", 4), port("a", 0)]);
}

#[test]
fn workers_have_cores() {
    let cores = |text: &str, available| {
        machine(&format!("[datapath]\n{text}\n{LEAST}")).unwrap().datapath.worker_cores(available)
    };
    assert_eq!(cores("", 3), [0, 1, 2]);
    assert_eq!(cores("workers = 2", 8), [0, 1]);
    assert_eq!(cores("workers = 5", 2), [0, 1, 0, 1, 0]);
    assert_eq!(cores("cores = [7, 5]", 2), [7, 5]);
    assert_eq!(cores("", 100).len(), 64);
}

#[test]
fn unknown_keys_are_told_with_what_was_meant() {
    for (text, line, wanted, meant) in [
        ("[datapath]\nworker = 1\n", 2, "worker", "did you mean 'workers'?"),
        ("[datapath]\n\nframe-size = 4096\n", 3, "frame-size", "did you mean 'frame_size'?"),
        ("[datapaht]\nworkers = 1\n", 1, "datapaht", "did you mean 'datapath'?"),
        ("[regions]\ncolour = 1\n", 2, "colour", "it can have: directory, max_sas, max_policies"),
        ("[[ports]]\ninterface = \"a\"\n", 1, "ports", "did you mean 'port'?"),
    ] {
        match error(&format!("{text}{LEAST}")) {
            (ConfigError::UnknownKey { key, hint, .. }, at) => {
                assert_eq!((key.as_str(), hint.as_str(), at), (wanted, meant, line));
            }
            (other, _) => panic!("{other}"),
        }
    }
}

#[test]
fn wrong_values_are_told_with_what_is_right() {
    for (text, line, message) in [
        ("[datapath]\nworkers = 0\n", 2, "workers = 0 must be a whole number from 1 to 64"),
        (
            "[datapath]\nudp_encap_ports = []\n",
            2,
            "udp_encap_ports is a list and must be a list of 1 to 8 UDP ports other than 500, such as [4500]",
        ),
        (
            "[datapath]\nudp_encap_ports = [500]\n",
            2,
            "udp_encap_ports is a list and must be a list of 1 to 8 UDP ports other than 500, such as [4500]",
        ),
        ("[datapath]\nworkers = 65\n", 2, "workers = 65 must be a whole number from 1 to 64"),
        ("[datapath]\nworkers = -1\n", 2, "workers = -1 must be a whole number from 1 to 64"),
        ("[datapath]\nworkers = \"2\"\n", 2, "workers = \"2\" must be a whole number from 1 to 64"),
        ("[datapath]\nframe_size = 1024\n", 2, "frame_size = 1024 must be 2048 or 4096"),
        (
            "[datapath]\nxdp_mode = \"skb\"\n",
            2,
            "xdp_mode = \"skb\" must be \"auto\" or \"driver\" or \"generic\"",
        ),
        (
            "[datapath]\ncrypto = \"avx\"\n",
            2,
            "crypto = \"avx\" must be \"auto\" or \"vaes-avx512\" or \"vaes-avx2\" or \"aes-ni\" or \"portable\"",
        ),
        (
            "[datapath]\nhuge_pages = true\n",
            2,
            "huge_pages = true must be \"auto\" or \"require\" or \"off\"",
        ),
        ("[datapath]\ncores = 1\n", 2, "cores = 1 must be a list in [ ]"),
        (
            "[datapath]\ncores = []\n",
            2,
            "cores is a list and must be a list of 1 to 64 cores, one for each worker",
        ),
        (
            "[datapath]\nworkers = 2\ncores = [0]\n",
            3,
            "cores is a list and must be a list of 2 cores, one for each worker; this one has 1",
        ),
        ("[regions]\nmax_sas = 1048577\n", 2, "max_sas = 1048577 must be a whole number from 1 to 1048576"),
        (
            "[regions]\ndirectory = \"run\"\n",
            2,
            "directory = \"run\" must be an absolute path, such as \"/run/portcullis\"",
        ),
        (
            "regions = 1\n",
            1,
            "regions = 1 must be a table: write [regions] on a line of its own, and its keys below",
        ),
        (
            "[[port]]\ninterface = \"a/b\"\n",
            2,
            "interface = \"a/b\" must be the name of an interface, of at most 15 bytes, as `ip link` shows it",
        ),
        ("[[port]]\ninterface = \"a\"\nqueues = 65\n", 3, "queues = 65 must be a whole number from 1 to 64"),
    ] {
        let (error, at) = error(&format!("{text}{LEAST}"));
        assert!(matches!(error, ConfigError::Value { .. }), "{error}");
        assert_eq!((error.to_string(), at), (format!("portcullis.toml:{line}: {message}"), line));
    }
}

#[test]
fn what_is_missing_or_twice_is_told() {
    let (e, _) = error("[regions]\n");
    assert!(matches!(&e, ConfigError::Missing { key, .. } if key == "[[port]]"), "{e}");
    let (e, line) = error("[[port]]\nqueues = 1\n");
    assert!(matches!(&e, ConfigError::Missing { key, .. } if key == "interface"), "{e}");
    assert_eq!(line, 1);
    let (e, line) = error(&format!("{LEAST}{LEAST}"));
    assert!(matches!(&e, ConfigError::Contradiction { .. }), "{e}");
    assert_eq!(line, 3);
    let ports: String = (0..17).map(|i| format!("[[port]]\ninterface = \"p{i}\"\n")).collect();
    let (e, line) = error(&ports);
    assert!(matches!(&e, ConfigError::Contradiction { .. }), "{e}");
    assert_eq!(line, 33);
    let (e, line) = error("[datapath]\nworkers = = 1\n");
    assert!(matches!(&e, ConfigError::Syntax { .. }), "{e}");
    assert_eq!(line, 2);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let e = Machine::load(Path::new("/nonexistent")).unwrap_err();
    assert_eq!(
        e.to_string(),
        "cannot read /nonexistent/portcullis.toml: No such file or directory (os error 2); \
         write it, or name its directory with --config DIR"
    );
}

#[test]
fn no_error_quotes_a_key() {
    let secret = "0x00112233445566778899aabbccddeeff00112233";
    for text in [
        format!("[datapath]\nworkers = \"{secret}\"\n"),
        format!("[datapath]\nworkers = {secret}\n"),
        format!("[datapath]\nxdp_mode = \"{secret}\n"),
        format!("[datapath]\n\"{secret}\" = 1\n"),
        format!("[datapath]\nxdp_mode = \"{secret}\" 1\n"),
        format!("[[port]]\ninterface = \"{secret}\"\n"),
    ] {
        let (e, line) = error(&format!("{text}{LEAST}"));
        assert!(!format!("{e} {e:?}").contains("334455"), "{e:?}");
        assert_eq!(line, 2);
    }
}

#[test]
fn a_place_is_a_file_and_a_line() {
    assert_eq!(Place { file: "a.toml".into(), line: 3 }.to_string(), "a.toml:3");
}

#[test]
fn times_between_retransmissions_have_their_bounds() {
    let base = |text: &str| {
        machine(&format!("[ike]\nretransmit_base = {text}\n{LEAST}")).map(|m| m.ike.retransmit_base)
    };
    for (text, thousandths) in
        [("1", 1000), ("2", 2000), ("1.0", 1000), ("1.8", 1800), ("1.125", 1125), ("10", 10_000)]
    {
        assert_eq!(base(text).unwrap(), thousandths);
    }
    for text in ["0.9", "10.001", "1.8001", "-2", "1e1", "inf", "\"1.8\"", "true"] {
        let error = base(text).unwrap_err().to_string();
        assert!(error.starts_with("portcullis.toml:2: retransmit_base"), "{error}");
        assert!(
            error.contains("a number from 1 to 10, with three digits behind its point at most"),
            "{error}"
        );
    }
    for (key, value) in
        [("timeout_ms", 99), ("timeout_ms", 60_001), ("tries", 31), ("limit_ms", 3_600_001), ("jitter", 21)]
    {
        let (_, line) = error(&format!("[ike]\nretransmit_{key} = {value}\n{LEAST}"));
        assert_eq!(line, 2);
    }
}

#[test]
fn the_other_end_of_the_device_for_virtual_addresses_is_a_port() {
    let of = |text: &str| machine(&format!("[ike]\nvip_interface = {text}\n{LEAST}"));
    let error = of("\"vip0\"").unwrap_err().to_string();
    assert!(error.contains("interface = \"vip0-path\", for [ike] vip_interface"), "{error}");
    let with_port = format!("[ike]\nvip_interface = \"vip0\"\n{LEAST}[[port]]\ninterface = \"vip0-path\"\n");
    assert_eq!(machine(&with_port).unwrap().ike.vip_interface.as_deref(), Some("vip0"));
    assert!(of("\"a-long-name\"").unwrap_err().to_string().contains("at most 10 bytes"));
}
