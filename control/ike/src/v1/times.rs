//! What an ISAKMP SA does because of the time.

use super::ike_sa::{IkeSa, Legacy, Task};
use crate::{
    child::{ChildError, EndedBy},
    closed::Closed,
    connection::{Connection, rekey_at_ms},
    context::Context,
    crypto::keys::Role,
    ike_sa::Phase,
    retransmission::{Late, Open},
};
use std::net::SocketAddr;

/// What is offered where nothing is configured: a day.
const DAY_SECS: u32 = 24 * 3600;

/// No peer has an SA for a shorter time: it would only be made again and again.
pub(super) const LEAST_SECS: u64 = 60;

/// How long it takes to make another, at most.
const MAKING_MS: u64 = 60_000;

impl IkeSa {
    /// When another is begun in its place, of what is configured; 0 is never.
    fn replaced_after_ms(&self) -> u64 {
        let Connection { rekey_ms, reauth_ms, .. } = *self.connection;
        [rekey_ms, reauth_ms].into_iter().filter(|ms| *ms > 0).min().unwrap_or(0)
    }

    /// For how long we offer to have it.
    pub(super) fn life_secs(&self) -> u32 {
        match self.replaced_after_ms() {
            0 => DAY_SECS,
            ms => ((ms + self.connection.over_ms) / 1000).try_into().unwrap_or(u32::MAX),
        }
    }

    /// It is established, and the initiator has it for so long.
    pub(super) fn live_for(&mut self, life_secs: Option<u64>, cx: &mut Context<'_>) {
        let random = u32::from_be_bytes(cx.random());
        let ours = u64::from(self.life_secs());
        let life_secs = life_secs.map_or(ours, |secs| secs.max(LEAST_SECS).min(ours));
        let life_ms = life_secs.saturating_mul(1000);
        let after_ms = match self.replaced_after_ms() {
            0 => 0,
            ms => ms.min(life_ms / 10 * 9).max(1),
        };
        self.rekey_at_ms = rekey_at_ms(cx.now_ms, after_ms, self.connection.rand_ms, random);
        self.ends_at_ms = match after_ms {
            0 => u64::MAX,
            _ => cx.now_ms.saturating_add(life_ms),
        };
        // Whoever has a user, or wants an address, is to begin the next one: it may be there for the gateway, or not.
        if self.asks_user() || !self.connection.pools.is_empty() {
            self.rekey_at_ms = self.ends_at_ms.saturating_sub(MAKING_MS).max(self.rekey_at_ms);
        }
    }

    /// What is sent again until it is answered.
    pub(super) fn opens(&self) -> impl Iterator<Item = &Open> {
        let opens = [
            self.open.as_ref(),
            self.asking.as_ref().map(|asking| &asking.open),
            self.committing.as_ref().map(|committing| &committing.open),
            self.liveness.open.as_ref(),
            self.transactions.ours.as_ref().map(|asked| &asked.open),
        ];
        opens.into_iter().flatten().chain(self.awaited.iter().map(|awaited| &awaited.open))
    }

    /// When [`IkeSa::tick`] has something to do.
    pub(crate) fn due_ms(&self) -> u64 {
        let due = self.opens().map(|open| open.due_ms).fold(u64::MAX, u64::min);
        let due = self.committing.as_ref().map_or(due, |committing| due.min(committing.until_ms));
        match self.phase {
            Phase::Connecting => due.min(self.deadline_ms),
            Phase::Established => {
                let later = self.later.iter().map(|(ms, _)| *ms);
                let rekeys = self.children.iter().map(|child| child.rekey_at_ms);
                let told_ms = self.mode_config.awaited_until_ms.unwrap_or(u64::MAX);
                let due = later.chain(rekeys).fold(due.min(told_ms), u64::min);
                let due = due.min(self.ends_at_ms).min(self.rekey_at_ms);
                if self.is_idle() { due.min(self.silent_at_ms()) } else { due }
            }
            Phase::Replaced => due.min(self.ends_at_ms),
            _ => due,
        }
    }

    /// When the peer is to be asked whether it is there.
    fn silent_at_ms(&self) -> u64 {
        match self.connection.dpd_ms {
            ms if ms > 0 && self.abilities.dpd && self.liveness.open.is_none() => {
                self.heard_ms.saturating_add(ms)
            }
            _ => u64::MAX,
        }
    }

    /// The newest packet of a child SA in UDP has come from there: a NAT has given the peer another place (RFC 3947 §4).
    pub(crate) fn follow_packet(&mut self, peer: SocketAddr, cx: &Context<'_>) {
        if self.phase == Phase::Established && self.nat.is_some_and(|nat| nat.is_there) {
            self.path.peer = peer;
            self.liveness.open.iter_mut().for_each(|open| open.anew(cx.now_ms));
        }
    }

