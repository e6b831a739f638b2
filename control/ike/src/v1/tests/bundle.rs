//! Child SAs of AH and ESP that are used together.

use super::{change_child, comes_up, events, install, only, world_as};
use crate::{
    child::Install,
    connection::Connection,
    message::{Protocol, isakmp::SecurityAssociation},
    output::Event,
    proposal::{Order, Proposals},
    traffic_selector::ConfiguredSelectors,
    v1::{
        doi::{self, Life, Offered, Spis},
        nat::Encapsulation,
        vendor::NatT,
    },
    v2::tests::world::{LEFT, RIGHT, World},
};
use portcullis_sadb::{Encryption, Mode};

/// Both ends want ESP in AH.
pub(super) fn bundle(connection: &mut Connection, esp: &str, ah: &str) {
    change_child(connection, |child| {
        child.proposals = Proposals::esp(esp.split(',')).unwrap();
        child.around = Some(Proposals::ah(ah.split(',')).unwrap());
    });
}

fn world_of(seed: u64, esp: &str, ah: &str) -> World {
    world_as(seed, |_, connection| bundle(connection, esp, ah))
}

/// What both ends have of both protocols is the same, and of each protocol and direction there is another key (RFC 2409 §5.5).
pub(super) fn check(world: &World) {
    for ours in world.ends[LEFT].installed.values() {
        let theirs = &world.ends[RIGHT].installed[&ours.sa.spi_out];
        let ah = |install: &Install| install.sa.around.clone().zip(install.around.clone()).expect("AH");
        let ((sa, keyed), (their_sa, their_keyed)) = (ah(ours), ah(theirs));
        assert_eq!((sa.spi_in, sa.spi_out), (their_sa.spi_out, their_sa.spi_in));
        assert_eq!(sa.agreement.to_string(), their_sa.agreement.to_string());
        assert_eq!(keyed.algorithm, their_keyed.algorithm);
        assert_eq!(keyed.key_in.bytes(), their_keyed.key_out.bytes());
        assert_eq!(keyed.key_out.bytes(), their_keyed.key_in.bytes());
        let mut spis = vec![ours.sa.spi_in, ours.sa.spi_out, sa.spi_in, sa.spi_out];
        spis.sort_unstable();
        spis.dedup();
        assert_eq!(spis.len(), 4);
        let mut keys =
            [&ours.key_in, &ours.key_out, &keyed.key_in, &keyed.key_out].map(|k| k.bytes()[..16].to_vec());
        keys.sort_unstable();
        assert!(keys.windows(2).all(|two| two[0] != two[1]));
    }
}

#[test]
fn both_protocols_come_up_and_go_together() {
    for (esp, ah, agreed) in [
        ("aes128gcm16", "sha256", ["aes128gcm16-noesn", "sha256-noesn"]),
        ("aes256-sha256-ecp256", "sha512-ecp256", ["aes256-sha256-noesn-ecp256", "sha512-noesn-ecp256"]),
        ("aes128gcm16-esn", "sha1,aes256gmac-esn", ["aes128gcm16-esn", "sha1-noesn"]),
        // One group is for both: what has another is left out.
        (
            "aes128gcm16-x25519",
            "sha256-ecp256,sha384-x25519",
            ["aes128gcm16-noesn-x25519", "sha384-noesn-x25519"],
        ),
    ] {
        for deleter in [LEFT, RIGHT] {
            let mut world = comes_up(world_of(1, esp, ah));
            check(&world);
            let Install { sa, .. } = install(&world, RIGHT);
            let around = sa.around.as_ref().unwrap();
            assert_eq!([&sa.agreement, &around.agreement].map(ToString::to_string), agreed);
            let spi = only(&world, deleter).children()[0].spi_in;
            world.with(deleter, |engine, cx| assert!(engine.terminate_child(spi, cx)));
            world.run_until_quiet();
            world.check_children(0);
            let down = |event: &&Event| matches!(event, Event::ChildDown(..));
            assert!([LEFT, RIGHT].iter().all(|end| events(&world, *end).iter().filter(down).count() == 1));
        }
    }
}

