use super::*;
use crate::message::{Attribute, Payload, Payloads};
use proptest::{collection::vec, prelude::*, sample::subsequence};

fn ike(text: &str) -> Proposals {
    Proposals::ike(text.split(',')).unwrap()
}

fn esp(text: &str) -> Proposals {
    Proposals::esp(text.split(',')).unwrap()
}

/// What is offered, as the other side reads it.
fn sent(proposals: &Proposals, spi: &[u8]) -> Vec<message::Proposal> {
    let payloads = Payloads(vec![Payload::SecurityAssociation(proposals.offer(spi))]);
    let (first, octets) = payloads.emit().unwrap();
    let mut payloads = Payloads::parse(first, &octets).unwrap();
    let Payload::SecurityAssociation(offered) = payloads.0.remove(0) else { panic!() };
    offered
}

const SPI: [u8; 4] = [1, 2, 3, 4];

/// What both sides have in the end, in words, once the initiator has accepted the responder's choice.
fn agreed(initiator: &Proposals, responder: &Proposals, order: Order) -> Option<(u8, String)> {
    let is_ike = initiator.0[0].protocol == Protocol::IKE;
    let spi = if is_ike { &[][..] } else { &SPI };
    let agreement = responder.select(&sent(initiator, spi), order)?;
    let accepted = initiator.accept(&[agreement.answer(spi)]).unwrap();
    assert_eq!(accepted, agreement);
    assert_eq!((agreement.suite().is_some(), agreement.algorithm().is_some()), (is_ike, !is_ike));
    assert_eq!(agreement.child_spi(), (!is_ike).then_some(0x0102_0304));
    Some((agreement.number, agreement.to_string()))
}

fn some(number: u8, text: &str) -> Option<(u8, String)> {
    Some((number, text.to_owned()))
}

#[test]
fn what_is_offered_has_the_name_that_it_could_be_configured_by() {
    for proposals in
        [ike("aes128gcm16-aes256gcm16-prfsha256-x25519-ecp384"), esp("aes256-sha256-modp2048-noesn")]
    {
        let offered = sent(&proposals, &SPI[..0]);
        assert_eq!(name(&offered[0]), Some(proposals.to_string()));
    }
    let mut offered = sent(&ike("aes128gcm16-prfsha256-x25519"), &[]).remove(0);
    offered.transforms.push(message::Transform::new(TransformType::KE, 1));
    assert_eq!(name(&offered), None);
}

// RFC 7296 §2.7
#[test]
fn the_order_of_one_side_decides() {
    let initiator = ike("aes128-sha256-x25519,aes256gcm16-aes128gcm16-prfsha256-ecp256-x25519");
    let responder = ike("aes128gcm16-aes256gcm16-prfsha256-x25519-ecp256,aes128-sha256-x25519");
    assert_eq!(agreed(&initiator, &responder, Order::Ours), some(2, "aes128gcm16-prfsha256-x25519"));
    assert_eq!(agreed(&initiator, &responder, Order::Theirs), some(1, "aes128-sha256-prfsha256-x25519"));
    let initiator = ike("aes256gcm16-aes128gcm16-prfsha256-ecp256-x25519");
    assert_eq!(agreed(&initiator, &responder, Order::Ours), some(1, "aes128gcm16-prfsha256-x25519"));
    assert_eq!(agreed(&initiator, &responder, Order::Theirs), some(1, "aes256gcm16-prfsha256-ecp256"));
    assert_eq!(agreed(&ike("aes128-sha384-x25519"), &responder, Order::Ours), None);
}

