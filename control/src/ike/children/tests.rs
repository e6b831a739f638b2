use super::*;
use portcullis_ike::{
    child::Keyed,
    connection::Child,
    crypto::{
        Secret,
        keys::{Keys, Nonces, Role, Spis},
        transform::{Encryption, Prf, Suite},
    },
    proposal::{Order, Proposals},
    traffic_selector::ConfiguredSelectors,
    v2::{child::ChildSa, nat::Nat, output::Move},
};
use portcullis_sadb::{Flow, Key, Reader, Runtime, Sizes};
use std::sync::Arc;

pub(super) fn traffic(local: &[&str], remote: &[&str]) -> Traffic {
    let of = |texts: &[&str]| ConfiguredSelectors::parse(texts.iter().copied()).unwrap().with(&[]);
    Traffic { local: of(local), remote: of(remote) }
}

/// A child SA as the engine would have it, of these SPIs.
pub(super) fn install(
    spi_in: u32,
    spi_out: u32,
    policy: Traffic,
    replaces: Option<u32>,
    sends: bool,
) -> Install {
    let proposals = Proposals::esp(["aes128gcm16"]).unwrap();
    let agreement = proposals.select(&proposals.offer(&spi_out.to_be_bytes()), Order::Ours).unwrap();
    let suite = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let octets = [spi_in.to_be_bytes(), spi_out.to_be_bytes()].concat();
    let nonces = Nonces { initiator: &octets, responder: &[2; 32] };
    let spis = Spis { initiator: [1; 8].into(), responder: [2; 8].into() };
    let (keys, ..) = Keys::new(suite, Role::Initiator, Secret::copy_of(&[3; 32]), nonces, spis);
    let algorithm = agreement.algorithm().unwrap();
    let made = keys.child(algorithm, &[], nonces);
    let any = ConfiguredSelectors::parse(["0.0.0.0/0"]).unwrap();
    let config = Arc::new(Child {
        name: "net".into(),
        mark: 0,
        proposals,
        around: None,
        local: any.clone(),
        remote: any,
        mode: Mode::Tunnel,
        handling: Handling::default(),
        per_worker: false,
        replay_window: 1024,
        priority: 0,
        rekey_ms: 0,
        rand_ms: 0,
    });
    Install {
        sa: ChildSa {
            config,
            agreement,
            mode: Mode::Tunnel,
            policy: Arc::new(policy),
            spi_in,
            spi_out,
            around: None,
            resource: None,
            takes_padding: true,
            rekey_at_ms: u64::MAX,
            is_replaced: false,
            successor: None,
            ended_by: None,
        },
        connection: "peer".into(),
        algorithm,
        key_in: made.from_responder,
        key_out: made.from_initiator,
        around: None,
        local: "192.0.2.1:4500".parse().unwrap(),
        peer: "192.0.2.2:4501".parse().unwrap(),
        is_in_udp: true,
        nat: Nat { is_here: true, is_there: true },
        replaces,
        sends,
        is_alone: false,
    }
}

pub(super) struct Bench {
    pub sadb: Sadb,
    pub reader: Reader,
    pub runtime: Runtime,
    pub children: Children,
}

impl Bench {
    pub fn new(max_sas: u32, max_policies: u32) -> Bench {
        let (sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas, max_policies }).unwrap();
        Bench { sadb, reader, runtime, children: Children::default() }
    }

    pub fn install(&mut self, install: &Install) -> Result<(), SadbError> {
        self.children.install(&mut self.sadb, install, 7)
    }

    /// The SPI that a packet leaves by, if it is protected and has an SA.
    pub fn leaves_by(&self, src: &str, dst: &str) -> Option<u32> {
        let flow =
            Flow { src: src.parse().unwrap(), dst: dst.parse().unwrap(), protocol: 17, ports: Some((1, 2)) };
        let hit = self.reader.lookup(Direction::Outbound, &flow)?;
        let slot = self.reader.policy_sa(hit.index)?;
        Some(self.reader.spi(slot).unwrap().0)
    }

    /// The SPIs that two workers send by, and any other.
    pub fn workers_send_by(&self) -> [u32; 3] {
        let flow = Flow {
            src: "10.1.0.1".parse().unwrap(),
            dst: "10.3.0.6".parse().unwrap(),
            protocol: 17,
            ports: Some((1, 2)),
        };
        let hit = self.reader.lookup(Direction::Outbound, &flow).unwrap();
        [0, 1, 63].map(|worker| {
            let slot = self.reader.sa_for(hit.index, 0, worker).unwrap();
            self.reader.spi(slot).unwrap().0
        })
    }

    /// The SPIs of all SAs, and how many policies there are.
    pub fn has(&self) -> (Vec<u32>, usize) {
        let mut spis: Vec<_> = self.sadb.sas().map(|(_, _, sa)| sa.spi.0).collect();
        spis.sort_unstable();
        (spis, self.sadb.policies().count())
    }
}

