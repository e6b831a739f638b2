//! Each way in which octets are no message, and the word for it.

use crate::octets;
use portcullis_ike::message::*;

/// The payload whose body this is, is refused for the field at that offset of the body.
fn refused(kind: PayloadType, body: &str, field: &'static str, offset: usize) {
    let body = octets(body);
    let mut chain = vec![0, 0];
    chain.extend((4 + body.len() as u16).to_be_bytes());
    chain.extend(body);
    assert_eq!(
        Payloads::parse(kind, &chain),
        Err(Malformed { payload: Some(kind), field, offset: 4 + offset })
    );
}

/// A chain that begins with this payload is refused.
fn chain_refused(kind: PayloadType, chain: &str, payload: PayloadType, field: &'static str, offset: usize) {
    let malformed = Malformed { payload: Some(payload), field, offset };
    assert_eq!(Payloads::parse(kind, &octets(chain)), Err(malformed));
}

/// A message that begins with this payload behind its header.
fn message(first: PayloadType, body: &str) -> Result<Message, Malformed> {
    let body = octets(body);
    let mut message = vec![1; 16];
    message.extend([first.0, 0x20, 37, 0, 0, 0, 0, 0]);
    message.extend((28 + body.len() as u32).to_be_bytes());
    message.extend(body);
    Message::parse(&message)
}

#[test]
fn header() {
    // RFC 7296 §3.1
    let whole = octets("0101010101010101 0202020202020202 00 20 22 08 00000000 0000001c");
    assert!(Message::parse(&whole).is_ok());
    let fields = [
        (0, "IKE SA Initiator's SPI"),
        (8, "IKE SA Responder's SPI"),
        (16, "Next Payload"),
        (17, "version"),
        (18, "Exchange Type"),
        (19, "Flags"),
        (20, "Message ID"),
        (24, "Length"),
    ];
    for len in 0..whole.len() {
        let (offset, field) = *fields.iter().rev().find(|(at, _)| *at <= len).unwrap();
        assert_eq!(Message::parse(&whole[..len]), Err(Malformed { payload: None, field, offset }));
    }
    for length in [0, 27, 29, u32::MAX] {
        let mut wrong = whole.clone();
        wrong[24..].copy_from_slice(&length.to_be_bytes());
        assert_eq!(Message::parse(&wrong), Err(Malformed { payload: None, field: "Length", offset: 24 }));
    }
    // Octets behind the message: none in IKEv2, cut off in IKEv1.
    let longer = [&whole[..], &[0; 4]].concat();
    assert_eq!(Message::parse(&longer), Err(Malformed { payload: None, field: "Length", offset: 24 }));
    let mut v1 = [&longer[..], &[0; 4]].concat();
    (v1[17], v1[27]) = (0x10, 32);
    assert_eq!(Header::parse(&v1).unwrap().2, [0; 4]);
    for length in [27, 37, u32::MAX] {
        v1[24..28].copy_from_slice(&length.to_be_bytes());
        let malformed = Malformed { payload: None, field: "Length", offset: 24 };
        assert_eq!(Header::parse(&v1).unwrap_err(), malformed);
    }
    for version in [0x10, 0x00, 0x30, 0xf2] {
        let mut other = whole.clone();
        other[17] = version;
        let malformed = Malformed { payload: None, field: "major version", offset: 17 };
        assert_eq!(Message::parse(&other), Err(malformed));
        assert_eq!(Header::parse(&other).unwrap().0.version.major, version >> 4);
    }
}

