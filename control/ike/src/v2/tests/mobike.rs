use super::{
    events, rekey_only_child,
    world::{LEFT, RIGHT, World, address, config, connection},
};
use crate::{
    connection::{Connection, Hosts},
    message::{Notify, NotifyType, Payload, Payloads},
    v2::{
        nat,
        output::{Event, Move},
    },
};
use std::net::{IpAddr, SocketAddr};

const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

/// A world in which the left end may go anywhere, and an IKE SA is up.
fn mobile(seed: u64, change: fn(&mut Connection)) -> World {
    let mut world = World::new(seed, [config(connection("a", LEFT)), config(connection("b", RIGHT))]);
    for end in [LEFT, RIGHT] {
        world.configure(end, |connection| {
            connection.mobike = true;
            connection.dpd_ms = 20_000;
            if end == RIGHT {
                connection.remote = Hosts::Any;
            }
            change(connection);
        });
    }
    world
}

fn begin(world: &mut World) {
    world.initiate(LEFT, Some(0));
    world.run_for(30_000);
    world.check_children(1);
    assert!([LEFT, RIGHT].iter().all(|end| world.only_sa(*end).has_mobike()));
}

fn go(world: &mut World, to: IpAddr) {
    world.addresses[LEFT] = to;
    let id = world.only_sa(LEFT).id();
    assert!(world.with(LEFT, |engine, cx| engine.go_between(id, (to, address(RIGHT)), cx)));
}

/// Where the only child SA of an end goes: ours, and the peer's.
fn ends_of(world: &World, end: usize) -> (SocketAddr, SocketAddr) {
    let install = world.ends[end].installed.values().next().unwrap();
    (install.local, install.peer)
}

/// What is still being begun goes on from where we are by then, and to where the peer's name is.
#[test]
fn what_is_being_begun_goes_with_either_end() {
    for end in [LEFT, RIGHT] {
        let mut world = mobile(2, |connection| connection.keying_tries = 0);
        world.configure(RIGHT, |connection| connection.local = Hosts::Any);
        world.addresses[end] = ELSEWHERE;
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        match end {
            LEFT => go(&mut world, ELSEWHERE),
            _ => {
                world.configure(LEFT, |connection| connection.remote = Hosts::one(ELSEWHERE));
                let connections = world.ends[LEFT].config.connections.clone();
                world.ends[LEFT].engine.follow_connections(&connections);
                // It is given up there.
                world.run_for(170_000);
            }
        }
        // What the right end had half open is over.
        world.run_for(31_000);
        world.check_children(1);
        assert_eq!(ends_of(&world, 1 - end).1.ip(), ELSEWHERE);
        // What both say of their addresses is said of these.
        assert!(world.only_sa(RIGHT).nat().is_some_and(|nat| !nat.is_any()), "{end}");
    }
}

// RFC 4555 §3.3, §3.5
#[test]
fn child_sas_go_with_who_has_begun() {
    let mut world = mobile(1, |_| {});
    begin(&mut world);
    // It is at port 4500 though there is no NAT, and ESP is not in UDP.
    assert_eq!(world.only_sa(LEFT).path().peer.port(), 4500);
    go(&mut world, ELSEWHERE);
    world.run_for(10_000);
    world.check_children(1);
    assert_eq!(ends_of(&world, LEFT).0.ip(), ELSEWHERE);
    assert_eq!(ends_of(&world, RIGHT).1.ip(), ELSEWHERE);
    assert!(world.ends.iter().all(|end| end.installed.values().all(|install| !install.is_in_udp)));
    for end in [LEFT, RIGHT] {
        assert!(matches!(events(&world, end).last(), Some(Event::Moved(_))));
    }
    // It goes on there, whoever has begun the IKE SA in its place.
    rekey_only_child(&mut world, RIGHT);
    world.run_for(10_000);
    let id = world.only_sa(RIGHT).id();
    world.with(RIGHT, |engine, cx| assert!(engine.rekey(id, cx)));
    world.run_for(10_000);
    // It is not for the other to say.
    let id = world.only_sa(RIGHT).id();
    world.with(RIGHT, |engine, cx| assert!(!engine.go_between(id, (ELSEWHERE, ELSEWHERE), cx)));
    go(&mut world, address(LEFT));
    world.run_for(10_000);
    world.check_children(1);
    assert_eq!(ends_of(&world, RIGHT).1.ip(), address(LEFT));
}

