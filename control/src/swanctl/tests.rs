use super::{
    authentication::{Certificate, Hash, KeyType, LocalAuth, Method, RemoteAuth},
    child::{Action, Child, Mode, TfcPadding},
    connection::{Fragmentation, Host, Version},
    key::Meaning,
    pool::Addresses,
    secret::{Folder, PassphraseSection, Purpose, SharedSection, load_shared},
    tree::{Entry, Node},
    value::Credential,
    *,
};
use std::{path::PathBuf, time::Duration};

pub fn parse(text: &str) -> Result<Configuration, String> {
    Configuration::parse(Path::new("swanctl.conf"), text).map_err(|e| e.to_string())
}

/// For each of what values can be: some that are right, and one that is not.
const SAMPLES: &[(&str, &[&str], &str)] = &[
    ("0 or 1 or 2", &["0", "1", "2"], "3"),
    ("yes or accept or force or no", &["accept", "YES"], "maybe"),
    ("allow or force or never", &["allow", "force", "never"], "prefer"),
    ("ifasked or always or never", &["ifasked", "always"], "yes"),
    ("no or never or keep or replace", &["never", "keep"], "yes"),
    ("tunnel or transport or pass or drop", &["transport", "Drop"], "beet"),
    ("out or in or yes or no", &["out", "in", "yes", "no"], "true"),
    ("relaxed or ifuri or strict", &["strict", "ifuri"], "always"),
    ("none, trap, start or trap|start", &["none", "trap|start", "route", "restart"], "hold"),
    ("yes or no", &["yes", "No", "true", "1", "enabled", "disabled"], "on"),
    ("a whole number below 2^32", &["0", "4294967295"], "-1"),
    ("a whole number", &["0", "18446744073709551615", "0x10"], "-1"),
    ("a port, 1 to 65535", &["1", "65535"], "65536"),
    ("a time in seconds", &["0", "30", "30s", "5 m", "4h", "1D", "2w", "0x10"], "5y"),
    ("a number of octets, or", &["0", "5k", "5 M", "20g"], "5kb"),
    ("a number of octets, at most", &["0", "1400", "mtu"], "MTU"),
    ("text without control characters", &["a", "C=CH, O=\"x y\", CN=*"], "a\u{7}b"),
    ("an IP address", &["0.0.0.0", "fd00::1"], "10.0.0.256"),
    ("an address or a subnet", &["10.1.0.0/16", "fd00::1"], "10.1.0.0/33"),
    ("a subnet such as", &["10.3.0.0/24", "10.3.0.5-10.3.0.9", "fd00::/97"], "10.3.0.9-10.3.0.5"),
    (
        "addresses, subnets, ranges",
        &["%any", "%any6", "10.0.0.1", "a-b.example.", "10.0.0.0/8", "::1-::2"],
        "10.0.0.256",
    ),
    ("addresses or names of gateways", &["192.0.2.7", "vpn.example.org", "::1"], "10.0.0.256"),
    ("no or yes or encap", &["yes", "encap"], "true"),
    ("the whole path of a file", &["/a/b.pem"], "b.pem"),
    ("the path of a file, or a certificate", &["a.pem", "/x/a.pem"], "a/"),
    ("the path of a file", &["a.pem", "/x/a.pem"], "a/"),
    ("a URI", &["http://a.example/b.crl", "file:///x", "ldap://a/b?c"], "a.example/b.crl"),
    ("numbers of an object identifier", &["2.5.29.32.0", "1.3.6.1"], "1.40"),
    ("a DSCP", &["000000", "101110", "1"], "46"),
    ("default, or algorithms of IKE", &["default", "aes128-sha256-x25519"], "aes128-foo"),
    (
        "default, or algorithms of ESP",
        &["default", "aes128gcm16-x25519-esn", "aes256-sha256"],
        "aes128--sha256",
    ),
    ("default, or algorithms of AH", &["default", "sha256-x25519"], "aes128gcm16"),
    (
        "dynamic, or addresses",
        &["dynamic", "10.1.0.0/16[tcp/80]", "::1", "dynamic[icmp]", "10.0.0.1-10.0.0.5[udp/53]"],
        "10.0.0.0/8[tcp",
    ),
    ("0, which is no protection", &["0", "32", "65536"], "65537"),
    ("the name of a network device", &["ipsec0"], "a_name_of_16_let"),
    (
        "pubkey, psk",
        &[
            "pubkey",
            "psk",
            "eap",
            "eap-tls:ecdsa-384-sha384",
            "xauth",
            "xauth-pam",
            "rsa/pss-sha256",
            "ike:pubkey-sha384-sha256",
        ],
        "eap-",
    ),
    ("text, 0x", &["geheim", "0x00ff", "0sAAE="], "0x0g"),
];

