//! A peer of IKEv1 that shares a key with us and says anything: any payloads in any exchange, with the HASH payload and encrypted as
//! they should be, from the first message of phase 1 or from behind it. The engine does not panic, what it has has an end, and nothing
//! of a child SA stays behind its ISAKMP SA.
#![no_main]

mod ike_end;

use arbitrary::Arbitrary;
use ike_end::{End, KEY, Rng, USER, address, id};
use libfuzzer_sys::fuzz_target;
use portcullis_ike::{
    connection::{Ikev1, Xauth},
    crypto::{
        Secret,
        exchange::Initiator,
        keys::{Nonces, Role, Spis},
        transform::{Encryption, KeyExchange, Prf},
    },
    identity::IdPattern,
    message::{
        Attribute, AttributeType, AttributeValue, ExchangeType, Flags, Header, Identification, IkeSpi,
        PayloadType, Protocol, Version,
        isakmp::{
            self, Attributes, AttributesType, Chain, Payload, Proposal, SecurityAssociation, Transform,
            XauthAttributeType,
        },
    },
    v1::keys::{Exchanged, Iv, Keys, Made},
    v2::output::Datagram,
};
use std::{collections::HashMap, net::SocketAddr};

/// The user that there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Arbitrary)]
enum User {
    None,
    OfPeer,
    OfEngine,
}

/// How it begins, and whose messages are the fuzzer's: from that one of phase 1 on, if there are so many.
#[derive(Clone, Copy, Debug, Arbitrary)]
struct Begin {
    is_aggressive: bool,
    user: User,
    by_the_book: u8,
}

impl Begin {
    fn ikev1(self) -> Ikev1 {
        let xauth = match self.user {
            User::None => None,
            User::OfPeer => Some(Xauth::Theirs("%any".parse().unwrap())),
            User::OfEngine => Some(Xauth::Ours(Some(USER[0].into()))),
        };
        Ikev1 { is_aggressive: self.is_aggressive, xauth, ..Ikev1::default() }
    }

    /// RFC 2409 §A, draft-beaulieu-ike-xauth-02 §7.2
    fn method(self) -> u32 {
        match self.user {
            User::None => 1,
            User::OfPeer => 65001,
            User::OfEngine => 65002,
        }
    }

    fn exchange(self) -> ExchangeType {
        if self.is_aggressive { ExchangeType::AGGRESSIVE } else { ExchangeType::IDENTITY_PROTECTION }
    }
}

/// RFC 3706 §5.2
const DPD: [u8; 16] = *b"\xaf\xca\xd7\x13\x68\xa1\xf1\xc9\x6b\x86\x96\xfc\x77\x57\x01\x00";

/// What the fuzzer says: payloads from a type on, where it has its turn, and what goes with them.
type Step = (u8, u8, Vec<u8>);

struct Peer {
    begin: Begin,
    spis: Spis,
    keys: Option<Keys>,
    /// Behind phase 1.
    last: Option<Iv>,
    /// The next one of an exchange of phase 2.
    ivs: HashMap<u32, Iv>,
    next_id: u32,
    rng: Rng,
    now_ms: u64,
}

/// A message of the engine.
struct Heard {
    header: Header,
    chain: Chain,
}

fn at(end: usize) -> SocketAddr {
    SocketAddr::new(address(end), 500)
}

fn sa(method: u32) -> Payload {
    // AES-CBC, of 128 bits, SHA-256, how, X25519, and seconds.
    let attributes = [(1, 7), (14, 128), (2, 4), (3, method), (4, 31), (11, 1), (12, 3600)];
    let attributes = attributes.map(|(kind, value)| Attribute::number(kind, value)).into();
    let transforms = vec![Transform { number: 1, id: 1, attributes }];
    let proposal = Proposal { number: 1, protocol: Protocol::IKE, spi: vec![], transforms };
    Payload::SecurityAssociation(SecurityAssociation { proposals: vec![proposal] })
}

fn identity() -> Identification {
    id(1).parse::<IdPattern>().unwrap().identity().unwrap()
}

fn nonce(payload: &Payload) -> Option<Vec<u8>> {
    match payload {
        Payload::Nonce(nonce) => Some(nonce.clone()),
        _ => None,
    }
}

