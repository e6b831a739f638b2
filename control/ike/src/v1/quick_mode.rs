//! Quick mode (RFC 2409 §5.5): child SAs.
//!
//! ```text
//!  initiator                                     responder
//!  *HASH(1), SA, Ni, [KE], [IDci, IDcr] ──▶
//!                                      ◀── *HASH(2), SA, Nr, [KE], [IDci, IDcr], [N]
//!  *HASH(3) ──▶
//! ```
//!
//! The responder can open what comes from its answer on, and seals by the new SA from HASH(3) on. Who begins sends the first
//! message again until it is answered, and who answers the second one; the third is sent again when the second comes again.
//!
//! A child SA in the place of another is one for the same: nothing says so.
//!
//! Two proposals of one number, of AH and of ESP, make a bundle: packets are IP, AH and ESP, with one outer header for both in a tunnel
//! (RFC 2401 §4.3). Each has its SPIs and its keys, and both come and go together. Of ESP the mode is that of the child; AH is said to be
//! in transport mode around it, or, with a tunnel in it, in tunnel mode, as others call the same.

mod commit;
mod responder;

#[cfg(test)]
pub(super) use commit::COMMIT_MS;
pub(super) use commit::Committing;
pub(super) use responder::{Answering, Awaited};

use super::{
    doi::{self, Life},
    ike_sa::{IkeSa, Task, Then},
    keys::Iv,
    messages::{Message, Raw, is_hash},
    phase_1::NONCE,
    selector,
};
use crate::{
    child::{Around, ChildError, ChildSa, Install, Keyed},
    connection::Child,
    context::Context,
    crypto::{
        Secret,
        exchange::Initiator,
        keys::{Nonces, Role},
    },
    ike_sa::Phase,
    job::{Job, Outcome},
    kept::{Keep, Writer, keep},
    message::{
        ExchangeType, Identification,
        isakmp::{NotifyType, Payload},
    },
    output::{ChildChange, Event, Output},
    proposal::Agreement,
    retransmission::Open,
    traffic_selector::{Policy, TrafficSelectors},
    v2::channel::Dropped,
};
use std::sync::Arc;
use zeroize::Zeroizing;

const EXCHANGE: ExchangeType = ExchangeType::QUICK_MODE;

/// Quick modes of a peer under way, at most.
const MOST_AWAITED: usize = 8;

/// How long what was replaced stays, for packets and for HASH(3) that are under way.
const REPLACED_MS: u64 = 5000;

/// When a child SA that was not replaced is tried again.
const AGAIN_MS: u64 = 60_000;

/// A child SA that is to be asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub child: Arc<Child>,
    pub replaces: Option<u32>,
    offered: doi::Offered,
    policy: Policy,
    /// IDci and IDcr.
    ids: [Identification; 2],
}

impl doi::Spis {
    /// Of ours, as many as a child has.
    fn free(child: &Child, cx: &mut Context<'_>) -> Option<doi::Spis> {
        let own = (cx.child_spi)()?;
        let around = match child.around {
            Some(_) => Some((cx.child_spi)()?),
            None => None,
        };
        Some(doi::Spis { own, around })
    }
}

/// What we have asked for.
#[derive(Debug)]
pub(super) struct Asking {
    message_id: u32,
    iv: Iv,
    wish: Wish,
    pub(super) spis: doi::Spis,
    ni: Vec<u8>,
    private: Option<Initiator>,
    pub(super) open: Open,
}

impl Asking {
    /// The name of the child, and what it is to take the place of.
    pub fn what(&self) -> (&str, Option<u32>) {
        (&self.wish.child.name, self.wish.replaces)
    }
}

/// What was answered to us.
#[derive(Debug)]
pub(super) struct Answer {
    asking: Asking,
    /// What we have asked for as it was kept before that: until the child SA is there, it is as if nothing had been answered.
    pub asked: Zeroizing<Vec<u8>>,
    agreed: doi::Agreed,
    nr: Vec<u8>,
    digest: [u8; 32],
    iv: Iv,
    /// It is to be waited until the responder says that it has it.
    commits: bool,
}

/// What is agreed on for one.
struct Parts {
    child: Arc<Child>,
    agreed: doi::Agreed,
    policy: Policy,
    spis: doi::Spis,
}

