//! Messages of another implementation, against what it found in them itself.

use crate::octets;
use portcullis_ike::{
    crypto::transform::{Encryption, Integrity, KeyExchange as Method, Prf},
    message::*,
    proposal::{Order, Proposals},
    traffic_selector::{ConfiguredSelectors, Policy, TrafficSelectors, narrow},
};
use std::collections::HashMap;

/// A packet, and what is said of it by the names in the file.
struct Logged {
    packet: Vec<u8>,
    said: HashMap<&'static str, &'static str>,
}

fn logged() -> Vec<Logged> {
    let mut all: Vec<Logged> = vec![];
    for line in
        include_str!("strongswan.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "packet" => all.push(Logged { packet: octets(value), said: HashMap::new() }),
            _ => assert!(all.last_mut().unwrap().said.insert(name, value).is_none()),
        }
    }
    assert_eq!(all.len(), 17);
    all
}

/// A payload in strongSwan's words.
fn word(payload: &Payload) -> String {
    let notify = |kind| match kind {
        NotifyType::INITIAL_CONTACT => "INIT_CONTACT",
        NotifyType::NAT_DETECTION_SOURCE_IP => "NATD_S_IP",
        NotifyType::NAT_DETECTION_DESTINATION_IP => "NATD_D_IP",
        NotifyType::IKEV2_FRAGMENTATION_SUPPORTED => "FRAG_SUP",
        NotifyType::SIGNATURE_HASH_ALGORITHMS => "HASH_ALG",
        NotifyType::REDIRECT_SUPPORTED => "REDIR_SUP",
        NotifyType::CHILDLESS_IKEV2_SUPPORTED => "CHDLESS_SUP",
        NotifyType::MULTIPLE_AUTH_SUPPORTED => "MULT_AUTH",
        NotifyType::MOBIKE_SUPPORTED => "MOBIKE_SUP",
        NotifyType::ADDITIONAL_IP6_ADDRESS => "ADD_6_ADDR",
        NotifyType::EAP_ONLY_AUTHENTICATION => "EAP_ONLY",
        NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED => "MSG_ID_SYN_SUP",
        NotifyType::REKEY_SA => "REKEY_SA",
        other => panic!("{other}"),
    };
    let attribute = |attribute: &ConfigurationAttribute| match attribute.kind {
        ConfigurationAttributeType::INTERNAL_IP4_ADDRESS => "ADDR",
        ConfigurationAttributeType::INTERNAL_IP6_ADDRESS => "ADDR6",
        ConfigurationAttributeType::INTERNAL_IP4_DNS => "DNS",
        other => panic!("{other}"),
    };
    match payload {
        Payload::IdInitiator(_) => "IDi".to_owned(),
        Payload::IdResponder(_) => "IDr".to_owned(),
        Payload::Nonce(_) => "No".to_owned(),
        Payload::TsInitiator(_) => "TSi".to_owned(),
        Payload::TsResponder(_) => "TSr".to_owned(),
        Payload::Notify(n) => format!("N({})", notify(n.kind)),
        Payload::Configuration(cp) => {
            let attributes: Vec<_> = cp.attributes.iter().map(attribute).collect();
            let kind = if cp.kind == ConfigurationType::CFG_REQUEST { "RQ" } else { "RP" };
            format!("CP{kind}({})", attributes.join(" "))
        }
        other => other.kind().to_string(),
    }
}

/// Proposals in strongSwan's words.
fn proposals(payload: &Payload) -> Option<String> {
    let Payload::SecurityAssociation(proposals) = payload else { return None };
    let order = [
        TransformType::ENCR,
        TransformType::INTEG,
        TransformType::PRF,
        TransformType::KE,
        TransformType::ESN,
    ];
    let place = |transform: &Transform| order.iter().position(|kind| *kind == transform.kind).unwrap();
    // By what we take a number for, so that its number is strongSwan's.
    let transform = |transform: &Transform| match transform.kind {
        TransformType::ENCR => match Encryption::from_id(transform.id, transform.key_length()).unwrap() {
            Encryption::AesCbc128 => "AES_CBC_128",
            Encryption::AesGcm128 => "AES_GCM_16_128",
            Encryption::AesGcm256 => "AES_GCM_16_256",
            other => panic!("{other:?}"),
        },
        TransformType::INTEG => match Integrity::from_id(transform.id).unwrap() {
            Integrity::HmacSha256 => "HMAC_SHA2_256_128",
            other => panic!("{other:?}"),
        },
        TransformType::PRF => match Prf::from_id(transform.id).unwrap() {
            Prf::HmacSha256 => "PRF_HMAC_SHA2_256",
            Prf::HmacSha384 => "PRF_HMAC_SHA2_384",
            other => panic!("{other:?}"),
        },
        TransformType::KE => match Method::from_id(transform.id).unwrap() {
            Method::Modp2048 => "MODP_2048",
            Method::Ecp256 => "ECP_256",
            Method::X25519 => "CURVE_25519",
            other => panic!("{other:?}"),
        },
        TransformType::ESN if transform.id == 0 => "NO_EXT_SEQ",
        _ => panic!("{transform:?}"),
    };
    let proposal = |proposal: &Proposal| {
        let mut transforms: Vec<_> = proposal.transforms.iter().collect();
        transforms.sort_by_key(|transform| place(transform));
        let names: Vec<_> = transforms.into_iter().map(transform).collect();
        format!("{}:{}", proposal.protocol, names.join("/"))
    };
    Some(proposals.iter().map(proposal).collect::<Vec<_>>().join(", "))
}

