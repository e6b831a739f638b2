//! A file that outlives its process, and that nobody else reads: what iked must know again when it comes back.
//!
//! ```text
//!  head    "PORTCKPT" | version | instance of the SADB | salt
//!  frame   octets | number of the frame, head: AES-256-GCM ( records ... )
//!  record  kind | name | octets | ...
//! ```
//!
//! Frames are appended, each in one write, and a later record takes the place of one of the same kind and name before it. What a
//! process has written before it was killed is there, since pages of a tmpfs are the kernel's; of the last frame a part may be
//! there, which counts as nothing: whoever writes does not act on what it has written before it is whole. When there is much
//! more in it than counts, and when a process begins, all that counts is written into another file, which gets its name last.
//!
//! # Who is kept out
//! The key of a file is made of its salt and of a key in the kernel's keyring of the user (`state/key.rs`), which ends with the machine's
//! run; frames have their number as nonce, and are never written twice. So:
//! - what is swapped out, and copies of the file in backups, dumps and images of disks, are of no use without the machine that
//!   runs, and none after it was booted;
//! - a change to it, or a frame of another file, is found out, and the file is not used then.
//! - Who is root on the machine while it runs can ask the kernel for the key, as it can read iked's memory and the SADB. Against
//!   that nothing is kept here, nor against root putting back an older file as a whole: sealing begins again with IVs that were
//!   used. Nothing else does so: the file is replaced as soon as it is read, and goes where its SADB goes.
//!
//! It is on no disk: what has been written there may stay after it is removed. So another file system than tmpfs is refused.

mod key;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
pub use key::KeyringError;
use key::Master;
use portcullis_ike::crypto::transform::Prf;
use rustix::{
    fs::{self, FsWord, Mode, OFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use thiserror::Error;
use zeroize::Zeroizing;

/// The file, in the directory of the regions.
pub const FILE: &str = "iked.state";

/// The same until it is whole.
const NEW_FILE: &str = "iked.state.new";

const MAGIC: [u8; 8] = *b"PORTCKPT";

/// Counted up when the form of the file or of a record is another.
const VERSION: u32 = 1;

/// Octets of the head.
const HEAD: usize = 8 + 4 + 4 + 8 + SALT;

const SALT: usize = 16;

/// Octets of a tag.
const TAG: usize = 16;

/// Octets of a frame, at most: what it takes to read one is bounded by the file anyway.
const MOST_FRAME: usize = 1 << 30;

const TMPFS: FsWord = 0x0102_1994;
const RAMFS: FsWord = 0x8584_58f6;

/// Why there is no such file, or nothing to be had of it.
#[derive(Debug, Error)]
pub enum StateError {
    /// What the system says.
    #[error("{path}: cannot {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it says.
        source: io::Error,
    },
    /// It would be on a disk.
    #[error(
        "{directory}: keys are kept on a tmpfs alone, and this is none: put [regions] directory on one, such as \
         /run/portcullis"
    )]
    Disk {
        /// The directory.
        directory: PathBuf,
    },
    /// The kernel's keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Of another version, or another SADB.
    #[error("{path}: is of another {of}")]
    Other {
        /// The file.
        path: PathBuf,
        /// What is another.
        of: &'static str,
    },
    /// A frame does not verify, or is none.
    #[error("{path}: frame {number} is damaged, or sealed by another key")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which.
        number: u64,
    },
}

/// What is kept of one thing.
#[derive(Debug)]
pub struct Record {
    /// What it is of.
    pub kind: Kind,
    /// Which of these.
    pub name: u64,
    /// What is kept; nothing where it is gone.
    pub octets: Option<Zeroizing<Vec<u8>>>,
}

/// What there is to be kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// What a connection was read from.
    Connection,
    /// An IKE SA.
    IkeSa,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Connection => 1,
            Kind::IkeSa => 2,
        }
    }

    fn of(number: u8) -> Option<Kind> {
        [Kind::Connection, Kind::IkeSa].into_iter().find(|kind| kind.number() == number)
    }
}

/// The file, to be written.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    file: File,
    head: [u8; HEAD],
    cipher: Sealing,
    frames: u64,
    octets: u64,
}

struct Sealing(Aes256Gcm);

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Sealing {
    fn new(master: &Master, salt: &[u8]) -> Sealing {
        let key = Prf::HmacSha256.mac(master.octets(), &[salt]);
        Sealing(Aes256Gcm::new_from_slice(key.bytes()).expect("the key has its length"))
    }
}

/// Each frame's once, as each is written once.
fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io { path: path.to_owned(), what, source }
}

