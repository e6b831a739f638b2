//! Regions: files that processes map, or plain memory for tests.
//!
//! The law: one process writes a region, under an exclusive lock that the kernel drops when the process dies; all
//! others map it read-only. The datapath locks the `runtime` file itself. iked locks a file beside the regions that
//! is never replaced: it makes and replaces both, and between a file and its lock another could come. The `sadb`
//! file has mode 0600, is locked in memory as it is touched, and is left out of core dumps. Nobody makes a
//! reference into a region except to atomics.

use crate::{
    SadbError,
    layout::{Head, LAYOUT_HASH, Shared, Sizes, VERSION},
    reader::SADB_FILE,
    sync::Ordering,
};
use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    ops::Deref,
    os::fd::AsRawFd,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::Arc,
};
use thiserror::Error;

/// iked's lock, in the regions' directory. It says which process has or had it.
const LOCK_FILE: &str = "sadb.lock";

/// Octets of a process id in the lock file.
const PID_ROOM: usize = 11;

/// Why a region cannot be used.
#[derive(Debug, Error)]
pub enum RegionError {
    /// The file is not there.
    #[error("{path}: no such region; start portcullis-iked first, it makes the regions")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: cannot {what}: {source}{}", hint(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes this region.
    #[error("{path}: process {pid} is using it; stop that one first")]
    InUse {
        /// The file.
        path: PathBuf,
        /// The other process, as it said.
        pid: u32,
    },
    /// Not one of our files.
    #[error(
        "{path}: not a Portcullis region (it begins with {found:#018x}); remove it if nothing else needs it"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its first eight octets.
        found: u64,
    },
    /// Made by a program with another layout.
    #[error(
        "{path}: made by another version (contract {found}, layout {found_layout:016x}; this program has {VERSION}, {LAYOUT_HASH:016x}); stop both daemons and remove the regions, which ends their SAs"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The layout hash in the file.
        found_layout: u64,
    },
    /// Shorter or longer than its own head says.
    #[error("{path}: damaged: {found} octets, {expected} expected; remove the regions, which ends their SAs")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// What its length should be.
        expected: u64,
    },
    /// Its head gives sizes that no region has.
    #[error("{path}: damaged: {source}; remove the regions, which ends their SAs")]
    Head {
        /// The file.
        path: PathBuf,
        /// Which size.
        source: SadbError,
    },
    /// The two files do not belong together.
    #[error(
        "{path}: stale: it belongs to instance {found:016x}, the SADB is instance {expected:016x}; restart portcullis-iked, which makes both anew"
    )]
    Stale {
        /// The file.
        path: PathBuf,
        /// The instance in the file.
        found: u64,
        /// The instance of the SADB.
        expected: u64,
    },
    /// Made before the machine was booted.
    #[error(
        "{path}: the machine was booted since this was made. Which sequence numbers its SAs have used may be lost, so they \
         must not go on: `portcullis down --forget` removes them. Put [regions] directory on a tmpfs, such as \
         /run/portcullis, where none are left after a boot"
    )]
    Booted {
        /// The file.
        path: PathBuf,
    },
    /// The configuration asks for other sizes than the region has.
    #[error("sizes: {0}")]
    Sizes(#[from] SadbError),
}

fn hint(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or as the owner of the file",
        io::ErrorKind::StorageFull => "; make [regions] max_sas smaller, or the tmpfs larger",
        _ => "",
    }
}

/// What protects the keys in memory, and what could not be had.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guard {
    /// Why the region is not locked in memory.
    pub not_locked: Option<String>,
    /// Why the region may be in core dumps.
    pub dumpable: Option<String>,
}

/// Mapped memory; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
    path: PathBuf,
    /// Held open for its lock, and to ask for the lock of others.
    file: Option<File>,
}

