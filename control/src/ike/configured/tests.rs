use super::*;
use crate::swanctl::Configuration;
use portcullis_ike::{connection::Hosts, identity::IdPattern};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const LEAST: &str = "local { auth = psk }\nremote { auth = psk }\n";

fn of(text: &str) -> Result<ike::Configuration, Unusable> {
    configuration(&Configuration::parse(Path::new("swanctl.conf"), text).unwrap(), &Credentials::default())
}

fn with(connection: &str, child: &str) -> Result<ike::Configuration, Unusable> {
    of(&format!("connections {{ a {{ {LEAST} {connection}\n children {{ net {{ {child} }} }} }} }}"))
}

/// A connection of which nothing is written that need not be.
pub fn any_connection() -> ike::Connection {
    (*with("", "").unwrap().connections[0]).clone()
}

#[test]
fn what_is_written_is_what_the_engine_has() {
    let all = of("connections {
        site-b {
            local_addrs = 192.0.2.1
            remote_addrs = 198.51.100.0/24, 203.0.113.1-203.0.113.9, 2001:db8::/32
            local_port = 4500
            remote_port = 4501
            proposals = aes128-sha256-x25519, aes256gcm16-prfsha384-ecp384
            encap = yes
            dpd_delay = 30s
            rekey_time = 2h
            rand_time = 10m
            local { auth = psk
                id = gw.example.org }
            remote { auth = psk
                id = *.example.com }
            children {
                net {
                    local_ts = 10.1.0.0/16
                    remote_ts = 10.2.0.0/16[tcp/443], 10.3.0.0/16
                    esp_proposals = aes128gcm16-x25519
                    mode = transport
                    rekey_time = 1h
                    rand_time = 0
                    life_time = 90m
                    life_bytes = 1000
                    replay_window = 65536
                    copy_df = no
                    copy_ecn = no
                    copy_dscp = in
                    tfc_padding = mtu
                    inactivity = 5m
                }
            }
        }
    }
    secrets { ike-1 { id = gw.example.org
        id-b = carol@example.com
        secret = 0x0102 } }")
    .unwrap();
    let c = &all.connections[0];
    let at = |host: &str| c.remote.fits(host.parse().unwrap()).is_some();
    assert_eq!(c.local, Hosts::one([192, 0, 2, 1].into()));
    assert!(at("198.51.100.255") && at("203.0.113.9") && at("2001:db8:ffff::1"));
    assert!(!at("198.51.101.0") && !at("203.0.113.10") && !at("2001:db9::"));
    assert_eq!((c.local_port, c.remote_port, c.forces_udp, c.dpd_ms), (4500, 4501, true, 30_000));
    assert_eq!((c.rekey_ms, c.rand_ms), (7_200_000, 600_000));
    assert_eq!(c.proposals.to_string(), "aes128-sha256-prfsha256-x25519, aes256gcm16-prfsha384-ecp384");
    assert_eq!(
        (c.local_id.to_string(), c.remote_id.to_string()),
        ("gw.example.org".into(), "*.example.com".into())
    );
    let child = &c.children[0];
    let policy = child.policy(&[[192, 0, 2, 1].into()], &[[198, 51, 100, 1].into()]);
    assert_eq!(policy.local.to_string(), "10.1.0.0/16");
    assert_eq!(policy.remote.to_string(), "10.2.0.0/16[tcp/443], 10.3.0.0/16");
    assert_eq!((child.mode, child.replay_window), (Mode::Transport, 65_536));
    assert_eq!((child.rekey_ms, child.rand_ms), (3_600_000, 0));
    let handling = child.handling;
    assert_eq!((handling.df, handling.ecn, handling.decap_dscp), (DfBit::Clear, false, true));
    assert_eq!((handling.dscp, handling.tfc_pad), (Dscp::Set(0), AS_FAR_AS_THE_PATH_ALLOWS));
    assert_eq!((handling.lifetime.hard.secs, handling.lifetime.hard.bytes), (5400, 1000));
    assert_eq!(handling.lifetime.idle_secs, 300);
    let key = &all.shared_keys[0];
    assert_eq!((key.ids.len(), key.key.bytes()), (2, &[1, 2][..]));
}

