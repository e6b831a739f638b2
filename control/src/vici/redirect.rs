//! `redirect`: peers are sent to another gateway (RFC 5685).

use super::{
    control::counted,
    message::Message,
    selection::{Selected, Selection},
};
use crate::{
    iked::{Iked, no_ike},
    swanctl::{connection::Host, tree::Branch, value::Value},
};
use portcullis_ike::{
    identity::IdPattern,
    v2::{ike_sa::IkeSa, redirect::Gateway},
};
use std::net::IpAddr;

/// Whether an address is one of those.
fn is_of(host: &Host, address: IpAddr) -> bool {
    match host {
        Host::Any => true,
        Host::Any4 => address.is_ipv4(),
        Host::Any6 => address.is_ipv6(),
        Host::Address(one) => *one == address,
        Host::Subnet(subnet) => subnet.contains(address),
        Host::Range(first, last) => {
            first.is_ipv4() == address.is_ipv4() && (*first..=*last).contains(&address)
        }
        Host::Name(_) => false,
    }
}

/// `redirect`, by `ike`, `ike-id`, `peer-ip` and `peer-id`, all of which must fit. It does not wait.
///
/// # Errors
/// Why not.
pub fn redirect(iked: &mut Iked, message: &Branch<'_>) -> Result<Message, String> {
    let gateway = message.text("gateway").ok_or("say where: gateway")?;
    let gateway: Gateway = gateway.parse().map_err(|why| format!("gateway: {why}"))?;
    let selection = Selection::of(message)?;
    let at = match message.text("peer-ip") {
        Some(text) => Some(
            Host::parse(text)
                .filter(|host| !matches!(host, Host::Name(_)))
                .ok_or_else(|| format!("peer-ip = {text} must be an address, a subnet, or a range"))?,
        ),
        None => None,
    };
    let who: Option<IdPattern> = message
        .text("peer-id")
        .map(|text| text.parse().map_err(|why| format!("peer-id: {why}")))
        .transpose()?;
    if selection.is_of_children() || selection.is_all() && at.is_none() && who.is_none() {
        return Err("say which: ike, ike-id, peer-ip or peer-id".to_owned());
    }
    let fits = |sa: &IkeSa| {
        at.as_ref().is_none_or(|host| is_of(host, sa.path().peer.ip()))
            && who.as_ref().is_none_or(|who| sa.ids().is_some_and(|(_, id)| who.fits(id).is_some()))
    };
    let (ike, sadb) = iked.ike().ok_or_else(no_ike)?;
    let Selected::Ike(ids) = selection.select(ike.engine(), |_| None) else { return Err(no_ike()) };
    let ids: Vec<_> = ids.into_iter().filter(|id| ike.engine().sa(*id).is_some_and(&fits)).collect();
    let mut sent = 0;
    for id in &ids {
        sent += usize::from(ike.with(sadb, |engine, cx| engine.redirect(*id, &gateway, cx)));
    }
    let outcome = match (ids.len(), sent) {
        (0, _) => Err("there is no such IKE SA to redirect"),
        (_, 0) => Err("no such peer has begun and goes where it is sent"),
        _ => Ok(()),
    };
    Ok(counted(ids.len(), &[], outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_those_of_an_address_a_subnet_or_a_range() {
        for (text, is_it) in [
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("192.0.2.0/24", true),
            ("192.0.2.1-192.0.2.7", true),
            ("192.0.2.1-192.0.2.6", false),
            ("%any4", true),
            ("%any6", false),
            ("::/0", false),
        ] {
            let host = Host::parse(text).unwrap();
            assert_eq!(is_of(&host, [192, 0, 2, 7].into()), is_it, "{text}");
        }
    }
}