/// Reads the file of a directory, if there is one: all that counts, connections first.
///
/// # Errors
/// Why it cannot be used. It may not be used later either.
pub fn read(directory: &Path, instance: u64) -> Result<Option<Vec<Record>>, StateError> {
    let path = directory.join(FILE);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = match fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(&path, "open it")(errno.into())),
    };
    let mut octets = vec![];
    file.read_to_end(&mut octets).map_err(failed(&path, "read it"))?;
    let other = |of| StateError::Other { path: path.clone(), of };
    let (head, rest) = octets.split_at_checked(HEAD).ok_or_else(|| other("kind"))?;
    if head[..8] != MAGIC {
        return Err(other("kind"));
    }
    if head[8..16] != versions() {
        return Err(other("version"));
    }
    if head[16..24] != instance.to_be_bytes() {
        return Err(other("SADB"));
    }
    let cipher = Sealing::new(&Master::find(instance)?, &head[24..]);
    let (mut rest, mut number) = (rest, 0);
    let mut records = std::collections::BTreeMap::new();
    while let Some((frame, behind)) = frame(rest) {
        let damaged = || StateError::Damaged { path: path.clone(), number };
        let mut text = Zeroizing::new(frame.to_vec());
        let at = text.len().checked_sub(TAG).ok_or_else(damaged)?;
        let tag: [u8; TAG] = text.split_off(at).try_into().map_err(|_| damaged())?;
        cipher
            .0
            .decrypt_inout_detached(&nonce(number).into(), head, text.as_mut_slice().into(), &tag.into())
            .map_err(|_| damaged())?;
        for record in all(&text).ok_or_else(damaged)? {
            match record.octets {
                Some(_) => records.insert((record.kind, record.name), record),
                None => records.remove(&(record.kind, record.name)),
            };
        }
        (rest, number) = (behind, number + 1);
    }
    Ok(Some(records.into_values().collect()))
}

fn versions() -> [u8; 8] {
    [VERSION.to_be_bytes(), portcullis_ike::kept::VERSION.to_be_bytes()]
        .concat()
        .try_into()
        .expect("they are two of four octets")
}

/// The next frame, if it is whole, and what is behind it.
fn frame(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

/// The records in a frame.
fn all(mut text: &[u8]) -> Option<Vec<Record>> {
    let mut records = vec![];
    while !text.is_empty() {
        let (head, rest) = text.split_first_chunk::<14>()?;
        let kind = Kind::of(head[0])?;
        let name = u64::from_be_bytes(head[2..10].try_into().ok()?);
        let len = u32::from_be_bytes(head[10..].try_into().ok()?) as usize;
        let (octets, behind) = rest.split_at_checked(len)?;
        let octets = (head[1] == 1).then(|| Zeroizing::new(octets.to_vec()));
        records.push(Record { kind, name, octets });
        text = behind;
    }
    Some(records)
}

impl StateFile {
    /// Makes another in the place of whatever is there, with these in it.
    ///
    /// # Errors
    /// Why there is none; what was there is as it was.
    pub fn create(directory: &Path, instance: u64, records: &[Record]) -> Result<StateFile, StateError> {
        let on = fs::statfs(directory).map_err(|e| failed(directory, "see what it is on")(e.into()))?;
        if ![TMPFS, RAMFS].contains(&on.f_type) {
            return Err(StateError::Disk { directory: directory.to_owned() });
        }
        let path = directory.join(NEW_FILE);
        remove(&path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|e| failed(&path, "make it")(e.into()))?);
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt)
            .map_err(|e| failed(&path, "find randomness for it")(io::Error::other(e.to_string())))?;
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&MAGIC);
        head[8..16].copy_from_slice(&versions());
        head[16..24].copy_from_slice(&instance.to_be_bytes());
        head[24..].copy_from_slice(&salt);
        let cipher = Sealing::new(&Master::find_or_make(instance)?, &salt);
        let mut state = StateFile { path, file, head, cipher, frames: 0, octets: 0 };
        state.write(&head)?;
        state.append(records)?;
        let path = directory.join(FILE);
        std::fs::rename(&state.path, &path).map_err(failed(&path, "give it its name"))?;
        state.path = path;
        Ok(state)
    }

    /// Appends records: all of them, or none if the process ends meanwhile.
    ///
    /// # Errors
    /// What the system says. What is in the file is too old then: it must be removed, or another made.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StateError> {
        if records.is_empty() {
            return Ok(());
        }
        let len =
            records.iter().map(|record| 14 + record.octets.as_ref().map_or(0, |o| o.len())).sum::<usize>();
        let too_long = || failed(&self.path, "write so much")(io::ErrorKind::FileTooLarge.into());
        let sealed = u32::try_from(len + TAG).ok().filter(|_| len < MOST_FRAME).ok_or_else(too_long)?;
        let mut frame = Zeroizing::new(Vec::with_capacity(4 + len + TAG));
        frame.extend(sealed.to_be_bytes());
        for Record { kind, name, octets } in records {
            frame.extend([kind.number(), u8::from(octets.is_some())]);
            frame.extend(name.to_be_bytes());
            let octets = octets.as_deref().map_or(&[][..], Vec::as_slice);
            frame.extend((octets.len() as u32).to_be_bytes());
            frame.extend(octets);
        }
        let nonce = nonce(self.frames);
        self.frames += 1;
        let text = &mut frame[4..];
        let tag = self.cipher.0.encrypt_inout_detached(&nonce.into(), &self.head, text.into());
        let tag = tag.expect("a frame is shorter than 64 GiB");
        frame.extend(&tag[..]);
        self.write(&frame)
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), StateError> {
        self.octets += octets.len() as u64;
        self.file.write_all(octets).map_err(failed(&self.path, "write it"))
    }

    /// Octets in it.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Removes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(self) -> Result<(), StateError> {
        remove(&self.path)
    }
}

/// Removes what there is in a directory.
///
/// # Errors
/// What the system says.
pub fn forget(directory: &Path) -> Result<(), StateError> {
    [NEW_FILE, FILE].iter().try_for_each(|file| remove(&directory.join(file)))
}

/// The key of a SADB's files goes, too: its regions are gone.
pub fn forget_key(instance: u64) {
    Master::forget(instance);
}

fn remove(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(path, "remove it")(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
