//! Large tables in huge pages, where the system has some: with many SAs each packet's state is on pages of its own, and
//! finding small ones costs more than reading them.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    io,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    slice,
};

const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// A vector that never grows, on pages that are to be huge. Whether they are, the system decides
/// (`/sys/kernel/mm/transparent_hugepage/enabled`); a page takes memory once something is put there.
pub struct Table<T> {
    start: NonNull<T>,
    len: usize,
    room: usize,
    guard: Option<Guard>,
}

/// That a table is kept out of swap and core dumps, as the regions with keys are.
struct Guard {
    /// Why it can be swapped out.
    not_locked: Option<io::Error>,
}

// SAFETY: it owns its elements as a `Vec` does.
unsafe impl<T: Send> Send for Table<T> {}

impl<T> Table<T> {
    /// An empty table with room for `room`.
    pub fn new(room: usize) -> Table<T> {
        Table::allocate(room, false)
    }

    /// The same for keys, which are kept out of swap, as far as the system allows it ([`Table::not_locked`]), and core dumps.
    pub fn of_keys(room: usize) -> Table<T> {
        let mut table = Table::<T>::allocate(room, true);
        if let Some(layout) = Table::<T>::layout(room, true) {
            let start = table.start.as_ptr().cast::<libc::c_void>();
            let how = libc::MLOCK_ONFAULT as libc::c_long;
            // SAFETY: the pages were just allocated, whole ones for this table alone; neither call changes contents or access.
            let locked = unsafe {
                libc::madvise(start, layout.size(), libc::MADV_DONTDUMP);
                libc::syscall(libc::SYS_mlock2, start, layout.size(), how)
            };
            let not_locked = (locked != 0).then(io::Error::last_os_error);
            table.guard = Some(Guard { not_locked });
        }
        table
    }

    /// Why a table of keys can be swapped out.
    pub fn not_locked(&self) -> Option<&io::Error> {
        self.guard.as_ref()?.not_locked.as_ref()
    }

    fn allocate(room: usize, is_of_keys: bool) -> Table<T> {
        let Some(layout) = Table::<T>::layout(room, is_of_keys) else {
            return Table { start: NonNull::dangling(), len: 0, room, guard: None };
        };
        // SAFETY: the layout is not of size 0.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        if layout.align() == HUGE_PAGE {
            // SAFETY: the pages were just allocated; the advice changes neither contents nor access, and a system that
            // does not follow it changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Table { start: start.cast(), len: 0, room, guard: None }
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

    /// `None` for nothing. What is smaller than a huge page has no need of one; what is larger is of whole ones. Keys share
    /// no page with anything.
    fn layout(room: usize, is_of_keys: bool) -> Option<Layout> {
        let layout = Layout::array::<T>(room).expect("a table that fits into memory");
        let layout = match layout.size() {
            0 => return None,
            small if small < HUGE_PAGE / 2 && !is_of_keys => layout,
            small if small < HUGE_PAGE / 2 => layout.align_to(PAGE).expect("as above").pad_to_align(),
            _ => layout.align_to(HUGE_PAGE).expect("as above").pad_to_align(),
        };
        Some(layout)
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the elements are initialised and ours, and nobody sees them again.
        unsafe { ptr::drop_in_place(&raw mut **self) };
        if let Some(layout) = Table::<T>::layout(self.room, self.guard.is_some()) {
            if self.guard.is_some() {
                let start = self.start.as_ptr().cast::<libc::c_void>();
                // SAFETY: the pages are ours yet, and of nothing else; whoever has them next is as others are.
                unsafe {
                    libc::munlock(start, layout.size());
                    libc::madvise(start, layout.size(), libc::MADV_DODUMP);
                }
            }
            // SAFETY: it was allocated with this layout.
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

    /// What the system says of the mapping that an address is in.
    fn flags_at(address: usize) -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_in = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let [from, to] =
                range.map_or([None; 2], |(from, to)| [from, to].map(|at| usize::from_str_radix(at, 16).ok()));
            match (from, to, line.strip_prefix("VmFlags: ")) {
                (Some(from), Some(to), _) => is_in = (from..to).contains(&address),
                (_, _, Some(flags)) if is_in => return flags.split_whitespace().map(str::to_owned).collect(),
                _ => {}
            }
        }
        vec![]
    }

    #[test]
    fn keys_are_kept_out_of_swap_and_core_dumps() {
        for room in [3, 100, 700_000] {
            let has = |table: &Table<u64>, flag: &str| {
                let ends = [0, 8 * room - 1].map(|at| table.as_ptr().addr() + at);
                ends.map(|at| flags_at(at).iter().any(|f| f == flag))
            };
            let mut table = Table::of_keys(room);
            (0..room).for_each(|n| table.push(n as u64));
            assert_eq!(has(&table, "dd"), [true; 2]);
            // As far as RLIMIT_MEMLOCK goes.
            assert_eq!(has(&table, "lo"), [table.not_locked().is_none(); 2], "{:?}", table.not_locked());
            assert!(table.not_locked().is_none() || room > 1000);
            assert!(table.iter().enumerate().all(|(i, n)| i as u64 == *n));
            let mut plain = Table::new(room);
            plain.push(7);
            assert_eq!((has(&plain, "dd"), has(&plain, "lo")), ([false; 2], [false; 2]));
        }
        assert!(Table::<u64>::of_keys(0).not_locked().is_none());
    }

    #[test]
    #[should_panic(expected = "a table for 2 is full")]
    fn a_full_table_takes_no_more() {
        let mut table = Table::filled(2, 0);
        table.push(0);
    }
}
