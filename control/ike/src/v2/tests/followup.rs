use super::{
    both_replace_a_child, both_replace_an_ike_sa, established_as, events, rekey_only_child,
    whatever_is_asked_for,
    world::{LEFT, RIGHT, World, ike},
};
use crate::{
    connection::Connection,
    message::{ExchangeType, Header},
    proposal::Proposals,
    v2::{output::Event, window::Retransmission},
};
use std::sync::Arc;

fn with_proposals(connection: &mut Connection, of_ike: &str, of_esp: &str) {
    connection.proposals = ike(of_ike);
    Arc::make_mut(&mut connection.children[0]).proposals = Proposals::esp([of_esp]).unwrap();
}

/// Three key exchanges of each, the second and the third behind the first; nobody gives up before the network lets it through.
fn hybrid(connection: &mut Connection) {
    connection.retransmission = Retransmission { tries: 16, limit_ms: 10_000, ..Retransmission::default() };
    let more = "x25519-ke1_mlkem512-ke2_ecp256";
    with_proposals(connection, &format!("aes128gcm16-sha256-{more}"), &format!("aes128gcm16-{more}-noesn"));
}

/// Exchanges that a network has carried requests of.
fn exchanges(world: &World) -> Vec<ExchangeType> {
    let headers = world.requests.iter().map(|octets| Header::parse(octets).unwrap().0);
    headers.map(|header| header.exchange).collect()
}

// RFC 9370 §2.2.4
#[test]
fn a_child_is_made_of_three_key_exchanges_by_either_end() {
    for end in [LEFT, RIGHT] {
        let mut world = established_as(1, hybrid);
        world.is_steady = true;
        world.requests.clear();
        rekey_only_child(&mut world, end);
        world.run_until_quiet();
        world.check_children(1);
        let follow = ExchangeType::IKE_FOLLOWUP_KE;
        let wanted = [ExchangeType::CREATE_CHILD_SA, follow, follow, ExchangeType::INFORMATIONAL];
        assert_eq!(exchanges(&world), wanted);
        let sa = &world.ends[LEFT].installed.values().next().unwrap().sa;
        assert_eq!(sa.agreement.additional_key_exchanges().count(), 2);
    }
}

// RFC 9370 §2.2.4
#[test]
fn an_ike_sa_is_made_of_three_key_exchanges_by_either_end() {
    for end in [LEFT, RIGHT] {
        let mut world = established_as(2, hybrid);
        world.is_steady = true;
        let (before, id) = (world.only_sa(LEFT).spis(), world.only_sa(end).id());
        world.with(end, |engine, cx| assert!(engine.rekey(id, cx)));
        world.run_until_quiet();
        let [left, right] = [LEFT, RIGHT].map(|end| world.only_sa(end).spis());
        assert!(left == right && left != before);
        // And goes on as before.
        rekey_only_child(&mut world, 1 - end);
        world.run_until_quiet();
        world.check_children(1);
    }
}

/// A peer that cannot do them is offered what is left without.
#[test]
fn a_child_of_one_key_exchange_is_left_if_they_are_optional() {
    let mut world = established_as(3, |connection| {
        let of_esp = if connection.name == "a" { "x25519-ke1_mlkem512-ke1_none" } else { "x25519" };
        with_proposals(connection, "aes128gcm16-sha256-x25519", &format!("aes128gcm16-{of_esp}-noesn"));
    });
    for end in [LEFT, RIGHT] {
        rekey_only_child(&mut world, end);
        world.run_until_quiet();
        world.check_children(1);
    }
}

// RFC 9370 §2.2.4
#[test]
fn what_is_not_followed_up_is_forgotten_and_asked_again() {
    let mut world = established_as(4, hybrid);
    world.is_steady = true;
    rekey_only_child(&mut world, LEFT);
    // CREATE_CHILD_SA comes through, and nothing behind it for longer than it is waited for.
    while !exchanges(&world).contains(&ExchangeType::IKE_FOLLOWUP_KE) {
        world.run_for(1);
    }
    world.one_way = Some(RIGHT);
    let spi = world.only_sa(LEFT).children()[0].spi_in;
    world.run_for(25_000);
    world.one_way = None;
    world.run_until_quiet();
    world.check_children(1);
    assert_ne!(world.only_sa(LEFT).children()[0].spi_in, spi);
    assert!(!events(&world, LEFT).iter().any(|event| matches!(event, Event::ChildFailed(..))));
}

// RFC 9370 §2.2.4
#[test]
fn a_peer_that_forgets_again_and_again_is_left() {
    let mut world = established_as(5, hybrid);
    let id = world.only_sa(LEFT).id();
    world.with(LEFT, |engine, cx| engine.rekey(id, cx));
    for _ in 0..200_000 {
        world.run_for(1);
        world.with(RIGHT, |engine, _| engine.forget_awaited());
    }
    assert_eq!(events(&world, LEFT).last(), Some(&Event::Closed("deleted".into())));
    let asked = exchanges(&world).into_iter().filter(|e| *e == ExchangeType::IKE_FOLLOWUP_KE).count();
    assert_eq!(asked, 3);
}

// RFC 9370 §2.2.4, RFC 7296 §2.8.1
#[test]
fn one_is_left_where_both_replace_it_by_several_key_exchanges() {
    let both = both_replace_a_child(0..300, hybrid);
    assert!(both > 200, "{both}");
}

// RFC 9370 §2.2.4, RFC 7296 §2.8.2
#[test]
fn one_ike_sa_is_left_where_both_replace_it_by_several_key_exchanges() {
    let alive = both_replace_an_ike_sa(0..300, hybrid);
    assert!(alive > 280, "{alive}");
}

#[test]
fn whatever_is_asked_for_by_several_key_exchanges_both_have_the_same() {
    let alive = whatever_is_asked_for(0..500, hybrid);
    assert!(alive > 420, "{alive}");
}

// RFC 7296 §1.3, RFC 9370 §2.2.4
#[test]
fn another_first_method_is_asked_for() {
    let mut world = established_as(6, |connection| {
        let first = if connection.name == "a" { "ecp256-x25519" } else { "x25519" };
        let (of_ike, of_esp) = ("aes128gcm16-sha256", "aes128gcm16-noesn");
        let more = format!("{first}-ke1_mlkem512");
        with_proposals(connection, &format!("{of_ike}-{more}"), &format!("{of_esp}-{more}"));
    });
    rekey_only_child(&mut world, LEFT);
    world.run_until_quiet();
    let id = world.only_sa(LEFT).id();
    world.with(LEFT, |engine, cx| engine.rekey(id, cx));
    world.run_until_quiet();
    world.check_children(1);
    let count = |wanted| exchanges(&world).into_iter().filter(|exchange| *exchange == wanted).count();
    // Each was asked twice, and followed up once.
    assert_eq!((count(ExchangeType::CREATE_CHILD_SA), count(ExchangeType::IKE_FOLLOWUP_KE)), (4, 2));
}