#[test]
fn chain() {
    // RFC 7296 §3.2
    use PayloadType as P;
    chain_refused(P::V, "", P::V, "Payload Length", 0);
    chain_refused(P::V, "00", P::V, "Payload Length", 0);
    chain_refused(P::V, "0000 00", P::V, "Payload Length", 2);
    chain_refused(P::V, "0000 0003", P::V, "Payload Length", 2);
    chain_refused(P::V, "0000 0000", P::V, "Payload Length", 2);
    chain_refused(P::V, "0000 0005", P::V, "Payload Length", 2);
    chain_refused(P::V, "2900 0005 01", P::N, "Payload Length", 5);
    chain_refused(P::V, "0000 0004 00", P::V, "octets behind the last payload", 4);
    assert_eq!(
        Payloads::parse(P::NONE, &[0]),
        Err(Malformed { payload: None, field: "octets behind the last payload", offset: 0 })
    );
    // RFC 7296 §3.14, RFC 7383 §2.5: nothing is behind an encrypted payload, and none is in another.
    for kind in [P::SK, P::SKF] {
        chain_refused(kind, "0000 0008 00010001", kind, "nested encryption", 0);
        chain_refused(
            P::V,
            &format!("{:02x}00 0004 0000 0008 00010001", kind.0),
            kind,
            "nested encryption",
            4,
        );
        let field = "payload behind the encrypted one";
        let malformed = Malformed { payload: Some(kind), field, offset: 36 };
        assert_eq!(message(kind, "2b00 0008 00010001 0000 0004"), Err(malformed));
    }
    // Offsets are from the header on.
    let malformed = Malformed { payload: Some(P::NONCE), field: "Nonce Data", offset: 32 };
    assert_eq!(message(P::NONCE, "0000 0005 00"), Err(malformed));
    assert_eq!(malformed.to_string(), "payload NONCE: bad Nonce Data at octet 32");
}

#[test]
fn skf() {
    // RFC 7383 §2.6
    for (body, field, offset) in [
        ("0000 0004", "Fragment Number", 32),
        ("0000 0007 000100", "Total Fragments", 34),
        ("0000 0008 00000001", "Fragment Number", 32),
        ("0000 0008 00000000", "Fragment Number", 32),
        ("0000 0008 00020001", "Fragment Number", 32),
    ] {
        let malformed = Malformed { payload: Some(PayloadType::SKF), field, offset };
        assert_eq!(message(PayloadType::SKF, body), Err(malformed));
    }
    assert_eq!(Fragment::new(0, 0), None);
    assert_eq!(Fragment::new(2, 1), None);
}

#[test]
fn sa() {
    // RFC 7296 §3.3: lengths and counts must be consistent.
    let refused = |body, field, offset| refused(PayloadType::SA, body, field, offset);
    refused("00", "Proposal Length", 0);
    refused("0000 00", "Proposal Length", 2);
    refused("0000 0003 01010000", "Proposal Length", 2);
    refused("0000 0009 01010000", "Proposal Length", 2);
    refused("0000 0004", "Proposal Num", 4);
    refused("0000 0005 01", "Protocol ID", 5);
    refused("0000 0006 0101", "SPI Size", 6);
    refused("0000 0007 010100", "Num Transforms", 7);
    refused("0000 000b 01030400 010203", "SPI", 8);
    refused("0200 0008 01010000", "Last Substruc of a proposal", 0);
    refused("0000 0008 01010000 0000 0008 02010000", "Last Substruc of a proposal", 0);
    refused("0200 0008 01010000 0100 0008 02010000", "Last Substruc of a proposal", 8);
    refused("0000 0008 01010001", "Num Transforms", 7);
    refused("0000 0010 01010002 0000 0008 01000014", "Num Transforms", 7);
    refused("0000 0010 01010000 0000 0008 01000014", "Num Transforms", 7);
    refused("0000 0009 01010001 00", "Transform Length", 8);
    refused("0000 0010 01010001 0000 0003 01000014", "Transform Length", 10);
    refused("0000 0010 01010001 0000 0009 01000014", "Transform Length", 10);
    refused("0000 0010 01010001 0300 0008 01000014", "Last Substruc of a transform", 8);
    refused("0000 0018 01010002 0000 0008 01000014 0000 0008 02000005", "Last Substruc of a transform", 8);
    refused("0000 000c 01010001 0000 0004", "Transform Type", 12);
    refused("0000 000d 01010001 0000 0005 01", "RESERVED", 13);
    refused("0000 000f 01010001 0000 0007 010000", "Transform ID", 14);
    refused("0000 0011 01010001 0000 0009 01000014 80", "Attribute Type", 16);
    refused("0000 0013 01010001 0000 000b 01000014 800e 01", "Attribute Value", 18);
    refused("0000 0013 01010001 0000 000b 01000014 000e 01", "Attribute Length", 18);
    refused("0000 0015 01010001 0000 000d 01000014 000e 0002 01", "Attribute Value", 20);
}

