//! Ends that sign, and that believe who signs or do not.

use super::{
    events,
    world::{LEFT, RIGHT, START_SECS, World, config, connection, ike},
};
use crate::{
    connection::{Connection, LocalAuth, Ppk, RemoteAuth},
    crypto::signature::{
        Curve, Hash, Scheme,
        demand::{Demand, Demands},
    },
    identity::IdPattern,
    message::AuthMethod,
    pki::{
        chain::Trust,
        credential::{Credential, Mismatch},
        revocation::{Revocation, Said},
        tests::authority::{Holder, at, root, root_of},
    },
    v2::output::Event,
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use std::sync::Arc;

const NAMES: [&str; 2] = ["left.example.org", "right.example.org"];

/// Two authorities, and who they have issued certificates to.
pub(crate) struct Paper {
    pub root: Holder,
    middle: Holder,
    pub ends: [Holder; 2],
}

fn keys(kind: &str) -> KeyPair {
    match kind {
        "rsa" => KeyPair::from_pem(include_str!("../../crypto/vectors/rsa2048-pkcs8.pem")),
        "ecp384" => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        "ed25519" => KeyPair::generate_for(&PKCS_ED25519),
        _ => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
    }
    .unwrap()
}

pub(crate) fn paper(kind: &str) -> Paper {
    let root = root_of("root", keys(kind), &|_| {});
    let middle = root.authority("middle", &|_| {});
    let ends = NAMES.map(|name| middle.end_of(name, keys(kind), &|_| {}));
    Paper { root, middle, ends }
}

impl Paper {
    pub(crate) fn local(&self, end: usize) -> LocalAuth {
        let certificates = [&self.ends[end], &self.middle].map(|holder| holder.certificate.clone());
        LocalAuth::PublicKey(Credential::new(self.ends[end].key(), certificates.to_vec()).unwrap())
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust { anchors: vec![self.root.certificate.clone()], ..Trust::default() }
    }

    /// A world in which both sign.
    pub fn world(&self, seed: u64) -> World {
        World::new(seed, [LEFT, RIGHT].map(|end| config(self.connection(end))))
    }

    fn connection(&self, end: usize) -> Connection {
        let remote_auth = RemoteAuth::PublicKey(Arc::new(self.trust()));
        Connection { local_auth: self.local(end), remote_auth, ..connection("a", end) }
    }
}

pub(super) fn trusting(world: &mut World, end: usize, trust: Trust) {
    world.configure(end, |c| c.remote_auth = RemoteAuth::PublicKey(Arc::new(trust)));
}

#[test]
fn ends_sign_with_keys_of_each_kind() {
    for (n, kind) in ["rsa", "ecp256", "ecp384", "ed25519"].into_iter().enumerate() {
        let mut world = paper(kind).world(n as u64);
        world.late_ms = 100;
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        for end in [LEFT, RIGHT] {
            assert!(matches!(&events(&world, end)[..], [Event::Established, Event::ChildUp(..)]), "{kind}");
            let (mine, theirs) = world.only_sa(end).ids.clone().unwrap();
            assert_eq!([mine.to_string(), theirs.to_string()], [NAMES[end], NAMES[1 - end]]);
        }
        world.check_children(1);
    }
}

#[test]
fn each_end_proves_who_it_is_in_its_own_way() {
    let paper = paper("ecp256");
    let ways = [
        (LocalAuth::SharedKey, RemoteAuth::SharedKey),
        (LocalAuth::Null, RemoteAuth::Null),
        (paper.local(LEFT), RemoteAuth::PublicKey(Arc::new(paper.trust()))),
    ];
    for (n, (local, remote)) in ways.iter().enumerate() {
        for end in [LEFT, RIGHT] {
            let mut world = paper.world(n as u64);
            let local = if n == 2 { paper.local(end) } else { local.clone() };
            world.configure(end, |c| c.local_auth = local);
            world.configure(1 - end, |c| c.remote_auth = remote.clone());
            world.initiate(LEFT, Some(0));
            world.run_until_quiet();
            world.check_children(1);
        }
    }
    // RFC 7619 §2.2: who is nobody.
    let mut world = paper.world(9);
    world.configure(LEFT, |c| (c.local_auth, c.local_id) = (LocalAuth::Null, IdPattern::Any));
    world.configure(RIGHT, |c| (c.remote_auth, c.remote_id) = (RemoteAuth::Null, IdPattern::Any));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    assert_eq!(world.only_sa(RIGHT).ids.clone().unwrap().1.to_string(), "%null");
}

#[test]
fn who_has_no_identity_has_that_of_its_certificate() {
    let mut world = paper("ecp256").world(1);
    world.configure(LEFT, |c| c.local_id = IdPattern::Any);
    world.configure(RIGHT, |c| {
        c.local_id = IdPattern::Any;
        c.remote_id = "O=Test, CN=*".parse().unwrap();
    });
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    // The responder is whom it was asked to be.
    let ids = world.only_sa(RIGHT).ids.clone().unwrap();
    assert_eq!([ids.0.to_string(), ids.1.to_string()], [NAMES[RIGHT], "O=Test, CN=left.example.org"]);
}

// RFC 8784 §3, RFC 9242 §3.3.2
#[test]
fn signatures_are_of_all_that_was_said_with_and_without_a_ppk() {
    let paper = paper("ecp256");
    for (right_has, is_required) in [(true, false), (true, true), (false, false)] {
        let mut world = paper.world(1);
        world.configure(LEFT, |c| (c.ppk_id, c.ppk_required) = (Some(b"it".to_vec()), is_required));
        for end in [LEFT, RIGHT] {
            world.configure(end, |c| c.proposals = ike("aes128gcm16-sha256-x25519-ke1_mlkem768"));
            let id = if end == RIGHT && !right_has { "another" } else { "it" };
            world.ends[end].config.ppks = vec![Ppk { id: id.into(), key: b"octets of it".to_vec().into() }];
        }
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).has_ppk()), [right_has; 2]);
    }
}

