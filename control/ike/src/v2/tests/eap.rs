//! EAP between two engines.

use super::{
    events, rekey_only_child,
    world::{LEFT, RIGHT, World, config, connection},
};
use crate::{
    connection::{Configuration, Connection, LocalAuth, Ppk, RemoteAuth, Unique},
    eap::{Demand, Identity, Means, Method, NtHash, Secrets, Tls},
    identity::IdPattern,
    pki::{
        chain::Trust,
        credential::Credential,
        tests::authority::{Holder, root},
    },
    pool::Pool,
    v2::output::Event,
};
use std::sync::Arc;

pub(super) const NAMES: [&str; 2] = ["left.example.org", "right.example.org"];

pub(super) struct Paper {
    root: Holder,
    ends: [Holder; 2],
}

pub(super) fn paper() -> Paper {
    let root = root("root", &|_| {});
    let ends = NAMES.map(|name| root.end(name, &|_| {}));
    Paper { root, ends }
}

impl Paper {
    pub fn credential(&self, end: usize) -> Credential {
        Credential::new(self.ends[end].key(), vec![self.ends[end].certificate.clone()]).unwrap()
    }

    pub fn trust(&self) -> Arc<Trust> {
        Arc::new(Trust { anchors: vec![self.root.certificate.clone()], ..Trust::default() })
    }

    fn tls(&self, end: usize) -> Tls {
        Tls { credential: self.credential(end), trust: self.trust() }
    }

    pub fn means(&self, method: Method, identity: Option<&str>) -> LocalAuth {
        let tls = (method == Method::Tls).then(|| self.tls(LEFT));
        let identity = identity.map(str::to_owned);
        LocalAuth::Eap(Arc::new(Means { method: Some(method), identity, authority: None, tls }))
    }

    pub fn demand(&self, method: Method, identity: Identity) -> RemoteAuth {
        let tls = (method == Method::Tls).then(|| self.tls(RIGHT));
        RemoteAuth::Eap(Arc::new(Demand { method, identity, tls }))
    }

    /// A left end that proves who it is by EAP, and a right one that signs.
    fn ends(&self, method: Method, identity: Identity, eap_id: Option<&str>) -> [Configuration; 2] {
        let (local_auth, remote_auth) = (self.means(method, eap_id), RemoteAuth::PublicKey(self.trust()));
        let left = Connection { local_auth, remote_auth, ..connection("a", LEFT) };
        let local_auth = LocalAuth::PublicKey(self.credential(RIGHT));
        let right =
            Connection { local_auth, remote_auth: self.demand(method, identity), ..connection("b", RIGHT) };
        [config(left), config(right)].map(|config| Configuration { eap_secrets: secrets("secret"), ..config })
    }
}

pub(super) fn secrets(password: &str) -> Arc<Secrets> {
    let mut secrets = Secrets::default();
    let names = ["carol".to_owned(), NAMES[LEFT].to_owned()];
    assert!(secrets.add(&names, &NtHash::of(password)));
    Arc::new(secrets)
}

pub(super) const ASKED: Identity = Identity::Asked(IdPattern::Any);

/// Both are up, and go on.
pub(super) fn check_up(world: &mut World, eap_id: &str) {
    world.check_children(1);
    assert_eq!(world.only_sa(RIGHT).eap_id(), Some(eap_id));
    assert_eq!(world.only_sa(LEFT).eap_id(), None);
    rekey_only_child(world, RIGHT);
    world.run_until_quiet();
    let id = world.only_sa(LEFT).id();
    world.with(LEFT, |engine, cx| engine.rekey(id, cx));
    world.run_until_quiet();
    world.check_children(1);
    assert_eq!(world.only_sa(RIGHT).eap_id(), Some(eap_id));
}

