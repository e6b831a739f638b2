//! From `swanctl.conf` to what the engine takes: what is not there yet is refused by name.

use super::{children::Shunt, credentials::Credentials, eap, pools, rounds, sockets};
use crate::swanctl::{
    self,
    child::{self, Child, CopyDscp, PerCpu, TfcPadding},
    connection::{Childless, Connection, Fragmentation, Host, SendCert, Unique, Version},
    secret::{Purpose, Secrets, Shared},
};
use portcullis_ike::{
    connection::{self as ike, Round},
    crypto::signature::Kind,
    identity::IdPattern,
    proposal::{Order, Proposals},
    traffic_selector::{ConfiguredSelectors, Policy},
    v2::window::Retransmission,
};
use portcullis_sadb::{Action, DfBit, Dscp, Handling, Lifetime, Limits, Mode, Prefix};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};
use thiserror::Error;

/// From so many half-open IKE SAs on, initiators must solve puzzles.
const PUZZLES_FROM: usize = 1000;

/// How long one may be half-open.
const HALF_OPEN_MS: u64 = 30_000;

/// Octets of an IP packet of IKE, at most.
const FRAGMENT: usize = 1280;

/// Padding as far as the path allows, and MSS that fits it.
const AS_FAR_AS_THE_PATH_ALLOWS: u16 = u16::MAX;

/// What of `swanctl.conf` cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{key}: {why}")]
pub struct Unusable {
    /// The key, with the sections that it is in.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

pub(super) fn unusable(key: String, why: impl ToString) -> Unusable {
    Unusable { key, why: why.to_string() }
}

/// What the engine takes, without limits, which `portcullis.toml` has.
///
/// # Errors
/// The first key that cannot be used.
pub fn configuration(
    from: &swanctl::Configuration,
    credentials: &Credentials,
) -> Result<ike::Configuration, Unusable> {
    from.connections.iter().try_for_each(shunts)?;
    let with_ike = from.connections.iter().filter(|c| c.has_ike());
    let connections = with_ike.map(|c| connection(c, credentials, 0).map(Arc::new));
    let (shared_keys, ppks, eap_secrets) = secrets(&from.secrets)?;
    Ok(ike::Configuration {
        connections: connections.collect::<Result<_, _>>()?,
        shared_keys,
        ppks,
        workers: 1,
        eap_secrets,
        pools: from.pools.iter().map(|pool| pools::pool(pool).map(Arc::new)).collect::<Result<_, _>>()?,
        puzzles_from: PUZZLES_FROM,
        half_open_ms: HALF_OPEN_MS,
        ..ike::Configuration::default()
    })
}

/// The shared keys, the postquantum preshared keys, and the passwords of EAP.
type AllSecrets = (Vec<ike::SharedKey>, Vec<ike::Ppk>, Arc<portcullis_ike::eap::Secrets>);

/// All that both sides know.
///
/// # Errors
/// As of [`configuration`].
pub(super) fn secrets(from: &Secrets) -> Result<AllSecrets, Unusable> {
    let mut passwords = portcullis_ike::eap::Secrets::default();
    from.shared.iter().try_for_each(|shared| eap::add(&mut passwords, shared))?;
    let of = |purpose| from.shared.iter().filter(move |shared| shared.purpose == purpose);
    let ppks: Vec<_> = of(Purpose::Ppk).map(ppks).collect::<Result<_, _>>()?;
    let keys = of(Purpose::Ike).map(shared_key).collect::<Result<_, _>>()?;
    Ok((keys, ppks.concat(), Arc::new(passwords)))
}

fn shared_key(shared: &Shared) -> Result<ike::SharedKey, Unusable> {
    let key = || format!("secrets.{}.id", shared.name);
    let ids = shared.owners.iter().map(|id| id.parse().map_err(|e| unusable(key(), e)));
    let octets = portcullis_ike::crypto::Secret::copy_of(shared.secret.bytes());
    Ok(ike::SharedKey { ids: ids.collect::<Result<_, _>>()?, key: octets })
}

/// One for each of its identities.
fn ppks(shared: &Shared) -> Result<Vec<ike::Ppk>, Unusable> {
    let key = portcullis_ike::crypto::Secret::copy_of(shared.secret.bytes());
    let bad = |error| unusable(format!("secrets.{}.id", shared.name), error);
    let ids = shared.owners.iter().map(|id| ppk_id(id).map_err(bad));
    ids.map(|id| Ok(ike::Ppk { id: id?, key: key.clone() })).collect()
}

/// The octets of an identity, as strongSwan says it to others.
fn ppk_id(text: &str) -> Result<Vec<u8>, &'static str> {
    let id = text.parse::<IdPattern>().ok().and_then(|id| id.identity());
    id.map(|id| id.data).ok_or("it is not one identity")
}