pub(super) fn nets() -> Traffic {
    traffic(&["10.1.0.0/16"], &["10.2.0.0/16", "10.3.0.5-10.3.0.9"])
}

#[test]
fn a_child_is_two_sas_and_policies_for_its_traffic() {
    let mut bench = Bench::new(16, 64);
    bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
    // 10.3.0.5, .6/31 and .8/31 are the fewest prefixes of that range.
    assert_eq!(bench.has(), (vec![0x1001, 0x2001], 2 * 4));
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
    for (last, by) in [(4, None), (5, Some(0x2001)), (9, Some(0x2001)), (10, None)] {
        assert_eq!(bench.leaves_by("10.1.0.1", &format!("10.3.0.{last}")), by, "{last}");
    }
    let sas: Vec<_> = bench.sadb.sas().map(|(_, _, sa)| sa).collect();
    let [inbound, outbound] = [Direction::Inbound, Direction::Outbound]
        .map(|direction| sas.iter().find(|sa| sa.direction == direction).unwrap());
    assert_eq!(inbound.src.to_string(), "192.0.2.2");
    assert_eq!(inbound.udp.unwrap().ports(), (4501, 4500));
    assert_eq!(outbound.udp.unwrap().ports(), (4500, 4501));
    assert!(inbound.udp.unwrap().follow_peer && outbound.udp.unwrap().keepalive_secs == KEEPALIVE_SECS);
    assert_eq!((inbound.reqid, inbound.handling.born_secs), (outbound.reqid, 7));
    assert!(inbound.reqid >= FIRST_REQID);
    // And it goes without leaving anything.
    bench.children.remove(&mut bench.sadb, 0x1001);
    assert_eq!(bench.has(), (vec![], 0));
    assert_eq!(bench.children.slots().count() + bench.children.policies().count(), 0);
}

/// One whose ESP is in AH; the SPIs of AH are 0x100 higher.
pub(super) fn bundle(spi_in: u32, spi_out: u32, replaces: Option<u32>, sends: bool) -> Install {
    let mut install = install(spi_in, spi_out, nets(), replaces, sends);
    let proposals = Proposals::ah(["sha256"]).unwrap();
    let [spi_in, spi_out] = [spi_in, spi_out].map(|spi| spi + 0x100);
    let agreement = proposals.select(&proposals.offer(&spi_out.to_be_bytes()), Order::Ours).unwrap();
    let algorithm = agreement.algorithm().unwrap();
    let key = |spi: u32| Key::new(&spi.to_be_bytes().repeat(8)).unwrap();
    install.around = Some(Box::new(Keyed { algorithm, key_in: key(spi_in), key_out: key(spi_out) }));
    install.sa.around = Some(Box::new(portcullis_ike::child::Around { agreement, spi_in, spi_out }));
    install.is_in_udp = false;
    install
}

/// RFC 2401 §4.3
#[test]
fn a_bundle_is_four_sas_that_come_and_go_together() {
    let mut bench = Bench::new(16, 64);
    bench.install(&bundle(0x1001, 0x2001, None, true)).unwrap();
    assert_eq!(bench.has(), (vec![0x1001, 0x1101, 0x2001, 0x2101], 2 * 4));
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
    let sas: Vec<_> = bench.sadb.sas().collect();
    for (inner, outer) in [(0x1001, 0x1101), (0x2001, 0x2101)] {
        let of = |spi| sas.iter().find(|(.., sa)| sa.spi.0 == spi).unwrap();
        let ((_, _, inner), (slot, _, outer)) = (of(inner), of(outer));
        assert_eq!(inner.around, Some(Around { slot: *slot, spi: outer.spi }));
        assert_eq!((inner.mode, outer.mode, outer.protocol), (Mode::Tunnel, Mode::Transport, Protocol::Ah));
        assert_eq!((outer.src, outer.dst, outer.direction), (inner.src, inner.dst, inner.direction));
        // No policy lets in what comes by AH alone.
        assert!(outer.reqid == 0 && inner.reqid >= FIRST_REQID);
        // The end of either is that of the child.
        assert_eq!(bench.children.spi_of(*slot), Some(0x1001));
    }
    // Another takes its place, and what is under way by the old one is still opened.
    bench.install(&bundle(0x1002, 0x2002, Some(0x1001), false)).unwrap();
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
    bench.children.send_by(&mut bench.sadb, 0x1002);
    bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2002));
    assert_eq!(bench.has().0, [0x1001, 0x1002, 0x1101, 0x1102, 0x2002, 0x2102]);
    assert_eq!(bench.children.slots().count(), 6);
    bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS);
    assert_eq!(bench.has().0, [0x1002, 0x1102, 0x2002, 0x2102]);
    bench.children.remove(&mut bench.sadb, 0x1002);
    assert_eq!(bench.has(), (vec![], 0));
    assert_eq!(bench.children.slots().count() + bench.children.policies().count(), 0);
}

