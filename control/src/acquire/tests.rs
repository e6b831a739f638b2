use super::*;
use crate::config::MANUAL_KEYS;
use portcullis_machine::strict::Document;
use portcullis_sadb::{Fields, PolicyHit, Reader, Runtime, Sizes};
use std::collections::BTreeSet;

/// A connection with a stock of so many pairs, whose SAs are populated with these.
fn text(pairs: u8, populate: &str) -> String {
    let stock: String = (1..=pairs)
        .map(|n| {
            let pair = |way: &str, key: u8| {
                format!(
                    "[connection.sas.{way}]\nspi = \"{:#x}\"\nkey = \"0x{key:02x}{:038x}\"\n",
                    0x1000 + key as u32,
                    0
                )
            };
            format!("[[connection.sas]]\n{}{}", pair("inbound", 2 * n), pair("outbound", 2 * n + 1))
        })
        .collect();
    format!(
        "{MANUAL_KEYS} = true\n[[connection]]\nname = \"a\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n\
         local_ts = [\"10.1.0.0/16\", \"fd01::/64\"]\nremote_ts = [\"10.2.0.0/16\", \"fd02::/64\"]\n\
         algorithm = \"aes-gcm-128\"\npopulate = [{populate}]\n{stock}\
         [[policy]]\nname = \"first\"\naction = \"discard\"\nsrc = \"10.1.0.0/16\"\ndst = \"10.2.9.0/24\"\npriority = 999\n\
         [[policy]]\nname = \"last\"\naction = \"bypass\"\nsrc = \"0.0.0.0/0\"\ndst = \"10.2.0.0/16\"\npriority = 1001\n"
    )
}

fn connections(text: &str) -> Connections {
    Connections::parse(&Document::from_text("connections.toml", text)).unwrap()
}

struct Bench {
    sadb: Sadb,
    reader: Reader,
    _runtime: Runtime,
    installer: Installer,
    connections: Connections,
}

impl Bench {
    fn new(text: &str) -> Bench {
        let (sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas: 16, max_policies: 64 }).unwrap();
        let (installer, connections) = (Installer::default(), Connections::default());
        let mut bench = Bench { sadb, reader, _runtime: runtime, installer, connections };
        bench.install(text, &[]).unwrap();
        bench
    }

    fn install(&mut self, text: &str, down: &[&str]) -> Result<crate::install::Changes, InstallError> {
        let down: BTreeSet<_> = down.iter().map(|s| (*s).to_owned()).collect();
        let wanted = connections(text);
        let result = self.installer.install(&mut self.sadb, &wanted, &down, 100);
        self.connections = wanted;
        result
    }

    fn hit(&self, flow: &Flow) -> Option<PolicyHit> {
        self.reader.lookup(Direction::Outbound, flow)
    }

    /// What a packet asks for is made, if there is any left. The SPI that it leaves by from then on.
    fn send(&mut self, flow: &Flow) -> Option<u32> {
        let hit = self.hit(flow).filter(|hit| hit.action == Action::Protect)?;
        if hit.sa.is_none() {
            let acquire = Acquire { policy: hit.index, flow: *flow };
            let child = acquire.child(&self.sadb, &self.connections)?;
            let pair = self.installer.next_pair(&self.sadb, child.connection)?;
            self.installer.establish(&mut self.sadb, &child, pair, 200).unwrap();
            assert!(acquire.child(&self.sadb, &self.connections).is_none(), "told twice, made once");
        }
        Some(self.reader.spi(self.hit(flow)?.sa?)?.0)
    }

    /// Which SPI the inbound policies ask for, of an answer.
    fn answer(&self, flow: &Flow) -> Option<u32> {
        let Flow { src, dst, protocol, ports } = *flow;
        let ports = ports.map(|(s, d)| if protocol == 1 { (s, d) } else { (d, s) });
        let hit = self.reader.lookup(Direction::Inbound, &Flow { src: dst, dst: src, protocol, ports })?;
        let is_it = |sa: &portcullis_sadb::Sa| (sa.reqid, sa.direction) == (hit.reqid, Direction::Inbound);
        self.sadb.sas().map(|(.., sa)| sa).find(is_it).map(|sa| sa.spi.0)
    }
}

fn flow(src: u8, dst: u8, port: u16) -> Flow {
    Flow { src: [10, 1, 0, src].into(), dst: [10, 2, 0, dst].into(), protocol: 17, ports: Some((port, 53)) }
}