#[test]
fn what_is_left_out_is_as_strongswan_has_it() {
    let all = with("", "").unwrap();
    let c = &all.connections[0];
    assert_eq!((&c.local, &c.remote, &c.remote_id), (&Hosts::Any, &Hosts::Any, &IdPattern::Any));
    assert_eq!((c.local_port, c.remote_port, c.rekey_ms, c.dpd_ms), (500, 500, 4 * 3_600_000, 0));
    let child = &c.children[0];
    assert_eq!((child.mode, child.replay_window, child.rekey_ms), (Mode::Tunnel, 1024, 3_600_000));
    // Its end, a tenth later.
    assert_eq!(child.handling.lifetime.hard.secs, 3960);
}

/// However much later than that they end.
#[test]
fn a_limit_of_octets_or_packets_is_never_none() {
    for (ends, bytes, packets) in [
        ("", 950, 95),
        ("life_bytes = 4000\n life_packets = 300", 500, 50),
        ("life_bytes = 2000\n rand_bytes = 0", 1000, 95),
    ] {
        let all = with("", &format!("rekey_bytes = 1000\n rekey_packets = 100\n {ends}")).unwrap();
        let soft = all.connections[0].children[0].handling.lifetime.soft;
        assert_eq!((soft.bytes, soft.packets), (bytes, packets), "{ends}");
    }
}

#[test]
fn who_is_authenticated_anew_redirected_and_resumed_is_as_written() {
    let all = with(
        "reauth_time = 1h\n over_time = 5m\n redirect_to = 192.0.2.7, vpn.example.org\n follow_redirects = no\n\
         resumption = yes",
        "per_cpu_sas = yes",
    )
    .unwrap();
    let c = &all.connections[0];
    // As strongSwan: without a `rekey_time` it is not rekeyed, too.
    assert_eq!((c.reauth_ms, c.over_ms, c.rand_ms, c.rekey_ms), (3_600_000, 300_000, 300_000, 0));
    let gateways: Vec<_> = c.redirect_to.iter().map(ToString::to_string).collect();
    assert_eq!(gateways, ["192.0.2.7", "vpn.example.org"]);
    assert!(!c.follows_redirects && c.resumes && c.children[0].per_worker);
    let all = with("", "").unwrap();
    let c = &all.connections[0];
    assert_eq!((c.reauth_ms, c.redirect_to.len()), (0, 0));
    assert!(c.follows_redirects && !c.resumes && !c.children[0].per_worker);
}

#[test]
fn rounds_are_in_their_order_and_shunts_are_no_children() {
    let all = with(
        "local-b { round = 2\n auth = eap-mschapv2\n id = carol }\n local-a { round = 1\n auth = psk\n id = other }",
        "mode = transport\n priority = 7 }\n lan { mode = drop",
    )
    .unwrap();
    let c = &all.connections[0];
    let further: Vec<_> = c.further.local.iter().map(|r| format!("{} {}", r.id, r.auth)).collect();
    assert_eq!(
        (c.local_auth.to_string(), further),
        ("a shared key".into(), vec!["other a shared key".to_owned(), "carol EAP".to_owned()])
    );
    assert!(c.further.remote.is_empty());
    assert_eq!((c.children.len(), c.children[0].priority), (1, 7));
    // With shunts alone there is nobody to prove anything.
    let shunts = "connections { a { children { x { mode = pass } } } }";
    assert!(of(shunts).unwrap().connections.is_empty());
}

/// IKEv1 is off unless a connection says so.
#[test]
fn a_connection_is_of_one_version() {
    for (version, is_v1) in
        [("", false), ("version = 0", false), ("version = 1", true), ("version = 2", false)]
    {
        let text = format!(
            "connections {{ a {{ {version}\n dpd_timeout = 20s\n local {{ auth = psk }}\n remote {{ auth = psk }}\n\
             children {{ net {{ }} }} }} }}"
        );
        let ikev1 = of(&text).unwrap().connections[0].ikev1.clone();
        assert_eq!(ikev1.map(|v1| v1.dpd_timeout_ms), is_v1.then_some(20_000), "{version}");
    }
}

