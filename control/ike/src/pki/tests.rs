//! Chains made by another library, and each thing that can be wrong with one.

pub(crate) mod authority;

use super::{
    BadCertificate, Wrong,
    certificate::Certificate,
    chain::{Shown, Trust},
    credential::Credential,
    crl::Crl,
    revocation::{Reason, Revocation, Said, Status},
};
use crate::{
    crypto::signature::{
        Hash, Kind,
        demand::{Demand, Demands},
    },
    identity::IdPattern,
    message::{IdType, Identification},
};
use authority::{Change, Holder, NOW, at, root};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CrlDistributionPoint, CrlIssuingDistributionPoint,
    CrlScope, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyUsagePurpose, NameConstraints, RevocationReason, SanType,
};

const AS_IT_IS: Change<'static> = &|_| {};

/// A root, an authority below it, and an end.
struct Three {
    root: Holder,
    middle: Holder,
    end: Holder,
}

fn three(root_change: Change<'_>, middle: Change<'_>, end: Change<'_>) -> Three {
    let root = root("root", root_change);
    let middle = root.authority("middle", middle);
    let end = middle.end("gw.example.org", end);
    Three { root, middle, end }
}

fn trust(anchors: &[&Holder]) -> Trust {
    Trust { anchors: anchors.iter().map(|holder| holder.certificate.clone()).collect(), ..Trust::default() }
}

fn certificates(holders: &[&Holder]) -> Vec<Certificate> {
    holders.iter().map(|holder| holder.certificate.clone()).collect()
}

fn shown(holders: &[&Holder]) -> Shown {
    Shown { certificates: certificates(holders), said: vec![] }
}

fn said(lists: &[Crl]) -> Vec<Said> {
    lists.iter().cloned().map(Said::Crl).collect()
}

impl Three {
    fn verify(&self, now: u64) -> Result<(), BadCertificate> {
        trust(&[&self.root]).verify(&self.end.certificate, &shown(&[&self.middle]), now)
    }
}

fn bad(subject: &str, wrong: Wrong) -> Result<(), BadCertificate> {
    Err(BadCertificate { subject: format!("O=Test, CN={subject}"), wrong })
}

/// A DER object identifier of few octets, with its tag.
fn policies(of: &[&[u8]]) -> CustomExtension {
    let tagged = |tag: u8, inner: Vec<u8>| [vec![tag, inner.len() as u8], inner].concat();
    let each = of.iter().map(|oid| tagged(0x30, tagged(0x06, oid.to_vec())));
    // 2.5.29.32
    CustomExtension::from_oid_content(&[2, 5, 29, 32], tagged(0x30, each.collect::<Vec<_>>().concat()))
}

// RFC 5280 §6.1.3 d, §6.1.4
#[test]
fn a_chain_has_the_policies_that_are_asked_for() {
    // 1.2.3.4, 1.2.3.5 and anyPolicy.
    let (wanted, other, any): (&[u8], &[u8], &[u8]) = (&[0x2a, 3, 4], &[0x2a, 3, 5], &[0x55, 0x1d, 0x20, 0]);
    let policy: const_oid::ObjectIdentifier = "1.2.3.4".parse().unwrap();
    let without = |name| bad(name, Wrong::Policy(policy));
    for (middle, end, inhibits, found) in [
        (vec![wanted], vec![wanted], false, Ok(())),
        (vec![other, wanted], vec![wanted, other], false, Ok(())),
        (vec![any], vec![wanted], false, Ok(())),
        (vec![any], vec![wanted], true, without("middle")),
        // That of an end is not any.
        (vec![wanted], vec![any], false, without("gw.example.org")),
        (vec![wanted], vec![other], false, without("gw.example.org")),
        (vec![other], vec![wanted], false, without("middle")),
        (vec![wanted], vec![], false, without("gw.example.org")),
    ] {
        let has = |of: &[&[u8]]| (!of.is_empty()).then(|| policies(of));
        let three = three(
            AS_IT_IS,
            &|p| {
                p.custom_extensions.extend(has(&middle));
                // inhibitAnyPolicy: 0.
                let inhibit = CustomExtension::from_oid_content(&[2, 5, 29, 54], vec![2, 1, 0]);
                p.custom_extensions.extend(inhibits.then_some(inhibit));
            },
            &|p| p.custom_extensions.extend(has(&end)),
        );
        let trust = Trust { policies: vec![policy], ..trust(&[&three.root]) };
        assert_eq!(
            trust.verify(&three.end.certificate, &shown(&[&three.middle]), NOW),
            found,
            "{middle:?} {end:?}"
        );
    }
}