/// A connection, of this edition. Its names have no addresses yet, and its retransmissions are the default.
///
/// # Errors
/// As of [`configuration`].
pub(super) fn connection(
    c: &Connection,
    credentials: &Credentials,
    edition: u64,
) -> Result<ike::Connection, Unusable> {
    let key = |key: &str| format!("connections.{}.{key}", c.name);
    let rounds::Rounds { local, remote, further, xauth } = rounds::rounds(c, credentials)?;
    let (Round { id: local_id, auth: local_auth }, Round { id: remote_id, auth: remote_auth }) =
        (local, remote);
    let ikev1 = match c.version {
        Version::One => Some(ikev1(c, (&local_auth, &remote_auth, &further), xauth)?),
        // A peer that begins with IKEv1 is told nothing.
        Version::Any | Version::Two => None,
    };
    if ![sockets::IKE, sockets::NAT_T].contains(&c.local_port.0) {
        return Err(unusable(key("local_port"), "iked has ports 500 and 4500, and no other"));
    }
    let proposals = c.proposals.iter().map(|proposal| &*proposal.0);
    let with_sas = c.children.iter().filter(|child| !child.mode.is_shunt());
    let children = with_sas.map(|child| self::child(c, child).map(Arc::new));
    let cuts = matches!(c.fragmentation, Fragmentation::Yes | Fragmentation::Force);
    Ok(ike::Connection {
        name: c.name.clone(),
        edition,
        mark: c.source.mark(),
        ikev1,
        local: hosts(&c.local_addrs, &|_| vec![]),
        remote: hosts(&c.remote_addrs, &|_| vec![]),
        local_port: c.local_port.0,
        remote_port: c.remote_port.0,
        proposals: Proposals::ike(proposals).map_err(|e| unusable(key("proposals"), e))?,
        order: Order::Ours,
        local_id,
        remote_id,
        ppk_id: c
            .ppk_id
            .as_deref()
            .map(|id| ppk_id(id).map_err(|e| unusable(key("ppk_id"), e)))
            .transpose()?,
        ppk_required: c.ppk_required,
        unique: match c.unique {
            Unique::No => ike::Unique::No,
            Unique::Never => ike::Unique::Never,
            Unique::Keep => ike::Unique::Keep,
            Unique::Replace => ike::Unique::Replace,
        },
        childless: match c.childless {
            Childless::Never => ike::Childless::Never,
            Childless::Allow => ike::Childless::Allow,
            Childless::Force => ike::Childless::Force,
        },
        mobike: c.mobike,
        local_auth,
        remote_auth,
        further,
        vips: c.vips.clone(),
        pools: c.pools.clone(),
        children: children.collect::<Result<_, _>>()?,
        retransmission: Retransmission::default(),
        dpd_ms: millis(c.dpd_delay),
        reauth_ms: millis(c.reauth_time),
        over_ms: millis(c.over()),
        rekey_ms: millis(c.rekey()),
        rand_ms: millis(c.rand()),
        resumes: c.resumption,
        follows_redirects: c.follow_redirects,
        redirect_to: c.redirect_to.iter().map(|to| to.0.clone()).collect(),
        forces_udp: c.encap,
        fragment_octets: if cuts { FRAGMENT } else { 0 },
        says_fragments: c.fragmentation != Fragmentation::No,
        keying_tries: c.keyingtries,
        dscp: c.dscp.0,
        sends_certificates: match c.send_cert {
            SendCert::IfAsked => ike::SendCertificates::Asked,
            SendCert::Always => ike::SendCertificates::Always,
            SendCert::Never => ike::SendCertificates::Never,
        },
        asks_for_certificates: c.send_certreq,
    })
}