/// Where there is no room for all of it, nothing of it is there.
#[test]
fn half_a_bundle_is_none() {
    for room in [1, 2, 3] {
        let mut bench = Bench::new(room, 64);
        assert!(bench.install(&bundle(0x1001, 0x2001, None, true)).is_err());
        assert_eq!(bench.has(), (vec![], 0));
    }
    let mut bench = Bench::new(16, 2);
    assert!(bench.install(&bundle(0x1001, 0x2001, None, true)).is_err());
    assert_eq!(bench.has(), (vec![], 0));
}

/// One for a resource, of the peer's number.
pub(super) fn further(spi_in: u32, spi_out: u32, replaces: Option<u32>, resource: u32) -> Install {
    let mut install = install(spi_in, spi_out, nets(), replaces, replaces.is_none());
    install.sa.resource = Some(resource);
    install
}

/// RFC 9611 §3, §4
#[test]
fn each_worker_sends_by_a_child_of_its_own_and_others_by_the_one_for_all() {
    let mut bench = Bench::new(32, 64);
    bench.runtime.set_ready(2);
    bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
    assert_eq!(bench.workers_send_by(), [0x2001; 3]);
    // Whatever the peer calls them: who has the fewest gets the next.
    bench.install(&further(0x1002, 0x2002, None, 7)).unwrap();
    assert_eq!(bench.workers_send_by(), [0x2002, 0x2001, 0x2001]);
    bench.install(&further(0x1003, 0x2003, None, 7)).unwrap();
    assert_eq!(bench.workers_send_by(), [0x2002, 0x2003, 0x2001]);
    let worker = |bench: &Bench, spi| bench.sadb.sas().find(|(.., sa)| sa.spi.0 == spi).unwrap().2.worker;
    assert_eq!(
        [0x1002, 0x2001, 0x2002, 0x2003].map(|spi| worker(&bench, spi)),
        [None, None, Some(0), Some(1)]
    );
    // One that is rekeyed stays with its worker, and is used once the peer has it.
    bench.install(&further(0x1004, 0x2004, Some(0x1002), 7)).unwrap();
    assert_eq!(bench.workers_send_by(), [0x2002, 0x2003, 0x2001]);
    bench.children.send_by(&mut bench.sadb, 0x1004);
    assert_eq!(bench.workers_send_by(), [0x2004, 0x2003, 0x2001]);
    bench.children.remove_replaced(&mut bench.sadb, 0x1002, 100);
    assert_eq!((bench.workers_send_by(), worker(&bench, 0x2004)), ([0x2004, 0x2003, 0x2001], Some(0)));
    bench.install(&install(0x1005, 0x2005, nets(), Some(0x1001), true)).unwrap();
    bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
    assert_eq!(bench.workers_send_by(), [0x2004, 0x2003, 0x2005]);
    // More than there are workers: the last is sent by, and the one before it again.
    bench.install(&further(0x1006, 0x2006, None, 0)).unwrap();
    assert_eq!(bench.workers_send_by(), [0x2006, 0x2003, 0x2005]);
    bench.children.remove(&mut bench.sadb, 0x1006);
    assert_eq!(bench.workers_send_by(), [0x2004, 0x2003, 0x2005]);
    // Without one of its own a worker sends by the one for all, and without that by what there is.
    bench.children.remove(&mut bench.sadb, 0x1004);
    assert_eq!(bench.workers_send_by(), [0x2005, 0x2003, 0x2005]);
    bench.children.remove(&mut bench.sadb, 0x1005);
    assert_eq!(bench.workers_send_by(), [0x2003; 3]);
    bench.children.remove(&mut bench.sadb, 0x1003);
    bench.children.expire(&mut bench.sadb, 1000);
    assert_eq!(bench.has(), (vec![], 0));
}

