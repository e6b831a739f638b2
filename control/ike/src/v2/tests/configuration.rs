use super::{
    events, rekey_only_child,
    world::{LEFT, RIGHT, World, config, connection},
};
use crate::{
    connection::{Configuration, Connection, Unique},
    message::{
        self, ConfigurationAttribute, ConfigurationAttributeType as Kind, ConfigurationType, Payload,
        Payloads,
    },
    pool::Pool,
    traffic_selector::ConfiguredSelectors,
    v2::output::Event,
};
use std::{net::IpAddr, sync::Arc};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn pool(name: &str, first: &str, last: &str, dns: &str) -> Arc<Pool> {
    let kind = if ip(dns).is_ipv4() { Kind::INTERNAL_IP4_DNS } else { Kind::INTERNAL_IP6_DNS };
    let attributes = vec![ConfigurationAttribute::of_address(kind, ip(dns))];
    Arc::new(Pool { name: name.into(), first: ip(first), last: ip(last), attributes })
}

fn with_selectors(mut connection: Connection, local: &str, remote: &str) -> Connection {
    let child = Arc::make_mut(&mut connection.children[0]);
    let read = |text: &str| ConfiguredSelectors::parse(text.split(", ")).unwrap();
    (child.local, child.remote) = (read(local), read(remote));
    connection
}

/// A left end that asks for addresses, and a right one that has some.
fn ends(vips: &[&str], pools: &[Arc<Pool>]) -> [Configuration; 2] {
    let mut left = with_selectors(connection("a", LEFT), "dynamic", "10.2.0.0/16, fd02::/16");
    left.vips = vips.iter().map(|text| ip(text)).collect();
    let mut right = with_selectors(connection("b", RIGHT), "10.2.0.0/16, fd02::/16", "dynamic");
    right.pools = pools.iter().map(|pool| pool.name.clone()).collect();
    let mut right = config(right);
    right.pools = pools.to_vec();
    [config(left), right]
}

fn v4() -> Arc<Pool> {
    pool("v4", "10.3.0.1", "10.3.0.2", "10.2.0.53")
}

fn v6() -> Arc<Pool> {
    pool("v6", "fd03::1", "fd03::ffff", "fd02::53")
}

fn local_ts(world: &World, end: usize) -> String {
    world.ends[end].installed.values().next().unwrap().sa.policy.local.to_string()
}

// RFC 7296 §2.19, §2.9
#[test]
fn an_initiator_gets_addresses_and_sends_from_them() {
    let (seeds, mut up) = (0..20, 0);
    for seed in seeds.clone() {
        let mut world = World::new(seed, ends(&["0.0.0.0", "::"], &[v4(), v6()]));
        (world.loss, world.again, world.late_ms) = (20, 20, 1000);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        if world.ends[LEFT].engine.sas().count() == 0 {
            continue;
        }
        up += 1;
        world.check_children(1);
        let ours = vec![ip("10.3.0.1"), ip("fd03::1")];
        let given = world.only_sa(LEFT).given().clone();
        assert_eq!((given.ours, given.dns), (ours.clone(), vec![ip("10.2.0.53"), ip("fd02::53")]));
        let theirs: Vec<_> = world.only_sa(RIGHT).given().theirs.iter().map(|lease| lease.address).collect();
        assert_eq!(theirs, ours);
        assert_eq!(local_ts(&world, LEFT), "10.3.0.1/32, fd03::1/128");
        let told = vec![("v4".to_owned(), ours[0]), ("v6".to_owned(), ours[1])];
        assert!(events(&world, RIGHT).contains(&Event::Gave("left.example.org".into(), told)));
    }
    assert!(up > seeds.end * 8 / 10, "{up}");
}

#[test]
fn addresses_go_on_over_rekeying_and_go_back_at_the_end() {
    let mut world = World::new(1, ends(&["0.0.0.0"], &[v4()]));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    for _ in 0..2 {
        for end in [LEFT, RIGHT] {
            let id = world.only_sa(end).id();
            world.with(end, |engine, cx| engine.rekey(id, cx));
            world.run_until_quiet();
            rekey_only_child(&mut world, end);
            world.run_until_quiet();
            world.check_children(1);
            assert_eq!(world.only_sa(LEFT).given().ours, [ip("10.3.0.1")]);
            assert_eq!(local_ts(&world, LEFT), "10.3.0.1/32");
            assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (1, 0));
        }
    }
    // At the same time.
    for end in [LEFT, RIGHT] {
        let id = world.only_sa(end).id();
        world.with(end, |engine, cx| engine.rekey(id, cx));
    }
    world.run_until_quiet();
    assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (1, 0));
    let id = world.only_sa(LEFT).id();
    world.with(LEFT, |engine, cx| engine.terminate(id, cx));
    world.run_until_quiet();
    assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (0, 1));
    assert_eq!(world.ends[RIGHT].engine.leases().told("v4"), [(ip("10.3.0.1"), "left.example.org", false)]);
}

// RFC 7296 §2.8.3
#[test]
fn addresses_stay_when_who_has_them_authenticates_anew() {
    use crate::connection::Unique::{Keep, Never, No, Replace};
    for unique in [No, Never, Keep, Replace] {
        let mut world = World::new(1, ends(&["0.0.0.0"], &[v4()]));
        world.configure(RIGHT, |connection| connection.unique = unique);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.is_steady = true;
        for _ in 0..3 {
            let id = world.only_sa(LEFT).id();
            world.with(LEFT, |engine, cx| assert!(engine.reauthenticate(id, cx)));
            world.run_until_quiet();
            world.check_children(1);
            assert_eq!(world.only_sa(LEFT).given().ours, [ip("10.3.0.1")], "{unique:?}");
            assert_eq!(local_ts(&world, LEFT), "10.3.0.1/32");
            assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (1, 0));
        }
    }
}

