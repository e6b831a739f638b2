//! IKE SAs of either version, as all others see them.

use crate::{
    child::ChildSa,
    closed::Closed,
    connection::Connection,
    crypto::keys::{Role, Spis},
    given::Given,
    kept::{Damaged, Keep, Reader, Writer, keep},
    message::Identification,
    nat::Nat,
    proposal::Agreement,
};
use std::{fmt::Debug, net::SocketAddr, sync::Arc};

/// Which IKE SA of an engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IkeSaId(pub u64);

/// The addresses that messages go between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
}

/// How far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Until both ends are authenticated.
    Connecting,
    /// They are.
    Established,
    /// Another is in its place, and it is to be deleted.
    Replaced,
    /// It is being deleted.
    Closing,
    /// It is gone, and this is why.
    Closed(Box<Closed>),
}

/// An IKE SA.
pub trait IkeSa: Debug {
    /// Which it is.
    fn id(&self) -> IkeSaId;

    /// 1 or 2.
    fn version(&self) -> u8;

    /// The connection that it is of.
    fn connection(&self) -> &Arc<Connection>;

    /// Its SPIs.
    fn spis(&self) -> Spis;

    /// Who began it.
    fn role(&self) -> Role;

    /// The addresses that messages go between.
    fn path(&self) -> Path;

    /// How far it is.
    fn phase(&self) -> &Phase;

    /// Who we are, and who the peer is, once that is proven.
    fn ids(&self) -> Option<&(Identification, Identification)>;

    /// Who the peer has proven to be in EAP, or its user in IKEv1.
    fn eap_id(&self) -> Option<&str>;

    /// What it was agreed on to be made of, once it is.
    fn agreement(&self) -> Option<&Agreement>;

    /// Whether a PPK is mixed into its keys (RFC 8784).
    fn has_ppk(&self) -> bool;

    /// Since when it is established.
    fn established_ms(&self) -> Option<u64>;

    /// When it is to be replaced, if that is known.
    fn rekey_at_ms(&self) -> Option<u64>;

    /// Who is behind a NAT, if the peer can tell.
    fn nat(&self) -> Option<Nat>;

    /// What the ends have given to each other.
    fn given(&self) -> &Given;

    /// Its child SAs.
    fn children(&self) -> &[ChildSa];
}

keep!(IkeSaId(_));
keep!(Path { local, peer });

/// Until both ends are authenticated there is nothing to be kept.
impl Keep for Phase {
    fn keep(&self, to: &mut Writer) {
        let number: u8 = match self {
            Phase::Connecting | Phase::Closed(_) => u8::MAX,
            Phase::Established => 0,
            Phase::Replaced => 1,
            Phase::Closing => 2,
        };
        number.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Phase, Damaged> {
        match u8::kept(from)? {
            0 => Ok(Phase::Established),
            1 => Ok(Phase::Replaced),
            2 => Ok(Phase::Closing),
            _ => Err(Damaged("phase")),
        }
    }
}
