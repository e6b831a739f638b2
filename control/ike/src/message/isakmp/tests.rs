use super::*;
use crate::message::{
    AttributeType, AttributeValue, CertificateEncoding, ConfigurationAttribute, ConfigurationAttributeType,
    ExchangeType, IdType, IkeSpi, Protocol,
};
use proptest::{collection::vec, prelude::*, sample::select};

fn data() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value =
        prop_oneof![any::<u16>().prop_map(AttributeValue::Short), data().prop_map(AttributeValue::Long)];
    (0..0x8000u16, value).prop_map(|(kind, value)| Attribute { kind: AttributeType(kind), value })
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u8>(), vec(attribute(), 0..4)).prop_map(|(number, id, attributes)| Transform {
        number,
        id,
        attributes,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..=255), vec(transform(), 0..5)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: Protocol(protocol),
            spi,
            transforms,
        },
    )
}

fn identification() -> impl Strategy<Value = Identification> {
    (any::<u8>(), any::<[u8; 3]>(), data()).prop_map(|(kind, reserved, data)| Identification {
        kind: IdType(kind),
        reserved,
        data,
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    let protocol = select(vec![Protocol::ESP, Protocol::AH]);
    let children =
        (protocol, vec(any::<u32>(), 1..9)).prop_map(|(protocol, spis)| Delete::child_sas(protocol, &spis));
    let ike = any::<[u64; 2]>().prop_map(|[i, r]| Delete::ike_sa(IkeSpi(i), IkeSpi(r)));
    prop_oneof![children, ike]
}

fn payload() -> impl Strategy<Value = Payload> {
    let notify = (any::<u8>(), vec(any::<u8>(), 0..=255), any::<u16>(), data()).prop_map(
        |(protocol, spi, kind, data)| {
            Payload::Notify(Notify { protocol: Protocol(protocol), spi, kind: NotifyType(kind), data })
        },
    );
    let attributes =
        (any::<u8>(), any::<u16>(), vec(attribute(), 0..4)).prop_map(|(kind, identifier, all)| {
            Payload::Attributes(Attributes { kind: AttributesType(kind), identifier, all })
        });
    let fragment = (any::<u16>(), 1..=255u8, any::<bool>(), data())
        .prop_map(|(id, number, is_last, data)| Payload::Fragment(Fragment { id, number, is_last, data }));
    let unknown = (select(vec![2u8, 3, 15, 22, 99, 255]), data())
        .prop_map(|(kind, body)| Payload::Unknown(PayloadType(kind), body));
    let encoded = || (any::<u8>(), data());
    prop_oneof![
        vec(proposal(), 0..3)
            .prop_map(|proposals| Payload::SecurityAssociation(SecurityAssociation { proposals })),
        data().prop_map(Payload::KeyExchange),
        identification().prop_map(Payload::Identification),
        encoded().prop_map(|(encoding, data)| Payload::Certificate(Certificate {
            encoding: CertificateEncoding(encoding),
            data
        })),
        encoded().prop_map(|(encoding, authority)| Payload::CertificateRequest(CertificateRequest {
            encoding: CertificateEncoding(encoding),
            authority
        })),
        data().prop_map(Payload::Hash),
        data().prop_map(Payload::Signature),
        vec(any::<u8>(), 8..=256).prop_map(Payload::Nonce),
        notify,
        delete().prop_map(Payload::Delete),
        data().prop_map(Payload::VendorId),
        attributes,
        (data(), any::<bool>()).prop_map(|(hash, draft)| Payload::NatDetection(hash, draft)),
        (identification(), any::<bool>()).prop_map(|(id, draft)| Payload::NatOriginal(id, draft)),
        fragment,
        unknown,
    ]
}

proptest! {
    #[test]
    fn payloads_are_what_they_were(payloads in vec(payload(), 0..6), zeroes in 0..16usize) {
        let (first, mut octets) = emit(&payloads).unwrap();
        let chain = Chain::parse(first, &octets, false).unwrap();
        prop_assert_eq!(&chain.payloads, &payloads);
        for (payload, at) in payloads.iter().zip(&chain.bodies) {
            prop_assert_eq!(&body(payload).unwrap(), &octets[at.clone()]);
        }
        let behind = emit(payloads.get(1..).unwrap_or_default()).unwrap().1;
        prop_assert_eq!(chain.behind_first(&octets), &behind);
        let len = octets.len();
        octets.resize(len + zeroes, 0);
        prop_assert_eq!(Chain::parse(first, &octets, true).unwrap().payloads, payloads);
        prop_assert_eq!(Chain::parse(first, &octets, false).is_ok(), zeroes == 0);
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_read_or_refused(
        payloads in vec(payload(), 1..5), cut in 0..2000usize, at in 0..2000usize, octet in any::<u8>(),
    ) {
        let (first, mut octets) = emit(&payloads).unwrap();
        let at = at % octets.len();
        octets[at] = octet;
        octets.truncate(octets.len() - cut % octets.len());
        for is_padded in [false, true] {
            match Chain::parse(first, &octets, is_padded) {
                Ok(chain) => prop_assert_eq!(chain.bodies.len(), chain.payloads.len()),
                Err(malformed) => prop_assert!(malformed.offset <= octets.len()),
            }
        }
    }

    #[test]
    fn octets_are_read_or_refused(first in any::<u8>(), octets in vec(any::<u8>(), 0..200)) {
        let _ = Chain::parse(PayloadType(first), &octets, true);
    }
}

// RFC 2408 §3.1
#[test]
fn a_message_has_the_version_and_length() {
    let header = Header {
        initiator_spi: IkeSpi(1),
        responder_spi: IkeSpi(2),
        version: Version::V1,
        exchange: ExchangeType::IDENTITY_PROTECTION,
        flags: Flags::ENCRYPTION,
        message_id: 7,
    };
    let octets = message(&header, PayloadType::HASH, &[1, 2, 3]).unwrap();
    let (parsed, first, body) = Header::parse(&octets).unwrap();
    assert_eq!((parsed, first, body), (header, PayloadType::HASH, &[1, 2, 3][..]));
    assert!(is_encrypted(&parsed));
    // What is behind it is none of it.
    let longer = [&octets[..], &[0; 4]].concat();
    assert_eq!(Header::parse(&longer).unwrap().2, [1, 2, 3]);
}

// RFC 2408 §3.4, RFC 2407 §4.6.1
#[test]
fn what_must_not_be_is_refused_where_it_is() {
    let sa = SecurityAssociation {
        proposals: vec![Proposal {
            number: 1,
            protocol: Protocol::IKE,
            spi: vec![],
            transforms: vec![Transform { number: 1, id: 1, attributes: vec![Attribute::number(1, 7)] }],
        }],
    };
    let octets = emit(&[Payload::SecurityAssociation(sa)]).unwrap().1;
    let parse = |at: usize, octet| {
        let mut octets = octets.clone();
        octets[at] = octet;
        Chain::parse(PayloadType::SA_V1, &octets, false)
            .map_err(|malformed| (malformed.field, malformed.offset))
    };
    assert!(parse(0, 0).is_ok());
    for (at, octet, field, offset) in [
        (7, 2, "DOI", 4),
        (11, 4, "Situation", 8),
        (12, 2, "Last Substruc of a proposal", 12),
        (19, 2, "Num Transforms", 19),
        (20, 3, "Last Substruc of a transform", 20),
        (3, 0, "Payload Length", 2),
        (15, 255, "Proposal Length", 14),
    ] {
        assert_eq!(parse(at, octet), Err((field, offset)), "{field}");
    }
    let nonce = emit(&[Payload::Nonce(vec![0; 7])]).unwrap().1;
    assert_eq!(Chain::parse(PayloadType::NONCE_V1, &nonce, false).unwrap_err().field, "Nonce Data");
}

#[test]
fn numbers_of_attributes_are_as_short_as_they_can_be() {
    for (number, value) in
        [(28_800, AttributeValue::Short(28_800)), (86_400, AttributeValue::Long(vec![0, 1, 0x51, 0x80]))]
    {
        let attribute = Attribute::number(12, number);
        assert_eq!((attribute.as_number(), attribute.value), (Some(number.into()), value));
    }
    let of = |octets| Attribute { kind: AttributeType(12), value: AttributeValue::Long(octets) }.as_number();
    assert_eq!((of(vec![]), of(vec![0; 9]), of(vec![1; 8])), (None, None, Some(0x0101_0101_0101_0101)));
}

// draft-beaulieu-ike-xauth-02 §6, draft-dukes-ike-mode-cfg-02 §3.2
#[test]
fn users_and_addresses_are_attributes() {
    let octets = b"\0\0\0\x1b\x02\0\x12\x34\x40\x89\0\x05carol\x40\x8a\0\x02pw\xc0\x8f\0\x01".as_slice();
    let chain = Chain::parse(PayloadType::ATTRIBUTES, octets, false).unwrap();
    let attributes = chain.attributes().unwrap();
    assert_eq!((attributes.kind, attributes.identifier), (AttributesType::ISAKMP_CFG_REPLY, 0x1234));
    let of = |kind| attributes.of_user(kind).map(|attribute| attribute.value.clone());
    assert_eq!(of(XauthAttributeType::XAUTH_USER_NAME), Some(AttributeValue::Long(b"carol".to_vec())));
    assert_eq!(of(XauthAttributeType::XAUTH_STATUS), Some(AttributeValue::Short(1)));
    assert_eq!(of(XauthAttributeType::XAUTH_PASSCODE), None);
    assert!(attributes.is_of_user());
    assert_eq!(format!("{attributes:?}"), "ISAKMP_CFG_REPLY 4660: [16521, 16522, 16527]");
    let kind = ConfigurationAttributeType::INTERNAL_IP4_ADDRESS;
    let all = vec![ConfigurationAttribute::of_address(kind, [10, 3, 0, 1].into())];
    let set = Attributes::of_configuration(AttributesType::ISAKMP_CFG_SET, 7, all.clone());
    assert_eq!((set.configuration(), set.is_of_user()), (all, false));
    let octets = body(&Payload::Attributes(set)).unwrap();
    assert_eq!(octets, [3, 0, 0, 7, 0, 1, 0, 4, 10, 3, 0, 1]);
}
