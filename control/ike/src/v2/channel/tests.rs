use super::*;
use crate::{
    crypto::{
        Secret,
        keys::{Keys, Nonces},
        transform::{Encryption, Integrity, Prf, Suite},
        vectors::seeded,
    },
    message::{Notify, NotifyType},
};
use proptest::prelude::*;
use std::collections::VecDeque;

fn suites() -> [Suite; 2] {
    let cbc = (Encryption::AesCbc256, Some(Integrity::HmacSha256), Prf::HmacSha256);
    let gcm = (Encryption::AesGcm128, None, Prf::HmacSha256);
    [cbc, gcm].map(|(e, i, p)| Suite::new(e, i, p).unwrap())
}

fn spis() -> Spis {
    Spis { initiator: [1; 8].into(), responder: [2; 8].into() }
}

/// Both ends of an IKE SA, with the keys of a suite.
fn pair(suite: Suite) -> [Channel; 2] {
    let nonces = Nonces { initiator: &[3; 32], responder: &[4; 32] };
    [Role::Initiator, Role::Responder].map(|role| {
        let how = Retransmission { timeout_ms: 100, base: 1000, tries: 1000, ..Retransmission::default() };
        let mut channel = Channel::new(role, spis(), how);
        let (_, sealer, opener) = Keys::new(suite, role, Secret::copy_of(&[5; 32]), nonces, spis());
        channel.seal_with(sealer, opener);
        channel
    })
}

fn payloads(octets: &[u8]) -> Payloads {
    Payloads(vec![Payload::Notify(Notify::new(NotifyType(40_000), octets))])
}

const EXCHANGE: ExchangeType = ExchangeType::INFORMATIONAL;

proptest! {
    /// Whatever the network loses, repeats, and brings out of order: each request arrives once, in order, and has its answer.
    #[test]
    fn each_request_arrives_once_and_is_answered(
        seed: u64,
        suite in 0..2usize,
        cut in proptest::option::of(200..600usize),
        lengths in proptest::collection::vec(0..2000usize, 1..5),
        chance in 0..60u32,
    ) {
        let mut rng = seeded(seed);
        let mut ends = pair(suites()[suite]);
        ends.iter_mut().for_each(|end| cut.into_iter().for_each(|octets| end.cut_at(octets)));
        let mut network = VecDeque::new();
        // What each has asked, been asked, and been answered.
        let (mut asked, mut arrived, mut answers) = ([0; 2], [vec![], vec![]], [vec![], vec![]]);
        let mut now = 0;
        while answers.iter().any(|a| a.len() < lengths.len()) {
            now += 1;
            prop_assert!(now < 200_000, "it ends");
            for me in 0..2 {
                let mut out = vec![];
                if !ends[me].is_asking() && asked[me] < lengths.len() {
                    let octets = vec![asked[me] as u8; lengths[asked[me]]];
                    out = ends[me].ask(EXCHANGE, &payloads(&octets), now, &mut rng).unwrap();
                    asked[me] += 1;
                }
                match ends[me].late(now, &mut rng) {
                    Some(Late::Again(datagrams)) => out = datagrams,
                    late => prop_assert_eq!(late, None),
                }
                network.extend(out.into_iter().map(|octets| (1 - me, octets)));
            }
            for _ in 0..network.len() {
                let picked = u32::from(octet(&mut rng)) as usize % network.len().max(1);
                let Some((me, octets)) = network.get(picked).cloned() else { break };
                // Lost, brought and there still, or brought.
                let fate = u32::from(octet(&mut rng)) % 100;
                if fate >= chance / 2 || fate % 2 == 0 {
                    network.remove(picked);
                }
                if fate < chance / 2 {
                    continue;
                }
                match ends[me].receive(&octets) {
                    Ok(Received::Request(content)) => {
                        arrived[me].push(content.payloads.clone().unwrap());
                        let back = ends[me].answer(EXCHANGE, &content.payloads.unwrap(), &mut rng).unwrap();
                        network.extend(back.into_iter().map(|octets| (1 - me, octets)));
                    }
                    Ok(Received::Response(content)) => answers[me].push(content.payloads.unwrap()),
                    Ok(Received::Repeated(back)) => {
                        network.extend(back.into_iter().map(|octets| (1 - me, octets)));
                    }
                    Ok(Received::Part | Received::Sync(..)) | Err(Dropped::MessageId(_)) => {}
                    Err(other) => prop_assert!(false, "{}", other),
                }
                // A datagram is never longer than it may be.
                let most = cut.unwrap_or(usize::MAX).max(LEAST + AROUND);
                prop_assert!(network.iter().all(|(_, octets)| octets.len() <= most));
            }
        }
        let wanted: Vec<_> =
            lengths.iter().enumerate().map(|(n, len)| payloads(&vec![n as u8; *len])).collect();
        prop_assert_eq!(&arrived, &[wanted.clone(), wanted.clone()]);
        prop_assert_eq!(&answers, &[wanted.clone(), wanted]);
    }

    /// What anybody sends changes nothing.
    #[test]
    fn what_is_forged_is_dropped(seed: u64, at: prop::sample::Index, bit in 0..8u8, cut: bool) {
        let mut rng = seeded(seed);
        let [mut one, mut two] = pair(suites()[1]);
        if cut {
            one.cut_at(300);
        }
        let sent = one.ask(EXCHANGE, &payloads(&[7; 700]), 0, &mut rng).unwrap();
        for octets in &sent {
            let mut forged = octets.clone();
            forged[at.index(octets.len())] ^= 1 << bit;
            prop_assert!(two.receive(&forged).is_err());
        }
        prop_assert!(!two.is_answering());
        let whole: Vec<_> = sent.iter().map(|octets| two.receive(octets)).collect();
        prop_assert!(matches!(whole.last(), Some(Ok(Received::Request(_)))));
    }
}

