//! Child SAs whose connection is another meanwhile.

use super::{
    established, rekey_only_child,
    world::{LEFT, RIGHT, World, child},
};

/// What the child SAs of an end are for, at our end.
fn local(world: &World, end: usize) -> Vec<String> {
    let mut all: Vec<_> =
        world.only_sa(end).children().iter().map(|child| child.policy.local.to_string()).collect();
    all.sort_unstable();
    all
}

/// The children of both ends are others, though of the same name.
fn reload(world: &mut World) {
    let nets = ["10.1.7.0/24", "10.2.7.0/24"];
    for end in [LEFT, RIGHT] {
        world.configure(end, |c| {
            (c.mark, c.children) = (1, vec![child("net", nets[end], nets[1 - end])]);
        });
        let now = world.ends[end].config.connections.clone();
        world.ends[end].engine.follow_connections(&now);
    }
}

/// What replaces a child SA is for no less than that is in use for (RFC 7296 §2.9.2), whatever is configured meanwhile.
#[test]
fn what_replaces_a_child_is_for_the_same_and_further_ones_are_of_the_new_configuration() {
    for by in [LEFT, RIGHT] {
        let mut world = established(3);
        let before = [LEFT, RIGHT].map(|end| local(&world, end));
        assert_eq!(before[0], ["10.1.0.0/16"]);
        reload(&mut world);
        let spi = world.only_sa(LEFT).children()[0].spi_in;
        rekey_only_child(&mut world, by);
        world.run_until_quiet();
        world.check_children(1);
        assert_ne!(world.only_sa(LEFT).children()[0].spi_in, spi);
        assert_eq!([LEFT, RIGHT].map(|end| local(&world, end)), before);
        let (id, net) = (world.only_sa(by).id(), world.ends[by].config.connections[0].children[0].clone());
        world.with(by, |engine, cx| engine.initiate_child(id, &net, cx));
        world.run_until_quiet();
        world.check_children(2);
        assert_eq!(local(&world, LEFT), ["10.1.0.0/16", "10.1.7.0/24"]);
        // It is of this configuration from now on.
        assert_eq!([LEFT, RIGHT].map(|end| world.only_sa(end).connection().mark), [1, 1]);
    }
}
