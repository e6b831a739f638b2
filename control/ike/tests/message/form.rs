//! Each payload, its octets put down by hand after the figures of the RFCs.

use crate::octets;
use portcullis_ike::message::*;
use std::net::Ipv4Addr;

/// A payload and its octets behind the generic header.
fn is(payload: Payload, body: &str) {
    let body = octets(body);
    let mut chain = vec![0, 0, 0, 4 + body.len() as u8];
    chain.extend(&body);
    let kind = payload.kind();
    let payloads = Payloads(vec![payload]);
    assert_eq!(payloads.emit().unwrap(), (kind, chain.clone()));
    assert_eq!(Payloads::parse(kind, &chain), Ok(payloads.clone()));
    // RFC 7296 §3.2: the critical bit of a known payload, and what is reserved, is ignored.
    chain[1] = 0xff;
    match Payloads::parse(kind, &chain).unwrap().0.remove(0) {
        Payload::Unknown { critical, .. } => assert!(critical),
        known => assert_eq!(known, payloads.0[0]),
    }
}

#[test]
fn sa() {
    // RFC 7296 §3.3.1 to §3.3.5
    let ike = Proposal {
        number: 1,
        protocol: Protocol::IKE,
        spi: vec![],
        transforms: vec![
            Transform::with_key_length(TransformType::ENCR, 20, 256),
            Transform::new(TransformType::PRF, 5),
            Transform::new(TransformType::KE, 31),
            Transform::new(TransformType::ADDKE1, 36), // RFC 9370 §2.2.2
        ],
    };
    let esp = Proposal {
        number: 2,
        protocol: Protocol::ESP,
        spi: vec![0xc0, 0xff, 0xee, 1],
        transforms: vec![Transform::new(TransformType::ESN, 1)],
    };
    assert_eq!(ike.transforms[0].key_length(), Some(256));
    assert_eq!(ike.transforms[1].key_length(), None);
    let chosen = Payload::SecurityAssociation(vec![ike, esp]);
    is(
        chosen,
        "02 00 002c 01 01 00 04
           03 00 000c 01 00 0014 800e 0100
           03 00 0008 02 00 0005
           03 00 0008 04 00 001f
           00 00 0008 06 00 0024
         00 00 0014 02 03 04 01 c0ffee01
           00 00 0008 05 00 0001",
    );
}

#[test]
fn attributes_of_both_formats() {
    let attribute = |kind, value| Attribute { kind: AttributeType(kind), value };
    let transform = Transform {
        kind: TransformType(241),
        id: 1024,
        attributes: vec![
            attribute(1, AttributeValue::Long(vec![1, 2, 3])),
            attribute(0x7fff, AttributeValue::Short(0xffff)),
            attribute(14, AttributeValue::Long(vec![])), // the key's length is never so
        ],
    };
    assert_eq!(transform.key_length(), None);
    let proposal =
        Proposal { number: 255, protocol: Protocol(200), spi: vec![], transforms: vec![transform] };
    is(
        Payload::SecurityAssociation(vec![proposal]),
        "00 00 001f ff c8 00 01  00 00 0017 f1 00 0400  0001 0003 010203  ffff ffff  000e 0000",
    );
}

#[test]
fn ke_and_nonce() {
    // RFC 7296 §3.4, §3.9
    is(Payload::KeyExchange(KeyExchange { method: 31, data: vec![7; 3] }), "001f 0000 070707");
    is(Payload::Nonce(vec![9; 16]), &"09".repeat(16));
}

#[test]
fn id() {
    // RFC 7296 §3.5
    let id = Identification::new(IdType::ID_FQDN, b"a.test");
    let body = "02 000000 612e74657374";
    assert_eq!(id.body(), octets(body));
    is(Payload::IdInitiator(id.clone()), body);
    is(Payload::IdResponder(id), body);
    is(Payload::IdInitiator(Identification::new(IdType::ID_NULL, &[])), "0d 000000");
    // RFC 7296 §2.15: AUTH is over what is reserved, too.
    let odd = Identification { reserved: [1, 2, 3], ..Identification::new(IdType::ID_KEY_ID, &[9]) };
    assert_eq!(odd.body(), [11, 1, 2, 3, 9]);
    is(Payload::IdResponder(odd), "0b 010203 09");
}

