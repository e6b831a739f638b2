//! Postquantum preshared keys (RFC 8784): who has broken the key exchange has not got the keys where one is mixed into them.
//!
//! ```text
//!  initiator                                              responder
//!  IKE_SA_INIT  N(USE_PPK)                         ──▶
//!                                                  ◀──    N(USE_PPK)                   it has some
//!  IKE_AUTH     AUTH with the PPK,
//!               N(PPK_IDENTITY), [N(NO_PPK_AUTH)]  ──▶
//!                                                  ◀──    AUTH with it, N(PPK_IDENTITY)    it has this one
//!                                                  ◀──    or AUTH without                  it has not, and may do without
//! ```
//!
//! NO_PPK_AUTH is AUTH without the PPK, of an initiator that may do without, too.

use super::{
    context::Context,
    ike_sa::{Closed, IkeSa},
};
use crate::{
    connection::Connection,
    crypto::{Secret, keys::Keys},
    message::{AuthMethod, Authentication, Notify, NotifyType, Payload, Payloads},
};

/// The type of an identity that both have configured (RFC 8784 §5.1).
const PPK_ID_FIXED: u8 = 2;

/// An end can use a PPK.
pub(super) fn use_notify() -> Payload {
    Payload::Notify(Notify::new(NotifyType::USE_PPK, &[]))
}

/// The responder has the PPK, too.
pub(super) fn taken_notify() -> Payload {
    Payload::Notify(Notify::new(NotifyType::PPK_IDENTITY, &[]))
}

impl IkeSa {
    /// An initiator's PPK.
    pub(super) fn ppk<'a>(&self, cx: &Context<'a>) -> Option<&'a Secret> {
        cx.config.ppk(self.connection.ppk_id.as_deref()?)
    }

    /// An initiator mixes it into its keys, if both can. Those without it, if the connection may do without.
    pub(super) fn mix_ppk(&mut self, cx: &Context<'_>) -> Option<Keys> {
        let ppk = self.ppk(cx).filter(|_| self.uses_ppk && self.resumed.is_none())?;
        let mixed = self.keys.as_ref()?.with_ppk(ppk.bytes());
        self.has_ppk = true;
        self.keys.replace(mixed).filter(|_| !self.connection.ppk_required)
    }

    /// What an initiator says of it: which it is, and its proof without it.
    pub(super) fn ppk_notifies(&self, without: Option<&Authentication>) -> Vec<Payload> {
        let says = self.has_ppk && self.resumed.is_none();
        let Some(id) = self.connection.ppk_id.as_ref().filter(|_| says) else { return vec![] };
        let named = Notify::new(NotifyType::PPK_IDENTITY, &[&[PPK_ID_FIXED], &id[..]].concat());
        // RFC 8784 §3: unless it is mandatory.
        let without = without.filter(|_| !self.connection.ppk_required);
        let without = without.map(|proof| Notify::new(NotifyType::NO_PPK_AUTH, &proof.data));
        [named].into_iter().chain(without).map(Payload::Notify).collect()
    }

    /// An initiator hears whether the responder has it; `plain` are the keys without.
    pub(super) fn settle_ppk(&mut self, plain: Option<Keys>, payloads: &Payloads) -> Result<(), Closed> {
        if self.has_ppk && self.resumed.is_none() && !payloads.has_notify(NotifyType::PPK_IDENTITY) {
            self.keys = Some(plain.ok_or(Closed::NoPpk)?);
            self.has_ppk = false;
        }
        Ok(())
    }

    /// A responder mixes it into its keys, if it has it. Else what the initiator proves without it, if that is enough.
    pub(super) fn answer_ppk(
        &mut self,
        connection: &Connection,
        payloads: &Payloads,
        method: AuthMethod,
        cx: &Context<'_>,
    ) -> Result<Option<Authentication>, Closed> {
        // RFC 5723 §5.1: SK_d of before has it.
        if self.resumed.is_some() {
            return Ok(None);
        }
        let named = payloads.notifies(NotifyType::PPK_IDENTITY).next().filter(|_| self.uses_ppk);
        let id = named.and_then(|notify| notify.data.strip_prefix(&[PPK_ID_FIXED]));
        let id = id.filter(|id| connection.ppk_id.as_ref().is_none_or(|ours| ours == id));
        if let (Some(ppk), Some(keys)) = (id.and_then(|id| cx.config.ppk(id)), &self.keys) {
            self.keys = Some(keys.with_ppk(ppk.bytes()));
            self.has_ppk = true;
            return Ok(None);
        }
        // RFC 8784 §3
        let without = payloads.notifies(NotifyType::NO_PPK_AUTH).next();
        match (named, without) {
            _ if connection.ppk_required => Err(Closed::NoPpk),
            (None, _) => Ok(None),
            (Some(_), Some(proof)) => Ok(Some(Authentication { method, data: proof.data.clone() })),
            (Some(_), None) => Err(Closed::NoPpk),
        }
    }
}
