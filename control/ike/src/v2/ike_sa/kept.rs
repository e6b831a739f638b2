//! What is kept of an established IKE SA ([`crate::kept`]), and how it goes on.
//!
//! A request of ours that is under way is kept with what it is about, private keys of key exchanges as well: it is sent again,
//! and whatever the peer has answered is taken. While a job is done for what came of its response, it is kept as if no response
//! had come: the peer has it still, and answers the same again (RFC 7296 §2.1).
//!
//! A request of the peer that is not answered is not kept: it comes again. So does what the peer has further keys to exchange
//! for, which may be forgotten (RFC 9370 §2.2.4).

use super::{Asked, IkeSa, Phase, Task, Then};
use crate::{
    crypto::keys::Role,
    kept::{Damaged, Keep, Reader, Writer, keep_enum},
    message::{Flags, Header},
    v2::{channel::Channel, context::Context, informational::Question},
};
use std::collections::VecDeque;
use zeroize::Zeroizing;

keep_enum!(Task {
    0 => Liveness,
    1 => DeleteChild(spi_in),
    2 => DeleteOffered(spi_in),
    3 => Delete,
    4 => Move,
    5 => Routability,
    6 => Child(wanted),
    7 => RekeyChild(spi_in),
    8 => Rekey,
    9 => Further(config, resource),
    10 => Redirect(gateway),
    11 => Use(spi_in),
    12 => Announce,
    13 => Go(gateway),
});

/// Of those that there are once an IKE SA is established; what else there is cannot be under way.
impl Keep for Asked {
    fn keep(&self, to: &mut Writer) {
        match self {
            Asked::Child(question) => {
                0u8.keep(to);
                question.keep(to);
            }
            Asked::Rekey(question) => {
                1u8.keep(to);
                question.keep(to);
            }
            Asked::FollowUp(question) => {
                2u8.keep(to);
                question.keep(to);
            }
            Asked::Informational(question) => {
                3u8.keep(to);
                question.keep(to);
            }
            Asked::Init(_) | Asked::Resume(_) | Asked::Intermediate(_) => u8::MAX.keep(to),
            Asked::Auth(_) | Asked::Eap(..) => u8::MAX.keep(to),
        }
    }

    fn kept(from: &mut Reader<'_>) -> Result<Asked, Damaged> {
        match u8::kept(from)? {
            0 => Keep::kept(from).map(Asked::Child),
            1 => Keep::kept(from).map(Asked::Rekey),
            2 => Keep::kept(from).map(Asked::FollowUp),
            3 => Keep::kept(from).map(Asked::Informational),
            _ => Err(Damaged("request")),
        }
    }
}

impl IkeSa {
    /// Keeps it. Nothing if it is not established, or is gone.
    pub(in crate::v2) fn keep(&self, to: &mut Writer) -> bool {
        let is_there = matches!(self.phase, Phase::Established | Phase::Replaced | Phase::Closing);
        if !is_there || self.established_ms.is_none() {
            return false;
        }
        // All of it, so that nothing is forgotten that is added.
        let IkeSa {
            id,
            connection,
            channel,
            path,
            first_peer: _,
            answer_path: _,
            nat,
            mobike,
            phase,
            init: _,
            puzzle_bits: _,
            unsolved: _,
            peer_hashes: _,
            agreement,
            keys,
            uses_ppk: _,
            has_ppk,
            serving: _,
            eap_id,
            ids,
            contacts: _,
            contact_at: _,
            leases: _,
            noted_due_ms: _,
            given,
            may_be_childless: _,
            wanted: _,
            children,
            tasks,
            later,
            rival,
            early_deletes,
            awaited: _,
            answered_child: _,
            forgotten,
            established_ms,
            rekey_at_ms,
            lifetime,
            origin,
            // Those that are replaced are counted anew.
            line: _,
            reauthenticates,
            reauthenticated_by: _, // that says it
            redirection,
            // A ticket is another way to the same.
            tickets: _,
            ticket: _,
            resumed: _,
            syncing: _,
            sequences: _,
            synced,
            rival_ike,
            awaits_estate,
            quiet_until_ms: _, // it is over
            is_deleted: _,     // then it goes on in vain until it is silent
            legacies: _,
            asked: _,
            thens: _,
            unanswered: _,
            early_response: _, // it comes again
            heard_ms,
            sent_ms: _,
            round_ms: _,
            deadline_ms,
            init_error: _,
        } = self;
        id.0.keep(to);
        connection.keep(to);
        channel.keep(to);
        path.keep(to);
        nat.keep(to);
        mobike.keep(to);
        phase.keep(to);
        agreement.keep(to);
        keys.keep(to);
        has_ppk.keep(to);
        eap_id.keep(to);
        ids.keep(to);
        given.keep(to);
        children.keep(to);
        self.begun().chain(tasks.iter().cloned()).collect::<VecDeque<_>>().keep(to);
        later.keep(to);
        rival.keep(to);
        early_deletes.keep(to);
        forgotten.keep(to);
        established_ms.keep(to);
        rekey_at_ms.keep(to);
        lifetime.keep(to);
        origin.keep(to);
        reauthenticates.keep(to);
        redirection.is_taken.keep(to);
        synced.keep(to);
        rival_ike.keep(to);
        awaits_estate.keep(to);
        heard_ms.keep(to);
        deadline_ms.keep(to);
        match &self.unanswered {
            Some(octets) => to.octets(octets),
            None => self.keep_asking(to),
        }
        true
    }