// RFC 7296 §2.16
#[test]
fn an_initiator_proves_who_it_is_by_eap() {
    let paper = paper();
    for (method, identity, eap_id, who) in [
        (Method::MsChapV2, Identity::OfIke, None, NAMES[LEFT]),
        (Method::MsChapV2, ASKED, Some("carol"), "carol"),
        (Method::Tls, Identity::OfIke, None, NAMES[LEFT]),
        (Method::Tls, ASKED, None, NAMES[LEFT]),
    ] {
        let (seeds, mut up) = (0..15, 0);
        for seed in seeds.clone() {
            let mut world = World::new(seed, paper.ends(method, identity.clone(), eap_id));
            (world.loss, world.again, world.late_ms) = (10, 20, 300);
            world.initiate(LEFT, Some(0));
            world.run_until_quiet();
            (world.loss, world.again) = (0, 0);
            let counts = [LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count());
            assert_eq!(counts[0], counts[1], "{method:?} {seed}");
            if counts[0] == 1 {
                check_up(&mut world, who);
                up += 1;
            }
        }
        assert!(up > seeds.end * 8 / 10, "{method:?} {up}");
    }
}

#[test]
fn a_wrong_password_ends_it_at_both_ends() {
    let paper = paper();
    let mut world = World::new(1, paper.ends(Method::MsChapV2, ASKED, Some("carol")));
    world.ends[LEFT].config.eap_secrets = secrets("another");
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    let closed = |end: usize| match events(&world, end).last() {
        Some(Event::Closed(why)) => why.clone(),
        other => panic!("{other:?}"),
    };
    let left = "left.example.org is not authenticated: the other end has refused us: E=691 R=0";
    assert!(closed(LEFT).starts_with(left), "{}", closed(LEFT));
    let right =
        "left.example.org is not authenticated: it knows no password of 'carol', or there is no such user";
    assert_eq!(closed(RIGHT), right);
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), [0, 0]);
}

/// Whoever has no certificate of the responder's gets nothing of who the user is.
#[test]
fn a_responder_proves_who_it_is_first() {
    let [one, other] = [paper(), paper()];
    let [left, _] = one.ends(Method::MsChapV2, ASKED, Some("carol"));
    let [_, right] = other.ends(Method::MsChapV2, ASKED, Some("carol"));
    let mut world = World::new(1, [left, right]);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), [0, 0]);
    assert!(
        matches!(events(&world, LEFT).last(), Some(Event::Closed(why)) if why.contains("right.example.org is not"))
    );
}

// RFC 5998
#[test]
fn by_eap_alone_both_prove_who_they_are_where_they_can() {
    let paper = paper();
    for (left_alone, right_alone, method, is_up) in [
        (true, true, Method::Tls, true),
        // The responder signs anyway, which the initiator has no trust for.
        (true, false, Method::Tls, false),
        // The initiator wants a signature.
        (false, true, Method::Tls, false),
        (true, true, Method::MsChapV2, false),
    ] {
        let [mut left, mut right] = paper.ends(method, Identity::OfIke, None);
        if left_alone {
            Arc::make_mut(&mut left.connections[0]).remote_auth = paper.demand(method, Identity::OfIke);
        }
        if right_alone {
            Arc::make_mut(&mut right.connections[0]).local_auth = paper.means(method, None);
        }
        let mut world = World::new(1, [left, right]);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        let counts = [LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count());
        assert_eq!(counts, [usize::from(is_up); 2], "{left_alone} {right_alone} {method:?}");
        if is_up {
            check_up(&mut world, NAMES[LEFT]);
        }
    }
}

/// Whoever else a user says to be in IKE, it ends nothing but its own.
// RFC 7296 §2.4
#[test]
fn a_user_is_another_than_whom_it_says_to_be() {
    let paper = paper();
    for unique in [Unique::No, Unique::Keep, Unique::Replace] {
        let mut world = World::new(1, paper.ends(Method::MsChapV2, ASKED, Some("carol")));
        world.configure(RIGHT, |c| (c.unique, c.remote_id) = (unique, IdPattern::Any));
        let mut come = |user: &str, id: &str| {
            world.configure(LEFT, |c| {
                c.local_auth = paper.means(Method::MsChapV2, Some(user));
                c.local_id = id.parse().unwrap();
            });
            // It says that there is no other.
            world.restart(LEFT);
            world.initiate(LEFT, Some(0));
            world.run_until_quiet();
            let mut users: Vec<_> =
                world.ends[RIGHT].engine.sas().map(|sa| sa.eap_id().unwrap().to_owned()).collect();
            users.sort_unstable();
            users
        };
        assert_eq!(come("carol", NAMES[LEFT]), ["carol"]);
        assert_eq!(come(NAMES[LEFT], NAMES[LEFT]), ["carol", NAMES[LEFT]], "{unique:?}");
        assert_eq!(come("carol", "another.example.org"), ["carol", NAMES[LEFT]], "{unique:?}");
    }
}

