//! Several rounds of authentication between two engines (RFC 4739).

use super::{
    eap::{ASKED, NAMES, Paper, check_up, paper, secrets},
    events,
    world::{LEFT, RIGHT, World, config, connection},
};
use crate::{
    connection::{Configuration, Connection, LocalAuth, RemoteAuth, Round, SharedKey},
    eap::Method,
    identity::IdPattern,
    v2::output::Event,
};

/// How an end proves who it is in a round.
#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Key,
    Signature,
    Password,
}
use By::{Key, Password, Signature};

fn local(paper: &Paper, end: usize, by: By) -> Round<LocalAuth> {
    let auth = match by {
        Key => LocalAuth::SharedKey,
        Signature => LocalAuth::PublicKey(paper.credential(end)),
        Password => paper.means(Method::MsChapV2, Some("carol")),
    };
    Round { id: NAMES[end].parse().unwrap(), auth }
}

fn remote(paper: &Paper, end: usize, by: By) -> Round<RemoteAuth> {
    let auth = match by {
        Key => RemoteAuth::SharedKey,
        Signature => RemoteAuth::PublicKey(paper.trust()),
        Password => paper.demand(Method::MsChapV2, ASKED),
    };
    Round { id: NAMES[end].parse().unwrap(), auth }
}

/// An end that does as `mine`, and demands `theirs`.
fn end(paper: &Paper, end: usize, mine: &[By], theirs: &[By]) -> Configuration {
    let mut connection = connection("a", end);
    let mut ours = mine.iter().map(|by| local(paper, end, *by));
    Round { id: connection.local_id, auth: connection.local_auth } = ours.next().unwrap();
    connection.further.local = ours.collect();
    let mut peers = theirs.iter().map(|by| remote(paper, 1 - end, *by));
    Round { id: connection.remote_id, auth: connection.remote_auth } = peers.next().unwrap();
    connection.further.remote = peers.collect();
    Configuration { eap_secrets: secrets("secret"), ..config(connection) }
}

fn ends(paper: &Paper, left: &[By], right: &[By]) -> [Configuration; 2] {
    [end(paper, LEFT, left, right), end(paper, RIGHT, right, left)]
}

fn counts(world: &World) -> [usize; 2] {
    [LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count())
}

fn closed(world: &World, end: usize) -> String {
    match events(world, end).last() {
        Some(Event::Closed(why)) => why.clone(),
        other => panic!("{other:?}"),
    }
}

/// It is up at neither end, and the initiator has not taken it to be.
fn refused(configs: [Configuration; 2]) -> World {
    let mut world = World::new(1, configs);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(counts(&world), [0, 0]);
    assert!(!events(&world, LEFT).contains(&Event::Established));
    world
}

// RFC 4739 §2
#[test]
fn each_end_proves_in_rounds_who_it_is() {
    let paper = paper();
    for (left, right) in [
        (&[Key, Signature][..], &[Key][..]),
        (&[Signature, Key], &[Signature]),
        (&[Key], &[Key, Signature]),
        (&[Signature, Signature], &[Signature, Key]),
        (&[Key, Signature, Key], &[Signature, Key, Key]),
        (&[Signature, Password], &[Signature]),
        (&[Key, Password], &[Key]),
        (&[Password, Signature], &[Signature]),
        (&[Key, Password, Signature], &[Signature]),
    ] {
        let (seeds, mut up) = (0..6, 0);
        for seed in seeds.clone() {
            let mut world = World::new(seed, ends(&paper, left, right));
            if seed > 0 {
                (world.loss, world.again, world.late_ms) = (10, 20, 300);
            }
            world.initiate(LEFT, Some(0));
            world.run_until_quiet();
            (world.loss, world.again) = (0, 0);
            let [one, other] = counts(&world);
            assert_eq!(one, other, "{left:?} {right:?} {seed}");
            assert!(seed > 0 || one == 1, "{left:?} {right:?}");
            if one == 0 {
                continue;
            }
            up += 1;
            if left.contains(&Password) {
                check_up(&mut world, "carol");
            } else {
                world.check_children(1);
            }
            let names = [NAMES, [NAMES[1], NAMES[0]]];
            for end in [LEFT, RIGHT] {
                let (mine, theirs) = world.only_sa(end).ids().unwrap();
                assert_eq!([mine.to_string(), theirs.to_string()], names[end]);
            }
        }
        assert!(up > seeds.end / 2, "{left:?} {right:?} {up}");
    }
}

