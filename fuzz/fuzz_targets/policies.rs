//! The SPD answers as a list of policies would, whatever comes and goes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use portcullis_sadb::*;

#[derive(Arbitrary, Debug)]
enum Step {
    Add {
        src: u8,
        src_len: u8,
        dst: u8,
        dst_len: u8,
        protocol: Option<u8>,
        ports: Option<(u8, u8)>,
        opaque: bool,
        priority: u8,
    },
    Remove(u8),
    Look {
        src: u8,
        dst: u8,
        protocol: u8,
        ports: Option<(u8, u8)>,
    },
}

fn address(n: u8) -> std::net::IpAddr {
    [n, n, n, n].into()
}

fuzz_target!(|steps: Vec<Step>| {
    let (mut sadb, reader, _runtime) = Sadb::heap(&Sizes { max_sas: 64, max_policies: 64 }).unwrap();
    let mut list: Vec<(PolicyIndex, Policy)> = vec![];
    for step in steps {
        match step {
            Step::Add { src, src_len, dst, dst_len, protocol, ports, opaque, priority } => {
                let prefix = |n, len: u8| Prefix::new(address(n), len % 33).unwrap();
                let mut selector = Selector::between(prefix(src, src_len), prefix(dst, dst_len));
                selector.protocol = protocol;
                if let (Some((from, to)), Some(6 | 17)) = (ports, protocol) {
                    selector.dst_ports = from.min(to).into()..=from.max(to).into();
                }
                if opaque {
                    selector.src_ports = OPAQUE_PORT;
                }
                let policy = Policy {
                    direction: Direction::Outbound,
                    selector,
                    priority: priority.into(),
                    action: Action::Discard,
                    reqid: 0,
                    sa: None,
                };
                if let Ok(index) = sadb.add_policy(&policy) {
                    list.push((index, policy));
                }
            }
            Step::Remove(n) if !list.is_empty() => {
                sadb.remove_policy(list.remove(n as usize % list.len()).0).unwrap();
                sadb.reclaim();
            }
            Step::Remove(_) => {}
            Step::Look { src, dst, protocol, ports } => {
                let ports = ports.map(|(s, d)| (s.into(), d.into()));
                let flow = Flow { src: address(src), dst: address(dst), protocol, ports };
                let best =
                    list.iter().filter(|(_, p)| matches(&p.selector, &flow)).map(|(_, p)| p.priority).min();
                let hit = reader.lookup(Direction::Outbound, &flow);
                assert_eq!(hit.map(|h| h.priority), best, "{flow:?} in {list:?}");
            }
        }
    }
});

fn matches(selector: &Selector, flow: &Flow) -> bool {
    let ports = |range: &std::ops::RangeInclusive<u16>, port: Option<u16>| {
        *range == ANY_PORT
            || if *range == OPAQUE_PORT { port.is_none() } else { port.is_some_and(|p| range.contains(&p)) }
    };
    selector.src.contains(flow.src)
        && selector.dst.contains(flow.dst)
        && selector.protocol.is_none_or(|p| p == flow.protocol)
        && ports(&selector.src_ports, flow.ports.map(|p| p.0))
        && ports(&selector.dst_ports, flow.ports.map(|p| p.1))
}