#[test]
fn the_connection_is_the_one_that_takes_the_method() {
    let paper = paper("ecp256");
    let mut world = paper.world(1);
    let keyed = Connection { name: "keyed".into(), ..connection("keyed", RIGHT) };
    world.ends[RIGHT].config.connections.insert(0, Arc::new(keyed));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(world.only_sa(RIGHT).connection().name, "a");
    world.check_children(1);
}

/// As strongSwan: of connections that fit alike, the certificate says which it is.
#[test]
fn the_connection_is_the_one_that_believes_the_certificate() {
    let (ours, others) = (paper("ecp256"), paper("ecp256"));
    let world = |first: Trust, second: Trust, remote_id: &str| {
        let mut world = ours.world(1);
        trusting(&mut world, RIGHT, first);
        let second = Connection {
            name: "second".into(),
            remote_auth: RemoteAuth::PublicKey(Arc::new(second)),
            remote_id: remote_id.parse().unwrap(),
            ..ours.connection(RIGHT)
        };
        world.ends[RIGHT].config.connections.push(Arc::new(second));
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world
    };
    let pinned = vec![ours.ends[RIGHT].certificate.clone()];
    let demand = Demand { hashes: vec![Hash::Sha512], ..Demand::default() };
    for first in [
        others.trust(),
        Trust { pinned, ..ours.trust() },
        Trust { authority: Some("O=Test, CN=other".parse().unwrap()), ..ours.trust() },
        Trust { policies: vec!["1.2.3.4".parse().unwrap()], ..ours.trust() },
        Trust { ike_demands: Demands(vec![demand]), ..ours.trust() },
    ] {
        let world = world(first, ours.trust(), NAMES[LEFT]);
        world.check_children(1);
        let sa = world.only_sa(RIGHT);
        assert_eq!(sa.connection().name, "second");
        assert_eq!(sa.ids.clone().map(|ids| ids.1.to_string()).as_deref(), Some(NAMES[LEFT]));
    }
    assert_eq!(world(ours.trust(), ours.trust(), NAMES[LEFT]).only_sa(RIGHT).connection().name, "a");
    // Whoever is somebody's alone does not come in as anybody.
    let closed = |second, remote_id| events(&world(others.trust(), second, remote_id), RIGHT).last().cloned();
    let unknown = "certificate 'O=Test, CN=middle': issuer: 'O=Test, CN=root' is not known";
    let refused = |why: String| Event::Closed(format!("left.example.org is not authenticated: {why}"));
    let found = closed(ours.trust(), "%any");
    let Some(Event::Closed(why)) = &found else { panic!("{found:?}") };
    assert!(why.starts_with("left.example.org is not authenticated: certificate"), "{why}");
    let strict = Trust { revocation: Revocation::Strict, ..ours.trust() };
    let found = closed(strict, NAMES[LEFT]);
    let Some(Event::Closed(why)) = &found else { panic!("{found:?}") };
    assert!(why.contains("'a': certificate") && why.contains("; 'second': certificate"), "{why}");
    // The same of each is told once.
    let stranger = root("stranger", &|_| {});
    let nobody = || Trust { anchors: vec![stranger.certificate.clone()], ..Trust::default() };
    let world = world(nobody(), nobody(), NAMES[LEFT]);
    assert_eq!(events(&world, RIGHT).last(), Some(&refused(unknown.into())));
}