/// What there is of IKEv1, and nothing that there is not.
fn ikev1(
    c: &Connection,
    (ours, theirs, further): (&ike::LocalAuth, &ike::RemoteAuth, &ike::Further),
    xauth: Option<ike::Xauth>,
) -> Result<ike::Ikev1, Unusable> {
    let is_one = matches!(
        (ours, theirs),
        (ike::LocalAuth::SharedKey, ike::RemoteAuth::SharedKey)
            | (ike::LocalAuth::PublicKey(_), ike::RemoteAuth::PublicKey(_))
            | (ike::LocalAuth::Null, ike::RemoteAuth::PublicKey(_))
            | (ike::LocalAuth::PublicKey(_), ike::RemoteAuth::Null)
    );
    let is_by_key = matches!(ours, ike::LocalAuth::SharedKey);
    let is_other = matches!(ours, ike::LocalAuth::PublicKey(own) if own.public().kind() != Kind::Rsa);
    for (name, why, is_there) in [
        (
            "aggressive_psk_can_be_guessed_offline",
            "in aggressive mode, whoever names a peer gets a hash of the shared key, and can try guesses on it \
             without anybody seeing it; write 'yes' for a key that nobody can guess, or take certificates or main mode",
            c.aggressive && is_by_key && !c.aggressive_psk_can_be_guessed_offline,
        ),
        ("ppk_id", "there are no PPKs in IKEv1", c.ppk_id.is_some()),
        ("ppk_required", "there are no PPKs in IKEv1", c.ppk_required),
        (
            "local.auth",
            "with IKEv1 both sides prove who they are by shared keys, or both by certificates, or one by a certificate and the other by xauth",
            !is_one,
        ),
        (
            "local.certs",
            "users prove who they are behind shared keys and RSA in IKEv1, and not behind keys of other kinds",
            xauth.is_some() && is_other,
        ),
        (
            "local",
            "there is one round of authentication in IKEv1, and xauth behind it on one side",
            !further.local.is_empty() || !further.remote.is_empty(),
        ),
    ] {
        if is_there {
            return Err(unusable(format!("connections.{}.{name}", c.name), why));
        }
    }
    Ok(ike::Ikev1 {
        dpd_timeout_ms: millis(c.dpd_timeout),
        is_aggressive: c.aggressive,
        xauth,
        pushes: !c.pull,
    })
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

fn secs(time: Duration) -> u32 {
    time.as_secs().try_into().unwrap_or(u32::MAX)
}

/// Where an end may be; `named` says what names have.
pub(super) fn hosts(hosts: &[Host], named: &dyn Fn(&str) -> Vec<IpAddr>) -> ike::Hosts {
    let mut ranges: Vec<RangeInclusive<IpAddr>> = vec![];
    for host in hosts {
        match host {
            Host::Any => return ike::Hosts::Any,
            Host::Any4 => ranges.push(IpAddr::from([0; 4])..=IpAddr::from([255; 4])),
            Host::Any6 => ranges.push(IpAddr::from([0; 16])..=IpAddr::from([255; 16])),
            Host::Address(address) => ranges.push(*address..=*address),
            Host::Subnet(subnet) => ranges.push(subnet.addr()..=last_of(subnet)),
            Host::Range(first, last) => ranges.push(*first..=*last),
            Host::Name(name) => ranges.extend(named(name).into_iter().map(|address| address..=address)),
        }
    }
    // A name that nobody knows is nowhere.
    if hosts.is_empty() { ike::Hosts::Any } else { ike::Hosts::Ranges(ranges) }
}

/// The last address of a subnet.
pub(super) fn last_of(subnet: &Prefix) -> IpAddr {
    match subnet.addr() {
        IpAddr::V4(first) => {
            (first.to_bits() | u32::MAX.checked_shr(subnet.len().into()).unwrap_or(0)).to_be_bytes().into()
        }
        IpAddr::V6(first) => {
            (first.to_bits() | u128::MAX.checked_shr(subnet.len().into()).unwrap_or(0)).to_be_bytes().into()
        }
    }
}

fn child(c: &Connection, child: &Child) -> Result<ike::Child, Unusable> {
    let key = |key: &str| format!("connections.{}.children.{}.{key}", c.name, child.name);
    let missing = |name: &str, what: &str| Err(unusable(key(name), format!("{what} cannot be used yet")));
    let mode = if child.mode == child::Mode::Transport { Mode::Transport } else { Mode::Tunnel };
    if child.interface.is_some() {
        return missing("interface", "a device of its own");
    }
    let has_ah = !child.ah_proposals.is_empty();
    let ah = || {
        let ah = Proposals::ah(child.ah_proposals.iter().map(|proposal| &*proposal.0));
        ah.map_err(|e| unusable(key("ah_proposals"), e))
    };
    let esp = || {
        let esp = Proposals::esp(child.esp().iter().map(|proposal| &*proposal.0));
        esp.map_err(|e| unusable(key("esp_proposals"), e))
    };
    let (proposals, around) = match child.ah_and_esp {
        true => (esp()?, Some(ah()?)),
        false => (if has_ah { ah()? } else { esp()? }, None),
    };
    if let Some(around) = &around
        && !have_one_group(&proposals, around)
    {
        let why = "none has the group of the first of esp_proposals; one key exchange is for both: write the \
                   same group in both, or in neither";
        return Err(unusable(key("ah_proposals"), why));
    }
    let [local, remote] = selectors(c, child)?;
    Ok(ike::Child {
        name: child.name.clone(),
        mark: c.source.mark(),
        proposals,
        around,
        local,
        remote,
        mode,
        handling: handling(child),
        per_worker: match child.per_cpu_sas {
            PerCpu::No => false,
            PerCpu::Yes => true,
            PerCpu::Encap => return missing("per_cpu_sas", "a UDP port for each"),
        },
        replay_window: child.replay_window.0,
        priority: child.priority,
        rekey_ms: millis(child.rekey_time),
        rand_ms: millis(child.rand()),
    })
}

/// Whether some proposals for AH have the group of the best for ESP (RFC 2409 §5.5).
fn have_one_group(esp: &Proposals, ah: &Proposals) -> bool {
    let (esp, ah) = (esp.singles(), ah.singles());
    esp.first().is_some_and(|esp| ah.iter().any(|ah| ah.key_exchange() == esp.key_exchange()))
}

/// What a child is for, at either end.
fn selectors(c: &Connection, child: &Child) -> Result<[ConfiguredSelectors; 2], Unusable> {
    let of = |name: &str, texts: &[swanctl::notation::Selector]| {
        let key = || format!("connections.{}.children.{}.{name}", c.name, child.name);
        ConfiguredSelectors::parse(texts.iter().map(|text| &*text.0)).map_err(|e| unusable(key(), e))
    };
    Ok([of("local_ts", &child.local_ts)?, of("remote_ts", &child.remote_ts)?])
}

/// Whether the shunts of a connection can be.
///
/// # Errors
/// As of [`configuration`].
pub(super) fn shunts(c: &Connection) -> Result<(), Unusable> {
    c.children.iter().try_for_each(|child| shunt(c, child).map(drop))
}

/// The shunt that a child is, if it is one. `dynamic` is anywhere: there is no IKE SA whose ends it could be.
///
/// # Errors
/// As of [`configuration`].
pub(super) fn shunt(c: &Connection, child: &Child) -> Result<Option<Shunt>, Unusable> {
    let action = match child.mode {
        child::Mode::Pass => Action::Bypass,
        child::Mode::Drop => Action::Discard,
        child::Mode::Tunnel | child::Mode::Transport => return Ok(None),
    };
    let [local, remote] = selectors(c, child)?.map(|of| of.with(&ANYWHERE));
    let (connection, name) = (c.name.clone(), child.name.clone());
    let traffic = Policy { local, remote };
    Ok(Some(Shunt { connection, child: name, action, traffic, priority: child.priority }))
}

const ANYWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// After how much a child SA is replaced; never after nothing, which would be no limit.
fn soft(rekey: u64, rand: u64) -> u64 {
    rekey - (rand / 2).min(rekey / 2)
}

fn handling(child: &Child) -> Handling {
    let (life_bytes, rand_bytes) = child.life_and_rand_bytes();
    let (life_packets, rand_packets) = child.life_and_rand_packets();
    Handling {
        df: if child.copy_df { DfBit::Copy } else { DfBit::Clear },
        ecn: child.copy_ecn,
        dscp: match child.copy_dscp {
            CopyDscp::Out | CopyDscp::Both => Dscp::Copy,
            CopyDscp::In | CopyDscp::Neither => Dscp::Set(0),
        },
        decap_dscp: matches!(child.copy_dscp, CopyDscp::In | CopyDscp::Both),
        tfc_pad: match child.tfc_padding {
            TfcPadding::Octets(octets) => octets.try_into().unwrap_or(AS_FAR_AS_THE_PATH_ALLOWS),
            TfcPadding::Mtu => AS_FAR_AS_THE_PATH_ALLOWS,
        },
        lifetime: Lifetime {
            soft: Limits {
                bytes: soft(child.rekey_bytes.0, rand_bytes),
                packets: soft(child.rekey_packets, rand_packets),
                secs: 0,
            },
            hard: Limits { bytes: life_bytes, packets: life_packets, secs: secs(child.life()) },
            idle_secs: secs(child.inactivity),
        },
        ..Handling::default()
    }
}

#[cfg(test)]
pub(super) mod tests;