/// A child of one port of what another is for has its packets, whichever came first.
#[test]
fn fewer_ports_come_first() {
    let mut bench = Bench::new(16, 64);
    let ports = ["10.2.0.0/16[tcp]", "10.2.0.0/16[tcp/400-500]", "10.2.0.0/16[tcp/443]", "10.2.0.0/16"];
    for (spi, remote) in (0x1001..).zip(ports) {
        bench.install(&install(spi, 0x1000 + spi, traffic(&["10.1.0.0/16"], &[remote]), None, true)).unwrap();
    }
    let (src, dst) = ("10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap());
    for (protocol, port, by) in [(6, 443, 0x2003), (6, 444, 0x2002), (6, 80, 0x2001), (17, 443, 0x2004)] {
        let flow = Flow { src, dst, protocol, ports: Some((1, port)) };
        let hit = bench.reader.lookup(Direction::Outbound, &flow).unwrap();
        let slot = bench.reader.policy_sa(hit.index).unwrap();
        assert_eq!(bench.reader.spi(slot).unwrap().0, by, "{protocol} {port}");
    }
    // A bit of an address is more than all else.
    let place = |local: &[&str], remote: &[&str], action| {
        priority(&selectors(&traffic(local, remote)).unwrap()[0], action, 0)
    };
    let [one, all] = [("::/0", "::/1[tcp/1]"), ("::/0", "::/0")];
    let [one, all] = [one, all].map(|(l, r)| [Action::Bypass, Action::Protect].map(|a| place(&[l], &[r], a)));
    assert!(one[0] < all[0] && all[0] < one[1] && one[1] < all[1] && all[1] < PRIORITY + DROP);
    assert!(
        place(&["::/0"], &["::/1"], Action::Protect) < place(&["::/0"], &["::/0[tcp/1]"], Action::Protect)
    );
}

#[test]
fn what_replaces_another_has_its_policies_once_the_peer_has_it() {
    let mut bench = Bench::new(16, 64);
    bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
    let policies: Vec<_> = bench.sadb.policies().map(|(index, _)| index).collect();
    let by = |bench: &Bench| bench.leaves_by("10.1.0.1", "10.2.0.1");
    bench.install(&install(0x1002, 0x2002, nets(), Some(0x1001), false)).unwrap();
    assert_eq!(by(&bench), Some(0x2001));
    bench.children.send_by(&mut bench.sadb, 0x1002);
    assert_eq!(by(&bench), Some(0x2002));
    bench.children.remove(&mut bench.sadb, 0x1001);
    assert_eq!(by(&bench), Some(0x2002));
    bench.install(&install(0x1003, 0x2003, nets(), Some(0x1002), true)).unwrap();
    assert_eq!(by(&bench), Some(0x2003));
    // The newest goes first: the one before it is used again.
    bench.children.remove(&mut bench.sadb, 0x1003);
    assert_eq!(by(&bench), Some(0x2002));
    assert_eq!(
        bench.sadb.policies().map(|(index, _)| index).collect::<Vec<_>>(),
        policies,
        "none was made anew"
    );
    let reqids: Vec<_> = bench.sadb.sas().map(|(_, _, sa)| sa.reqid).collect();
    assert!(reqids.iter().all(|reqid| *reqid == reqids[0]), "what comes in by either is let in");
}

#[test]
fn what_was_sent_by_a_replaced_one_may_still_come() {
    let mut bench = Bench::new(16, 64);
    bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
    bench.install(&install(0x1002, 0x2002, nets(), Some(0x1001), true)).unwrap();
    bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
    let spis = |bench: &Bench| bench.has().0;
    assert_eq!(spis(&bench), [0x1001, 0x1002, 0x2002], "its outbound SA is gone");
    assert_eq!(bench.children.slots().count(), 3, "it is still IKE's");
    bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS - 1);
    assert_eq!(spis(&bench).len(), 3);
    bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS);
    assert_eq!(spis(&bench), [0x1002, 0x2002]);
    // With the last one for the same packets it goes at once.
    bench.install(&install(0x1003, 0x2003, nets(), Some(0x1002), true)).unwrap();
    bench.children.remove_replaced(&mut bench.sadb, 0x1002, 200);
    bench.children.remove(&mut bench.sadb, 0x1003);
    assert_eq!(bench.has(), (vec![], 0));
}