// SAFETY: the memory is only accessed through atomics (`at`, `slice`), and `base` and `len` never change.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `map` mapped exactly this, and references into it do not outlive the region.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Region {
    /// Anonymous memory of this process, zeroed.
    pub(crate) fn heap(len: usize) -> io::Result<Region> {
        Region::map(len, None, true, PathBuf::from("(memory)"))
    }

    /// Makes a file of `len` zeroed octets; an existing one of that name is replaced, not overwritten.
    pub(crate) fn create(path: &Path, len: usize, mode: u32) -> Result<Region, RegionError> {
        let io = |what| move |source| RegionError::Io { path: path.to_owned(), what, source };
        remove(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .map_err(io("create"))?;
        // All of its memory now: a tmpfs that fills up later would end whoever touches a new page.
        // SAFETY: the call takes no pointers, and the descriptor is ours.
        let full = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len as libc::off_t) };
        if full != 0 {
            // A file without its memory is of no use to anyone.
            let _ = std::fs::remove_file(path);
            return Err(io("reserve its memory")(io::Error::from_raw_os_error(full)));
        }
        Region::map(len, Some(file), true, path.to_owned()).map_err(io("map"))
    }

    /// Maps an existing file.
    pub(crate) fn open(path: &Path, writable: bool) -> Result<Region, RegionError> {
        let io = |what| move |source| RegionError::Io { path: path.to_owned(), what, source };
        let file = OpenOptions::new().read(true).write(writable).open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => RegionError::Missing { path: path.to_owned() },
            _ => io("open")(e),
        })?;
        let len = file.metadata().map_err(io("read"))?.len();
        if len < size_of::<Head>() as u64 {
            return Err(RegionError::Damaged { path: path.to_owned(), found: len, expected: 4096 });
        }
        Region::map(len as usize, Some(file), writable, path.to_owned()).map_err(io("map"))
    }

    fn map(len: usize, file: Option<File>, writable: bool, path: PathBuf) -> io::Result<Region> {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let (flags, fd) = match &file {
            Some(f) => (libc::MAP_SHARED, f.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1),
        };
        // SAFETY: a new mapping at an address of the kernel's choice; the arguments hold no pointers of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        let region = Region { base, len, path, file };
        region.ask_for_huge_pages();
        Ok(region)
    }

    /// Fewer TLB misses, where the kernel agrees: for files the `huge=` of their tmpfs says so (`within_size` or
    /// `always`; `create` reserves before it maps, too early for `advise`), for plain memory
    /// `/sys/kernel/mm/transparent_hugepage/enabled`. A hint, which may be refused.
    fn ask_for_huge_pages(&self) {
        // SAFETY: `base` and `len` are our mapping; the call does not change its contents.
        let _ = unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE) };
    }

    /// Gives the file another name, in place of what has it.
    pub(crate) fn rename(&mut self, to: PathBuf) -> Result<(), RegionError> {
        std::fs::rename(&self.path, &to).map_err(|source| RegionError::Io {
            path: to.clone(),
            what: "put the new one there",
            source,
        })?;
        self.path = to;
        Ok(())
    }

    /// Keeps the region out of swap and core dumps.
    pub(crate) fn guard(&self) -> Guard {
        let said = |rc: libc::c_long| (rc != 0).then(|| io::Error::last_os_error().to_string());
        let (base, len) = (self.base.as_ptr().cast::<libc::c_void>(), self.len);
        // SAFETY: `base` and `len` are our mapping; neither call changes its contents.
        let (locked, dump) = unsafe {
            let locked =
                said(libc::syscall(libc::SYS_mlock2, base, len, libc::MLOCK_ONFAULT as libc::c_long));
            (locked, said(libc::madvise(base, len, libc::MADV_DONTDUMP) as libc::c_long))
        };
        Guard { not_locked: locked, dumpable: dump }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// One `T` at an offset.
    pub(crate) fn at<T: Shared>(&self, offset: usize) -> &T {
        &self.slice(offset, 1)[0]
    }

    /// `count` of `T` from an offset on.
    pub(crate) fn slice<T: Shared>(&self, offset: usize, count: usize) -> &[T] {
        let end = count.checked_mul(size_of::<T>()).and_then(|n| n.checked_add(offset));
        assert!(end.is_some_and(|e| e <= self.len) && offset.is_multiple_of(align_of::<T>()));
        // SAFETY:
        // - the range is inside the mapping, which lives as long as `self`;
        // - it is aligned: the mapping to a page, the offset as asserted, and no T is aligned to more;
        // - T is made of atomics (`Shared`), valid for any bits, and changed through them only.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast(), count) }
    }

    /// The same, to be looked at again and again.
    pub(crate) fn part<T: Shared>(self: &Arc<Self>, (offset, count): (usize, usize)) -> Part<T> {
        Part { start: NonNull::from(self.slice::<T>(offset, count)).cast(), count, region: self.clone() }
    }

    /// Checks the head and returns the sizes that it gives.
    pub(crate) fn check(&self, magic: u64, expected: impl Fn(&Sizes) -> usize) -> Result<Sizes, RegionError> {
        let head: &Head = self.at(0);
        let path = || self.path.clone();
        let found = head.magic.load(Ordering::Acquire);
        if found != magic {
            return Err(RegionError::Foreign { path: path(), found });
        }
        let (version, layout) = (head.version.load(Ordering::Relaxed), head.layout.load(Ordering::Relaxed));
        if (version, layout) != (VERSION, LAYOUT_HASH) {
            return Err(RegionError::Version { path: path(), found: version, found_layout: layout });
        }
        let sizes = Sizes {
            max_sas: head.max_sas.load(Ordering::Relaxed),
            max_policies: head.max_policies.load(Ordering::Relaxed),
        };
        sizes.check().map_err(|source| RegionError::Head { path: path(), source })?;
        if head.boot.load(Ordering::Relaxed) != boot()? {
            return Err(RegionError::Booted { path: path() });
        }
        let expected = expected(&sizes);
        if self.len != expected {
            return Err(RegionError::Damaged {
                path: path(),
                found: self.len as u64,
                expected: expected as u64,
            });
        }
        Ok(sizes)
    }

    /// Writes the head; the magic last, so that a file that was not finished is foreign.
    pub(crate) fn write_head(&self, magic: u64, sizes: &Sizes, [instance, seed, boot]: [u64; 3]) {
        let head: &Head = self.at(0);
        head.layout.store(LAYOUT_HASH, Ordering::Relaxed);
        head.version.store(VERSION, Ordering::Relaxed);
        head.max_sas.store(sizes.max_sas, Ordering::Relaxed);
        head.max_policies.store(sizes.max_policies, Ordering::Relaxed);
        head.instance.store(instance, Ordering::Relaxed);
        head.seed.store(seed, Ordering::Relaxed);
        head.boot.store(boot, Ordering::Relaxed);
        head.magic.store(magic, Ordering::Release);
    }

    /// Takes the writer's lock, until the file is closed.
    pub(crate) fn lock(&self) -> Result<(), RegionError> {
        let Some(file) = &self.file else { return Ok(()) };
        let path = || self.path.clone();
        match try_lock(file) {
            Ok(true) => {
                self.at::<Head>(0).pid.store(std::process::id(), Ordering::Relaxed);
                Ok(())
            }
            Ok(false) => Err(RegionError::InUse { path: path(), pid: self.pid() }),
            Err(source) => Err(RegionError::Io { path: path(), what: "lock", source }),
        }
    }

    /// The process that last had the lock of this file.
    pub(crate) fn pid(&self) -> u32 {
        self.at::<Head>(0).pid.load(Ordering::Relaxed)
    }

    /// Whether another open of this file holds the writer's lock: whether its writer lives.
    pub(crate) fn locked_by_other(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let mut lock = whole_file(libc::F_WRLCK);
        // SAFETY: `lock` is a valid flock for the time of the call.
        let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
        // Not knowing counts as locked: memory is then kept, not used again.
        rc != 0 || lock.l_type as i32 != libc::F_UNLCK
    }

    /// Whether the file at our path is still the one that we mapped.
    pub(crate) fn is_current(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Some(file) = &self.file else { return true };
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }
}

