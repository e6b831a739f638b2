//! What is kept of an established ISAKMP SA ([`crate::kept`]), and how it goes on.
//!
//! What we have asked is kept with what it is about, private keys of key exchanges as well: it is sent again. While a job is done for
//! what came of its answer, it is kept as if no answer had come: the peer says it again. What the peer asks for is kept once it is
//! answered; until then it comes again, so that its message ID is as if it had not been used.
//!
//! What nobody answers is sent once: HASH(3), deletions, and whatever else is told. So what a change has to send is kept with it, and
//! sent again, as it is: whoever has it already knows it again.
//!
//! Half-open ones are not kept. One that was to take the place of this one is begun anew.

use super::{IkeSa, Path, Phase, Spis, Task, Then};
use crate::{
    context::Context,
    crypto::keys::Role,
    ike_sa::IkeSaId,
    kept::{Damaged, Keep, Reader, Writer, keep_enum},
    message::Header,
    output::{Datagram, Output},
    v1::message_ids::MessageIds,
};
use std::collections::VecDeque;

keep_enum!(Task {
    0 => Child(config),
    1 => RekeyChild(spi_in),
    2 => DeleteChild(spi_in),
    3 => Retire(spi_in),
    4 => Liveness,
    5 => Configure,
});

impl IkeSa {
    /// Keeps it, with what of `out` is to be sent. False if it is not established, or is gone.
    pub(crate) fn keep(&self, out: &VecDeque<Output>, to: &mut Writer) -> bool {
        if !matches!(self.phase, Phase::Established | Phase::Replaced) {
            return false;
        }
        // All of it, so that nothing is forgotten that is added.
        let IkeSa {
            id,
            connection,
            role,
            spis,
            path,
            answer_path: _,
            first_peer: _,
            abilities,
            nat,
            phase,
            phase_1: _,
            seen,
            fragments: _,
            open,
            suite,
            keys,
            last,
            ids,
            user,
            pending: _,
            transactions,
            mode_config,
            given,
            children,
            asking: _,
            committing,
            awaited,
            thens: _,
            tasks,
            later,
            liveness,
            message_ids,
            begun_ms,
            established_ms,
            rekey_at_ms,
            ends_at_ms,
            heard_ms,
            // Until it is established.
            deadline_ms: _,
            sequences: _,
            doubt: _,
            contacts: _,
            leases: _,
            contact_at: _,
            noted_due_ms: _,
            legacies: _,
            heir,
            anew,
            has_taken_place,
            expected: _,
            secret: _,
            wanted: _,
            unsent: _,
        } = self;
        id.keep(to);
        connection.keep(to);
        (*role, *spis).keep(to);
        path.keep(to);
        begun_ms.keep(to);
        abilities.keep(to);
        nat.keep(to);
        phase.keep(to);
        seen.keep(to);
        open.keep(to);
        suite.keep(to);
        keys.keep(to);
        last.keep(to);
        ids.keep(to);
        user.keep(to);
        transactions.keep(to);
        mode_config.keep(to);
        given.keep(to);
        children.keep(to);
        self.keep_asking(to);
        committing.keep(to);
        awaited.keep(to);
        self.begun().chain(tasks.iter().cloned()).collect::<VecDeque<_>>().keep(to);
        later.keep(to);
        liveness.keep(to);
        message_ids.keep(self.answering(), to);
        established_ms.keep(to);
        rekey_at_ms.keep(to);
        ends_at_ms.keep(to);
        heard_ms.keep(to);
        heir.keep(to);
        anew.keep(to);
        has_taken_place.keep(to);
        self.unsent(out).keep(to);
        true
    }

    /// Our quick mode.
    fn keep_asking(&self, to: &mut Writer) {
        match &self.thens[0] {
            Some(Then::QuickFinish(answer)) => {
                true.keep(to);
                to.octets(&answer.asked);
            }
            _ => self.asking.keep(to),
        }
    }

    /// What is about to be asked, when there is a key: it begins again.
    fn begun(&self) -> impl Iterator<Item = Task> {
        let task = match &self.thens[0] {
            Some(Then::QuickAsk(wish)) => Some(match wish.replaces {
                Some(spi_in) => Task::RekeyChild(spi_in),
                None => Task::Child(wish.child.clone()),
            }),
            _ => None,
        };
        task.into_iter()
    }

