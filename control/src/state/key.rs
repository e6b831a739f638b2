//! A key that outlives the process, and not the machine's run: in the kernel's keyring of the user, where it is never swapped
//! out, and in no file (keyrings(7)).

use linux_keyutils::{KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use portcullis_ike::crypto::Secret;
use thiserror::Error;

const OCTETS: usize = 32;

/// Why the kernel keeps no key.
#[derive(Debug, Error)]
#[error(
    "the kernel's keyring gives no key: {0:?}; in a container, allow add_key and keyctl, of which its seccomp profile may know \
     nothing"
)]
pub struct KeyringError(KeyError);

/// The key of all state files of a SADB.
#[derive(Debug)]
pub(super) struct Master(Secret);

fn name(instance: u64) -> String {
    format!("portcullis-iked:{instance:016x}")
}

fn keyring() -> Result<KeyRing, KeyringError> {
    KeyRing::from_special_id(KeyRingIdentifier::User, true).map_err(KeyringError)
}

impl Master {
    /// That of a SADB.
    pub fn find(instance: u64) -> Result<Master, KeyringError> {
        let key = keyring()?.search(&name(instance)).map_err(KeyringError)?;
        let octets = Secret::from(key.read_to_vec().map_err(KeyringError)?);
        match octets.bytes().len() {
            OCTETS => Ok(Master(octets)),
            _ => Err(KeyringError(KeyError::InvalidArguments)),
        }
    }

    /// The same, or a new one if there is none.
    pub fn find_or_make(instance: u64) -> Result<Master, KeyringError> {
        if let Ok(found) = Master::find(instance) {
            return Ok(found);
        }
        let mut octets = vec![0; OCTETS];
        getrandom::fill(&mut octets).map_err(|_| KeyringError(KeyError::KeyDoesNotExist))?;
        let octets = Secret::from(octets);
        let key = keyring()?.add_key(&name(instance), octets.bytes()).map_err(KeyringError)?;
        // Of the user, and not only of who has it in a keyring of its session: who comes back may have another.
        let own = KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(Permission::ALL).build();
        key.set_perms(own).map_err(KeyringError)?;
        Ok(Master(octets))
    }

    pub fn octets(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The key of a SADB is gone, if there was one.
    pub fn forget(instance: u64) {
        let key = keyring().and_then(|ring| ring.search(&name(instance)).map_err(KeyringError));
        let _ = key.map(|key| key.invalidate());
    }
}
