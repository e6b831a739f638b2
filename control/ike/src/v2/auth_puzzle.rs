//! Puzzles in IKE_AUTH (RFC 8019 §7.2): who has solved one to begin may have to solve another before the responder computes the
//! secret and the keys, and opens what is sealed.
//!
//! ```text
//!  initiator                                    responder
//!  N(COOKIE), PS, SAi1, KEi, Ni          ──▶
//!                                        ◀──    SAr1, KEr, Nr, N(PUZZLE)   no secret yet
//!  PS, SK {IDi, AUTH...}                 ──▶                               four keys by which the MAC of Nr | SPIr ends in so
//!                                        ◀──    SK {IDr, AUTH...}          many zeros; then the secret, keys, and what is sealed
//! ```
//!
//! Of a message in fragments, the first has the solution (RFC 8019 §7.2.2). Others that come before it, or while the secret is
//! computed, are held until there are keys.
//!
//! # Dangers
//! Anybody who sees the SPIs can send fragments that are to be held: an IKE SA holds no more than a message may be, and counts as
//! what half-open ones hold together ([`super::fragments::Unproven`]).

use super::{
    channel::{Dropped, is_first},
    context::Context,
    fragments::{MOST_FRAGMENTS, MOST_OCTETS},
    ike_sa::{Closed, IkeSa, Path, Then},
    job::{Job, Outcome},
    puzzle::{self, Puzzle},
    sa_init::Init,
};
use crate::{
    crypto::exchange::Initiator,
    message::{Flags, Fragment, IkeSpi, Message},
    proposal::Agreement,
};

/// What a responder waits for a solution with.
#[derive(Debug)]
pub(super) struct Unsolved {
    puzzle: Puzzle,
    /// What the secret and keys are to be made of, where there are none yet.
    keyless: Option<Keyless>,
    is_solved: bool,
    /// Datagrams that are to be read when there are keys.
    held: Vec<(Vec<u8>, Path)>,
}

/// A key exchange whose secret is not computed yet.
#[derive(Debug)]
pub(super) struct Keyless {
    pub private: Initiator,
    /// The initiator's public value.
    pub theirs: Vec<u8>,
    pub agreement: Agreement,
    pub init: Init,
}

/// The puzzle of an IKE SA, by a prf that both have.
// RFC 8019 §7.2.3
pub(super) fn puzzle(agreement: &Agreement, bits: u8, nr: &[u8], responder: IkeSpi) -> Option<Puzzle> {
    Puzzle::new(&[agreement.answer(&[])], bits, &string(nr, responder))
}

/// What the MACs of a solution are of.
pub(super) fn string(nr: &[u8], responder: IkeSpi) -> Vec<u8> {
    [nr, &responder.octets()].concat()
}

impl Unsolved {
    /// Octets that are held, with what it takes to tell them apart.
    pub fn octets(&self) -> usize {
        self.octets_of_datagrams() + self.held.len() * size_of::<(Vec<u8>, Path)>()
    }

    fn octets_of_datagrams(&self) -> usize {
        self.held.iter().map(|(octets, _)| octets.len()).sum()
    }

    /// Nr, while there are no keys.
    #[cfg(test)]
    pub fn nr(&self) -> &[u8] {
        self.keyless.as_ref().map_or(&[], |keyless| &keyless.init.nr)
    }

    /// They are let go.
    pub fn forget(&mut self) {
        self.held = vec![];
    }

    fn has_room(&self, octets: &[u8]) -> bool {
        let is_full = self.held.len() >= usize::from(MOST_FRAGMENTS);
        !is_full && self.octets_of_datagrams() + octets.len() <= MOST_OCTETS
    }

    /// One more, if there is room for it.
    fn hold(&mut self, octets: &[u8], path: Path) -> Result<(), Dropped> {
        if !self.has_room(octets) {
            return Err(Dropped::Puzzle);
        }
        self.held.push((octets.to_vec(), path));
        Ok(())
    }
}

impl IkeSa {
    /// The initiator is to solve this one.
    pub(super) fn await_solution(&mut self, puzzle: Puzzle, keyless: Option<Keyless>) {
        self.unsolved = Some(Box::new(Unsolved { puzzle, keyless, is_solved: false, held: vec![] }));
    }

    /// A message before there are keys for it; nothing of it is looked at but the solution. False if it is not for that.
    pub(super) fn receive_unsolved(
        &mut self,
        octets: &[u8],
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<bool, Dropped> {
        let Some(unsolved) = &mut self.unsolved else { return Ok(false) };
        let message = Message::parse(octets)?;
        let header = message.header;
        if is_first(header.exchange) || header.flags.contains(Flags::RESPONSE) {
            return Ok(false);
        }
        if header.message_id != self.channel.expected_id() {
            return Err(Dropped::MessageId(header.message_id));
        }
        let sealed = message.sealed.as_ref().ok_or(Dropped::Sealing)?;
        let is_behind = sealed.fragment.map_or(1, Fragment::number) > 1;
        // RFC 8019 §7.2.4
        match puzzle::solution(&message.payloads) {
            _ if unsolved.is_solved || is_behind => unsolved.hold(octets, path)?,
            Some(keys) if unsolved.puzzle.is_solved_by(keys) => {
                // It is whole, and needs no others; or they may be anybody's, leave it no room, and come again if they are the peer's.
                if sealed.fragment.is_none() || !unsolved.has_room(octets) {
                    unsolved.forget();
                }
                unsolved.hold(octets, path)?;
                unsolved.is_solved = true;
                self.solved(cx);
            }
            _ => return Err(Dropped::Puzzle),
        }
        Ok(true)
    }

    fn solved(&mut self, cx: &mut Context<'_>) {
        let keyless = self.unsolved.as_mut().and_then(|unsolved| unsolved.keyless.take());
        match keyless {
            Some(Keyless { private, theirs, agreement, init }) => {
                let then = Then::InitSecret(Box::new((agreement, init)));
                self.after(Job::Finish(private, theirs), then, cx);
            }
            None => self.receive_held(cx),
        }
    }

    /// There is a secret, and are keys.
    pub(super) fn init_secret(
        &mut self,
        (agreement, init): (Agreement, Init),
        outcome: Outcome,
        cx: &mut Context<'_>,
    ) {
        let Outcome::Finished(secret) = outcome else { return };
        let secret = match secret {
            Ok(secret) => secret,
            Err(error) => return self.close(Closed::Exchange(error), cx),
        };
        if self.make_keys(&agreement, secret, init, cx) {
            self.receive_held(cx);
        }
    }

    /// What is held is read. The keys stay, whatever it proves to be (RFC 8019 §7.2.4).
    fn receive_held(&mut self, cx: &mut Context<'_>) {
        let held = self.unsolved.take().map_or(vec![], |unsolved| unsolved.held);
        for (octets, path) in held {
            let _ = self.receive(&octets, path, cx);
        }
    }

    /// An initiator has solved the puzzle: it goes on.
    pub(super) fn auth_solved(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Solved(solution) = outcome else { return };
        match (solution, &mut self.init) {
            (Some(solution), Some(init)) => {
                init.solution = Some(solution);
                self.begin_auth(cx);
            }
            _ => self.close(Closed::TooHard, cx),
        }
    }
}