#[test]
fn cert_and_certreq() {
    // RFC 7296 §3.6, §3.7
    let encoding = CertificateEncoding::X509_SIGNATURE;
    is(Payload::Certificate(Certificate { encoding, data: vec![0x30, 0] }), "04 3000");
    let request = CertificateRequest { encoding, authority: [[1; 20], [2; 20]].concat() };
    assert!(request.authorities().eq(&[[1; 20], [2; 20]]));
    is(Payload::CertificateRequest(request), &("04".to_owned() + &"01".repeat(20) + &"02".repeat(20)));
}

#[test]
fn auth() {
    // RFC 7296 §3.8
    let mac = Authentication { method: AuthMethod::SHARED_KEY, data: vec![5; 4] };
    assert_eq!(mac.algorithm_and_signature(), None);
    is(Payload::Authentication(mac), "02 000000 05050505");
    // RFC 7427 §3, with sha256WithRSAEncryption of §A.1.2
    let algorithm = octets("300d 0609 2a864886f70d01010b 0500");
    let signature = Authentication::digital_signature(&algorithm, &[1, 2]).unwrap();
    assert_eq!(signature.algorithm_and_signature(), Some((&algorithm[..], &[1, 2][..])));
    is(Payload::Authentication(signature), "0e 000000 0f 300d06092a864886f70d01010b0500 0102");
    for data in [vec![], vec![1]] {
        let short = Authentication { method: AuthMethod::DIGITAL_SIGNATURE, data };
        assert_eq!(short.algorithm_and_signature(), None);
    }
}

#[test]
fn notify() {
    // RFC 7296 §3.10
    is(Payload::Notify(Notify::new(NotifyType::COOKIE, &[1, 2, 3])), "00 00 4006 010203");
    let rekey =
        Notify { protocol: Protocol::ESP, spi: vec![1, 2, 3, 4], kind: NotifyType::REKEY_SA, data: vec![] };
    is(Payload::Notify(rekey), "03 04 4009 01020304");
    is(Payload::Notify(Notify::new(NotifyType(40960), &[])), "00 00 a000");
    assert!(NotifyType::TS_MAX_QUEUE.is_error() && NotifyType(16383).is_error());
    assert!(!NotifyType::INITIAL_CONTACT.is_error());
    assert_eq!(NotifyType::TS_UNACCEPTABLE.to_string(), "TS_UNACCEPTABLE");
    assert_eq!(NotifyType(9999).to_string(), "9999");
}

#[test]
fn delete() {
    // RFC 7296 §3.11
    is(Payload::Delete(Delete::IKE_SA), "01 00 0000");
    let children = Delete::child_sas(Protocol::ESP, &[1, 0xfedc_ba98]).unwrap();
    assert_eq!(children.protocol(), Protocol::ESP);
    assert!(children.spis().eq([1, 0xfedc_ba98]));
    is(Payload::Delete(children), "03 04 0002 00000001 fedcba98");
    is(Payload::Delete(Delete::child_sas(Protocol::AH, &[]).unwrap()), "02 04 0000");
    for other in [Protocol::NONE, Protocol::IKE, Protocol(4)] {
        assert_eq!(Delete::child_sas(other, &[1]), None);
    }
    // Of protocols that are not known, SPIs have any size and are none of SAs.
    for (hex, count) in [
        ("00000014 06 0c 0001 0102030405060708090a0b0c", 0),
        ("00000008 c8 00 ffff", 0),
        ("00000010 c8 04 0002 00000001 00000002", 0),
        ("00000010 02 04 0002 00000001 00000002", 2),
    ] {
        let payloads = Payloads::parse(PayloadType::D, &octets(hex)).unwrap();
        let Payload::Delete(delete) = &payloads.0[0] else { panic!("{payloads:?}") };
        assert_eq!(delete.spis().count(), count);
        assert_eq!(payloads.emit().unwrap().1, octets(hex));
    }
}

#[test]
fn vendor_id_eap_puzzle_and_unknown() {
    // RFC 7296 §3.12, §3.16; RFC 8019 §8.2
    is(Payload::VendorId(b"x".to_vec()), "78");
    is(Payload::Eap(octets("01 02 0005 01")), "01 02 0005 01");
    is(Payload::PuzzleSolution(vec![]), "");
    // RFC 7296 §2.5: what is unknown is told, critical or not, wherever it is.
    let unknown = |critical| Payload::Unknown { kind: PayloadType(200), critical, body: vec![1] };
    let payloads = Payloads(vec![unknown(true), Payload::VendorId(vec![]), unknown(false)]);
    let hex = "2b 80 0005 01  c8 00 0004  00 00 0005 01";
    assert_eq!(payloads.emit().unwrap(), (PayloadType(200), octets(hex)));
    assert_eq!(Payloads::parse(PayloadType(200), &octets(hex)), Ok(payloads));
}