/// Behind what both sides prove in IKEv1, one of them may have a user.
#[test]
fn a_user_is_a_second_round_of_ikev1() {
    use portcullis_ike::connection::Xauth;
    let of = |pull: &str, sides: &str| {
        of(&format!(
            "connections {{ a {{ version = 1\n {pull}\n {sides}\n children {{ net {{ }} }} }} }}\n\
             secrets {{ xauth-carol {{ id = carol\n secret = pw }} }}"
        ))
    };
    let (ours, theirs) = ("local-1 { auth = psk }", "remote-1 { auth = psk }");
    let carol = || Some("carol".to_owned());
    for (pull, local, remote, xauth) in [
        ("", "local-2 { auth = xauth\n xauth_id = carol }", "", Xauth::Ours(carol())),
        ("pull = no", "local-2 { auth = xauth-generic\n id = carol }", "", Xauth::Ours(carol())),
        ("", "local-2 { auth = xauth }", "", Xauth::Ours(None)),
        ("", "", "remote-2 { auth = xauth }", Xauth::Theirs(IdPattern::Any)),
        ("", "", "remote-2 { auth = xauth\n id = carol }", Xauth::Theirs("carol".parse().unwrap())),
    ] {
        let all = of(pull, &format!("{ours}\n {local}\n {theirs}\n {remote}")).unwrap();
        let ikev1 = all.connections[0].ikev1.clone().unwrap();
        assert_eq!((ikev1.xauth, ikev1.pushes), (Some(xauth), !pull.is_empty()));
        assert!(all.eap_secrets.is_password("carol", b"pw") && all.connections[0].further.local.is_empty());
    }
    for (sides, key) in [
        ("local { auth = xauth }\n remote { auth = xauth }".to_owned(), "local.auth"),
        // Where the other side signs, it may be all that there is: whom to trust is missing.
        ("local { auth = xauth }\n remote { auth = pubkey }".to_owned(), "remote.cacerts"),
        (
            format!("{ours}\n local-2 {{ auth = xauth }}\n {theirs}\n remote-2 {{ auth = xauth }}"),
            "local-2.auth",
        ),
        (format!("local {{ auth = xauth }}\n {theirs}"), "local.auth"),
        (format!("{ours}\n local-2 {{ auth = xauth-pam }}\n {theirs}"), "local-2.auth"),
        (format!("{ours}\n local-2 {{ auth = psk }}\n {theirs}"), "local"),
    ] {
        assert_eq!(of("", &sides).unwrap_err().key, format!("connections.a.{key}"), "{sides}");
    }
}

/// And so is aggressive mode; by shared keys, somebody must have read what that means.
#[test]
fn aggressive_mode_is_for_who_says_so() {
    const READ: &str = "aggressive_psk_can_be_guessed_offline = yes";
    for (keys, is_aggressive) in [
        ("version = 1", Some(false)),
        (&format!("version = 1\n aggressive = yes\n {READ}"), Some(true)),
        (&format!("version = 1\n aggressive = no\n {READ}"), Some(false)),
        (&format!("aggressive = yes\n {READ}"), None),
    ] {
        let ikev1 = with(keys, "").unwrap().connections[0].ikev1.clone();
        assert_eq!(ikev1.map(|v1| v1.is_aggressive), is_aggressive, "{keys}");
    }
    let unusable = with("version = 1\n aggressive = yes", "").unwrap_err().to_string();
    assert!(
        unusable.contains("aggressive_psk_can_be_guessed_offline: ") && unusable.contains("guesses"),
        "{unusable}"
    );
}

/// RFC 7619, by a word of our own.
#[test]
fn a_side_may_prove_nothing() {
    use portcullis_ike::connection::{LocalAuth, RemoteAuth};
    let of = |version: &str, sides: &str| {
        of(&format!("connections {{ a {{ {version}\n {sides}\n children {{ net {{ }} }} }} }}"))
    };
    let all = of("", "local { auth = null }\n remote { auth = psk }").unwrap();
    let c = &all.connections[0];
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::Null, RemoteAuth::SharedKey)));
    let all = of("", "local { auth = psk }\n remote { auth = null }").unwrap();
    let c = &all.connections[0];
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::SharedKey, RemoteAuth::Null)));
    for (version, sides, key) in [
        ("", "local { auth = psk }\n remote { auth = null\n id = somebody }", "remote.id"),
        ("", "local-1 { auth = psk }\n local-2 { auth = null }\n remote { auth = psk }", "local-2.auth"),
        ("", "local { auth = null }\n remote { auth = eap-mschapv2 }", "local.auth"),
        ("version = 1", "local { auth = null }\n remote { auth = null }", "local.auth"),
    ] {
        assert_eq!(of(version, sides).unwrap_err().key, format!("connections.a.{key}"), "{sides}");
    }
}