#[test]
fn ike_sa_init_is_in_clear_and_nothing_else_is() {
    let mut rng = seeded(1);
    let how = Retransmission::default();
    let mut one = Channel::new(Role::Initiator, spis(), how);
    let mut two = Channel::new(Role::Responder, spis(), how);
    let (init, hello) = (ExchangeType::IKE_SA_INIT, payloads(b"hello"));
    let request = one.ask(init, &hello, 0, &mut rng).unwrap().remove(0);
    let Ok(Received::Request(content)) = two.receive(&request) else { panic!() };
    // AUTH is over these octets.
    assert_eq!((content.octets, content.payloads), (request.clone(), Ok(hello.clone())));
    assert_eq!(two.receive(&request), Err(Dropped::MessageId(0)), "it is being answered");
    let response = two.answer(init, &hello, &mut rng).unwrap();
    assert_eq!(two.receive(&request), Ok(Received::Repeated(response.clone())));
    // As after a COOKIE: the same ID again.
    assert!(matches!(one.receive(&response[0]), Ok(Received::Response(_))));
    let again = one.ask(init, &payloads(b"cookie"), 0, &mut rng).unwrap().remove(0);
    assert_eq!((one.request_id(), &again[20..24]), (0, &[0; 4][..]));
    one.take_response();
    assert_eq!((one.request_id(), one.is_asking()), (1, false));
    // Another request in clear, and one of IKE_SA_INIT that is sealed.
    let mut channels = pair(suites()[0]);
    let clear = Message {
        header: Header {
            initiator_spi: spis().initiator,
            responder_spi: spis().responder,
            version: Version::V2,
            exchange: EXCHANGE,
            flags: Flags::INITIATOR,
            message_id: 0,
        },
        payloads: hello.clone(),
        sealed: None,
    };
    assert_eq!(channels[1].receive(&clear.emit().unwrap()), Err(Dropped::Sealing));
    let mut sealed = channels[0].ask(EXCHANGE, &hello, 0, &mut rng).unwrap().remove(0);
    sealed[18] = init.0;
    assert_eq!(channels[1].receive(&sealed), Err(Dropped::Sealing));
}

#[test]
fn responses_are_of_the_request_that_is_under_way() {
    let mut rng = seeded(2);
    let [mut one, mut two] = pair(suites()[1]);
    let hello = payloads(b"hello");
    let request = one.ask(EXCHANGE, &hello, 0, &mut rng).unwrap().remove(0);
    // Our own, sent back.
    assert_eq!(one.receive(&request), Err(Dropped::Direction));
    let Ok(Received::Request(_)) = two.receive(&request) else { panic!() };
    let response = two.answer(ExchangeType::CREATE_CHILD_SA, &hello, &mut rng).unwrap().remove(0);
    assert_eq!(one.receive(&response), Err(Dropped::Exchange));
    let [mut one, mut two] = pair(suites()[1]);
    let request = one.ask(EXCHANGE, &hello, 0, &mut rng).unwrap().remove(0);
    let Ok(Received::Request(_)) = two.receive(&request) else { panic!() };
    let response = two.answer(EXCHANGE, &hello, &mut rng).unwrap().remove(0);
    assert!(matches!(one.receive(&response), Ok(Received::Response(_))));
    assert_eq!(one.receive(&response), Err(Dropped::MessageId(0)), "it was answered");
}