// RFC 7296 §2.7, RFC 5282 §8
#[test]
fn an_ike_sa_has_a_suite() {
    let of = |text: &str| {
        let proposals = ike(text);
        proposals.select(&sent(&proposals, &[]), Order::Ours).unwrap()
    };
    let aead = of("aes256gcm16-sha384-ecp384");
    assert_eq!(aead.suite(), Suite::new(Encryption::AesGcm256, None, Prf::HmacSha384));
    assert_eq!(aead.key_exchange(), Some(KeyExchange::Ecp384));
    let cbc = of("aes192-sha512-prfsha256-modp2048");
    let suite = Suite::new(Encryption::AesCbc192, Some(Integrity::HmacSha512), Prf::HmacSha256);
    assert_eq!(cbc.suite(), suite);
    let hybrid = of("chacha20poly1305-prfsha256-x25519-ke1_mlkem768-ke3_ecp256-ke2_none");
    assert_eq!(hybrid.key_exchange(), Some(KeyExchange::X25519));
    assert!(hybrid.additional_key_exchanges().eq([KeyExchange::MlKem768, KeyExchange::Ecp256]));
    assert_eq!(
        (hybrid.esn(), hybrid.algorithm(), hybrid.child_spi(), hybrid.ike_spi()),
        (false, None, None, None)
    );
    // RFC 7296 §3.3.1: to rekey, there is an SPI of 8 octets.
    let proposals = ike("default");
    let rekey = proposals.select(&sent(&proposals, &[0, 0, 0, 0, 0, 0, 1, 2]), Order::Ours).unwrap();
    assert_eq!(rekey.ike_spi(), Some(IkeSpi(258)));
}

// RFC 7296 §2.17, RFC 8221: each algorithm of the SADB can be proposed, and is what comes of it.
#[test]
fn child_sas_have_each_algorithm_of_the_table() {
    for protocol in [sadb::Protocol::Esp, sadb::Protocol::Ah] {
        for algorithm in Algorithm::all_for(protocol) {
            let (e, i) = (algorithm.encryption().transform(), algorithm.integrity().transform());
            let row = |kind, row: &sadb::Transform| Transform { kind, id: row.id, key_bits: row.key_bits };
            let wire = match protocol {
                sadb::Protocol::Esp => Protocol::ESP,
                sadb::Protocol::Ah => Protocol::AH,
            };
            let (e, i) = (row(TransformType::ENCR, e), row(TransformType::INTEG, i));
            let parts = [e, i].into_iter().filter(|t| t.id != 0).collect::<Vec<_>>();
            let text = keyword::names(wire, &parts);
            let proposals = match protocol {
                sadb::Protocol::Esp => Proposals::esp([&*text]),
                sadb::Protocol::Ah => Proposals::ah([&*text]),
            }
            .unwrap();
            assert_eq!(proposals.to_string(), text.clone() + "-noesn");
            let agreement = proposals.select(&sent(&proposals, &SPI), Order::Ours).unwrap();
            assert_eq!(agreement.algorithm(), Some(algorithm), "{text}");
        }
    }
}

// RFC 7296 §3.3.2
#[test]
fn sequence_numbers_are_agreed_on() {
    let esn = |initiator, responder| {
        let (initiator, responder) = (esp(initiator), esp(responder));
        let agreement = responder.select(&sent(&initiator, &SPI), Order::Ours)?;
        Some(agreement.esn())
    };
    assert_eq!(esn("aes128gcm16", "aes128gcm16"), Some(false));
    assert_eq!(esn("aes128gcm16-esn-noesn", "aes128gcm16"), Some(false));
    assert_eq!(esn("aes128gcm16-noesn-esn", "aes128gcm16-esn-noesn"), Some(true));
    assert_eq!(esn("aes128gcm16-esn", "aes128gcm16"), None);
    assert_eq!(esn("aes128gcm16-esn", "default"), Some(true));
}

