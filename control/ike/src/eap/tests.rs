use super::*;
use crate::{
    crypto::vectors::{Known, seeded},
    pki::tests::authority::{Holder, NOW, root_of},
};
use proptest::{collection::vec, prelude::*};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

const SERVER: &str = "vpn.example.org";

fn secrets(of: &[(&str, &str)]) -> Arc<Secrets> {
    let mut secrets = Secrets::default();
    of.iter().for_each(|(name, password)| assert!(secrets.add(&[(*name).to_owned()], &NtHash::of(password))));
    Arc::new(secrets)
}

fn id(text: &str) -> Identification {
    identification(text).unwrap()
}

fn demand(method: Method, identity: Identity, tls: Option<Tls>) -> Demand {
    Demand { method, identity, tls }
}

fn means(identity: Option<&str>, method: Option<Method>, tls: Option<Tls>) -> Means {
    Means { method, identity: identity.map(str::to_owned), authority: None, tls }
}

/// Two ends of EAP, and how many packets went between them.
struct Ends {
    server: Authenticator,
    peer: Peer,
    rng: Known,
    packets: usize,
}

impl Ends {
    fn new(demand: &Demand, known: &Arc<Secrets>, user: &str, means: &Means, own: &Arc<Secrets>) -> Ends {
        Ends {
            server: Authenticator::new(demand, known, (SERVER, &id(user)), NOW),
            peer: Peer::new(means, own, (user, IdPattern::from(&id(SERVER))), NOW),
            rng: seeded(1),
            packets: 0,
        }
    }

    /// What both come to.
    fn run(&mut self) -> (Result<Proven, EapError>, Option<Result<Proven, EapError>>) {
        let mut next = self.server.begin(&mut self.rng);
        loop {
            self.packets += 1;
            let (octets, end) = match next {
                Next::Ask(octets) => (octets, None),
                Next::Success(octets, proven) => (octets, Some(Ok(proven))),
                Next::Failure(octets, why) => (octets, Some(Err(why))),
            };
            next = match (self.peer.handle(&octets, &mut self.rng), end) {
                (Reply::Answer(answer), None) => self.server.handle(&answer, &mut self.rng),
                (Reply::Success(proven), end) => return (Ok(proven), end),
                (Reply::Failure(why), end) => return (Err(why), end),
                (Reply::Answer(_), Some(_)) => panic!("to an end there is no answer"),
            };
        }
    }
}

fn by_password(demanded: Identity, user: &str, eap_id: Option<&str>, own: &[(&str, &str)]) -> Ends {
    let known = secrets(&[("carol", "secret of carol"), ("dave@example.org", "secret of dave")]);
    let demand = demand(Method::MsChapV2, demanded, None);
    Ends::new(&demand, &known, user, &means(eap_id, Some(Method::MsChapV2), None), &secrets(own))
}

#[test]
fn users_prove_who_they_are_by_passwords() {
    let own = [
        ("carol", "secret of carol"),
        ("CORP\\carol", "secret of carol"),
        ("dave@example.org", "secret of dave"),
    ];
    for (demanded, user, eap_id, who, packets) in [
        (Identity::OfIke, "carol", None, "carol", 3),
        (Identity::Proven, "192.0.2.1", Some("carol"), "carol", 3),
        (Identity::Asked(IdPattern::Any), "192.0.2.1", Some("CORP\\carol"), "CORP\\carol", 4),
        (
            Identity::Asked("*@example.org".parse().unwrap()),
            "x",
            Some("dave@example.org"),
            "dave@example.org",
            4,
        ),
    ] {
        let mut ends = by_password(demanded, user, eap_id, &own);
        let (peer, server) = ends.run();
        let (peer, server) = (peer.unwrap(), server.unwrap().unwrap());
        assert_eq!((&*peer.who, &peer), (who, &server));
        assert_eq!((peer.msk.bytes().len(), ends.packets), (64, packets));
    }
}