#[test]
fn each_acquire_takes_the_next_pair_until_none_is_left() {
    let mut bench = Bench::new(&text(2, "\"remote\""));
    assert_eq!((bench.sadb.live_sas(), taken(&bench.sadb, &bench.connections.connections[0])), (0, 0));
    assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003));
    assert_eq!(bench.answer(&flow(1, 1, 1)), Some(0x1002));
    // The same SA is for all that the policy leaves open.
    assert_eq!(bench.send(&flow(2, 1, 9)), Some(0x1003));
    assert_eq!(bench.send(&flow(1, 2, 1)), Some(0x1005));
    assert_eq!(bench.answer(&flow(7, 2, 1)), Some(0x1004));
    assert_eq!(bench.send(&flow(1, 3, 1)), None, "used up");
    assert_eq!(bench.answer(&flow(1, 3, 1)), None, "no SA is for it");
    assert_eq!(taken(&bench.sadb, &bench.connections.connections[0]), 2);
    // RFC 4301 §4.4.1: what comes before the policy comes before its SAs, what comes behind it does behind.
    assert_eq!(
        bench.hit(&Flow { dst: [10, 2, 9, 1].into(), ..flow(1, 0, 1) }).unwrap().action,
        Action::Discard
    );
    assert_eq!(
        bench.hit(&Flow { src: [10, 7, 0, 1].into(), ..flow(0, 1, 1) }).unwrap().action,
        Action::Bypass
    );
    // More are there after a reload, which leaves all as it was.
    let (sas, policies): (Vec<_>, Vec<_>) = (bench.sadb.sas().collect(), bench.sadb.policies().collect());
    let changes = bench.install(&text(3, "\"remote\""), &[]).unwrap();
    assert_eq!((changes.kept, changes.published, changes.retired, changes.policies), (4, 0, 0, 0));
    assert_eq!(
        (bench.sadb.sas().collect::<Vec<_>>(), bench.sadb.policies().collect::<Vec<_>>()),
        (sas, policies)
    );
    assert_eq!(bench.send(&flow(1, 3, 1)), Some(0x1007));
}

#[test]
fn a_trap_makes_one_sa_for_all_that_it_is_about() {
    let mut bench = Bench::new(&text(3, ""));
    assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003));
    assert_eq!(bench.send(&flow(9, 9, 9)), Some(0x1003));
    // The other family is another policy.
    let six = Flow { src: "fd01::1".parse().unwrap(), dst: "fd02::1".parse().unwrap(), ..flow(0, 0, 1) };
    assert_eq!(bench.send(&six), Some(0x1005));
    assert_eq!(bench.answer(&six), Some(0x1004));
}

#[test]
fn another_iked_goes_on_with_what_was_taken() {
    let mut bench = Bench::new(&text(3, "\"remote\", \"protocol\", \"remote_port\""));
    assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003));
    let before: Vec<_> = bench.sadb.policies().collect();
    bench.installer = Installer::default();
    let all = text(3, "\"remote\", \"protocol\", \"remote_port\"");
    let changes = bench.install(&all, &[]).unwrap();
    assert_eq!((changes.kept, changes.policies), (2, 0));
    assert_eq!(bench.sadb.policies().collect::<Vec<_>>(), before);
    assert_eq!(bench.send(&flow(2, 1, 2)), Some(0x1003));
    let other = Flow { ports: Some((1, 54)), ..flow(1, 1, 1) };
    assert_eq!(bench.send(&other), Some(0x1005));
}

#[test]
fn down_drops_and_up_goes_on_with_the_same_sas() {
    let all = text(2, "\"remote\"");
    let mut bench = Bench::new(&all);
    assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003));
    let sas: Vec<_> = bench.sadb.sas().collect();
    for _ in 0..2 {
        bench.install(&all, &["a"]).unwrap();
        // Another iked, too.
        bench.installer = Installer::default();
        bench.install(&all, &["a"]).unwrap();
        for dst in [1, 2] {
            assert_eq!(bench.hit(&flow(1, dst, 1)).unwrap().action, Action::Discard);
        }
        assert_eq!((bench.sadb.sas().collect::<Vec<_>>(), bench.send(&flow(1, 2, 1))), (sas.clone(), None));
        bench.install(&all, &[]).unwrap();
        assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003));
        assert_eq!(bench.answer(&flow(1, 1, 1)), Some(0x1002));
    }
    assert_eq!(bench.send(&flow(1, 2, 1)), Some(0x1005), "the next pair");
}

