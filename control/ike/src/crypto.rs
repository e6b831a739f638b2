//! The cryptography of IKE SAs, by libraries: what is here is which octets go where.
//!
//! ```text
//!  transform   what can be negotiated: names, numbers, lengths
//!  exchange    key exchange, with Diffie-Hellman and with KEMs  ->  a shared secret
//!  prf, keys   the shared secret and the nonces  ->  the keys of an IKE SA, and of the SAs it makes
//!  auth        what each end signs, and how with a shared key
//!  cipher      messages sealed and opened with these keys
//!  key_log     these keys for whoever may look, off unless asked for
//!  signature   the proof of who holds the other end
//! ```
//!
//! # Dangers
//! - Randomness is an argument. Tests give what they know; all others give what nobody knows. One exception: what ring
//!   signs with ECDSA has nonces of the system's ([`signature`]).
//! - Secrets are wiped when dropped, and print as `(hidden)`. What libraries leave on the stack is not wiped.
//! - What is secret is compared in constant time. A reason why something is refused says nothing of the secret.

pub mod auth;
pub mod cipher;
pub mod exchange;
pub mod key_log;
pub mod keys;
pub mod prf;
mod secret;
pub mod signature;
pub mod transform;

#[cfg(test)]
pub(crate) mod vectors;

pub use secret::Secret;
