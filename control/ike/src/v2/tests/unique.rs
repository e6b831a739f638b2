use super::world::{LEFT, RIGHT, World, address, child, config, connection};
use crate::{
    connection::{Childless, LocalAuth, RemoteAuth, Unique},
    v2::output::Event,
};
use std::sync::Arc;

/// A world in which an IKE SA is up, of which the left end knows nothing any more if it is to forget.
fn met(unique: Unique, says_so: bool, forgets: bool) -> World {
    let mut world = World::new(1, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.configure(RIGHT, |connection| connection.unique = unique);
    if !says_so {
        world.configure(LEFT, |connection| connection.unique = Unique::Never);
    }
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    if forgets {
        world.restart(LEFT);
    }
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world
}

/// How many IKE SAs each has, and what became of the first at the right end.
fn left_over(world: &World) -> ([usize; 2], Option<String>) {
    let (first, _) = world.ends[RIGHT].events[0].clone();
    let closed = world.ends[RIGHT].events.iter().find_map(|(id, event)| match event {
        Event::Closed(why) if *id == first => Some(why.clone()),
        _ => None,
    });
    ([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), closed)
}

// RFC 7296 §2.4
#[test]
fn a_peer_that_has_forgotten_has_one_ike_sa() {
    let superseded = Some("the peer has begun another, and knows this one no more".to_owned());
    for unique in [Unique::No, Unique::Keep, Unique::Replace] {
        let world = met(unique, true, true);
        assert_eq!(left_over(&world), ([1, 1], superseded.clone()), "{unique:?}");
        world.check_children(1);
    }
    // Whatever it says.
    assert_eq!(left_over(&met(Unique::Never, true, true)), ([1, 2], None));
}

#[test]
fn there_is_one_ike_sa_of_two_as_is_configured() {
    for (unique, counts, closed) in [
        (Unique::No, [2, 2], None),
        (Unique::Never, [2, 2], None),
        // It is from where the other is.
        (Unique::Keep, [1, 1], Some("deleted".to_owned())),
        (Unique::Replace, [1, 1], Some("deleted".to_owned())),
    ] {
        // Who knows the first says nothing, and who never does neither.
        for says_so in [true, false] {
            let world = met(unique, says_so, false);
            assert_eq!(left_over(&world), (counts, closed.clone()), "{unique:?}");
            world.check_children(counts[0]);
        }
    }
}

/// Two connections of the same two are begun at once. There are peers that say of both that there is no other, and such as believe
/// that of what was there before and of what was not.
// RFC 7296 §2.4
#[test]
fn what_is_begun_at_once_stays() {
    for (says_twice, believes_all) in [(false, true), (true, false)] {
        let mut world = World::new(6, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        let mut other = connection("other", LEFT);
        other.children = vec![child("other", "10.3.0.0/16", "10.4.0.0/16")];
        world.ends[LEFT].config.connections.push(Arc::new(other));
        world.configure(RIGHT, |c| c.children.push(child("other", "10.4.0.0/16", "10.3.0.0/16")));
        for connection in world.ends[LEFT].config.connections.clone() {
            let (child, between) = (&connection.children[0], (address(LEFT), address(RIGHT)));
            world.with(LEFT, |engine, cx| engine.initiate(&connection, Some(child), between, cx));
        }
        while world.step(60_000) {
            if says_twice {
                world.ends[LEFT].engine.forget_contacts();
            }
            if believes_all && world.ends[RIGHT].engine.half_open() == 2 {
                // As if the first messages came later than they do.
                world.ends[RIGHT].config.half_open_ms = 0;
            }
        }
        assert_eq!(left_over(&world), ([2, 2], None), "{says_twice}");
        world.check_children(2);
    }
}

/// One that was replaced is the one that counts.
#[test]
fn a_rekeyed_ike_sa_is_still_of_the_same_two() {
    let mut world = World::new(2, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let id = world.only_sa(RIGHT).id();
    world.with(RIGHT, |engine, cx| engine.rekey(id, cx));
    world.run_until_quiet();
    world.restart(LEFT);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.only_sa(RIGHT);
    world.check_children(1);
}

// RFC 6023 §3
#[test]
fn an_ike_sa_has_no_child_where_both_may_do_without() {
    use Childless::{Allow, Force, Never, Prefer};
    // What each end allows, whether a child is asked for: IKE SAs, and child SAs.
    for (left, right, wants, [sas, children]) in [
        (Allow, Allow, false, [1, 0]),
        (Allow, Allow, true, [1, 1]),
        (Allow, Never, true, [1, 1]),
        (Prefer, Allow, true, [1, 1]),
        (Prefer, Never, true, [1, 1]),
        (Force, Allow, true, [1, 1]),
        (Force, Never, true, [0, 0]),
        (Allow, Force, true, [1, 0]),
        // The first one is asked for where there must be one.
        (Allow, Never, false, [1, 1]),
    ] {
        let mut world = World::new(3, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        world.configure(LEFT, |connection| connection.childless = left);
        world.configure(RIGHT, |connection| connection.childless = right);
        world.initiate(LEFT, wants.then_some(0));
        world.run_until_quiet();
        let of = (left, right, wants);
        assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), [sas; 2], "{of:?}");
        world.check_children(children);
        let is_behind = world.messages_of(LEFT) == 3;
        assert_eq!(is_behind, matches!((left, right), (Prefer | Force, Allow)), "{of:?}");
    }
}

/// RFC 7619 §2.3: who proves nothing and says to be somebody ends nothing of them, and keeps them out of nothing.
#[test]
fn who_proves_nothing_is_nobodys_other_ike_sa() {
    for unique in [Unique::No, Unique::Keep, Unique::Replace] {
        let [anybody, somebody] = [RemoteAuth::Null, RemoteAuth::SharedKey];
        for (first, then) in [(somebody.clone(), anybody.clone()), (anybody, somebody)] {
            let mut world = World::new(1, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
            for remote in [first, then] {
                let local = if remote.tells_who() { LocalAuth::SharedKey } else { LocalAuth::Null };
                world.configure(LEFT, |c| c.local_auth = local);
                world.configure(RIGHT, |c| (c.remote_auth, c.unique) = (remote, unique));
                // It says that there is no other.
                world.restart(LEFT);
                world.initiate(LEFT, Some(0));
                world.run_until_quiet();
            }
            assert_eq!(left_over(&world), ([1, 2], None), "{unique:?}");
        }
    }
}

/// Whether children go on that a peer ends, or does not answer for: where there is another child SA of the same, and not just
/// another IKE SA of the same two.
#[test]
fn what_another_child_sa_is_there_for_goes_on() {
    for (is_same, is_deleted) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = World::new(7, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
        let (name, nets) = if is_same {
            ("net", ["10.1.0.0/16", "10.2.0.0/16"])
        } else {
            ("other", ["10.3.0.0/16", "10.4.0.0/16"])
        };
        for end in [LEFT, RIGHT] {
            world.configure(end, |c| {
                (c.unique, c.dpd_ms) = (Unique::Never, [30_000, 0][end]);
                c.children.extend((!is_same).then(|| child(name, nets[end], nets[1 - end])));
            });
        }
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        let (id, spi) = (world.only_sa(RIGHT).id(), world.only_sa(LEFT).children()[0].spi_in);
        if !is_deleted {
            world.restart(RIGHT);
        }
        world.initiate(LEFT, Some(usize::from(!is_same)));
        world.run_for(1000);
        if is_deleted {
            world.with(RIGHT, |engine, cx| engine.terminate(id, cx));
        }
        world.run_until_quiet();
        assert_eq!(world.ends[LEFT].gone, [(spi, is_same)], "{is_deleted}");
        world.check_children(1);
    }
}
