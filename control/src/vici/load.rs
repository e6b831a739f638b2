//! Commands that load what is configured, piece by piece, and tell what there is.

use super::message::{Message, TooLong, Writer};
use crate::{
    ike::{
        Ike,
        credentials::{Credentials, Use},
    },
    iked::{Iked, no_ike},
    swanctl::{self, secret, tree::Branch},
};
use portcullis_ike::pool::Told;
use portcullis_sadb::Sadb;

/// Addresses that are told of a pool, at most: a message has room for no more.
const MOST_LEASES: usize = 4096;

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
    unload(iked, message, "name", |(ike, sadb), name| ike.unload_connection(name, sadb))
}

/// `load-shared`.
pub(super) fn shared(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    ike.load_shared(secret::load_shared(message).map_err(text)?).map_err(text)
}

/// `unload-shared`.
pub(super) fn unload_shared(iked: &mut Iked, message: &Branch<'_>) -> Done {
    unload(iked, message, "id", |(ike, _), name| ike.unload_shared(name))
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
    unload(iked, message, "id", |(ike, _), name| ike.change_credentials(|all| all.unload_key(name)))
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
    swanctl::pools(message).map_err(text)?.into_iter().try_for_each(|pool| ike.load_pool(pool)).map_err(text)
}

/// `unload-pool`.
pub(super) fn unload_pool(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let name = message.text("name").ok_or("say which: name")?;
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    ike.unload_pool(name)
}

/// `load-authority`.
pub(super) fn authority(iked: &mut Iked, message: &Branch<'_>) -> Done {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    swanctl::authorities(message).map_err(text)?.into_iter().try_for_each(|a| ike.load_authority(a))
}

/// `unload-authority`.
pub(super) fn unload_authority(iked: &mut Iked, message: &Branch<'_>) -> Done {
    unload(iked, message, "name", |(ike, _), name| ike.unload_authority(name))
}

fn unload(
    iked: &mut Iked,
    message: &Branch<'_>,
    key: &str,
    unloads: impl FnOnce((&mut Ike, &mut Sadb), &str) -> bool,
) -> Done {
    let name = message.text(key).ok_or_else(|| format!("say which: {key}"))?;
    unloads(iked.ike().ok_or_else(no_ike)?, name).then_some(()).ok_or_else(|| format!("there is no '{name}'"))
}

/// `get-conns`, `get-shared` and others: a list of names.
pub(super) fn names<'a>(key: &str, names: impl IntoIterator<Item = &'a String>) -> Result<Message, TooLong> {
    let mut writer = Writer::default();
    writer.list(key, names.into_iter().filter(|name| !name.is_empty()));
    writer.finish()
}

/// `get-pools`: of each, its first address, how many there are, and who has or had which, if that is asked for.
pub(super) fn pools(iked: &mut Iked, message: &Branch<'_>) -> Result<Message, TooLong> {
    let (name, has_leases) = (message.text("name"), message.text("leases") == Some("yes"));
    let mut writer = Writer::default();
    let Some((ike, _)) = iked.ike() else { return writer.finish() };
    for pool in ike.pools().iter().filter(|pool| name.is_none_or(|name| pool.name == name)) {
        writer.section(&pool.name, |writer| {
            writer
                .value("base", &pool.base)
                .value("size", pool.size.to_string())
                .value("online", pool.online.to_string())
                .value("offline", pool.offline.to_string());
            if has_leases {
                writer.section("leases", |writer| leases(writer, &ike.engine().leases().told(&pool.name)));
            }
        });
    }
    writer.finish()
}

/// Of each address, who has or had it.
fn leases(writer: &mut Writer, told: &[Told<'_>]) {
    for (n, (address, who, is_held)) in told.iter().take(MOST_LEASES).enumerate() {
        writer.section(&n.to_string(), |writer| {
            let status = if *is_held { "online" } else { "offline" };
            writer.value("address", address.to_string()).value("identity", who).value("status", status);
        });
    }
}

/// What people are told.
fn text(error: impl ToString) -> String {
    error.to_string()
}