/// The payloads are those that strongSwan says.
fn check(header: &Header, payloads: &Payloads, said: &HashMap<&str, &str>) {
    let kind = if header.flags.contains(Flags::RESPONSE) { "response" } else { "request" };
    let words: Vec<_> = payloads.0.iter().map(word).collect();
    let text = format!("{} {kind} {}: {}", header.exchange, header.message_id, words.join(" "));
    assert_eq!(text.trim_end(), said["payloads"].trim_end());
    assert_eq!(payloads.0.iter().find_map(proposals).as_deref(), said.get("proposals").copied());
}

#[test]
fn all_is_read_and_emitted_as_it_was() {
    let (mut whole, mut v1) = (0, 0);
    let mut fragments = vec![];
    for Logged { packet, said } in logged() {
        let (header, first, body) = Header::parse(&packet).unwrap();
        assert_eq!(body.len(), packet.len() - 28);
        if header.version == Version::V1 {
            // RFC 2408 §3.1: the header is IKEv1's, too.
            assert_eq!(header.exchange, ExchangeType::IDENTITY_PROTECTION);
            let is_sealed = header.flags.contains(Flags::ENCRYPTION);
            assert_eq!(first, if is_sealed { PayloadType(5) } else { PayloadType(1) }); // ID, SA
            assert!(Message::parse(&packet).is_err());
            v1 += 1;
            continue;
        }
        let message = Message::parse(&packet).unwrap();
        assert_eq!(message.emit().unwrap(), packet);
        let Some(sealed) = message.sealed else {
            check(&header, &message.payloads, &said);
            whole += 1;
            continue;
        };
        // RFC 5282 §5.1, RFC 7383 §2.5: strongSwan knows the AAD, also where it has a MAC take more.
        let part = |name| octets(said[name]);
        let (iv, mut plain, padding, icv) = (part("IV"), part("plain"), part("padding"), part("ICV"));
        assert_eq!(sealed.headers(&packet), part("assoc"));
        assert_eq!((&sealed.body[..iv.len()], sealed.body.ends_with(&icv)), (&iv[..], true));
        assert_eq!(sealed.body.len(), iv.len() + plain.len() + padding.len() + icv.len());
        let mut first = sealed.first;
        if let Some(fragment) = sealed.fragment {
            // RFC 7383 §2.5: the first has the type of the first payload, the others none.
            assert_eq!(first == PayloadType::NONE, fragment.number() > 1);
            fragments.push((sealed.first, plain));
            if fragment.number() < fragment.total() {
                continue;
            }
            first = fragments[0].0;
            plain = fragments.drain(..).flat_map(|(_, plain)| plain).collect();
        }
        let payloads = Payloads::parse(first, &plain).unwrap();
        check(&header, &payloads, &said);
        assert_eq!(payloads.emit().unwrap(), (first, plain.clone()));
        for len in 0..plain.len() {
            assert!(Payloads::parse(first, &plain[..len]).is_err(), "cut to {len}");
        }
        whole += 1;
    }
    assert_eq!((whole, v1), (13, 2));
}

/// The payloads of a message, decrypted if they must be.
fn opened(logged: &Logged) -> Vec<Payload> {
    let message = Message::parse(&logged.packet).unwrap();
    match message.sealed {
        Some(sealed) => Payloads::parse(sealed.first, &octets(logged.said["plain"])).unwrap().0,
        None => message.payloads.0,
    }
}

fn proposed(payloads: &[Payload]) -> &[Proposal] {
    payloads
        .iter()
        .find_map(|p| if let Payload::SecurityAssociation(all) = p { Some(all) } else { None })
        .unwrap()
}