/// A part of a region: where it is was checked once.
pub(crate) struct Part<T> {
    start: NonNull<T>,
    count: usize,
    region: Arc<Region>,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Part<T> {
        Part { region: self.region.clone(), ..*self }
    }
}

impl<T> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.count, std::any::type_name::<T>())
    }
}

// SAFETY: it is a `&[T]` of atomics that holds the region which it borrows.
unsafe impl<T: Shared> Send for Part<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Part<T> {}

impl<T: Shared> Deref for Part<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY:
        // - `Region::part` made both of a slice of the region;
        // - the region neither moves nor goes while `region` holds it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

/// iked's lock: who has it makes, takes over and writes the regions of a directory. Dropped, it is free.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Takes the lock before anything is looked at. The file stays when its owner goes: who removed it could part
    /// two that both believe to have it.
    pub(crate) fn take(directory: &Path) -> Result<WriterLock, RegionError> {
        let (path, region) = (directory.join(LOCK_FILE), directory.join(SADB_FILE));
        let io = |what| {
            let path = path.clone();
            move |source| RegionError::Io { path, what, source }
        };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = match options.open(&path) {
            Ok(file) => file,
            // No directory, no regions.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(RegionError::Missing { path: region });
            }
            Err(e) => return Err(io("open")(e)),
        };
        if !try_lock(&file).map_err(io("lock"))? {
            let mut pid = [0; PID_ROOM];
            let known = file.read_at(&mut pid, 0).unwrap_or(0);
            let pid = str::from_utf8(&pid[..known]).ok().and_then(|p| p.trim().parse().ok());
            return Err(RegionError::InUse { path: region, pid: pid.unwrap_or(0) });
        }
        // At once and always as long, so that nobody reads a part of it.
        let pid = format!("{:>1$}\n", std::process::id(), PID_ROOM - 1);
        file.write_all_at(pid.as_bytes(), 0).map_err(io("write to"))?;
        Ok(WriterLock { _file: file })
    }
}

/// What tells this run of the machine from others. What was written in another may not be all that there was to write: a
/// crash takes what no disk has yet.
pub(crate) fn boot() -> Result<u64, RegionError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let io = |source| RegionError::Io { path: path.to_owned(), what: "read", source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).map_err(|e| io(io::Error::other(e)))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), RegionError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RegionError::Io { path: path.to_owned(), what: "replace", source })
        }
        _ => Ok(()),
    }
}

/// Locks a file for this open of it. False: another open has the lock.
fn try_lock(file: &File) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: `lock` is a valid flock for the time of the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) } == 0 {
        return Ok(true);
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(e),
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
