//! Passwords of users, by their names.

use super::mschap::NtHash;
use crate::{crypto::Secret, identity::IdPattern, message::IdType};
use std::collections::HashMap;

/// The passwords of all, as MS-CHAP has them. Those of the same name come one after the other, and the last counts.
#[derive(Clone, Default, Debug)]
pub struct Secrets {
    of: HashMap<(u8, Vec<u8>), Password>,
    of_all: Option<Password>,
}

/// A password, as MS-CHAP has it, and as it is written, if that is known.
#[derive(Clone, Debug)]
struct Password {
    hash: NtHash,
    text: Option<Secret>,
}

impl Secrets {
    /// Adds one of these users; of nobody, it is everybody's. False if one of them is not one name.
    pub fn add(&mut self, names: &[String], hash: &NtHash) -> bool {
        self.put(names, &Password { hash: hash.clone(), text: None })
    }

    /// The same, as it is written.
    pub fn add_text(&mut self, names: &[String], text: &str) -> bool {
        let password = Password { hash: NtHash::of(text), text: Some(Secret::copy_of(text.as_bytes())) };
        self.put(names, &password)
    }

    fn put(&mut self, names: &[String], password: &Password) -> bool {
        if names.is_empty() {
            self.of_all = Some(password.clone());
        }
        let keys: Option<Vec<_>> = names.iter().map(|name| key(name)).collect();
        keys.into_iter().flatten().map(|key| _ = self.of.insert(key, password.clone())).count() == names.len()
    }

    /// That of a user; of `DOMAIN\user` that of the user, if there is none of both.
    pub fn of(&self, name: &str) -> Option<&NtHash> {
        self.find(name).map(|password| &password.hash)
    }

    /// The same, as it is written, if that is known.
    pub fn text_of(&self, name: &str) -> Option<&Secret> {
        self.find(name)?.text.as_ref()
    }

    /// Whether this is a user's. Where there is no such user, it takes as long.
    pub fn is_password(&self, name: &str, octets: &[u8]) -> bool {
        let text = str::from_utf8(octets);
        let said = NtHash::of(text.unwrap_or_default());
        let known = self.of(name);
        let is_it = said == *known.unwrap_or(&said);
        is_it & known.is_some() & text.is_ok_and(|text| !text.is_empty())
    }

    fn find(&self, name: &str) -> Option<&Password> {
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
        assert!(secrets.add_text(&["frank".into()], "pass wörd"));
        assert_eq!(secrets.text_of("frank"), Some(&Secret::copy_of("pass wörd".as_bytes())));
        assert_eq!(secrets.text_of("dave"), None);
        for (name, password, is_it) in [
            ("frank", "pass wörd".as_bytes(), true),
            ("dave", b"one", false),
            ("dave", b"two", true),
            ("frank", b"pass w\xf6rd", false),
            ("frank", b"", false),
            ("eve", b"two", false),
            ("", b"", false),
        ] {
            assert_eq!(secrets.is_password(name, password), is_it, "{name}");
        }
        assert!(secrets.add(&[], &all));
        assert_eq!((secrets.of("dave"), secrets.of("eve")), (Some(&two), Some(&all)));
    }
}