/// Who is to come by EAP comes by nothing else, and the other way round.
#[test]
fn other_proofs_than_eap_are_none() {
    let paper = paper();
    let mut world = World::new(1, paper.ends(Method::MsChapV2, ASKED, Some("carol")));
    world.configure(LEFT, |connection| connection.local_auth = LocalAuth::SharedKey);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), [0, 0]);
    let mut world = World::new(1, paper.ends(Method::MsChapV2, ASKED, Some("carol")));
    world.configure(RIGHT, |connection| connection.remote_auth = RemoteAuth::SharedKey);
    world.initiate(LEFT, Some(0));
    world.run_until_quiet();
    assert_eq!([LEFT, RIGHT].map(|end| world.ends[end].engine.sas().count()), [0, 0]);
    assert!(matches!(events(&world, RIGHT).last(), Some(Event::Closed(why)) if why.contains("AUTH payload")));
}

/// An address is of who was proven by EAP; a PPK goes with the last message (RFC 8784 §3).
#[test]
fn addresses_and_ppks_go_with_eap() {
    let paper = paper();
    let ppk = Ppk { id: b"the PPK".to_vec(), key: b"octets of it".to_vec().into() };
    for (left_has, right_has) in [(true, true), (true, false), (false, false)] {
        let mut ends = paper.ends(Method::MsChapV2, ASKED, Some("carol"));
        let address = "10.1.0.7".parse().unwrap();
        let attributes = vec![];
        let pool = Pool { name: "p".into(), first: address, last: address, attributes };
        ends[RIGHT].pools = vec![Arc::new(pool)];
        ends[LEFT].ppks = left_has.then(|| ppk.clone()).into_iter().collect();
        ends[RIGHT].ppks = right_has.then(|| ppk.clone()).into_iter().collect();
        let mut world = World::new(1, ends);
        world.configure(LEFT, |connection| {
            connection.vips = vec!["0.0.0.0".parse().unwrap()];
            connection.ppk_id = left_has.then(|| ppk.id.clone());
        });
        world.configure(RIGHT, |connection| connection.pools = vec!["p".into()]);
        world.initiate(LEFT, Some(0));
        world.run_until_quiet();
        assert_eq!(world.ends[RIGHT].engine.leases().told("p"), [(address, "carol", true)]);
        for end in [LEFT, RIGHT] {
            assert_eq!(world.only_sa(end).has_ppk(), left_has && right_has);
        }
        check_up(&mut world, "carol");
    }
}

/// What a handshake of TLS holds is counted until it is over; who has no room for it goes.
#[test]
fn tls_of_half_open_ones_is_counted() {
    let paper = paper();
    let right = |world: &World| world.ends[RIGHT].engine.unproven_octets();
    let begin = |room: usize| {
        let mut world = World::new(1, paper.ends(Method::Tls, Identity::OfIke, None));
        world.ends[RIGHT].engine.leave_room(room);
        let others = right(&world);
        world.initiate(LEFT, Some(0));
        let mut most = 0;
        while world.step(600_000) {
            most = most.max(right(&world) - others);
        }
        (world, others, most)
    };
    let (world, others, most) = begin(1 << 20);
    assert!((32 << 10..64 << 10).contains(&most), "{most}");
    assert_eq!(right(&world), others);
    world.check_children(1);
    for room in [0, (32 << 10) + 100] {
        let (world, others, _) = begin(room);
        assert_eq!(right(&world), others);
        let last = world.ends[RIGHT].events.last().map(|(_, event)| event);
        assert!(matches!(last, Some(Event::Closed(why)) if why.contains("no room")), "{last:?}");
    }
}