impl Peer {
    fn new(begin: Begin, rng: Rng) -> Peer {
        let spis = Spis { initiator: IkeSpi(0x0102_0304_0506_0708), responder: IkeSpi::NONE };
        Peer { begin, spis, keys: None, last: None, ivs: HashMap::new(), next_id: 1, rng, now_ms: 0 }
    }

    fn message(
        &self,
        exchange: ExchangeType,
        message_id: u32,
        iv: Option<Iv>,
        payloads: &[u8],
        first: PayloadType,
    ) -> (Vec<u8>, Option<Iv>) {
        let Spis { initiator: initiator_spi, responder: responder_spi } = self.spis;
        let flags = if iv.is_some() { Flags::ENCRYPTION } else { Flags::default() };
        let header =
            Header { initiator_spi, responder_spi, version: Version::V1, exchange, flags, message_id };
        let sealed = iv.zip(self.keys.as_ref()).map(|(iv, keys)| keys.encrypt(iv, payloads));
        let (body, next) = sealed.unzip();
        (isakmp::message(&header, first, body.as_deref().unwrap_or(payloads)).unwrap_or_default(), next)
    }

    /// The engine's messages after this one.
    fn exchange(&mut self, end: &mut End, octets: Option<Vec<u8>>) -> Vec<Heard> {
        if let Some(octets) = octets {
            let datagram = Datagram { local: at(0), peer: at(1), octets, dscp: 0 };
            end.receive(&datagram, &mut self.rng, self.now_ms);
        }
        while end.has_jobs() {
            end.job_done(0, &mut self.rng, self.now_ms);
        }
        let sent: Vec<_> = end.sent.drain(..).collect();
        sent.iter().filter_map(|datagram| self.read(&datagram.octets)).collect()
    }

    /// Reads what it can, and keeps the IVs.
    fn read(&mut self, octets: &[u8]) -> Option<Heard> {
        let (header, first, body) = Header::parse(octets).ok()?;
        if header.initiator_spi == self.spis.initiator && self.spis.responder == IkeSpi::NONE {
            self.spis.responder = header.responder_spi;
        }
        if !isakmp::is_encrypted(&header) {
            return Some(Heard { header, chain: Chain::parse(first, body, false).ok()? });
        }
        let iv = self.iv(header.message_id)?;
        let (plain, next) = self.keys.as_ref()?.decrypt(iv, body)?;
        let chain = Chain::parse(first, &plain, true).ok()?;
        match header.message_id {
            0 => self.last = Some(next),
            id => _ = self.ivs.insert(id, next),
        }
        Some(Heard { header, chain })
    }

    fn iv(&self, id: u32) -> Option<Iv> {
        let fresh = || Some(self.keys.as_ref()?.iv_of_exchange(self.last?, id));
        if id == 0 { self.last } else { self.ivs.get(&id).copied().or_else(fresh) }
    }

    /// Phase 1, in which the messages from some on are the fuzzer's.
    fn begin(&mut self, end: &mut End, steps: &mut impl Iterator<Item = Step>) -> Option<()> {
        let (book, is_aggressive, exchange) =
            (self.begin.by_the_book % 4, self.begin.is_aggressive, self.begin.exchange());
        let (private, public) = Initiator::new(KeyExchange::X25519, &mut self.rng);
        let mut said = |n: u8, payloads: Vec<Payload>| match n < book {
            true => Some(payloads),
            false => {
                let (_, first, octets) = steps.next()?;
                Some(Chain::parse(PayloadType(first), &octets, false).ok()?.payloads)
            }
        };
        let ke = [Payload::KeyExchange(public.clone()), Payload::Nonce(vec![3; 32])];
        let mut first = vec![sa(self.begin.method())];
        if is_aggressive {
            first.extend(ke.iter().cloned());
            first.push(Payload::Identification(identity()));
        }
        first.push(Payload::VendorId(DPD.to_vec()));
        let mut sent = said(0, first)?;
        let sa_body = sent.iter().find(|payload| payload.kind() == PayloadType::SA_V1);
        let sa_body = isakmp::body(sa_body?).ok()?;
        let mut heard = self.clear(end, exchange, &sent)?;
        if !is_aggressive {
            sent = said(1, ke.into())?;
            heard = self.clear(end, exchange, &sent)?;
        }
        let ni = sent.iter().find_map(nonce)?;
        let (gr, nr) = (heard.chain.key_exchange()?.to_vec(), heard.chain.nonce()?.to_vec());
        let secret = private.finish(&gr).ok()?;
        let made = Made {
            prf: Prf::HmacSha256,
            encryption: Encryption::AesCbc128,
            secret: &secret,
            nonces: Nonces { initiator: &ni, responder: &nr },
            spis: self.spis,
        };
        let keys = Keys::new(Some(&Secret::copy_of(KEY)), &made);
        self.last = Some(keys.first_iv([&public, &gr]));
        let mine = (!is_aggressive).then(|| Payload::Identification(identity()));
        let mut third = said(2, mine.into_iter().collect())?;
        let named = third.iter().find_map(|payload| match payload {
            Payload::Identification(id) => Some(id.clone()),
            _ => None,
        });
        let named = named.filter(|_| !is_aggressive).unwrap_or_else(identity);
        let exchanged = Exchanged { public: [&public, &gr], sa: &sa_body };
        let proof = keys.proof(Role::Initiator, exchanged, self.spis, &named.body());
        third.push(Payload::Hash(proof.bytes().to_vec()));
        self.keys = Some(keys);
        let (first, octets) = isakmp::emit(&third).ok()?;
        let (octets, next) = self.message(exchange, 0, self.last, &octets, first);
        self.last = next;
        let heard = self.exchange(end, Some(octets));
        self.take(end, heard, None);
        Some(())
    }