/// The peer has made it so: it is told, and not dropped.
#[test]
fn what_is_sealed_and_cannot_be_read_arrives_as_that() {
    let mut rng = seeded(3);
    let [mut one, mut two] = pair(suites()[1]);
    let broken =
        Payloads(vec![Payload::Unknown { kind: PayloadType::NONCE, critical: false, body: vec![1; 3] }]);
    let request = one.ask(EXCHANGE, &broken, 0, &mut rng).unwrap().remove(0);
    let Ok(Received::Request(content)) = two.receive(&request) else { panic!() };
    let malformed = content.payloads.unwrap_err();
    assert_eq!(malformed.payload, Some(PayloadType::NONCE));
}

/// What an exchange is authenticated by does not know that its messages were cut.
// RFC 9242 §3.3.2
#[test]
fn headers_are_those_of_a_whole_message() {
    let mut rng = seeded(4);
    let hello = payloads(&[7; 700]);
    let both = [None, Some(300)].map(|cut| {
        let [mut one, mut two] = pair(suites()[0]);
        cut.into_iter().for_each(|octets| one.cut_at(octets));
        let sent = one.ask(ExchangeType::IKE_INTERMEDIATE, &hello, 0, &mut rng).unwrap();
        assert_eq!(sent.len() > 1, cut.is_some());
        // The first comes last.
        let received = sent.iter().rev().map(|octets| two.receive(octets)).last();
        let Some(Ok(Received::Request(content))) = received else { panic!("it is there with the last") };
        assert_eq!(Some(&content.headers), headers(&sent[0]).as_ref());
        content.headers
    });
    let [whole, mut cut] = both;
    assert_eq!(whole.len(), Header::LEN + Payload::HEADER_LEN);
    // Lengths are as they were sent.
    for at in [24..28, 30..32] {
        cut[at.clone()].copy_from_slice(&whole[at]);
    }
    assert_eq!(whole, cut);
}

/// Of what was cut anew, the first fragment is the new one, though the old one comes late.
// RFC 7383 §2.6
#[test]
fn an_old_fragment_changes_nothing() {
    let mut rng = seeded(6);
    let hello = payloads(&[7; 700]);
    let [mut one, mut two] = pair(suites()[1]);
    let [old, new] = [500, 300].map(|octets| {
        one.cut_at(octets);
        one.ask(ExchangeType::IKE_INTERMEDIATE, &hello, 0, &mut rng).unwrap()
    });
    assert!(1 < old.len() && old.len() < new.len());
    let late = [&new[..1], &old[..1], &new[1..]].concat();
    let received = late.iter().map(|octets| two.receive(octets)).last();
    let Some(Ok(Received::Request(content))) = received else { panic!("it is there with the last") };
    assert_eq!(Some(&content.headers), headers(&new[0]).as_ref());
    let response = two.answer(ExchangeType::IKE_INTERMEDIATE, &hello, &mut rng).unwrap();
    assert_eq!(two.receive(&new[0]), Ok(Received::Repeated(response)));
}

/// Keys change with the answer to the last request: it is known again by its octets, and not opened.
// RFC 7296 §2.1, RFC 9242 §3.3.1
#[test]
fn what_was_sealed_with_old_keys_is_answered_again() {
    for cut in [None, Some(300)] {
        let mut rng = seeded(5);
        let mut ends = pair(suites()[1]);
        ends.iter_mut().for_each(|end| cut.into_iter().for_each(|octets| end.cut_at(octets)));
        let [mut one, mut two] = ends;
        let (exchange, hello) = (ExchangeType::IKE_INTERMEDIATE, payloads(&[7; 700]));
        let request = one.ask(exchange, &hello, 0, &mut rng).unwrap();
        request.iter().for_each(|octets| _ = two.receive(octets).unwrap());
        let response = two.answer(exchange, &hello, &mut rng).unwrap();
        let nonces = Nonces { initiator: &[3; 32], responder: &[4; 32] };
        let new_keys = |end: &mut Channel| {
            let secret = Secret::copy_of(&[6; 32]);
            let (_, sealer, opener) = Keys::new(suites()[1], end.role(), secret, nonces, spis());
            end.seal_with(sealer, opener);
        };
        new_keys(&mut two);
        assert_eq!(two.receive(&request[0]), Ok(Received::Repeated(response.clone())));
        if let Some(second) = request.get(1) {
            assert_eq!(two.receive(second), Err(Dropped::MessageId(0)));
        }
        let last = response.iter().map(|octets| one.receive(octets).unwrap()).last();
        assert!(matches!(last, Some(Received::Response(_))));
        new_keys(&mut one);
        // What comes twice of it is nothing any more, and both go on.
        assert_eq!(one.receive(&response[0]), Err(Dropped::MessageId(0)));
        let next = one.ask(EXCHANGE, &payloads(b"next"), 0, &mut rng).unwrap();
        assert!(matches!(two.receive(&next[0]), Ok(Received::Request(_))));
    }
}
