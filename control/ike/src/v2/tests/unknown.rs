//! Messages of IKE SAs that are not there (RFC 7296 §2.21.4).

use super::{
    established_as,
    world::{LEFT, RIGHT, World},
};
use crate::{
    message::{ExchangeType, Flags, Header, IkeSpi, Message, Notify, NotifyType, Payload, Payloads, Sealed},
    message::{PayloadType, Version},
    v2::{
        engine::unknown::{HEARD_MS, TOLD_A_SECOND},
        ike_sa::Phase,
        output::{Datagram, Output},
        refused::Refused,
    },
};

/// What an end answers to a message of the other.
fn answers(world: &mut World, end: usize, message: &Message) -> (Result<(), Refused>, Vec<Message>) {
    let path = world.ends[1 - end].engine.sas().next().map(|sa| sa.path()).expect("the other end has one");
    let octets = message.emit().unwrap();
    let datagram = Datagram { local: path.peer, peer: path.local, octets, dscp: 0 };
    world.with(end, |engine, cx| {
        let received = engine.receive(&datagram, cx);
        let sent = |output: &Output| match output {
            Output::Send(sent) => {
                assert_eq!((sent.local, sent.peer), (datagram.local, datagram.peer));
                Message::parse(&sent.octets).ok()
            }
            _ => None,
        };
        let answers = cx.out.iter().filter_map(sent).collect();
        cx.out.clear();
        (received, answers)
    })
}

fn request(exchange: ExchangeType, flags: Flags) -> Message {
    let header = Header {
        initiator_spi: IkeSpi(1),
        responder_spi: IkeSpi(2),
        version: Version::V2,
        exchange,
        flags,
        message_id: 7,
    };
    Message { header, payloads: Payloads::default(), sealed: Some(Sealed::room(PayloadType::NONE, None, 29)) }
}

fn unknown_spi() -> Payloads {
    Payloads(vec![Payload::Notify(Notify::new(NotifyType::INVALID_IKE_SPI, &[]))])
}

// RFC 7296 §1.5, §2.21.4
#[test]
fn who_asks_by_an_ike_sa_that_is_not_there_is_told() {
    let mut world = established_as(1, |_| {});
    let by_either =
        [(Flags::INITIATOR, Flags::RESPONSE), (Flags::default(), Flags::RESPONSE | Flags::INITIATOR)];
    for (flags, answered) in by_either {
        let asked = request(ExchangeType::INFORMATIONAL, flags);
        let (received, answers) = answers(&mut world, RIGHT, &asked);
        assert_eq!(received, Err(Refused::UnknownSpi));
        let header = Header { flags: answered, ..asked.header };
        assert_eq!(answers, [Message { header, payloads: unknown_spi(), sealed: None }]);
    }
    let silent = [
        request(ExchangeType::INFORMATIONAL, Flags::RESPONSE),
        request(ExchangeType::INFORMATIONAL, Flags::RESPONSE | Flags::INITIATOR),
        request(ExchangeType::IKE_SA_INIT, Flags::INITIATOR),
        request(ExchangeType::IKE_SA_INIT, Flags::default()),
        Message {
            sealed: None,
            payloads: unknown_spi(),
            ..request(ExchangeType::IKE_AUTH, Flags::INITIATOR)
        },
    ];
    for message in silent {
        assert_eq!(answers(&mut world, RIGHT, &message).1, []);
    }
}

#[test]
fn so_many_are_told_in_a_second() {
    let mut world = established_as(2, |_| {});
    let asked = request(ExchangeType::CREATE_CHILD_SA, Flags::INITIATOR);
    let mut told = |ms: u64| {
        let told = (0..ms).map(|_| {
            world.now_ms += 1;
            answers(&mut world, RIGHT, &asked).1.len()
        });
        told.sum::<usize>()
    };
    // Those that there are at once, and those that come again.
    assert!((told(1000) as u32).abs_diff(2 * TOLD_A_SECOND) <= 1);
    assert!((told(10_000) as u32).abs_diff(10 * TOLD_A_SECOND) <= 1);
}

/// A peer that knows nothing any more says so, and is asked as before until it is given up; neither end says more.
#[test]
fn what_is_told_is_not_answered() {
    let mut world = established_as(3, |connection| connection.dpd_ms = 20_000);
    world.restart(RIGHT);
    let before = world.carried;
    world.run_for(600_000);
    assert_eq!(world.ends[LEFT].engine.sas().count(), 0);
    let asked = world.carried - before;
    assert!((4..=2 * (1 + 5)).contains(&asked), "{asked} messages");
    assert!(world.ends[LEFT].refused.iter().all(|refused| *refused == Refused::NotKnown));
    assert!(world.ends[RIGHT].refused.iter().all(|refused| *refused == Refused::UnknownSpi));
}

/// Anybody can say that the peer does not know it: the peer is asked, at times, and nothing else changes.
#[test]
fn who_is_told_asks_its_peer() {
    for end in [LEFT, RIGHT] {
        let mut world = established_as(4, |_| {});
        let sa = world.only_sa(end);
        let (spis, flag) = (sa.spis(), if end == LEFT { Flags::default() } else { Flags::INITIATOR });
        let mut forged = request(ExchangeType::INFORMATIONAL, Flags::RESPONSE | flag);
        (forged.sealed, forged.payloads) = (None, unknown_spi());
        (forged.header.initiator_spi, forged.header.responder_spi) = (spis.initiator, spis.responder);
        let path = sa.path();
        let (requests, from_ms) = (world.requests.len(), world.now_ms);
        while world.now_ms < from_ms + 6 * HEARD_MS {
            let octets = forged.emit().unwrap();
            let datagram = Datagram { local: path.local, peer: path.peer, octets, dscp: 0 };
            let received = world.with(end, |engine, cx| engine.receive(&datagram, cx));
            assert_eq!(received, Err(Refused::NotKnown));
            world.run_for(100);
        }
        assert_eq!(world.requests.len() - requests, 6);
        assert_eq!(world.only_sa(end).phase(), &Phase::Established);
        world.check_children(1);
    }
}
