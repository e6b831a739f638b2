//! Messages in parts, as several vendors cut them, and say so by a Vendor ID: each part is a message of its own in clear, with one
//! payload, and all of them in a row are the message from its header on.
//!
//! # Dangers
//! Nobody knows whose a part is. So what is put together has an end, as has what all ISAKMP SAs hold together
//! ([`Unproven`](crate::v2::fragments::Unproven)); and what comes of it is as any other message, which has still to be authenticated.

use super::{ike_sa::IkeSa, messages::Raw};
use crate::{
    context::Context,
    ike_sa::{Path, Phase},
    message::{
        ExchangeType, Flags, Header, PayloadType, Version,
        isakmp::{self, Chain, Fragment, Payload},
    },
    retransmission::Datagrams,
    v2::{channel::Dropped, fragments::MOST_OCTETS},
};
use std::collections::BTreeMap;

/// Octets around a part, at most: ISAKMP's header, the payload's, and what is in it besides the part.
const AROUND: usize = 28 + 4 + 4;

/// Octets of a part, at least, whatever a packet has room for.
const LEAST: usize = 128;

/// Which message a part is of: the number that it has, and the exchange.
type Which = (u16, ExchangeType, u32);

/// A message that is not whole, if there is one.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    of: Option<Which>,
    /// By number, from 1 on.
    parts: BTreeMap<u8, Vec<u8>>,
    last: Option<u8>,
}

impl Fragments {
    /// Octets that it holds, with what it takes to tell them apart.
    pub fn octets(&self) -> usize {
        self.parts.values().map(|part| part.len() + size_of::<(u8, Vec<u8>)>()).sum()
    }

    /// Adds a part. All of the message, once it is there.
    pub fn add(&mut self, header: &Header, part: &Fragment) -> Option<Vec<u8>> {
        let which = (part.id, header.exchange, header.message_id);
        let is_behind = |last: u8| part.number > last || part.is_last && part.number != last;
        // Some number all messages the same.
        let is_other = self.of != Some(which)
            || self.parts.get(&part.number).is_some_and(|there| *there != part.data)
            || self.last.is_some_and(is_behind)
            || part.is_last && self.parts.keys().any(|n| *n > part.number);
        if is_other {
            *self = Fragments { of: Some(which), ..Fragments::default() };
        }
        self.last = self.last.or(part.is_last.then_some(part.number));
        self.parts.insert(part.number, part.data.clone());
        let octets = self.parts.values().map(Vec::len).sum::<usize>();
        if octets > MOST_OCTETS {
            *self = Fragments::default();
        }
        let is_whole = self.last.is_some_and(|last| self.parts.len() == usize::from(last));
        is_whole.then(|| std::mem::take(self).parts.into_values().flatten().collect())
    }
}

impl IkeSa {
    /// A part of a message came. It is taken whether we have said that we take them or not: its message would be lost.
    pub(super) fn receive_fragment(
        &mut self,
        raw: &Raw<'_>,
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        let is_elsewhere = self.phase == Phase::Connecting && path.peer.ip() != self.first_peer.ip();
        if is_elsewhere {
            return Err(Dropped::Exchange);
        }
        let chain = Chain::parse(PayloadType::FRAGMENT, raw.body, false)?;
        let [Payload::Fragment(part)] = &chain.payloads[..] else { return Err(Dropped::Sealing) };
        let Some(octets) = self.fragments.add(&raw.header, part) else { return Ok(()) };
        let (header, first, body) = Header::parse(&octets)?;
        let cookies = |header: &Header| (header.initiator_spi, header.responder_spi);
        if header.version.major != Version::V1.major
            || cookies(&header) != cookies(&raw.header)
            || first == PayloadType::FRAGMENT
        {
            return Err(Dropped::Sealing);
        }
        self.receive(&Raw { header, first, body, octets: &octets }, path, cx)
    }

    /// Octets that are held for who may be anybody.
    pub(crate) fn unproven_octets(&self) -> usize {
        if matches!(self.phase, Phase::Closed(_)) { 0 } else { self.fragments.octets() }
    }

    /// Lets go what is not whole.
    pub(crate) fn forget_fragments(&mut self) {
        self.fragments = Fragments::default();
    }