/// Who does not know a password and who is not there are told the same, as late.
#[test]
fn who_is_not_there_fails_as_who_does_not_know() {
    let refused = "E=691 R=0 C=00000000000000000000000000000000 V=3 M=Authentication failed";
    for (user, own) in [("carol", "another"), ("eve", "any"), ("", "any")] {
        let own = [(if user.is_empty() { "dave@example.org" } else { user }, own)];
        // Somebody else of the same EAP identity.
        let mut ends = by_password(Identity::Asked(IdPattern::Any), "x", Some(own[0].0), &own);
        let (peer, server) = ends.run();
        assert_eq!(peer, Err(EapError::Refused(refused.into())));
        assert!(matches!(server, Some(Err(EapError::Password(who))) if who == own[0].0));
        assert_eq!(ends.packets, 4);
    }
    // A right password of somebody else than in IKE is none.
    let mut ends =
        by_password(Identity::OfIke, "dave@example.org", Some("carol"), &[("carol", "secret of carol")]);
    assert!(matches!(ends.run(), (Err(EapError::Refused(_)), Some(Err(EapError::Password(_))))));
    // Nor is it that of another domain's user.
    let own = [("CORP\\carol", "secret of carol"), ("HOME\\carol", "another")];
    let home = Identity::Asked("HOME\\carol".parse().unwrap());
    let mut ends = by_password(home, "x", Some("CORP\\carol"), &own);
    assert_eq!(ends.run().1, Some(Err(EapError::Identity("CORP\\\\carol".into()))));
    // Nor is one who should not be here.
    let one = Identity::Asked("*@example.org".parse().unwrap());
    let mut ends = by_password(one, "x", Some("carol"), &[("carol", "secret of carol")]);
    assert_eq!(ends.run().1, Some(Err(EapError::Identity("carol".into()))));
}

/// An authenticator that does not know the password is none, even if it says that all is well.
#[test]
fn an_authenticator_proves_that_it_knows_the_password() {
    let mut ends = by_password(Identity::OfIke, "carol", None, &[("carol", "another")]);
    let Next::Ask(challenge) = ends.server.begin(&mut ends.rng) else { panic!() };
    let Reply::Answer(_) = ends.peer.handle(&challenge, &mut ends.rng) else { panic!() };
    let told = format!("S={} M=OK", "00".repeat(20));
    let body = [&[3, 7, 0, (4 + told.len()) as u8], told.as_bytes()].concat();
    let request = Packet { code: REQUEST, id: 9, data: Some((MSCHAPV2, &body)) }.emit();
    let reply = ends.peer.handle(&request, &mut ends.rng);
    assert!(matches!(reply, Reply::Failure(EapError::Impostor)));
    let success = Packet { code: SUCCESS, id: 9, data: None }.emit();
    assert!(matches!(ends.peer.handle(&success, &mut ends.rng), Reply::Failure(_)), "nor then");
}

// RFC 3748 §5.3.1
#[test]
fn a_method_that_is_not_wanted_is_refused() {
    let known = secrets(&[("carol", "secret")]);
    let (demand, means) = (
        demand(Method::MsChapV2, Identity::OfIke, None),
        means(None, Some(Method::Tls), Some(paper("").tls(1))),
    );
    let mut ends = Ends::new(&demand, &known, "carol", &means, &known);
    let (peer, server) = ends.run();
    assert_eq!(
        (peer, server),
        (Err(EapError::Refused(String::new())), Some(Err(EapError::Method(vec![13]))))
    );
}

struct Paper {
    root: Holder,
    middle: Holder,
    ends: [Holder; 2],
}

const NAMES: [&str; 2] = [SERVER, "carol.example.org"];

fn paper(kind: &str) -> Paper {
    let keys = || {
        match kind {
            "rsa" => KeyPair::from_pem(include_str!("../crypto/vectors/rsa2048-pkcs8.pem")),
            "ecp384" => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            "ed25519" => KeyPair::generate_for(&PKCS_ED25519),
            _ => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        }
        .unwrap()
    };
    let root = root_of("root", KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), &|_| {});
    let middle = root.authority("middle", &|_| {});
    let ends = NAMES.map(|name| middle.end_of(name, keys(), &|_| {}));
    Paper { root, middle, ends }
}

impl Paper {
    fn tls(&self, end: usize) -> Tls {
        let certificates = [&self.ends[end], &self.middle].map(|holder| holder.certificate.clone());
        let credential = Credential::new(self.ends[end].key(), certificates.to_vec()).unwrap();
        let anchors = vec![self.root.certificate.clone()];
        Tls { credential, trust: Arc::new(Trust { anchors, ..Trust::default() }) }
    }
}

