//! Two engines in a box that speak IKEv1.

mod aggressive;
mod bundle;
mod commit;
mod fragments;
mod kept;
mod remote_access;
mod seeds;
mod strangers;

use crate::{
    child::Install,
    connection::{Configuration, Connection, Ikev1, LocalAuth, RemoteAuth},
    crypto::{Secret, key_log::KeyLog},
    ike_sa::{IkeSa, Phase},
    message::{Header, IkeSpi},
    output::{Datagram, Event},
    pki::chain::Trust,
    proposal::Proposals,
    v2::{
        refused::Refused,
        tests::{
            signatures::{Paper, paper},
            world::{self, LEFT, RIGHT, World, address, config},
        },
    },
};
use portcullis_sadb::Mode;
use std::sync::Arc;

/// The connection of an end to the other.
fn connection(name: &str, end: usize) -> Connection {
    let mut connection = Connection {
        ikev1: Some(Ikev1::default()),
        proposals: Proposals::ike(["aes128-sha256-ecp256", "aes256-sha384-modp2048"]).unwrap(),
        ..world::connection(name, end)
    };
    change_child(&mut connection, |child| {
        child.proposals = Proposals::esp(["aes128gcm16-ecp256", "aes256-sha256"]).unwrap();
    });
    connection
}

/// In aggressive mode, if so.
fn set_aggressive(connection: &mut Connection, is_aggressive: bool) {
    connection.ikev1.iter_mut().for_each(|v1| v1.is_aggressive = is_aggressive);
}

fn change_child(connection: &mut Connection, change: impl FnOnce(&mut crate::connection::Child)) {
    change(Arc::make_mut(&mut connection.children[0]));
}

fn world_as(seed: u64, change: impl Fn(usize, &mut Connection)) -> World {
    let of = |end: usize| -> Configuration {
        let mut connection = connection(["a", "b"][end], end);
        change(end, &mut connection);
        config(connection)
    };
    let mut world = World::new(seed, [of(LEFT), of(RIGHT)]);
    // RFC 2409 §5.5: keys of two SAs with one SPI would be the same.
    world.ends[RIGHT].next_spi += 0x1_0000;
    world
}

fn events(world: &World, end: usize) -> Vec<Event> {
    world.ends[end].events.iter().map(|(_, event)| event.clone()).collect()
}

fn only(world: &World, end: usize) -> &dyn IkeSa {
    let mut all = world.ends[end].engine.ike_sas();
    let sa = all.next().expect("there is an ISAKMP SA");
    assert!(all.next().is_none(), "there is one ISAKMP SA");
    sa
}

/// What is agreed on, with all of it up.
fn comes_up(mut world: World) -> World {
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    for end in [LEFT, RIGHT] {
        let [Event::Established, Event::ChildUp(name, _)] = &events(&world, end)[..] else {
            panic!("{end}: {:?} {:?}", world.ends[end].events, world.ends[end].refused);
        };
        assert_eq!(name, "net");
        let sa = only(&world, end);
        assert_eq!((sa.version(), sa.phase(), sa.children().len()), (1, &Phase::Established, 1));
    }
    world.check_children(1);
    assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
    world
}

fn install(world: &World, end: usize) -> &Install {
    world.ends[end].installed.values().next().unwrap()
}

#[test]
fn an_isakmp_sa_and_its_child_come_up_and_go() {
    let mut world = comes_up(world_as(1, |_, _| {}));
    assert_eq!(install(&world, LEFT).sa.agreement.to_string(), "aes128gcm16-noesn-ecp256");
    assert_eq!(only(&world, LEFT).agreement().unwrap().to_string(), "aes128-sha256-prfsha256-ecp256");
    assert!(!install(&world, LEFT).is_in_udp);
    // One end deletes the child, the other one the ISAKMP SA.
    let spi = only(&world, RIGHT).children()[0].spi_in;
    world.with(RIGHT, |engine, cx| assert!(engine.terminate_child(spi, cx)));
    world.run_until_quiet();
    world.check_children(0);
    let id = only(&world, LEFT).id();
    world.with(LEFT, |engine, cx| assert!(engine.terminate(id, cx)));
    world.run_until_quiet();
    for (end, why) in [(LEFT, "deleted"), (RIGHT, "the peer has deleted it")] {
        assert_eq!(world.ends[end].engine.ike_sas().count(), 0);
        assert_eq!(events(&world, end).last(), Some(&Event::Closed(why.into())));
    }
}

