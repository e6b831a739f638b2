//! What IKE SAs of the same two know of each other's child SAs: a newer one that waits behind an older one is sent by as soon as
//! that is gone (RFC 7296 §2.8).

use super::Engine;
use crate::{
    contacts::Contacts,
    v2::{
        context::Context,
        ike_sa::{IkeSa, IkeSaId, Phase},
        output::{ChildChange, Output},
    },
};

/// Whether child SAs of an IKE SA are others now, or sent by, by what was told of it.
pub(super) fn has_changed<'a>(mut told: impl Iterator<Item = &'a Output>) -> bool {
    told.any(|output| matches!(output, Output::Child(_)))
}

/// Keeps contacts in step with an IKE SA. If child SAs of it are gone, the others of the same two.
pub(super) fn note<'a>(
    contacts: &mut Contacts,
    sa: &mut IkeSa,
    told: impl Iterator<Item = &'a Output> + Clone,
) -> Vec<IkeSaId> {
    let contact_at = (*sa.phase() == Phase::Established).then(|| sa.path().peer.ip());
    let is_new = contact_at != sa.contact_at || has_changed(told.clone());
    let Some(ids) = sa.contact_ids().filter(|_| is_new) else { return vec![] };
    match contact_at {
        Some(at) => contacts.add(ids, sa.id(), at, sa.carried().cloned().collect()),
        None => contacts.remove(ids, sa.id()),
    }
    let is_removal = |output: &Output| matches!(output, Output::Child(ChildChange::Remove(_)));
    let behind = if told.into_iter().any(is_removal) { contacts.others(ids, sa.id()) } else { vec![] };
    sa.contact_at = contact_at;
    behind
}

impl Engine {
    /// Child SAs of a connection are gone: those of these IKE SAs that have waited behind them are sent by. Of the same connection,
    /// before that is `told`: packets are for one or the other at any time. Another's has to wait until their policies are gone.
    pub(super) fn leave_to(
        &mut self,
        (connection, behind): (&str, Vec<IkeSaId>),
        told: usize,
        cx: &mut Context<'_>,
    ) {
        let is_of_it = |id: &IkeSaId| self.sa(*id).is_some_and(|sa| sa.connection.name == connection);
        let (own, others): (Vec<_>, Vec<_>) = behind.into_iter().partition(is_of_it);
        let before = cx.out.len();
        self.use_behind(own, cx);
        let uses = cx.out.len() - before;
        cx.out.make_contiguous()[told..].rotate_right(uses);
        self.use_behind(others, cx);
    }

    fn use_behind(&mut self, behind: Vec<IkeSaId>, cx: &mut Context<'_>) {
        for id in behind {
            if self.sa(id).is_some_and(|sa| sa.waiting_children().next().is_some()) {
                self.with(id, cx, IkeSa::use_uncarried);
            }
        }
    }
}