/// RFC 4555 §3.5, RFC 7296 §2.23
#[test]
fn what_moves_is_led_there_if_it_is_in_udp() {
    let mut bench = Bench::new(16, 64);
    bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
    let to = |local: &str, peer: &str, is_in_udp| Move {
        spi_in: 0x1001,
        local: local.parse().unwrap(),
        peer: peer.parse().unwrap(),
        is_in_udp,
        nat: Nat::default(),
    };
    let here = "192.0.2.1:4500";
    assert!(bench.children.lead(&mut bench.sadb, &to(here, "203.0.113.9:6000", true)));
    for (slot, ..) in bench.sadb.sas().collect::<Vec<_>>() {
        assert_eq!(bench.sadb.endpoint(slot).unwrap().to_string(), "203.0.113.9:6000");
    }
    for (local, peer, is_in_udp) in [
        ("192.0.2.8:4500", "203.0.113.9:6000", true),
        (here, "[2001:db8::9]:6000", true),
        (here, "203.0.113.9:6000", false),
    ] {
        assert!(!bench.children.lead(&mut bench.sadb, &to(local, peer, is_in_udp)), "{local} {peer}");
    }
}

/// RFC 7296 §2.23: of two peers with the same packets, behind NATs, each is where its own packets come from.
#[test]
fn a_peer_that_is_followed_leads_none_but_its_own() {
    let mut bench = Bench::new(16, 64);
    for (spi, peer) in [(0x1001, "203.0.113.1:1001"), (0x1002, "203.0.113.2:1002")] {
        let peer = peer.parse().unwrap();
        bench.install(&Install { peer, ..install(spi, 0x1000 + spi, nets(), None, true) }).unwrap();
    }
    let Installed { inbound, outbound, .. } = bench.children.installed(0x1001).unwrap();
    let to = Endpoint::new("203.0.113.1".parse().unwrap(), 2001).unwrap();
    assert_eq!(bench.children.follow(&mut bench.sadb, inbound, to), Some(0x1001));
    for (slot, _, sa) in bench.sadb.sas().collect::<Vec<_>>() {
        let moved = bench.sadb.endpoint(slot).filter(|there| *there == to);
        assert_eq!(moved.is_some(), [inbound, outbound].contains(&slot));
        assert!(Children::is_of_one(&sa));
    }
    // What lingers leads nothing.
    bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
    assert_eq!(bench.children.follow(&mut bench.sadb, inbound, to), None);
}

/// RFC 7296 §3.10.1
#[test]
fn who_takes_no_padding_gets_none() {
    for takes_padding in [true, false] {
        let mut bench = Bench::new(16, 64);
        let mut padded = install(0x1001, 0x2001, nets(), None, true);
        Arc::make_mut(&mut padded.sa.config).handling.tfc_pad = 1000;
        padded.sa.takes_padding = takes_padding;
        bench.install(&padded).unwrap();
        let outbound = bench.children.installed(0x1001).unwrap().outbound;
        let sa = bench.sadb.sa(outbound).unwrap().1;
        assert_eq!(sa.handling.tfc_pad, if takes_padding { 1000 } else { 0 });
    }
}

/// The same prefix of two selectors is one policy.
#[test]
fn selectors_that_overlap_are_installed() {
    for (local, remote, policies) in [
        (&["10.1.0.0-10.1.0.9", "10.1.0.8-10.1.0.10"][..], "10.2.0.0/16", 3),
        (&["10.1.0.0/16", "10.1.0.0/16[tcp]"], "10.2.0.0/16[tcp]", 1),
    ] {
        let mut bench = Bench::new(16, 64);
        bench.install(&install(0x1001, 0x2001, traffic(local, &[remote]), None, true)).unwrap();
        assert_eq!(bench.has(), (vec![0x1001, 0x2001], 2 * policies), "{local:?}");
        bench.children.remove(&mut bench.sadb, 0x1001);
        assert_eq!(bench.has(), (vec![], 0));
    }
}

#[test]
fn what_is_narrower_comes_first() {
    let mut bench = Bench::new(16, 64);
    for (n, (local, remote)) in
        [("0.0.0.0/0", "0.0.0.0/0"), ("10.1.0.0/16", "10.2.0.0/16"), ("10.1.0.0/16", "10.2.0.7[17/2]")]
            .into_iter()
            .enumerate()
    {
        let n = n as u32;
        bench.install(&install(0x1001 + n, 0x2001 + n, traffic(&[local], &[remote]), None, true)).unwrap();
    }
    assert_eq!(bench.leaves_by("10.1.0.1", "10.9.0.1"), Some(0x2001));
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2002));
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.7"), Some(0x2003));
    bench.children.clear(&mut bench.sadb);
    assert_eq!(bench.has(), (vec![], 0));
}