#[test]
fn a_bundle_is_in_either_mode_and_is_replaced_as_one() {
    for (mode, end) in [(Mode::Tunnel, LEFT), (Mode::Transport, RIGHT)] {
        let mut world = comes_up(world_as(2, |_, connection| {
            bundle(connection, "aes128gcm16-ecp256", "sha256-ecp256");
            let all = ConfiguredSelectors::parse(["dynamic"]).unwrap();
            if mode == Mode::Transport {
                change_child(connection, |child| {
                    (child.mode, child.local, child.remote) = (mode, all.clone(), all);
                });
            }
        }));
        assert_eq!(install(&world, LEFT).sa.mode, mode);
        world.is_steady = true;
        let before = only(&world, end).children()[0].clone();
        world.with(end, |engine, cx| assert!(engine.rekey_child(before.spi_in, cx)));
        world.run_until_quiet();
        world.check_children(1);
        check(&world);
        let after = &only(&world, end).children()[0];
        assert_ne!(before.spi_in, after.spi_in);
        assert_ne!(before.around.unwrap().spi_in, after.around.as_ref().unwrap().spi_in);
    }
}

/// With an ISAKMP SA goes all of both protocols, and the peer is told of each SPI.
#[test]
fn all_of_an_isakmp_sa_goes() {
    let mut world = comes_up(world_of(3, "aes128gcm16", "sha256"));
    let id = only(&world, RIGHT).id();
    world.with(RIGHT, |engine, cx| assert!(engine.terminate(id, cx)));
    world.run_until_quiet();
    assert!(world.ends.iter().all(|end| end.installed.is_empty() && end.engine.ike_sas().count() == 0));
}

#[test]
fn who_wants_one_and_who_wants_both_do_not_agree() {
    for end in [LEFT, RIGHT] {
        let mut world = world_as(4, |at, connection| {
            if at == end {
                bundle(connection, "aes128gcm16-ecp256", "sha256-ecp256");
            }
        });
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let failed = Event::ChildFailed("net".into(), "the peer says NO_PROPOSAL_CHOSEN".into());
        assert_eq!(events(&world, LEFT), [Event::Established, failed]);
        world.check_children(0);
    }
}

// RFC 3715 §2.1
#[test]
fn behind_a_nat_there_is_none() {
    let mut world = world_of(5, "aes128gcm16", "sha256");
    world.configure(RIGHT, |connection| connection.remote = crate::connection::Hosts::Any);
    world.nat = Some("203.0.113.1:1000".parse().unwrap());
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let [Event::Established, Event::ChildFailed(_, why)] = &events(&world, LEFT)[..] else { panic!() };
    assert!(why.contains("NAT"), "{why}");
    world.check_children(0);
}

fn child(mode: Mode) -> crate::connection::Child {
    let mut connection = super::connection("a", LEFT);
    bundle(&mut connection, "aes128gcm16,aes128-sha256", "sha256,sha1");
    change_child(&mut connection, |child| child.mode = mode);
    (*connection.children[0]).clone()
}

/// What is offered to a peer, which changes it.
fn offered(mode: Mode, change: impl FnOnce(&mut SecurityAssociation)) -> SecurityAssociation {
    let offered = Offered::of(&child(mode)).unwrap();
    let spis = Spis { own: 0x1111_1111, around: Some(0x2222_2222) };
    let mut sa = doi::offer(&offered, spis, (Encapsulation::None, mode), Life::default());
    change(&mut sa);
    sa
}

const ENCAPSULATION: u16 = 4;

/// Only these modes are left, of AH and of ESP.
fn keep_modes(sa: &mut SecurityAssociation, [ah, esp]: [u64; 2]) {
    for proposal in &mut sa.proposals {
        let mode = if proposal.protocol == Protocol::AH { ah } else { esp };
        for transform in &mut proposal.transforms {
            for attribute in transform.attributes.iter_mut().filter(|a| a.kind.0 == ENCAPSULATION) {
                *attribute = crate::message::Attribute::number(ENCAPSULATION, mode as u32);
            }
        }
    }
}

