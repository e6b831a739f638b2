//! IKE SAs and child SAs as VICI tells of them, in lists and events.

use super::{message::Writer, names};
use crate::report::{ChildReport, IkeSaReport, TransformReport};
use portcullis_ike::message::TransformType;
use std::net::SocketAddr;

/// The section of an IKE SA with its child SAs, without its name.
pub fn ike_sa(writer: &mut Writer, sa: &IkeSaReport) {
    ike_keys(writer, sa);
    writer.section("child-sas", |children| {
        for child in &sa.children {
            children.section(&child_name(child), |writer| child_keys(writer, child));
        }
    });
}

/// An IKE SA that has taken the place of another.
pub fn ike_rekey(writer: &mut Writer, old: &IkeSaReport, new: &IkeSaReport) {
    writer.section("old", |writer| ike_keys(writer, old));
    writer.section("new", |writer| ike_keys(writer, new));
}

/// An IKE SA of which a child SA has taken the place of another.
pub fn child_rekey(writer: &mut Writer, sa: &IkeSaReport) {
    ike_keys(writer, sa);
    let [old, new] = &sa.children[..] else { return };
    writer.section("child-sas", |children| {
        children.section(&child_name(old), |writer| {
            writer.section("old", |writer| child_keys(writer, old));
            writer.section("new", |writer| child_keys(writer, new));
        });
    });
}

/// An IKE SA that is between other addresses.
pub fn ike_update(writer: &mut Writer, sa: &IkeSaReport) {
    ike_keys(writer, sa);
}

fn child_name(child: &ChildReport) -> String {
    // Names of elements have room for 255 octets.
    let end = child.name.floor_char_boundary(240);
    format!("{}-{}", &child.name[..end], child.id)
}

fn ike_keys(writer: &mut Writer, sa: &IkeSaReport) {
    let state = match &*sa.state {
        "replaced" => "REKEYED".to_owned(),
        "closing" => "DELETING".to_owned(),
        "closed" => "DESTROYING".to_owned(),
        other => other.to_ascii_uppercase(),
    };
    writer
        .value("uniqueid", sa.id.to_string())
        .value("version", sa.version.to_string())
        .value("state", state);
    for (side, address, id) in [("local", &sa.local, &sa.local_id), ("remote", &sa.remote, &sa.remote_id)] {
        if let Ok(address) = address.parse::<SocketAddr>() {
            writer.value(&format!("{side}-host"), address.ip().to_string());
            writer.value(&format!("{side}-port"), address.port().to_string());
        }
        writer.value(&format!("{side}-id"), id.as_deref().unwrap_or("%any"));
    }
    if let Some(user) = &sa.remote_eap_id {
        writer.value(if sa.version == 1 { "remote-xauth-id" } else { "remote-eap-id" }, user);
    }
    if sa.role == "initiator" {
        writer.value("initiator", "yes");
    }
    writer.value("initiator-spi", hex(&sa.initiator_spi)).value("responder-spi", hex(&sa.responder_spi));
    for (key, is_there) in [
        ("nat-local", sa.nat_local),
        ("nat-remote", sa.nat_remote),
        ("nat-any", sa.nat_local || sa.nat_remote),
    ] {
        if is_there {
            writer.value(key, "yes");
        }
    }
    transforms(writer, &sa.transforms);
    if sa.ppk {
        writer.value("ppk", "yes");
    }
    for (key, vips) in [("local-vips", &sa.local_vips), ("remote-vips", &sa.remote_vips)] {
        if !vips.is_empty() {
            writer.list(key, vips);
        }
    }
    secs(writer, "established", sa.established_secs);
    secs(writer, "rekey-time", sa.rekey_secs);
}

fn child_keys(writer: &mut Writer, child: &ChildReport) {
    writer
        .value("name", &child.name)
        .value("uniqueid", child.id.to_string())
        .value("reqid", child.reqid.to_string())
        .value("state", if child.state == "replaced" { "REKEYED" } else { "INSTALLED" })
        .value("mode", child.mode.to_ascii_uppercase())
        .value("protocol", child.protocol.to_ascii_uppercase());
    if child.udp_encap {
        writer.value("encap", "yes");
    }
    writer.value("spi-in", hex(&child.spi_in)).value("spi-out", hex(&child.spi_out));
    transforms(writer, &child.transforms);
    if let Some(around) = &child.around {
        writer.value("ah-spi-in", hex(&around.spi_in)).value("ah-spi-out", hex(&around.spi_out));
        for TransformReport { kind, id, .. } in &around.transforms {
            if TransformType(*kind) == TransformType::INTEG {
                writer.value("ah-integ-alg", names::transform(TransformType(*kind), *id));
            }
        }
    }
    if child.esn {
        writer.value("esn", "1");
    }
    for (key, n) in [
        ("bytes-in", child.bytes_in),
        ("packets-in", child.packets_in),
        ("bytes-out", child.bytes_out),
        ("packets-out", child.packets_out),
    ] {
        writer.value(key, n.to_string());
    }
    secs(writer, "rekey-time", child.rekey_secs);
    secs(writer, "life-time", child.life_secs);
    secs(writer, "install-time", Some(child.installed_secs));
    writer.list("local-ts", &child.local_ts).list("remote-ts", &child.remote_ts);
}

fn transforms(writer: &mut Writer, transforms: &[TransformReport]) {
    for TransformReport { kind, id, key_bits } in transforms {
        let kind = TransformType(*kind);
        let key = match kind {
            TransformType::ENCR => "encr-alg",
            TransformType::INTEG => "integ-alg",
            TransformType::PRF => "prf-alg",
            TransformType::KE => "dh-group",
            _ => continue,
        };
        writer.value(key, names::transform(kind, *id));
        if let (TransformType::ENCR, Some(bits)) = (kind, key_bits) {
            writer.value("encr-keysize", bits.to_string());
        }
    }
    let additional = TransformType::ADDITIONAL_KEY_EXCHANGES;
    for (n, kind) in additional.into_iter().enumerate() {
        if let Some(transform) = transforms.iter().find(|t| t.kind == kind.0) {
            writer.value(&format!("ake{}-alg", n + 1), names::transform(kind, transform.id));
        }
    }
}

fn secs(writer: &mut Writer, key: &str, secs: Option<u64>) {
    if let Some(secs) = secs {
        writer.value(key, secs.to_string());
    }
}

/// SPIs are told without a prefix.
fn hex(spi: &str) -> &str {
    spi.trim_start_matches("0x")
}