#[test]
fn ah_and_esp_are_used_together_where_it_is_written() {
    let both = "esp_proposals = aes128gcm16-ecp256\n ah_proposals = sha256-ecp256";
    let child = |text: &str| with("version = 1", text).map(|all| (*all.connections[0].children[0]).clone());
    let bundle = child(&format!("{both}\n ah_and_esp = yes")).unwrap();
    let names = (bundle.proposals.to_string(), bundle.around.map(|around| around.to_string()));
    assert!(
        names.0.contains("aes128gcm16") && names.1.as_ref().is_some_and(|ah| ah.contains("sha256")),
        "{names:?}"
    );
    assert!(child(both).unwrap().around.is_none());
    // RFC 2409 §5.5: one key exchange is for both.
    for (ah, is_usable) in [("sha256", false), ("sha256-ecp384,sha256-ecp256", true)] {
        let text = format!("esp_proposals = aes128gcm16-ecp256\n ah_proposals = {ah}\n ah_and_esp = yes");
        let found = child(&text);
        assert_eq!(found.is_ok(), is_usable, "{ah}");
        found.inspect_err(|e| assert_eq!(e.key, "connections.a.children.net.ah_proposals")).ok();
    }
}

#[test]
fn a_name_that_nobody_has_looked_up_is_nowhere() {
    let c = &with("remote_addrs = gw.example.org", "").unwrap().connections[0];
    assert_eq!(c.remote, Hosts::Ranges(vec![]));
    assert!(c.remote.fits([192, 0, 2, 1].into()).is_none());
    let named = |name: &str| if name == "gw.example.org" { vec![[192, 0, 2, 1].into()] } else { vec![] };
    let both = [Host::Name("gw.example.org".into()), Host::Address([192, 0, 2, 9].into())];
    let found: Vec<_> = hosts(&both, &named).addresses().collect();
    assert_eq!(found, [[192, 0, 2, 1], [192, 0, 2, 9]].map(std::net::IpAddr::from));
    assert_eq!(hosts(&[both[0].clone(), Host::Any], &named), Hosts::Any);
    assert_eq!(hosts(&[], &named), Hosts::Any);
}

/// From another port nothing would ever be sent.
#[test]
fn our_port_is_one_that_we_have() {
    for port in [500, 4500] {
        let all = with(&format!("local_port = {port}"), "").unwrap();
        assert_eq!(all.connections[0].local_port, port);
    }
    for port in [499, 501, 4501] {
        let unusable = with(&format!("local_port = {port}"), "").unwrap_err();
        assert_eq!(unusable.key, "connections.a.local_port");
        assert!(unusable.why.contains("500 and 4500"), "{unusable}");
    }
    // The peer's is the peer's.
    assert_eq!(with("remote_port = 501", "").unwrap().connections[0].remote_port, 501);
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    for (connection, child, key) in [
        ("version = 1\n aggressive = yes", "", "connections.a.aggressive_psk_can_be_guessed_offline"),
        ("version = 1\n ppk_required = yes", "", "connections.a.ppk_required"),
        ("version = 1\n local-2 { auth = psk }", "", "connections.a.local"),
        (
            "local-2 { auth = psk }\n local-3 { auth = psk }\n local-4 { auth = psk }",
            "",
            "connections.a.local-4.round",
        ),
        ("local-2 { auth = psk }\n ppk_id = a", "", "connections.a.ppk_id"),
        ("local-2 { auth = psk }\n remote-2 { auth = eap-mschapv2 }", "", "connections.a.local.auth"),
        ("remote-2 { auth = xauth }", "", "connections.a.remote-2.auth"),
        ("", "interface = ipsec0", "connections.a.children.net.interface"),
        ("", "per_cpu_sas = encap", "connections.a.children.net.per_cpu_sas"),
    ] {
        let unusable = with(connection, child).unwrap_err();
        assert_eq!(unusable.key, key, "{unusable}");
    }
    for (text, key) in [
        (
            "connections { a { local { auth = psk }\n remote { auth = eap-md5 } } }",
            "connections.a.remote.auth",
        ),
        // RFC 7296 §2.16, RFC 5998: who answers signs, or both prove who they are by EAP.
        (
            "connections { a { local { auth = psk }\n remote { auth = eap-tls } } }",
            "connections.a.local.auth",
        ),
        (
            "connections { a { local { auth = eap-tls }\n remote { auth = psk } } }",
            "connections.a.remote.auth",
        ),
        (
            "connections { a { local { auth = eap-mschapv2 }\n remote { auth = eap-mschapv2 } } }",
            "connections.a.remote.auth",
        ),
        (
            "connections { a { local { auth = pubkey }\n remote { auth = xauth } } }",
            "connections.a.remote.auth",
        ),
        ("secrets { eap-a { id = *@example.org\n secret = b } }", "secrets.eap-a.id"),
        ("connections { a { local { auth = pubkey } } }", "connections.a.local.certs"),
        ("connections { a { local { auth = psk } } }", "connections.a.remote.cacerts"),
        ("connections { a { remote { auth = rsa-4096-sha1 } } }", "connections.a.remote.auth"),
    ] {
        let unusable = of(text).unwrap_err();
        assert_eq!(unusable.key, key, "{unusable}");
    }
}

