//! A peer that shares a key with us and says anything: any payloads in any exchange, sealed as they should be. The engine
//! does not panic, what it has has an end, and nothing of a child SA stays behind its IKE SA.
#![no_main]

mod ike_end;

use ike_end::{End, KEY, Rng, address, id};
use libfuzzer_sys::fuzz_target;
use portcullis_ike::{
    crypto::{
        auth,
        exchange::Initiator,
        keys::{Keys, Nonces, Role, Spis},
    },
    identity::IdPattern,
    message::{
        AuthMethod, Authentication, ExchangeType, Header, IkeSpi, KeyExchange, Message, Payload, PayloadType,
        Payloads,
    },
    proposal::{Order, Proposals},
    v2::{
        channel::{Channel, Received},
        output::Datagram,
        window::Retransmission,
    },
};
use std::net::SocketAddr;

struct Peer {
    channel: Channel,
    rng: Rng,
    now_ms: u64,
}

fn at(end: usize) -> SocketAddr {
    SocketAddr::new(address(end), 500)
}

impl Peer {
    /// Brings an IKE SA and a child SA up, by the book.
    fn new(end: &mut End, mut rng: Rng) -> Peer {
        let proposals = Proposals::ike(["aes128gcm16-prfsha256-x25519"]).unwrap();
        let method = proposals.key_exchange().unwrap();
        let (private, public) = Initiator::new(method, &mut rng);
        let (ni, initiator) = (vec![3; 32], IkeSpi(0x0102_0304_0506_0708));
        let spis = Spis { initiator, responder: IkeSpi::NONE };
        let mut peer =
            Peer { channel: Channel::new(Role::Initiator, spis, Retransmission::default()), rng, now_ms: 0 };
        let init = Payloads(vec![
            Payload::SecurityAssociation(proposals.offer(&[])),
            Payload::KeyExchange(KeyExchange { method: method.id(), data: public }),
            Payload::Nonce(ni.clone()),
        ]);
        let request = peer.channel.ask(ExchangeType::IKE_SA_INIT, &init, 0, &mut peer.rng).unwrap().remove(0);
        let response = peer.exchange(end, std::slice::from_ref(&request)).remove(0);
        let (header, ..) = Header::parse(&response).unwrap();
        let answer = Message::parse(&response).unwrap().payloads;
        let spis = Spis { initiator, responder: header.responder_spi };
        let nonces = Nonces { initiator: &ni, responder: answer.nonce().unwrap() };
        let agreement = proposals.select(answer.security_association().unwrap(), Order::Ours).unwrap();
        let secret = private.finish(&answer.key_exchange().unwrap().data).unwrap();
        let suite = agreement.suite().unwrap();
        let (keys, sealer, opener) = Keys::new(suite, Role::Initiator, secret, nonces, spis);
        assert!(matches!(peer.channel.receive(&response), Ok(Received::Response(_))));
        peer.channel.take_response();
        peer.channel.set_spis(spis);
        peer.channel.seal_with(sealer, opener);
        let mine = id(1).parse::<IdPattern>().unwrap().identity().unwrap();
        let (prf, sk_p) = (suite.prf(), keys.sk_p(Role::Initiator));
        let octets = auth::signed_octets(prf, &request, nonces.responder, sk_p, &mine.body(), &[]);
        let proof = auth::by_shared_key(prf, KEY, &octets);
        let child = Proposals::esp(["aes128gcm16"]).unwrap();
        let net =
            |net| portcullis_ike::traffic_selector::ConfiguredSelectors::parse([net]).unwrap().with(&[]);
        let payloads = Payloads(vec![
            Payload::IdInitiator(mine),
            Payload::Authentication(Authentication {
                method: AuthMethod::SHARED_KEY,
                data: proof.bytes().to_vec(),
            }),
            Payload::SecurityAssociation(child.offer(&[0, 0, 0x10, 1])),
            Payload::TsInitiator(net("10.2.0.0/16").emit()),
            Payload::TsResponder(net("10.1.0.0/16").emit()),
        ]);
        peer.ask(end, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(end.engine.sas().flat_map(|sa| sa.children()).count(), 1);
        peer
    }

    /// The engine's messages after these.
    fn exchange(&mut self, end: &mut End, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for octets in datagrams {
            let datagram = Datagram { local: at(0), peer: at(1), octets: octets.clone(), dscp: 0 };
            end.receive(&datagram, &mut self.rng, self.now_ms);
        }
        while end.has_jobs() {
            end.job_done(0, &mut self.rng, self.now_ms);
        }
        end.sent.drain(..).map(|datagram| datagram.octets).collect()
    }

    fn ask(&mut self, end: &mut End, exchange: ExchangeType, payloads: &Payloads) {
        if self.channel.is_asking() {
            return;
        }
        let Ok(datagrams) = self.channel.ask(exchange, payloads, self.now_ms, &mut self.rng) else { return };
        let sent = self.exchange(end, &datagrams);
        self.take(end, sent, None);
    }

    /// Reads what the engine has sent, and answers what it asks, with these payloads.
    fn take(&mut self, end: &mut End, sent: Vec<Vec<u8>>, answer: Option<&Payloads>) {
        for octets in sent {
            if let Ok(Received::Request(content)) = self.channel.receive(&octets) {
                let nothing = Payloads::default();
                let payloads = answer.unwrap_or(&nothing);
                let Ok(datagrams) = self.channel.answer(content.exchange, payloads, &mut self.rng) else {
                    return;
                };
                self.exchange(end, &datagrams);
            }
        }
    }
}

fuzz_target!(|steps: Vec<(u8, u8, Vec<u8>)>| {
    let mut rng = Rng(7);
    let mut end = End::new(0, None, &mut rng);
    let mut peer = Peer::new(&mut end, rng);
    for (what, first, octets) in steps {
        let Ok(payloads) = Payloads::parse(PayloadType(first), &octets) else { continue };
        let exchanges = [
            ExchangeType::IKE_AUTH,
            ExchangeType::CREATE_CHILD_SA,
            ExchangeType::INFORMATIONAL,
            ExchangeType::IKE_INTERMEDIATE,
            ExchangeType::IKE_FOLLOWUP_KE,
        ];
        match what % 8 {
            // It asks and is answered.
            n @ 0..5 => peer.ask(&mut end, exchanges[usize::from(n)], &payloads),
            // It is asked, and answers that.
            n => {
                let rng = &mut peer.rng;
                match n {
                    5 => end.child(rng, peer.now_ms),
                    6 => end.rekey_child(what / 8, rng, peer.now_ms),
                    _ => end.rekey(what / 8, rng, peer.now_ms),
                }
                let sent = peer.exchange(&mut end, &[]);
                peer.take(&mut end, sent, Some(&payloads));
            }
        }
        peer.now_ms += u64::from(what) * 100;
        end.tick(&mut peer.rng, peer.now_ms);
        let sent = peer.exchange(&mut end, &[]);
        peer.take(&mut end, sent, Some(&payloads));
        end.check();
        assert!(end.engine.sas().count() < 64);
    }
});
