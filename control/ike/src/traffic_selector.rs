//! Traffic selectors: what is configured, and what two sides agree on (RFC 7296 §2.9, §3.13, RFC 4301 §4.4.1.1).
//!
//! ```text
//!  local_ts, remote_ts  ->  ConfiguredSelectors  ->  TrafficSelectors, with addresses for `dynamic`
//!  initiator   Policy  ->  TSi, TSr                            Policy::accept  <-  narrowed TSi, TSr
//!  responder             narrow(policies, TSi, TSr)  ->  Narrowed
//! ```
//!
//! A selector is a box of three spans: addresses, protocols, and ports. What is in two of them is a box again, and what is
//! in one and not in others is a few boxes.
//!
//! Any port takes in packets whose port cannot be seen, as of a later fragment; a range of ports does not, and OPAQUE has
//! no others (RFC 4301 §4.4.1.1). Types and codes of ICMP are ports, the type in the upper octet (RFC 7296 §3.13.1).

mod configured;
mod narrowing;

pub use configured::{ConfiguredSelectors, SelectorError};
pub use narrowing::{Narrowed, Policy, narrow};

use crate::{
    kept::{Damaged, Keep, Reader, Writer, keep},
    message::{self, Addresses, TsRange},
};
use portcullis_sadb::{ANY_PORT, Flow, OPAQUE_PORT};
use std::{fmt, net::IpAddr, ops::RangeInclusive, sync::Arc};

/// Numbers from one to another, both of them in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Span {
    first: u128,
    last: u128,
}

impl Span {
    const fn new(first: u128, last: u128) -> Span {
        Span { first, last }
    }

    const fn one(number: u128) -> Span {
        Span::new(number, number)
    }

    fn and(self, other: Span) -> Option<Span> {
        let both = Span::new(self.first.max(other.first), self.last.min(other.last));
        (both.first <= both.last).then_some(both)
    }

    /// What is in front of another, and what is behind it.
    fn around(self, other: Span) -> impl Iterator<Item = Span> {
        let before =
            (self.first < other.first).then(|| Span::new(self.first, self.last.min(other.first - 1)));
        let behind = (self.last > other.last).then(|| Span::new(self.first.max(other.last + 1), self.last));
        before.into_iter().chain(behind)
    }
}

/// Any protocol, which is 0 on the wire.
const ANY_PROTOCOL: Span = Span::new(0, 255);
/// Where no port can be seen: one more than the ports.
const OPAQUE: Span = Span::one(1 << 16);
/// Any port, and where none can be seen.
const ANY: Span = Span::new(0, 1 << 16);

/// Packets by the address, the protocol and the port of one side.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    is_v4: bool,
    /// Addresses, protocols, ports.
    spans: [Span; 3],
}

impl TrafficSelector {
    /// Everything by IPv4.
    pub const ALL_V4: TrafficSelector =
        TrafficSelector { is_v4: true, spans: [Span::new(0, u32::MAX as u128), ANY_PROTOCOL, ANY] };
    /// Everything by IPv6.
    pub const ALL_V6: TrafficSelector =
        TrafficSelector { is_v4: false, spans: [Span::new(0, u128::MAX), ANY_PROTOCOL, ANY] };

