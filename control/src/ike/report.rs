//! What IKE tells of its SAs.

use super::{Ike, children::Installed};
use crate::{
    iked::boot_secs,
    report::{AroundReport, ChildReport, IkeReport, IkeSaReport, TransformReport},
};
use portcullis_ike::{
    child::{Around, ChildSa},
    crypto::keys::Role,
    ike_sa::{IkeSa, IkeSaId, Phase},
    proposal::Agreement,
    traffic_selector::TrafficSelectors,
};
use portcullis_sadb::{Mode, Protocol, SaCounters, Sadb, SlotIndex, Spi};

impl Ike {
    /// All of it.
    pub fn report(&self, sadb: &Sadb) -> IkeReport {
        let sas = self.ids().into_iter().filter_map(|id| self.report_of(id, sadb)).collect();
        let refused = self.refused.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect();
        IkeReport { sas, failures: self.failures.report(self.now_ms()), refused, pools: self.pools() }
    }

    /// An IKE SA, with its child SAs.
    pub fn report_of(&self, id: IkeSaId, sadb: &Sadb) -> Option<IkeSaReport> {
        let sa = self.engine.ike_sa(id)?;
        let children = sa.children().iter().map(|child| self.child_report(child, sadb)).collect();
        Some(IkeSaReport { children, ..self.sa_report(sa) })
    }

    /// An IKE SA without its child SAs.
    pub(super) fn sa_report(&self, sa: &dyn IkeSa) -> IkeSaReport {
        let state = match sa.phase() {
            Phase::Connecting => "connecting",
            Phase::Established => "established",
            Phase::Replaced => "replaced",
            Phase::Closing => "closing",
            Phase::Closed(_) => "closed",
        };
        let role = if sa.role() == Role::Initiator { "initiator" } else { "responder" };
        let ids = sa.ids().map(|(ours, theirs)| (ours.to_string(), theirs.to_string())).unzip();
        let (spis, nat, now) = (sa.spis(), sa.nat().unwrap_or_default(), self.now_ms());
        IkeSaReport {
            version: sa.version(),
            id: sa.id().0,
            connection: sa.connection().name.clone(),
            state: state.to_owned(),
            role: role.to_owned(),
            local: sa.path().local.to_string(),
            remote: sa.path().peer.to_string(),
            local_id: ids.0,
            remote_id: ids.1,
            remote_eap_id: sa.eap_id().map(ToOwned::to_owned),
            ppk: sa.has_ppk(),
            nat_local: nat.is_here,
            nat_remote: nat.is_there,
            initiator_spi: spis.initiator.to_string(),
            responder_spi: spis.responder.to_string(),
            proposal: sa.agreement().map(ToString::to_string),
            transforms: sa.agreement().map(transforms).unwrap_or_default(),
            local_vips: sa.given().ours.iter().map(ToString::to_string).collect(),
            remote_vips: sa.given().theirs.iter().map(|lease| lease.address.to_string()).collect(),
            dns: sa.given().dns.iter().map(ToString::to_string).collect(),
            established_secs: sa.established_ms().map(|ms| now.saturating_sub(ms) / 1000),
            rekey_secs: sa.rekey_at_ms().map(|ms| ms.saturating_sub(now) / 1000),
            children: vec![],
        }
    }

    /// A child SA.
    pub(super) fn child_report(&self, child: &ChildSa, sadb: &Sadb) -> ChildReport {
        let texts = |selectors: &TrafficSelectors| selectors.iter().map(ToString::to_string).collect();
        let is_esp = child.sadb_protocol() == Protocol::Esp;
        let report = ChildReport {
            name: child.config.name.clone(),
            state: if child.is_replaced { "replaced" } else { "installed" }.to_owned(),
            spi_in: Spi(child.spi_in).to_string(),
            spi_out: Spi(child.spi_out).to_string(),
            protocol: if is_esp { "esp" } else { "ah" }.to_owned(),
            mode: if child.mode == Mode::Tunnel { "tunnel" } else { "transport" }.to_owned(),
            esn: child.agreement.esn(),
            proposal: child.agreement.to_string(),
            transforms: transforms(&child.agreement),
            around: child.around.as_deref().map(around),
            local_ts: texts(&child.policy.local),
            remote_ts: texts(&child.policy.remote),
            ..ChildReport::default()
        };
        let Some(Installed { id, inbound, outbound, worker, .. }) = self.children.installed(child.spi_in)
        else {
            return report;
        };
        let sa = sadb.sa(inbound).map(|(_, sa)| (sa.reqid, sa.udp.is_some(), sa.handling.born_secs));
        let (reqid, udp_encap, born_secs) = sa.unwrap_or_default();
        let age = u64::from(boot_secs().saturating_sub(born_secs));
        let life = u64::from(child.config.handling.lifetime.hard.secs);
        let (came, left) = (counters(sadb, inbound), counters(sadb, outbound));
        let until = |ms: u64| ms.saturating_sub(self.now_ms()) / 1000;
        ChildReport {
            id,
            reqid,
            worker,
            udp_encap,
            packets_in: came.packets,
            bytes_in: came.bytes,
            packets_out: left.packets,
            bytes_out: left.bytes,
            installed_secs: age,
            rekey_secs: Some(child.rekey_at_ms).filter(|ms| *ms < u64::MAX).map(until),
            life_secs: (life > 0).then(|| life.saturating_sub(age)),
            ..report
        }
    }
}

fn around(around: &Around) -> AroundReport {
    AroundReport {
        spi_in: Spi(around.spi_in).to_string(),
        spi_out: Spi(around.spi_out).to_string(),
        proposal: around.agreement.to_string(),
        transforms: transforms(&around.agreement),
    }
}

/// What the datapath has counted of an SA.
pub(super) fn counters(sadb: &Sadb, slot: SlotIndex) -> SaCounters {
    let generation = sadb.generation(slot);
    let record = sadb.runtime().sa(slot).filter(|record| Some(record.generation) == generation);
    record.map(|record| record.counters).unwrap_or_default()
}

fn transforms(agreement: &Agreement) -> Vec<TransformReport> {
    let all = agreement.transforms();
    all.map(|(kind, id, key_bits)| TransformReport { kind: kind.0, id, key_bits }).collect()
}