#[test]
fn ts() {
    // RFC 7296 §3.13, §3.13.1
    let v4 = |first: u32, last: u32| Addresses::V4(Ipv4Addr::from(first)..=Ipv4Addr::from(last));
    let any = TsRange { protocol: 0, ports: 0..=u16::MAX, addresses: v4(0x0a63_0100, 0x0a63_01ff) };
    #[allow(clippy::reversed_empty_ranges, reason = "OPAQUE")]
    let opaque = TsRange {
        protocol: 6,
        ports: 65535..=0,
        addresses: Addresses::V6("fd99::".parse().unwrap()..="fd99::ffff".parse().unwrap()),
    };
    let label = TrafficSelector::Unknown { kind: TsType::TS_SECLABEL, octet: 0, data: vec![1, 2, 3] }; // RFC 9478 §2
    assert_eq!(any.addresses.bounds(), ([10, 99, 1, 0].into(), [10, 99, 1, 255].into()));
    let selectors = vec![TrafficSelector::Range(any), TrafficSelector::Range(opaque), label];
    let body = "03 000000
        07 00 0010 0000 ffff 0a630100 0a6301ff
        08 06 0028 ffff 0000 fd990000000000000000000000000000 fd99000000000000000000000000ffff
        0a 00 0007 010203";
    is(Payload::TsInitiator(selectors.clone()), body);
    is(Payload::TsResponder(selectors), body);
    is(Payload::TsInitiator(vec![]), "00 000000");
}

#[test]
fn cp() {
    // RFC 7296 §3.15, §3.15.1
    let attribute = |kind, value: &[u8]| ConfigurationAttribute { kind, value: value.to_vec() };
    let configuration = Configuration {
        kind: ConfigurationType::CFG_REPLY,
        attributes: vec![
            attribute(ConfigurationAttributeType::INTERNAL_IP4_ADDRESS, &[10, 99, 3, 1]),
            attribute(ConfigurationAttributeType::INTERNAL_DNS_DOMAIN, b"a.b"),
            attribute(ConfigurationAttributeType(0x7fff), &[]),
        ],
    };
    is(Payload::Configuration(configuration), "02 000000  0001 0004 0a630301  0019 0003 612e62  7fff 0000");
}

/// A message of octets: a header, and what is behind it.
fn message(first: &str, body: &str) -> Vec<u8> {
    let body = octets(body);
    let mut message = octets(&format!(
        "0102030405060708 1112131415161718 {first} 20 23 08 00000001 {:08x}",
        28 + body.len()
    ));
    message.extend(body);
    message
}

#[test]
fn header() {
    // RFC 7296 §3.1
    let octets = message("00", "");
    let message = Message::parse(&octets).unwrap();
    let header = Header {
        initiator_spi: IkeSpi(0x0102_0304_0506_0708),
        responder_spi: IkeSpi(0x1112_1314_1516_1718),
        version: Version::V2,
        exchange: ExchangeType::IKE_AUTH,
        flags: Flags::INITIATOR,
        message_id: 1,
    };
    assert_eq!(message, Message { header, payloads: Payloads::default(), sealed: None });
    assert_eq!(message.emit().unwrap(), octets);
    assert_eq!(message.header.initiator_spi.to_string(), "0102030405060708");
    // RFC 7296 §2.5: the minor version is ignored, and flags that are not known.
    let mut later = octets;
    (later[17], later[19]) = (0x2f, 0xff);
    let later = Message::parse(&later).unwrap();
    assert_eq!(later.header.version, Version { major: 2, minor: 15 });
    let both = Flags::RESPONSE | Flags::INITIATOR;
    assert!(later.header.flags.contains(both) && !message.header.flags.contains(both));
}

