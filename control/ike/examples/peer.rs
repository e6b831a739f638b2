//! An IKEv2 peer without a datapath, to see what others make of the engine: it says what happens, and installs nothing.
//!
//! ```sh
//! cargo run -p portcullis-ike --example peer -- LOCAL REMOTE LOCAL_ID REMOTE_ID KEY LOCAL_TS REMOTE_TS IKE ESP [COMMAND...]
//! ```
//!
//! KEY is a shared key, or `pki:DIR`, a directory with `x509/self.pem`, `private/self.pem` and `x509ca/ca.pem`; with
//! `pki:DIR+psk:KEY` only we sign, and with `psk:KEY+pki:DIR` only the peer does. Lists of what is revoked are
//! `x509crl/*.pem` in it, and STRICT in the environment demands that all is in them.
//!
//! Commands come one after the other, each when nothing has happened for a second: `initiate`, `child`, `rekey`, `rekey-ike`,
//! `delete-child`, `delete`, `wait`, and `go:ADDRESS` to be elsewhere. `PPK_ID` and `PPK` of the environment are a PPK. It ends after the last one, or when nothing has happened for a minute.

#![allow(clippy::print_stdout, reason = "it is what it is for")]

use portcullis_ike::{
    connection::{
        Child, Childless, Configuration, Connection, Hosts, LocalAuth, Ppk, RemoteAuth, SharedKey, Unique,
    },
    crypto::signature::PrivateKey,
    pki::{
        certificate::Certificate,
        chain::Trust,
        credential::Credential,
        crl::Crl,
        revocation::{Revocation, Said},
    },
    proposal::{Order, Proposals},
    traffic_selector::ConfiguredSelectors,
    v2::{
        context::Context,
        engine::Engine,
        output::{Datagram, Output},
        window::Retransmission,
    },
};
use portcullis_sadb::{Handling, Mode};
use rand_core::UnwrapErr;
use std::{
    collections::VecDeque,
    error::Error,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// In front of IKE messages on port 4500 (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [local, remote, local_id, remote_id, key, local_ts, remote_ts, ike, esp, commands @ ..] = &args[..]
    else {
        return Err("LOCAL REMOTE LOCAL_ID REMOTE_ID KEY LOCAL_TS REMOTE_TS IKE ESP [COMMAND...]".into());
    };
    let (local, remote): (IpAddr, IpAddr) = (local.parse()?, remote.parse()?);
    let child = Arc::new(Child {
        name: "net".into(),
        mark: 0,
        proposals: Proposals::esp(esp.split(','))?,
        around: None,
        local: ConfiguredSelectors::parse(local_ts.split(','))?,
        remote: ConfiguredSelectors::parse(remote_ts.split(','))?,
        mode: Mode::Tunnel,
        handling: Handling::default(),
        per_worker: false,
        replay_window: 1024,
        priority: 0,
        rekey_ms: 0,
        rand_ms: 0,
    });
    let ppk = std::env::var("PPK_ID").and_then(|id| Ok((id, std::env::var("PPK")?)));
    let ppk = ppk.ok().map(|(id, key)| Ppk { id: id.into_bytes(), key: key.into_bytes().into() });
    let (ours, theirs) = key.split_once('+').unwrap_or((key, key));
    let shared = [ours, theirs].into_iter().find(|of| !of.starts_with("pki:")).unwrap_or_default();
    let shared = shared.strip_prefix("psk:").unwrap_or(shared).as_bytes().to_vec();
    let connection = Arc::new(Connection {
        name: "peer".into(),
        edition: 0,
        mark: 0,
        ikev1: None,
        local: Hosts::one(local),
        remote: Hosts::Any,
        local_port: 500,
        remote_port: 500,
        proposals: Proposals::ike(ike.split(','))?,
        order: Order::Ours,
        local_id: local_id.parse()?,
        remote_id: remote_id.parse()?,
        ppk_id: ppk.as_ref().map(|ppk| ppk.id.clone()),
        ppk_required: false,
        unique: Unique::No,
        childless: Childless::Allow,
        mobike: true,
        local_auth: local_auth(ours)?,
        remote_auth: remote_auth(theirs)?,
        further: Default::default(),
        vips: vec![],
        pools: vec![],
        children: vec![child.clone()],
        retransmission: Retransmission::default(),
        dpd_ms: 0,
        reauth_ms: 0,
        over_ms: 0,
        rekey_ms: 0,
        rand_ms: 0,
        resumes: true,
        follows_redirects: true,
        redirect_to: vec![],
        forces_udp: false,
        fragment_octets: 1280,
        says_fragments: true,
        keying_tries: 1,
        dscp: 0,
        sends_certificates: Default::default(),
        asks_for_certificates: true,
    });
    let config = Configuration {
        connections: vec![connection.clone()],
        ppks: ppk.into_iter().collect(),
        shared_keys: vec![SharedKey { ids: vec![], key: shared.into() }],
        workers: 2,
        pools: vec![],
        eap_secrets: Default::default(),
        cookies_from: 10,
        puzzles_from: 0,
        most_half_open: 100,
        most_half_open_of_one: 5,
        most_ike_sas: 100,
        firsts_a_second: 0,
        half_open_ms: 30_000,
        here: vec![],
        tells_keys: false,
    };
    let mut sockets = sockets_at(local)?;
    let (start, mut rng) = (Instant::now(), UnwrapErr(getrandom::SysRng));
    let (mut out, mut spi) = (VecDeque::new(), 0xc000_0000u32);
    let mut commands = commands.iter();
    let mut quiet_since = Instant::now();
    let mut engine = None;
    loop {
        let mut next_spi = || {
            spi += 1;
            Some(spi)
        };
        let now_ms = start.elapsed().as_millis() as u64;
        let mut cx = Context {
            now_ms,
            unix_secs: unix_secs(),
            rng: &mut rng,
            config: &config,
            child_spi: &mut next_spi,
            child_room: &mut |_| true,
            out: &mut out,
        };
        let engine = engine.get_or_insert_with(|| Engine::new(&mut cx));
        engine.tick(&mut cx);
        for socket in &sockets {
            let mut octets = vec![0; 65_536];
            let Ok((len, peer)) = socket.recv_from(&mut octets) else { continue };
            octets.truncate(len);
            let here = socket.local_addr()?;
            if here.port() == 4500 {
                match octets.strip_prefix(&NON_ESP_MARKER) {
                    Some(rest) => octets = rest.to_vec(),
                    None => continue,
                }
            }
            if let Err(refused) = engine.receive(&Datagram { local: here, peer, octets, dscp: 0 }, &mut cx) {
                println!("refused: {refused}");
            }
        }
        if quiet_since.elapsed() > Duration::from_secs(1) {
            let id = engine.sas().next().map(|sa| sa.id());
            let spi_in =
                engine.sas().flat_map(|sa| sa.children()).next().map(|child| child.spi_in).unwrap_or(0);
            match (commands.next().map(String::as_str), id) {
                (Some("initiate"), _) => {
                    engine.initiate(&connection, Some(&child), (local, remote), &mut cx);
                }
                (Some("child"), Some(id)) => _ = engine.initiate_child(id, &child, &mut cx),
                (Some("rekey-ike"), Some(id)) => _ = engine.rekey(id, &mut cx),
                (Some("rekey"), _) => _ = engine.rekey_child(spi_in, &mut cx),
                (Some("delete-child"), _) => _ = engine.terminate_child(spi_in, &mut cx),
                (Some("delete"), Some(id)) => _ = engine.terminate(id, &mut cx),
                (Some("wait"), _) => {}
                (Some(go), Some(id)) if go.starts_with("go:") => {
                    let there = go["go:".len()..].parse()?;
                    sockets = sockets_at(there)?;
                    let goes = engine.go_between(id, (there, remote), &mut cx);
                    println!("goes to {there}: {goes}");
                }
                (Some(other), _) => return Err(format!("{other} cannot be done").into()),
                (None, _) if !args[9..].is_empty() => return Ok(()),
                (None, _) => {}
            }
            if commands.len() > 0 || quiet_since.elapsed() < Duration::from_secs(60) || !args[9..].is_empty()
            {
                quiet_since = Instant::now();
            }
        }
        while let Some(output) = cx.out.pop_front() {
            quiet_since = Instant::now();
            match output {
                Output::Keys(_) => {}
                Output::Send(Datagram { local, peer, octets, .. }) => send(&sockets, local, peer, octets)?,
                Output::Job(id, job) => {
                    let outcome = job.run(cx.rng);
                    engine.done(id, outcome, &mut cx);
                }
                Output::Child(change) => println!("{change:?}"),
                Output::Closed(_) | Output::Refused(_) => {}
                Output::Event(id, event) => {
                    let has_ppk = engine.sa(id).is_some_and(|sa| sa.has_ppk());
                    println!("{event:?}{}", if has_ppk { " with the PPK" } else { "" });
                }
            }
        }
    }
}

