//! The keys of IKE SAs for whoever looks at a network and may know: off unless somebody asks for it.

use super::{
    Secret,
    cipher::{Opener, Sealer},
    keys::{Role, Spis},
    transform::{Encryption, Integrity},
};
use crate::message::IkeSpi;

/// What messages are sealed with.
#[derive(Clone, PartialEq, Debug)]
pub enum KeyLog {
    /// Those of an IKE SA.
    V2(SealKeys),
    /// Those of an ISAKMP SA.
    V1 {
        /// CKY-I.
        initiator: IkeSpi,
        /// What encrypts, both ways (RFC 2409 §B).
        cipher: Secret,
    },
}

/// What the messages of an IKE SA are sealed with (RFC 7296 §2.14).
#[derive(Clone, PartialEq, Debug)]
pub struct SealKeys {
    /// Its SPIs.
    pub spis: Spis,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// What makes the ICV, if encryption does not.
    pub integrity: Option<Integrity>,
    /// SK_ei and SK_er, with the salt behind the key of an AEAD.
    pub e: [Secret; 2],
    /// SK_ai and SK_ar; empty with an AEAD.
    pub a: [Secret; 2],
}

impl SealKeys {
    /// Of what an end seals and opens with.
    pub(crate) fn new(role: Role, spis: Spis, sealer: &Sealer, opener: &Opener) -> SealKeys {
        let (ours, theirs) = (sealer.keys(), opener.keys());
        let (i, r) = if role == Role::Initiator { (ours, theirs) } else { (theirs, ours) };
        SealKeys {
            spis,
            encryption: i.encryption,
            integrity: i.integrity,
            e: [i.e.clone(), r.e.clone()],
            a: [i.a.clone(), r.a.clone()],
        }
    }
}