/// Nothing of what does not fit stays.
#[test]
fn what_does_not_fit_leaves_nothing() {
    let mut bench = Bench::new(3, 64);
    bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
    let before = bench.has();
    assert!(
        bench
            .install(&install(0x1002, 0x2002, traffic(&["10.1.0.0/16"], &["10.9.0.0/16"]), None, true))
            .is_err()
    );
    assert_eq!(bench.has(), before);
    // Policies that are another's, that are too many for the SPD, and for a child.
    let mut bench = Bench::new(16, 6);
    bench.install(&install(0x1001, 0x2001, traffic(&["10.1.0.0/16"], &["10.2.0.0/16"]), None, true)).unwrap();
    let before = bench.has();
    let another = Install {
        connection: "another".into(),
        ..install(0x1002, 0x2002, traffic(&["10.1.0.0/16"], &["10.2.0.0/16"]), None, true)
    };
    assert!(matches!(bench.install(&another), Err(SadbError::Overlap { .. })));
    let wide = traffic(&["10.1.0.1-10.1.0.254"], &["10.9.0.1-10.9.0.254"]);
    for traffic in [
        wide.clone(),
        traffic(&["10.1.0.1-10.1.255.254"; 1], &["10.9.0.1-10.9.255.254", "10.10.0.1-10.13.255.250"]),
    ] {
        assert!(matches!(
            bench.install(&install(0x1003, 0x2003, traffic, None, true)),
            Err(SadbError::Full { .. })
        ));
    }
    assert_eq!(bench.has(), before);
}

const A: &str = "10.2.0.0/16";
const B: &str = "10.3.0.0/16";
const C: &str = "10.4.0.0/16";

fn to(remote: &[&str]) -> Traffic {
    traffic(&["10.1.0.0/16"], remote)
}

impl Bench {
    /// The SPIs that packets to the first addresses of A, B and C leave by.
    fn leaves(&self) -> [Option<u32>; 3] {
        ["10.2.0.1", "10.3.0.1", "10.4.0.1"].map(|dst| self.leaves_by("10.1.0.1", dst))
    }

    /// RFC 4301 §5.2: whether what comes from there by this SA of ours is let in.
    fn lets_in(&self, spi_in: u32, src: &str) -> bool {
        let flow = Flow {
            src: src.parse().unwrap(),
            dst: "10.1.0.1".parse().unwrap(),
            protocol: 17,
            ports: Some((1, 2)),
        };
        let hit = self.reader.lookup(Direction::Inbound, &flow);
        let sa = self.sadb.find(Spi(spi_in)).and_then(|slot| self.sadb.sa(slot));
        hit.zip(sa).is_some_and(|(hit, (_, sa))| hit.reqid == sa.reqid)
    }

    pub fn is_empty(&mut self) -> bool {
        self.children.expire(&mut self.sadb, u32::MAX);
        let children = &self.children;
        let has_none =
            children.groups.is_empty() && children.numbers.is_empty() && children.shared.is_empty();
        has_none && children.installed.is_empty() && self.has() == (vec![], 0)
    }
}

#[test]
fn what_the_peer_narrows_comes_before_its_trap_and_what_is_wider_takes_its_place() {
    let mut bench = Bench::new(32, 64);
    let trap = [Trap { connection: "peer".into(), child: "net".into(), traffic: to(&[A, B]), priority: 0 }];
    assert!(bench.children.set_traps(&mut bench.sadb, &trap).is_empty());
    bench.install(&install(0x1001, 0x2001, to(&[A]), None, true)).unwrap();
    assert_eq!(bench.leaves(), [Some(0x2001), None, None]);
    assert!(bench.lets_in(0x1001, "10.2.0.1") && !bench.lets_in(0x1001, "10.3.0.1"));
    // It is rekeyed, and has more now.
    bench.install(&install(0x1002, 0x2002, to(&[A, B, C]), Some(0x1001), false)).unwrap();
    assert_eq!(bench.leaves(), [Some(0x2001), None, None]);
    assert!(["10.2.0.1", "10.3.0.1", "10.4.0.1"].iter().all(|src| bench.lets_in(0x1002, src)));
    assert!(bench.lets_in(0x1001, "10.2.0.1"));
    bench.children.send_by(&mut bench.sadb, 0x1002);
    assert_eq!(bench.leaves(), [Some(0x2002); 3]);
    bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
    assert_eq!(bench.leaves(), [Some(0x2002); 3]);
    assert!(bench.lets_in(0x1001, "10.2.0.1"), "it lingers");
    bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS);
    assert_eq!(bench.has().0, [0x1002, 0x2002]);
    assert!(["10.2.0.1", "10.3.0.1", "10.4.0.1"].iter().all(|src| bench.lets_in(0x1002, src)));
    // The trap has its policies again.
    bench.children.remove(&mut bench.sadb, 0x1002);
    assert_eq!((bench.leaves(), bench.has()), ([None; 3], (vec![], 2 * 2)));
    for (index, _) in bench.sadb.policies().collect::<Vec<_>>() {
        assert_eq!(bench.children.trapped(&bench.sadb, index), Some(("peer".into(), "net".into())));
    }
    assert!(bench.children.set_traps(&mut bench.sadb, &[]).is_empty());
    assert!(bench.is_empty());
}