// RFC 7296 §1.2, §1.3.1, §2.7, §3.10.1
#[test]
fn another_key_exchange_is_asked_for() {
    let (initiator, responder) = (ike("aes128-sha256-x25519-ecp256"), ike("aes128-sha256-ecp256-modp2048"));
    let first = initiator.key_exchange().unwrap();
    assert_eq!(first, KeyExchange::X25519);
    let agreement = responder.select(&sent(&initiator, &[]), Order::Ours).unwrap();
    let wrong = agreement.check_key_exchange(Some(first.id())).unwrap_err();
    assert_eq!((wrong.wanted, wrong.notification()), (KeyExchange::Ecp256, [0, 19]));
    assert_eq!(agreement.check_key_exchange(None), Err(wrong));
    assert_eq!(agreement.check_key_exchange(Some(19)), Ok(()));
    let asked = |data: &[u8]| initiator.asked_key_exchange(data, first);
    assert_eq!(asked(&[0, 19]), Some(KeyExchange::Ecp256));
    // What was not offered, the same once more, and what is no number.
    for data in [&[0, 14][..], &[0, 31], &[0, 0], &[19], &[0, 0, 19], &[]] {
        assert_eq!(asked(data), None, "{data:?}");
    }
    // A child SA without key exchange has no KE payload, and one that is there is not looked at.
    let child = esp("aes128gcm16");
    let agreement = child.select(&sent(&child, &SPI), Order::Ours).unwrap();
    assert_eq!(agreement.key_exchange(), None);
    assert_eq!(
        (agreement.check_key_exchange(None), agreement.check_key_exchange(Some(14))),
        (Ok(()), Ok(()))
    );
}

// RFC 7296 §1.2, §1.3.1
#[test]
fn pfs_is_wanted_by_both_or_by_none() {
    let (with, without) = (esp("aes128gcm16-x25519"), esp("aes128gcm16"));
    assert_eq!(agreed(&with, &without, Order::Ours), None);
    assert_eq!(agreed(&without, &with, Order::Ours), None);
    let optional = esp("aes128gcm16-x25519-none");
    assert_eq!(agreed(&with, &optional, Order::Ours), some(1, "aes128gcm16-noesn-x25519"));
    assert_eq!(agreed(&without, &optional, Order::Ours), some(1, "aes128gcm16-noesn"));
    assert_eq!(agreed(&optional, &without, Order::Ours), some(1, "aes128gcm16-noesn-none"));
    // In IKE_AUTH there is none, and what was proposed with and without is proposed once.
    let both = esp("aes128gcm16-x25519,aes128gcm16,aes128gcm16-ecp256").without_key_exchange();
    assert_eq!(both.to_string(), "aes128gcm16-noesn");
    let [with, without] = [with, without].map(|proposals| proposals.without_key_exchange());
    assert_eq!(with.to_string(), "aes128gcm16-noesn");
    assert_eq!(agreed(&with, &without, Order::Ours), some(1, "aes128gcm16-noesn"));
}

// RFC 9370 §2.2.1, §2.2.2
#[test]
fn additional_key_exchanges_are_agreed_on() {
    let plain = ike("aes128gcm16-prfsha256-x25519");
    let hybrid = ike("aes128gcm16-prfsha256-x25519-ke1_mlkem768");
    let optional = ike("aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none");
    assert_eq!(agreed(&hybrid, &plain, Order::Ours), None);
    assert_eq!(agreed(&plain, &hybrid, Order::Ours), None);
    assert_eq!(agreed(&hybrid, &optional, Order::Ours), some(1, &hybrid.to_string()));
    assert_eq!(agreed(&plain, &optional, Order::Ours), some(1, &plain.to_string()));
    assert_eq!(agreed(&optional, &plain, Order::Ours), some(1, &(plain.to_string() + "-ke1_none")));
    // For a peer without IKE_INTERMEDIATE.
    assert_eq!(hybrid.without_additional_key_exchanges(), None);
    assert_eq!(optional.without_additional_key_exchanges(), Some(plain.clone()));
    assert_eq!(plain.without_additional_key_exchanges(), Some(plain));
}

