//! Established IKE SAs by who is at their ends: whether there is another with a peer, and which (RFC 7296 §2.4).

use crate::{
    ike_sa::IkeSaId,
    message::{IdType, Identification},
};
use std::{collections::HashMap, net::IpAddr};

/// Who we are, and who the peer is.
pub type Ids = (Identification, Identification);

/// IKE SAs by both identities, in order, and where the peer is.
#[derive(Debug, Default)]
pub struct Contacts(HashMap<Box<[u8]>, Vec<(IkeSaId, IpAddr)>>);

impl Contacts {
    /// An IKE SA is established, or its peer is elsewhere.
    pub fn add(&mut self, ids: &Ids, id: IkeSaId, at: IpAddr) {
        let of = self.0.entry(key(ids)).or_insert_with(|| Vec::with_capacity(1));
        match of.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(n) => of[n].1 = at,
            Err(n) => of.insert(n, (id, at)),
        }
    }

    /// It is no more.
    pub fn remove(&mut self, ids: &Ids, id: IkeSaId) {
        let key = key(ids);
        if let Some(of) = self.0.get_mut(&key) {
            if let Ok(at) = of.binary_search_by_key(&id, |(id, _)| *id) {
                of.remove(at);
            }
            if of.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// Those of the same two, besides one.
    pub fn others(&self, ids: &Ids, id: IkeSaId) -> Vec<IkeSaId> {
        let of = self.0.get(&key(ids)).into_iter().flatten();
        of.map(|(other, _)| *other).filter(|other| *other != id).collect()
    }

    /// Whether there is one of the same two whose peer is there.
    pub fn is_at(&self, ids: &Ids, at: IpAddr) -> bool {
        self.0.get(&key(ids)).into_iter().flatten().any(|(_, other)| *other == at)
    }
}

/// Octets that are the same for whom identities are of.
fn key((mine, theirs): &Ids) -> Box<[u8]> {
    let mut key = vec![];
    for id in [mine, theirs] {
        key.push(id.kind.0);
        key.extend(id.data.len().to_be_bytes());
        // RFC 7296 §3.5: of domain names case does not matter.
        match id.kind {
            IdType::ID_FQDN | IdType::ID_RFC822_ADDR => key.extend(id.data.to_ascii_lowercase()),
            _ => key.extend(&id.data),
        }
    }
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdPattern;

    fn ids(mine: &str, theirs: &str) -> Ids {
        let id = |text: &str| text.parse::<IdPattern>().unwrap().identity().unwrap();
        (id(mine), id(theirs))
    }

    #[test]
    fn both_identities_count() {
        let mut contacts = Contacts::default();
        let here = ids("a.example.org", "b.example.org");
        let at = |host| IpAddr::from([192, 0, 2, host]);
        contacts.add(&here, IkeSaId(1), at(1));
        contacts.add(&ids("a.example.org", "B.example.org"), IkeSaId(2), at(2));
        contacts.add(&ids("a.example.org", "b@example.org"), IkeSaId(3), at(3));
        contacts.add(&ids("b.example.org", "a.example.org"), IkeSaId(4), at(4));
        contacts.add(&here, IkeSaId(1), at(5));
        assert_eq!([1, 2, 3, 5].map(|host| contacts.is_at(&here, at(host))), [false, true, false, true]);
        assert_eq!(contacts.others(&here, IkeSaId(1)), [IkeSaId(2)]);
        assert_eq!(contacts.others(&here, IkeSaId(9)), [IkeSaId(1), IkeSaId(2)]);
        contacts.remove(&here, IkeSaId(1));
        contacts.remove(&here, IkeSaId(2));
        assert!(contacts.others(&here, IkeSaId(9)).is_empty());
        assert_eq!(contacts.0.len(), 2);
    }
}