#[test]
fn there_is_an_end_to_isakmp_sas() {
    let mut world = world_as(2, |_, _| {});
    world.ends[RIGHT].config.most_ike_sas = 1;
    let mut world = comes_up(world);
    world.initiate(LEFT, Some(0));
    world.run_for(60_000);
    assert_eq!(world.ends[RIGHT].engine.ike_sas().count(), 1);
    let refused = &world.ends[RIGHT].refused;
    assert!(!refused.is_empty() && refused.iter().all(|why| *why == Refused::Full), "{refused:?}");
    assert_eq!(world.ends[RIGHT].engine.half_open(), 0);
}

#[test]
fn with_an_isakmp_sa_go_its_children() {
    let mut world = comes_up(world_as(1, |_, _| {}));
    let id = only(&world, RIGHT).id();
    world.with(RIGHT, |engine, cx| assert!(engine.terminate(id, cx)));
    world.run_until_quiet();
    assert!(world.ends.iter().all(|end| end.installed.is_empty() && end.engine.ike_sas().count() == 0));
}

// RFC 2409 §5.5, RFC 2407 §4.5
#[test]
fn child_sas_are_made_of_what_both_have() {
    for (proposals, ah, agreed) in [
        ("aes128-sha256", false, "aes128-sha256-noesn"),
        ("aes256-sha384-modp2048", false, "aes256-sha384-noesn-modp2048"),
        ("aes128-sha1-ecp384", false, "aes128-sha1-noesn-ecp384"),
        ("aes192gcm16-esn-noesn", false, "aes192gcm16-esn"),
        ("aes256ccm16-x25519", false, "aes256ccm16-noesn-x25519"),
        ("aes128gmac", false, "aes128gmac-noesn"),
        ("aes128ctr-aesxcbc", false, "aes128ctr-aesxcbc-noesn"),
        ("camellia256-sha512", false, "camellia256-sha512-noesn"),
        ("3des-sha1", false, "3des-sha1-noesn"),
        ("null-sha256", false, "null-sha256-noesn"),
        ("sha256-ecp521", true, "sha256-noesn-ecp521"),
        ("aes256gmac", true, "aes256gmac-noesn"),
        ("sha512-esn", true, "sha512-esn"),
    ] {
        let world = comes_up(world_as(2, |_, connection| {
            let of = if ah { Proposals::ah([proposals]) } else { Proposals::esp([proposals]) };
            change_child(connection, |child| child.proposals = of.unwrap());
        }));
        assert_eq!(install(&world, RIGHT).sa.agreement.to_string(), agreed);
    }
}

#[test]
fn isakmp_sas_are_made_of_what_both_have() {
    for (proposals, agreed) in [
        ("aes256-sha512-modp4096", "aes256-sha512-prfsha512-modp4096"),
        ("aes192-sha1-modp2048", "aes192-sha1-prfsha1-modp2048"),
        ("aes128-sha256-x25519", "aes128-sha256-prfsha256-x25519"),
        ("aes256gcm16-prfsha256-ecp256,aes128-sha384-ecp521", "aes128-sha384-prfsha384-ecp521"),
    ] {
        let world = comes_up(world_as(3, |_, connection| {
            connection.proposals = Proposals::ike(proposals.split(',')).unwrap();
        }));
        assert_eq!(only(&world, LEFT).agreement().unwrap().to_string(), agreed);
    }
}

#[test]
fn transport_mode_is_between_the_ends() {
    let world = comes_up(world_as(4, |_, connection| {
        let all = crate::traffic_selector::ConfiguredSelectors::parse(["dynamic"]).unwrap();
        change_child(connection, |child| {
            (child.mode, child.local, child.remote) = (Mode::Transport, all.clone(), all);
        });
    }));
    assert_eq!(install(&world, LEFT).sa.mode, Mode::Transport);
}