fn sockets_at(local: IpAddr) -> std::io::Result<[UdpSocket; 2]> {
    let socket = |port| {
        let socket = UdpSocket::bind((local, port))?;
        socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        Ok::<_, std::io::Error>(socket)
    };
    Ok([socket(500)?, socket(4500)?])
}

fn local_auth(of: &str) -> Result<LocalAuth, Box<dyn Error>> {
    let Some(dir) = of.strip_prefix("pki:").map(Path::new) else { return Ok(LocalAuth::SharedKey) };
    let key = PrivateKey::from_pem(&fs::read_to_string(dir.join("private/self.pem"))?)?;
    let certificates = Certificate::from_file(&fs::read(dir.join("x509/self.pem"))?)?;
    Ok(LocalAuth::PublicKey(Credential::new(key, certificates)?))
}

fn remote_auth(of: &str) -> Result<RemoteAuth, Box<dyn Error>> {
    let Some(dir) = of.strip_prefix("pki:").map(Path::new) else { return Ok(RemoteAuth::SharedKey) };
    let anchors = Certificate::from_file(&fs::read(dir.join("x509ca/ca.pem"))?)?;
    let mut trust = Trust { anchors, ..Trust::default() };
    for file in fs::read_dir(dir.join("x509crl")).into_iter().flatten() {
        trust.said.extend(Crl::from_file(&fs::read(file?.path())?)?.into_iter().map(Said::Crl));
    }
    if std::env::var_os("STRICT").is_some() {
        trust.revocation = Revocation::Strict;
    }
    Ok(RemoteAuth::PublicKey(Arc::new(trust)))
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn send(
    sockets: &[UdpSocket; 2],
    local: SocketAddr,
    peer: SocketAddr,
    octets: Vec<u8>,
) -> std::io::Result<()> {
    let (socket, octets) = match local.port() {
        4500 => (&sockets[1], [&NON_ESP_MARKER[..], &octets].concat()),
        _ => (&sockets[0], octets),
    };
    socket.send_to(&octets, peer).map(|_| ())
}
