//! What AUTH payloads are made over, and AUTH by a shared key (RFC 7296 §2.15).

use super::{
    Secret,
    keys::{Keys, Role},
    transform::Prf,
};
use crate::message::{Header, Payload};

/// What the shared key is mixed with, so that it is not in memory as it is in a configuration.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// The octets that an end signs: its first message as it was sent, the other's nonce, its identity as it is in the body
/// of its ID payload, and [`IntAuth::octets`] (RFC 7296 §2.15, RFC 9242 §3.3.2).
pub fn signed_octets(
    prf: Prf,
    message: &[u8],
    their_nonce: &[u8],
    sk_p: &Secret,
    id: &[u8],
    int_auth: &[u8],
) -> Vec<u8> {
    let maced_id = prf.mac(sk_p.bytes(), &[id]);
    [message, their_nonce, maced_id.bytes(), int_auth].concat()
}

/// AUTH by a shared key, by the key that EAP has made, or by SK_pi or SK_pr where there is none (RFC 7296 §2.15, §2.16,
/// RFC 7619 §2.1). It is compared as a [`Secret`], which takes the same time whatever is in it.
pub fn by_shared_key(prf: Prf, key: &[u8], signed_octets: &[u8]) -> Secret {
    let padded = prf.mac(key, &[KEY_PAD]);
    prf.mac(padded.bytes(), &[signed_octets])
}

/// A message of IKE_INTERMEDIATE, as it would have been in one piece if it came in fragments.
#[derive(Clone, Copy, Debug)]
pub struct Intermediate<'a> {
    /// Its octets from the IKE header to the end of the generic header of the SK payload.
    pub headers: &'a [u8],
    /// What is in that payload, decrypted and without padding.
    pub payloads: &'a [u8],
}

/// Why a message of IKE_INTERMEDIATE cannot be authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IntermediateError {
    /// There is no room for the two headers.
    #[error("a message of IKE_INTERMEDIATE has {0} octets of headers, which are no headers")]
    Headers(usize),
    /// More than Payload Length can say.
    #[error("a message of IKE_INTERMEDIATE has {0} octets of payloads, which is too many")]
    Payloads(usize),
}

/// What both ends have said in IKE_INTERMEDIATE: IntAuth_i and IntAuth_r (RFC 9242 §3.3.2).
#[derive(Clone, Default, Debug)]
pub struct IntAuth(Option<[Secret; 2]>);

impl IntAuth {
    /// Adds an exchange, by the keys that its messages were sealed with.
    pub fn add(
        &mut self,
        keys: &Keys,
        request: Intermediate<'_>,
        response: Intermediate<'_>,
    ) -> Result<(), IntermediateError> {
        let [i, r] = self.0.as_ref().map_or([&[][..]; 2], |[i, r]| [i.bytes(), r.bytes()]);
        let i = chained(keys, Role::Initiator, i, request)?;
        let r = chained(keys, Role::Responder, r, response)?;
        self.0 = Some([i, r]);
        Ok(())
    }

    /// The last part of what is signed; nothing without IKE_INTERMEDIATE. `message_id` is that of the first IKE_AUTH.
    pub fn octets(&self, message_id: u32) -> Vec<u8> {
        self.0
            .as_ref()
            .map_or(Vec::new(), |[i, r]| [i.bytes(), r.bytes(), &message_id.to_be_bytes()].concat())
    }
}

/// IntAuth of an end with a further message of it.
fn chained(
    keys: &Keys,
    sender: Role,
    before: &[u8],
    message: Intermediate<'_>,
) -> Result<Secret, IntermediateError> {
    let Intermediate { headers, payloads } = message;
    let inner = headers.len().checked_sub(Header::LEN + Payload::HEADER_LEN);
    let inner = inner.ok_or(IntermediateError::Headers(headers.len()))?;
    // RFC 9242 §3.3.2: both lengths as if there were neither IV, padding nor ICV.
    let too_long = |_| IntermediateError::Payloads(payloads.len());
    let length = u32::try_from(headers.len() + payloads.len()).map_err(too_long)?;
    let payload_length = u16::try_from(Payload::HEADER_LEN + payloads.len()).map_err(too_long)?;
    // Both headers end with their length, of four and of two octets.
    let (ike, rest) = headers.split_at(Header::LEN);
    let parts = [
        before,
        &ike[..Header::LEN - 4],
        &length.to_be_bytes(),
        &rest[..inner + 2],
        &payload_length.to_be_bytes(),
        payloads,
    ];
    Ok(keys.suite().prf().mac(keys.sk_p(sender).bytes(), &parts))
}

#[cfg(test)]
mod tests;