// RFC 9370 §2.2.2: no method twice, though each of them has it.
#[test]
fn key_exchange_methods_are_all_different() {
    let two = ike("aes128gcm16-prfsha256-x25519-ecp256-ke1_x25519-ke1_ecp256");
    let one = ike("aes128gcm16-prfsha256-x25519-ecp256-ke1_x25519");
    assert_eq!(agreed(&two, &two, Order::Ours), some(1, "aes128gcm16-prfsha256-x25519-ke1_ecp256"));
    assert_eq!(agreed(&one, &two, Order::Ours), some(1, "aes128gcm16-prfsha256-ecp256-ke1_x25519"));
    let same = ike("aes128gcm16-prfsha256-x25519-ke1_x25519");
    assert_eq!(agreed(&same, &two, Order::Ours), None);
    // NONE is no method.
    let none = ike("aes128gcm16-prfsha256-x25519-ke1_none-ke2_none-ke3_mlkem768");
    assert_eq!(agreed(&none, &none, Order::Ours), some(1, &none.to_string()));
    let mut answer = two.select(&sent(&two, &[]), Order::Ours).unwrap().answer(&[]);
    for transform in &mut answer.transforms {
        if is_key_exchange(transform.kind) {
            transform.id = KeyExchange::X25519.id();
        }
    }
    assert_eq!(two.accept(&[answer]), Err(AcceptError::Changed(1)));
}

/// However often a peer says the same, choosing ends soon.
#[test]
fn repeated_transforms_cost_nothing() {
    let configured =
        ike("aes128gcm16-prfsha256-x25519-ke1_x25519-ke2_x25519-ke3_x25519-ke4_x25519-ke5_x25519");
    let mut offered = sent(&configured, &[]);
    let repeated = offered[0].transforms.iter().flat_map(|t| vec![t.clone(); 31]).collect();
    offered[0].transforms = repeated;
    for order in [Order::Ours, Order::Theirs] {
        assert_eq!(configured.select(&offered, order), None);
    }
}

// RFC 7296 §3.3.6
#[test]
fn what_is_not_known_is_not_chosen() {
    let responder = ike("aes128-aes256-sha256-x25519");
    let select = |change: &dyn Fn(&mut message::Proposal)| {
        let mut offered = sent(&ike("aes128-sha256-x25519"), &[]);
        change(&mut offered[0]);
        responder.select(&offered, Order::Ours).map(|a| a.to_string())
    };
    let whole = Some("aes128-sha256-prfsha256-x25519".to_owned());
    assert_eq!(select(&|_| ()), whole);
    // A number that is not known, and attributes that are not, or not there (RFC 7296 §3.3.5): others are chosen.
    let unknown = |at: usize| {
        move |p: &mut message::Proposal| {
            p.transforms.insert(at, message::Transform::new(p.transforms[at].kind, 1000))
        }
    };
    for at in 0..4 {
        assert_eq!(select(&unknown(at)), whole);
    }
    let attribute = |kind, value| Attribute { kind: AttributeType(kind), value };
    let changed: [&dyn Fn(&mut message::Transform); 6] = [
        &|t| t.attributes.push(attribute(99, AttributeValue::Short(1))),
        &|t| t.attributes.push(attribute(14, AttributeValue::Short(128))),
        &|t| t.attributes[0].value = AttributeValue::Long(vec![0, 128]),
        &|t| t.attributes[0].kind = AttributeType(15),
        &|t| t.attributes[0].value = AttributeValue::Short(129),
        &|t| t.attributes.clear(),
    ];
    for change in changed {
        assert_eq!(select(&|p| change(&mut p.transforms[0])), None);
        let beside = |p: &mut message::Proposal| {
            let mut other = p.transforms[0].clone();
            change(&mut other);
            p.transforms.insert(0, other);
        };
        assert_eq!(select(&beside), whole);
    }
    // A type that is not known, or of which nothing is known, or that the protocol does not have: the proposal is not.
    for kind in [13, 0, 200] {
        assert_eq!(select(&|p| p.transforms.push(message::Transform::new(TransformType(kind), 0))), None);
    }
    assert_eq!(select(&|p| p.transforms[1].id = 1000), None);
    assert_eq!(select(&|p| p.transforms.push(message::Transform::new(TransformType::ADDKE1, 1000))), None);
    assert_eq!(select(&|p| p.transforms.push(message::Transform::new(TransformType::ESN, 0))), None);
    // One without a type that we need, of another protocol, or with a wrong SPI.
    assert_eq!(select(&|p| drop(p.transforms.remove(0))), None);
    assert_eq!(select(&|p| p.protocol = Protocol::ESP), None);
    for len in [1, 4, 7, 9] {
        assert_eq!(select(&|p| p.spi = vec![1; len]), None);
    }
    assert_eq!(responder.select(&[], Order::Theirs), None);
}

