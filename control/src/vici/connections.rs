//! Connections as VICI tells of them.

use super::message::Writer;
use crate::swanctl::{
    authentication::{Auth, Method},
    child::{Action, Child, Mode},
    connection::{Connection, Host, Unique, Version},
};
use std::time::Duration;

/// The section of a connection, without its name.
pub fn connection(writer: &mut Writer, c: &Connection) {
    writer
        .list("local_addrs", c.local_addrs.iter().map(host))
        .list("remote_addrs", c.remote_addrs.iter().map(host))
        .value("version", if c.version == Version::One { "IKEv1" } else { "IKEv2" })
        .value("reauth_time", secs(c.reauth_time))
        .value("rekey_time", secs(c.rekey()))
        .value("unique", unique(c.unique))
        .value("dpd_delay", secs(c.dpd_delay))
        .value("dpd_timeout", secs(c.dpd_timeout));
    if let Some(ppk) = &c.ppk_id {
        writer.value("ppk_id", ppk);
    }
    if c.ppk_required {
        writer.value("ppk_required", "yes");
    }
    for (n, local) in c.local.iter().enumerate() {
        writer.section(&format!("local-{}", n + 1), |writer| {
            method(writer, &local.auth);
            let ids = [
                ("id", &local.id),
                ("eap_id", &local.eap_id),
                ("aaa_id", &local.aaa_id),
                ("xauth_id", &local.xauth_id),
            ];
            for (key, id) in ids {
                if let Some(id) = id {
                    writer.value(key, id);
                }
            }
        });
    }
    for (n, remote) in c.remote.iter().enumerate() {
        writer.section(&format!("remote-{}", n + 1), |writer| {
            method(writer, &remote.auth);
            writer.value("id", &remote.id);
            if let Some(id) = &remote.eap_id {
                writer.value("eap_id", id);
            }
            if !remote.groups.is_empty() {
                writer.list("groups", &remote.groups);
            }
        });
    }
    writer.section("children", |children| {
        for of in &c.children {
            children.section(&of.name, |writer| child(writer, of));
        }
    });
}

/// The section of a trap or a shunt, without its name.
pub fn policy(writer: &mut Writer, of: &Connection, c: &Child) {
    writer
        .value("child", &c.name)
        .value("ike", &of.name)
        .value("mode", mode(c.mode))
        .list("local-ts", c.local_ts.iter().map(|ts| &ts.0))
        .list("remote-ts", c.remote_ts.iter().map(|ts| &ts.0));
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Tunnel => "TUNNEL",
        Mode::Transport => "TRANSPORT",
        Mode::Pass => "PASS",
        Mode::Drop => "DROP",
    }
}

fn child(writer: &mut Writer, c: &Child) {
    writer
        .value("mode", mode(c.mode))
        .value("rekey_time", secs(c.rekey_time))
        .value("rekey_bytes", c.rekey_bytes.0.to_string())
        .value("rekey_packets", c.rekey_packets.to_string())
        .value("dpd_action", action(c.dpd_action))
        .value("close_action", action(c.close_action))
        .list("local-ts", c.local_ts.iter().map(|ts| &ts.0))
        .list("remote-ts", c.remote_ts.iter().map(|ts| &ts.0));
    if let Some(device) = &c.interface {
        writer.value("interface", &device.0);
    }
    if c.priority != 0 {
        writer.value("priority", c.priority.to_string());
    }
}

fn method(writer: &mut Writer, auth: &Auth) {
    match &auth.method {
        Method::PublicKey => writer.value("class", "public key"),
        Method::Psk => writer.value("class", "pre-shared key"),
        Method::Null => writer.value("class", "null"),
        Method::Eap(method) => {
            writer.value("class", "EAP").value("eap-type", method.as_deref().unwrap_or("any"))
        }
        Method::Xauth(backend) => {
            writer.value("class", "XAuth").value("xauth", backend.as_deref().unwrap_or("any"))
        }
    };
}

fn host(host: &Host) -> String {
    match host {
        Host::Any => "%any".to_owned(),
        Host::Any4 => "%any4".to_owned(),
        Host::Any6 => "%any6".to_owned(),
        Host::Address(address) => address.to_string(),
        Host::Subnet(subnet) => subnet.to_string(),
        Host::Range(first, last) => format!("{first}-{last}"),
        Host::Name(name) => name.clone(),
    }
}

fn unique(unique: Unique) -> &'static str {
    match unique {
        Unique::No => "UNIQUE_NO",
        Unique::Never => "UNIQUE_NEVER",
        Unique::Keep => "UNIQUE_KEEP",
        Unique::Replace => "UNIQUE_REPLACE",
    }
}

fn action(action: Action) -> &'static str {
    match (action.trap, action.start) {
        (false, false) => "none",
        (true, false) => "trap",
        (false, true) => "start",
        (true, true) => "trap|start",
    }
}

fn secs(time: Duration) -> String {
    time.as_secs().to_string()
}