    /// All between two addresses, of any protocol; `None` if they are not of a family, or the wrong way round.
    pub fn between(first: IpAddr, last: IpAddr) -> Option<TrafficSelector> {
        let [from, to] = [first, last].map(|address| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        });
        let spans = [Span::new(from, to), ANY_PROTOCOL, ANY];
        (first.is_ipv4() == last.is_ipv4() && from <= to)
            .then_some(TrafficSelector { is_v4: first.is_ipv4(), spans })
    }

    /// Of these, those of a protocol and of ports; ports are all of [`ANY_PORT`], [`OPAQUE_PORT`], or some. `None` where
    /// the protocol is 0, which is any, and the ports are not, or where ports are the wrong way round (RFC 7296 §3.13.1).
    pub fn of(self, protocol: u8, ports: RangeInclusive<u16>) -> Option<TrafficSelector> {
        let protocols = if protocol == 0 { ANY_PROTOCOL } else { Span::one(protocol.into()) };
        let ports = match ports {
            any if any == ANY_PORT => ANY,
            _ if protocol == 0 => return None,
            opaque if opaque == OPAQUE_PORT => OPAQUE,
            some if some.is_empty() => return None,
            some => Span::new((*some.start()).into(), (*some.end()).into()),
        };
        Some(TrafficSelector { spans: [self.spans[0], protocols, ports], ..self })
    }

    /// Both sides of a packet, source and destination: what goes first in TSi and TSr when a packet wants an SA
    /// (RFC 7296 §2.9).
    pub fn of_flow(flow: &Flow) -> [TrafficSelector; 2] {
        let ports = flow.ports.map_or([ANY, ANY], |(s, d)| [s, d].map(|port| Span::one(port.into())));
        let side = |address, ports| {
            let host = TrafficSelector::between(address, address).expect("an address is not above itself");
            TrafficSelector { spans: [host.spans[0], Span::one(flow.protocol.into()), ports], ..host }
        };
        [side(flow.src, ports[0]), side(flow.dst, ports[1])]
    }

    /// The first and the last address.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        let address = |bits: u128| match self.is_v4 {
            true => IpAddr::V4((bits as u32).into()),
            false => IpAddr::V6(bits.into()),
        };
        (address(self.spans[0].first), address(self.spans[0].last))
    }

    /// The protocol; `None` is any.
    pub fn protocol(&self) -> Option<u8> {
        (self.spans[1] != ANY_PROTOCOL).then_some(self.spans[1].first as u8)
    }

    /// The ports as the SADB has them: [`ANY_PORT`], [`OPAQUE_PORT`], or some.
    pub fn ports(&self) -> RangeInclusive<u16> {
        match self.spans[2] {
            ANY => ANY_PORT,
            OPAQUE => OPAQUE_PORT,
            Span { first, last } => first as u16..=last as u16,
        }
    }

    /// What is in both.
    pub fn and(&self, other: &TrafficSelector) -> Option<TrafficSelector> {
        let mut both = *self;
        for (span, other) in both.spans.iter_mut().zip(other.spans) {
            *span = span.and(other)?;
        }
        (self.is_v4 == other.is_v4).then_some(both)
    }

    fn is_in(&self, other: &TrafficSelector) -> bool {
        self.and(other) == Some(*self)
    }

    /// What is in it and not in another, in boxes that have nothing in common. Their ports need not be such as selectors
    /// have.
    fn without(&self, other: &TrafficSelector) -> Vec<TrafficSelector> {
        let Some(both) = self.and(other) else { return vec![*self] };
        let (mut left, mut rest) = (vec![], *self);
        for dimension in 0..3 {
            for span in rest.spans[dimension].around(both.spans[dimension]) {
                let mut piece = rest;
                piece.spans[dimension] = span;
                left.push(piece);
            }
            rest.spans[dimension] = both.spans[dimension];
        }
        left
    }

    /// That of a message; `None` if it is of another type, or of nothing: no address, no port, or ports without a
    /// protocol (RFC 7296 §3.13.1).
    pub fn parse(selector: &message::TrafficSelector) -> Option<TrafficSelector> {
        let message::TrafficSelector::Range(TsRange { protocol, ports, addresses }) = selector else {
            return None;
        };
        let (first, last) = addresses.bounds();
        TrafficSelector::between(first, last)?.of(*protocol, ports.clone())
    }

    /// As it is in a message.
    pub fn emit(&self) -> message::TrafficSelector {
        let addresses = match self.addresses() {
            (IpAddr::V4(first), IpAddr::V4(last)) => Addresses::V4(first..=last),
            (IpAddr::V6(first), IpAddr::V6(last)) => Addresses::V6(first..=last),
            _ => unreachable!("both are of its family"),
        };
        let (protocol, ports) = (self.protocol().unwrap_or(0), self.ports());
        message::TrafficSelector::Range(TsRange { protocol, ports, addresses })
    }
}

/// As a string that it could be configured by.
impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.addresses();
        let bits = if self.is_v4 { 32 } else { 128 };
        let Span { first: from, last: to } = self.spans[0];
        let free = 128 - (from ^ to).leading_zeros();
        let low = 1u128.checked_shl(free).unwrap_or(0).wrapping_sub(1);
        if from & low == 0 && to & low == low {
            write!(f, "{first}/{}", bits - free)?;
        } else {
            write!(f, "{first}-{last}")?;
        }
        configured::write_next_layer(f, self.protocol(), &self.ports())
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Selectors of one side, as many as there are in a payload at most, the most important first.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct TrafficSelectors(Vec<TrafficSelector>);

