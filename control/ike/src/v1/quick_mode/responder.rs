//! What the responder of a quick mode does: it agrees, makes the child SA, and waits for the third message.

use super::{
    super::{
        doi::{self, Life},
        ike_sa::{IkeSa, Task, Then},
        keys::Iv,
        messages::Message,
        phase_1::NONCE,
        selector,
    },
    EXCHANGE, Parts, REPLACED_MS,
};
use crate::{
    child::{ChildError, Install},
    connection::Child,
    context::Context,
    crypto::{
        Secret,
        keys::{Nonces, Role},
        transform::KeyExchange as Method,
    },
    ike_sa::Phase,
    job::{Job, Outcome},
    kept::keep,
    message::{
        Flags, Identification, Protocol,
        isakmp::{Notify, NotifyType, Payload, SecurityAssociation},
    },
    output::{ChildChange, Output},
    retransmission::Open,
    traffic_selector::{self, Policy, TrafficSelectors},
};
use std::sync::Arc;

/// Child SAs of an ISAKMP SA, at most.
const MOST_CHILDREN: usize = 256;

/// What the peer has asked for.
#[derive(Debug)]
pub(in crate::v1) struct Answering {
    message_id: u32,
    iv: Iv,
    digest: [u8; 32],
    child: Arc<Child>,
    agreed: doi::Agreed,
    sa: SecurityAssociation,
    policy: Policy,
    /// IDci and IDcr, if there are any.
    ids: Vec<Identification>,
    ni: Vec<u8>,
    /// The peer is to be told when we have its third message.
    commits: bool,
    /// There are no further exchanges in it.
    method: Option<Method>,
}

/// A child SA that the peer has still to know of.
#[derive(Debug)]
pub(in crate::v1) struct Awaited {
    pub(super) message_id: u32,
    pub(super) iv: Iv,
    pub(super) nonces: [Vec<u8>; 2],
    spi_in: u32,
    replaces: Option<u32>,
    pub(super) commits: bool,
    pub(in crate::v1) open: Open,
}

impl Answering {
    /// That of the exchange.
    pub fn message_id(&self) -> u32 {
        self.message_id
    }
}

impl Awaited {
    /// Our SPI.
    pub fn spi_in(&self) -> u32 {
        self.spi_in
    }
}

/// That of the peer.
type PublicValue = (Method, Vec<u8>);

impl IkeSa {
    /// The peer asks for a child SA.
    pub(super) fn answer_quick(&mut self, message_id: u32, message: Message, cx: &mut Context<'_>) {
        match self.agree(message_id, &message) {
            Ok((answering, None)) => self.finish_answer(answering, None, cx),
            Ok((answering, Some((method, public)))) => {
                self.after(Job::Respond(method, public), Then::QuickAnswer(Box::new(answering)), cx);
            }
            Err(error) => self.refuse_child(message.digest, &error, cx),
        }
    }

    /// There is none, which the peer is told.
    fn refuse_child(&mut self, digest: [u8; 32], error: &ChildError, cx: &mut Context<'_>) {
        let kind = match error {
            ChildError::Selectors { .. } => NotifyType::INVALID_ID_INFORMATION,
            ChildError::Missing(_) => NotifyType::PAYLOAD_MALFORMED,
            ChildError::Exchange(_) => NotifyType::INVALID_KEY_INFORMATION,
            _ => NotifyType::NO_PROPOSAL_CHOSEN,
        };
        let notify = Notify { protocol: Protocol::ESP, spi: vec![], kind, data: vec![] };
        let datagrams = self.informational(vec![Payload::Notify(notify)], cx);
        self.answer(digest, datagrams, cx);
        self.child_failed(self.connection.name_of_children(), error, cx);
    }