    /// The message ID of what the peer has asked and is not answered.
    fn answering(&self) -> Option<u32> {
        match &self.thens[1] {
            Some(Then::QuickAnswer(answering)) => Some(answering.message_id()),
            _ => None,
        }
    }

    /// What is to be sent of it, besides what is sent again until it is answered.
    fn unsent(&self, out: &VecDeque<Output>) -> Vec<Datagram> {
        let is_its = |datagram: &&Datagram| {
            Header::parse(&datagram.octets).is_ok_and(|(header, ..)| {
                let Header { initiator_spi: initiator, responder_spi: responder, .. } = header;
                self.spis == Spis { initiator, responder }
            })
        };
        let sent = out.iter().filter_map(|output| match output {
            Output::Send(datagram) => Some(datagram),
            _ => None,
        });
        let is_open = |datagram: &&Datagram| self.opens().any(|open| open.has(&datagram.octets));
        let unsent = self.unsent.iter().chain(sent.filter(is_its));
        unsent.filter(|datagram| !is_open(datagram)).cloned().collect()
    }

    /// Makes it again.
    pub(crate) fn kept(from: &mut Reader<'_>) -> Result<IkeSa, Damaged> {
        let (id, connection): (IkeSaId, _) = (Keep::kept(from)?, Keep::kept(from)?);
        let (of, path): ((Role, Spis), Path) = (Keep::kept(from)?, Keep::kept(from)?);
        let mut sa = IkeSa::new(id, connection, of, path, (Keep::kept(from)?, 0));
        sa.deadline_ms = u64::MAX;
        sa.abilities = Keep::kept(from)?;
        sa.nat = Keep::kept(from)?;
        sa.phase = Keep::kept(from)?;
        sa.seen = Keep::kept(from)?;
        sa.open = Keep::kept(from)?;
        sa.suite = Keep::kept(from)?;
        sa.keys = Keep::kept(from)?;
        sa.last = Keep::kept(from)?;
        sa.ids = Keep::kept(from)?;
        sa.user = Keep::kept(from)?;
        sa.transactions = Keep::kept(from)?;
        sa.mode_config = Keep::kept(from)?;
        sa.given = Keep::kept(from)?;
        sa.children = Keep::kept(from)?;
        sa.asking = Keep::kept(from)?;
        sa.committing = Keep::kept(from)?;
        sa.awaited = Keep::kept(from)?;
        sa.tasks = Keep::kept(from)?;
        sa.later = Keep::kept(from)?;
        sa.liveness = Keep::kept(from)?;
        sa.message_ids = MessageIds::kept(from)?;
        sa.established_ms = Keep::kept(from)?;
        sa.rekey_at_ms = Keep::kept(from)?;
        sa.ends_at_ms = Keep::kept(from)?;
        sa.heard_ms = Keep::kept(from)?;
        sa.heir = Keep::kept(from)?;
        sa.anew = Keep::kept(from)?;
        sa.has_taken_place = Keep::kept(from)?;
        sa.unsent = Keep::kept(from)?;
        let has_keys = sa.keys.is_some() && sa.last.is_some() && sa.suite.is_some();
        if has_keys { Ok(sa) } else { Err(Damaged("key")) }
    }

    /// The peer has the addresses that it had.
    pub(crate) fn hold_given(&mut self) {
        let who = self.applicant();
        self.given.hold_again(&mut self.leases, &who, self.id.0);
    }

    /// It goes on in another process: all is sent again, and nobody has waited for an answer.
    pub(crate) fn resume(&mut self, cx: &mut Context<'_>) {
        cx.out.extend(std::mem::take(&mut self.unsent).into_iter().map(Output::Send));
        self.liveness.since_ms = cx.now_ms;
        let opens = [
            self.open.as_mut(),
            self.asking.as_mut().map(|asking| &mut asking.open),
            self.liveness.open.as_mut(),
            self.transactions.ours.as_mut().map(|asked| &mut asked.open),
        ];
        let awaited = self.awaited.iter_mut().map(|awaited| &mut awaited.open);
        opens.into_iter().flatten().chain(awaited).for_each(|open| open.anew(cx.now_ms));
        self.committing.iter_mut().for_each(|committing| committing.anew(cx.now_ms));
        if self.anew.is_some() {
            self.rekey();
        }
        self.go_on(cx);
    }
}
