//! IKE SAs and ISAKMP SAs that go on in another process ([`crate::kept`]).
//!
//! Whoever keeps them somewhere asks the engine what has changed, behind each thing that it does, and writes that before it does
//! what the engine wants done: then no other has seen what is not kept, and what is not done yet is as a datagram that is lost.
//! What the datapath was to be told is kept with it until the next time.

use super::{
    child::Install,
    context::Context,
    engine::Engine,
    ike_sa::{IkeSa, IkeSaId},
    output::{ChildChange, Move, Output},
};
use crate::{
    connection::Connection,
    kept::{Damaged, Keep, Reader, Writer},
    v1,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};
use zeroize::Zeroizing;

/// What the datapath may not have been told of an IKE SA's children.
#[derive(Debug, Default)]
pub struct Untold {
    /// New ones.
    pub installs: Vec<Install>,
    /// Those that go elsewhere.
    pub moves: Vec<Move>,
}

impl Engine {
    /// From now on it is told what changes ([`Engine::take_changed`]). All that is there is told first.
    pub fn tell_changes(&mut self) {
        self.changed = Some(self.ike_sas().map(|sa| sa.id()).collect());
    }

    /// Whether there is something for [`Engine::take_changed`].
    pub fn has_changed(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| !changed.is_empty())
    }

    /// What has changed or is gone since it was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<IkeSaId> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// An IKE SA as octets, with what of `out` the datapath is to be told of it. Nothing if there is nothing to be kept: it is
    /// not established, or gone.
    pub fn keep(&self, id: IkeSaId, out: &VecDeque<Output>) -> Option<Zeroizing<Vec<u8>>> {
        let (sa, mut to) = (self.ike_sa(id)?, Writer::new());
        sa.version().keep(&mut to);
        let is_its = |spi_in: u32| sa.children().iter().any(|child| child.spi_in == spi_in);
        let installs: Vec<&Install> = out
            .iter()
            .filter_map(|output| match output {
                Output::Child(ChildChange::Install(install)) if is_its(install.sa.spi_in) => Some(&**install),
                _ => None,
            })
            .collect();
        (installs.len() as u32).keep(&mut to);
        installs.into_iter().for_each(|install| install.keep(&mut to));
        let moves: Vec<Move> = out
            .iter()
            .filter_map(|output| match output {
                Output::Child(ChildChange::Move(moved)) if is_its(moved.spi_in) => Some(*moved),
                _ => None,
            })
            .collect();
        moves.keep(&mut to);
        let is_kept = match self.isakmp_sa(id) {
            Some(sa) => sa.keep(out, &mut to),
            None => self.sa(id)?.keep(&mut to),
        };
        is_kept.then(|| to.finish())
    }

    /// Makes an IKE SA again of what was kept of it; `connection` knows connections by their mark. It does nothing before
    /// [`Engine::resume`].
    ///
    /// # Errors
    /// The octets are none of this version, or a connection is not known: all is as before then.
    pub fn restore(
        &mut self,
        octets: &[u8],
        connection: &dyn Fn(u64) -> Option<Arc<Connection>>,
        cx: &mut Context<'_>,
    ) -> Result<(IkeSaId, Untold), Damaged> {
        let mut from = Reader::new(octets, connection);
        let version = u8::kept(&mut from)?;
        let untold = Untold { installs: Keep::kept(&mut from)?, moves: Keep::kept(&mut from)? };
        let id = match version {
            1 => {
                let sa = v1::ike_sa::IkeSa::kept(&mut from)?;
                from.end()?;
                self.adopt_v1(sa, cx)?
            }
            2 => {
                let sa = IkeSa::kept(&mut from)?;
                from.end()?;
                self.adopt(sa, cx)?
            }
            _ => return Err(Damaged("version")),
        };
        Ok((id, untold))
    }

    /// The keys of all that are there are told outside, where that is wanted: whoever may know them came behind them.
    pub fn tell_keys(&self, cx: &mut Context<'_>) {
        self.sas.values().for_each(|sa| sa.tell_keys(cx));
        self.v1.values().for_each(|sa| sa.tell_keys(cx));
    }

    /// All that were made again go on: what we have asked is asked again.
    pub fn resume(&mut self, cx: &mut Context<'_>) {
        let ids: BTreeSet<_> = self.ike_sas().map(|sa| sa.id()).collect();
        let anew = self.sas().filter_map(|sa| Some((sa.reauthenticates.as_ref()?.origin, sa.id())));
        for (origin, by) in anew.collect::<Vec<_>>() {
            let before = self.sas.values_mut().filter(|sa| sa.origin == origin);
            before.for_each(|sa| sa.reauthenticated_by = Some(by));
        }
        for id in ids {
            let _ = self.with_v1(id, cx, |sa, cx| sa.resume(cx)) || self.with(id, cx, |sa, cx| sa.resume(cx));
        }
    }
}