/// A directory with two public keys of Ed25519 (RFC 8032 §7.1), `one.der` and `other.der`.
fn with_public_keys() -> PathBuf {
    const KEYS: [(&str, &str); 2] = [
        ("one.der", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
        ("other.der", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
    ];
    let directory = std::env::temp_dir().join(format!("portcullis-pubkeys-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("pubkey")).unwrap();
    for (name, key) in KEYS {
        let spki = format!("302a300506032b6570032100{key}");
        let octets = (0..spki.len()).step_by(2).map(|n| u8::from_str_radix(&spki[n..n + 2], 16).unwrap());
        std::fs::write(directory.join("pubkey").join(name), octets.collect::<Vec<_>>()).unwrap();
    }
    directory
}

#[test]
fn what_is_wrong_with_a_side_is_told_by_its_own_key() {
    let (directory, mut credentials) = (with_public_keys(), Credentials::default());
    credentials.read(&directory).unwrap();
    let of = |text: &str| {
        configuration(&Configuration::parse(Path::new("swanctl.conf"), text).unwrap(), &credentials)
    };
    let (one, other) = ("one.der", "other.der");
    let certificates = "local-2 { auth = psk }\n remote { auth = psk }\n remote-2";
    for (sides, key) in [
        ("local { pubkeys = none.pem }", "local.pubkeys"),
        (&format!("local {{ pubkeys = {one} }}"), "local.pubkeys"),
        ("local { certs = none.pem }", "local.certs"),
        ("local { auth = psk }\n local-2 { auth = pubkey }", "local-2.certs"),
        ("local { auth = psk }\n local-2 { auth = eap-md5 }", "local-2.auth"),
        ("local { auth = psk }\n local-2 { auth = eap-tls\n aaa_id = \"ipv4:x\" }", "local-2.aaa_id"),
        ("remote { cacerts = none.pem }", "remote.cacerts"),
        ("remote { certs = none.pem }", "remote.certs"),
        ("remote { pubkeys = none.pem }", "remote.pubkeys"),
        (&format!("{certificates} {{ auth = pubkey }}"), "remote-2.cacerts"),
        (&format!("{certificates} {{ pubkeys = {one}\n ca_id = \"ipv4:x\" }}"), "remote-2.ca_id"),
        // They have neither authorities nor policies.
        (&format!("remote {{ pubkeys = {one}\n id = gw\n ca_id = \"C=CH\" }}"), "remote.ca_id"),
        (&format!("remote {{ pubkeys = {one}\n id = gw\n cert_policy = 1.2.3.4 }}"), "remote.cert_policy"),
        // Who of several would be whom?
        (&format!("remote {{ pubkeys = {one}, {other} }}"), "remote.pubkeys"),
        (&format!("remote {{ pubkeys = {one}, {other}\n id = *.example.org }}"), "remote.pubkeys"),
        (&format!("remote {{ pubkeys = {one}, {other}\n id = \"C=CH, CN=*\" }}"), "remote.pubkeys"),
    ] {
        let ours = if sides.contains("local {") { "" } else { "local { auth = psk }" };
        let theirs = if sides.contains("remote {") { "" } else { "remote { auth = psk }" };
        let unusable = of(&format!("connections {{ a {{ {ours}\n {theirs}\n {sides} }} }}")).unwrap_err();
        assert_eq!(unusable.key, format!("connections.a.{key}"), "{unusable}");
    }
    // One key may be anybody's, and one peer may have several.
    for remote in [format!("pubkeys = {one}"), format!("pubkeys = {one}, {other}\n id = gw.example.org")] {
        let text = format!("connections {{ a {{ local {{ auth = psk }}\n remote {{ {remote} }} }} }}");
        assert!(of(&text).is_ok(), "{remote}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// A directory of this name with a certificate and a key for each of these names, in files that are in this order.
fn with_certificates(directory: &str, names: &[&str]) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("portcullis-{directory}-{}", std::process::id()));
    for (n, name) in names.iter().enumerate() {
        let made = rcgen::generate_simple_self_signed([(*name).to_owned()]).unwrap();
        for (kind, octets) in [("x509", &made.cert.der()[..]), ("private", made.signing_key.serialized_der())]
        {
            std::fs::create_dir_all(directory.join(kind)).unwrap();
            let file = directory.join(kind).join(format!("{n}.der"));
            std::fs::write(&file, octets).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    directory
}

#[test]
fn of_several_certificates_the_one_that_has_the_id_is_shown() {
    use portcullis_ike::connection::LocalAuth;
    let names = ["one.example.org", "other.example.org", "third.example.org"];
    let (directory, mut credentials) = (with_certificates("certificates", &names), Credentials::default());
    credentials.read(&directory).unwrap();
    let shown = |keys: &str| {
        let text = format!("connections {{ a {{ local {{ {keys} }}\n remote {{ auth = psk }} }} }}");
        let all =
            configuration(&Configuration::parse(Path::new("swanctl.conf"), &text).unwrap(), &credentials);
        let LocalAuth::PublicKey(own) = &all.unwrap().connections[0].local_auth else { panic!("{keys}") };
        let is_of = |name: &&str| {
            own.certificate().unwrap().proves(&name.parse::<IdPattern>().unwrap().identity().unwrap())
        };
        names.into_iter().filter(is_of).collect::<Vec<_>>()
    };
    for name in names {
        assert_eq!(shown(&format!("id = {name}")), [name]);
    }
    // What is written counts, and without an identity the first.
    assert_eq!(shown("certs = 1.der"), [names[1]]);
    assert_eq!(shown(""), [names[0]]);
    std::fs::remove_dir_all(directory).unwrap();
}

/// As strongSwan: what `certs` and `cacerts` name is all that counts, and both where both do.
#[test]
fn who_is_believed_is_who_is_named() {
    use portcullis_ike::{connection::RemoteAuth, pki::certificate::Certificate};
    let (directory, mut credentials) =
        (with_certificates("pinned", &["one.example.org", "other.example.org"]), Credentials::default());
    std::fs::create_dir_all(directory.join("x509ca")).unwrap();
    for name in ["a.der", "b.der"] {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(directory.join("x509ca").join(name), made.cert.der()).unwrap();
    }
    credentials.read(&directory).unwrap();
    let file =
        |name: &str| Certificate::from_file(&std::fs::read(directory.join(name)).unwrap()).unwrap().remove(0);
    let [one, a, b] = ["x509/0.der", "x509ca/a.der", "x509ca/b.der"].map(file);
    for (keys, pinned, anchors) in [
        ("", vec![], vec![&a, &b]),
        ("cacerts = b.der", vec![], vec![&b]),
        ("certs = 0.der", vec![&one], vec![]),
        ("certs = 0.der\n cacerts = b.der", vec![&one], vec![&b]),
        ("certs = 0.der\n ca_id = \"CN=a\"", vec![&one], vec![&a, &b]),
    ] {
        let text = format!("connections {{ a {{ local {{ auth = psk }}\n remote {{ {keys} }} }} }}");
        let all =
            configuration(&Configuration::parse(Path::new("swanctl.conf"), &text).unwrap(), &credentials);
        let RemoteAuth::PublicKey(trust) = &all.unwrap().connections[0].remote_auth else { panic!("{keys}") };
        assert!(trust.pinned.iter().eq(pinned) && trust.anchors.iter().eq(anchors), "{keys}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
