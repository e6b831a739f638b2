use super::{
    events, rekey_only_child,
    world::{LEFT, RIGHT, World, config, connection, ike},
};
use crate::{
    connection::{Configuration, Ppk},
    v2::output::Event,
};

/// What an end has of a PPK.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Has {
    Nothing,
    /// One of another identity.
    Other,
    /// One that the other end has other octets of.
    Wrong,
    Optional,
    Required,
    /// It needs one, and has none.
    Missing,
}

fn with(name: &str, end: usize, has: Has) -> Configuration {
    let mut connection = connection(name, end);
    connection.ppk_required = matches!(has, Has::Required | Has::Missing);
    let id = if has == Has::Other { b"another" } else { b"the PPK" };
    let is_initiator = end == LEFT;
    connection.ppk_id = (has != Has::Nothing && is_initiator).then(|| id.to_vec());
    let mut config = config(connection);
    if !matches!(has, Has::Nothing | Has::Missing) {
        let key = if has == Has::Wrong { b"other octets" } else { b"octets of it" };
        config.ppks = vec![Ppk { id: id.to_vec(), key: key.to_vec().into() }];
    }
    config
}

// RFC 8784 §3: the table of what comes of what ends have.
#[test]
fn a_ppk_is_mixed_in_where_both_have_it() {
    use Has::{Missing, Nothing, Optional, Other, Required, Wrong};
    for (left, right, has_ppk) in [
        (Nothing, Nothing, Some(false)),
        (Nothing, Optional, Some(false)),
        (Nothing, Required, None),
        (Optional, Nothing, Some(false)),
        (Optional, Other, Some(false)),
        (Optional, Optional, Some(true)),
        (Optional, Required, Some(true)),
        (Optional, Missing, None),
        (Optional, Wrong, None),
        (Required, Nothing, None),
        (Required, Other, None),
        (Required, Optional, Some(true)),
        (Required, Required, Some(true)),
        (Required, Wrong, None),
        (Missing, Optional, None),
        (Other, Required, None),
        (Other, Optional, Some(false)),
    ] {
        let mut world = World::new(1, [with("a", LEFT, left), with("b", RIGHT, right)]);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let Some(has_ppk) = has_ppk else {
            let closed = |end: usize| world.ends[end].engine.sas().count() == 0;
            assert!(closed(LEFT) && closed(RIGHT), "{left:?} {right:?}");
            assert!(matches!(events(&world, LEFT).last(), Some(Event::Closed(_))));
            continue;
        };
        world.check_children(1);
        for end in [LEFT, RIGHT] {
            assert_eq!(world.only_sa(end).has_ppk(), has_ppk, "{left:?} {right:?}");
        }
        // SK_d goes on with it.
        rekey_only_child(&mut world, RIGHT);
        world.run_until_quiet();
        let id = world.only_sa(LEFT).id();
        world.with(LEFT, |engine, cx| engine.rekey(id, cx));
        world.run_until_quiet();
        rekey_only_child(&mut world, LEFT);
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(world.only_sa(LEFT).has_ppk(), has_ppk);
    }
}

/// A responder whose connection has one takes no other.
#[test]
fn a_connection_has_one_ppk() {
    for (id, has_ppk) in [(&b"the PPK"[..], true), (b"another", false)] {
        let mut world = World::new(2, [with("a", LEFT, Has::Optional), with("b", RIGHT, Has::Optional)]);
        world.configure(RIGHT, |connection| connection.ppk_id = Some(id.to_vec()));
        world.initiate(LEFT, None);
        world.run_until_quiet();
        assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).has_ppk()), [has_ppk; 2]);
    }
}

// RFC 8784 §3: it is mixed into the keys of the last exchange before IKE_AUTH.
#[test]
fn a_ppk_goes_with_several_key_exchanges() {
    let (seeds, mut up) = (0..50, 0);
    for seed in seeds.clone() {
        let mut world = World::new(seed, [with("a", LEFT, Has::Optional), with("b", RIGHT, Has::Required)]);
        for end in [LEFT, RIGHT] {
            world.configure(end, |c| c.proposals = ike("aes128gcm16-sha256-x25519-ke1_mlkem768"));
        }
        (world.loss, world.again, world.late_ms) = (10, 10, 1000);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        if world.ends[LEFT].engine.sas().count() == 1 {
            world.check_children(1);
            assert!(world.only_sa(RIGHT).has_ppk());
            up += 1;
        }
    }
    assert!(up > seeds.end * 8 / 10, "{up}");
}