    fn clear(&mut self, end: &mut End, exchange: ExchangeType, payloads: &[Payload]) -> Option<Heard> {
        let (first, octets) = isakmp::emit(payloads).ok()?;
        let (octets, _) = self.message(exchange, 0, None, &octets, first);
        self.exchange(end, Some(octets)).pop()
    }

    /// Says something in phase 2, with a HASH payload in front that is over these octets, too.
    fn say(
        &mut self,
        end: &mut End,
        (exchange, id): (ExchangeType, u32),
        front: &[u8],
        payloads: &[Payload],
    ) -> Vec<Heard> {
        let (Some(iv), Some(keys), Ok((_, rest))) = (self.iv(id), &self.keys, isakmp::emit(payloads)) else {
            return vec![];
        };
        let hash = keys.hash(&[], id, &[front, &rest]);
        let all = [&[Payload::Hash(hash.bytes().to_vec())], payloads].concat();
        self.say_hashed(end, (exchange, id), iv, &all)
    }

    fn say_hashed(
        &mut self,
        end: &mut End,
        (exchange, id): (ExchangeType, u32),
        iv: Iv,
        payloads: &[Payload],
    ) -> Vec<Heard> {
        let Ok((first, octets)) = isakmp::emit(payloads) else { return vec![] };
        let (octets, next) = self.message(exchange, id, Some(iv), &octets, first);
        self.ivs.extend(next.map(|next| (id, next)));
        self.exchange(end, Some(octets))
    }

    /// The third message of a quick mode.
    fn say_third(&mut self, end: &mut End, id: u32, ni: &[u8], nr: &[u8]) {
        let (Some(iv), Some(keys)) = (self.iv(id), &self.keys) else { return };
        let hash = Payload::Hash(keys.hash(&[0], id, &[ni, nr]).bytes().to_vec());
        let heard = self.say_hashed(end, (ExchangeType::QUICK_MODE, id), iv, &[hash]);
        self.take(end, heard, None);
    }

    /// Asks in a new exchange, or goes on with the last.
    fn ask(&mut self, end: &mut End, exchange: ExchangeType, is_new: bool, payloads: &[Payload]) {
        self.next_id += u32::from(is_new);
        let id = self.next_id;
        let heard = self.say(end, (exchange, id), &[], payloads);
        let ni = payloads.iter().find_map(nonce);
        let is_answer =
            |heard: &&Heard| heard.header.message_id == id && exchange == ExchangeType::QUICK_MODE;
        let nr = heard.iter().find(is_answer).and_then(|heard| heard.chain.nonce()).map(<[u8]>::to_vec);
        self.take(end, heard, None);
        if let Some((ni, nr)) = ni.zip(nr) {
            self.say_third(end, id, &ni, &nr);
        }
    }