#[test]
fn ke_nonce_id_cert_and_auth() {
    // RFC 7296 §3.4 to §3.9
    refused(PayloadType::KE, "00", "Key Exchange Method", 0);
    refused(PayloadType::KE, "0013 00", "RESERVED", 2);
    refused(PayloadType::NONCE, &"00".repeat(15), "Nonce Data", 0);
    refused(PayloadType::NONCE, &"00".repeat(257), "Nonce Data", 0);
    for (kind, field) in [
        (PayloadType::IDI, "ID Type"),
        (PayloadType::IDR, "ID Type"),
        (PayloadType::AUTH, "Auth Method"),
        (PayloadType::CP, "CFG Type"),
    ] {
        refused(kind, "", field, 0);
        refused(kind, "01 0000", "RESERVED", 1);
    }
    refused(PayloadType::CERT, "", "Cert Encoding", 0);
    refused(PayloadType::CERTREQ, "", "Cert Encoding", 0);
}

#[test]
fn notify() {
    // RFC 7296 §3.10
    let refused = |body, field, offset| refused(PayloadType::N, body, field, offset);
    refused("", "Protocol ID", 0);
    refused("00", "SPI Size", 1);
    refused("0000 40", "Notify Message Type", 2);
    refused("0304 4009 000000", "Security Parameter Index (SPI)", 4);
}

#[test]
fn delete() {
    // RFC 7296 §3.11: SPIs are of no octets for IKE, and of four for AH and ESP.
    let refused = |body, field, offset| refused(PayloadType::D, body, field, offset);
    refused("", "Protocol ID", 0);
    refused("03", "SPI Size", 1);
    refused("0304 00", "Num of SPIs", 2);
    refused("0108 0001 0102030405060708", "SPI Size", 1);
    refused("0208 0001 0102030405060708", "SPI Size", 1);
    refused("0300 0001", "SPI Size", 1);
    refused("0304 0001", "Num of SPIs", 2);
    refused("0304 0001 010203", "Num of SPIs", 2);
    refused("0304 0001 0102030405060708", "Num of SPIs", 2);
    refused("0304 ffff 01020304", "Num of SPIs", 2);
    refused("0100 0000 00", "Num of SPIs", 2);
}

#[test]
fn ts() {
    // RFC 7296 §3.13, §3.13.1
    for kind in [PayloadType::TSI, PayloadType::TSR] {
        let refused = |body, field, offset| refused(kind, body, field, offset);
        refused("", "Number of TSs", 0);
        refused("00 0000", "RESERVED", 1);
        refused("01 000000", "Number of TSs", 0);
        refused("00 000000 0900 0004", "Number of TSs", 0);
        refused("01 000000 0900 0004 0900 0004", "Number of TSs", 0);
        refused("01 000000 07", "Selector Length", 4);
        refused("01 000000 0700 0003", "Selector Length", 6);
        refused("01 000000 0700 0010 0000ffff 00000000", "Selector Length", 6);
        refused("01 000000 0700 0004", "Start Port", 8);
        refused("01 000000 0700 0007 000000", "End Port", 10);
        refused("01 000000 0700 000b 00000000 000000", "Starting Address", 12);
        refused("01 000000 0700 000f 00000000 00000000 000000", "Ending Address", 16);
        refused("01 000000 0700 0011 00000000 00000000 00000000 00", "Selector Length", 20);
        refused("01 000000 0800 0010 00000000 00000000 00000000", "Starting Address", 12);
    }
}

#[test]
fn cp() {
    // RFC 7296 §3.15.1
    let refused = |body, field, offset| refused(PayloadType::CP, body, field, offset);
    refused("01000000 00", "Attribute Type", 4);
    refused("01000000 0001 00", "Length", 6);
    refused("01000000 0001 0004 0a0000", "Value", 8);
}