#[test]
fn of_several_for_a_network_the_newest_has_it_and_then_the_one_before() {
    // Of another peer, which packets are not let in of by the others' numbers, and of the same.
    for (is_same, other) in [(false, "192.0.2.7:4500"), (true, "192.0.2.2:4501")] {
        let mut bench = Bench::new(32, 64);
        bench.install(&install(0x1001, 0x2001, to(&[A, B]), None, true)).unwrap();
        let second =
            Install { peer: other.parse().unwrap(), ..install(0x1002, 0x2002, to(&[B, C]), None, true) };
        bench.install(&second).unwrap();
        assert_eq!(bench.leaves(), [Some(0x2001), Some(0x2002), Some(0x2002)]);
        assert_eq!(bench.lets_in(0x1001, "10.3.0.1"), is_same);
        assert_eq!(bench.lets_in(0x1002, "10.2.0.1"), is_same);
        assert!(bench.lets_in(0x1001, "10.2.0.1") && bench.lets_in(0x1002, "10.3.0.1"));
        bench.children.remove(&mut bench.sadb, 0x1002);
        assert_eq!(bench.leaves(), [Some(0x2001), Some(0x2001), None]);
        assert!(bench.lets_in(0x1001, "10.3.0.1"));
        // The older one goes first.
        bench.install(&second).unwrap();
        bench.children.remove(&mut bench.sadb, 0x1001);
        assert_eq!(bench.leaves(), [None, Some(0x2002), Some(0x2002)]);
        bench.children.remove(&mut bench.sadb, 0x1002);
        assert!(bench.is_empty());
    }
}

/// A peer with an address of a pool ends its tunnel, and comes back by another connection with the same address.
#[test]
fn what_only_lingers_gives_way_to_another_connection() {
    for other_ends_first in [false, true] {
        let mut bench = Bench::new(16, 64);
        bench.install(&install(0x1001, 0x2001, to(&[A]), None, true)).unwrap();
        let other = Install { connection: "other".into(), ..install(0x1002, 0x2002, to(&[A]), None, true) };
        assert!(bench.install(&other).is_err(), "it is another connection's");
        bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
        bench.install(&other).unwrap();
        assert_eq!(bench.leaves()[0], Some(0x2002));
        assert!(bench.lets_in(0x1002, "10.2.0.1"));
        if other_ends_first {
            bench.children.remove(&mut bench.sadb, 0x1002);
            assert_eq!((bench.leaves()[0], bench.lets_in(0x1001, "10.2.0.1")), (None, true));
        }
        bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS);
        assert_eq!(bench.lets_in(0x1002, "10.2.0.1"), !other_ends_first);
        bench.children.remove(&mut bench.sadb, 0x1002);
        assert!(bench.is_empty());
    }
}

/// Whoever answers a peer asks before whether there is room, and it is there then.
#[test]
fn there_is_room_for_what_is_put_in_and_no_other() {
    let replaced = || Install { is_alone: true, ..install(0x1002, 0x2002, to(&[A, B]), Some(0x1001), true) };
    for (sas, policies) in (2..8).flat_map(|sas| (2..10).map(move |policies| (sas, policies))) {
        for next in [replaced(), bundle(0x1002, 0x2002, Some(0x1001), true)] {
            let mut bench = Bench::new(sas, policies);
            bench.install(&install(0x1001, 0x2001, to(&[A]), None, true)).unwrap();
            let has_room = bench.children.has_room(&bench.sadb, &next);
            assert_eq!(has_room, bench.install(&next).is_ok(), "{sas} SAs, {policies} policies");
        }
    }
    let bench = Bench::new(8, 8);
    let many: Vec<String> = (0..=MOST_POLICIES).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
    let many = to(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!bench.children.has_room(&bench.sadb, &install(0x1001, 0x2001, many, None, true)));
}