// RFC 7296 §2.7, §3.3
#[test]
fn a_choice_is_of_what_was_offered() {
    let initiator = ike("aes128-sha256-x25519");
    let answer = initiator.select(&sent(&initiator, &[]), Order::Ours).unwrap().answer(&[]);
    let accept = |change: &dyn Fn(&mut message::Proposal)| {
        let mut answer = answer.clone();
        change(&mut answer);
        initiator.accept(&[answer]).map(|a| a.to_string())
    };
    assert_eq!(accept(&|_| ()).as_deref(), Ok("aes128-sha256-prfsha256-x25519"));
    assert_eq!(initiator.accept(&[]), Err(AcceptError::Count(0)));
    assert_eq!(initiator.accept(&[answer.clone(), answer.clone()]), Err(AcceptError::Count(2)));
    for number in [0, 2, 255] {
        assert_eq!(accept(&|p| p.number = number), Err(AcceptError::Number(number)));
    }
    for at in 0..4 {
        let kind = answer.transforms[at].kind;
        assert_eq!(accept(&|p| p.transforms.push(p.transforms[at].clone())), Err(AcceptError::Twice(kind)));
        assert_eq!(accept(&|p| drop(p.transforms.remove(at))), Err(AcceptError::Changed(1)));
        assert_eq!(accept(&|p| p.transforms[at].id += 1), Err(AcceptError::Changed(1)));
    }
    let longer = message::Transform::with_key_length(TransformType::ENCR, 12, 256);
    assert_eq!(accept(&|p| p.transforms[0] = longer.clone()), Err(AcceptError::Changed(1)));
    let more = message::Transform::new(TransformType::ADDKE1, 36);
    assert_eq!(accept(&|p| p.transforms.push(more.clone())), Err(AcceptError::Changed(1)));
    assert_eq!(accept(&|p| p.protocol = Protocol::ESP), Err(AcceptError::Changed(1)));
    assert_eq!(accept(&|p| p.spi = vec![0; 4]), Err(AcceptError::Changed(1)));
}

/// Alternatives of a type, and the proposals of a small world that they make.
fn row(kind: TransformType, ids: &'static [u16]) -> impl Strategy<Value = Vec<Transform>> {
    subsequence(ids, 0..=ids.len())
        .prop_shuffle()
        .prop_map(move |ids| ids.into_iter().map(|id| Transform { kind, id, key_bits: None }).collect())
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let rows = (
        row(TransformType::ENCR, &[1, 2, 3]),
        row(TransformType::INTEG, &[0, 1, 2]),
        row(TransformType::KE, &[0, 1, 2, 3]),
        row(TransformType::ADDKE1, &[0, 1, 2]),
        row(TransformType::ADDKE3, &[0, 1, 3]),
    );
    let protocol = prop_oneof![9 => Just(Protocol::IKE), 1 => Just(Protocol::ESP)];
    (rows, protocol)
        .prop_map(|((a, b, c, d, e), protocol)| Proposal { protocol, transforms: [a, b, c, d, e].concat() })
}

