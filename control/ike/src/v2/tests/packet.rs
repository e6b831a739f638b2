//! Child SAs that packets want (RFC 7296 §2.9), and what those in their place are for (RFC 7296 §2.9.2).

use super::{
    established, events, rekey_only_child,
    world::{LEFT, RIGHT, World, child, config, connection, ike},
};
use crate::{
    connection::Child,
    message::ExchangeType,
    proposal::Proposals,
    traffic_selector::TrafficSelector,
    v2::{child::Wanted, output::Event},
};
use portcullis_sadb::Flow;
use std::sync::Arc;

const DNS: Flow = Flow {
    src: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1)),
    dst: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 1, 9)),
    protocol: 17,
    ports: Some((1024, 53)),
};

/// The left end asks for all of both nets, and the right end has two children for parts of its own.
fn halves(seed: u64) -> World {
    let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    world.configure(RIGHT, |connection| {
        let of = |name, net| child(name, net, "10.1.0.0/16");
        connection.children = vec![of("first", "10.2.0.0/24"), of("second", "10.2.1.0/24")];
    });
    world
}

fn wanted(world: &World, packet: Option<Flow>) -> Wanted {
    Wanted {
        config: world.ends[LEFT].config.connections[0].children[0].clone(),
        packet: packet.map(Box::new),
    }
}

fn begin(world: &mut World, packet: Option<Flow>) {
    let (connection, wanted) = (world.ends[LEFT].config.connections[0].clone(), wanted(world, packet));
    let between = (super::world::address(LEFT), super::world::address(RIGHT));
    world.with(LEFT, |engine, cx| {
        let id = engine.reserve();
        engine.initiate_as(id, &connection, Some(wanted), between, cx);
    });
}

fn ask(world: &mut World, packet: Option<Flow>) {
    let (id, wanted) = (world.only_sa(LEFT).id(), wanted(world, packet));
    world.with(LEFT, |engine, cx| assert!(engine.initiate_child(id, wanted, cx)));
}

/// What the last child SA is for at the right end, and its name there.
fn last(world: &World) -> (String, String) {
    let child = world.only_sa(RIGHT).children().last().expect("a child SA");
    let covers = |end: usize| {
        let all = world.only_sa(end).children();
        all.iter().any(|child| child.policy.has(&TrafficSelector::of_flow(&DNS)))
    };
    assert_eq!(child.config.name == "second", covers(LEFT), "the packet is for it");
    (child.config.name.clone(), child.policy.local.to_string())
}

fn is_for_the_packet(world: &World) {
    assert_eq!(last(world), ("second".into(), "10.2.1.0/24".into()));
}

#[test]
fn the_peer_chooses_by_the_packet() {
    let mut world = halves(1);
    begin(&mut world, None);
    world.run_for(10_000);
    assert_eq!(last(&world), ("first".into(), "10.2.0.0/24".into()));
    ask(&mut world, Some(DNS));
    world.run_for(10_000);
    is_for_the_packet(&world);
    world.check_children(2);
    let mut world = halves(2);
    begin(&mut world, Some(DNS));
    world.run_for(10_000);
    is_for_the_packet(&world);
    world.check_children(1);
}

