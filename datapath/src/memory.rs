//! Large tables in huge pages, where the system has some: with many SAs each packet's state is on pages of its own, and
//! finding small ones costs more than reading them.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    slice,
};

const HUGE_PAGE: usize = 2 << 20;

/// A vector that never grows, on pages that are to be huge. Whether they are, the system decides
/// (`/sys/kernel/mm/transparent_hugepage/enabled`); a page takes memory once something is put there.
pub struct Table<T> {
    start: NonNull<T>,
    len: usize,
    room: usize,
}

// SAFETY: it owns its elements as a `Vec` does.
unsafe impl<T: Send> Send for Table<T> {}

impl<T> Table<T> {
    /// An empty table with room for `room`.
    pub fn new(room: usize) -> Table<T> {
        let Some(layout) = Table::<T>::layout(room) else {
            return Table { start: NonNull::dangling(), len: 0, room };
        };
        // SAFETY: the layout is not of size 0.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        if layout.align() == HUGE_PAGE {
            // SAFETY: the pages were just allocated; the advice changes neither contents nor access, and a system that
            // does not follow it changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Table { start: start.cast(), len: 0, room }
    }

    /// A full table.
    pub fn filled(room: usize, with: T) -> Table<T>
    where
        T: Clone,
    {
        let mut table = Table::new(room);
        (0..room).for_each(|_| table.push(with.clone()));
        table
    }

    /// Puts one more behind the others.
    ///
    /// # Panics
    /// If there is no room.
    pub fn push(&mut self, value: T) {
        assert!(self.len < self.room, "a table for {} is full", self.room);
        // SAFETY: there is room for one more behind the `len` that there are.
        unsafe { self.start.add(self.len).write(value) };
        self.len += 1;
    }

    /// `None` for nothing. What is smaller than a huge page has no need of one; what is larger is of whole ones.
    fn layout(room: usize) -> Option<Layout> {
        let layout = Layout::array::<T>(room).expect("a table that fits into memory");
        let layout = match layout.size() {
            0 => return None,
            small if small < HUGE_PAGE / 2 => layout,
            _ => layout.align_to(HUGE_PAGE).expect("as above").pad_to_align(),
        };
        Some(layout)
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the elements are initialised and ours, and nobody sees them again.
        unsafe { ptr::drop_in_place(&raw mut **self) };
        if let Some(layout) = Table::<T>::layout(self.room) {
            // SAFETY: `new` allocated it with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements from `start` on are initialised; `&self` shares their only owner.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Table<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_put_in_is_there_and_is_dropped_once() {
        let alive = Arc::new(());
        for room in [0, 1, 100, 70_000, 300_000] {
            let mut table = Table::new(room);
            for n in 0..room / 2 {
                table.push((n, alive.clone()));
            }
            assert_eq!((table.len(), Arc::strong_count(&alive)), (room / 2, room / 2 + 1));
            assert!(table.iter().enumerate().all(|(i, (n, _))| i == *n));
            drop(table);
            assert_eq!(Arc::strong_count(&alive), 1);
        }
        let table = Table::filled(1 << 20, 7u64);
        assert!(table.len() == 1 << 20 && table.iter().all(|n| *n == 7));
        assert_eq!(table.as_ptr().addr() % HUGE_PAGE, 0);
        assert!(Table::filled(9, ()).len() == 9);
    }

    #[test]
    #[should_panic(expected = "a table for 2 is full")]
    fn a_full_table_takes_no_more() {
        let mut table = Table::filled(2, 0);
        table.push(0);
    }
}
