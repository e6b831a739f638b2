//! Child SAs for each resource (RFC 9611): one more for each worker on the same selectors, so that no two workers share a
//! sequence number or a replay window.
//!
//! ```text
//!  who begins                                          who answers
//!  the first child SA, N(SA_RESOURCE_INFO)      ──▶
//!                                               ◀──    N(SA_RESOURCE_INFO): there may be more of it
//!  CREATE_CHILD_SA with N(SA_RESOURCE_INFO)(0)  ──▶
//!                                               ◀──    N(SA_RESOURCE_INFO), or N(TS_MAX_QUEUE): there are enough
//!  ... (1), (2)
//! ```
//!
//! The first is for any resource, and stays when the others go. One that takes the place of another has its resource.

use super::{
    child::ChildSa,
    context::Context,
    ike_sa::{IkeSa, Task},
};
use crate::{
    connection::Child,
    message::{Notify, NotifyType, Payload, Payloads},
    traffic_selector::Policy,
};
use std::sync::Arc;

/// Child SAs for resources that a peer may have of the same selectors, whatever workers we have.
const MOST: usize = 64;

/// What an end says of a child SA that there may be more of.
pub(super) fn notify(config: &Child, resource: Option<u32>) -> Option<Payload> {
    let data = resource.map_or(vec![], |resource| resource.to_be_bytes().to_vec());
    // RFC 9611 §5.1
    config.per_worker.then(|| Payload::Notify(Notify::new(NotifyType::SA_RESOURCE_INFO, &data)))
}

/// Whether there may be more child SAs of it, as the peer says.
pub(super) fn is_said(config: &Child, payloads: &Payloads) -> bool {
    config.per_worker && payloads.has_notify(NotifyType::SA_RESOURCE_INFO)
}

/// The resource that a peer says: a number, if it is one. What it is to the peer is nothing to us: a name to tell them apart
/// (RFC 9611 §5.1).
fn said(payloads: &Payloads) -> Option<u32> {
    let data = &payloads.notifies(NotifyType::SA_RESOURCE_INFO).next()?.data;
    (1..=4).contains(&data.len()).then(|| data.iter().fold(0, |n, octet| n << 8 | u32::from(*octet)))
}

/// Which a child SA is that a peer asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The first, or one like any other.
    First,
    /// For a resource.
    Further(u32),
    /// There are enough (RFC 9611 §5.2).
    TooMany,
}

/// Of child SAs that are there.
pub(super) fn place(children: &[ChildSa], config: &Child, policy: &Policy, payloads: &Payloads) -> Place {
    let is_like =
        |child: &&ChildSa| child.config.name == config.name && *child.policy == *policy && !child.is_replaced;
    let of = children.iter().filter(is_like);
    let (first, further): (Vec<_>, Vec<_>) = of.partition(|child| child.resource.is_none());
    match is_said(config, payloads) {
        true if first.is_empty() && further.is_empty() => Place::First,
        true if further.len() >= MOST => Place::TooMany,
        true => Place::Further(said(payloads).unwrap_or(further.len() as u32)),
        false => Place::First,
    }
}

impl IkeSa {
    /// The first child SA is there, and the peer takes more of it: those for each worker are asked for.
    pub(super) fn ask_further(&mut self, config: &Arc<Child>, cx: &Context<'_>) {
        let has = |n| {
            let mut of = self.children.iter().filter(|child| child.config.name == config.name);
            of.any(|child| child.resource == Some(n))
        };
        let workers = u32::from(cx.config.workers).min(MOST as u32);
        let further: Vec<_> = (0..workers).filter(|n| !has(*n)).collect();
        self.tasks.extend(further.into_iter().map(|n| Task::Further(config.clone(), n)));
    }

    /// There are enough of it.
    pub(super) fn ask_no_further(&mut self, name: &str) {
        let is_of = |task: &Task| matches!(task, Task::Further(config, _) if config.name == name);
        self.tasks.retain(|task| !is_of(task));
        self.later.retain(|(_, task)| !is_of(task));
    }
}