fn samples(allowed: &str) -> (&'static [&'static str], &'static str) {
    let of_it = |sample: &&(&str, _, _)| allowed.starts_with(sample.0);
    let sample = SAMPLES.iter().find(of_it).unwrap_or_else(|| panic!("no samples of {allowed}"));
    (sample.1, sample.2)
}

/// All keys of a kind of sections but `but`. `around` is what stands before and behind a key.
fn each_key<K: Kind>(section: &str, around: (&str, &str), but: &[&str]) {
    for key in K::KEYS.iter().filter(|key| !but.contains(&key.name)) {
        let name = match key.naming {
            Naming::Exact => key.name.to_owned(),
            Naming::Prefix => format!("{}-2", key.name),
            Naming::Number => "7".to_owned(),
        };
        let quoted = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        let with = |value: &str| parse(&format!("{}\n{name} = {}\n{}", around.0, quoted(value), around.1));
        let line = around.0.matches('\n').count() + 2;
        match &key.meaning {
            Meaning::Kept { allowed, .. } => {
                let (good, bad) = samples(allowed);
                for good in good {
                    with(good).unwrap_or_else(|error| panic!("{name} = {good}: {error}"));
                }
                let error = with(bad).unwrap_err();
                let of_key = format!("swanctl.conf:{line}: {section}.{name}");
                let wanted = match allowed.split(' ').next() {
                    // A secret.
                    Some("text,") => format!("{of_key} must be {allowed}"),
                    // IKE says more of what it cannot read.
                    Some("default," | "dynamic,") => format!("{of_key}: "),
                    _ => format!("{of_key} = {} must be {allowed}", bad.escape_debug()),
                };
                assert!(error.starts_with(&wanted), "{error}");
                assert!(key.default.is_empty() || with(key.default).is_ok(), "{name} = {}", key.default);
            }
            Meaning::Ignored { values, instead } => {
                for value in *values {
                    assert!(with(value).is_ok(), "{name} = {value}");
                }
                let error = with("9x").unwrap_err();
                let wanted =
                    format!("swanctl.conf:{line}: {section}.{name} = 9x is not supported: {instead}");
                assert_eq!(error, wanted);
            }
        }
        // Set to nothing, it is as if it were not there.
        assert!(with("").is_ok() || around.0.contains(&format!("{name} =")), "{name}");
        let error = parse(&format!("{}\n{name} {{ }}\n{}", around.0, around.1)).unwrap_err();
        assert_eq!(error, format!("swanctl.conf:{line}: {section}.{name} is a section and must be a value"));
        // A slip of the finger.
        if key.naming == Naming::Exact && key.name.len() > 2 {
            let slip = format!("{}{}{}", &name[..1], 'q', &name[1..]);
            let error = parse(&format!("{}\n{slip} = 1\n{}", around.0, around.1)).unwrap_err();
            let wanted =
                format!("swanctl.conf:{line}: unknown key '{slip}' in {section}; did you mean '{name}'?");
            assert_eq!(error, wanted);
        }
    }
}