impl TrafficSelectors {
    /// A payload counts its selectors with an octet (RFC 7296 §3.13).
    pub const MOST: usize = 255;

    /// The first [`TrafficSelectors::MOST`] of these.
    pub fn new(selectors: impl IntoIterator<Item = TrafficSelector>) -> TrafficSelectors {
        // Each child SA keeps some.
        let mut all: Vec<_> = selectors.into_iter().take(TrafficSelectors::MOST).collect();
        all.shrink_to_fit();
        TrafficSelectors(all)
    }

    /// Those of a payload that can be understood. The others are narrowed away: nobody need accept them.
    pub fn parse(selectors: &[message::TrafficSelector]) -> TrafficSelectors {
        TrafficSelectors::new(selectors.iter().filter_map(TrafficSelector::parse))
    }

    /// For a payload.
    pub fn emit(&self) -> Vec<message::TrafficSelector> {
        self.0.iter().map(TrafficSelector::emit).collect()
    }

    /// These behind another: that of the packet that wants an SA (RFC 7296 §2.9).
    pub fn behind(&self, first: TrafficSelector) -> TrafficSelectors {
        TrafficSelectors::new([first].into_iter().chain(self.0.iter().copied()))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &TrafficSelector> {
        self.0.iter()
    }

    /// The one address that all of them have, if it is one.
    pub fn host(&self) -> Option<IpAddr> {
        let (first, last) = self.0.first()?.addresses();
        let is_its = |one: &TrafficSelector| one.addresses() == (first, first);
        (first == last && self.0.iter().all(is_its)).then_some(first)
    }

    /// The same of one address.
    pub fn at(&self, address: IpAddr) -> TrafficSelectors {
        let host = TrafficSelector::between(address, address).expect("an address is not above itself");
        let at = |one: &TrafficSelector| {
            let [_, protocols, ports] = one.spans;
            TrafficSelector { spans: [host.spans[0], protocols, ports], ..host }
        };
        TrafficSelectors::new(self.0.iter().map(at))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all that is in a selector is in some of these, which are ours: the time is that of their number cubed.
    pub fn covers(&self, selector: &TrafficSelector) -> bool {
        let mut left = vec![*selector];
        for one in &self.0 {
            left = left.iter().flat_map(|piece| piece.without(one)).collect();
        }
        left.is_empty()
    }

    /// These without those that are in others.
    fn merged(&self) -> TrafficSelectors {
        let mut all = TrafficSelectors::default();
        self.0.iter().for_each(|one| _ = all.add(*one));
        TrafficSelectors::new(all.0)
    }

    /// Adds one, if it is in none of these, in the place of the first that is in it. Nothing if there is no room.
    fn add(&mut self, selector: TrafficSelector) -> Option<()> {
        if self.0.iter().any(|one| selector.is_in(one)) {
            return Some(());
        }
        let at = self.0.iter().position(|one| one.is_in(&selector)).unwrap_or(self.0.len());
        self.0.retain(|one| !one.is_in(&selector));
        (self.0.len() < TrafficSelectors::MOST).then(|| self.0.insert(at, selector))
    }
}

/// As strings that they could be configured by, with `, ` between.
impl fmt::Display for TrafficSelectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(TrafficSelector::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

keep!(TrafficSelectors(_));
keep!(Policy { local, remote });

impl Keep for Arc<Policy> {
    fn keep(&self, to: &mut Writer) {
        (**self).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Arc<Policy>, Damaged> {
        Policy::kept(from).map(Arc::new)
    }
}

/// As in a message, which says what can be one.
impl Keep for TrafficSelector {
    fn keep(&self, to: &mut Writer) {
        let (first, last) = self.addresses();
        (first, last).keep(to);
        self.protocol().keep(to);
        (*self.ports().start(), *self.ports().end()).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<TrafficSelector, Damaged> {
        let (first, last) = Keep::kept(from)?;
        let protocol: Option<u8> = Keep::kept(from)?;
        let (start, end) = Keep::kept(from)?;
        let all = TrafficSelector::between(first, last);
        all.and_then(|all| all.of(protocol.unwrap_or(0), start..=end)).ok_or(Damaged("traffic selector"))
    }
}

#[cfg(test)]
mod tests;
