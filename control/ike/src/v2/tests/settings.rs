//! What connections say of their messages, and of the keys and certificates in them.

use super::{
    events,
    signatures::{paper, trusting},
    world::{LEFT, RIGHT, World, config, connection},
};
use crate::{
    connection::{Configuration, LocalAuth, SendCertificates, SharedKey},
    identity::IdPattern,
    message::{ExchangeType, Header},
    output::{Event, Output},
    pki::{chain::Trust, credential::Credential},
};

fn counts(world: &World) -> [usize; 2] {
    [LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count())
}

fn up(world: &mut World) -> bool {
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    counts(world) == [1, 1]
}

// RFC 7670; as strongSwan, with or without a word of the key in a CERT payload.
#[test]
fn ends_sign_with_keys_that_the_other_has() {
    for kind in ["ecp256", "ecp384", "ed25519"] {
        let paper = paper(kind);
        for right in 0..4 {
            let mut world = paper.world(1);
            let public = |end: usize| paper.ends[end].certificate.key().clone();
            let knows = |keys| Trust { keys, ..Trust::default() };
            world.configure(LEFT, |c| {
                c.local_auth = LocalAuth::PublicKey(Credential::raw(paper.ends[LEFT].key()))
            });
            trusting(&mut world, LEFT, knows(vec![public(RIGHT)]));
            let keys = match right {
                0 => vec![public(LEFT)],
                // One of several; another's alone; none, and certificates.
                1 => vec![public(RIGHT), public(LEFT)],
                2 => vec![public(RIGHT)],
                _ => vec![],
            };
            let anchors = vec![paper.root.certificate.clone()];
            trusting(
                &mut world,
                RIGHT,
                Trust { anchors: if right == 3 { anchors } else { vec![] }, ..knows(keys) },
            );
            assert_eq!(up(&mut world), right < 2, "{kind} {right}");
            if right < 2 {
                world.check_children(1);
            }
        }
    }
}

// RFC 7296 §3.6, §3.7
#[test]
fn certificates_are_sent_where_it_is_said_so() {
    use SendCertificates::{Always, Asked, Never};
    let paper = paper("ecp256");
    for (sends, asks, knows, is_up) in [
        (Asked, true, false, true),
        (Always, false, false, true),
        (Asked, false, false, false),
        (Never, true, false, false),
        // Who has it already needs none.
        (Asked, false, true, true),
        (Never, true, true, true),
    ] {
        for at in [LEFT, RIGHT] {
            let mut world = paper.world(1);
            world.configure(at, |c| c.sends_certificates = sends);
            world.configure(1 - at, |c| c.asks_for_certificates = asks);
            if knows {
                let pinned = vec![paper.ends[at].certificate.clone()];
                trusting(&mut world, 1 - at, Trust { pinned, ..Trust::default() });
            }
            assert_eq!(up(&mut world), is_up, "{sends:?} {asks} {knows} {at}");
        }
    }
}

/// As strongSwan, but for one that is of us and of somebody else.
#[test]
fn a_shared_key_is_that_of_the_peer_or_else_one_of_us_alone() {
    let id = |text: &str| text.parse::<IdPattern>().unwrap();
    let key = |ids: &[&str], key: &str| SharedKey {
        ids: ids.iter().map(|text| id(text)).collect(),
        key: key.as_bytes().to_vec().into(),
    };
    let all = [
        key(&["gw"], "us"),
        key(&["gw", "carol"], "us and carol"),
        key(&["dave"], "dave"),
        key(&["%any"], "anybody"),
        key(&["gw", "*.example.org"], "us and others"),
    ];
    let found = |keys: &[SharedKey], mine: &str, theirs: &str| {
        let config = Configuration { shared_keys: keys.to_vec(), ..Configuration::default() };
        let [mine, theirs] = [mine, theirs].map(|text| id(text).identity().unwrap());
        config.shared_key(&mine, &theirs).map(|key| String::from_utf8(key.bytes().to_vec()).unwrap())
    };
    for (mine, theirs, wanted) in [
        ("gw", "carol", "us and carol"),
        ("gw", "dave", "dave"),
        ("gw", "a.example.org", "us and others"),
        ("gw", "eve", "anybody"),
        ("other", "carol", "us and carol"),
        ("other", "eve", "anybody"),
    ] {
        assert_eq!(found(&all, mine, theirs).as_deref(), Some(wanted), "{mine} {theirs}");
    }
    // Without one for anybody.
    assert_eq!(found(&all[..3], "gw", "eve").as_deref(), Some("us"));
    assert_eq!(found(&all[1..3], "gw", "eve"), None, "carol has that key");
    assert_eq!(found(&all[..3], "other", "eve"), None);
}

