//! What takes an engine so long that others should not wait for it: key exchange and signatures, which any thread may do, and
//! names of hosts, which whoever has a resolver looks up.

use crate::{
    crypto::{
        Secret,
        exchange::{self, ExchangeError, Initiator},
        signature::SignatureError,
        transform::KeyExchange,
    },
    message::Authentication,
    proof::{Signing, Unproven, Verification},
    v2::{
        eap::{Turn, Turned},
        puzzle::Puzzle,
    },
};
use rand_core::CryptoRng;
use std::net::IpAddr;

/// What is to be done.
#[derive(Debug)]
pub enum Job {
    /// A private key for a key exchange that this end begins.
    Generate(KeyExchange),
    /// The other end's part of a key exchange, by the public value of who began it.
    Respond(KeyExchange, Vec<u8>),
    /// The rest of a key exchange that this end began, by the other's public value.
    Finish(Initiator, Vec<u8>),
    /// Four keys that solve a puzzle (RFC 8019).
    Solve(Puzzle),
    /// A signature that proves who we are.
    Sign(Box<Signing>),
    /// Whether a signature proves who the peer is.
    Verify(Box<Verification>),
    /// What is to be said to a packet of EAP.
    Eap(Turn),
    /// The addresses of a host, by its name. This is not done by [`run`](Job::run), which finds none.
    LookUp(String),
}

fn is_fast(method: KeyExchange) -> bool {
    matches!(method, KeyExchange::X25519 | KeyExchange::MlKem512 | KeyExchange::MlKem768)
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// The private key, and the public value.
    Generated(Initiator, Vec<u8>),
    /// The public value, and the secret.
    Responded(Result<(Vec<u8>, Secret), ExchangeError>),
    /// The secret.
    Finished(Result<Secret, ExchangeError>),
    /// The keys, if there are any.
    Solved(Option<Vec<u8>>),
    /// What AUTH payloads have.
    Signed(Result<Vec<Authentication>, SignatureError>),
    /// By which of those that may be trusted it is so, or why by none.
    Verified(Result<usize, Vec<Unproven>>),
    /// What is said.
    Eap(Turned),
    /// The addresses that there are; none if the name is not found.
    LookedUp(Vec<IpAddr>),
}

impl Job {
    /// Whether it takes about as long as it does to wake another thread and be woken by it, whatever the peer has sent.
    pub fn is_short(&self) -> bool {
        match self {
            Job::Generate(method) | Job::Respond(method, _) => is_fast(*method),
            Job::Finish(initiator, _) => is_fast(initiator.method()),
            Job::Sign(signing) => signing.is_short(),
            Job::Verify(_) | Job::Solve(_) | Job::Eap(_) | Job::LookUp(_) => false,
        }
    }

    /// Does it.
    pub fn run(self, rng: &mut dyn CryptoRng) -> Outcome {
        match self {
            Job::Generate(method) => {
                let (initiator, public) = Initiator::new(method, rng);
                Outcome::Generated(initiator, public)
            }
            Job::Respond(method, theirs) => Outcome::Responded(exchange::respond(method, &theirs, rng)),
            Job::Finish(initiator, theirs) => Outcome::Finished(initiator.finish(&theirs)),
            Job::Solve(puzzle) => Outcome::Solved(puzzle.solve()),
            Job::Sign(signing) => Outcome::Signed(signing.run(rng)),
            Job::Verify(verification) => Outcome::Verified(verification.run()),
            Job::Eap(turn) => Outcome::Eap(turn.run(rng)),
            Job::LookUp(_) => Outcome::LookedUp(vec![]),
        }
    }
}