    /// A message in as many parts as it must have, if the peer can put them together.
    pub(super) fn cut(&self, header: &Header, octets: Vec<u8>) -> Datagrams {
        let most = self.connection.fragment_octets;
        // Of an IP packet, with UDP and the non-ESP marker.
        let outside = if self.path.peer.is_ipv4() { 20 } else { 40 } + 8 + 4;
        if !self.abilities.fragments || most == 0 || octets.len() + outside <= most {
            return vec![octets];
        }
        let room = most.saturating_sub(outside + AROUND).max(LEAST);
        let count = octets.len().div_ceil(room);
        if count > u8::MAX.into() {
            return vec![octets];
        }
        // The same of a message that is sent again, and hardly that of another.
        let id = crate::v2::window::digest(&octets).first_chunk().map_or(1, |id| u16::from_be_bytes(*id) | 1);
        let header = Header { flags: Flags::default(), ..*header };
        let part = |(number, data): (u8, &[u8])| {
            let is_last = usize::from(number) == count;
            let part = Fragment { id, number, is_last, data: data.to_vec() };
            let (first, octets) = isakmp::emit(&[Payload::Fragment(part)])?;
            isakmp::message(&header, first, &octets)
        };
        (1..=u8::MAX).zip(octets.chunks(room)).filter_map(|one| part(one).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::IkeSpi;

    fn header(message_id: u32) -> Header {
        Header {
            initiator_spi: IkeSpi(1),
            responder_spi: IkeSpi(2),
            version: Version::V1,
            exchange: ExchangeType::QUICK_MODE,
            flags: Flags::default(),
            message_id,
        }
    }

    fn part(id: u16, number: u8, is_last: bool, data: &[u8]) -> Fragment {
        Fragment { id, number, is_last, data: data.to_vec() }
    }

    #[test]
    fn any_order_makes_the_message() {
        for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
            let mut fragments = Fragments::default();
            for (n, number) in order.into_iter().enumerate() {
                let part = part(7, number, number == 3, &[number; 2]);
                let mut whole = fragments.add(&header(1), &part);
                // What came twice changes nothing.
                if n < 2 {
                    assert_eq!(whole, None);
                    whole = fragments.add(&header(1), &part);
                }
                assert_eq!(whole, (n == 2).then(|| vec![1, 1, 2, 2, 3, 3]));
            }
            assert_eq!(fragments.octets(), 0);
        }
    }

    #[test]
    fn parts_of_another_message_take_the_place_of_those_that_are_there() {
        let mut fragments = Fragments::default();
        let mut add = |id, message_id, number, is_last, data: &[u8]| {
            fragments.add(&header(message_id), &part(id, number, is_last, data))
        };
        // Of another number, of another exchange, of another length, and of another text.
        assert_eq!((add(1, 1, 1, false, b"a"), add(2, 1, 2, true, b"b")), (None, None));
        assert_eq!(add(2, 1, 1, false, b"c"), Some(b"cb".to_vec()));
        assert_eq!((add(1, 1, 1, false, b"a"), add(1, 2, 2, true, b"b")), (None, None));
        assert_eq!((add(1, 1, 3, true, b"a"), add(1, 1, 2, true, b"b")), (None, None));
        assert_eq!(add(1, 1, 1, false, b"c"), Some(b"cb".to_vec()));
        assert_eq!((add(1, 1, 1, false, b"a"), add(1, 1, 1, false, b"c")), (None, None));
        assert_eq!(add(1, 1, 2, true, b"b"), Some(b"cb".to_vec()));
        // Behind the last there is none.
        assert_eq!((add(1, 1, 3, false, b"a"), add(1, 1, 2, true, b"b")), (None, None));
        assert_eq!(add(1, 1, 1, true, b"c"), Some(b"c".to_vec()));
    }

    #[test]
    fn there_is_an_end_to_a_message() {
        let mut fragments = Fragments::default();
        for number in 1..=u8::MAX {
            assert_eq!(fragments.add(&header(1), &part(1, number, false, &[0; 1000])), None);
            assert!(fragments.octets() <= MOST_OCTETS + 256 * size_of::<(u8, Vec<u8>)>());
        }
    }
}
