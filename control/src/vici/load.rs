//! Commands that load what is configured, piece by piece, and tell what there is.

use super::message::{Message, TooLong, Writer};
use crate::{
    ike::{
        Ike,
        credentials::{Credentials, Use},
    },
    iked::{Iked, no_ike},
    swanctl::{
        self,
        pool::{Addresses, Pool},
        secret,
        tree::Branch,
    },
};
use std::net::IpAddr;

/// A command that is done at once.
type Done = Result<(), String>;

/// `load-conn`.
pub(super) fn connection(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let (ike, sadb) = iked.ike().ok_or_else(no_ike)?;
    for connection in swanctl::connections(message).map_err(text)? {
        ike.load_connection(connection, sadb).map_err(text)?;
    }
    Ok(())
}

/// `unload-conn`.
pub(super) fn unload_connection(iked: &mut Iked, message: &Branch<'_>) -> Done {
    unload(iked, message, "name", |ike, name| ike.unload_connection(name))
}

/// `load-shared`.
pub(super) fn shared(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    ike.load_shared(secret::load_shared(message).map_err(text)?).map_err(text)
}

/// `unload-shared`.
pub(super) fn unload_shared(iked: &mut Iked, message: &Branch<'_>) -> Done {
    unload(iked, message, "id", |ike, name| ike.unload_shared(name))
}

/// `clear-creds`.
pub(super) fn clear_credentials(iked: &mut Iked, _: &Branch<'_>) -> Done {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    ike.clear_secrets();
    ike.change_credentials(Credentials::clear);
    Ok(())
}

/// `load-cert`.
pub(super) fn certificate(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    let octets = message.octets("data").ok_or("say which: data")?;
    let is = |key: &str, word: &str| message.text(key).is_some_and(|text| text.eq_ignore_ascii_case(word));
    let of = match (message.text("type"), message.text("flag")) {
        _ if is("type", "x509_crl") => Use::Crl,
        _ if is("type", "x509") && is("flag", "ca") => Use::Authority,
        (_, None) if is("type", "x509") => Use::End,
        _ if is("type", "x509") && is("flag", "none") => Use::End,
        (of, flag) => {
            let said = [of.unwrap_or("no type"), flag.unwrap_or("no flag")].join(", ");
            return Err(format!("type and flag must be X509 with NONE or CA, or X509_CRL, not {said}"));
        }
    };
    ike.change_credentials(|all| all.load_certificate(of, octets))
}

/// `load-key`.
pub(super) fn key(iked: &mut Iked, message: &Branch<'_>) -> Result<Message, String> {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    let octets = message.octets("data").ok_or("say which: data")?;
    let id = ike.change_credentials(|all| all.load_key(octets))?;
    let mut writer = Writer::default();
    writer.value("success", "yes").value("id", id);
    writer.finish().map_err(text)
}

/// `unload-key`.
pub(super) fn unload_key(iked: &mut Iked, message: &Branch<'_>) -> Done {
    unload(iked, message, "id", |ike, name| ike.change_credentials(|all| all.unload_key(name)))
}

/// `get-keys`: those that VICI has loaded.
pub(super) fn keys(iked: &mut Iked) -> Result<Message, TooLong> {
    let loaded = iked.ike().map(|(ike, _)| ike.credentials().loaded_keys().collect::<Vec<_>>());
    names("keys", loaded.iter().flatten())
}

/// `flush-certs`: none is kept that was not loaded.
pub(super) fn flush(_: &mut Iked, _: &Branch<'_>) -> Done {
    Ok(())
}

/// `load-pool`.
pub(super) fn pool(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    swanctl::pools(message).map_err(text)?.into_iter().for_each(|pool| ike.load_pool(pool));
    Ok(())
}

/// `unload-pool`.
pub(super) fn unload_pool(iked: &mut Iked, message: &Branch<'_>) -> Done {
    unload(iked, message, "name", |ike, name| ike.unload_pool(name))
}

/// `load-authority`.
pub(super) fn authority(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    swanctl::authorities(message).map_err(text)?.into_iter().try_for_each(|a| ike.load_authority(a))
}

/// `unload-authority`.
pub(super) fn unload_authority(iked: &mut Iked, message: &Branch<'_>) -> Done {
    unload(iked, message, "name", |ike, name| ike.unload_authority(name))
}

fn unload(
    iked: &mut Iked,
    message: &Branch<'_>,
    key: &str,
    unloads: impl FnOnce(&mut Ike, &str) -> bool,
) -> Done {
    let name = message.text(key).ok_or_else(|| format!("say which: {key}"))?;
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    unloads(ike, name).then_some(()).ok_or_else(|| format!("there is no '{name}'"))
}

/// `get-conns`, `get-shared` and others: a list of names.
pub(super) fn names<'a>(key: &str, names: impl IntoIterator<Item = &'a String>) -> Result<Message, TooLong> {
    let mut writer = Writer::default();
    writer.list(key, names.into_iter().filter(|name| !name.is_empty()));
    writer.finish()
}

/// `get-pools`: of each, its first address, and how many there are.
pub(super) fn pools(iked: &mut Iked, message: &Branch<'_>) -> Result<Message, TooLong> {
    let name = message.text("name");
    let all = iked.ike().map(|(ike, _)| &ike.configured().pools[..]).unwrap_or_default();
    let mut writer = Writer::default();
    for pool in all.iter().filter(|pool| name.is_none_or(|name| pool.name == name)) {
        let (base, size) = extent(pool);
        writer.section(&pool.name, |writer| {
            writer
                .value("base", base)
                .value("size", size.to_string())
                .value("online", "0")
                .value("offline", "0");
        });
    }
    writer.finish()
}

fn extent(pool: &Pool) -> (String, u128) {
    let number = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    match &pool.addrs {
        Some(Addresses::Subnet(subnet)) => {
            let bits = if subnet.addr().is_ipv4() { 32 } else { 128 } - u32::from(subnet.len());
            (subnet.addr().to_string(), 1u128.checked_shl(bits).unwrap_or(u128::MAX))
        }
        Some(Addresses::Range(first, last)) => {
            (first.to_string(), (number(last) - number(first)).saturating_add(1))
        }
        None => (String::new(), 0),
    }
}

/// What people are told.
fn text(error: impl ToString) -> String {
    error.to_string()
}