/// Keys and authorities that are not loaded any more are not used: what is there stays, and nothing begins until they are.
#[test]
fn without_its_keys_a_connection_stays_as_it_is_and_begins_nothing() {
    let paper = paper("ecp256");
    for at in [LEFT, RIGHT] {
        let mut world = paper.world(at as u64);
        world.configure(at, |c| c.edition = 7);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let (id, before) = (world.only_sa(LEFT).id(), world.only_sa(LEFT).spis());
        let whole = world.ends[at].config.connections[0].clone();
        let change = |world: &mut World, now: Arc<Connection>| {
            world.ends[at].engine.follow_connections(std::slice::from_ref(&now));
            world.ends[at].config.connections[0] = now;
            world.with(LEFT, |engine, cx| engine.reauthenticate(id, cx));
            world.run_for(40_000);
        };
        change(&mut world, Arc::new(whole.without_credentials()));
        assert_eq!(Arc::strong_count(&whole), 1, "nobody has its key");
        assert_eq!((world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis()), (before, before));
        world.check_children(1);
        let spi = world.only_sa(at).children()[0].spi_in;
        world.with(at, |engine, cx| assert!(engine.rekey_child(spi, cx)));
        world.run_for(20_000);
        world.check_children(1);
        change(&mut world, whole);
        world.check_children(1);
        assert_ne!(world.only_sa(LEFT).spis(), before);
    }
}