// RFC 4555 §3.5
#[test]
fn whatever_the_network_does_packets_go_where_it_is_last() {
    let seeds = 0..300;
    println!("seeds {seeds:?}");
    for seed in seeds {
        let mut world = mobile(seed, |connection| connection.retransmission.tries = 20);
        world.configure(LEFT, |connection| connection.retransmission.limit_ms = 8000);
        begin(&mut world);
        (world.loss, world.again, world.late_ms) = (15, 10, 2000);
        for n in 0..5 {
            let host = 10 + world.below(5) as u8;
            go(&mut world, [198, 51, 100, host].into());
            let ms = world.below(if n == 4 { 1 } else { 20_000 });
            world.run_for(ms);
        }
        (world.loss, world.again, world.late_ms) = (0, 0, 10);
        world.run_for(200_000);
        world.check_children(1);
        assert_eq!(ends_of(&world, RIGHT).1.ip(), world.addresses[LEFT], "seed {seed}");
    }
}

// RFC 4555 §3.7
#[test]
fn packets_do_not_go_where_nobody_answers() {
    let mut world = mobile(2, |_| {});
    begin(&mut world);
    let before = ends_of(&world, RIGHT);
    let id = world.only_sa(LEFT).id();
    // It says that it is elsewhere, and gets nothing there.
    world.with(LEFT, |engine, cx| engine.go_between(id, (ELSEWHERE, address(RIGHT)), cx));
    world.run_for(30_000);
    assert_eq!(ends_of(&world, RIGHT), before);
    world.run_for(200_000);
    assert_eq!(events(&world, RIGHT).last(), Some(&Event::Closed("the peer does not answer".into())));
}

// RFC 4555 §3.5: of addresses that the connection does not have.
#[test]
fn addresses_that_no_connection_has_are_refused() {
    let mut world = mobile(3, |_| {});
    world.configure(RIGHT, |connection| connection.remote = Hosts::one(address(LEFT)));
    begin(&mut world);
    let before = ends_of(&world, RIGHT);
    go(&mut world, ELSEWHERE);
    world.run_for(1000);
    let refused = Event::MoveFailed("the peer says UNACCEPTABLE_ADDRESSES".into());
    assert_eq!(events(&world, LEFT).last(), Some(&refused));
    assert_eq!(ends_of(&world, RIGHT), before);
}

// RFC 4555 §3.6
#[test]
fn the_peer_knows_further_addresses() {
    let mut world = mobile(4, |_| {});
    let six: IpAddr = "2001:db8::7".parse().unwrap();
    world.configure(RIGHT, |connection| {
        let all = [address(RIGHT), ELSEWHERE, six];
        connection.local = Hosts::Ranges(all.map(|address| address..=address).to_vec());
    });
    begin(&mut world);
    assert_eq!(world.only_sa(LEFT).peer_addresses(), [ELSEWHERE, six]);
    assert!(world.only_sa(RIGHT).peer_addresses().is_empty());
}

// RFC 4555 §3.6
#[test]
fn the_peer_is_told_of_further_addresses_that_come_and_go() {
    let mut world = mobile(7, |connection| connection.local = Hosts::Any);
    let six: IpAddr = "2001:db8::7".parse().unwrap();
    world.ends[LEFT].config.here = vec![address(LEFT), ELSEWHERE];
    begin(&mut world);
    assert_eq!(world.only_sa(RIGHT).peer_addresses(), [ELSEWHERE]);
    for (here, told) in [(vec![six, address(LEFT)], vec![six]), (vec![address(LEFT)], vec![])] {
        world.ends[LEFT].config.here = here;
        let id = world.only_sa(LEFT).id();
        assert!(world.with(LEFT, |engine, cx| engine.announce(id, None, cx)));
        world.run_for(1000);
        assert_eq!(world.only_sa(RIGHT).peer_addresses(), told);
    }
    // Who goes elsewhere says so, too.
    world.ends[LEFT].config.here = vec![ELSEWHERE, six];
    go(&mut world, ELSEWHERE);
    world.run_for(1000);
    assert_eq!(world.only_sa(RIGHT).peer_addresses(), [six]);
    assert_eq!(ends_of(&world, RIGHT).1.ip(), ELSEWHERE);
}

