//! Any message, emitted and parsed, is the same; and so are octets, but for what is reserved.

use portcullis_ike::message::*;
use proptest::{collection::vec, option, prelude::*, sample::select};

fn data() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn spi() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=255)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value =
        prop_oneof![any::<u16>().prop_map(AttributeValue::Short), data().prop_map(AttributeValue::Long)];
    (0..0x8000u16, value).prop_map(|(kind, value)| Attribute { kind: AttributeType(kind), value })
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), vec(attribute(), 0..3)).prop_map(|(kind, id, attributes)| Transform {
        kind: TransformType(kind),
        id,
        attributes,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), any::<u8>(), spi(), vec(transform(), 0..5)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: Protocol(protocol),
            spi,
            transforms,
        },
    )
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let v4 = any::<[[u8; 4]; 2]>().prop_map(|[first, last]| Addresses::V4(first.into()..=last.into()));
    let v6 = any::<[[u8; 16]; 2]>().prop_map(|[first, last]| Addresses::V6(first.into()..=last.into()));
    let range = (any::<u8>(), any::<[u16; 2]>(), prop_oneof![v4, v6]).prop_map(
        |(protocol, [first, last], addresses)| {
            TrafficSelector::Range(TsRange { protocol, ports: first..=last, addresses })
        },
    );
    let kind = any::<u8>().prop_filter("a range", |kind| ![7, 8].contains(kind));
    let unknown = (kind, any::<u8>(), data()).prop_map(|(kind, octet, data)| TrafficSelector::Unknown {
        kind: TsType(kind),
        octet,
        data,
    });
    prop_oneof![range, unknown]
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let attribute = (0..0x8000u16, data())
        .prop_map(|(kind, value)| ConfigurationAttribute { kind: ConfigurationAttributeType(kind), value });
    (any::<u8>(), vec(attribute, 0..4))
        .prop_map(|(kind, attributes)| Configuration { kind: ConfigurationType(kind), attributes })
}

fn notify() -> impl Strategy<Value = Notify> {
    (any::<u8>(), spi(), any::<u16>(), data()).prop_map(|(protocol, spi, kind, data)| Notify {
        protocol: Protocol(protocol),
        spi,
        kind: NotifyType(kind),
        data,
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    let protocol = select(vec![Protocol::ESP, Protocol::AH]);
    let children = (protocol, vec(any::<u32>(), 0..9))
        .prop_map(|(protocol, spis)| Delete::child_sas(protocol, &spis).unwrap());
    prop_oneof![Just(Delete::IKE_SA), children]
}

fn payload() -> impl Strategy<Value = Payload> {
    let id = || {
        (any::<u8>(), any::<[u8; 3]>(), data()).prop_map(|(kind, reserved, data)| Identification {
            kind: IdType(kind),
            reserved,
            data,
        })
    };
    let encoded = || (any::<u8>().prop_map(CertificateEncoding), data());
    let kind = any::<u8>().prop_map(PayloadType).prop_filter("known", |kind| kind.name().is_none());
    prop_oneof![
        vec(proposal(), 0..4).prop_map(Payload::SecurityAssociation),
        (any::<u16>(), data()).prop_map(|(method, data)| Payload::KeyExchange(KeyExchange { method, data })),
        id().prop_map(Payload::IdInitiator),
        id().prop_map(Payload::IdResponder),
        encoded().prop_map(|(encoding, data)| Payload::Certificate(Certificate { encoding, data })),
        encoded().prop_map(|(encoding, authority)| {
            Payload::CertificateRequest(CertificateRequest { encoding, authority })
        }),
        (any::<u8>(), data()).prop_map(|(method, data)| {
            Payload::Authentication(Authentication { method: AuthMethod(method), data })
        }),
        vec(any::<u8>(), 16..=256).prop_map(Payload::Nonce),
        notify().prop_map(Payload::Notify),
        delete().prop_map(Payload::Delete),
        data().prop_map(Payload::VendorId),
        vec(selector(), 0..4).prop_map(Payload::TsInitiator),
        vec(selector(), 0..4).prop_map(Payload::TsResponder),
        configuration().prop_map(Payload::Configuration),
        data().prop_map(Payload::Eap),
        data().prop_map(Payload::PuzzleSolution),
        (kind, any::<bool>(), data()).prop_map(|(kind, critical, body)| Payload::Unknown {
            kind,
            critical,
            body
        }),
    ]
}

fn payloads() -> impl Strategy<Value = Payloads> {
    vec(payload(), 0..6).prop_map(Payloads)
}

fn sealed() -> impl Strategy<Value = Sealed> {
    let fragment = any::<[u16; 2]>().prop_map(|[a, b]| Fragment::new(a.min(b), a.max(b)));
    (any::<u8>(), fragment, data()).prop_map(|(first, fragment, body)| Sealed {
        first: PayloadType(first),
        fragment,
        body,
    })
}

fn header() -> impl Strategy<Value = Header> {
    (any::<[u64; 2]>(), 0..16u8, any::<[u8; 2]>(), any::<u32>()).prop_map(
        |([initiator_spi, responder_spi], minor, [exchange, flags], message_id)| Header {
            initiator_spi: IkeSpi(initiator_spi),
            responder_spi: IkeSpi(responder_spi),
            version: Version { major: 2, minor },
            exchange: ExchangeType(exchange),
            flags: Flags(flags),
            message_id,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    (header(), payloads(), option::of(sealed())).prop_map(|(header, payloads, sealed)| Message {
        header,
        payloads,
        sealed,
    })
}

proptest! {
    #[test]
    fn messages(message in message()) {
        let octets = message.emit().unwrap();
        prop_assert_eq!(Message::parse(&octets), Ok(message));
    }

    #[test]
    fn what_is_sealed(payloads in payloads()) {
        let (first, octets) = payloads.emit().unwrap();
        prop_assert_eq!(Payloads::parse(first, &octets), Ok(payloads));
        for len in 0..octets.len() {
            prop_assert!(Payloads::parse(first, &octets[..len]).is_err());
        }
    }

    /// Of octets that are changed at random and still are a message, only reserved bits are lost.
    #[test]
    fn octets(message in message(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut octets = message.emit().unwrap();
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        if let Ok(message) = Message::parse(&octets) {
            let emitted = message.emit().unwrap();
            prop_assert_eq!(emitted.len(), octets.len());
            prop_assert!(emitted.iter().zip(&octets).all(|(emitted, octet)| emitted & !octet == 0));
            prop_assert_eq!(Message::parse(&emitted), Ok(message));
        }
    }
}
