//! Why IKE SAs are gone.

use crate::{
    crypto::{auth::IntermediateError, exchange::ExchangeError},
    message::{Malformed, NotifyType, isakmp},
    proof::Unproven,
    proposal::AcceptError,
};

/// Why an IKE SA is gone.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Closed {
    /// The configuration lacks something.
    #[error("{0}")]
    Configured(&'static str),
    /// The peer has refused.
    #[error("the peer says {0}")]
    Peer(NotifyType),
    /// The peer has refused, in IKEv1.
    #[error("the peer says {0}")]
    PeerV1(isakmp::NotifyType),
    /// The peer takes nothing of what it was offered.
    #[error("the peer says {kind}: it was offered {offered}")]
    Offer {
        /// How it says so.
        kind: NotifyType,
        /// What it was offered.
        offered: String,
    },
    /// The peer does not take us for who we say to be, or is nobody whom we have asked for.
    #[error("the peer says {kind}: we are {mine}, by {by}, and asked for {theirs}")]
    Proof {
        /// How it says so.
        kind: NotifyType,
        /// Who we say to be.
        mine: String,
        /// How we prove it.
        by: String,
        /// Whom we have asked for.
        theirs: String,
    },
    /// The peer has left something out.
    #[error("the peer's message has no {0}")]
    Missing(&'static str),
    /// The peer has chosen what it was not offered.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// Its public value is none.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// What it has said cannot be authenticated.
    #[error(transparent)]
    Intermediate(#[from] IntermediateError),
    /// The peer has proven nothing.
    #[error("{who} is not authenticated: {why}")]
    Authentication {
        /// Who it says to be.
        who: String,
        /// What is wrong.
        why: Unproven,
    },
    /// The peer is somebody else.
    #[error("the peer is {found}, and should be {wanted}")]
    Identity {
        /// Who it is.
        found: String,
        /// Who it should be.
        wanted: String,
    },
    /// The peer is nobody whom a connection is for.
    #[error("no connection is for {theirs}{}: {misfits}", .asked.as_ref().map_or(String::new(), |asked| format!(", which asks for {asked}")))]
    Nobody {
        /// Who it is.
        theirs: String,
        /// Who it says that we are.
        asked: Option<String>,
        /// Why not, of each connection.
        misfits: String,
    },
    /// The peer has begun another, and has not got this one any more.
    #[error("the peer has begun another, and knows this one no more")]
    Superseded,
    /// The peer sends us elsewhere, and we do not go.
    #[error("the peer sends us to {to}, and {why}")]
    Redirect {
        /// Where.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// The peer has come back, and is not who it was.
    #[error("{0} has come back, and has not the keys that it had")]
    NotResumed(String),
    /// There is one of the same two identities.
    #[error("there is an IKE SA with {0} already")]
    NotUnique(String),
    /// Only one end has the PPK that is needed.
    #[error("a PPK is needed, and only one end has it")]
    NoPpk,
    /// The peer wants more work of us than we do.
    #[error("the peer's puzzle is harder than what is solved here, or none")]
    TooHard,
    /// What half-open IKE SAs hold is too much, and this is one of them.
    #[error("there is no room for its EAP beside that of other half-open IKE SAs")]
    NoRoom,
    /// The peer's message cannot be read.
    #[error("the peer's message cannot be read: {0}")]
    Syntax(Malformed),
    /// It was not authenticated in time.
    #[error("it was not authenticated in time")]
    HalfOpen,
    /// The peer does not answer.
    #[error("the peer does not answer")]
    Silent,
    /// The peer has deleted it.
    #[error("the peer has deleted it")]
    ByPeer,
    /// It was asked for.
    #[error("deleted")]
    ByUs,
}