#[test]
fn an_address_is_the_one_that_was_asked_for_where_it_is_free() {
    let mut world = World::new(1, ends(&["10.3.0.2"], &[v4()]));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(world.only_sa(LEFT).given().ours, [ip("10.3.0.2")]);
}

// RFC 7296 §3.15.4
#[test]
fn without_an_address_there_is_no_child_sa() {
    let mut one = pool("one", "10.3.0.1", "10.3.0.1", "10.2.0.53");
    let mut world = World::new(1, ends(&["0.0.0.0"], &[one.clone()]));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(world.ends[RIGHT].engine.sas().count(), 2);
    world.check_children(1);
    let why = "no address is left in its pools (one)".to_owned();
    assert!(events(&world, RIGHT).contains(&Event::ChildFailed("net".into(), why)));
    let why = "the peer says INTERNAL_ADDRESS_FAILURE".to_owned();
    assert!(events(&world, LEFT).contains(&Event::ChildFailed("net".into(), why)));
    // Of another family there is none either.
    Arc::make_mut(&mut one).name = "other".into();
    let mut world = World::new(1, ends(&["::"], &[one]));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(0);
}

// RFC 7296 §2.19
#[test]
fn who_does_not_ask_where_it_must_gets_no_child_sa() {
    let mut world = World::new(1, ends(&[], &[v4()]));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(0);
    let why = "the peer says FAILED_CP_REQUIRED".to_owned();
    assert!(events(&world, LEFT).contains(&Event::ChildFailed("net".into(), why)));
}

/// A gateway gives addresses, and takes none away: it says nothing of those that are here anyway, unless they are asked for.
#[test]
fn a_gateway_gives_no_more_than_is_asked_for_and_nothing_of_ours() {
    let reply = |of: &[&str]| {
        let kind = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => Kind::INTERNAL_IP4_ADDRESS,
            IpAddr::V6(_) => Kind::INTERNAL_IP6_ADDRESS,
        };
        let of = of.iter().map(|text| ip(text));
        let attributes = of.map(|ip| ConfigurationAttribute::of_address(kind(&ip), ip)).collect();
        Payloads(vec![Payload::Configuration(message::Configuration {
            kind: ConfigurationType::CFG_REPLY,
            attributes,
        })])
    };
    for (vips, replied, taken) in [
        (&["0.0.0.0"][..], &["10.3.0.1", "10.3.0.2", "fd03::1"][..], &["10.3.0.1"][..]),
        (
            &["0.0.0.0", "0.0.0.0", "::"],
            &["10.3.0.1", "10.3.0.1", "fd03::1", "10.3.0.2"],
            &["10.3.0.1", "fd03::1", "10.3.0.2"],
        ),
        // Where it is, and where it is besides.
        (&["0.0.0.0"], &["192.0.2.1", "198.51.100.9", "10.3.0.1"], &["10.3.0.1"]),
        (&["198.51.100.9"], &["198.51.100.9"], &["198.51.100.9"]),
        (&["0.0.0.0"], &["127.0.0.1", "224.0.0.1", "0.0.0.0"], &[]),
    ] {
        let mut world = World::new(1, ends(vips, &[]));
        world.ends[LEFT].config.here = vec![ip("198.51.100.9")];
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let id = world.only_sa(LEFT).id();
        let replied = reply(replied);
        world.with(LEFT, |engine, cx| engine.with(id, cx, |sa, cx| sa.learn_configuration(&replied, cx)));
        let taken: Vec<_> = taken.iter().map(|text| ip(text)).collect();
        assert_eq!(world.only_sa(LEFT).given().ours, taken);
    }
}

/// Where the responder has no pools, who has asked goes on with the address that it has.
#[test]
fn without_pools_a_request_changes_nothing() {
    let mut world = World::new(1, ends(&["0.0.0.0"], &[]));
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    world.check_children(1);
    assert_eq!(local_ts(&world, LEFT), "192.0.2.1/32");
}

/// Of selectors that are wider than the address at the responder, the initiator sends from its address alone.
#[test]
fn what_is_wider_than_the_address_is_narrowed() {
    let [left, mut right] = ends(&["0.0.0.0"], &[v4()]);
    let wide = with_selectors((*right.connections[0]).clone(), "10.2.0.0/16", "10.3.0.0/16");
    right.connections = vec![Arc::new(wide)];
    let mut world = World::new(1, [left, right]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!(local_ts(&world, LEFT), "10.3.0.1/32");
    assert_eq!(local_ts(&world, RIGHT), "10.2.0.0/16");
}

/// Who begins anew has the address that it had, though its other IKE SA is not gone yet.
#[test]
fn who_has_forgotten_gets_its_address_again() {
    for unique in [Unique::No, Unique::Replace] {
        let mut world = World::new(1, ends(&["0.0.0.0"], &[v4()]));
        world.configure(RIGHT, |connection| connection.unique = unique);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.restart(LEFT);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        world.check_children(1);
        assert_eq!(world.only_sa(LEFT).given().ours, [ip("10.3.0.1")]);
        assert_eq!(world.ends[RIGHT].engine.leases().counts("v4"), (1, 0));
    }
}
