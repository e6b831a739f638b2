//! Any octets are an IKEv2 message or are refused. What is one is emitted, but for reserved bits, as it was. What is chosen
//! of proposals and traffic selectors is of those that were offered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ike::{
    message::{Message, Payload, PayloadType, Payloads, Proposal},
    proposal::{Order, Proposals},
    traffic_selector::{ConfiguredSelectors, Policy, TrafficSelectors, narrow},
};

/// The emitted octets are those that were parsed, or have fewer bits set.
fn cleared(emitted: &[u8], parsed: &[u8]) -> bool {
    emitted.len() == parsed.len()
        && emitted.iter().zip(parsed).all(|(emitted, parsed)| emitted & !parsed == 0)
}

fn message(octets: &[u8]) {
    match Message::parse(octets) {
        Ok(message) => {
            let emitted = message.emit().unwrap();
            assert!(cleared(&emitted, octets));
            if let Some(sealed) = &message.sealed {
                let headers = sealed.headers(octets);
                assert!(headers.len() >= 32 && [headers, &sealed.body].concat() == octets);
            }
            assert_eq!(Message::parse(&emitted), Ok(message));
        }
        Err(malformed) => assert!(malformed.offset <= octets.len()),
    }
}

fn choose(offered: &[Proposal]) {
    let optional =
        ["aes128gcm16-prfsha256-x25519-ecp256-ke1_mlkem768-ke1_x25519-ke1_none-ke2_ecp256-ke2_none"];
    let all = [
        Proposals::ike(["default"]),
        Proposals::ike(optional),
        Proposals::esp(["default"]),
        Proposals::ah(["default"]),
    ];
    for ours in all.map(Result::unwrap) {
        for order in [Order::Ours, Order::Theirs] {
            let Some(agreement) = ours.select(offered, order) else { continue };
            let answer = agreement.answer(&[]);
            let has_all = |p: &Proposal| answer.transforms.iter().all(|t| p.transforms.contains(t));
            assert!(
                offered
                    .iter()
                    .any(|p| (p.number, p.protocol) == (answer.number, answer.protocol) && has_all(p))
            );
            assert!(agreement.suite().is_some() != agreement.algorithm().is_some());
        }
    }
}

fn accept(tsi: &TrafficSelectors, tsr: &TrafficSelectors) {
    let side = |texts: &[&'static str]| ConfiguredSelectors::parse(texts.iter().copied()).unwrap().with(&[]);
    let all = side(&["0.0.0.0/0", "::/0[tcp/1-80]", "10.0.0.0/8[udp]"]);
    let policies = [("10.0.0.0/9[tcp]", "128.0.0.0/1"), ("::/1", "8000::/1[udp/opaque]")]
        .map(|(local, remote)| Policy { local: side(&[local]), remote: side(&[remote]) });
    let policies = [&policies[..], &[Policy { local: all.clone(), remote: all }]].concat();
    if let Some(narrowed) = narrow(&policies, tsi, tsr) {
        let accepted = &narrowed.accepted;
        assert!(accepted.pairs().next().is_some());
        assert!(accepted.local.iter().all(|one| policies[narrowed.policy].local.covers(one)));
        assert!(accepted.remote.iter().all(|one| policies[narrowed.policy].remote.covers(one)));
    }
}

fn agree(payloads: &Payloads) {
    let selectors = |payload: &Payload| match payload {
        Payload::TsInitiator(all) | Payload::TsResponder(all) => Some(TrafficSelectors::parse(all)),
        _ => None,
    };
    let sides: Vec<_> = payloads.0.iter().filter_map(selectors).collect();
    sides.iter().zip(sides.iter().skip(1).chain(&sides)).for_each(|(tsi, tsr)| accept(tsi, tsr));
    for payload in &payloads.0 {
        if let Payload::SecurityAssociation(offered) = payload {
            choose(offered);
        }
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (first, octets) = input;
    message(octets);
    if octets.len() >= 28 {
        let mut whole = octets.to_vec();
        whole[17] = 0x20 | whole[17] & 15;
        whole[24..28].copy_from_slice(&(octets.len() as u32).to_be_bytes());
        message(&whole);
    }
    let first = PayloadType(first);
    match Payloads::parse(first, octets) {
        Ok(payloads) => {
            let (kind, emitted) = payloads.emit().unwrap();
            assert!(kind == first && cleared(&emitted, octets));
            agree(&payloads);
            assert_eq!(Payloads::parse(first, &emitted), Ok(payloads));
        }
        Err(malformed) => assert!(malformed.offset <= octets.len()),
    }
});
