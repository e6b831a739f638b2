//! Established IKE SAs by who is at their ends: whether there is another with a peer, and which (RFC 7296 §2.4), and what their
//! child SAs carry.

use crate::{
    ike_sa::IkeSaId,
    message::{IdType, Identification},
    traffic_selector::Policy,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

/// Who we are, and who the peer is.
pub type Ids = (Identification, Identification);

/// IKE SAs by both identities, in order.
#[derive(Debug, Default)]
pub struct Contacts(HashMap<Box<[u8]>, Vec<Contact>>);

/// An IKE SA.
#[derive(Debug)]
struct Contact {
    id: IkeSaId,
    /// Where the peer is; of IPv4 as IPv6 has it (RFC 4291 §2.5.5.2). Nowhere, while it is being begun.
    at: Ipv6Addr,
    carried: Carried,
}

const _: () = assert!(size_of::<Contact>() == 40);

/// What its child SAs carry. There is one, as a rule, and nothing of its own is kept for it.
#[derive(Debug)]
enum Carried {
    One(Arc<Policy>),
    Some(Box<[Arc<Policy>]>),
}

impl Carried {
    fn new(mut carried: Vec<Arc<Policy>>) -> Carried {
        match carried.pop() {
            Some(only) if carried.is_empty() => Carried::One(only),
            last => {
                carried.extend(last);
                Carried::Some(carried.into())
            }
        }
    }

    fn policies(&self) -> &[Arc<Policy>] {
        match self {
            Carried::One(policy) => std::slice::from_ref(policy),
            Carried::Some(policies) => policies,
        }
    }
}

fn mapped(at: IpAddr) -> Ipv6Addr {
    match at {
        IpAddr::V4(at) => at.to_ipv6_mapped(),
        IpAddr::V6(at) => at,
    }
}

impl Contacts {
    /// An IKE SA is established, or its peer is elsewhere, or its child SAs carry something else.
    pub fn add(&mut self, ids: &Ids, id: IkeSaId, at: IpAddr, carried: Vec<Arc<Policy>>) {
        let of = self.0.entry(key(ids)).or_insert_with(|| Vec::with_capacity(1));
        let contact = Contact { id, at: mapped(at), carried: Carried::new(carried) };
        match of.binary_search_by_key(&id, |contact| contact.id) {
            Ok(n) => of[n] = contact,
            Err(n) => of.insert(n, contact),
        }
    }

    /// It is no more.
    pub fn remove(&mut self, ids: &Ids, id: IkeSaId) {
        let key = key(ids);
        if let Some(of) = self.0.get_mut(&key) {
            if let Ok(at) = of.binary_search_by_key(&id, |contact| contact.id) {
                of.remove(at);
            }
            if of.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// Whether an IKE SA that is being begun may say that there is no other (RFC 7296 §2.4): until it is removed, no other may.
    pub fn claim(&mut self, ids: &Ids, id: IkeSaId) -> bool {
        let is_only = self.of(ids).all(|other| other.id == id);
        if is_only {
            self.add(ids, id, Ipv6Addr::UNSPECIFIED.into(), vec![]);
        }
        is_only
    }

    /// Those of the same two, besides one.
    pub fn others(&self, ids: &Ids, id: IkeSaId) -> Vec<IkeSaId> {
        self.but(ids, id).map(|other| other.id).collect()
    }

    /// The numbers of these whose peer is there.
    pub fn beside(&self, ids: &Ids, id: IkeSaId, at: IpAddr) -> Vec<u64> {
        self.but(ids, id).filter(|other| other.at == mapped(at)).map(|other| other.id.0).collect()
    }

    /// Whether a child SA of these carries all that one of this policy is for.
    pub fn carry(&self, ids: &Ids, id: IkeSaId, policy: &Policy) -> bool {
        self.but(ids, id)
            .flat_map(|other| other.carried.policies())
            .any(|carried| !carried.is_narrower_than(policy))
    }

    fn but(&self, ids: &Ids, id: IkeSaId) -> impl Iterator<Item = &Contact> {
        self.of(ids).filter(move |other| other.id != id && !other.at.is_unspecified())
    }

    fn of(&self, ids: &Ids) -> impl Iterator<Item = &Contact> {
        self.0.get(&key(ids)).into_iter().flatten()
    }

    /// Whether there is one of the same two whose peer is there.
    pub fn is_at(&self, ids: &Ids, at: IpAddr) -> bool {
        self.of(ids).any(|other| other.at == mapped(at))
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
        contacts.add(&here, IkeSaId(1), at(1), vec![]);
        contacts.add(&ids("a.example.org", "B.example.org"), IkeSaId(2), at(2), vec![]);
        contacts.add(&ids("a.example.org", "b@example.org"), IkeSaId(3), at(3), vec![]);
        contacts.add(&ids("b.example.org", "a.example.org"), IkeSaId(4), at(4), vec![]);
        contacts.add(&here, IkeSaId(1), at(5), vec![]);
        assert_eq!([1, 2, 3, 5].map(|host| contacts.is_at(&here, at(host))), [false, true, false, true]);
        assert_eq!(contacts.others(&here, IkeSaId(1)), [IkeSaId(2)]);
        assert_eq!(contacts.others(&here, IkeSaId(9)), [IkeSaId(1), IkeSaId(2)]);
        contacts.remove(&here, IkeSaId(1));
        contacts.remove(&here, IkeSaId(2));
        assert!(contacts.others(&here, IkeSaId(9)).is_empty());
        assert_eq!(contacts.0.len(), 2);
    }

    /// Who is being begun is nobody's other, but for who would say that there is none.
    #[test]
    fn one_says_that_there_is_no_other() {
        let mut contacts = Contacts::default();
        let here = ids("a.example.org", "b.example.org");
        assert_eq!([1, 2, 1].map(|id| contacts.claim(&here, IkeSaId(id))), [true, false, true]);
        assert!(contacts.others(&here, IkeSaId(2)).is_empty());
        contacts.remove(&here, IkeSaId(1));
        assert!(contacts.claim(&here, IkeSaId(2)));
        contacts.add(&here, IkeSaId(2), [192, 0, 2, 1].into(), vec![]);
        assert_eq!(contacts.others(&here, IkeSaId(3)), [IkeSaId(2)]);
        assert!(!contacts.claim(&here, IkeSaId(3)));
    }
}