fn by_certificate(server: Tls, peer: Tls, user: &str) -> Ends {
    let none = secrets(&[]);
    let demand = demand(Method::Tls, Identity::OfIke, Some(server));
    Ends::new(&demand, &none, user, &means(None, None, Some(peer)), &none)
}

// RFC 5216, RFC 9190
#[test]
fn users_prove_who_they_are_by_certificates() {
    for kind in ["rsa", "ecp256", "ecp384", "ed25519"] {
        let paper = paper(kind);
        let mut ends = by_certificate(paper.tls(0), paper.tls(1), NAMES[1]);
        let (peer, server) = ends.run();
        let (peer, server) = (peer.unwrap(), server.unwrap().unwrap());
        assert_eq!((&*peer.who, &peer), (NAMES[1], &server), "{kind}");
        assert!(peer.msk.bytes().len() == 64 && peer.msk.bytes() != [0; 64]);
    }
}

#[test]
fn certificates_must_be_of_who_is_wanted_and_of_an_authority() {
    let (one, other) = (paper(""), paper(""));
    for (server, peer, user, at_peer, at_server) in [
        // Of another authority, either.
        (one.tls(0), other.tls(1), NAMES[1], "", ""),
        // Of another user.
        (one.tls(0), one.tls(1), "dave.example.org", "", "not that of dave.example.org"),
        // Of another server.
        (one.tls(1), one.tls(1), NAMES[1], "not that of vpn.example.org", ""),
    ] {
        let (at_the_peer, at_the_server) = by_certificate(server, peer, user).run();
        let (peer, server) =
            (at_the_peer.unwrap_err().to_string(), at_the_server.unwrap().unwrap_err().to_string());
        assert!(peer.contains(at_peer) && server.contains(at_server), "{peer}; {server}");
    }
    // Or none of those that are named.
    let mut server = one.tls(0);
    let pinned = vec![one.ends[0].certificate.clone()];
    server.trust = Arc::new(Trust { pinned, ..(*server.trust).clone() });
    let at_the_server =
        by_certificate(server, one.tls(1), NAMES[1]).run().1.unwrap().unwrap_err().to_string();
    assert!(at_the_server.contains("certs: it is none of those"), "{at_the_server}");
}

/// Success out of turn is no success.
#[test]
fn success_before_its_time_is_none() {
    let paper = paper("");
    for (mut ends, steps) in [
        (by_password(Identity::OfIke, "carol", None, &[("carol", "secret of carol")]), 0..2),
        (by_certificate(paper.tls(0), paper.tls(1), NAMES[1]), 0..4),
    ] {
        for steps in steps {
            let mut next = ends.server.begin(&mut ends.rng);
            for _ in 0..steps {
                let Next::Ask(request) = &next else { break };
                let Reply::Answer(answer) = ends.peer.handle(request, &mut ends.rng) else { break };
                next = ends.server.handle(&answer, &mut ends.rng);
            }
            let success = Packet { code: SUCCESS, id: 1, data: None }.emit();
            assert!(matches!(ends.peer.handle(&success, &mut ends.rng), Reply::Failure(_)), "after {steps}");
        }
    }
}

proptest! {
    #[test]
    fn packets_are_what_they_were_made_of(octets in vec(any::<u8>(), 0..64)) {
        if let Ok(packet) = Packet::parse(&octets) {
            prop_assert_eq!(packet.emit(), octets);
        }
    }

    /// Of a conversation in which a packet is changed, both ends come to no key that only one of them has.
    #[test]
    fn a_packet_that_is_changed_proves_nothing(at in 0..4usize, octet in 4..80usize, bit in 0..8u8) {
        let mut ends = by_password(Identity::Asked(IdPattern::Any), "x", Some("carol"), &[("carol", "secret of carol")]);
        let mut next = ends.server.begin(&mut ends.rng);
        for n in 0.. {
            let octets = match next {
                Next::Ask(octets) => octets,
                Next::Success(_, proven) => {
                    prop_assert_eq!(proven.who, "carol");
                    break;
                }
                Next::Failure(..) => break,
            };
            let Reply::Answer(mut answer) = ends.peer.handle(&octets, &mut ends.rng) else { break };
            if let Some(octet) = answer.get_mut(octet).filter(|_| n == at) {
                *octet ^= 1 << bit;
            }
            next = ends.server.handle(&answer, &mut ends.rng);
        }
    }
}