// RFC 2408 §4.2, RFC 2407 §4.5
#[test]
fn proposals_of_one_number_are_taken_together() {
    let sa = offered(Mode::Tunnel, |_| {});
    let [ah, esp] = &sa.proposals[..] else { panic!("{sa:?}") };
    assert_eq!((ah.number, ah.protocol, &ah.spi[..]), (1, Protocol::AH, &[0x22; 4][..]));
    assert_eq!((esp.number, esp.protocol, &esp.spi[..]), (1, Protocol::ESP, &[0x11; 4][..]));
    // AH in either mode, around ESP in the mode of the child.
    assert_eq!((ah.transforms.len(), esp.transforms.len()), (4, 2));
    let select =
        |mode, sa: &SecurityAssociation| doi::select(&child(mode), sa, Encapsulation::None, Order::Ours);
    const TUNNEL: u64 = 1;
    const TRANSPORT: u64 = 2;
    for (mode, modes, is_taken) in [
        (Mode::Tunnel, [TRANSPORT, TUNNEL], true),
        (Mode::Tunnel, [TUNNEL, TUNNEL], true),
        // A tunnel of AH around ESP in transport mode is another packet.
        (Mode::Tunnel, [TUNNEL, TRANSPORT], false),
        (Mode::Transport, [TRANSPORT, TRANSPORT], true),
        (Mode::Transport, [TUNNEL, TRANSPORT], false),
        (Mode::Transport, [TUNNEL, TUNNEL], false),
    ] {
        let sa = offered(mode, |sa| keep_modes(sa, modes));
        let selected = select(mode, &sa);
        assert_eq!(selected.is_some(), is_taken, "{mode:?} {modes:?}");
        let Some((agreed, answer)) = selected else { continue };
        let around = agreed.around.unwrap();
        assert_eq!(
            (agreed.agreement.child_spi(), around.child_spi()),
            (Some(0x1111_1111), Some(0x2222_2222))
        );
        assert_eq!(
            (agreed.agreement.to_string(), around.to_string()),
            ("aes128gcm16-noesn".into(), "sha256-noesn".into())
        );
        // Both are answered, as they were offered, in their order.
        assert_eq!(
            answer.proposals.iter().map(|p| (p.number, p.transforms.len())).collect::<Vec<_>>(),
            [(1, 1); 2]
        );
        let again =
            doi::accept(&Offered::of(&child(mode)).unwrap(), &answer, Encapsulation::None, mode).unwrap();
        assert_eq!(again.around.unwrap().algorithm().unwrap().encryption(), Encryption::None);
    }
    // In whatever order, and behind others that are not both.
    let swapped = offered(Mode::Tunnel, |sa| sa.proposals.reverse());
    assert_eq!(select(Mode::Tunnel, &swapped).unwrap().1.proposals[0].protocol, Protocol::ESP);
    let behind = offered(Mode::Tunnel, |sa| {
        let alone = sa.proposals[1].clone();
        sa.proposals.iter_mut().for_each(|proposal| proposal.number = 2);
        sa.proposals.insert(0, alone);
    });
    let (_, answer) = select(Mode::Tunnel, &behind).unwrap();
    assert_eq!(answer.proposals.iter().map(|p| p.number).collect::<Vec<_>>(), [2, 2]);
    // Three of a number, two of one protocol, two numbers, and a wrong SPI are not both; nor is anything in UDP.
    type Change = fn(&mut SecurityAssociation);
    let changes: [Change; 5] = [
        |sa| sa.proposals.push(sa.proposals[0].clone()),
        |sa| sa.proposals[0] = sa.proposals[1].clone(),
        |sa| sa.proposals[1].number = 2,
        |sa| _ = sa.proposals[0].spi.pop(),
        |sa| sa.proposals[1].protocol = Protocol(4),
    ];
    for change in changes {
        assert!(select(Mode::Tunnel, &offered(Mode::Tunnel, change)).is_none());
    }
    let udp = Encapsulation::Udp(NatT::Rfc);
    assert!(doi::select(&child(Mode::Tunnel), &sa, udp, Order::Ours).is_none());
}

#[test]
fn an_answer_is_both_or_nothing() {
    let sa = offered(Mode::Tunnel, |sa| sa.proposals.iter_mut().for_each(|p| p.transforms.truncate(1)));
    let ours = Offered::of(&child(Mode::Tunnel)).unwrap();
    let accept = |sa: &SecurityAssociation| doi::accept(&ours, sa, Encapsulation::None, Mode::Tunnel);
    assert!(accept(&sa).is_ok());
    for (n, other) in [(0, 1), (1, 0)] {
        let mut one = sa.clone();
        one.proposals.remove(n);
        assert!(accept(&one).is_err());
        let mut twice = sa.clone();
        twice.proposals[n] = sa.proposals[other].clone();
        assert!(accept(&twice).is_err());
        let mut numbers = sa.clone();
        numbers.proposals[n].number = 3;
        assert!(accept(&numbers).is_err());
    }
}