// RFC 4555 §3.6
#[test]
fn who_has_begun_goes_where_the_other_says_that_it_is() {
    let mut world = mobile(8, |connection| (connection.local, connection.remote) = (Hosts::Any, Hosts::Any));
    begin(&mut world);
    world.addresses[RIGHT] = ELSEWHERE;
    world.ends[RIGHT].config.here = vec![ELSEWHERE];
    let id = world.only_sa(RIGHT).id();
    assert!(world.with(RIGHT, |engine, cx| engine.announce(id, Some((ELSEWHERE, address(LEFT))), cx)));
    world.run_for(10_000);
    world.check_children(1);
    assert_eq!(ends_of(&world, LEFT).1.ip(), ELSEWHERE);
    assert_eq!(ends_of(&world, RIGHT).0.ip(), ELSEWHERE);
}

// RFC 4555 §3.5
#[test]
fn what_is_under_way_goes_elsewhere_at_once() {
    let mut world = mobile(9, |_| {});
    begin(&mut world);
    world.one_way = Some(LEFT);
    rekey_only_child(&mut world, LEFT);
    world.run_for(1000);
    world.one_way = None;
    go(&mut world, ELSEWHERE);
    world.run_for(500);
    world.check_children(1);
    assert_eq!(ends_of(&world, RIGHT).1.ip(), ELSEWHERE);
}

/// With a peer that cannot, another IKE SA is begun from there.
// RFC 7296 §2.8.3
#[test]
fn without_mobike_another_takes_its_place_elsewhere() {
    for gone_for_good in [true, false] {
        let mut world = mobile(10, |_| {});
        world.configure(RIGHT, |connection| connection.mobike = false);
        world.initiate(LEFT, Some(0));
        world.run_for(1000);
        world.is_steady = true;
        let before = world.only_sa(LEFT).id();
        // It goes once more while that is under way.
        if !gone_for_good {
            go(&mut world, [198, 51, 100, 9].into());
            world.one_way = Some(LEFT);
            world.run_for(2000);
            world.one_way = None;
        }
        world.addresses[LEFT] = ELSEWHERE;
        assert!(world.with(LEFT, |engine, cx| engine.go_between(before, (ELSEWHERE, address(RIGHT)), cx)));
        world.run_for(30_000);
        world.check_children(1);
        assert_ne!(world.only_sa(LEFT).id(), before);
        assert_eq!(world.only_sa(RIGHT).path().peer.ip(), ELSEWHERE);
        assert_eq!(ends_of(&world, RIGHT).1.ip(), ELSEWHERE);
    }
}

/// A NAT in front of the left end gives it another place.
// RFC 7296 §2.23, RFC 4555 §3.8
#[test]
fn a_nat_gives_another_place_with_and_without_mobike() {
    let places = ["203.0.113.1:1000", "203.0.113.2:2000"].map(|text| text.parse::<SocketAddr>().unwrap());
    for mobike in [false, true] {
        let mut world = mobile(5, |_| {});
        world.configure(RIGHT, |connection| connection.mobike = mobike);
        world.nat = Some(places[0]);
        world.initiate(LEFT, Some(0));
        world.run_for(70_000);
        let seen = SocketAddr::new(places[0].ip(), places[0].port() + 1);
        assert_eq!(ends_of(&world, RIGHT).1, seen);
        world.nat = Some(places[1]);
        world.run_for(60_000);
        let seen = SocketAddr::new(places[1].ip(), places[1].port() + 1);
        assert_eq!(ends_of(&world, RIGHT).1, seen, "{mobike}");
        assert_eq!(world.only_sa(RIGHT).path().peer, seen);
        let [ours] = &world.ends[RIGHT].moves[..] else { panic!("{:?}", world.ends[RIGHT].moves) };
        let Move { is_in_udp, nat, .. } = *ours;
        assert!(is_in_udp && nat.is_there && !nat.is_here);
        assert_eq!(world.ends[RIGHT].engine.sas().count(), 1);
    }
}