/// That an end is pinned says neither which policies it has, nor whom it is of.
#[test]
fn what_is_pinned_is_as_is_asked_for_too() {
    let policy: const_oid::ObjectIdentifier = "1.2.3.4".parse().unwrap();
    let without = || bad("gw.example.org", Wrong::Policy(policy));
    for (has, found) in
        [(&[0x2a, 3, 4][..], Ok(())), (&[0x2a, 3, 5], without()), (&[0x55, 0x1d, 0x20, 0], without())]
    {
        let three = three(AS_IT_IS, AS_IT_IS, &|p| p.custom_extensions.push(policies(&[has])));
        let pinned = certificates(&[&three.end]);
        let trust = Trust { pinned, policies: vec![policy], ..Trust::default() };
        assert_eq!(trust.verify(&three.end.certificate, &Shown::default(), NOW), found, "{has:?}");
    }
    let three = three(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    for (wanted, anchors, found) in [
        ("O=Test, CN=middle", vec![&three.root], Ok(())),
        ("O=Test, CN=root", vec![&three.root], Ok(())),
        (
            "O=Test, CN=other",
            vec![&three.root],
            bad("gw.example.org", Wrong::Authority("O=Test, CN=other".into())),
        ),
        ("O=Test, CN=middle", vec![], bad("middle", Wrong::NoIssuer("O=Test, CN=root".into()))),
    ] {
        let authority = Some(wanted.parse().unwrap());
        let trust = Trust { pinned: certificates(&[&three.end]), authority, ..trust(&anchors) };
        assert_eq!(trust.verify(&three.end.certificate, &shown(&[&three.middle]), NOW), found, "{wanted}");
    }
}

/// As strongSwan: no authority helps whom nobody has pinned, and who is pinned must be under an anchor, too, if there is one.
#[test]
fn where_some_are_pinned_others_are_not_believed() {
    let three = three(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    let other = three.middle.end("other.example.org", AS_IT_IS);
    let stranger = root("stranger", AS_IT_IS);
    for anchors in [vec![], vec![&three.root]] {
        let trust = Trust { pinned: certificates(&[&three.end]), ..trust(&anchors) };
        let verify = |end: &Holder| trust.verify(&end.certificate, &shown(&[&three.middle]), NOW);
        assert_eq!(verify(&three.end), Ok(()));
        assert_eq!(verify(&other), bad("other.example.org", Wrong::NotPinned));
    }
    let trust = Trust { pinned: certificates(&[&three.end]), ..trust(&[&stranger]) };
    assert_eq!(
        trust.verify(&three.end.certificate, &shown(&[&three.middle]), NOW),
        bad("middle", Wrong::NoIssuer("O=Test, CN=root".into()))
    );
}

#[test]
fn a_chain_is_under_the_authority_that_is_asked_for() {
    let three = three(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    for (wanted, is_there) in [
        ("O=Test, CN=middle", true),
        ("O=Test, CN=root", true),
        ("O=Test, CN=m*", false),
        ("O=Test, CN=*", true),
        ("%any", true),
        ("O=Test, CN=other", false),
        // It is not itself an authority.
        ("O=Test, CN=gw.example.org", false),
        ("gw.example.org", false),
    ] {
        let wanted: IdPattern = wanted.parse().unwrap();
        let trust = Trust { authority: Some(wanted.clone()), ..trust(&[&three.root]) };
        let found = trust.verify(&three.end.certificate, &shown(&[&three.middle]), NOW);
        let wrong = || bad("gw.example.org", Wrong::Authority(wanted.to_string()));
        assert_eq!(found, if is_there { Ok(()) } else { wrong() }, "{wanted}");
    }
}

#[test]
fn what_is_sent_has_all_authorities_but_the_one_that_signs_itself() {
    let mut holders = vec![root("root", AS_IT_IS)];
    for n in 1..10 {
        holders.push(holders[n - 1].authority(&format!("authority {n}"), AS_IT_IS));
    }
    // Those of the same name are others.
    let other = root("root", AS_IT_IS).authority("authority 1", AS_IT_IS);
    let known: Vec<_> =
        [&other].into_iter().chain(holders.iter().rev()).map(|h| h.certificate.clone()).collect();
    let sent = |end: &Holder, alone: usize| {
        let credential = Credential::new(end.key(), vec![end.certificate.clone()]).unwrap();
        let credential = credential.with_issuers(known[..alone].iter());
        let payloads: Vec<_> = credential.payloads().map(|payload| payload.data).collect();
        payloads.iter().map(|der| Certificate::from_der(der).unwrap()).collect::<Vec<_>>()
    };
    let end = holders[3].end("gw.example.org", AS_IT_IS);
    let chain = certificates(&[&end, &holders[3], &holders[2], &holders[1]]);
    assert_eq!(sent(&end, known.len()), chain);
    // As far as they are known.
    assert_eq!(sent(&end, known.len() - 2), chain[..3]);
    assert_eq!(sent(&end, 0), chain[..1]);
    assert_eq!(sent(&holders[0], known.len()), certificates(&[&holders[0]]));
    // A longer one is believed by nobody.
    assert_eq!(sent(&holders[9].end("gw.example.org", AS_IT_IS), known.len()).len(), 7);
    let shown = Shown { certificates: sent(&end, known.len()), said: vec![] };
    assert_eq!(trust(&[&holders[0]]).verify(&end.certificate, &shown, NOW), Ok(()));
}

#[test]
fn a_chain_is_found_whatever_else_is_there() {
    let three = three(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    assert_eq!(three.verify(NOW), Ok(()));
    // Others of the same names, others of none, and itself.
    let (other, stranger) = (root("root", AS_IT_IS), root("stranger", AS_IT_IS));
    let (wrong, lost) = (other.authority("middle", AS_IT_IS), stranger.authority("lost", AS_IT_IS));
    let others = shown(&[&three.end, &lost, &wrong, &other, &three.root, &three.middle, &stranger]);
    let trusted = trust(&[&stranger, &other, &three.root]);
    assert_eq!(trusted.verify(&three.end.certificate, &others, NOW), Ok(()));
    // The root without the authority between, and the other way.
    let no_issuer = |name| Wrong::NoIssuer(format!("O=Test, CN={name}"));
    assert_eq!(
        trusted.verify(&three.end.certificate, &Shown::default(), NOW),
        bad("gw.example.org", no_issuer("middle"))
    );
    let others = shown(&[&three.middle, &three.root]);
    // What the peer sends is no anchor.
    let found = trust(&[&stranger]).verify(&three.end.certificate, &others, NOW);
    assert_eq!(found, bad("root", Wrong::NoIssuer("O=Test, CN=root".into())));
    // Any authority may be an anchor; and what is pinned needs none.
    assert_eq!(trust(&[&three.middle]).verify(&three.end.certificate, &Shown::default(), NOW), Ok(()));
    let pinned = Trust { pinned: certificates(&[&three.end]), ..Trust::default() };
    assert_eq!(pinned.verify(&three.end.certificate, &Shown::default(), NOW), Ok(()));
    let (from, to) = three.end.certificate.validity();
    assert_eq!(
        pinned.verify(&three.end.certificate, &Shown::default(), to + 1),
        bad("gw.example.org", Wrong::Expired(to))
    );
    assert_eq!(three.verify(from), Ok(()));
    assert_eq!(three.verify(to), Ok(()));
}

#[test]
fn keys_and_signatures_are_as_is_demanded() {
    // All of these have keys of P-256.
    let three = three(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    let demand = |kind, least_bits, hashes: &[Hash]| Demand {
        kind,
        least_bits,
        hashes: hashes.to_vec(),
        is_pss: false,
    };
    let verify = |demands: Vec<Demand>| {
        let trust = Trust { demands: Demands(demands), ..trust(&[&three.root]) };
        trust.verify(&three.end.certificate, &shown(&[&three.middle]), NOW)
    };
    let weak_key = || bad("gw.example.org", Wrong::WeakKey(256));
    for (demands, verified) in [
        (vec![demand(Some(Kind::Ecdsa), 256, &[Hash::Sha256])], Ok(())),
        (vec![demand(None, 0, &[Hash::Sha512, Hash::Sha256])], Ok(())),
        (vec![demand(Some(Kind::Rsa), 2048, &[]), demand(Some(Kind::Ecdsa), 0, &[])], Ok(())),
        (vec![demand(Some(Kind::Ecdsa), 384, &[])], weak_key()),
        (vec![demand(Some(Kind::Rsa), 0, &[])], weak_key()),
        (vec![demand(None, 0, &[Hash::Sha384])], bad("gw.example.org", Wrong::WeakSignature)),
    ] {
        assert_eq!(verify(demands.clone()), verified, "{demands:?}");
    }
    // An authority's, too.
    let root = authority::root_of(
        "root",
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        AS_IT_IS,
    );
    let end = root.end("gw.example.org", AS_IT_IS);
    let demands = Demands(vec![demand(None, 256, &[Hash::Sha256])]);
    let trust = Trust { demands, ..trust(&[&root]) };
    assert_eq!(
        trust.verify(&end.certificate, &Shown::default(), NOW),
        bad("gw.example.org", Wrong::WeakSignature)
    );
    // What is pinned needs no authority, but must be strong.
    let pinned = Trust { pinned: certificates(&[&end]), anchors: vec![], ..trust };
    assert_eq!(pinned.verify(&end.certificate, &Shown::default(), NOW), Ok(()));
    let demands = Demands(vec![demand(None, 512, &[])]);
    assert_eq!(Trust { demands, ..pinned }.verify(&end.certificate, &Shown::default(), NOW), weak_key());
}

#[test]
fn each_thing_that_is_wrong_is_told() {
    const PRIVATE: &[u64] = &[1, 3, 6, 1, 4, 1, 32473, 1];
    let critical = |p: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(PRIVATE, vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions.push(extension);
    };
    let unknown = || Wrong::Critical("1.3.6.1.4.1.32473.1".parse().unwrap());
    let known: Change<'_> = &|p| {
        p.custom_extensions.push(CustomExtension::from_oid_content(PRIVATE, vec![5, 0]));
    };
    let none: Change<'_> = &|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let old: Change<'_> = &|p| p.not_after = at(NOW - 1);
    let new: Change<'_> = &|p| p.not_before = at(NOW + 1);
    let no_authority: Change<'_> = &|p| p.is_ca = IsCa::ExplicitNoCa;
    let no_signer: Change<'_> = &|p| p.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_usage: Change<'_> = &|p| p.key_usages = vec![];
    let encrypts: Change<'_> = &|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let signs: Change<'_> = &|p| p.key_usages = vec![KeyUsagePurpose::ContentCommitment];
    let codes: Change<'_> = &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let serves: Change<'_> = &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (root, middle, end, wrong) in [
        (AS_IT_IS, AS_IT_IS, old, Some(("gw.example.org", Wrong::Expired(NOW - 1)))),
        (AS_IT_IS, old, AS_IT_IS, Some(("middle", Wrong::Expired(NOW - 1)))),
        (old, AS_IT_IS, AS_IT_IS, Some(("root", Wrong::Expired(NOW - 1)))),
        (AS_IT_IS, AS_IT_IS, new, Some(("gw.example.org", Wrong::NotYet(NOW + 1)))),
        (AS_IT_IS, new, AS_IT_IS, Some(("middle", Wrong::NotYet(NOW + 1)))),
        (AS_IT_IS, no_authority, AS_IT_IS, Some(("middle", Wrong::NotAuthority))),
        (no_authority, AS_IT_IS, AS_IT_IS, Some(("root", Wrong::NotAuthority))),
        (none, AS_IT_IS, AS_IT_IS, Some(("root", Wrong::PathLength(0)))),
        (AS_IT_IS, none, AS_IT_IS, None),
        (AS_IT_IS, no_signer, AS_IT_IS, Some(("middle", Wrong::KeyUsage("certificates")))),
        (AS_IT_IS, no_usage, AS_IT_IS, None),
        (AS_IT_IS, AS_IT_IS, encrypts, Some(("gw.example.org", Wrong::KeyUsage("signatures")))),
        (AS_IT_IS, AS_IT_IS, signs, None),
        (AS_IT_IS, AS_IT_IS, codes, Some(("gw.example.org", Wrong::ExtendedKeyUsage))),
        (AS_IT_IS, AS_IT_IS, serves, None),
        (AS_IT_IS, AS_IT_IS, &critical, Some(("gw.example.org", unknown()))),
        (AS_IT_IS, &critical, AS_IT_IS, Some(("middle", unknown()))),
        (&critical, AS_IT_IS, AS_IT_IS, Some(("root", unknown()))),
        (known, known, known, None),
    ] {
        let found = three(root, middle, end).verify(NOW);
        assert_eq!(found, wrong.map_or(Ok(()), |(who, wrong)| bad(who, wrong)));
    }
}

/// Whatever bit is another, it is refused.
#[test]
fn each_bit_of_a_certificate_is_signed() {
    let three = three(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    let (trust, others) = (trust(&[&three.root]), shown(&[&three.middle]));
    let der = three.end.certificate.der();
    for bit in 0..der.len() * 8 {
        let mut changed = der.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(certificate) = Certificate::from_der(&changed) {
            assert!(trust.verify(&certificate, &others, NOW).is_err(), "bit {bit}");
        }
    }
    for len in 0..der.len() {
        assert!(Certificate::from_der(&der[..len]).is_err());
    }
}

#[test]
fn loops_and_crowds_come_to_an_end() {
    let [a, b] = ["a", "b"].map(|name| root(name, AS_IT_IS));
    let (a_of_b, b_of_a) = (b.cross(&a), a.cross(&b));
    let end = a.end("gw.example.org", AS_IT_IS);
    let others = shown(&[&a_of_b, &b_of_a]);
    let stranger = root("stranger", AS_IT_IS);
    let found = trust(&[&stranger]).verify(&end.certificate, &others, NOW).unwrap_err();
    assert!(matches!(found.wrong, Wrong::NoIssuer(_)), "{found}");
    // One of them is trusted: round the loop.
    assert_eq!(trust(&[&b]).verify(&end.certificate, &others, NOW), Ok(()));
    // So many of one name that not all are tried.
    let crowd: Vec<Holder> = (0..40)
        .map(|_| root("a", &|p| p.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1])))
        .collect();
    let end = crowd[39].end("gw.example.org", AS_IT_IS);
    let all: Vec<&Holder> = crowd.iter().collect();
    assert_eq!(trust(&all[35..]).verify(&end.certificate, &Shown::default(), NOW), Ok(()));
    let found = trust(&all).verify(&end.certificate, &Shown::default(), NOW);
    assert_eq!(found, bad("gw.example.org", Wrong::Signature));
    // A chain as long as may be, and a longer one.
    for (long, is_good) in [(6, true), (7, false)] {
        let first = root("0", AS_IT_IS);
        let mut chain = vec![first.clone()];
        for n in 1..=long {
            chain.push(chain[n - 1].authority(&n.to_string(), AS_IT_IS));
        }
        let end = chain[long].end("gw.example.org", AS_IT_IS);
        let others = shown(&chain[1..].iter().collect::<Vec<_>>());
        let found = trust(&[&first]).verify(&end.certificate, &others, NOW);
        assert_eq!(found, if is_good { Ok(()) } else { bad("gw.example.org", Wrong::TooLong) });
    }
}

// RFC 5280 §4.2.1.10
#[test]
fn an_authority_speaks_for_its_names_alone() {
    let dns = |name: &str| GeneralSubtree::DnsName(name.into());
    let mail = |name: &str| GeneralSubtree::Rfc822Name(name.into());
    let net = |a: u8, prefix| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([10, a, 0, 0], prefix));
    let directory = |name: &str| {
        let mut dn = DistinguishedName::new();
        dn.push(DnType::OrganizationName, name);
        GeneralSubtree::DirectoryName(dn)
    };
    let a_mail: Change<'_> =
        &|p| p.subject_alt_names = vec![SanType::Rfc822Name("Carol@mail.example.org".try_into().unwrap())];
    let an_ip: Change<'_> = &|p| p.subject_alt_names = vec![SanType::IpAddress([10, 1, 2, 3].into())];
    let a_uri: Change<'_> = &|p| p.subject_alt_names = vec![SanType::URI("http://a/".try_into().unwrap())];
    let an_email: Change<'_> = &|p| {
        p.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "x@example.com");
    };
    let gw = AS_IT_IS;
    for (permitted, excluded, end, is_good) in [
        (vec![dns("example.org")], vec![], gw, true),
        (vec![dns("GW.example.org")], vec![], gw, true),
        (vec![dns(".example.org")], vec![], gw, true),
        (vec![dns("xample.org")], vec![], gw, false),
        (vec![dns("example.com"), dns("org")], vec![], gw, true),
        (vec![dns("a.gw.example.org")], vec![], gw, false),
        (vec![dns(".gw.example.org")], vec![], gw, false),
        (vec![], vec![dns("example.org")], gw, false),
        (vec![dns("org")], vec![dns("example.org")], gw, false),
        (vec![], vec![dns("example.com")], gw, true),
        (vec![mail("example.com"), net(1, 16)], vec![], gw, true),
        (vec![mail("mail.example.org")], vec![], a_mail, true),
        (vec![mail("example.org")], vec![], a_mail, false),
        (vec![mail(".example.org")], vec![], a_mail, true),
        (vec![mail("carol@mail.example.org")], vec![], a_mail, true),
        (vec![], vec![mail("carol@mail.example.org")], a_mail, false),
        (vec![mail("example.org")], vec![], an_email, false),
        (vec![mail("example.com")], vec![], an_email, true),
        (vec![net(1, 16)], vec![], an_ip, true),
        (vec![net(2, 16)], vec![], an_ip, false),
        (vec![net(2, 8)], vec![], an_ip, true),
        (vec![], vec![net(1, 24)], an_ip, true),
        (vec![directory("Test")], vec![], gw, true),
        (vec![directory("Tes")], vec![], gw, false),
        (vec![], vec![directory("test")], gw, false),
        (vec![dns("example.com")], vec![], a_uri, true),
    ] {
        let constraints = NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded };
        let constrain = |p: &mut CertificateParams| {
            let of = |all: &[GeneralSubtree]| all.to_vec();
            p.name_constraints = Some(NameConstraints {
                permitted_subtrees: of(&constraints.permitted_subtrees),
                excluded_subtrees: of(&constraints.excluded_subtrees),
            });
        };
        let found = three(AS_IT_IS, &constrain, end).verify(NOW);
        let is_name = matches!(&found, Err(BadCertificate { wrong: Wrong::Name(_), .. }));
        assert_eq!((found.is_ok(), is_name), (is_good, !is_good), "{constraints:?} {found:?}");
        // Of what is not below it, it says nothing.
        assert_eq!(three(AS_IT_IS, AS_IT_IS, end).verify(NOW), Ok(()));
    }
}

