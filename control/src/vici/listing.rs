//! Lists: an event for each of what there is, and an empty answer behind them.

use super::{
    connections,
    message::{Message, Writer},
    sas,
    selection::Selection,
};
use crate::{
    ike::credentials::Use,
    iked::Iked,
    report::IkeSaReport,
    swanctl::{child::Mode, tree::Branch},
};
use portcullis_ike::v2::ike_sa::IkeSaId;
use std::collections::VecDeque;

/// A list that is being told. What comes or goes meanwhile is in it or not.
pub struct Listing {
    /// Its events.
    pub event: &'static str,
    rest: Rest,
}

/// What is still to be told.
enum Rest {
    Sas(Selection, VecDeque<IkeSaId>),
    Connections(VecDeque<String>),
    Authorities(VecDeque<String>),
    /// Messages that are made.
    Made(VecDeque<Message>),
}

impl Listing {
    /// IKE SAs, with their child SAs.
    pub fn sas(iked: &mut Iked, selection: Selection) -> Listing {
        let ids = iked.ike().map(|(ike, _)| ike.ids()).unwrap_or_default();
        Listing { event: "list-sa", rest: Rest::Sas(selection, ids.into()) }
    }

    /// Connections, or that of a name.
    pub fn connections(iked: &mut Iked, name: Option<&str>) -> Listing {
        let all = iked.ike().map(|(ike, _)| &ike.configured().connections[..]).unwrap_or_default();
        let names = all.iter().map(|c| &c.name).filter(|of| name.is_none_or(|name| *of == name));
        Listing { event: "list-conn", rest: Rest::Connections(names.cloned().collect()) }
    }

    /// Authorities, or that of a name.
    pub fn authorities(iked: &mut Iked, name: Option<&str>) -> Listing {
        let all = iked.ike().map(|(ike, _)| &ike.configured().authorities[..]).unwrap_or_default();
        let names = all.iter().map(|a| &a.name).filter(|of| name.is_none_or(|name| *of == name));
        Listing { event: "list-authority", rest: Rest::Authorities(names.cloned().collect()) }
    }

    /// Certificates of a type and a flag, or of any.
    pub fn certificates(iked: &mut Iked, kind: Option<&str>, flag: Option<&str>) -> Listing {
        let is = |wanted: Option<&str>, word: &str| {
            wanted.is_none_or(|wanted| ["any", word].iter().any(|w| wanted.eq_ignore_ascii_case(w)))
        };
        let mut all = VecDeque::new();
        if let Some((ike, _)) = iked.ike().filter(|_| is(kind, "x509")) {
            for (of, certificate, has_key) in ike.credentials().certificates() {
                let of = if of == Use::Authority { "CA" } else { "NONE" };
                if is(flag, of) {
                    let mut writer = Writer::default();
                    writer.value("type", "X509").value("flag", of);
                    if has_key {
                        writer.value("has_privkey", "yes");
                    }
                    writer.value("data", certificate.der());
                    all.extend(writer.finish());
                }
            }
        }
        Listing { event: "list-cert", rest: Rest::Made(all) }
    }

    /// Traps and shunts that are laid: of the kinds that are asked for, or all.
    pub fn policies(iked: &mut Iked, message: &Branch<'_>) -> Listing {
        let asks = |kind| message.text(kind) == Some("yes");
        let is_any = !["trap", "drop", "pass"].into_iter().any(asks);
        let is_named = |key: &str, name: &str| message.text(key).is_none_or(|named| named == name);
        let mut all = VecDeque::new();
        if let Some((ike, _)) = iked.ike() {
            for (connection, child) in ike.laid() {
                let kind = match child.mode {
                    Mode::Pass => "pass",
                    Mode::Drop => "drop",
                    Mode::Tunnel | Mode::Transport => "trap",
                };
                if (is_any || asks(kind))
                    && is_named("ike", &connection.name)
                    && is_named("child", &child.name)
                {
                    let name = format!("{}/{}", connection.name, child.name);
                    all.push_back(event(&name, |writer| connections::policy(writer, connection, child)));
                }
            }
        }
        Listing { event: "list-policy", rest: Rest::Made(all) }
    }

    /// The next one; `None` behind the last.
    pub fn next(&mut self, iked: &mut Iked) -> Option<Message> {
        let (ike, sadb) = iked.ike()?;
        match &mut self.rest {
            Rest::Sas(selection, ids) => loop {
                let report = ike.report_of(ids.pop_front()?, sadb);
                if let Some(mut report) = report.filter(|sa| selection.has_ike_sa(sa)) {
                    report.children.retain(|child| selection.has_child(child));
                    if !report.children.is_empty() || !selection.is_of_children() {
                        return Some(sa_event(&report));
                    }
                }
            },
            Rest::Connections(names) => loop {
                let name = names.pop_front()?;
                if let Some(of) = ike.configured().connections.iter().find(|c| c.name == name) {
                    return Some(event(&name, |writer| connections::connection(writer, of)));
                }
            },
            Rest::Authorities(names) => loop {
                let name = names.pop_front()?;
                if let Some(of) = ike.configured().authorities.iter().find(|a| a.name == name) {
                    return Some(event(&name, |writer| {
                        writer.list("crl_uris", of.crl_uris.iter().map(|uri| &uri.0));
                        writer.list("ocsp_uris", of.ocsp_uris.iter().map(|uri| &uri.0));
                        if let Some(base) = &of.cert_uri_base {
                            writer.value("cert_uri_base", &base.0);
                        }
                    }));
                }
            },
            Rest::Made(all) => all.pop_front(),
        }
    }
}

/// An IKE SA with its child SAs; without, if a message has no room for them.
fn sa_event(sa: &IkeSaReport) -> Message {
    let message = |sa: &IkeSaReport| {
        let mut writer = Writer::default();
        writer.section(&sa.connection, |writer| sas::ike_sa(writer, sa));
        writer.finish()
    };
    message(sa).unwrap_or_else(|_| {
        tracing::warn!("IKE SA {} has too many child SAs for a message of VICI", sa.id);
        event(&sa.connection, |writer| sas::ike_sa(writer, &IkeSaReport { children: vec![], ..sa.clone() }))
    })
}

/// A section; without what has no room.
fn event(name: &str, inner: impl FnOnce(&mut Writer)) -> Message {
    let mut writer = Writer::default();
    writer.section(name, inner);
    writer.finish().unwrap_or_default()
}