#[test]
fn sk() {
    // RFC 7296 §3.14: behind payloads in clear; Next Payload is of what is inside.
    let octets = message("2b", "2e 00 0005 56  23 00 0016 0101010101010101 0202 0303030303030303");
    let message = Message::parse(&octets).unwrap();
    let sealed = message.sealed.as_ref().unwrap();
    assert_eq!((sealed.kind(), sealed.first, sealed.fragment), (PayloadType::SK, PayloadType::IDI, None));
    assert_eq!(message.payloads.0, [Payload::VendorId(vec![0x56])]);
    assert_eq!(message.emit().unwrap(), octets);
    // RFC 5282 §5.1
    assert_eq!(sealed.headers(&octets), &octets[..37]);
    // To be sealed, the same message has room, and lengths that count it.
    let sealed = Sealed::room(PayloadType::IDI, None, sealed.body.len());
    let seal = |headers: &[u8]| {
        assert_eq!(headers, &octets[..37]);
        octets[37..].to_vec()
    };
    assert_eq!(Message { sealed: Some(sealed), ..message.clone() }.emit_sealed(seal).unwrap(), octets);
}

#[test]
fn skf() {
    // RFC 7383 §2.5: AAD has the fragment's numbers.
    let octets = message("35", "00 00 0012 0002 0003 0101010101010101 02 03");
    let message = Message::parse(&octets).unwrap();
    let sealed = message.sealed.as_ref().unwrap();
    assert_eq!((sealed.kind(), sealed.first), (PayloadType::SKF, PayloadType::NONE));
    let fragment = sealed.fragment.unwrap();
    assert_eq!((fragment.number(), fragment.total()), (2, 3));
    assert_eq!(sealed.headers(&octets), &octets[..36]);
    assert_eq!(message.emit().unwrap(), octets);
}

#[test]
fn what_its_field_cannot_say_has_no_octets() {
    let refused = |payload, field| assert_eq!(Payloads(vec![payload]).emit(), Err(Oversized { field }));
    let notify = |spi, data| {
        Payload::Notify(Notify {
            protocol: Protocol::ESP,
            spi: vec![0; spi],
            kind: NotifyType::COOKIE,
            data: vec![0; data],
        })
    };
    refused(notify(256, 0), "SPI Size");
    refused(notify(0, 65528), "Payload Length");
    assert!(Payloads(vec![notify(255, 65527 - 255)]).emit().is_ok());
    let sa = |spi, transforms, attribute| {
        let value = AttributeValue::Long(vec![0; attribute]);
        let attributes = vec![Attribute { kind: AttributeType(1), value }];
        let transform = Transform { kind: TransformType::ENCR, id: 1, attributes };
        let transforms = vec![transform; transforms];
        Payload::SecurityAssociation(vec![Proposal {
            number: 1,
            protocol: Protocol::IKE,
            spi: vec![0; spi],
            transforms,
        }])
    };
    refused(sa(256, 1, 0), "SPI Size");
    refused(sa(0, 256, 0), "Num Transforms");
    refused(sa(0, 1, 65536), "Attribute Length");
    refused(sa(0, 1, 65530), "Transform Length");
    refused(sa(0, 2, 40000), "Proposal Length");
    refused(
        Payload::TsInitiator(vec![TrafficSelector::Unknown { kind: TsType(9), octet: 0, data: vec![] }; 256]),
        "Number of TSs",
    );
    refused(
        Payload::TsInitiator(vec![TrafficSelector::Unknown {
            kind: TsType(9),
            octet: 0,
            data: vec![0; 65532],
        }]),
        "Selector Length",
    );
    let attribute = ConfigurationAttribute {
        kind: ConfigurationAttributeType::APPLICATION_VERSION,
        value: vec![0; 65536],
    };
    refused(
        Payload::Configuration(Configuration {
            kind: ConfigurationType::CFG_SET,
            attributes: vec![attribute],
        }),
        "Length",
    );
    assert_eq!(Authentication::digital_signature(&[0; 256], &[]), Err(Oversized { field: "ASN.1 Length" }));
    assert_eq!(Delete::child_sas(Protocol::AH, &[0; 65536]), None);
    let sealed = Sealed { first: PayloadType::NONE, fragment: Fragment::new(1, 1), body: vec![0; 65528] };
    let header = Message::parse(&message("00", "")).unwrap().header;
    let message = Message { header, payloads: Payloads::default(), sealed: Some(sealed) };
    assert_eq!(message.emit(), Err(Oversized { field: "Payload Length" }));
}

#[test]
fn values_are_a_small_multiple_of_the_octets() {
    assert!(size_of::<Payload>() <= 56);
    assert!(size_of::<Proposal>() <= 56 && size_of::<Transform>() <= 32 && size_of::<Attribute>() <= 32);
    assert!(size_of::<TrafficSelector>() <= 48 && size_of::<ConfigurationAttribute>() <= 32);
}