// RFC 4945 §3.1
#[test]
fn a_certificate_proves_its_names_and_no_others() {
    let end = root("root", AS_IT_IS).end("gw.example.org", &|p| {
        p.subject_alt_names.extend([
            SanType::Rfc822Name("carol@example.org".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 1].into()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::DnsName("*.example.net".try_into().unwrap()),
        ]);
    });
    let id = |text: &str| text.parse::<IdPattern>().unwrap().identity().unwrap();
    for (text, is_its) in [
        ("gw.example.org", true),
        ("GW.EXAMPLE.ORG", true),
        ("example.org", false),
        ("a.gw.example.org", false),
        ("carol@example.org", true),
        ("dave@example.org", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("2001:db8::1", true),
        ("O=Test, CN=gw.example.org", true),
        ("O=test,CN=GW.example.org", true),
        ("CN=gw.example.org", false),
        ("O=Test, CN=gw.example.org, CN=a", false),
        // RFC 4945 §3.1.2.2: there are no wildcards.
        ("a.example.net", false),
        ("keyid:gw.example.org", false),
        ("fqdn:carol@example.org", false),
        ("fqdn:192.0.2.1", false),
    ] {
        assert_eq!(end.certificate.proves(&id(text)), is_its, "{text}");
    }
    assert!(!end.certificate.proves(&Identification::new(IdType::ID_NULL, &[])));
    assert!(!end.certificate.proves(&Identification::new(IdType::ID_IPV4_ADDR, &[192, 0, 2])));
}

// RFC 5280 §6.3.3
#[test]
fn what_was_revoked_is_not_believed() {
    let uri = CrlDistributionPoint { uris: vec!["http://crl.example.org/1".into()] };
    let with_uri = |p: &mut CertificateParams| p.crl_distribution_points = vec![uri.clone()];
    let Three { root, middle, end } = three(AS_IT_IS, AS_IT_IS, &with_uri);
    let Three { middle: stranger, .. } = three(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    let plain = middle.end("plain.example.org", AS_IT_IS);
    let verify = |end: &Holder, crls: &[Crl], revocation| {
        let trust = Trust { said: said(crls), revocation, ..trust(&[&root]) };
        trust.verify(&end.certificate, &shown(&[&middle]), NOW)
    };
    use Revocation::*;
    let unknown = |who| bad(who, Wrong::Unknown);
    let gw = "gw.example.org";
    let good = [root.crl(&[], &|_| {}), middle.crl(&[(&plain, None)], &|_| {})];
    // Nothing is known.
    assert_eq!(verify(&end, &[], Relaxed), Ok(()));
    assert_eq!(verify(&end, &[], IfUri), unknown(gw));
    assert_eq!(verify(&plain, &[], IfUri), Ok(()));
    assert_eq!(verify(&end, &[], Strict), unknown(gw));
    // All is.
    assert_eq!(verify(&end, &good, Strict), Ok(()));
    // Of the end alone.
    assert_eq!(verify(&end, &good[1..], IfUri), Ok(()));
    assert_eq!(verify(&end, &good[1..], Strict), unknown("middle"));
    let revoked = bad("plain.example.org", Wrong::Revoked(Reason::Unspecified));
    assert_eq!(verify(&plain, &good, Relaxed), revoked);
    // An authority is, for a reason.
    let lists = [root.crl(&[(&middle, Some(RevocationReason::KeyCompromise))], &|_| {}), good[1].clone()];
    assert_eq!(verify(&end, &lists, Relaxed), bad("middle", Wrong::Revoked(Reason::KeyCompromise)));
    // A good word of one does not undo the bad word of another.
    let again = [
        good[0].clone(),
        good[1].clone(),
        middle.crl(&[(&end, Some(RevocationReason::CertificateHold))], &|_| {}),
    ];
    for lists in [again.clone(), [again[0].clone(), again[2].clone(), again[1].clone()]] {
        assert_eq!(verify(&end, &lists, Relaxed), bad(gw, Wrong::Revoked(Reason::CertificateHold)));
    }
    let point = |uri: &str, scope| CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint { uris: vec![uri.into()] },
        scope,
    };
    type ChangeList<'a> = &'a dyn Fn(&mut rcgen::CertificateRevocationListParams);
    let revoked = || bad(gw, Wrong::Revoked(Reason::Unspecified));
    let cases: [(ChangeList<'_>, _, _); 7] = [
        // An old one says what is revoked, and not what is not.
        (&|p| (p.this_update, p.next_update) = (at(NOW - 9), at(NOW - 1)), unknown(gw), revoked()),
        (&|p| (p.this_update, p.next_update) = (at(NOW + 1), at(NOW + 9)), unknown(gw), unknown(gw)),
        (
            &|p| p.issuing_distribution_point = Some(point("http://crl.example.org/1", None)),
            Ok(()),
            revoked(),
        ),
        (
            &|p| p.issuing_distribution_point = Some(point("http://crl.example.org/2", None)),
            unknown(gw),
            unknown(gw),
        ),
        (
            &|p| {
                p.issuing_distribution_point =
                    Some(point("http://crl.example.org/1", Some(CrlScope::UserCertsOnly)))
            },
            Ok(()),
            revoked(),
        ),
        (
            &|p| {
                p.issuing_distribution_point =
                    Some(point("http://crl.example.org/1", Some(CrlScope::CaCertsOnly)))
            },
            unknown(gw),
            unknown(gw),
        ),
        (&|_| {}, Ok(()), revoked()),
    ];
    for (change, without, with) in cases {
        assert_eq!(verify(&end, &[middle.crl(&[], change)], IfUri), without);
        assert_eq!(verify(&end, &[middle.crl(&[(&end, None)], change)], IfUri), with);
    }
    // Of another of the same name; and of one that may not.
    assert_eq!(verify(&end, &[stranger.crl(&[(&end, None)], &|_| {})], Strict), unknown(gw));
    let no_lists: Change<'_> = &|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let Three { root, middle, end } = three(AS_IT_IS, no_lists, AS_IT_IS);
    let trust =
        Trust { said: said(&[middle.crl(&[(&end, None)], &|_| {})]), revocation: Strict, ..trust(&[&root]) };
    assert_eq!(trust.verify(&end.certificate, &shown(&[&middle]), NOW), unknown(gw));
}

/// By `cryptography`, whose code is OpenSSL's.
mod of_others {
    use super::*;
    use crate::{
        crypto::vectors,
        pki::{
            crl::BadCrl,
            ocsp::{BadResponse, OcspResponse},
        },
    };

    fn octets(name: &str) -> Vec<u8> {
        let all = vectors::records(include_str!("vectors/paper.txt"));
        all.iter().find(|record| record.text("name") == name).unwrap().octets("der")
    }

    fn certificate(name: &str) -> Certificate {
        Certificate::from_der(&octets(name)).unwrap()
    }

    fn verify(said: Vec<Said>, revocation: Revocation) -> Result<(), BadCertificate> {
        let trust = Trust { anchors: vec![certificate("root")], revocation, ..Trust::default() };
        trust.verify(&certificate("end"), &Shown { certificates: vec![certificate("middle")], said }, NOW)
    }

    fn of_end(wrong: Wrong) -> Result<(), BadCertificate> {
        Err(BadCertificate { subject: "C=DE, O=Beispiel \u{e4}, CN=gw".into(), wrong })
    }

    #[test]
    fn a_chain_of_another_library_is_believed() {
        assert_eq!(verify(vec![], Revocation::Relaxed), Ok(()));
        assert_eq!(verify(vec![], Revocation::IfUri), of_end(Wrong::Unknown));
        let end = certificate("end");
        assert_eq!(end.crl_uris().collect::<Vec<_>>(), ["http://a/crl"]);
        assert_eq!(end.ocsp_uris().collect::<Vec<_>>(), ["http://a/ocsp"]);
        assert_eq!(end.serial(), [0, 0x81, 0x23]);
        assert_eq!(end.issuer().to_string(), "DC=org, CN=Mitte");
        for id in ["gw.example.org", "C=de, O=beispiel \u{c4}, CN=GW"] {
            assert!(end.proves(&id.parse::<IdPattern>().unwrap().identity().unwrap()), "{id}");
        }
    }

    // RFC 6960 §3.2, §4.2.2.2
    #[test]
    fn what_an_authority_answers_is_believed() {
        let revoked = |reason| of_end(Wrong::Revoked(reason));
        let unknown = || of_end(Wrong::Unknown);
        for (name, found) in [
            ("ocsp good", Ok(())),
            ("ocsp good of another", Ok(())),
            ("ocsp good of one who may not", unknown()),
            ("ocsp good of a stranger", unknown()),
            ("ocsp old", unknown()),
            ("ocsp without an end", unknown()),
            ("ocsp to come", unknown()),
            ("ocsp unknown", unknown()),
            ("ocsp revoked", revoked(Reason::Unspecified)),
            ("ocsp revoked for a reason", revoked(Reason::Superseded)),
        ] {
            let response = OcspResponse::from_der(&octets(name)).unwrap();
            assert_eq!(verify(vec![Said::Ocsp(response)], Revocation::IfUri), found, "{name}");
        }
        assert_eq!(OcspResponse::from_der(&octets("ocsp no answer")).unwrap_err(), BadResponse::NoAnswer);
        let (good, end, middle) = (octets("ocsp good"), certificate("end"), certificate("middle"));
        for bit in 0..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let Ok(read) = OcspResponse::from_der(&changed) else { continue };
            // The certificate that comes with it is not signed, and not needed.
            if bit / 8 < good.len() - middle.der().len() {
                assert_eq!(read.status(&end, &middle, NOW), Status::Unknown, "bit {bit}");
            }
        }
    }

    #[test]
    fn what_an_authority_lists_is_believed() {
        for (name, found) in
            [("crl good", Ok(())), ("crl revoked", of_end(Wrong::Revoked(Reason::CessationOfOperation)))]
        {
            let list = Crl::from_der(&octets(name)).unwrap();
            assert_eq!(verify(vec![Said::Crl(list)], Revocation::IfUri), found);
        }
        let why = |name| Crl::from_der(&octets(name)).unwrap_err();
        assert_eq!(why("crl delta"), BadCrl::Critical("2.5.29.27".parse().unwrap()));
        assert_eq!(why("crl indirect"), BadCrl::Partial);
        assert_eq!(why("crl of a reason"), BadCrl::Partial);
    }
}
