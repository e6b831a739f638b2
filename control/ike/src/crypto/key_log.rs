//! The keys of an IKE SA for whoever looks at a network and may know: off unless somebody asks for it.

use super::{
    Secret,
    cipher::{Opener, Sealer},
    keys::{Role, Spis},
    transform::{Encryption, Integrity},
};

/// What the messages of an IKE SA are sealed with (RFC 7296 §2.14).
#[derive(Clone, Debug)]
pub struct KeyLog {
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

impl KeyLog {
    /// Of what an end seals and opens with.
    pub(crate) fn new(role: Role, spis: Spis, sealer: &Sealer, opener: &Opener) -> KeyLog {
        let (ours, theirs) = (sealer.keys(), opener.keys());
        let (i, r) = if role == Role::Initiator { (ours, theirs) } else { (theirs, ours) };
        KeyLog {
            spis,
            encryption: i.encryption,
            integrity: i.integrity,
            e: [i.e.clone(), r.e.clone()],
            a: [i.a.clone(), r.a.clone()],
        }
    }
}