/// In a later round they may be others; the IKE SA is of those of the first.
#[test]
fn a_round_has_an_identity_of_its_own() {
    let paper = paper();
    let mut configs = ends(&paper, &[Key, Key], &[Key]);
    let keys = |first: &[u8], second: &[u8]| {
        [(NAMES[LEFT], first), ("carol@example.org", second)].map(|(id, key)| SharedKey {
            ids: [id, NAMES[RIGHT]].map(|id| id.parse().unwrap()).into(),
            key: key.to_vec().into(),
        })
    };
    for config in &mut configs {
        config.shared_keys = keys(b"the gateway's", b"carol's").into();
    }
    let carol: IdPattern = "carol@example.org".parse().unwrap();
    std::sync::Arc::make_mut(&mut configs[LEFT].connections[0]).further.local[0].id = carol.clone();
    // It is nobody whom the second round is for.
    let world = refused(configs.clone());
    let why = "the peer is carol@example.org, and should be left.example.org";
    assert_eq!(closed(&world, RIGHT), why);
    std::sync::Arc::make_mut(&mut configs[RIGHT].connections[0]).further.remote[0].id = carol;
    let mut world = World::new(1, configs.clone());
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    assert_eq!(world.only_sa(RIGHT).ids().unwrap().1.to_string(), NAMES[LEFT]);
    // Each round counts.
    configs[LEFT].shared_keys = keys(b"the gateway's", b"another's").into();
    let world = refused(configs);
    assert!(closed(&world, RIGHT).starts_with("carol@example.org is not authenticated"));
}

#[test]
fn there_are_as_many_rounds_as_are_demanded() {
    let paper = paper();
    let of = |left: (&[By], &[By]), right: (&[By], &[By])| {
        refused([end(&paper, LEFT, left.0, left.1), end(&paper, RIGHT, right.0, right.1)])
    };
    // One too few of the initiator's, which does not say that it can do more.
    let world = of((&[Key], &[Key]), (&[Key], &[Key, Signature]));
    assert!(closed(&world, RIGHT).contains("must prove more than once"), "{}", closed(&world, RIGHT));
    // Of one that can.
    of((&[Key, Key], &[Key]), (&[Key], &[Key, Key, Key]));
    // One too many.
    let world = of((&[Key, Key, Key], &[Key]), (&[Key], &[Key, Key]));
    assert!(closed(&world, RIGHT).contains("more rounds"), "{}", closed(&world, RIGHT));
    // The same of the responder's.
    of((&[Key], &[Key, Key]), (&[Key, Key, Key], &[Key]));
    of((&[Key], &[Key, Key, Key]), (&[Key, Key], &[Key]));
    // The responder knows nothing of rounds.
    let world = of((&[Key, Key], &[Key]), (&[Key], &[Key]));
    assert!(closed(&world, LEFT).contains("MULTIPLE_AUTH_SUPPORTED"));
    // Another method.
    of((&[Key, Key], &[Key]), (&[Key], &[Key, Signature]));
    of((&[Key, Password], &[Key]), (&[Key], &[Key, Signature]));
    of((&[Key, Signature], &[Key]), (&[Key], &[Key, Password]));
}

/// Of two connections between the same ends, who proves more is of the one that demands it.
#[test]
fn the_connection_is_that_with_as_many_rounds() {
    let paper = paper();
    for (left, name) in [(&[Key][..], "one"), (&[Key, Signature], "two")] {
        let mut right = end(&paper, RIGHT, &[Key], &[Key]);
        let two = end(&paper, RIGHT, &[Key], &[Key, Signature]).connections.remove(0);
        let named = |connection: &Connection, name: &str| {
            std::sync::Arc::new(Connection { name: name.into(), ..connection.clone() })
        };
        right.connections = vec![named(&right.connections[0], "one"), named(&two, "two")];
        let mut world = World::new(1, [end(&paper, LEFT, left, &[Key]), right]);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(world.only_sa(RIGHT).connection().name, name);
    }
}