    /// What we ask.
    fn keep_asking(&self, to: &mut Writer) {
        self.channel.keep_asking(to);
        self.asked.keep(to);
    }

    /// What is about to be asked, when there is a key: it begins again.
    fn begun(&self) -> impl Iterator<Item = Task> {
        let then = self.thens[0].as_ref().filter(|_| self.unanswered.is_none());
        let task = match then {
            Some(Then::ChildAsk(asking)) => Some(match asking.replaces() {
                Some(spi_in) => Task::RekeyChild(spi_in),
                None => match asking.resource() {
                    Some(resource) => Task::Further(asking.wanted().config, resource),
                    None => Task::Child(asking.wanted()),
                },
            }),
            Some(Then::RekeyAsk(_)) => Some(Task::Rekey),
            Some(Then::Go(sent)) => sent.again(),
            _ => None,
        };
        task.into_iter()
    }

    /// Makes it again.
    pub(in crate::v2) fn kept(from: &mut Reader<'_>) -> Result<IkeSa, Damaged> {
        let id = super::IkeSaId(Keep::kept(from)?);
        let connection = Keep::kept(from)?;
        let channel = Channel::kept(from)?;
        let path = Keep::kept(from)?;
        let (role, spis): (Role, _) = (channel.role(), channel.spis());
        let mut sa = IkeSa::new(id, connection, (role, spis), path, (0, 0));
        sa.channel = channel;
        sa.nat = Keep::kept(from)?;
        sa.mobike = Keep::kept(from)?;
        sa.phase = Keep::kept(from)?;
        sa.agreement = Keep::kept(from)?;
        sa.keys = Keep::kept(from)?;
        sa.has_ppk = Keep::kept(from)?;
        sa.eap_id = Keep::kept(from)?;
        sa.ids = Keep::kept(from)?;
        sa.given = Keep::kept(from)?;
        sa.children = Keep::kept(from)?;
        sa.tasks = Keep::kept(from)?;
        sa.later = Keep::kept(from)?;
        sa.rival = Keep::kept(from)?;
        sa.early_deletes = Keep::kept(from)?;
        sa.forgotten = Keep::kept(from)?;
        sa.established_ms = Keep::kept(from)?;
        sa.rekey_at_ms = Keep::kept(from)?;
        sa.lifetime = Keep::kept(from)?;
        sa.origin = Keep::kept(from)?;
        sa.reauthenticates = Keep::kept(from)?;
        sa.redirection.is_taken = Keep::kept(from)?;
        sa.synced = Keep::kept(from)?;
        sa.rival_ike = Keep::kept(from)?;
        sa.awaits_estate = Keep::kept(from)?;
        sa.heard_ms = Keep::kept(from)?;
        sa.deadline_ms = Keep::kept(from)?;
        sa.channel.take_asking(from)?;
        sa.asked = Keep::kept(from)?;
        // RFC 7296 §2.3: of what is under way it is known what it is.
        match sa.channel.is_asking() == sa.asked.is_some() {
            true => Ok(sa),
            false => Err(Damaged("request")),
        }
    }

    /// Whether a job is being done for what came of a response.
    pub(super) fn follows_response(&self) -> bool {
        match &self.thens[0] {
            Some(Then::ChildAsk(asking)) => asking.is_asked_again(),
            Some(Then::RekeyAsk(asking)) => asking.is_asked_again(),
            Some(Then::ChildFinish(_) | Then::RekeyFinish(_)) => true,
            Some(Then::FollowUpAsk(_) | Then::FollowUpFinish(_)) => true,
            _ => false,
        }
    }

    /// It goes on in another process.
    pub(in crate::v2) fn resume(&mut self, cx: &mut Context<'_>) {
        self.channel.ask_anew(cx.now_ms);
        self.go_on(cx);
    }

    /// A message came: what we ask as it is before that, if it may be the response, and a job may follow.
    pub(super) fn before_response(&self, octets: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let is_response =
            Header::parse(octets).is_ok_and(|(header, ..)| header.flags.contains(Flags::RESPONSE));
        if is_response { self.as_asked() } else { None }
    }

    /// What we ask, if a job may follow its response.
    pub(super) fn as_asked(&self) -> Option<Zeroizing<Vec<u8>>> {
        let may_follow = matches!(self.asked, Some(Asked::Child(_) | Asked::Rekey(_) | Asked::FollowUp(_)));
        may_follow.then(|| {
            let mut to = Writer::new();
            self.keep_asking(&mut to);
            to.finish()
        })
    }
}

/// Nothing is refused that was established.
impl Keep for Question {
    fn keep(&self, to: &mut Writer) {
        match self {
            Question::Liveness => 0u8.keep(to),
            Question::DeleteChild(spi_in) => {
                1u8.keep(to);
                spi_in.keep(to);
            }
            Question::Delete => 2u8.keep(to),
            Question::Move(path) => {
                3u8.keep(to);
                path.keep(to);
            }
            Question::Routability(path, cookie) => {
                4u8.keep(to);
                path.keep(to);
                cookie.keep(to);
            }
            Question::Refused(_) => u8::MAX.keep(to),
        }
    }

    fn kept(from: &mut Reader<'_>) -> Result<Question, Damaged> {
        match u8::kept(from)? {
            0 => Ok(Question::Liveness),
            1 => Keep::kept(from).map(Question::DeleteChild),
            2 => Ok(Question::Delete),
            3 => Keep::kept(from).map(Question::Move),
            4 => Ok(Question::Routability(Keep::kept(from)?, Keep::kept(from)?)),
            _ => Err(Damaged("request")),
        }
    }
}