impl IkeSa {
    /// The IV of a new exchange.
    pub(super) fn iv_of(&self, message_id: u32) -> Option<Iv> {
        Some(self.keys.as_ref()?.iv_of_exchange(self.last?, message_id))
    }

    /// A message ID that was not used yet.
    pub(super) fn new_message_id(&mut self, cx: &mut Context<'_>) -> u32 {
        loop {
            let id = u32::from_be_bytes(cx.random());
            if id != 0 && !self.message_ids.is_used(id) {
                self.use_message_id(id, cx);
                return id;
            }
        }
    }

    /// An exchange begins. Where no other can, another ISAKMP SA is to be in the place of this one.
    pub(super) fn use_message_id(&mut self, id: u32, cx: &Context<'_>) {
        if self.message_ids.add(id) {
            self.rekey_at_ms = self.rekey_at_ms.min(cx.now_ms);
        }
    }

    /// Asks for a child SA.
    pub(super) fn ask_child(&mut self, child: &Arc<Child>, replaces: Option<u32>, cx: &mut Context<'_>) {
        let offered = doi::Offered::of(child);
        let policy = match replaces.and_then(|old| self.children.iter().find(|c| c.spi_in == old)) {
            Some(old) => (*old.policy).clone(),
            None => {
                let [local, peer] = self.given.hosts(self.path.local.ip(), self.path.peer.ip());
                child.policy(&local, &peer)
            }
        };
        // Of all that is configured there is one pair in an SA.
        let pair = policy.pairs().next();
        let ids = pair.and_then(|(l, r)| Some(([selector::emit(&l)?, selector::emit(&r)?], l, r)));
        let (Some((ids, local, remote)), Some(offered)) = (ids, offered) else {
            let why =
                "nothing of it is of IKEv1: neither several ports nor algorithms without a number there"
                    .to_owned();
            return self.event(Event::ChildFailed(child.name.clone(), why), cx);
        };
        if child.around.is_some() && self.is_in_udp() {
            return self.child_failed(&child.name, &ChildError::AhInUdp, cx);
        }
        let policy =
            Policy { local: TrafficSelectors::new([local]), remote: TrafficSelectors::new([remote]) };
        let method = offered.key_exchange();
        let wish = Wish { child: child.clone(), replaces, offered, policy, ids };
        match method {
            Some(method) => self.after(Job::Generate(method), Then::QuickAsk(Box::new(wish)), cx),
            None => self.send_quick(wish, None, cx),
        }
    }

