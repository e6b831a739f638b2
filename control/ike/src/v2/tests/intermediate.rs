use super::{
    events,
    world::{LEFT, RIGHT, World, config, connection, ike},
};
use crate::{
    connection::Connection,
    message::{self, Notify, NotifyType, Payload, Payloads},
    v2::{channel::Dropped, output::Event, refused::Refused, sa_init},
};

/// A connection whose IKE SA is of this proposal.
fn with(name: &str, end: usize, proposals: &str) -> Connection {
    Connection { proposals: ike(proposals), ..connection(name, end) }
}

const HYBRID: &str = "aes128gcm16-sha256-x25519-ke1_mlkem768";
const THREE: &str = "aes256-sha384-ecp256-ke1_mlkem1024-ke3_x25519-ke7_mlkem512";

// RFC 9370 §2.2.1, RFC 9242 §3.2
#[test]
fn keys_are_exchanged_several_times() {
    // Requests and responses, of which those with keys of ML-KEM-768 and 1024 are of two datagrams.
    for (proposal, datagrams) in [(HYBRID, 4 + 3), (THREE, 4 + 4 + 2 + 2)] {
        let [left, right] = [LEFT, RIGHT].map(|end| config(with("net", end, proposal)));
        let mut world = World::new(1, [left, right]);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(world.carried, datagrams, "{proposal}");
        for end in [LEFT, RIGHT] {
            assert!(world.ends[end].refused.is_empty());
            assert_eq!(world.only_sa(end).agreement().unwrap().to_string(), ike(proposal).to_string());
        }
        // It goes on with the keys of the last.
        let id = world.only_sa(RIGHT).id();
        world.with(RIGHT, |engine, cx| engine.terminate(id, cx));
        world.run_until_quiet();
        world.check_children(0);
        assert_eq!(world.ends[LEFT].engine.sas().count(), 0);
    }
}

#[test]
fn whatever_the_network_does_keys_are_exchanged() {
    let seeds = 0..300;
    println!("seeds {seeds:?}");
    let mut up = 0;
    for seed in seeds.clone() {
        let [left, right] = [LEFT, RIGHT].map(|end| config(with("net", end, HYBRID)));
        let mut world = World::new(seed, [left, right]);
        (world.loss, world.again, world.late_ms) = (15, 20, 2000);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        if world.ends[LEFT].engine.sas().count() == 1 {
            up += 1;
            world.check_children(1);
        }
    }
    assert!(up > seeds.end * 8 / 10, "{up}");
}

// RFC 9370 §2.2.1, §2.2.2
#[test]
fn a_peer_without_them_is_offered_what_is_left() {
    let optional = "aes128gcm16-sha256-x25519-ke1_mlkem768-ke1_none";
    let plain = "aes128gcm16-sha256-x25519";
    for (left, right, agreed) in [
        (optional, plain, Some("aes128gcm16-sha256-x25519-ke1_none")),
        (plain, optional, Some(plain)),
        (optional, HYBRID, Some(HYBRID)),
        (HYBRID, optional, Some(HYBRID)),
        (HYBRID, plain, None),
        (plain, HYBRID, None),
    ] {
        let configs = [config(with("a", LEFT, left)), config(with("b", RIGHT, right))];
        let mut world = World::new(2, configs);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        match agreed {
            Some(agreed) => {
                world.check_children(1);
                let agreement = world.only_sa(RIGHT).agreement().unwrap().to_string();
                assert_eq!(agreement, ike(agreed).to_string(), "{left} {right}");
            }
            None => {
                let why = format!("the peer says NO_PROPOSAL_CHOSEN: it was offered {}", ike(left));
                assert_eq!(events(&world, LEFT), [Event::Closed(why)], "{left} {right}");
            }
        }
    }
}

// RFC 9370 §2.2.1: without IKE_INTERMEDIATE, they are transforms of unknown types.
#[test]
fn without_ike_intermediate_proposals_with_more_are_skipped() {
    let mut both = ike("aes128gcm16-sha256-x25519-ke1_mlkem768-ke1_none").for_any_peer().offer(&[]);
    let numbers = |proposals: &[message::Proposal]| proposals.iter().map(|p| p.number).collect::<Vec<_>>();
    let mut payloads = Payloads(vec![Payload::SecurityAssociation(both.clone())]);
    assert_eq!(numbers(&sa_init::offered(&payloads).unwrap()), [2]);
    let says = Notify::new(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]);
    payloads.0.push(Payload::Notify(says));
    assert_eq!(numbers(&sa_init::offered(&payloads).unwrap()), [1, 2]);
    // Nobody is offered the same twice.
    both = ike("aes128gcm16-sha256-x25519").for_any_peer().offer(&[]);
    assert_eq!(numbers(&both), [1]);
}

// RFC 7296 §1.2, §2.6
#[test]
fn a_cookie_and_another_method_are_asked_for_first() {
    let left = with("a", LEFT, "aes128gcm16-sha256-mlkem768-x25519-ke1_mlkem768-ke1_ecp256");
    let mut right = config(with("b", RIGHT, "aes128gcm16-sha256-x25519-ke1_mlkem768"));
    right.cookies_from = 0;
    let mut world = World::new(3, [config(left), right]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    assert_eq!(world.ends[RIGHT].refused.len(), 2);
    let agreement = world.only_sa(LEFT).agreement().unwrap().to_string();
    assert_eq!(agreement, ike("aes128gcm16-sha256-x25519-ke1_mlkem768").to_string());
}

/// AUTH is over what was said in all exchanges: a responder that has another shared key is found out behind them.
#[test]
fn both_are_authenticated_behind_them() {
    let mut world = World::new(4, [LEFT, RIGHT].map(|end| config(with("net", end, HYBRID))));
    world.ends[RIGHT].config.shared_keys[0].key = b"another".to_vec().into();
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let why = "the peer says AUTHENTICATION_FAILED: we are left.example.org, by a shared key, and asked for right.example.org";
    let refused = Event::Closed(why.into());
    assert_eq!(events(&world, LEFT), [refused]);
}

/// The responder has new keys with its answer: if that is lost, the request comes again, sealed with the old ones.
// RFC 7296 §2.1, RFC 9242 §3.3.1
#[test]
fn a_lost_answer_is_sent_again_though_keys_have_changed() {
    let mut world = World::new(5, [LEFT, RIGHT].map(|end| config(with("net", end, THREE))));
    world.ends[RIGHT].config.half_open_ms = 120_000;
    world.initiate(LEFT, Some(0));
    for exchanges in 2..=4 {
        // The answer to each IKE_INTERMEDIATE is lost twice.
        while world.messages_of(LEFT) < exchanges {
            world.run_for(1);
        }
        world.one_way = Some(RIGHT);
        world.run_for(10_000);
        world.one_way = None;
    }
    world.run_until_quiet();
    world.check_children(1);
    let dropped = |refused: &Refused| matches!(refused, Refused::Dropped(Dropped::MessageId(_)));
    // Of what came again in fragments, the first asks for the answer, and the others nothing.
    assert!(world.ends[RIGHT].refused.iter().all(dropped), "{:?}", world.ends[RIGHT].refused);
}