// RFC 2409 §5.1, RFC 4754
#[test]
fn ends_prove_who_they_are_by_signatures() {
    for (kind, proposal) in [
        ("rsa", "aes128-sha256-ecp256"),
        ("rsa", "aes128-sha1-modp2048"),
        ("ecp256", "aes128-sha256-ecp256"),
        ("ecp384", "aes256-sha384-ecp384"),
    ] {
        let paper = paper(kind);
        let mut world = world_as(5, |end, connection| {
            connection.local_auth = paper.local(end);
            connection.remote_auth = RemoteAuth::PublicKey(Arc::new(paper.trust()));
            connection.proposals = Proposals::ike([proposal]).unwrap();
        });
        world.now_ms = 1;
        let world = comes_up(world);
        assert!(matches!(only(&world, LEFT).connection().local_auth, LocalAuth::PublicKey(_)));
    }
}

#[test]
fn where_some_are_pinned_others_are_not_believed() {
    let paper = paper("ecp256");
    let world = |pinned: usize| {
        let mut world = world_as(5, |end, connection| {
            let pinned = vec![paper.ends[pinned].certificate.clone()];
            let trust = Trust { pinned, ..paper.trust() };
            connection.local_auth = paper.local(end);
            connection.remote_auth =
                RemoteAuth::PublicKey(Arc::new(if end == RIGHT { trust } else { paper.trust() }));
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world
    };
    world(LEFT).check_children(1);
    let refused = world(RIGHT);
    assert_eq!(
        events(&refused, RIGHT).last(),
        Some(&Event::Closed(
            "left.example.org is not authenticated: certificate 'O=Test, CN=left.example.org': certs: it is none \
             of those that the connection's `remote` names"
                .into()
        ))
    );
    refused.check_children(0);
}

/// As strongSwan: of connections that fit alike, the certificate says which it is.
#[test]
fn the_connection_is_the_one_that_believes_the_certificate() {
    let (ours, others) = (paper("ecp256"), paper("ecp256"));
    let world = |first: &Paper, second: &Paper| {
        let mut world = world_as(5, |end, connection| {
            connection.local_auth = ours.local(end);
            let of = if end == RIGHT { first } else { &ours };
            connection.remote_auth = RemoteAuth::PublicKey(Arc::new(of.trust()));
        });
        let first = (*world.ends[RIGHT].config.connections[0]).clone();
        let remote_auth = RemoteAuth::PublicKey(Arc::new(second.trust()));
        let second = Connection { name: "second".into(), remote_auth, ..first };
        world.ends[RIGHT].config.connections.push(Arc::new(second));
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world
    };
    for (first, second, name) in [(&others, &ours, "second"), (&ours, &others, "b"), (&ours, &ours, "b")] {
        let world = world(first, second);
        world.check_children(1);
        assert_eq!(only(&world, RIGHT).connection().name, name);
    }
    world(&others, &others).check_children(0);
}

// RFC 3947
#[test]
fn behind_a_nat_all_goes_in_udp() {
    let mut world = world_as(6, |_, _| {});
    world.configure(RIGHT, |connection| connection.remote = crate::connection::Hosts::Any);
    world.nat = Some("203.0.113.1:1000".parse().unwrap());
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    for end in [LEFT, RIGHT] {
        let install = install(&world, end);
        assert!(install.is_in_udp, "{end}");
        assert_eq!(install.local.port(), 4500);
        assert_eq!((install.nat.is_here, install.nat.is_there), (end == LEFT, end == RIGHT));
    }
}

#[test]
fn another_shared_key_proves_nothing() {
    let mut world = world_as(7, |_, _| {});
    world.ends[RIGHT].config.shared_keys[0].key = b"another".to_vec().into();
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    for end in [LEFT, RIGHT] {
        assert_eq!(world.ends[end].engine.ike_sas().count(), 0, "{end}");
        let Some(Event::Closed(why)) = events(&world, end).pop() else { panic!() };
        println!("{end}: {why}");
    }
}

#[test]
fn nothing_in_common_is_said() {
    let mut world = world_as(8, |_, _| {});
    world.configure(RIGHT, |connection| {
        connection.proposals = Proposals::ike(["aes256-sha512-ecp521"]).unwrap();
    });
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(events(&world, LEFT), [Event::Closed("the peer says NO_PROPOSAL_CHOSEN".into())]);
    let mut world = world_as(8, |_, _| {});
    world.configure(RIGHT, |connection| {
        change_child(connection, |child| child.proposals = Proposals::esp(["aes256gcm16"]).unwrap());
    });
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let failed = Event::ChildFailed("net".into(), "the peer says NO_PROPOSAL_CHOSEN".into());
    assert_eq!(events(&world, LEFT), [Event::Established, failed]);
    world.check_children(0);
}

// RFC 2407 §4.6.3.1
#[test]
fn the_shorter_lifetime_is_that_of_both() {
    let mut world = world_as(14, |end, connection| {
        change_child(connection, |child| child.handling.lifetime.hard.secs = [3600, 1200][end]);
    });
    world = comes_up(world);
    for end in [LEFT, RIGHT] {
        let at = only(&world, end).children()[0].rekey_at_ms;
        assert!((1_079_000..1_082_000).contains(&at), "{end}: {at}");
    }
}

/// Off unless a connection says so.
#[test]
fn without_a_connection_of_it_there_is_none() {
    let mut world = world_as(9, |end, connection| {
        if end == RIGHT {
            connection.ikev1 = None;
        }
    });
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(events(&world, LEFT), [Event::Closed("the peer does not answer".into())]);
    assert!(world.ends[RIGHT].events.is_empty());
    assert!(world.ends[RIGHT].refused.iter().all(|why| *why == crate::v2::refused::Refused::Version));
}

#[test]
fn a_child_is_replaced_without_a_gap_by_either_end() {
    for end in [LEFT, RIGHT] {
        let mut world = comes_up(world_as(10, |_, _| {}));
        world.is_steady = true;
        let before: Vec<u32> = world.ends[LEFT].installed.keys().copied().collect();
        let spi = only(&world, end).children()[0].spi_in;
        world.with(end, |engine, cx| assert!(engine.rekey_child(spi, cx)));
        world.run_until_quiet();
        world.check_children(1);
        let after: Vec<u32> = world.ends[LEFT].installed.keys().copied().collect();
        assert_ne!(before, after);
        let is_replaced = |event: &Event| matches!(event, Event::ChildReplaced(..));
        assert!([LEFT, RIGHT].iter().all(|end| events(&world, *end).iter().any(is_replaced)));
    }
}

/// RFC 2409 says nothing of it: both have both then, and one of them goes.
#[test]
fn one_child_is_left_where_both_replace_it_at_once() {
    let mut both = 0;
    for seed in 0..200 {
        let mut world = comes_up(world_as(seed, |_, connection| connection.dpd_ms = 0));
        // Where messages are as fast as each other, no packet is lost; what comes after what was sent later may end what is still sent
        // by, which is taken for a while (`Children::remove_replaced`).
        world.late_ms = if seed % 2 == 0 { seed * 4 } else { seed % 7 };
        world.is_steady = world.late_ms == 0;
        let before = world.ends[LEFT].next_spi;
        for end in [LEFT, RIGHT] {
            let spi = only(&world, end).children()[0].spi_in;
            world.with(end, |engine, cx| assert!(engine.rekey_child(spi, cx)));
        }
        world.run_for(20_000);
        world.check_children(1);
        both += usize::from(world.ends[LEFT].next_spi == before + 2);
        // It goes on with that one.
        let spi = only(&world, LEFT).children()[0].spi_in;
        world.with(LEFT, |engine, cx| assert!(engine.rekey_child(spi, cx)));
        world.run_for(20_000);
        world.check_children(1);
        assert!(!world.ends[LEFT].installed.contains_key(&spi), "seed {seed}");
    }
    assert!(both > 180, "{both} times both had asked");
}

#[test]
fn an_isakmp_sa_is_replaced_and_its_children_stay() {
    let paper = paper("ecp256");
    for n in 0..8 {
        let (end, signs, is_aggressive) = ([LEFT, RIGHT][n % 2], n & 2 != 0, n & 4 != 0);
        let mut world = comes_up(world_as(11, |end, connection| {
            set_aggressive(connection, is_aggressive);
            if signs {
                connection.local_auth = paper.local(end);
                connection.remote_auth = RemoteAuth::PublicKey(Arc::new(paper.trust()));
            }
        }));
        world.is_steady = true;
        let (before, spis) = (only(&world, end).id(), only(&world, end).spis());
        world.with(end, |engine, cx| assert!(engine.rekey(before, cx)));
        world.run_until_quiet();
        world.check_children(1);
        assert_ne!(only(&world, end).spis(), spis);
        assert_eq!(only(&world, LEFT).spis(), only(&world, RIGHT).spis());
        assert_eq!(world.ends[end].gone, []);
    }
}

// RFC 3706
#[test]
fn a_peer_that_is_gone_is_noticed() {
    let mut world = comes_up(world_as(12, |_, connection| {
        connection.dpd_ms = 30_000;
        connection.ikev1 = Some(Ikev1 { dpd_timeout_ms: 20_000, ..Ikev1::default() });
    }));
    let carried = world.carried;
    world.run_for(100_000);
    assert!(world.carried > carried && world.ends.iter().all(|end| end.engine.ike_sas().count() == 1));
    world.loss = 100;
    world.run_for(100_000);
    for end in [LEFT, RIGHT] {
        assert_eq!(events(&world, end).last(), Some(&Event::Closed("the peer does not answer".into())));
        assert!(world.ends[end].installed.is_empty());
    }
}

/// Until something has come since.
fn run_until_carried(world: &mut World) {
    let carried = world.carried;
    while world.carried == carried {
        assert!(world.step(u64::MAX), "something is under way");
    }
}

// RFC 3706 §5.3: an ACK that is lost is said again when the question comes again.
#[test]
fn one_lost_ack_ends_nothing() {
    let mut world = world_as(20, |end, connection| {
        connection.dpd_ms = [30_000, 0][end];
        connection.retransmission.tries = 1;
    });
    world.initiate(LEFT, Some(0));
    world.run_for(20_000);
    world.one_way = Some(RIGHT);
    run_until_carried(&mut world);
    world.one_way = None;
    assert!(only(&world, LEFT).phase() == &Phase::Established);
    world.run_for(100_000);
    assert!(world.ends.iter().all(|end| end.engine.ike_sas().count() == 1 && end.installed.len() == 1));
}

/// A message comes again, as it is.
fn receive_any(world: &mut World, end: usize, octets: &[u8]) {
    let (local, peer) = ((address(end), 500).into(), (address(1 - end), 500).into());
    let datagram = Datagram { local, peer, octets: octets.to_vec(), dscp: 0 };
    _ = world.with(end, |engine, cx| engine.receive(&datagram, cx));
}

/// A message that comes again, changed where nothing protects it.
fn receive_copy(world: &mut World, end: usize, octets: &[u8], change: impl Fn(&mut Vec<u8>)) {
    let mut octets = octets.to_vec();
    change(&mut octets);
    let (local, peer) = ((address(end), 500).into(), (address(1 - end), 500).into());
    let datagram = Datagram { local, peer, octets, dscp: 0 };
    let received = world.with(end, |engine, cx| engine.receive(&datagram, cx));
    assert!(received.is_err(), "{received:?}");
}

// RFC 2408 §3.1: the flag of authentication only is nothing to us.
fn change_flags(octets: &mut [u8]) {
    octets[19] |= 4;
}

#[test]
fn copies_are_not_new_however_late_they_come() {
    let mut world = comes_up(world_as(21, |end, connection| connection.dpd_ms = [30_000, 0][end]));
    // More than are known again as a whole.
    world.run_for(1_000_000);
    let spi = only(&world, LEFT).children()[0].spi_in;
    world.with(LEFT, |engine, cx| assert!(engine.rekey_child(spi, cx)));
    world.run_for(10_000);
    let outcome = |world: &World| {
        let children = |end: usize| world.ends[end].installed.keys().copied().collect::<Vec<_>>();
        (events(world, LEFT).len(), events(world, RIGHT).len(), children(LEFT), children(RIGHT))
    };
    world.run_for(20_000);
    let before = outcome(&world);
    let is_of_phase_2 = |octets: &&Vec<u8>| Header::parse(octets).is_ok_and(|(h, ..)| h.message_id != 0);
    let all: Vec<_> = world.requests.iter().filter(is_of_phase_2).cloned().collect();
    assert!(all.len() > 60);
    let sent = world.requests.len();
    for (end, octets) in [LEFT, RIGHT].into_iter().flat_map(|end| all.iter().map(move |o| (end, o))) {
        // Of the peer, and reflected.
        receive_copy(&mut world, end, octets, |octets| octets.push(0));
        receive_copy(&mut world, end, octets, |octets| change_flags(octets));
    }
    assert_eq!((outcome(&world), world.requests.len()), (before, sent));
}

/// Whatever the network does, what both have in the end is the same.
#[test]
fn whatever_the_network_does_both_have_the_same() {
    let seeds = 0..500;
    println!("seeds {seeds:?}");
    let mut up = 0;
    for seed in seeds.clone() {
        let mut world = world_as(seed, |_, _| {});
        (world.loss, world.again, world.late_ms) = (20, 10, 3000);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        if !world.ends[LEFT].installed.is_empty() {
            up += 1;
            world.check_children(1);
        }
    }
    assert!(up > seeds.end * 9 / 10, "{up}");
}

// RFC 2409 §B: both ends encrypt by the same key, which nobody is told of without being asked.
#[test]
fn keys_are_told_where_it_is_asked() {
    for tells in [false, true] {
        let mut world = world_as(12, |_, _| {});
        world.ends.iter_mut().for_each(|end| end.config.tells_keys = tells);
        let world = comes_up(world);
        let told = [LEFT, RIGHT].map(|end| match &world.ends[end].keys[..] {
            [] => None,
            [KeyLog::V1 { initiator, cipher }] => Some((*initiator, cipher.clone())),
            other => panic!("{other:?}"),
        });
        assert!(told[LEFT] == told[RIGHT] && told[LEFT].is_some() == tells);
        let is_of_it = |(initiator, cipher): &(IkeSpi, Secret)| {
            *initiator == only(&world, LEFT).spis().initiator && cipher.bytes().len() == 16
        };
        assert!(told[LEFT].as_ref().is_none_or(is_of_it));
    }
}

/// As IKEv2 does: the next time with another cookie, as the peer has forgotten what there was.
#[test]
fn the_first_messages_are_sent_again_from_the_beginning() {
    let lasts = |is_aggressive, tries: u32| {
        let mut world = world_as(1, |_, connection| {
            set_aggressive(connection, is_aggressive);
            connection.keying_tries = tries;
        });
        world.loss = 100;
        world.initiate(LEFT, Some(0));
        while world.ends[LEFT].engine.ike_sas().count() == 1 && world.now_ms < 3_600_000 {
            world.run_for(1000);
        }
        (world.now_ms, matches!(events(&world, LEFT).last(), Some(Event::Closed(_))))
    };
    for is_aggressive in [false, true] {
        let (once, is_closed) = lasts(is_aggressive, 1);
        assert!(is_closed && (160_000..170_000).contains(&once), "{once}");
        let (thrice, is_closed) = lasts(is_aggressive, 3);
        assert!(is_closed && (3 * once - 20_000..3 * once).contains(&thrice), "{thrice}");
        assert!(!lasts(is_aggressive, 0).1);
        for sent in 1..=3 {
            let mut world = world_as(2, |_, connection| {
                set_aggressive(connection, is_aggressive);
                connection.keying_tries = 2;
            });
            world.initiate(LEFT, Some(0));
            strangers::run_until_sent(&mut world, sent);
            let before = only(&world, LEFT).spis();
            world.loss = 100;
            world.run_for(160_000);
            world.loss = 0;
            world.run_for(100_000);
            // Who has the answer of aggressive mode has all that it waits for.
            if is_aggressive && sent > 1 {
                continue;
            }
            world.check_children(1);
            let after = only(&world, LEFT).spis();
            assert!(after == only(&world, RIGHT).spis() && after.initiator != before.initiator);
            // It is known by that.
            let spi = world.ends[LEFT].installed.keys().next().copied().unwrap();
            world.with(RIGHT, |engine, cx| {
                let spi = engine.ike_sas().next().unwrap().children()[0].spi_in;
                assert!(engine.rekey_child(spi, cx));
            });
            world.run_for(30_000);
            world.check_children(1);
            assert!(!world.ends[LEFT].installed.contains_key(&spi));
        }
    }
}