    /// What is agreed on, of what the peer asks for.
    fn agree(
        &self,
        message_id: u32,
        message: &Message,
    ) -> Result<(Answering, Option<PublicValue>), ChildError> {
        let chain = &message.chain;
        let (Some(offered), Some(ni), Some(iv)) = (chain.security_association(), chain.nonce(), message.next)
        else {
            return Err(ChildError::Missing("SA or Nonce payload"));
        };
        // What is under one whose place another has goes on under that one, and counts there.
        if self.children.len() >= MOST_CHILDREN || self.phase != Phase::Established {
            return Err(ChildError::Full);
        }
        self.has_addresses()?;
        let (ours, theirs) = (self.path.local.ip(), self.path.peer.ip());
        let [local_hosts, peer_hosts] = self.given.hosts(ours, theirs);
        let ids: Vec<_> = chain.identifications().take(3).cloned().collect();
        let of = |address| traffic_selector::TrafficSelector::between(address, address);
        // RFC 2409 §5.5: without identities, it is between the ends themselves.
        let asked = match &ids[..] {
            [] => of(theirs).zip(of(ours)),
            [ci, cr] => selector::parse(ci).zip(selector::parse(cr)),
            _ => None,
        };
        let (remote, local) = asked.ok_or(ChildError::Missing("IDci or IDcr payload that is a selector"))?;
        let (tsi, tsr) = (TrafficSelectors::new([remote]), TrafficSelectors::new([local]));
        let selectors = || ChildError::Selectors {
            local: tsr.to_string(),
            remote: tsi.to_string(),
            ours: self
                .connection
                .children
                .iter()
                .take(8)
                .map(|c| format!("'{}'", c.name))
                .collect::<Vec<_>>()
                .join(", "),
        };
        // All of it, or nothing: it cannot be narrowed.
        let fitting = |child: &&Arc<Child>| {
            let narrowed = traffic_selector::narrow(&[child.policy(&local_hosts, &peer_hosts)], &tsi, &tsr);
            narrowed.is_some_and(|n| n.accepted.local == tsr && n.accepted.remote == tsi)
        };
        let mut children = self.connection.children.iter().filter(fitting).peekable();
        children.peek().ok_or_else(selectors)?;
        let order = self.connection.order;
        let found = children
            .find_map(|child| Some((child, doi::select(child, offered, self.encapsulation(), order)?)));
        let (child, (agreed, sa)) = found.ok_or_else(|| ChildError::Proposals {
            offered: format!("{} proposals", offered.proposals.len()),
            ours: self
                .connection
                .children
                .iter()
                .take(8)
                .map(|c| match &c.around {
                    Some(around) => format!("{} in {around}", c.proposals),
                    None => c.proposals.to_string(),
                })
                .collect::<Vec<_>>()
                .join("; "),
        })?;
        let method = agreed.agreement.key_exchange();
        let key = match (method, chain.key_exchange()) {
            (Some(method), Some(public)) => Some((method, public.to_vec())),
            (Some(_), None) => return Err(ChildError::Missing("KE payload")),
            (None, _) => None,
        };
        let answering = Answering {
            message_id,
            iv,
            digest: message.digest,
            child: child.clone(),
            agreed,
            sa,
            policy: Policy { local: tsr, remote: tsi },
            ids,
            ni: ni.to_vec(),
            commits: message.commits,
            method,
        };
        Ok((answering, key))
    }

    /// There is a public value and a secret.
    pub(in crate::v1) fn quick_answer(
        &mut self,
        answering: Answering,
        outcome: Outcome,
        cx: &mut Context<'_>,
    ) {
        let Outcome::Responded(responded) = outcome else { return };
        match responded {
            Ok(responded) => self.finish_answer(answering, Some(responded), cx),
            Err(error) => self.refuse_child(answering.digest, &ChildError::Exchange(error), cx),
        }
    }

