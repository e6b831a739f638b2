//! What an IKE SA does because of the time.

use super::{Closed, IkeSa, Phase, Task};
use crate::{
    connection::{Connection, rekey_at_ms},
    v2::{context::Context, window::Late},
};

impl IkeSa {
    /// When [`IkeSa::tick`] has something to do.
    pub(in crate::v2) fn due_ms(&self) -> u64 {
        let mut due = self.channel.due_ms().unwrap_or(u64::MAX);
        due = self.syncing.as_ref().map_or(due, |syncing| due.min(syncing.again_ms()));
        match self.phase {
            Phase::Connecting => due = due.min(self.deadline_ms),
            Phase::Replaced if !self.channel.is_asking() => due = due.min(self.deadline_ms),
            Phase::Closing => due = due.min(self.deadline_ms),
            Phase::Established => {
                due = due.min(self.rekey_at_ms).min(self.lifetime.due_ms());
                due = Some(self.quiet_until_ms).filter(|ms| *ms > 0).map_or(due, |ms| due.min(ms));
                due = self.awaited.as_ref().map_or(due, |awaited| due.min(awaited.until_ms()));
                let later = self.later.iter().map(|(ms, _)| *ms);
                let rekeys = self.children.iter().map(|child| child.rekey_at_ms);
                due = later.chain(rekeys).fold(due, u64::min);
                if self.is_idle() {
                    due = due.min(self.silent_at_ms());
                }
            }
            _ => {}
        }
        due
    }

    /// What has come to its time waits for its turn.
    fn wake(&mut self, cx: &mut Context<'_>) {
        let now_ms = cx.now_ms;
        let due: Vec<_> = self.later.extract_if(.., |(ms, _)| *ms <= now_ms).map(|(_, task)| task).collect();
        for task in due {
            match task {
                // Nothing is asked for that, so it has no turn.
                Task::Use(spi_in) => self.use_child(spi_in, cx),
                task => self.tasks.push_back(task),
            }
        }
        self.tidy_later();
        if self.rekey_at_ms <= now_ms {
            self.rekey_at_ms = u64::MAX;
            self.tasks.push_back(Task::Rekey);
        }
        for child in self.children.iter_mut().filter(|child| child.rekey_at_ms <= now_ms) {
            child.rekey_at_ms = u64::MAX;
            self.tasks.push_back(Task::RekeyChild(child.spi_in));
        }
    }

    /// Most IKE SAs have nothing to do later, once their first child SA is sent by: they keep no room for it.
    pub(in crate::v2) fn tidy_later(&mut self) {
        if self.later.is_empty() {
            self.later = Vec::new();
        }
    }

    /// It is to be replaced after its time.
    pub(in crate::v2) fn rekey_later(&mut self, cx: &mut Context<'_>) {
        let Connection { rekey_ms, rand_ms, .. } = *self.connection;
        self.rekey_at_ms = rekey_at_ms(cx.now_ms, rekey_ms, rand_ms, u32::from_be_bytes(cx.random()));
    }

    /// When the peer is to be asked whether it is there.
    fn silent_at_ms(&self) -> u64 {
        match self.connection.dpd_ms {
            0 => u64::MAX,
            ms => self.heard_ms.saturating_add(ms),
        }
    }

    /// Whether the first messages are sent again from the beginning, as often as they were.
    fn tries_again(&mut self) -> bool {
        self.sequences += 1;
        let most = self.connection.keying_tries;
        self.phase == Phase::Connecting && (most == 0 || self.sequences < most)
    }

    /// Whether the peer is elsewhere by now: its name has other addresses than when it was begun.
    fn follows_peer(&mut self) -> bool {
        let (remote, peer) = (&self.connection.remote, self.path.peer.ip());
        if self.redirection.is_followed() || remote.fits(peer).is_some() {
            return false;
        }
        let now = remote.addresses().find(|ip| ip.is_ipv4() == peer.is_ipv4());
        now.inspect(|ip| self.path.peer.set_ip(*ip)).is_some()
    }

    /// Time has passed.
    pub(in crate::v2) fn tick(&mut self, cx: &mut Context<'_>) {
        match self.channel.late(cx.now_ms, cx.rng) {
            Some(Late::Again(datagrams)) => self.send(datagrams, self.path, cx),
            Some(Late::GivenUp) if self.tries_again() => match self.follows_peer() || self.keys.is_some() {
                false => self.channel.ask_anew(cx.now_ms),
                true => self.begin_again(cx),
            },
            Some(Late::GivenUp) => return self.close(Closed::Silent, cx),
            None => {}
        }
        if self.quiet_until_ms <= cx.now_ms {
            self.quiet_until_ms = 0;
        }
        self.sync_late(cx);
        self.wake(cx);
        self.outlive(cx);
        self.awaited.take_if(|awaited| awaited.until_ms() <= cx.now_ms);
        match self.phase {
            Phase::Connecting if self.deadline_ms <= cx.now_ms => {
                let why = self.init_error.take().map_or(Closed::HalfOpen, |why| *why);
                self.close(why, cx);
            }
            Phase::Replaced if self.deadline_ms <= cx.now_ms && !self.channel.is_asking() => {
                self.begin_delete(cx)
            }
            Phase::Closing if self.deadline_ms <= cx.now_ms => return self.close(Closed::ByUs, cx),
            Phase::Established if self.is_idle() && self.silent_at_ms() <= cx.now_ms => {
                self.tasks.push_back(Task::Liveness);
            }
            _ => {}
        }
        self.go_on(cx);
    }
}
