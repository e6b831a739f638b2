//! Why nothing came of a message.

use super::channel::Dropped;

/// Why nothing came of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Its IKE SA has dropped it.
    #[error(transparent)]
    Dropped(#[from] Dropped),
    /// It is of no IKE SA that there is.
    #[error("there is no such IKE SA")]
    UnknownSpi,
    /// It says in clear that the peer does not know an IKE SA. The peer is asked.
    #[error("somebody says that the peer does not know the IKE SA")]
    NotKnown,
    /// A first message from or to addresses that no connection has.
    #[error("no connection is between these addresses")]
    NoConnection,
    /// A first message with no proposal in common.
    #[error("no proposal in common")]
    NoProposal,
    /// A first message with a ticket that is none of ours, or too old. The peer was told.
    #[error("there is no such ticket")]
    Ticket,
    /// A first message of a peer that was sent to another gateway.
    #[error("it is sent to another gateway")]
    Redirected,
    /// A first message with another key exchange than was agreed on. The peer was told which.
    #[error("another key exchange is wanted")]
    KeyExchange,
    /// A first message without a cookie. The peer was given one.
    #[error("it needs a cookie")]
    Cookie,
    /// A first message without a solution of a puzzle. The peer was given one.
    #[error("it needs a solution of a puzzle")]
    Puzzle,
    /// A first message without a cookie, and there are too many from the prefix of its address.
    #[error("there are too many first messages from there")]
    TooOften,
    /// A first message, and there are too many half-open IKE SAs.
    #[error("there are too many half-open IKE SAs")]
    TooMany,
    /// A first message, and there are as many IKE SAs as there may be.
    #[error("there are as many IKE SAs as there may be")]
    Full,
    /// IKE of another version. The peer was told ours.
    #[error("IKE of another version")]
    Version,
    /// A first message that is longer than any need be.
    #[error("a first message is too long")]
    TooLong,
    /// A first message with a critical payload that is not known. The peer was told.
    #[error("a critical payload is not known")]
    Critical,
}

impl Refused {
    /// What it is, without numbers: for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Refused::Dropped(Dropped::Malformed(_)) => "malformed",
            Refused::Dropped(Dropped::Direction) => "initiator_flag",
            Refused::Dropped(Dropped::MessageId(_)) => "message_id",
            Refused::Dropped(Dropped::Exchange) => "exchange",
            Refused::Dropped(Dropped::Early) => "early",
            Refused::Dropped(Dropped::Sealing) => "not_sealed",
            Refused::Dropped(Dropped::Open(_)) => "icv",
            Refused::Dropped(Dropped::Puzzle) => "auth_puzzle",
            Refused::UnknownSpi => "unknown_spi",
            Refused::NotKnown => "not_known",
            Refused::NoConnection => "no_connection",
            Refused::NoProposal => "no_proposal",
            Refused::Ticket => "ticket",
            Refused::Redirected => "redirected",
            Refused::KeyExchange => "key_exchange",
            Refused::Cookie => "cookie",
            Refused::Puzzle => "puzzle",
            Refused::TooOften => "rate",
            Refused::TooMany => "half_open",
            Refused::Full => "ike_sas",
            Refused::Version => "version",
            Refused::TooLong => "too_long",
            Refused::Critical => "critical_payload",
        }
    }
}