#[test]
fn the_packet_is_said_whenever_it_is_asked_again() {
    type Case = (&'static str, fn(&mut World), fn(&mut World));
    let first: [Case; 4] = [
        ("a cookie", |world| world.ends[RIGHT].config.cookies_from = 0, |_| {}),
        (
            "another key exchange",
            |world| {
                world.configure(LEFT, |c| c.proposals = ike("aes128gcm16-sha256-x25519-ecp256"));
                world.configure(RIGHT, |c| c.proposals = ike("aes128gcm16-sha256-ecp256"));
            },
            |_| {},
        ),
        (
            "it begins again",
            |world| {
                world.configure(LEFT, |c| c.keying_tries = 0);
                world.lost = Some(ExchangeType::IKE_AUTH);
            },
            |world| {
                world.run_for(170_000);
                world.lost = None;
            },
        ),
        (
            "it is made behind an IKE SA",
            |world| {
                [LEFT, RIGHT].into_iter().for_each(|end| {
                    world.configure(end, |c| c.childless = crate::connection::Childless::Prefer);
                });
            },
            |_| {},
        ),
    ];
    for (name, before, meanwhile) in first {
        println!("{name}");
        let mut world = halves(3);
        before(&mut world);
        begin(&mut world, Some(DNS));
        meanwhile(&mut world);
        world.run_for(30_000);
        is_for_the_packet(&world);
    }
    let further: [Case; 3] = [
        ("another key exchange", |_| {}, |_| {}),
        (
            "not now",
            |world| {
                let id = world.only_sa(RIGHT).id();
                world.slow = Some((RIGHT, 500));
                world.with(RIGHT, |engine, cx| engine.rekey(id, cx));
            },
            |_| {},
        ),
        (
            "another process",
            |world| {
                world.keep_both(0);
                world.slow = Some((LEFT, 500));
            },
            |world| {
                world.come_back(LEFT);
                world.with(LEFT, |engine, cx| engine.resume(cx));
            },
        ),
    ];
    for (name, before, meanwhile) in further {
        println!("{name}");
        let mut world = halves(4);
        let with = |world: &mut World, end: usize, proposal: &str| {
            world.configure(end, |connection| {
                for child in &mut connection.children {
                    let child: &mut Child = Arc::make_mut(child);
                    child.proposals = Proposals::esp([proposal]).unwrap();
                }
            });
        };
        with(&mut world, LEFT, "aes128gcm16-x25519-ecp256");
        with(&mut world, RIGHT, "aes128gcm16-ecp256");
        begin(&mut world, None);
        world.run_for(10_000);
        before(&mut world);
        ask(&mut world, Some(DNS));
        meanwhile(&mut world);
        world.run_for(60_000);
        is_for_the_packet(&world);
        world.check_children(2);
    }
}

/// A peer may make it for the packet's own selectors, and no more.
#[test]
fn what_is_narrowed_to_the_packet_is_for_it() {
    let icmp = Flow { protocol: 1, ports: Some((8 << 8, 8 << 8)), ..DNS };
    let gre = Flow { protocol: 47, ports: None, ..DNS };
    for (packet, local, remote) in [
        (DNS, "10.2.1.9/32[udp/53]", "10.1.0.1/32[udp/1024]"),
        (icmp, "10.2.1.9/32[icmp/8/0]", "10.1.0.1/32[icmp/8/0]"),
        (gre, "10.2.1.9/32[gre]", "10.1.0.1/32[gre]"),
    ] {
        let mut world = halves(5);
        world.configure(RIGHT, |c| c.children = vec![child("own", local, remote)]);
        begin(&mut world, Some(packet));
        world.run_for(10_000);
        world.check_children(1);
        let policy = &world.only_sa(LEFT).children()[0].policy;
        assert_eq!((&*policy.remote.to_string(), &*policy.local.to_string()), (local, remote));
        assert!(policy.has(&TrafficSelector::of_flow(&packet)));
        // RFC 7296 §2.9.2: what takes its place is for no less, without the packet.
        rekey_only_child(&mut world, LEFT);
        world.run_for(10_000);
        world.check_children(1);
        let policy = &world.only_sa(LEFT).children()[0].policy;
        assert_eq!((&*policy.remote.to_string(), &*policy.local.to_string()), (local, remote));
    }
}

/// What the child is not for is not asked for, whatever packet wants it.
#[test]
fn a_packet_that_is_not_for_it_is_not_said() {
    for packet in [Flow { dst: [10, 9, 0, 1].into(), ..DNS }, Flow { src: [10, 2, 0, 1].into(), ..DNS }] {
        let mut world = halves(6);
        // It would be for that.
        world.configure(RIGHT, |c| c.children[1] = child("second", "0.0.0.0/0", "0.0.0.0/0"));
        begin(&mut world, Some(packet));
        world.run_for(10_000);
        let policy = &world.only_sa(LEFT).children()[0].policy;
        assert!(!policy.has(&TrafficSelector::of_flow(&packet)));
        world.check_children(1);
    }
}

// RFC 7296 §2.9.2
#[test]
fn what_replaces_a_child_and_is_for_less_is_told() {
    for (by, of) in [(LEFT, LEFT), (LEFT, RIGHT), (RIGHT, LEFT), (RIGHT, RIGHT)] {
        let mut world = established(7);
        rekey_only_child(&mut world, by);
        world.run_for(10_000);
        let narrowed = |world: &World, end: usize| -> Vec<Event> {
            let all = events(world, end).into_iter();
            all.filter(|event| matches!(event, Event::ChildNarrowed(..))).collect()
        };
        assert_eq!([LEFT, RIGHT].map(|end| narrowed(&world, end).len()), [0, 0]);
        // An end that does otherwise.
        let nets = ["10.1.7.0/24", "10.2.7.0/24"];
        let (id, less) = (world.only_sa(of).id(), child("net", nets[of], nets[1 - of]));
        world.with(of, |engine, cx| engine.with(id, cx, |sa, _| sa.children[0].config = less));
        rekey_only_child(&mut world, by);
        world.run_for(10_000);
        world.check_children(1);
        for end in [LEFT, RIGHT] {
            let spi = world.only_sa(end).children()[0].spi_in;
            let of = |nets: [&str; 2]| format!("{} here and {} there", nets[end], nets[1 - end]);
            let told = Event::ChildNarrowed("net".into(), spi, of(["10.1.0.0/16", "10.2.0.0/16"]), of(nets));
            assert_eq!(narrowed(&world, end), [told]);
        }
    }
}