/// All that a responder may answer to a proposal: one transform of each of its types.
fn answers(theirs: &Proposal) -> Vec<Vec<Transform>> {
    let mut answers = vec![vec![]];
    for kind in TYPES.into_iter().filter(|kind| theirs.has(*kind)) {
        let with = |answer: &Vec<Transform>| {
            theirs.of(kind).map(|t| [&answer[..], &[t]].concat()).collect::<Vec<_>>()
        };
        answers = answers.iter().flat_map(with).collect();
    }
    answers
}

/// Whether we can do an answer: all of it, nothing that we need besides, and no key exchange twice.
fn can(ours: &Proposal, answer: &[Transform]) -> bool {
    TYPES.into_iter().all(|kind| {
        let may_be_none = ours.of(kind).next().is_none() || ours.of(kind).any(|t| t.id == 0);
        match answer.iter().find(|t| t.kind == kind) {
            Some(t) if t.id == 0 => may_be_none && kind != TransformType::ENCR,
            Some(t) => ours.transforms.contains(t),
            None => may_be_none && (kind != TransformType::ENCR || !ours.has(kind)),
        }
    }) && answer.iter().filter(|t| is_key_exchange(t.kind) && t.id != 0).enumerate().all(|(at, t)| {
        let mut others = answer.iter().filter(|t| is_key_exchange(t.kind) && t.id != 0).take(at);
        others.all(|other| other.id != t.id)
    })
}

proptest! {
    /// The best of all answers that there are, by the places in one side's order.
    #[test]
    fn the_choice_is_that_of_a_simple_model(ours in vec(proposal(), 1..4), theirs in vec(proposal(), 1..4)) {
        let ours = Proposals(ours);
        let spi = |p: &Proposal| if p.protocol == Protocol::IKE { vec![] } else { vec![0; 4] };
        let offered = |(number, p): (u8, &Proposal)| emit(number, p.protocol, &spi(p), &p.transforms);
        let offered: Vec<_> = iter::zip(1.., &theirs).map(offered).collect();
        for order in [Order::Ours, Order::Theirs] {
            let mut all = vec![];
            for (i, our) in ours.0.iter().enumerate() {
                for (j, their) in theirs.iter().enumerate().filter(|(_, t)| t.protocol == our.protocol) {
                    for answer in answers(their).into_iter().filter(|answer| can(our, answer)) {
                        let (places, of) = match order {
                            Order::Ours => ((i, j), our),
                            Order::Theirs => ((j, i), their),
                        };
                        let place = |t: &Transform| of.transforms.iter().position(|other| other == t);
                        let rank: Vec<_> = answer.iter().map(place).collect();
                        all.push((places, rank, j + 1, answer));
                    }
                }
            }
            let best = all.into_iter().min_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            let chosen = ours.select(&offered, order);
            let chosen = chosen.map(|a| (usize::from(a.number), a.transforms));
            prop_assert_eq!(chosen, best.map(|(_, _, number, answer)| (number, answer)));
        }
    }

    /// Whatever is chosen is accepted, and nothing that was not offered.
    #[test]
    fn exactly_what_was_offered_is_accepted(ours in vec(proposal(), 1..3), answer in proposal(), number in 0..4u8) {
        let ours = Proposals(ours);
        let spi = if answer.protocol == Protocol::IKE { vec![] } else { vec![0; 4] };
        let accepted = ours.accept(&[emit(number, answer.protocol, &spi, &answer.transforms)]);
        let of = usize::from(number).checked_sub(1).and_then(|at| ours.0.get(at));
        let is_one = answers(&answer).len() == 1;
        let is_right = of.is_some_and(|of| {
            of.protocol == answer.protocol && is_one && answers(&answer).iter().all(|answer| can(of, answer))
        });
        let has_two = TYPES.into_iter().any(|kind| answer.of(kind).count() > 1);
        prop_assert_eq!(accepted.is_ok(), is_right && !has_two);
    }
}