/// There is no room for policies of what is to replace another: that has all that it had.
#[test]
fn what_cannot_take_a_place_leaves_what_is_there() {
    let mut bench = Bench::new(16, 4);
    bench.install(&install(0x1001, 0x2001, to(&[A]), None, true)).unwrap();
    let all = |bench: &Bench| {
        (bench.has(), bench.leaves()[0], bench.lets_in(0x1001, "10.2.0.1"), bench.children.policies().count())
    };
    let before = all(&bench);
    assert_eq!(before, ((vec![0x1001, 0x2001], 2), Some(0x2001), true, 2));
    for wider in [&[A, B, C][..], &[B, C]] {
        let failed = bench.install(&install(0x1002, 0x2002, to(wider), Some(0x1001), true));
        assert!(matches!(failed, Err(SadbError::Full { .. })));
        assert_eq!(all(&bench), before);
    }
    bench.children.remove(&mut bench.sadb, 0x1001);
    assert!(bench.is_empty());
}

/// RFC 7296 §2.8, §2.9.2
#[test]
fn what_is_narrowed_or_widened_as_it_is_rekeyed_loses_no_packet() {
    for (before, after) in [("10.2.0.0/16", "10.2.0.0/24"), ("10.2.0.0/24", "10.2.0.0/16")] {
        let mut bench = Bench::new(32, 64);
        bench.install(&install(0x1001, 0x2001, to(&[before]), None, true)).unwrap();
        let by = |bench: &Bench| bench.leaves_by("10.1.0.1", "10.2.0.1");
        bench.install(&install(0x1002, 0x2002, to(&[after]), Some(0x1001), false)).unwrap();
        let let_in = |bench: &Bench| [0x1001, 0x1002].map(|spi| bench.lets_in(spi, "10.2.0.1"));
        assert_eq!((by(&bench), let_in(&bench)), (Some(0x2001), [true; 2]));
        bench.children.send_by(&mut bench.sadb, 0x1002);
        // What is narrower comes first, as long as it is there.
        let is_wider = after == "10.2.0.0/16";
        let now = if is_wider { 0x2001 } else { 0x2002 };
        assert_eq!((by(&bench), let_in(&bench)), (Some(now), [true; 2]));
        bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
        assert_eq!((by(&bench), let_in(&bench)), (Some(0x2002), [true; 2]));
        let outside = bench.leaves_by("10.1.0.1", "10.2.9.1");
        assert_eq!(outside, is_wider.then_some(0x2002));
        bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS);
        assert_eq!((by(&bench), let_in(&bench)), (Some(0x2002), [false, true]));
        assert_eq!(bench.has(), (vec![0x1002, 0x2002], 2));
        bench.children.remove(&mut bench.sadb, 0x1002);
        assert!(bench.is_empty());
    }
}

/// Before the peer is known to have it, what it is for is dropped where there is nothing else, and does not leave in clear.
#[test]
fn what_is_alone_and_not_sent_by_has_its_policies() {
    let mut bench = Bench::new(16, 64);
    let alone = Install { is_alone: true, ..install(0x1001, 0x2001, nets(), None, false) };
    bench.install(&alone).unwrap();
    let action = |bench: &Bench| {
        let (src, dst) = ("10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap());
        let flow = Flow { src, dst, protocol: 17, ports: Some((1, 2)) };
        bench.reader.lookup(Direction::Outbound, &flow).map(|hit| hit.action)
    };
    assert_eq!((action(&bench), bench.leaves_by("10.1.0.1", "10.2.0.1")), (Some(Action::Protect), None));
    assert_eq!(bench.has(), (vec![0x1001, 0x2001], 2 * 4));
    bench.children.send_by(&mut bench.sadb, 0x1001);
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
    bench.children.remove(&mut bench.sadb, 0x1001);
    assert!(bench.is_empty());
    // It may go before it was sent by.
    bench.install(&alone).unwrap();
    bench.children.remove(&mut bench.sadb, 0x1001);
    assert!(bench.is_empty());
    // What has an elder leaves its packets to that.
    bench.install(&install(0x1002, 0x2002, nets(), None, true)).unwrap();
    let narrow = traffic(&["10.1.0.0/24"], &["10.2.0.0/16"]);
    bench.install(&install(0x1003, 0x2003, narrow, None, false)).unwrap();
    assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2002));
}
