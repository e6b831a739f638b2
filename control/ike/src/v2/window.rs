//! Message IDs, and what is sent again until it is answered (RFC 7296 §2.1, §2.2, §2.3).
//!
//! Each end has one request under way at a time, and keeps the answer to the other's last one. That is the window without
//! SET_WINDOW_SIZE (RFC 7296 §2.3): we send none, so that the peer asks one thing at a time, and take no notice of the peer's, which
//! says what we may do and need not.

use crate::{
    kept::{Damaged, Keep, Reader, Writer},
    retransmission::Open,
};
use sha2::{Digest, Sha256};

pub use crate::retransmission::{Datagrams, Late, Retransmission};

/// The last request of the peer, and what it was answered.
#[derive(Debug)]
pub struct Answered {
    /// Of its only or first datagram, by which it is known again.
    digest: [u8; 32],
    datagrams: Datagrams,
}

impl Answered {
    /// Its octets.
    pub fn octets(&self) -> usize {
        self.datagrams.iter().map(Vec::len).sum()
    }

    /// What is to be sent again for a request of this digest, if it is that.
    pub fn again(&self, digest: &[u8; 32]) -> Option<&Datagrams> {
        (self.digest == *digest).then_some(&self.datagrams)
    }
}

/// What a message ID of a request says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// The peer's next request.
    New,
    /// Its last one.
    Last,
    /// Any other: long answered, or not due.
    Other,
}

/// The message IDs of an IKE SA, both ends'.
#[derive(Debug, Default)]
pub struct Window {
    next: u32,
    open: Option<Open>,
    expected: u32,
    answered: Option<Answered>,
}

impl Window {
    /// The ID of the request that is under way, or else of the next one.
    pub fn request_id(&self) -> u32 {
        self.next
    }

    /// The ID of the peer's next request: while one is being answered, of that.
    pub fn expected_id(&self) -> u32 {
        self.expected
    }

    /// Requests go on at these IDs, ours and the peer's; what is under way is forgotten.
    pub fn go_on_at(&mut self, next: u32, expected: u32) {
        *self = Window { next, expected, ..Window::default() };
    }

    /// Whether a request is under way.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A request is under way, sent now. In the place of one that has the same ID (RFC 7296 §2.6).
    pub fn open(&mut self, datagrams: Datagrams, how: &Retransmission, now_ms: u64, random: u8) {
        self.open = Some(Open::new(datagrams, how, now_ms, random));
    }

    /// The request that is under way has its response.
    pub fn close(&mut self) {
        if self.open.take().is_some() {
            self.next += 1;
        }
    }

    /// When a request is next to be sent again or given up.
    pub fn due_ms(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.due_ms)
    }

    /// What is to be done about a request that is due.
    pub fn late(&mut self, how: &Retransmission, now_ms: u64, random: u8) -> Option<Late> {
        self.open.as_mut()?.late(how, now_ms, random)
    }

    /// How often the request that is under way was sent again.
    pub fn again(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.again)
    }

    /// What the ID of a request is.
    pub fn known(&self, id: u32) -> Known {
        if id == self.expected {
            Known::New
        } else if id.checked_add(1) == Some(self.expected) {
            Known::Last
        } else {
            Known::Other
        }
    }

    /// The answer to the peer's last request, if this is it: its only datagram, or the first (RFC 7383 §2.6.1). It was
    /// authenticated then, and is the same now (RFC 7296 §2.1).
    pub fn answer_again(&self, datagram: &[u8]) -> Option<&Datagrams> {
        self.answered.as_ref()?.again(&digest(datagram))
    }

    /// What the peer's last request was answered, of an IKE SA that is gone.
    pub fn take_answered(&mut self) -> Option<Answered> {
        self.answered.take()
    }

    /// The peer's request is answered; its next one is waited for.
    pub fn answer(&mut self, request: [u8; 32], mut datagrams: Datagrams) {
        // It stays as long as the IKE SA, if the peer asks nothing more.
        datagrams.shrink_to_fit();
        datagrams.iter_mut().for_each(Vec::shrink_to_fit);
        self.answered = Some(Answered { digest: request, datagrams });
        self.expected += 1;
    }
}

/// What a request is known again by.
pub fn digest(datagram: &[u8]) -> [u8; 32] {
    Sha256::digest(datagram).into()
}

crate::kept::keep!(Answered { digest, datagrams });

impl Window {
    /// Keeps what is of the peer's requests.
    pub(super) fn keep_answered(&self, to: &mut Writer) {
        self.expected.keep(to);
        self.answered.keep(to);
    }

    /// Keeps what is of ours.
    pub(super) fn keep_open(&self, to: &mut Writer) {
        self.next.keep(to);
        self.open.keep(to);
    }

    /// Makes one again of both, in this order.
    pub(super) fn kept_answered(from: &mut Reader<'_>) -> Result<Window, Damaged> {
        let (expected, answered) = Keep::kept(from)?;
        Ok(Window { expected, answered, ..Window::default() })
    }

    /// The rest of it.
    pub(super) fn take_open(&mut self, from: &mut Reader<'_>) -> Result<(), Damaged> {
        (self.next, self.open) = Keep::kept(from)?;
        Ok(())
    }

    /// The request that is under way is asked anew.
    pub(super) fn open_anew(&mut self, now_ms: u64) {
        self.open.iter_mut().for_each(|open| open.anew(now_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_again_and_given_up() {
        let (mut window, how) = (Window::default(), Retransmission { tries: 2, ..Retransmission::default() });
        assert_eq!((window.due_ms(), window.late(&how, u64::MAX, 0)), (None, None));
        window.open(vec![vec![1]], &how, 10, 0);
        assert_eq!((window.due_ms(), window.late(&how, 4009, 0)), (Some(4010), None));
        assert_eq!(window.late(&how, 4010, 0), Some(Late::Again(vec![vec![1]])));
        assert_eq!(window.due_ms(), Some(4010 + 7200));
        assert_eq!(window.late(&how, 20_000, 0), Some(Late::Again(vec![vec![1]])));
        assert_eq!(window.late(&how, 60_000, 0), Some(Late::GivenUp));
        assert_eq!(window.request_id(), 0);
        window.close();
        assert_eq!((window.request_id(), window.due_ms()), (1, None));
        window.close();
        assert_eq!(window.request_id(), 1, "only what was open is closed");
    }

    // RFC 7296 §2.1
    #[test]
    fn the_last_request_is_answered_again_and_no_other() {
        let mut window = Window::default();
        assert_eq!([0, 1, u32::MAX].map(|id| window.known(id)), [Known::New, Known::Other, Known::Other]);
        window.answer(digest(b"request"), vec![b"answer".to_vec()]);
        assert_eq!([0, 1, 2].map(|id| window.known(id)), [Known::Last, Known::New, Known::Other]);
        assert_eq!(window.answer_again(b"request"), Some(&vec![b"answer".to_vec()]));
        assert_eq!(window.answer_again(b"another"), None);
        window.answer(digest(b"next"), vec![]);
        assert_eq!([0, 1, 2].map(|id| window.known(id)), [Known::Other, Known::Last, Known::New]);
        assert_eq!(window.answer_again(b"request"), None);
    }
}
