//! Which SAs a command is about: keys `ike`, `ike-id`, `child` and `child-id`.

use crate::{
    report::{ChildReport, IkeSaReport},
    swanctl::tree::Branch,
};
use portcullis_ike::v2::{engine::Engine, ike_sa::IkeSaId};

/// Which SAs. Without any key it is all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// A connection.
    pub ike: Option<String>,
    /// The number of an IKE SA.
    pub ike_id: Option<u64>,
    /// A child.
    pub child: Option<String>,
    /// The number of a child SA.
    pub child_id: Option<u32>,
}

/// SAs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selected {
    /// IKE SAs.
    Ike(Vec<IkeSaId>),
    /// Child SAs, by our SPIs.
    Children(Vec<u32>),
}

impl Selected {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Selected::Ike(ids) => ids.len(),
            Selected::Children(spis) => spis.len(),
        }
    }
}

impl Selection {
    /// As a message says.
    ///
    /// # Errors
    /// A number that is none.
    pub fn of(message: &Branch<'_>) -> Result<Selection, String> {
        let text = |key| message.text(key).map(str::to_owned);
        let not = |key| move |_| format!("{key} must be a number");
        Ok(Selection {
            ike: text("ike"),
            ike_id: message.text("ike-id").map(str::parse).transpose().map_err(not("ike-id"))?,
            child: text("child"),
            child_id: message.text("child-id").map(str::parse).transpose().map_err(not("child-id"))?,
        })
    }

    /// Whether it is without any key.
    pub fn is_all(&self) -> bool {
        *self == Selection::default()
    }

    /// Whether it is of child SAs, and not of IKE SAs.
    pub fn is_of_children(&self) -> bool {
        self.child.is_some() || self.child_id.is_some()
    }

    /// Whether an IKE SA, or child SAs of it, may be of it.
    pub fn has_ike_sa(&self, sa: &IkeSaReport) -> bool {
        self.has_ike(&sa.connection, sa.id)
    }

    /// Whether a child SA of such an IKE SA is of it.
    pub fn has_child(&self, child: &ChildReport) -> bool {
        self.child.as_ref().is_none_or(|name| *name == child.name)
            && self.child_id.is_none_or(|id| id == child.id)
    }

    fn has_ike(&self, connection: &str, id: u64) -> bool {
        self.ike.as_ref().is_none_or(|name| name == connection) && self.ike_id.is_none_or(|of| of == id)
    }

    /// The SAs. `child_id` has the numbers of child SAs, by our SPIs.
    pub fn select(&self, engine: &Engine, child_id: impl Fn(u32) -> Option<u32>) -> Selected {
        let sas = engine.ike_sas().filter(|sa| self.has_ike(&sa.connection().name, sa.id().0));
        if !self.is_of_children() {
            return Selected::Ike(sas.map(|sa| sa.id()).collect());
        }
        let children = sas.flat_map(|sa| sa.children()).filter(|child| {
            self.child.as_ref().is_none_or(|name| *name == child.config.name)
                && self.child_id.is_none_or(|id| child_id(child.spi_in) == Some(id))
        });
        Selected::Children(children.map(|child| child.spi_in).collect())
    }
}
