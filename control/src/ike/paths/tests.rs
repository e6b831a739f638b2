use super::*;
use crate::swanctl::{connection::Host, value::Value};
use portcullis_ike::v2::engine::Engine;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hosts(text: &str) -> Hosts {
    let all: Vec<_> = text.split(", ").map(|host| Host::parse(host).unwrap()).collect();
    super::super::configured::hosts(&all, &|_| vec![])
}

/// A kernel that has these ways: the first to a peer is the best.
fn kernel<'a>(ways: &'a [(&'a str, &'a str)]) -> impl FnMut(Option<IpAddr>, IpAddr) -> Option<IpAddr> + 'a {
    move |from, to| {
        let found = ways.iter().map(|(local, peer)| (ip(local), ip(peer)));
        found
            .into_iter()
            .find(|(local, peer)| *peer == to && from.is_none_or(|from| from == *local))
            .map(|(local, _)| local)
    }
}

const US: &str = "192.0.2.1";
const ALSO_US: &str = "192.0.2.8";
const US6: &str = "2001:db8::1";
const PEER: &str = "198.51.100.1";
const PEER6: &str = "2001:db8:1::1";

/// `local_addrs`, `remote_addrs`, whether it follows routes, what ways there are, and where it is to go.
type Case<'a> = (&'a str, &'a str, bool, &'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>);

// RFC 4555 §3.5
#[test]
fn it_goes_where_it_can_be_and_may_be() {
    let cases: [Case<'_>; 14] = [
        // All is as it was.
        ("%any", PEER, true, &[(US, PEER)], None),
        // The address is gone, and there is another, or none, or one that is not ours.
        ("%any", PEER, true, &[(ALSO_US, PEER)], Some((ALSO_US, PEER))),
        ("%any", PEER, false, &[(ALSO_US, PEER)], Some((ALSO_US, PEER))),
        ("%any", PEER, true, &[], None),
        (US, PEER, true, &[(ALSO_US, PEER)], None),
        ("192.0.2.1, 192.0.2.8", PEER, true, &[("192.0.2.9", PEER), (ALSO_US, PEER)], Some((ALSO_US, PEER))),
        ("192.0.2.0/24", PEER, true, &[(ALSO_US, PEER)], Some((ALSO_US, PEER))),
        // The route has another: it is followed, unless ours is written by itself, or it costs another authentication.
        ("%any", PEER, true, &[(ALSO_US, PEER), (US, PEER)], Some((ALSO_US, PEER))),
        ("192.0.2.1, 192.0.2.8", PEER, true, &[(ALSO_US, PEER), (US, PEER)], None),
        ("%any", PEER, false, &[(ALSO_US, PEER), (US, PEER)], None),
        ("192.0.2.0/29", PEER, true, &[(ALSO_US, PEER), (US, PEER)], None),
        // The peer is elsewhere, too: if it may be, and nobody is where it was.
        ("%any", "198.51.100.1, 2001:db8:1::1", true, &[(US6, PEER6)], Some((US6, PEER6))),
        ("%any", PEER, true, &[(US6, PEER6)], None),
        ("%any", "%any", true, &[(ALSO_US, PEER), (US6, PEER6)], Some((ALSO_US, PEER))),
    ];
    for (ours, theirs, follows_routes, ways, expected) in cases {
        let (ours, theirs, further) = (hosts(ours), hosts(theirs), [ip(PEER6)]);
        let between = (ip(US), ip(PEER));
        let place = Place { between, ours: &ours, theirs: &theirs, further: &further, follows_routes };
        let expected = expected.map(|(local, peer)| (ip(local), ip(peer)));
        assert_eq!(place.better(&mut kernel(ways)), expected, "{ours:?} {theirs:?} {ways:?}");
    }
}

#[test]
fn it_begins_between_the_first_that_there_is_a_way_between() {
    let mut connection = Connection {
        local: Hosts::Any,
        remote: hosts("198.51.100.1"),
        ..super::super::configured::tests::any_connection()
    };
    let of = |connection: &Connection, ways: &[(&str, &str)]| {
        let mut kernel = kernel(ways);
        first_ends(connection, &mut |from, peer| {
            kernel(from, peer).ok_or(io::ErrorKind::NetworkUnreachable.into())
        })
    };
    assert_eq!(of(&connection, &[(US, PEER)]), Ok((ip(US), ip(PEER))));
    assert!(of(&connection, &[]).unwrap_err().contains("there is no route to 198.51.100.1"));
    // One that is no address by itself is nobody to begin with.
    connection.remote = hosts("203.0.113.0/24, 198.51.100.1, 2001:db8:1::1");
    assert_eq!(of(&connection, &[(US, "203.0.113.0"), (US6, PEER6)]), Ok((ip(US6), ip(PEER6))));
    connection.local = hosts("192.0.2.8, 192.0.2.1");
    assert_eq!(of(&connection, &[("192.0.2.9", PEER), (US, PEER)]), Ok((ip(US), ip(PEER))));
    assert_eq!(of(&connection, &[(US6, PEER6)]), Ok((ip(ALSO_US), ip(PEER))), "it may come to be here");
    connection.remote = hosts("203.0.113.0/24");
    assert_eq!(of(&connection, &[]), Err("remote_addrs has no address to begin with".to_owned()));
}

/// Before it is established, what we have begun goes where it can be, and nothing else.
#[test]
fn what_is_being_begun_goes_where_it_can_be() {
    let (begun, half_open, _) = super::super::tests::begun((ip(US), ip(PEER)));
    let step = |engine: &Engine, ours: Option<&str>| {
        let known = [((Some(ip(US)), ip(PEER)), ours.map(ip)), ((None, ip(PEER)), Some(ip(ALSO_US)))].into();
        let mut ways = Ways { here: &HashSet::new(), virtual_ips: &HashSet::new(), known };
        match super::step(engine.sas().next().unwrap(), &[], &[], &mut ways) {
            Some(Step::Go(between)) => Some(between),
            _ => None,
        }
    };
    assert_eq!(step(&begun, None), Some((ip(ALSO_US), ip(PEER))));
    assert_eq!([step(&begun, Some(US)), step(&half_open, None)], [None, None]);
}
