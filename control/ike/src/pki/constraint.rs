//! Name constraints: the names that the certificates below an authority may have (RFC 5280 §4.2.1.10).

use super::{BadCertificate, Wrong, certificate::Certificate, distinguished_name::DistinguishedName};
use der::Decode;
use std::mem::discriminant;
use x509_cert::{
    ext::pkix::{NameConstraints, constraints::name::GeneralSubtree, name::GeneralName},
    name::Name,
};

/// Whether the constraints of an authority allow all names of a certificate below it.
pub(super) fn check(constraints: &NameConstraints, below: &Certificate) -> Result<(), BadCertificate> {
    let mut names = below.names().to_vec();
    if !below.subject().is_empty() {
        names.extend(Name::from_der(below.subject().der()).map(GeneralName::DirectoryName));
    }
    // Of old ones that have no other mail address.
    if !names.iter().any(|name| matches!(name, GeneralName::Rfc822Name(_))) {
        let emails = below.subject().emails().filter_map(|mail| der::asn1::Ia5String::new(&mail).ok());
        names.extend(emails.map(GeneralName::Rfc822Name));
    }
    match names.iter().find(|name| !allows(constraints, name)) {
        Some(name) => Err(Wrong::Name(shown(name)).of(below)),
        None => Ok(()),
    }
}

fn allows(constraints: &NameConstraints, name: &GeneralName) -> bool {
    let of_its_form = |subtree: &&GeneralSubtree| discriminant(&subtree.base) == discriminant(name);
    let excluded = constraints.excluded_subtrees.iter().flatten().filter(of_its_form);
    let mut permitted = constraints.permitted_subtrees.iter().flatten().filter(of_its_form).peekable();
    // What cannot be told is not allowed, whichever way it is said.
    let is_excluded = excluded.map(|subtree| within(subtree, name)).any(|within| within != Some(false));
    let is_permitted = permitted.peek().is_none() || permitted.any(|s| within(s, name) == Some(true));
    !is_excluded && is_permitted
}

/// Whether a name is in a subtree of its form; `None` where it cannot be told.
fn within(subtree: &GeneralSubtree, name: &GeneralName) -> Option<bool> {
    // RFC 5280 §4.2.1.10: they have no meaning, and MUST be these.
    if subtree.minimum != 0 || subtree.maximum.is_some() {
        return None;
    }
    Some(match (&subtree.base, name) {
        (GeneralName::DnsName(base), GeneralName::DnsName(name)) => {
            is_below(name.as_bytes(), base.as_bytes())
        }
        (GeneralName::Rfc822Name(base), GeneralName::Rfc822Name(name)) => {
            let (base, name): (&str, &str) = (base.as_ref(), name.as_ref());
            let host = name.rsplit_once('@')?.1;
            match base {
                _ if base.contains('@') => name.eq_ignore_ascii_case(base),
                _ if base.starts_with('.') => is_below(host.as_bytes(), base.as_bytes()),
                _ => host.eq_ignore_ascii_case(base),
            }
        }
        (GeneralName::IpAddress(base), GeneralName::IpAddress(name)) => {
            let (base, name) = (base.as_bytes(), name.as_bytes());
            let (net, mask) = base.split_at(base.len() / 2);
            if !matches!((base.len(), name.len()), (8 | 32, 4 | 16)) {
                return None;
            }
            net.len() == name.len() && net.iter().zip(mask).zip(name).all(|((n, m), a)| n & m == a & m)
        }
        (GeneralName::DirectoryName(base), GeneralName::DirectoryName(name)) => {
            DistinguishedName::of(base.as_ref())?.begins(&DistinguishedName::of(name.as_ref())?)
        }
        _ => return None,
    })
}

/// Whether a host is another or below it; with a dot in front, below it.
fn is_below(host: &[u8], base: &[u8]) -> bool {
    let Some(at) = host.len().checked_sub(base.len()) else { return false };
    let is_end = host[at..].eq_ignore_ascii_case(base);
    is_end
        && (at == 0 || base.is_empty() || base[0] == b'.' || host[at - 1] == b'.')
        && !(at == 0 && base.first() == Some(&b'.'))
}

fn shown(name: &GeneralName) -> String {
    match name {
        GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) => name.to_string(),
        GeneralName::DirectoryName(name) => {
            DistinguishedName::of(name.as_ref()).map(|name| name.to_string()).unwrap_or_default()
        }
        GeneralName::IpAddress(ip) => format!("the address {:?}", ip.as_bytes()),
        GeneralName::UniformResourceIdentifier(_) => "a URI".to_owned(),
        _ => "a name of another form".to_owned(),
    }
}