/// The same told by a packet of ESP, where the peer has nothing to say.
// RFC 7296 §2.23, RFC 4555 §3.8
#[test]
fn messages_go_where_packets_come_from_behind_a_nat() {
    let places = ["203.0.113.1:1000", "203.0.113.2:2000"].map(|text| text.parse::<SocketAddr>().unwrap());
    let [before, now] = places.map(|place| SocketAddr::new(place.ip(), place.port() + 1));
    for (mobike, is_natted) in [(false, true), (true, true), (false, false)] {
        let mut world = mobile(5, |_| {});
        world.configure(LEFT, |connection| connection.dpd_ms = 0);
        world.configure(RIGHT, |connection| connection.mobike = mobike);
        world.nat = Some(places[0]).filter(|_| is_natted);
        world.initiate(LEFT, Some(0));
        world.run_for(5_000);
        let (first, spi) = (ends_of(&world, RIGHT).1, world.only_sa(RIGHT).children()[0].spi_in);
        assert_eq!(first == before, is_natted);
        world.nat = Some(places[1]);
        // It is asked whether it is there, where it is no more.
        world.run_for(25_000);
        world.with(RIGHT, |engine, cx| engine.follow_packet(spi, now, cx));
        let follows = is_natted && !mobike;
        assert_eq!(ends_of(&world, RIGHT).1, if follows { now } else { first });
        assert_eq!(world.only_sa(RIGHT).path().peer == now, follows);
        if follows {
            world.run_for(1000);
            assert!(world.now_ms - world.only_sa(RIGHT).heard_ms <= 1000, "it is asked again at once");
            world.run_for(300_000);
            assert_eq!((world.only_sa(RIGHT).path().peer, world.ends[RIGHT].moves.len()), (now, 1));
        }
    }
}

/// Who comes to be behind a NAT has ESP in UDP from then on.
// RFC 4555 §3.5, §3.8
#[test]
fn esp_goes_in_udp_behind_a_nat() {
    let mut world = mobile(6, |_| {});
    begin(&mut world);
    world.nat = Some("203.0.113.1:1000".parse().unwrap());
    go(&mut world, ELSEWHERE);
    world.run_for(10_000);
    assert!(world.ends.iter().all(|end| end.installed.values().all(|install| install.is_in_udp)));
    assert_eq!(ends_of(&world, RIGHT).1, "203.0.113.1:1001".parse().unwrap());
    assert_eq!(ends_of(&world, LEFT).0, SocketAddr::new(ELSEWHERE, 4500));
    // And no more when it is gone.
    world.nat = None;
    go(&mut world, address(LEFT));
    world.run_for(10_000);
    world.check_children(1);
    assert!(world.ends.iter().all(|end| end.installed.values().all(|install| !install.is_in_udp)));
}

// RFC 4555 §3.9
#[test]
fn no_nats_allowed_has_the_addresses_of_its_message() {
    let (here, there) = ("192.0.2.2:4500".parse().unwrap(), "192.0.2.1:4500".parse().unwrap());
    let data = [192, 0, 2, 1, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x94];
    assert!(nat::is_none(&data, here, there));
    let notify = Notify::new(NotifyType::NO_NATS_ALLOWED, &data);
    let payloads = Payloads(vec![Payload::Notify(notify)]);
    assert!(payloads.has_notify(NotifyType::NO_NATS_ALLOWED));
    for n in 0..data.len() {
        let mut other = data;
        other[n] ^= 1;
        assert!(!nat::is_none(&other, here, there) && !nat::is_none(&data[..n], here, there));
    }
    let six: [SocketAddr; 2] = ["[2001:db8::2]:500", "[2001:db8::1]:500"].map(|text| text.parse().unwrap());
    assert!(!nat::is_none(&data, six[0], six[1]));
}