    /// Asks for one in the place of another.
    pub(super) fn ask_rekey_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        let old = self.children.iter_mut().find(|child| child.spi_in == spi_in && !child.is_replaced);
        let Some(old) = old else { return };
        if old.successor.is_some() {
            // It may come to nothing.
            old.rekey_at_ms = cx.now_ms + AGAIN_MS;
            return;
        }
        let config = old.config.clone();
        self.ask_child(&config, Some(spi_in), cx);
    }

    /// There is a private key.
    pub(super) fn quick_ask(&mut self, wish: Wish, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Generated(private, public) = outcome else { return };
        self.send_quick(wish, Some((private, public)), cx);
    }

    fn send_quick(&mut self, wish: Wish, key: Option<(Initiator, Vec<u8>)>, cx: &mut Context<'_>) {
        let replaced = self.children.iter_mut().find(|child| Some(child.spi_in) == wish.replaces);
        if let Some(old) = replaced.filter(|old| old.successor.is_some()) {
            // The peer was faster.
            old.rekey_at_ms = cx.now_ms + AGAIN_MS;
            return;
        }
        let Some(spis) = doi::Spis::free(&wish.child, cx) else {
            return self.child_failed(&wish.child.name.clone(), &ChildError::Full, cx);
        };
        let message_id = self.new_message_id(cx);
        let (Some(iv), ni) = (self.iv_of(message_id), cx.random::<NONCE>().to_vec()) else { return };
        let carried = (self.encapsulation(), wish.child.mode);
        let sa = doi::offer(&wish.offered, spis, carried, Life::of(&wish.child));
        let mut payloads = vec![Payload::SecurityAssociation(sa), Payload::Nonce(ni.clone())];
        let (private, public) = key.unzip();
        payloads.extend(public.map(Payload::KeyExchange));
        payloads.extend(wish.ids.iter().cloned().map(Payload::Identification));
        let (datagrams, iv) = self.hashed(EXCHANGE, (message_id, iv), &[], payloads);
        let open = self.opened(&datagrams, cx);
        self.send(datagrams, self.path, cx);
        self.asking = Some(Box::new(Asking { message_id, iv, wish, spis, ni, private, open }));
    }

    /// A message of quick mode came.
    pub(super) fn receive_quick(&mut self, raw: &Raw<'_>, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let id = raw.header.message_id;
        if self.phase == Phase::Connecting && self.last.is_some() {
            return Err(Dropped::Early);
        }
        if self.is_committing(id) {
            return self.receive_connected(raw, cx);
        }
        let fresh = self.iv_of(id).filter(|_| id != 0).ok_or(Dropped::MessageId(id))?;
        if let Some(asking) = self.asking.take_if(|asking| asking.message_id == id) {
            let message = self.open_sealed(raw, asking.iv);
            let checked = message.and_then(|message| {
                self.check_hash(id, &[&asking.ni], &message)?;
                Ok(message)
            });
            return match checked {
                Ok(message) => {
                    self.hear_peer(cx);
                    self.quick_answered(*asking, message, cx);
                    Ok(())
                }
                Err(dropped) => {
                    self.asking = Some(asking);
                    Err(dropped)
                }
            };
        }
        if let Some(at) = self.awaited.iter().position(|awaited| awaited.message_id == id) {
            let awaited = &self.awaited[at];
            let message = self.open_sealed(raw, awaited.iv)?;
            let keys = self.keys.as_ref().ok_or(Dropped::Sealing)?;
            // RFC 2409 §5.5: HASH(3)
            let hash = keys.hash(&[0], id, &[&awaited.nonces[0], &awaited.nonces[1]]);
            is_hash(&message.chain, &hash)?;
            self.hear_peer(cx);
            let awaited = self.awaited.remove(at);
            match message.next.filter(|_| awaited.commits) {
                Some(iv) => self.say_connected(&awaited, iv, message.digest, cx),
                None => self.note(message.digest),
            }
            self.child_known(awaited, cx);
            return Ok(());
        }
        // Of an exchange that is over, or of ours, it is a copy.
        if !self.message_ids.is_free(id) {
            return Err(Dropped::MessageId(id));
        }
        let message = self.open_sealed(raw, fresh)?;
        self.check_hash(id, &[], &message)?;
        if self.is_at_work(true) || self.awaited.len() >= MOST_AWAITED {
            // It comes again.
            return Err(Dropped::Exchange);
        }
        self.use_message_id(id, cx);
        self.hear_peer(cx);
        self.answer_quick(id, message, cx);
        Ok(())
    }

    /// The responder has answered.
    fn quick_answered(&mut self, mut asking: Asking, message: Message, cx: &mut Context<'_>) {
        let chain = &message.chain;
        let wish = &asking.wish;
        let (name, replaces) = (wish.child.name.clone(), wish.replaces);
        let accepted = (|| {
            let (Some(sa), Some(nr)) = (chain.security_association(), chain.nonce()) else {
                return Err(ChildError::Missing("SA or Nonce payload"));
            };
            let (encapsulation, mode) = (self.encapsulation(), wish.child.mode);
            let agreed = doi::accept(&wish.offered, sa, encapsulation, mode)?;
            let ids: Vec<_> = chain.identifications().take(3).collect();
            let is_same = match &ids[..] {
                [ci, cr] => {
                    [ci, cr].map(|id| selector::parse(id)) == wish.ids.each_ref().map(selector::parse)
                }
                // What is between the ends themselves needs none.
                [] => wish
                    .ids
                    .iter()
                    .all(|id| selector::parse(id).is_some_and(|s| s.addresses().0 == s.addresses().1)),
                _ => false,
            };
            if !is_same {
                return Err(ChildError::Widened);
            }
            Ok((agreed, nr.to_vec()))
        })();
        let (mut agreed, nr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.child_not_made(&name, replaces, &error, cx),
        };
        // RFC 2407 §4.6.3.1
        let told = chain.notifies().find(|notify| notify.kind == NotifyType::RESPONDER_LIFETIME);
        if let Some(life) = told.and_then(|notify| doi::life_of(&notify.data)) {
            agreed.life = agreed.life.and(life);
        }
        agreed.life = agreed.life.and(Life::of(&wish.child));
        let Some(iv) = message.next else { return };
        let mut asked = Writer::new();
        asking.keep(&mut asked);
        let (digest, commits, private) = (message.digest, message.commits, asking.private.take());
        let public = chain.key_exchange().map(<[u8]>::to_vec);
        let answer = Answer { asked: asked.finish(), agreed, nr, digest, iv, commits, asking };
        match (answer.agreed.agreement.key_exchange(), private, public) {
            (None, ..) => self.finish_quick(answer, None, cx),
            (Some(_), Some(private), Some(public)) => {
                self.after(Job::Finish(private, public), Then::QuickFinish(Box::new(answer)), cx);
            }
            _ => self.child_not_made(&name, replaces, &ChildError::Missing("KE payload"), cx),
        }
    }

    /// There is a secret.
    pub(super) fn quick_finish(&mut self, answer: Answer, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        match secret {
            Ok(secret) => self.finish_quick(answer, Some(&secret), cx),
            Err(error) => {
                let (name, replaces) = (answer.asking.wish.child.name.clone(), answer.asking.wish.replaces);
                self.child_not_made(&name, replaces, &ChildError::Exchange(error), cx);
            }
        }
    }

    /// The child SA is there, at both ends, unless the responder is still to say so.
    fn finish_quick(&mut self, answer: Answer, secret: Option<&Secret>, cx: &mut Context<'_>) {
        let Answer { asking, agreed, nr, digest, iv, commits, .. } = answer;
        let Asking { message_id, wish, spis, ni, .. } = asking;
        let Wish { child, replaces, policy, .. } = wish;
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let name = child.name.clone();
        let parts = Parts { child, agreed, policy, spis };
        let Some(install) = self.made(parts, Role::Initiator, secret, nonces, cx) else {
            return self.child_not_made(
                &name,
                replaces,
                &ChildError::Missing("SPI or transforms of a child SA"),
                cx,
            );
        };
        // Where another ISAKMP SA has the place of this one, there is nobody to say so any more.
        let commits = commits && self.phase == Phase::Established;
        let old = replaces.filter(|old| self.children.iter().any(|child| child.spi_in == *old));
        let up = self.put_child(Install { replaces: old, sends: !commits, ..install }, cx);
        // RFC 2409 §5.5: HASH(3)
        let Some(hash) = self.keys.as_ref().map(|keys| keys.hash(&[0], message_id, &[&ni, &nr])) else {
            return;
        };
        let (datagrams, iv) = self.sealed(EXCHANGE, message_id, iv, &[Payload::Hash(hash.bytes().to_vec())]);
        let open = self.opened(&datagrams, cx);
        self.answer(digest, datagrams, cx);
        match commits {
            true => self.await_commit(Committing::new((message_id, iv), spis.own, old, open, cx.now_ms)),
            false => self.child_made(spis.own, (up, old), cx),
        }
    }

    /// What leaves goes by a child SA that we have asked for, which may be in the place of one.
    fn child_made(&mut self, spi_in: u32, (up, old): (Event, Option<u32>), cx: &mut Context<'_>) {
        self.event(up, cx);
        if let Some(old) = old {
            self.later.push((cx.now_ms + REPLACED_MS, Task::DeleteChild(old)));
            if let Some(old) = self.children.iter_mut().find(|child| child.spi_in == old) {
                (old.is_replaced, old.rekey_at_ms) = (true, u64::MAX);
            }
        }
        // To the peer it has the place of all that were there when the peer was asked.
        let before: Vec<_> = self.same_as(spi_in).filter(|spi| *spi != spi_in).collect();
        before.into_iter().for_each(|spi| self.give_place(spi, spi_in, REPLACED_MS, cx));
    }

    /// The child SAs for the same as one, itself among them, that both ends have and none has the place of.
    fn same_as(&self, spi_in: u32) -> impl Iterator<Item = u32> {
        let of = self.children.iter().find(move |child| child.spi_in == spi_in);
        let all = of.into_iter().flat_map(|of| {
            self.children.iter().filter(|c| c.is_for_the_same(&of.config, &of.policy)).map(|c| c.spi_in)
        });
        all.filter(|spi| self.unknown_children().all(|unknown| unknown != *spi))
    }

    /// One that both ends have has the place of another.
    fn give_place(&mut self, old: u32, new: u32, delete_in_ms: u64, cx: &mut Context<'_>) {
        cx.out.push_back(Output::Child(ChildChange::Use(new)));
        self.later.push((cx.now_ms + delete_in_ms, Task::Retire(old)));
        self.children.iter_mut().filter(|c| c.spi_in == old).for_each(|c| c.successor = Some(new));
    }

    /// With its keys, for the datapath.
    fn made(
        &self,
        parts: Parts,
        role: Role,
        secret: Option<&Secret>,
        nonces: Nonces<'_>,
        cx: &mut Context<'_>,
    ) -> Option<Install> {
        let Parts { child, agreed, policy, spis } = parts;
        let doi::Agreed { agreement, around, life } = agreed;
        let keys = self.keys.as_ref()?;
        let keyed = |agreement: &Agreement, spi_in: u32| {
            let (spi_out, algorithm) = (agreement.child_spi()?, agreement.algorithm()?);
            let spis = match role {
                Role::Initiator => [spi_in, spi_out],
                Role::Responder => [spi_out, spi_in],
            };
            let made = keys.child((agreement.protocol(), algorithm), secret, nonces, spis);
            // RFC 2409 §5.5: only SPIs tell the keys of both directions apart.
            (spi_in != spi_out).then_some((spi_out, algorithm, made))
        };
        let (spi_in, (spi_out, algorithm, made)) = (spis.own, keyed(&agreement, spis.own)?);
        let around = match around.zip(spis.around) {
            Some((agreement, spi_in)) => {
                let (spi_out, algorithm, made) = keyed(&agreement, spi_in)?;
                Some((Around { agreement, spi_in, spi_out }, Keyed::new(algorithm, made, role)))
            }
            None => None,
        };
        let (around, around_keyed) = around.map(|(of, keyed)| (Box::new(of), Box::new(keyed))).unzip();
        let sa = ChildSa {
            mode: child.mode,
            config: child,
            agreement,
            policy: Arc::new(policy),
            spi_in,
            spi_out,
            around,
            resource: None,
            takes_padding: true,
            rekey_at_ms: u64::MAX,
            is_replaced: false,
            successor: None,
            ended_by: None,
        };
        let at = (cx.now_ms, u32::from_be_bytes(cx.random()));
        let mut install = sa.install((algorithm, made), role, self.place(), at);
        install.around = around_keyed;
        // It ends at the peer then.
        if let Some(secs) = life.secs {
            let before = secs.saturating_mul(1000) / 10 * 9;
            install.sa.rekey_at_ms = install.sa.rekey_at_ms.min(cx.now_ms.saturating_add(before));
        }
        Some(install)
    }

    pub(super) fn child_failed(&self, name: &str, error: &ChildError, cx: &mut Context<'_>) {
        self.event(Event::ChildFailed(name.to_owned(), error.to_string()), cx);
    }

    /// There is no child SA. What it was to replace goes on, and is tried again.
    pub(super) fn child_not_made(
        &mut self,
        name: &str,
        replaces: Option<u32>,
        error: &ChildError,
        cx: &mut Context<'_>,
    ) {
        self.child_failed(name, error, cx);
        if let Some(child) = self.children.iter_mut().find(|child| Some(child.spi_in) == replaces) {
            child.rekey_at_ms = cx.now_ms + AGAIN_MS;
        }
    }

    /// A child SA whose place the peer has given to another is deleted, if that is still there.
    pub(super) fn retire_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        let successor = self.children.iter().find(|child| child.spi_in == spi_in).and_then(|c| c.successor);
        match successor {
            Some(new) if self.children.iter().any(|child| child.spi_in == new) => {
                self.delete_child(spi_in, cx)
            }
            _ => {
                let stays =
                    self.children.iter_mut().filter(|child| child.spi_in == spi_in && !child.is_replaced);
                stays.for_each(|child| child.successor = None);
            }
        }
    }
}

keep!(Wish { child, replaces, offered, policy, ids });
keep!(Asking { message_id, iv, wish, spis, ni, private, open });
