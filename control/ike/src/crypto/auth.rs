//! What AUTH payloads are made over, and AUTH by a shared key (RFC 7296 §2.15).

use super::{Secret, transform::Prf};

/// What the shared key is mixed with, so that it is not in memory as it is in a configuration.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// Octets of an IKE header, whose last four are the length of the message.
const HEADER: usize = 28;

/// Octets of a payload's generic header, whose last two are the length of the payload.
const GENERIC: usize = 4;

/// The octets that an end signs: its first message as it was sent, the other's nonce, its identity as it is in the body
/// of its ID payload, and what both said in IKE_INTERMEDIATE, if anything (RFC 7296 §2.15, RFC 9242 §3.3.2).
pub fn signed_octets(
    prf: Prf,
    message: &[u8],
    their_nonce: &[u8],
    sk_p: &Secret,
    id: &[u8],
    intermediate: &[u8],
) -> Vec<u8> {
    let maced_id = prf.mac(sk_p.bytes(), &[id]);
    [message, their_nonce, maced_id.bytes(), intermediate].concat()
}

/// AUTH by a shared key, by the key that EAP has made, or by SK_pi or SK_pr where there is none (RFC 7296 §2.15, §2.16,
/// RFC 7619 §2.1). It is compared as a [`Secret`], which takes the same time whatever is in it.
pub fn by_shared_key(prf: Prf, key: &[u8], signed_octets: &[u8]) -> Secret {
    let padded = prf.mac(key, &[KEY_PAD]);
    prf.mac(padded.bytes(), &[signed_octets])
}

/// What an end has said in IKE_INTERMEDIATE: IntAuth_i or IntAuth_r (RFC 9242 §3.3.2).
#[derive(Clone, Default, Debug)]
pub struct Intermediate(Option<Secret>);

impl Intermediate {
    /// Adds a message, sealed with the keys that `sk_p` is of: its octets from the IKE header to the end of the generic
    /// header of the SK payload, and what is in that payload, decrypted and without padding. What came in fragments is
    /// given as it would have been in one piece.
    ///
    /// Whether there were headers: `headers` must have room for both.
    #[must_use]
    pub fn add(&mut self, prf: Prf, sk_p: &Secret, headers: &[u8], payloads: &[u8]) -> bool {
        let Some(inner) = headers.len().checked_sub(HEADER + GENERIC) else { return false };
        // RFC 9242 §3.3.2: both lengths as if there were neither IV, padding nor ICV.
        let length = (headers.len() + payloads.len()) as u32;
        let payload_length = (GENERIC + payloads.len()) as u16;
        let before = self.0.as_ref().map(Secret::bytes).unwrap_or_default();
        let (ike, rest) = headers.split_at(HEADER);
        let parts = [
            before,
            &ike[..HEADER - 4],
            &length.to_be_bytes(),
            &rest[..inner + 2],
            &payload_length.to_be_bytes(),
            payloads,
        ];
        self.0 = Some(prf.mac(sk_p.bytes(), &parts));
        true
    }

    /// IntAuth of both ends: the last part of what is signed. `message_id` is that of the first IKE_AUTH.
    pub fn of_both(initiator: &Intermediate, responder: &Intermediate, message_id: u32) -> Vec<u8> {
        match (&initiator.0, &responder.0) {
            (Some(i), Some(r)) => [i.bytes(), r.bytes(), &message_id.to_be_bytes()].concat(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