#[test]
fn who_is_not_believed_is_refused_and_both_are_told_why() {
    let paper = paper("ecp256");
    let stranger = root("root", &|_| {});
    let old = paper.middle.end(NAMES[LEFT], &|p| p.not_after = at(START_SECS - 1));
    let other = paper.middle.end("other.example.org", &|_| {});
    let crl = paper.middle.crl(&[(&paper.ends[LEFT], None)], &|_| {});
    let of = |holder: &Holder| {
        let certificates = [holder, &paper.middle].map(|holder| holder.certificate.clone());
        LocalAuth::PublicKey(Credential::new(holder.key(), certificates.to_vec()).unwrap())
    };
    type Change<'a> = &'a dyn Fn(&mut World);
    let ike_demands = Demands(vec![Demand { hashes: vec![Hash::Sha512], ..Demand::default() }]);
    let pinned = vec![other.certificate.clone()];
    let cases: [(Change<'_>, String); 9] = [
        (
            &|w| trusting(w, RIGHT, Trust { pinned: pinned.clone(), ..paper.trust() }),
            "certificate 'O=Test, CN=left.example.org': certs: it is none of those that the connection's `remote` names"
                .into(),
        ),
        (
            &|w| trusting(w, RIGHT, Trust { ike_demands: ike_demands.clone(), ..paper.trust() }),
            "its signature is of no kind that is taken".into(),
        ),
        (
            &|w| {
                trusting(w, RIGHT, Trust { anchors: vec![stranger.certificate.clone()], ..Trust::default() })
            },
            "certificate 'O=Test, CN=middle': issuer: 'O=Test, CN=root' is not known".into(),
        ),
        (
            &|w| w.configure(LEFT, |c| c.local_auth = of(&old)),
            "certificate 'O=Test, CN=left.example.org': notAfter: it has expired at 2027-01-15T07:59:59Z"
                .into(),
        ),
        (
            &|w| w.configure(LEFT, |c| c.local_auth = of(&other)),
            "certificate 'O=Test, CN=other.example.org': subjectAltName: it is not of left.example.org"
                .into(),
        ),
        (
            &|w| trusting(w, RIGHT, Trust { said: vec![Said::Crl(crl.clone())], ..paper.trust() }),
            "certificate 'O=Test, CN=left.example.org': it is revoked: Unspecified".into(),
        ),
        (
            &|w| trusting(w, RIGHT, Trust { revocation: Revocation::Strict, ..paper.trust() }),
            "certificate 'O=Test, CN=left.example.org': nothing says that it is not revoked".into(),
        ),
        (
            &|w| w.configure(RIGHT, |c| c.remote_auth = RemoteAuth::SharedKey),
            "it proves that by DIGITAL_SIGNATURE, and must by a shared key".into(),
        ),
        (
            &|w| w.configure(LEFT, |c| c.local_auth = LocalAuth::SharedKey),
            "it proves that by SHARED_KEY, and must by a certificate".into(),
        ),
    ];
    for (change, why) in cases {
        let mut world = paper.world(4);
        change(&mut world);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let closed = |end: usize| events(&world, end).last().cloned();
        let by = &world.ends[LEFT].config.connections[0].local_auth;
        let says = format!(
            "the peer says AUTHENTICATION_FAILED: we are left.example.org, by {by}, and asked for right.example.org"
        );
        assert_eq!(closed(LEFT), Some(Event::Closed(says)));
        let why = format!("left.example.org is not authenticated: {why}");
        assert_eq!(closed(RIGHT), Some(Event::Closed(why)));
        assert_eq!(world.ends[LEFT].engine.sas().count() + world.ends[RIGHT].engine.sas().count(), 0);
    }
    // And the other way: the initiator does not believe it.
    let mut world = paper.world(5);
    trusting(&mut world, LEFT, Trust { anchors: vec![stranger.certificate.clone()], ..Trust::default() });
    world.initiate(LEFT, Some(0));
    world.run_for(10_000);
    let why = "right.example.org is not authenticated: certificate 'O=Test, CN=middle': issuer: 'O=Test, CN=root' is not known";
    assert_eq!(events(&world, LEFT), [Event::Closed(why.into())]);
}

/// RFC 7296 §2.21.2: messages are lost, and come late and twice.
#[test]
fn whatever_the_network_does_signatures_are_right() {
    let (paper, seeds) = (paper("ed25519"), 0..200);
    println!("seeds {seeds:?}");
    let mut up = 0;
    for seed in seeds.clone() {
        let mut world = paper.world(seed);
        (world.loss, world.again, world.late_ms) = (10, 10, 2000);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        if world.ends[LEFT].engine.sas().count() == 1 {
            up += 1;
            world.check_children(1);
        } else {
            assert_eq!(world.ends[LEFT].installed.len(), 0, "seed {seed}");
        }
    }
    assert!(up > seeds.end * 9 / 10, "{up}");
}

#[test]
fn what_the_responder_asks_waits_until_it_is_believed() {
    let mut world = paper("ecp256").world(3);
    world.late_ms = 3000;
    world.initiate(LEFT, Some(0));
    while events(&world, RIGHT).is_empty() {
        world.run_for(1);
    }
    assert!(events(&world, LEFT).is_empty());
    let (id, child) =
        (world.only_sa(RIGHT).id(), world.ends[RIGHT].config.connections[0].children[0].clone());
    world.with(RIGHT, |engine, cx| engine.initiate_child(id, &child, cx));
    world.run_until_quiet();
    world.check_children(2);
}

// RFC 7427 §4, RFC 4754 §4, RFC 7296 §3.8
#[test]
fn how_a_key_signs_is_what_the_peer_takes() {
    use Scheme::*;
    let digital = |scheme| Some((AuthMethod::DIGITAL_SIGNATURE, scheme));
    for (kind, hashes, method) in [
        ("rsa", Some(&[2, 3, 4, 5][..]), digital(RsaPss(Hash::Sha256))),
        ("rsa", Some(&[4, 1]), digital(RsaPss(Hash::Sha512))),
        ("rsa", Some(&[1]), Some((AuthMethod::RSA_SIGNATURE, RsaSha1))),
        ("rsa", None, Some((AuthMethod::RSA_SIGNATURE, RsaSha1))),
        ("ecp256", Some(&[2, 3]), digital(Ecdsa(Hash::Sha256))),
        ("ecp256", Some(&[3]), digital(Ecdsa(Hash::Sha384))),
        ("ecp256", None, Some((AuthMethod::ECDSA_SHA256_P256, EcdsaOf(Curve::P256)))),
        ("ecp384", Some(&[2, 3]), digital(Ecdsa(Hash::Sha384))),
        ("ecp384", None, Some((AuthMethod::ECDSA_SHA384_P384, EcdsaOf(Curve::P384)))),
        ("ed25519", Some(&[5]), digital(Ed25519)),
        ("ed25519", Some(&[2]), None),
        ("ed25519", None, None),
    ] {
        let holder = root_of("root", keys(kind), &|_| {});
        let credential = Credential::new(holder.key(), vec![holder.certificate.clone()]).unwrap();
        assert_eq!(credential.method(hashes), method, "{kind} {hashes:?}");
    }
    // And what is demanded of it, the first the best.
    for (kind, demand, method) in [
        (
            "rsa",
            Demand { hashes: vec![Hash::Sha512, Hash::Sha256], ..Demand::default() },
            digital(RsaPss(Hash::Sha512)),
        ),
        (
            "rsa",
            Demand { hashes: vec![Hash::Sha384], is_pss: true, ..Demand::default() },
            digital(RsaPss(Hash::Sha384)),
        ),
        ("ecp256", Demand { hashes: vec![Hash::Sha384], ..Demand::default() }, digital(Ecdsa(Hash::Sha384))),
        ("ecp256", Demand { least_bits: 384, ..Demand::default() }, None),
        ("ed25519", Demand { hashes: vec![Hash::Sha384], ..Demand::default() }, digital(Ed25519)),
    ] {
        let holder = root_of("root", keys(kind), &|_| {});
        let credential = Credential::new(holder.key(), vec![holder.certificate.clone()]).unwrap();
        let credential = credential.demanding(Demands(vec![demand.clone()]));
        assert_eq!(credential.method(Some(&[2, 3, 4, 5])), method, "{kind} {demand:?}");
    }
    let (a, b) = (root("a", &|_| {}), root("b", &|_| {}));
    assert_eq!(Credential::new(a.key(), vec![]).unwrap_err(), Mismatch::NoCertificate);
    assert_eq!(Credential::new(a.key(), vec![b.certificate]).unwrap_err(), Mismatch::Key);
}