/// With the same strings, we offer what strongSwan has offered, and choose what it has chosen.
// RFC 7296 §2.7, §3.3
#[test]
fn proposals_are_agreed_on_as_by_strongswan() {
    let logged = logged();
    let ike =
        Proposals::ike(["aes128-sha256-x25519", "aes256gcm16-prfsha384-ecp256", "aes128-sha256-modp2048"])
            .unwrap();
    let esp = Proposals::esp(["aes128gcm16-x25519", "aes128gcm16", "aes128-sha256"]).unwrap();
    let in_order = |proposals: &[Proposal]| {
        let mut proposals = proposals.to_vec();
        proposals.iter_mut().for_each(|p| p.transforms.sort_by_key(|t| t.kind));
        proposals
    };
    let mut compared = 0;
    for (ours, request, response) in [(ike, 0, 1), (esp.without_key_exchange(), 2, 3), (esp, 6, 7)] {
        let (request, response) = (opened(&logged[request]), opened(&logged[response]));
        let (offered, chosen) = (proposed(&request), proposed(&response));
        assert_eq!(in_order(&ours.offer(&offered[0].spi)), in_order(offered));
        for order in [Order::Ours, Order::Theirs] {
            let agreement = ours.select(offered, order).unwrap();
            assert_eq!(in_order(&[agreement.answer(&chosen[0].spi)]), in_order(chosen));
        }
        let agreement = ours.accept(chosen).unwrap();
        let key_exchange =
            |p: &Payload| if let Payload::KeyExchange(ke) = p { Some(ke.method) } else { None };
        let sent = request.iter().find_map(key_exchange);
        assert_eq!(
            (sent, agreement.check_key_exchange(sent)),
            (agreement.key_exchange().map(|m| m.id()), Ok(()))
        );
        compared += 1;
    }
    assert_eq!(compared, 3);
}

// RFC 7296 §2.9
#[test]
fn traffic_selectors_are_agreed_on_as_by_strongswan() {
    let logged = logged();
    let selectors = |payloads: &[Payload]| {
        let tsi = payloads
            .iter()
            .find_map(|p| if let Payload::TsInitiator(ts) = p { Some(ts.clone()) } else { None });
        let tsr = payloads
            .iter()
            .find_map(|p| if let Payload::TsResponder(ts) = p { Some(ts.clone()) } else { None });
        (tsi.unwrap(), tsr.unwrap())
    };
    let ((tsi, tsr), answer) = (selectors(&opened(&logged[2])), selectors(&opened(&logged[3])));
    let side = |texts: [&'static str; 2]| ConfiguredSelectors::parse(texts).unwrap().with(&[]);
    let initiator = Policy {
        local: side(["10.99.1.0/24", "fd99:1::/64"]),
        remote: side(["10.99.2.0/24", "fd99:2::/64"]),
    };
    assert_eq!((initiator.local.emit(), initiator.remote.emit()), (tsi.clone(), tsr.clone()));
    let responder = Policy { local: initiator.remote.clone(), remote: initiator.local.clone() };
    let narrowed =
        narrow(&[responder], &TrafficSelectors::parse(&tsi), &TrafficSelectors::parse(&tsr)).unwrap();
    assert_eq!((narrowed.accepted.remote.emit(), narrowed.accepted.local.emit()), answer);
    assert_eq!(initiator.accept(&answer.0, &answer.1), Some(initiator));
}

#[test]
fn values_are_those_of_the_configuration() {
    let logged = logged();
    let open = |at: usize| opened(&logged[at]);
    let request = open(2);
    let id = |name: &[u8]| Identification::new(IdType::ID_FQDN, name);
    assert_eq!(request[0], Payload::IdInitiator(id(b"a.test")));
    assert_eq!(request[2], Payload::IdResponder(id(b"b.test")));
    let Payload::Authentication(auth) = &request[3] else { panic!("{request:?}") };
    assert_eq!((auth.method, auth.data.len()), (AuthMethod::SHARED_KEY, 32));
    let range = |addresses| TrafficSelector::Range(TsRange { protocol: 0, ports: 0..=u16::MAX, addresses });
    let net = |number: u8| {
        let v4 = Addresses::V4([10, 99, number, 0].into()..=[10, 99, number, 255].into());
        let v6 = |last: [u16; 4]| [0xfd99, number.into(), 0, 0, last[0], last[1], last[2], last[3]].into();
        vec![range(v4), range(Addresses::V6(v6([0; 4])..=v6([0xffff; 4])))]
    };
    assert_eq!(request[6..8], [Payload::TsInitiator(net(1)), Payload::TsResponder(net(2))]);
    let Payload::Configuration(reply) = &open(3)[2] else { panic!() };
    let ip4 = ConfigurationAttributeType::INTERNAL_IP4_ADDRESS;
    assert_eq!(reply.attributes[0], ConfigurationAttribute { kind: ip4, value: vec![10, 99, 3, 1] });
    let Payload::Notify(rekey) = &open(6)[0] else { panic!() };
    assert_eq!((rekey.protocol, rekey.kind, rekey.spi.len()), (Protocol::ESP, NotifyType::REKEY_SA, 4));
    let Payload::Delete(children) = &open(8)[0] else { panic!() };
    // The SA that was rekeyed is the one that is deleted behind it.
    let spis: Vec<_> = children.spis().flat_map(u32::to_be_bytes).collect();
    assert_eq!(spis, rekey.spi);
    assert_eq!(open(9), [Payload::Delete(Delete::IKE_SA)]);
}
