//! Mode config (draft-dukes-ike-mode-cfg-02): addresses for one end, of pools of the other, before there are child SAs.
//!
//! ```text
//!  pull    client  REQUEST: address, DNS ──▶  gateway      push    gateway  SET: address, DNS ──▶  client
//!                  ◀── REPLY: address, DNS                                  ◀── ACK
//! ```
//!
//! An heir has the addresses of the ISAKMP SA whose place it takes; where it is asked again, it says the same.

use super::{
    ike_sa::{IkeSa, Task},
    transaction::Answer,
};
use crate::{
    child::ChildError,
    context::Context,
    given::{self, Given},
    ike_sa::Phase,
    message::{
        Attribute, ConfigurationAttribute, ConfigurationAttributeType as Kind,
        isakmp::{Attributes, AttributesType},
    },
    output::Event,
    pool::Applicant,
};
use std::net::IpAddr;

/// Octets of an address of IPv6: there is no prefix behind it here.
const V6: usize = 16;

/// What has been asked and told.
#[derive(Debug, Default)]
pub(super) struct ModeConfig {
    /// What the one had in whose place this is begun: it is asked for again.
    pub before: Vec<IpAddr>,
    /// Until when we wait to be told.
    pub awaited_until_ms: Option<u64>,
    /// The peer was given nothing, though it wants something.
    is_left_out: bool,
}

/// Attributes as they are here.
fn in_v1(mut all: Vec<ConfigurationAttribute>) -> Vec<ConfigurationAttribute> {
    let of_v6 = all.iter_mut().filter(|attribute| attribute.kind == Kind::INTERNAL_IP6_ADDRESS);
    of_v6.for_each(|attribute| attribute.value.truncate(V6));
    all
}

fn attributes(all: Vec<ConfigurationAttribute>) -> Vec<Attribute> {
    std::mem::take(&mut Attributes::of_configuration(AttributesType::default(), 0, all).all)
}

impl IkeSa {
    /// Both ends are authenticated: who wants an address asks for it, or waits for it, and who gives one may tell it.
    pub(super) fn begin_configuration(&mut self, cx: &Context<'_>) {
        let is_pushed = self.connection.ikev1.as_ref().is_some_and(|v1| v1.pushes);
        let (wants, gives) = (!self.connection.vips.is_empty(), !self.connection.pools.is_empty());
        match (wants, gives, is_pushed) {
            (true, _, true) => self.mode_config.awaited_until_ms = Some(cx.now_ms + cx.config.half_open_ms),
            (true, _, false) => self.tasks.push_front(Task::Configure),
            // Not before it has what the one had in whose place it is.
            (false, true, true) => self.later.push((cx.now_ms, Task::Configure)),
            _ => {}
        }
    }

    /// It is begun in the place of one that was given these.
    pub(crate) fn ask_again_for(&mut self, before: Vec<IpAddr>) {
        self.mode_config.before = before;
    }

    /// Asks for addresses, or tells them.
    pub(super) fn configure(&mut self, cx: &mut Context<'_>) {
        let (kind, all) = match self.connection.vips.is_empty() {
            false => (AttributesType::ISAKMP_CFG_REQUEST, given::asking(&self.vips())),
            true => {
                let pools = cx.config.pools_of(&self.connection);
                let mut families: Vec<_> = pools.iter().map(|pool| given::any_like(&pool.first)).collect();
                families.sort_unstable();
                families.dedup();
                (AttributesType::ISAKMP_CFG_SET, self.give_like(families, cx))
            }
        };
        if !all.is_empty() {
            self.transact(Attributes::of_configuration(kind, 0, in_v1(all)), cx);
        }
    }

    /// What we want: what the one before had, where any will do.
    fn vips(&self) -> Vec<IpAddr> {
        given::again(&self.connection.vips, self.mode_config.before.clone())
    }

    /// We hear what we are given; what of it we take.
    pub(super) fn learn_configuration(
        &mut self,
        said: &Attributes,
        cx: &mut Context<'_>,
    ) -> Vec<ConfigurationAttribute> {
        let all = said.configuration();
        let is_here = |ip: &IpAddr| *ip == self.path.local.ip() || cx.config.here.contains(ip);
        let Some(told) = Given::told(&self.vips(), is_here, &all) else { return vec![] };
        (self.given.ours, self.given.dns) = (told.ours, told.dns);
        self.event(Event::Configured(self.given.ours.clone(), self.given.dns.clone()), cx);
        let is_taken = |attribute: &ConfigurationAttribute| {
            let address = attribute.address();
            address.is_some_and(|ip| self.given.ours.contains(&ip) || self.given.dns.contains(&ip))
        };
        all.into_iter().filter(is_taken).map(|taken| ConfigurationAttribute::asking(taken.kind)).collect()
    }

    /// We are told addresses, if it is the peer's turn to.
    pub(super) fn be_told(&mut self, set: &Attributes, cx: &mut Context<'_>) -> Option<Answer> {
        if self.phase != Phase::Established {
            return None;
        }
        let taken = self.learn_configuration(set, cx);
        self.mode_config.awaited_until_ms = None;
        Some(Answer { all: attributes(taken), then: None })
    }

    /// The peer asks for addresses, if it is its turn to.
    pub(super) fn give(&mut self, request: &Attributes, cx: &mut Context<'_>) -> Option<Answer> {
        if self.phase != Phase::Established {
            return None;
        }
        let request = request.configuration();
        let mut all = self.give_like(given::addresses(&request), cx);
        let has = |kind, all: &[ConfigurationAttribute]| all.iter().any(|attribute| attribute.kind == kind);
        let (address, netmask) = (Kind::INTERNAL_IP4_ADDRESS, Kind::INTERNAL_IP4_NETMASK);
        if has(netmask, &request) && has(address, &all) && !has(netmask, &all) {
            all.push(ConfigurationAttribute::of_address(netmask, [u8::MAX; 4].into()));
        }
        all.extend(given::supported(&request));
        Some(Answer { all: attributes(in_v1(all)), then: None })
    }

    /// Who addresses are given to.
    pub(super) fn applicant(&self) -> String {
        self.user.as_ref().map_or_else(|| self.peer_name(), |user| user.name.clone())
    }

    /// Gives addresses like these; what the peer has is said again.
    fn give_like(&mut self, mut asked: Vec<IpAddr>, cx: &mut Context<'_>) -> Vec<ConfigurationAttribute> {
        for lease in &self.given.theirs {
            let like = asked.iter().position(|ip| ip.is_ipv4() == lease.address.is_ipv4());
            like.into_iter().for_each(|at| _ = asked.remove(at));
        }
        let pools = cx.config.pools_of(&self.connection);
        let who = self.applicant();
        let to = Applicant { who: &who, holder: self.id.0, before: &[], beside: &[] };
        let had = self.given.theirs.len();
        let told = self.given.give(&mut self.leases, &pools, &asked, to);
        if self.given.theirs.len() > had {
            self.event(Event::Gave(who, self.given.named()), cx);
        }
        self.mode_config.is_left_out = told.is_none();
        told.unwrap_or_default()
    }

    /// Whether the peer has the addresses that it must have for child SAs.
    pub(super) fn has_addresses(&self) -> Result<(), ChildError> {
        match (self.connection.pools.is_empty(), self.given.theirs.is_empty()) {
            (false, true) if self.mode_config.is_left_out => {
                Err(ChildError::NoAddress(self.connection.pools.join(", ")))
            }
            (false, true) => Err(ChildError::NotAsked),
            _ => Ok(()),
        }
    }
}

crate::kept::keep!(ModeConfig { before, awaited_until_ms, is_left_out });
