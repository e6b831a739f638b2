//! Passwords of users, by their names.

use super::mschap::NtHash;
use crate::{identity::IdPattern, message::IdType};
use std::collections::HashMap;

/// The passwords of all, as MS-CHAP has them. Those of the same name come one after the other, and the last counts.
#[derive(Clone, Default, Debug)]
pub struct Secrets {
    of: HashMap<(u8, Vec<u8>), NtHash>,
    of_all: Option<NtHash>,
}

impl Secrets {
    /// Adds one of these users; of nobody, it is everybody's. False if one of them is not one name.
    pub fn add(&mut self, names: &[String], hash: &NtHash) -> bool {
        if names.is_empty() {
            self.of_all = Some(hash.clone());
        }
        let keys: Option<Vec<_>> = names.iter().map(|name| key(name)).collect();
        keys.into_iter().flatten().map(|key| _ = self.of.insert(key, hash.clone())).count() == names.len()
    }

    /// That of a user; of `DOMAIN\user` that of the user, if there is none of both.
    pub fn of(&self, name: &str) -> Option<&NtHash> {
        let named = |name| self.of.get(&key(name)?);
        named(name).or_else(|| named(without_domain(name))).or(self.of_all.as_ref())
    }
}

/// Of `DOMAIN\user`, the user.
pub(super) fn without_domain(name: &str) -> &str {
    name.rsplit_once('\\').map_or(name, |(_, user)| user)
}

/// The same for all ways to write an identity.
fn key(name: &str) -> Option<(u8, Vec<u8>)> {
    let id = name.parse::<IdPattern>().ok()?.identity()?;
    let data = match id.kind {
        IdType::ID_FQDN | IdType::ID_RFC822_ADDR => id.data.to_ascii_lowercase(),
        _ => id.data,
    };
    Some((id.kind.0, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_own_password() {
        let [one, two, all] = ["one", "two", "all"].map(NtHash::of);
        let mut secrets = Secrets::default();
        assert_eq!(secrets.of("carol"), None);
        assert!(secrets.add(&["carol".into(), "carol@example.org".into()], &one));
        assert!(secrets.add(&["dave".into()], &two));
        assert!(!secrets.add(&["*@example.org".into()], &two));
        assert_eq!(secrets.of("Carol@Example.org"), Some(&one));
        assert_eq!((secrets.of("dave"), secrets.of("eve")), (Some(&two), None));
        assert!(secrets.add(&["CORP\\dave".into()], &one));
        assert_eq!((secrets.of("CORP\\dave"), secrets.of("HOME\\dave")), (Some(&one), Some(&two)));
        assert!(secrets.add(&[], &all));
        assert_eq!((secrets.of("dave"), secrets.of("eve")), (Some(&two), Some(&all)));
    }
}
