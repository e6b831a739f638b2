//! From what is configured to what is in the SADB: the only place that writes it.
//!
//! What is there and as it should be stays untouched, so that a restart or a reload has no effect on it.
//! What is new goes in inbound SA first, then the outbound one, then the policies that let traffic use them;
//! what goes is taken out the other way round.

use crate::config::{CONNECTION_PRIORITY, Connection, Connections, Extra};
use portcullis_sadb::{
    Action, Direction, Key, Mode, Name, Policy, Prefix, Protocol, Sa, Sadb, SadbError, Selector, SlotIndex,
};
use std::{collections::HashMap, net::IpAddr};
use thiserror::Error;

/// UDP port of ESP in UDP (RFC 3948 §2).
const NAT_T_PORT: u16 = 4500;

/// Why something is not installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// An SA is not.
    #[error("connection '{name}': {direction} SA: {source}")]
    Sa {
        /// The connection.
        name: String,
        /// Which of its SAs.
        direction: &'static str,
        /// Why.
        source: SadbError,
    },
    /// A policy is not.
    #[error("{of} '{name}': policy: {source}")]
    Policy {
        /// `connection` or `policy`.
        of: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: SadbError,
    },
}

/// What an installation changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// SAs that were there and stay.
    pub kept: usize,
    /// SAs that are new.
    pub published: usize,
    /// SAs that are gone.
    pub retired: usize,
}

/// Makes the SADB what `wanted` says, as far as it can: what fails is told, and the rest is installed.
pub fn install(sadb: &mut Sadb, wanted: &Connections) -> (Changes, Vec<InstallError>) {
    let (mut changes, mut errors) = (Changes::default(), vec![]);
    let reqids = reqids(sadb, wanted);
    let mut sas: Vec<(Sa, Option<SlotIndex>)> = vec![];
    for c in &wanted.connections {
        for direction in [Direction::Inbound, Direction::Outbound] {
            sas.push((sa(c, direction, reqids[&c.name]), None));
        }
    }
    let mut gone = vec![];
    for (slot, _, present) in sadb.sas() {
        match sas.iter_mut().find(|(sa, at)| at.is_none() && *sa == present) {
            Some((_, at)) => *at = Some(slot),
            None => gone.push(slot),
        }
    }
    changes.kept = sas.iter().filter(|(_, at)| at.is_some()).count();

    remove_policies(sadb, wanted, &reqids, &gone);
    for slot in gone {
        changes.retired += usize::from(sadb.retire(slot).is_ok());
    }
    sadb.reclaim();
    for (sa, at) in &mut sas {
        if at.is_none() {
            match sadb.publish(sa) {
                Ok(slot) => {
                    *at = Some(slot);
                    changes.published += 1;
                }
                Err(source) => errors.push(InstallError::Sa {
                    name: sa.name.to_string(),
                    direction: if sa.direction == Direction::Inbound { "inbound" } else { "outbound" },
                    source,
                }),
            }
        }
    }
    for (c, pair) in wanted.connections.iter().zip(sas.chunks(2)) {
        let outbound = pair[1].1;
        for policy in policies(c, reqids[&c.name], outbound) {
            if let Err(source) = put(sadb, &policy) {
                errors.push(InstallError::Policy { of: "connection", name: c.name.clone(), source });
            }
        }
    }
    for extra in &wanted.policies {
        for policy in extra_policies(extra) {
            if let Err(source) = put(sadb, &policy) {
                errors.push(InstallError::Policy { of: "policy", name: extra.name.clone(), source });
            }
        }
    }
    (changes, errors)
}

/// Adds a policy, or makes the one that is there use the right SA.
fn put(sadb: &mut Sadb, policy: &Policy) -> Result<(), SadbError> {
    let like = |p: &Policy| Policy { sa: None, ..p.clone() } == Policy { sa: None, ..policy.clone() };
    let present = sadb.policies().find(|(_, p)| like(p));
    match present {
        Some((index, p)) if p.sa != policy.sa => sadb.set_policy_sa(index, policy.sa),
        Some(_) => Ok(()),
        None => sadb.add_policy(policy).map(|_| ()),
    }
}