    /// Answers what the engine asks: with these payloads, or what it asks of users by the book.
    fn take(&mut self, end: &mut End, all: Vec<Heard>, answer: Option<&[Payload]>) {
        for Heard { header, chain } in all {
            let (exchange, id) = (header.exchange, header.message_id);
            let asked = chain.attributes().map(|attributes| (attributes.kind, attributes.identifier));
            let by_the_book: Vec<Payload> = match asked {
                Some((AttributesType::ISAKMP_CFG_REQUEST, identifier)) => {
                    let of = |kind: XauthAttributeType, text: &str| Attribute {
                        kind: AttributeType(kind.0),
                        value: AttributeValue::Long(text.into()),
                    };
                    let all = vec![
                        of(XauthAttributeType::XAUTH_USER_NAME, USER[0]),
                        of(XauthAttributeType::XAUTH_USER_PASSWORD, USER[1]),
                    ];
                    vec![Payload::Attributes(Attributes {
                        kind: AttributesType::ISAKMP_CFG_REPLY,
                        identifier,
                        all,
                    })]
                }
                Some((AttributesType::ISAKMP_CFG_SET, identifier)) => {
                    let kind = AttributesType::ISAKMP_CFG_ACK;
                    vec![Payload::Attributes(Attributes { kind, identifier, all: vec![] })]
                }
                _ => vec![],
            };
            let payloads = answer.unwrap_or(&by_the_book);
            if payloads.is_empty() {
                continue;
            }
            let heard = match exchange {
                ExchangeType::TRANSACTION => self.say(end, (exchange, id), &[], payloads),
                ExchangeType::QUICK_MODE => {
                    let ni = chain.nonce().map(<[u8]>::to_vec).unwrap_or_default();
                    self.say(end, (exchange, id), &ni, payloads)
                }
                ExchangeType::IDENTITY_PROTECTION | ExchangeType::AGGRESSIVE => {
                    let Ok((first, octets)) = isakmp::emit(payloads) else { continue };
                    let of = Spis { initiator: header.initiator_spi, responder: IkeSpi(9) };
                    let ours = std::mem::replace(&mut self.spis, of);
                    let (octets, _) = self.message(exchange, 0, None, &octets, first);
                    self.spis = ours;
                    self.exchange(end, Some(octets))
                }
                _ => vec![],
            };
            // By the book there is no end to it that is not an end here.
            if answer.is_none() {
                self.take(end, heard, None);
            }
        }
    }

    fn step(&mut self, end: &mut End, (what, first, octets): Step) {
        let Ok(chain) = Chain::parse(PayloadType(first), &octets, false) else { return };
        let (payloads, more) = (&chain.payloads[..], what / 8);
        // What the engine asks is answered with them, or they are asked.
        let answer = Some(payloads).filter(|_| (3..7).contains(&(what % 8)));
        match what % 8 {
            0 => self.ask(end, ExchangeType::QUICK_MODE, more % 2 == 0, payloads),
            1 => self.ask(end, ExchangeType::INFORMATIONAL_V1, more % 4 != 1, payloads),
            2 => self.ask(end, ExchangeType::TRANSACTION, more % 2 == 0, payloads),
            3 => {}
            4 => end.child(&mut self.rng, self.now_ms),
            5 => end.rekey_child(more, &mut self.rng, self.now_ms),
            6 => end.rekey(more, &mut self.rng, self.now_ms),
            _ => self.now_ms += u64::from(more) * 1000,
        }
        let heard = self.exchange(end, None);
        self.take(end, heard, answer);
        self.now_ms += u64::from(what) * 10;
        end.tick(&mut self.rng, self.now_ms);
        let heard = self.exchange(end, None);
        self.take(end, heard, answer);
    }
}

fuzz_target!(|input: (Begin, Vec<Step>)| {
    let (begin, steps) = input;
    let mut rng = Rng(7);
    let mut end = End::new(0, Some(begin.ikev1()), &mut rng);
    let (mut peer, mut steps) = (Peer::new(begin, rng), steps.into_iter());
    let is_by_the_book = begin.by_the_book % 4 == 3;
    let _ = peer.begin(&mut end, &mut steps);
    if is_by_the_book && begin.user != User::OfEngine {
        assert!(end.engine.ike_sas().any(|sa| *sa.phase() == portcullis_ike::ike_sa::Phase::Established));
    }
    for step in steps {
        peer.step(&mut end, step);
        end.check();
        assert!(end.engine.ike_sas().count() < 64);
    }
});