#[test]
fn each_key_takes_what_is_right_and_refuses_what_is_wrong() {
    let connection = ("connections { c {", "} }");
    each_key::<Connection>("connections.c", connection, &["pools"]);
    let child = ("connections { c { children { n {", "} } } }");
    each_key::<Child>("connections.c.children.n", child, &["ah_and_esp"]);
    let both = "ah_proposals = sha256\nesp_proposals = aes128gcm16";
    let child = format!("connections {{ c {{ version = 1\nchildren {{ n {{ {both}");
    let but = ["ah_proposals", "esp_proposals"];
    each_key::<Child>("connections.c.children.n", (&child, "} } } }"), &but);
    each_key::<LocalAuth>("connections.c.local", ("connections { c { local {", "} } }"), &[]);
    each_key::<RemoteAuth>("connections.c.remote-1", ("connections { c { remote-1 {", "} } }"), &[]);
    let certificate = ("connections { c { local { cert-1 {\nfile = /x", "} } } }");
    each_key::<Certificate>("connections.c.local.cert-1", certificate, &[]);
    each_key::<SharedSection>("secrets.ike-x", ("secrets { ike-x {\nsecret = a", "} }"), &[]);
    each_key::<PassphraseSection>("secrets.rsa", ("secrets { rsa {\nsecret = a\nfile = a", "} }"), &[]);
    each_key::<Pool>("pools.p", ("pools { p {\naddrs = ::/64", "} }"), &[]);
    each_key::<Authority>("authorities.a", ("authorities { a {\ncacert = a", "} }"), &["file"]);
    each_key::<Authority>("authorities.a", ("authorities { a {\nfile = /a", "} }"), &["cacert"]);
}

/// Each key of swanctl.conf(5) of strongSwan 5.9 is one here, and has its meaning or says why not; these others are ours.
#[test]
fn all_keys_of_the_manual_are_known() {
    fn check<K: Kind>(manual: &str, ours: &str) {
        let known: Vec<_> = K::KEYS.iter().map(|key| key.name).collect();
        let wanted: Vec<_> = manual.split_whitespace().chain(ours.split_whitespace()).collect();
        for name in &wanted {
            assert!(known.contains(name), "{name}");
        }
        assert_eq!(known.len(), wanted.len(), "{known:?}");
    }
    check::<Connection>(
        "version local_addrs remote_addrs local_port remote_port proposals vips aggressive pull \
         dscp encap mobike dpd_delay dpd_timeout fragmentation childless send_certreq send_cert \
         ppk_id ppk_required keyingtries unique reauth_time rekey_time over_time rand_time pools \
         if_id_in if_id_out mediation mediated_by mediation_peer",
        "aggressive_psk_can_be_guessed_offline resumption follow_redirects redirect_to",
    );
    check::<LocalAuth>("round certs pubkeys auth id eap_id aaa_id xauth_id", "");
    check::<RemoteAuth>("round id eap_id groups cert_policy certs cacerts ca_id pubkeys revocation auth", "");
    check::<Certificate>("file handle slot module", "");
    check::<Child>(
        "ah_proposals esp_proposals sha256_96 local_ts remote_ts rekey_time life_time rand_time \
         rekey_bytes life_bytes rand_bytes rekey_packets life_packets rand_packets updown \
         hostaccess mode policies policies_fwd_out dpd_action ipcomp inactivity reqid priority \
         interface mark_in mark_in_sa mark_out set_mark_in set_mark_out if_id_in if_id_out label \
         label_mode tfc_padding replay_window hw_offload copy_df copy_ecn copy_dscp start_action \
         close_action",
        "per_cpu_sas ah_and_esp",
    );
    check::<SharedSection>("secret id", "");
    check::<PassphraseSection>("file secret", "");
    check::<Authority>("cacert file handle slot module crl_uris ocsp_uris cert_uri_base", "");
    let secrets: Vec<_> = Secrets::PARTS.iter().map(|part| part.name).collect();
    let manual = "eap xauth ntlm ike ppk private rsa ecdsa pkcs8 pkcs12 token";
    assert!(manual.split(' ').all(|name| secrets.contains(&name)), "{secrets:?}");
}