#[test]
fn the_first_messages_are_sent_again_from_the_beginning() {
    let lasts = |tries: u32| {
        let mut world = World::new(1, [LEFT, RIGHT].map(|end| config(connection("a", end))));
        world.loss = 100;
        world.configure(LEFT, |c| c.keying_tries = tries);
        world.initiate(LEFT, Some(0));
        while world.ends[LEFT].engine.sas().count() == 1 && world.now_ms < 3_600_000 {
            world.run_for(1000);
        }
        (world.now_ms, matches!(events(&world, LEFT).last(), Some(Event::Closed(_))))
    };
    let (once, is_closed) = lasts(1);
    assert!(is_closed && (160_000..170_000).contains(&once), "{once}");
    let (thrice, is_closed) = lasts(3);
    assert!(is_closed && (3 * once - 20_000..3 * once).contains(&thrice), "{thrice}");
    assert!(!lasts(0).1);
    // An IKE SA that is there is given up at once.
    let mut world = World::new(1, [LEFT, RIGHT].map(|end| config(connection("a", end))));
    world.configure(LEFT, |c| (c.keying_tries, c.dpd_ms) = (0, 10_000));
    assert!(up(&mut world));
    world.loss = 100;
    world.run_for(200_000);
    assert_eq!(world.ends[LEFT].engine.sas().count(), 0);
}

/// What has forgotten the IKE SA meanwhile is not asked for ever to go on with it.
#[test]
fn what_is_given_up_behind_the_first_messages_begins_anew() {
    // Behind a NAT each end sees others' addresses.
    let check_up = |world: &World| match world.nat {
        None => world.check_children(1),
        Some(_) => {
            assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].installed.len()), [1, 1]);
            assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).path().local.port()), [4500, 4500]);
        }
    };
    for tries in [0, 2] {
        for nat in [None, Some("198.51.100.1:7000".parse().unwrap())] {
            let mut world = World::new(1, [LEFT, RIGHT].map(|end| config(connection("a", end))));
            world.nat = nat;
            world.configure(LEFT, |c| (c.keying_tries, c.resumes) = (tries, true));
            world.configure(RIGHT, |c| {
                c.resumes = true;
                if nat.is_some() {
                    c.remote = crate::connection::Hosts::Any;
                }
            });
            world.lost = Some(ExchangeType::IKE_AUTH);
            world.initiate(LEFT, Some(0));
            world.run_for(60_000);
            // The responder waits no more.
            assert_eq!(counts(&world), [1, 0]);
            let spi = world.only_sa(LEFT).spis().initiator;
            world.lost = None;
            world.run_for(200_000);
            check_up(&world);
            assert_eq!(world.only_sa(LEFT).spis(), world.only_sa(RIGHT).spis());
            assert_ne!(world.only_sa(LEFT).spis().initiator, spi);
            // It is known by its SPI, and by no other.
            let [id, other] = [LEFT, RIGHT].map(|end| world.only_sa(end).id());
            world.with(RIGHT, |engine, cx| engine.rekey(other, cx));
            world.run_for(10_000);
            check_up(&world);
            assert_ne!(world.only_sa(LEFT).id(), id);
        }
    }
    // As often as it may, and no more.
    let mut world = World::new(1, [LEFT, RIGHT].map(|end| config(connection("a", end))));
    world.configure(LEFT, |c| c.keying_tries = 2);
    world.lost = Some(ExchangeType::IKE_AUTH);
    assert!(!up(&mut world));
    assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed("the peer does not answer".into())));
    let first = |octets: &&Vec<u8>| Header::parse(octets).unwrap().0.exchange == ExchangeType::IKE_SA_INIT;
    assert_eq!(world.requests.iter().filter(first).count(), 2);
}

/// The messages of an IKE SA have the DSCP of its connection, and say of fragments what it says.
#[test]
fn a_connection_has_a_dscp_and_may_say_nothing_of_fragments() {
    let mut world = World::new(1, [LEFT, RIGHT].map(|end| config(connection("a", end))));
    world.configure(LEFT, |c| (c.dscp, c.says_fragments) = (0b101110, false));
    let (connection, mut classes) = (world.ends[LEFT].config.connections[0].clone(), vec![]);
    let addresses = [LEFT, RIGHT].map(super::world::address);
    world.with(LEFT, |engine, cx| {
        engine.initiate(&connection, None, (addresses[0], addresses[1]), cx);
        while let Some((id, job)) = take_job(cx) {
            let outcome = job.run(cx.rng);
            engine.done(id, outcome, cx);
        }
        for output in &*cx.out {
            if let Output::Send(datagram) = output {
                classes.push(datagram.dscp);
                let (header, ..) = Header::parse(&datagram.octets).unwrap();
                assert_eq!(header.exchange, ExchangeType::IKE_SA_INIT);
                // IKEV2_FRAGMENTATION_SUPPORTED, without data.
                let notify = [0, 8, 0, 0, 0x40, 0x2e];
                assert!(!datagram.octets.windows(6).any(|w| w == notify));
            }
        }
    });
    assert_eq!(classes, [0b101110]);
}

fn take_job(cx: &mut crate::v2::context::Context<'_>) -> Option<(crate::output::JobId, crate::v2::job::Job)> {
    let at = cx.out.iter().position(|output| matches!(output, Output::Job(..)))?;
    match cx.out.remove(at)? {
        Output::Job(id, job) => Some((id, job)),
        _ => None,
    }
}