/// Removes what is not wanted, and parts what stays from SAs that go: a packet then waits for the new SA.
fn remove_policies(sadb: &mut Sadb, wanted: &Connections, reqids: &HashMap<String, u32>, gone: &[SlotIndex]) {
    let mut keep: Vec<Policy> =
        wanted.connections.iter().flat_map(|c| policies(c, reqids[&c.name], None)).collect();
    keep.extend(wanted.policies.iter().flat_map(extra_policies));
    let present: Vec<_> = sadb.policies().collect();
    for (index, policy) in present {
        let result = if !keep.contains(&Policy { sa: None, ..policy.clone() }) {
            sadb.remove_policy(index)
        } else if policy.sa.is_some_and(|sa| gone.contains(&sa)) {
            sadb.set_policy_sa(index, None)
        } else {
            Ok(())
        };
        debug_assert!(result.is_ok(), "the policy was just seen");
    }
}

/// The number that ties a connection's SAs to its policies: the one it has, or the next free one.
fn reqids(sadb: &Sadb, wanted: &Connections) -> HashMap<String, u32> {
    let present: HashMap<String, u32> =
        sadb.sas().map(|(_, _, sa)| (sa.name.to_string(), sa.reqid)).collect();
    let mut next = present.values().copied().max().unwrap_or(0);
    let mut reqid = |name: &String| {
        present.get(name).copied().unwrap_or_else(|| {
            next += 1;
            next
        })
    };
    wanted.connections.iter().map(|c| (c.name.clone(), reqid(&c.name))).collect()
}

fn sa(c: &Connection, direction: Direction, reqid: u32) -> Sa {
    let (keying, src, dst): (_, IpAddr, IpAddr) = match direction {
        Direction::Inbound => (&c.inbound, c.remote, c.local),
        Direction::Outbound => (&c.outbound, c.local, c.remote),
    };
    Sa {
        spi: keying.spi,
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: c.algorithm,
        src,
        dst,
        udp: c.udp_encap.then_some((NAT_T_PORT, NAT_T_PORT)),
        esn: c.esn,
        replay_window: c.replay_window,
        reqid,
        mtu: 0,
        name: Name::new(&c.name).expect("checked when it was read"),
        key: Key::new(keying.key.bytes()).expect("checked when it was read"),
    }
}

fn policies(c: &Connection, reqid: u32, outbound: Option<SlotIndex>) -> Vec<Policy> {
    let mut policies = vec![];
    for local in &c.local_ts {
        for remote in c.remote_ts.iter().filter(|r| r.addr().is_ipv4() == local.addr().is_ipv4()) {
            let policy = |direction, src: Prefix, dst: Prefix, sa| Policy {
                direction,
                selector: Selector::between(src, dst),
                priority: CONNECTION_PRIORITY,
                action: Action::Protect,
                reqid,
                sa,
            };
            policies.push(policy(Direction::Inbound, *remote, *local, None));
            policies.push(policy(Direction::Outbound, *local, *remote, outbound));
        }
    }
    policies
}

/// As it is written, for what goes out; and the same the other way round, for the answers that come in.
fn extra_policies(e: &Extra) -> [Policy; 2] {
    let action = if e.bypass { Action::Bypass } else { Action::Discard };
    let policy = |direction, selector| Policy {
        direction,
        selector,
        priority: e.priority,
        action,
        reqid: 0,
        sa: None,
    };
    let there = Selector {
        src: e.src,
        dst: e.dst,
        protocol: e.protocol,
        src_ports: e.src_ports.clone(),
        dst_ports: e.dst_ports.clone(),
    };
    let back = Selector {
        src: e.dst,
        dst: e.src,
        protocol: e.protocol,
        src_ports: e.dst_ports.clone(),
        dst_ports: e.src_ports.clone(),
    };
    [policy(Direction::Outbound, there), policy(Direction::Inbound, back)]
}