#[test]
fn what_is_not_written_has_its_default() {
    let configuration = parse("connections { c { local { }\n remote { }\n children { n { } } } }").unwrap();
    let c = &configuration.connections[0];
    assert_eq!((c.name.as_str(), c.version, c.fragmentation), ("c", Version::Any, Fragmentation::Yes));
    assert_eq!((&c.local_addrs[..], &c.remote_addrs[..]), (&[Host::Any][..], &[Host::Any][..]));
    assert_eq!((c.local_port.0, c.remote_port.0, c.keyingtries), (500, 500, 1));
    assert!(c.mobike && c.pull && c.send_certreq && !c.aggressive && !c.encap);
    assert_eq!((c.rekey(), c.over(), c.rand()), (seconds(14_400), seconds(1_440), seconds(1_440)));
    assert_eq!(c.local[0].auth.method, Method::PublicKey);
    assert_eq!((c.local[0].id.as_deref(), c.remote[0].id.as_str()), (None, "%any"));
    let n = &c.children[0];
    assert_eq!((n.name.as_str(), n.mode, n.tfc_padding), ("n", Mode::Tunnel, TfcPadding::Octets(0)));
    assert_eq!(
        (n.local_ts[0].0.as_str(), n.remote_ts[0].0.as_str(), n.esp()[0].0.as_str()),
        ("dynamic", "dynamic", "default")
    );
    assert_eq!((n.rekey_time, n.life(), n.rand()), (seconds(3_600), seconds(3_960), seconds(360)));
    assert_eq!((n.life_and_rand_bytes(), n.life_and_rand_packets()), ((0, 0), (0, 0)));
    assert_eq!((n.start_action, n.replay_window.0), (Action::default(), 1024));
    assert!(n.copy_df && n.copy_ecn);
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn times_and_volumes_that_follow_from_others() {
    let configuration = parse(
        "connections {\n a { reauth_time = 1d\n children { n { rekey_time = 1000\n life_time = 1500\n rekey_bytes = 1k\n\
         life_packets = 7\n ah_proposals = sha256 } } }\n\
         b { reauth_time = 1d\n rekey_time = 2h\n over_time = 5\n } }",
    )
    .unwrap();
    let [a, b] = &configuration.connections[..] else { panic!() };
    assert_eq!((a.rekey(), a.over(), a.rand()), (seconds(0), seconds(8_640), seconds(8_640)));
    assert_eq!((b.rekey(), b.over(), b.rand()), (seconds(7_200), seconds(5), seconds(5)));
    let n = &a.children[0];
    assert_eq!((n.life(), n.rand(), n.esp().len()), (seconds(1_500), seconds(500), 0));
    assert_eq!((n.life_and_rand_bytes(), n.life_and_rand_packets()), ((1126, 102), (7, 7)));
}

#[test]
fn a_configuration_as_people_write_it() {
    let configuration = parse(
        "connections {\n\
         home {\n local_addrs = 192.0.2.1, gw.example.org\n remote_addrs = 198.51.100.0/24\n proposals = aes128gcm16-prfsha256-x25519\n\
         vips = 0.0.0.0, ::\n pools = v4\n\
         local-2 { auth = eap-mschapv2\n round = 2\n id = carol }\n\
         local-1 { auth = ike:rsa/pss-sha384-sha256\n round = 1\n certs = a.pem, b.pem\n cert-x { file = /x/c.der } }\n\
         remote { auth = rsa-3072-sha256-ecdsa-256\n id = \"C=CH, O=x, CN=*\"\n cacerts = ca.pem\n cert_policy = 2.5.29.32.0 }\n\
         children { net { local_ts = 10.1.0.0/16[tcp/80],fd00::/64\n start_action = trap|start } } }\n\
         office : connections.home { remote_addrs = peer.example.org\n children { net { mode = pass\n start_action = trap } } }\n}\n\
         secrets { ike-1 { secret = 0x0102\n id-a = a@example.org\n id-b = 192.0.2.7 }\n xauth { secret = 0sAQID }\n\
         private-k { file = k.pem\n secret = \"geh eim\" } }\n\
         pools { v4 { addrs = 10.3.0.0/24\n dns = 10.3.0.1, fd00::1\n split_include = 10.1.0.0/16\n 28672 = banner } }\n\
         authorities { ca { cacert = ca.pem\n crl_uris = http://a.example/ca.crl } }\n",
    )
    .unwrap();
    let [home, office] = &configuration.connections[..] else { panic!() };
    assert_eq!(home.local_addrs[1], Host::Name("gw.example.org".to_owned()));
    assert_eq!(home.remote_addrs, [Host::Subnet("198.51.100.0/24".parse().unwrap())]);
    assert_eq!(home.vips.len(), 2);
    let [first, second] = &home.local[..] else { panic!() };
    assert_eq!((first.round, second.round), (1, 2));
    let scheme = &first.auth.ike[0];
    assert_eq!((scheme.key, scheme.bits), (KeyType::RsaPss, None));
    assert_eq!(scheme.hashes, [Hash::Sha384, Hash::Sha256]);
    let files: Vec<_> =
        ["a.pem", "b.pem", "/x/c.der"].map(|file| Credential::File(PathBuf::from(file))).into();
    assert_eq!(first.certs.0, files);
    assert_eq!(second.auth.method, Method::Eap(Some("mschapv2".to_owned())));
    let chain: Vec<_> = home.remote[0].auth.chain.iter().map(|s| (s.key, s.bits, s.hashes.len())).collect();
    assert_eq!(chain, [(KeyType::Rsa, Some(3072), 1), (KeyType::Ecdsa, Some(256), 0)]);
    assert_eq!(home.children[0].start_action, Action { trap: true, start: true });
    assert_eq!(home.children[0].local_ts.len(), 2);
    // What it was read from says the same.
    for connection in &configuration.connections {
        assert_eq!(connection.source.read().as_ref(), Some(connection));
    }
    assert_ne!(home.source.mark(), office.source.mark());
    // What it has from the other, and what is its own.
    assert_eq!(office.remote_addrs, [Host::Name("peer.example.org".to_owned())]);
    assert_eq!((&office.local, &office.pools), (&home.local, &home.pools));
    assert_eq!((office.children[0].mode, office.children[0].local_ts.len()), (Mode::Pass, 2));
    let [psk, xauth] = &configuration.secrets.shared[..] else { panic!() };
    assert_eq!((psk.purpose, psk.secret.bytes(), psk.owners.len()), (Purpose::Ike, &[1, 2][..], 2));
    assert_eq!((xauth.purpose, xauth.secret.bytes(), xauth.owners.len()), (Purpose::Eap, &[1, 2, 3][..], 0));
    let passphrase = &configuration.secrets.passphrases[0];
    assert_eq!((passphrase.folder, passphrase.secret.bytes()), (Folder::Private, &b"geh eim"[..]));
    assert!(!format!("{configuration:?}").contains("geh eim"));
    let pool = &configuration.pools[0];
    assert_eq!(pool.addrs, Some(Addresses::Subnet("10.3.0.0/24".parse().unwrap())));
    assert_eq!((pool.dns.len(), pool.numbered.0[&28672][0].as_str()), (2, "banner"));
    assert_eq!(configuration.authorities[0].crl_uris.len(), 1);
}

#[test]
fn what_is_wrong_is_told_with_place_name_and_remedy() {
    for (text, wanted) in [
        (
            "connections {\n home {\n local_adrs = x\n } }",
            "swanctl.conf:3: unknown key 'local_adrs' in connections.home; did you mean 'local_addrs'?",
        ),
        (
            "conections { }",
            "swanctl.conf:1: unknown section 'conections' in the file; did you mean 'connections'?",
        ),
        ("connections = 1", "swanctl.conf:1: connections is a value and must be a section"),
        ("connections { home = 1 }", "swanctl.conf:1: connections.home is a value and must be a section"),
        (
            "connections { a { children { n {\n rekey = 1 } } } }",
            "swanctl.conf:2: unknown key 'rekey' in connections.a.children.n; it can have: ah_proposals",
        ),
        (
            "connections {\n a { version = 1\n children {\n n { esp_proposals = aes128gcm16\n ah_and_esp = yes } } } }",
            "swanctl.conf:4: connections.a.children.n: with ah_and_esp there must be both ah_proposals and esp_proposals",
        ),
        (
            "connections {\n a { children { n { esp_proposals = aes128gcm16\n ah_proposals = sha256\n ah_and_esp = yes } } } }",
            "swanctl.conf:2: connections.a: ah_and_esp of the child 'n' is of IKEv1 alone",
        ),
        (
            "connections { a { lokal { } } }",
            "swanctl.conf:1: unknown section 'lokal' in connections.a; did you mean 'local'?",
        ),
        (
            "connections { a { local = b } }",
            "swanctl.conf:1: connections.a.local is a value and must be a section",
        ),
        (
            "connections { a { local_addrs = 10.0.0.1, 10.0.0.256 } }",
            "swanctl.conf:1: connections.a.local_addrs = 10.0.0.256 must be addresses, subnets, ranges",
        ),
        (
            "connections { a {\n pools = v5 } }\npools { v4 { addrs = 10.3.0.0/24 } }",
            "swanctl.conf:2: connections.a: there is no pool 'v5'; did you mean 'v4'?",
        ),
        (
            "pools {\n p { dns = 10.0.0.1 } }",
            "swanctl.conf:2: pools.p has no 'addrs'; write for example addrs = 10.3.0.0/24",
        ),
        ("secrets { ike { id = a } }", "swanctl.conf:1: secrets.ike has no 'secret'; write for example"),
        (
            "secrets { ntlm { secret = geheim } }",
            "swanctl.conf:1: secrets.ntlm: the secret must be an NT hash",
        ),
        ("secrets { ike { secret = 0xgeheim } }", "swanctl.conf:1: secrets.ike.secret must be text, 0x and"),
        (
            "secrets { ike { sekret = geheim } }",
            "swanctl.conf:1: unknown key 'sekret' in secrets.ike; did you mean 'secret'?",
        ),
        (
            "secrets { token-1 { pin = geheim } }",
            "swanctl.conf:1: secrets.token-1 is not supported: keys and certificates on",
        ),
        (
            "authorities { a { cacert = x\n file = /x } }",
            "swanctl.conf:1: authorities.a: it has cacert and file; leave one out",
        ),
        (
            "authorities { a { } }",
            "swanctl.conf:1: authorities.a has no 'cacert'; write for example cacert = ca.pem",
        ),
        (
            "connections { a { local { cert1 { handle = 01 } } } }",
            "swanctl.conf:1: connections.a.local.cert1.handle = 01 is not supported: keys and certificates on tokens",
        ),
        (
            "connections { a { local { cert1 { } } } }",
            "swanctl.conf:1: connections.a.local.cert1 has no 'file'",
        ),
        (
            "connections { a { local { revocation = strict } } }",
            "swanctl.conf:1: unknown key 'revocation' in connections.a.local; it can have: round",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
        assert!(!error.contains("geheim"), "{error}");
    }
}

#[test]
fn addresses_of_one_link_are_refused_with_their_zone_and_without() {
    for key in ["local_addrs", "remote_addrs"] {
        for of_link in ["fe80::1%eth0", "fe80::1", "febf::1%2", "2001:db8::1%eth0"] {
            let error =
                parse(&format!("connections {{ a {{ {key} = 192.0.2.1, {of_link} }} }}")).unwrap_err();
            let wanted = format!(
                "swanctl.conf:1: connections.a.{key}: {of_link} is of one link alone, and which cannot be said"
            );
            assert!(error.starts_with(&wanted), "{error}");
        }
        for other in ["fec0::1", "2001:db8::1", "fe80::/10", "%any6"] {
            assert!(parse(&format!("connections {{ a {{ {key} = {other} }} }}")).is_ok(), "{other}");
        }
    }
}

#[test]
fn other_sections_are_there_for_connections_to_have_something_from() {
    let text = "defaults { version = 2\n remote { auth = psk } }\n more { x { mobike = no } }\n\
        connections { a : defaults, more.x { remote { id = b } } }";
    let a = parse(text).unwrap().connections.remove(0);
    assert_eq!((a.version, a.mobike, &a.remote[0].auth.method), (Version::Two, false, &Method::Psk));
    assert_eq!(a.remote[0].id, "b");
    let error = parse(&text.replace(", more.x", "")).unwrap_err();
    assert!(error.starts_with("swanctl.conf:3: unknown section 'more' in the file"), "{error}");
    // What is wrong in one is told of the connection, at its place.
    let error = parse(&text.replace("mobike", "mobik")).unwrap_err();
    assert!(error.starts_with("swanctl.conf:3: unknown key 'mobik' in connections.a"), "{error}");
}

#[test]
fn authentication_is_read_as_it_is_meant() {
    let auth = |text: &str| {
        let text = format!("connections {{ a {{ local {{ auth = \"{text}\" }} }} }}");
        parse(&text).map(|mut configuration| configuration.connections.remove(0).local.remove(0).auth)
    };
    assert_eq!(auth("pubkey").unwrap(), Default::default());
    assert_eq!(auth("PSK").unwrap().method, Method::Psk);
    assert_eq!(auth("xauth-pam").unwrap().method, Method::Xauth(Some("pam".to_owned())));
    let both = auth("pubkey-sha256-ike:pubkey-sha384").unwrap();
    assert_eq!((both.chain[0].hashes[0], both.ike[0].hashes[0]), (Hash::Sha256, Hash::Sha384));
    let eap = auth("eap-tls:ecdsa-384-sha384").unwrap();
    assert_eq!((eap.method, eap.chain[0].bits), (Method::Eap(Some("tls".to_owned())), Some(384)));
    for bad in [
        "x",
        "any",
        "sha256",
        "2048",
        "pubkey-",
        "pubkey-2048",
        "rsa-2048-1024",
        "rsa-sha256-2048",
        "pubkey-foo",
        "bliss",
        "xauth-",
        "psk-x",
        "eap-tls:",
        "ike:",
    ] {
        assert!(auth(bad).is_err(), "{bad}");
    }
}

#[test]
fn messages_of_vici_have_the_same_keys_with_lists_and_octets() {
    fn entry<'a>(name: &'a str, node: Node<'a>) -> Entry<'a> {
        Entry { place: None, name, node }
    }
    fn section<'a>(entries: Vec<Entry<'a>>) -> Node<'a> {
        Node::Section(Branch { place: None, entries })
    }
    let der: &[u8] = &[0x30, 3, 2, 1, 0];
    let local = section(vec![entry("auth", Node::Value(b"pubkey")), entry("certs", Node::List(vec![der]))]);
    let lists = vec![
        entry("local_addrs", Node::List(vec![b"192.0.2.1", b"192.0.2.2"])),
        entry("remote_addrs", Node::List(vec![])),
        entry("version", Node::Value(b"2")),
        entry("local-1", local),
    ];
    let message = |entries| Branch { place: None, entries: vec![entry("home", section(entries))] };
    let home = connections(&message(lists)).unwrap().remove(0);
    assert_eq!((home.local_addrs.len(), &home.remote_addrs[..]), (2, &[Host::Any][..]));
    assert_eq!(home.version, Version::Two);
    assert_eq!(home.local[0].certs.0, [Credential::Octets(der.to_vec())]);
    let wrong = connections(&message(vec![entry("mobik", Node::Value(b"yes"))])).unwrap_err().to_string();
    assert_eq!(wrong, "unknown key 'mobik' in connections.home; did you mean 'mobike'?");
    let wrong =
        connections(&message(vec![entry("vips", Node::List(vec![b"::", b"x"]))])).unwrap_err().to_string();
    assert_eq!(wrong, "connections.home.vips = x must be an IP address");
    let wrong = connections(&message(vec![entry("version", Node::Value(&[0xff]))])).unwrap_err().to_string();
    assert_eq!(wrong, "connections.home.version must be 0 or 1 or 2");
    let secret = vec![
        entry("id", Node::Value(b"ike-1")),
        entry("type", Node::Value(b"IKE")),
        entry("data", Node::Value(b"0x")),
        entry("owners", Node::List(vec![b"a", b"b"])),
    ];
    let shared = load_shared(&Branch { place: None, entries: secret }).unwrap();
    assert_eq!((shared.purpose, shared.secret.bytes(), shared.owners.len()), (Purpose::Ike, &b"0x"[..], 2));
    let nothing = load_shared(&Branch::default()).unwrap_err().to_string();
    assert_eq!(nothing, "load-shared has no 'type'; write for example type = IKE");
}