    fn finish_answer(&mut self, answering: Answering, key: Option<(Vec<u8>, Secret)>, cx: &mut Context<'_>) {
        let Answering { message_id, iv, digest, child, mut agreed, mut sa, policy, ids, ni, commits, method } =
            answering;
        let of_peer = [Some(&agreed.agreement), agreed.around.as_ref()].map(|of| of?.child_spi());
        let is_other = |spis: &doi::Spis| !of_peer.iter().flatten().any(|spi| spis.has(*spi));
        // Others than the peer's: only SPIs tell the keys of both directions apart.
        let spis = doi::Spis::free(&child, cx).filter(is_other).or_else(|| doi::Spis::free(&child, cx));
        let Some(spis) = spis else { return self.refuse_child(digest, &ChildError::Full, cx) };
        let nr = cx.random::<NONCE>().to_vec();
        let (public, secret) = key.unzip();
        debug_assert_eq!(method.is_some(), public.is_some());
        for proposal in &mut sa.proposals {
            proposal.spi = spis.of(proposal.protocol).to_be_bytes().to_vec();
        }
        let protocols: Vec<_> = sa.proposals.iter().map(|proposal| proposal.protocol).collect();
        let mut payloads = vec![Payload::SecurityAssociation(sa), Payload::Nonce(nr.clone())];
        payloads.extend(public.map(Payload::KeyExchange));
        payloads.extend(ids.into_iter().map(Payload::Identification));
        // RFC 2407 §4.6.3.1: what we have is shorter.
        let ours = Life::of(&child);
        let both = agreed.life.and(ours);
        if both != agreed.life {
            payloads.extend(protocols.into_iter().map(|protocol| {
                let (spi, data) = (spis.of(protocol).to_be_bytes().to_vec(), doi::life_octets(both));
                Payload::Notify(Notify { protocol, spi, kind: NotifyType::RESPONDER_LIFETIME, data })
            }));
        }
        agreed.life = both;
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let old = self.elder(&child, &policy);
        let parts = Parts { child, agreed, policy, spis };
        let Some(install) = self.made(parts, Role::Responder, secret.as_ref(), nonces, cx) else {
            return self.refuse_child(digest, &ChildError::Missing("SPI or transforms of a child SA"), cx);
        };
        // Whoever has it of both ends is the one that says when it is over: we have it, too.
        let flags = if commits { Flags::COMMIT } else { Flags::default() };
        let (datagrams, iv) = self.hashed_with(flags, EXCHANGE, (message_id, iv), &[&ni], payloads);
        self.put_child(Install { replaces: old, sends: false, ..install }, cx);
        let open = self.opened(&datagrams, cx);
        self.answer(digest, datagrams, cx);
        let spi_in = spis.own;
        let nonces = [ni, nr];
        self.awaited.push(Awaited { message_id, iv, nonces, spi_in, replaces: old, commits, open });
        if let Some(old) = self.children.iter_mut().find(|child| Some(child.spi_in) == old) {
            old.successor = Some(spi_in);
        }
    }

    /// The child SA that one is in the place of, which nobody says: one for the same.
    fn elder(&self, child: &Arc<Child>, policy: &Policy) -> Option<u32> {
        self.children.iter().find(|c| c.is_for_the_same(child, policy)).map(|c| c.spi_in)
    }

    /// The peer has the child SA, too: what leaves goes by it.
    pub(super) fn child_known(&mut self, awaited: Awaited, cx: &mut Context<'_>) {
        let Awaited { spi_in, replaces, .. } = awaited;
        if let Some(child) = self.children.iter().find(|child| child.spi_in == spi_in) {
            cx.out.push_back(Output::Child(ChildChange::Use(spi_in)));
            self.event(child.is_up(replaces), cx);
        }
        // The peer is to delete what it was in the place of, and some leave that to its lifetime.
        for old in self.children.iter().filter(|child| child.successor == Some(spi_in)) {
            self.later.push((cx.now_ms + 2 * REPLACED_MS, Task::Retire(old.spi_in)));
        }
        // Both ends may have asked for the same at once, and both have both then. That with the lowest SPI goes, as both know. It goes
        // later than what is known to be replaced: where the peer has seen one come behind the other, that one stays.
        let mut both: Vec<_> = self.same_as(spi_in).collect();
        let lowest = |spi: &u32| {
            self.children.iter().find(|c| c.spi_in == *spi).map(|child| child.spi_in.min(child.spi_out))
        };
        both.sort_by_key(lowest);
        if let Some(winner) = both.pop() {
            both.into_iter().for_each(|loser| self.give_place(loser, winner, 3 * REPLACED_MS, cx));
        }
    }

    /// The peer does not say that it has a child SA: it is none.
    pub(in crate::v1) fn child_unknown(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        let Some(at) = self.children.iter().position(|child| child.spi_in == spi_in) else { return };
        let name = self.children[at].config.name.clone();
        for old in self.children.iter_mut().filter(|child| child.successor == Some(spi_in)) {
            old.successor = None;
        }
        self.child_failed(&name, &ChildError::Missing("third message"), cx);
        self.delete_child(spi_in, cx);
    }
}

keep!(Awaited { message_id, iv, nonces, spi_in, replaces, commits, open });
