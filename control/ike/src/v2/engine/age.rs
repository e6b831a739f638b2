//! What ends by its age, though nobody wants it to: what was to take its place has not come.

use super::Engine;
use crate::{
    child::{ChildSa, EndedBy},
    v2::context::Context,
};

impl Engine {
    /// A child SA, by our SPI, is at the end of its time: it is deleted. False if there is none.
    pub fn expire_child(&mut self, spi_in: u32, cx: &mut Context<'_>) -> bool {
        let end = |children: &mut [ChildSa]| {
            let is_it = |child: &&mut ChildSa| child.spi_in == spi_in;
            children.iter_mut().find(is_it).into_iter().for_each(|child| child.end(EndedBy::Age));
        };
        let Some(id) = self.by_child.get(&spi_in).copied() else { return false };
        let _ = self.with_v1(id, cx, |sa, _| end(&mut sa.children))
            || self.with(id, cx, |sa, _| end(&mut sa.children));
        self.terminate_child(spi_in, cx)
    }
}
