//! Configuration payloads (RFC 7296 §2.19, §3.15): addresses for one end, of pools of the other.
//!
//! ```text
//!  initiator                                                 responder
//!  IKE_AUTH  CP(CFG_REQUEST: address, DNS), TSi: all  ──▶
//!                              ◀──  CP(CFG_REPLY: address, DNS, subnets ...), TSi: that address
//! ```

use super::{
    child::ChildError, contacts::Ids, context::Context, ike_sa::IkeSa, output::Event, rekey_ike::Legacy,
};
use crate::{
    connection::Connection,
    given::{self, Given},
    message::{Configuration, ConfigurationType, Payload, Payloads},
    pool::Applicant,
};
use std::net::IpAddr;

/// What `dynamic` stands for at both ends of a child SA.
#[derive(Debug)]
pub(super) struct Hosts {
    /// At our end.
    pub local: Vec<IpAddr>,
    /// At our end, as long as it has to be asked for: all of a family.
    pub asked: Vec<IpAddr>,
    /// At the peer's.
    pub peer: Vec<IpAddr>,
    /// Where our end and the peer's are to us, if they are behind a NAT.
    pub natted: [Option<IpAddr>; 2],
}

/// The attributes of a peer's payload of a kind.
fn said(payloads: &Payloads, kind: ConfigurationType) -> Option<&Configuration> {
    payloads.configuration().filter(|configuration| configuration.kind == kind)
}

impl IkeSa {
    /// What the ends have given to each other.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// What `dynamic` stands for.
    pub(super) fn hosts(&self) -> Hosts {
        let (here, there) = (self.path.local.ip(), self.path.peer.ip());
        let [local, peer] = self.given.hosts(here, there);
        let nat = self.nat.unwrap_or_default();
        let natted = [nat.is_here.then_some(here), nat.is_there.then_some(there)];
        Hosts { asked: local.clone(), local, peer, natted }
    }

    /// The same of an initiator that has still to ask for an address.
    pub(super) fn hosts_asking(&self) -> Hosts {
        let mut hosts = self.hosts();
        if !self.connection.vips.is_empty() {
            hosts.asked = self.connection.vips.iter().map(given::any_like).collect();
            hosts.asked.dedup();
        }
        hosts
    }

    /// What we want: what the one had in whose place it is, where any will do.
    fn vips(&self) -> Vec<IpAddr> {
        let before = self.reauthenticates.as_ref().map(|of| of.ours.clone()).unwrap_or_default();
        given::again(&self.connection.vips, before)
    }

    /// An initiator asks for addresses, and for servers of names.
    pub(super) fn configuration_request(&self) -> Option<Payload> {
        let vips = self.vips();
        let attributes = given::asking(&vips);
        let request = Configuration { kind: ConfigurationType::CFG_REQUEST, attributes };
        (!vips.is_empty()).then_some(Payload::Configuration(request))
    }

    /// An initiator hears what it is given.
    pub(super) fn learn_configuration(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let Some(reply) = said(payloads, ConfigurationType::CFG_REPLY) else { return };
        let is_here = |ip: &IpAddr| *ip == self.path.local.ip() || cx.config.here.contains(ip);
        if let Some(given) = Given::told(&self.vips(), is_here, &reply.attributes) {
            self.given = given;
            self.event(Event::Configured(self.given.ours.clone(), self.given.dns.clone()), cx);
        }
    }

    /// A responder gives addresses of its pools to who has proven to be `who`, between ends of these identities. What the peer is
    /// told; or why there is no child SA.
    pub(super) fn give(
        &mut self,
        connection: &Connection,
        (ids, who): (&Ids, &str),
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) -> (Option<Payload>, Result<(), ChildError>) {
        let request = said(payloads, ConfigurationType::CFG_REQUEST);
        let request = request.map_or(&[][..], |request| &request.attributes);
        let pools = cx.config.pools_of(connection);
        let asked = given::addresses(request);
        if asked.is_empty() || pools.is_empty() {
            let is_wrong = asked.is_empty() && !connection.pools.is_empty();
            return (None, if is_wrong { Err(ChildError::NotAsked) } else { Ok(()) });
        }
        let before: Vec<u64> = self.legacies.iter().filter_map(Legacy::superseded).map(|id| id.0).collect();
        // RFC 7296 §2.8.3: who authenticates anew, from where it is, has them as long as it has both.
        let beside = match connection.remote_auth.tells_who() {
            true => self.contacts.beside(&self.of_user(ids), self.id, self.path.peer.ip()),
            false => vec![],
        };
        let to = Applicant { who, holder: self.id.0, before: &before, beside: &beside };
        let Some(mut attributes) = self.given.give(&mut self.leases, &pools, &asked, to) else {
            return (None, Err(ChildError::NoAddress(connection.pools.join(", "))));
        };
        attributes.extend(given::supported(request));
        self.event(Event::Gave(who.to_owned(), self.given.named()), cx);
        let reply = Configuration { kind: ConfigurationType::CFG_REPLY, attributes };
        (Some(Payload::Configuration(reply)), Ok(()))
    }

    /// It has its addresses from another IKE SA, of this number.
    pub(super) fn inherit_given(&mut self, given: Given, from: u64) {
        given.pass_on(&mut self.leases, from, self.id.0);
        self.given = given;
    }

    /// Made again of what was kept, the peer has the addresses that it had.
    pub(super) fn hold_given(&mut self) {
        let who = self.eap_id.clone().or_else(|| Some(self.ids.as_ref()?.1.to_string()));
        self.given.hold_again(&mut self.leases, who.as_deref().unwrap_or_default(), self.id.0);
    }

    /// Nobody has these addresses any more.
    pub(super) fn give_back(&mut self) {
        self.given.give_back(&mut self.leases, self.id.0);
    }
}