    /// Sends again what is due.
    fn send_again(&self, open: &mut Open, cx: &mut Context<'_>) -> bool {
        let random = u8::from_be_bytes(cx.random());
        match open.late(&self.connection.retransmission, cx.now_ms, random) {
            Some(Late::Again(datagrams)) => self.send(datagrams, self.path, cx),
            Some(Late::GivenUp) => return true,
            None => {}
        }
        false
    }

    /// Whether the first messages are sent again from the beginning, as often as they were.
    fn tries_again(&mut self) -> bool {
        self.sequences += 1;
        let most = self.connection.keying_tries;
        let is_beginning = self.phase == Phase::Connecting && self.role == Role::Initiator;
        // What comes of a job is not for what is begun behind it.
        is_beginning && !self.is_at_work(false) && (most == 0 || self.sequences < most)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        if let Some(mut open) = self.open.take() {
            match self.send_again(&mut open, cx) {
                false => self.open = Some(open),
                true if self.tries_again() => self.begin_again(cx),
                true if self.phase == Phase::Connecting => {
                    let why = self.doubt.take().map_or(Closed::Silent, |why| *why);
                    return self.close(why, cx);
                }
                // The peer may have nothing to say.
                true => {}
            }
        }
        if let Some(mut asking) = self.asking.take() {
            match self.send_again(&mut asking.open, cx) {
                true => {
                    let (name, replaces) = asking.what();
                    self.child_not_made(name, replaces, &ChildError::Silent, cx);
                    self.ask_liveness(cx);
                }
                false => self.asking = Some(asking),
            }
        }
        if let Some(mut committing) = self.committing.take() {
            let is_given_up = self.send_again(&mut committing.open, cx) || committing.until_ms <= cx.now_ms;
            self.committing = Some(committing);
            if is_given_up {
                self.commit(cx);
            }
        }
        if let Some(mut asked) = self.transactions.ours.take() {
            if self.send_again(&mut asked.open, cx) {
                let why = self.doubt.take().map_or(Closed::Silent, |why| *why);
                return self.close(why, cx);
            }
            self.transactions.ours = Some(asked);
        }
        self.mode_config.awaited_until_ms.take_if(|until_ms| *until_ms <= cx.now_ms);
        if let Some(mut open) = self.liveness.open.take() {
            let timeout_ms = self.connection.ikev1.as_ref().map_or(0, |v1| v1.dpd_timeout_ms);
            let is_over = timeout_ms > 0 && cx.now_ms >= self.liveness.since_ms.saturating_add(timeout_ms);
            if self.send_again(&mut open, cx) || is_over {
                return self.close(Closed::Silent, cx);
            }
            self.liveness.open = Some(open);
        }
        let mut awaited = std::mem::take(&mut self.awaited);
        let unknown: Vec<_> = awaited
            .extract_if(.., |awaited| self.send_again(&mut awaited.open, cx))
            .map(|awaited| awaited.spi_in())
            .collect();
        self.awaited = awaited;
        unknown.into_iter().for_each(|spi_in| self.child_unknown(spi_in, cx));
        self.wake(cx);
        match self.phase {
            Phase::Connecting if self.deadline_ms <= cx.now_ms => {
                let why = self.doubt.take().map_or(Closed::HalfOpen, |why| *why);
                return self.close(why, cx);
            }
            Phase::Established | Phase::Replaced if self.ends_at_ms <= cx.now_ms => {
                self.children.iter_mut().for_each(|child| child.end(EndedBy::Age));
                return self.delete(Closed::ByUs, cx);
            }
            _ => {}
        }
        self.go_on(cx);
    }

    /// What has come to its time waits for its turn.
    fn wake(&mut self, cx: &mut Context<'_>) {
        let now_ms = cx.now_ms;
        let due = self.later.extract_if(.., |(ms, _)| *ms <= now_ms).map(|(_, task)| task);
        self.tasks.extend(due);
        if self.phase != Phase::Established {
            return;
        }
        if self.rekey_at_ms <= now_ms {
            self.rekey_at_ms = now_ms.saturating_add(MAKING_MS);
            self.legacies.push(Legacy::Anew);
        }
        for child in self.children.iter_mut().filter(|child| child.rekey_at_ms <= now_ms) {
            child.rekey_at_ms = u64::MAX;
            self.tasks.push_back(Task::RekeyChild(child.spi_in));
        }
        if self.is_idle() && self.silent_at_ms() <= now_ms {
            self.tasks.push_back(Task::Liveness);
        }
    }

    /// Another is to be begun in its place.
    pub(crate) fn rekey(&mut self) {
        if self.phase == Phase::Established {
            self.legacies.push(Legacy::Anew);
        }
    }
}