#[test]
fn what_is_not_configured_any_more_goes_and_its_keys_do_not_come_back() {
    let mut bench = Bench::new(&text(2, "\"remote\""));
    assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003));
    // Other fields: the policies of before are not above others.
    bench.install(&text(2, "\"local\""), &[]).unwrap();
    assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003), "it stays as it was made");
    assert_eq!(bench.send(&flow(1, 2, 1)), Some(0x1005));
    assert_eq!(bench.send(&flow(1, 3, 1)), Some(0x1005));
    // Without the connection all goes.
    let none = text(1, "").split("[[connection]]").next().unwrap().to_owned();
    bench.install(&none, &[]).unwrap();
    assert_eq!((bench.sadb.live_sas(), bench.sadb.policies().count()), (0, 0));
    bench.install(&text(2, "\"remote\""), &[]).unwrap();
    assert_eq!(bench.send(&flow(1, 1, 1)), None, "RFC 4106 §3.1");
}

/// RFC 4106 §3.1: with other words the SA would be another, whose numbers begin anew, also for an iked that knows nothing of
/// before.
#[test]
fn what_was_taken_from_a_stock_is_not_made_anew_with_its_key() {
    let all = text(2, "\"remote\"");
    let mut bench = Bench::new(&all);
    assert_eq!(bench.send(&flow(1, 1, 1)), Some(0x1003));
    let before: Vec<_> = bench.sadb.sas().collect();
    let other = all.replace("populate =", "replay_window = 64\npopulate =");
    for _ in 0..2 {
        let e = bench.install(&other, &[]).unwrap_err();
        assert!(matches!(e, InstallError::KeySpent { spi: Spi(0x1003), .. }), "{e}");
        assert_eq!(bench.sadb.sas().collect::<Vec<_>>(), before);
        bench.installer = Installer::default();
    }
    // Of a pair that nobody has taken that is no matter.
    bench.install(&all, &[]).unwrap();
    assert_eq!(bench.send(&flow(1, 2, 1)), Some(0x1005));
}

#[test]
fn an_event_that_nothing_wants_any_more_makes_nothing() {
    let bench = Bench::new(&text(2, "\"remote\""));
    let flow = flow(1, 1, 1);
    let policy = bench.hit(&flow).unwrap().index;
    let child = |policy, flow| Acquire { policy, flow }.child(&bench.sadb, &bench.connections).is_some();
    assert!(child(policy, flow));
    // Another policy has the index now, or the packet is for another.
    assert!(!child(PolicyIndex(policy.0 + 1), flow) && !child(PolicyIndex(u32::MAX), flow));
    assert!(!child(policy, Flow { dst: [10, 2, 9, 1].into(), ..flow }));
    // Without connections.
    let acquire = Acquire { policy, flow };
    assert!(acquire.child(&bench.sadb, &Connections::default()).is_none());
    let event = Event {
        kind: EventKind::Acquire,
        slot: portcullis_sadb::SlotIndex(0),
        generation: portcullis_sadb::Generation(0),
        value: policy.0 as u64,
        about: flow.words(),
    };
    assert_eq!(Acquire::of(&event), Some(acquire));
    assert_eq!(Acquire::of(&Event { kind: EventKind::Idle, ..event }), None);
    assert_eq!(Acquire::of(&Event { value: u64::MAX, ..event }), None);
}

#[test]
fn what_does_not_fit_leaves_nothing_behind() {
    let (mut sadb, reader, _runtime) = Sadb::heap(&Sizes { max_sas: 4, max_policies: 64 }).unwrap();
    let wanted = connections(&text(2, "\"remote\""));
    let mut installer = Installer::default();
    installer.install(&mut sadb, &wanted, &BTreeSet::new(), 1).unwrap();
    // Somebody has the SPI of the second pair's inbound SA.
    let c = &wanted.connections[0];
    sadb.publish(&sa(c, &c.keys.stock[0], Direction::Inbound, 77, 1)).unwrap();
    let before: Vec<_> = sadb.policies().collect();
    let hit = reader.lookup(Direction::Outbound, &flow(1, 1, 1)).unwrap();
    let child = Acquire { policy: hit.index, flow: flow(1, 1, 1) }.child(&sadb, &wanted).unwrap();
    let e = installer.establish(&mut sadb, &child, &c.keys.stock[0], 1).unwrap_err();
    assert!(matches!(e, InstallError::Sa { direction: Direction::Inbound, .. }), "{e}");
    assert_eq!((sadb.live_sas(), sadb.policies().collect::<Vec<_>>()), (1, before));
    // Its keys are in an SA, so the next pair is taken.
    assert_eq!(installer.next_pair(&sadb, c).map(|p| p.inbound.spi), Some(Spi(0x1004)));
    assert_eq!(sadb.populate(hit.index).fields(), Fields::DST);
}
