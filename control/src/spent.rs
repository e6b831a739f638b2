//! Keys that were in SAs which are gone. None of them may come back, and a restart must not forget any.
//!
//! ```text
//!  head    "PORTCKSP" | instance of the SADB | salt
//!  key     HMAC-SHA-256(salt, key)
//!  ...
//! ```
//!
//! A key is in the file before its SA is taken out of the SADB: wherever the process is killed, it is in one of them, or in
//! both, which is as good. The file lives as long as the regions, since the keys' sequence numbers do. It is made when the
//! first SA goes; whoever reads it learns no key that could not be guessed.

use crate::secret::Secret;
use portcullis_ike::crypto::transform::Prf;
use rustix::{
    fs::{self, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The file, in the directory of the regions.
pub const FILE: &str = "spent";

const MAGIC: [u8; 8] = *b"PORTCKSP";

const SALT: usize = 32;

/// Octets of the head.
const HEAD: usize = 8 + 8 + SALT;

/// Keys in a file, at most.
const MOST: usize = 1 << 20;

type Mark = [u8; 32];

/// Why it cannot be known, or not be kept, which keys were used.
#[derive(Debug, Error)]
pub enum SpentError {
    /// The system refused.
    #[error(
        "{path}: cannot {what}: {source}. Keys of SAs that are gone are kept there, so that none comes back"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it says.
        source: io::Error,
    },
    /// Not one of our files.
    #[error(
        "{path}: is damaged. Which keys were used is lost with it, so the SAs must not go on: `portcullis down --forget` \
         removes them and it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No room.
    #[error(
        "{path}: there is no room for more than {MOST} keys of SAs that are gone: `portcullis down --forget`, and begin \
         anew with new keys"
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
}

/// The keys, of which only marks are kept. By itself it is in memory alone.
#[derive(Debug, Default)]
pub struct Spent {
    marks: HashSet<Mark>,
    salt: [u8; SALT],
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    instance: u64,
    /// Once there is one.
    file: Option<File>,
    /// Keys in it.
    count: usize,
}

impl Spent {
    /// Reads the file of a directory, if there is one of this SADB. What is not whole was not acted upon.
    ///
    /// # Errors
    /// [`SpentError`]: no SA may be installed then.
    pub fn open(directory: &Path, instance: u64) -> Result<Spent, SpentError> {
        let path = directory.join(FILE);
        let failed = |what| failed(&path, what);
        let mut spent = Spent::default();
        getrandom::fill(&mut spent.salt)
            .map_err(|e| failed("find randomness for it")(io::Error::other(e.to_string())))?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (mut octets, mut file) = (vec![], None);
        match fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("open it")(errno.into())),
            Ok(opened) => {
                let opened = file.insert(File::from(opened));
                let most = (HEAD + (MOST + 1) * size_of::<Mark>()) as u64;
                opened.take(most).read_to_end(&mut octets).map_err(failed("read it"))?;
            }
        }
        let (mut file, mut count) = (file, 0);
        match octets.split_at_checked(HEAD) {
            Some((head, _)) if head[..8] != MAGIC => return Err(SpentError::Damaged { path }),
            Some((head, marks)) if head[8..16] == instance.to_be_bytes() => {
                spent.salt.copy_from_slice(&head[16..]);
                let (marks, _) = marks.as_chunks();
                count = marks.len();
                spent.marks.extend(marks);
            }
            // Of regions that are gone, or without anything in it: another takes its place.
            _ => file = None,
        }
        spent.place = Some(Place { path, instance, file, count });
        Ok(spent)
    }

    /// Whether a key was in an SA that is gone.
    pub fn contains(&self, key: &Secret) -> bool {
        !self.marks.is_empty() && self.marks.contains(&self.mark(key))
    }

    /// Adds keys, of SAs that are to go when this returns.
    ///
    /// # Errors
    /// [`SpentError`]: the SAs have to stay then.
    pub fn add(&mut self, keys: impl Iterator<Item = Secret>) -> Result<(), SpentError> {
        let new: HashSet<Mark> =
            keys.map(|key| self.mark(&key)).filter(|mark| !self.marks.contains(mark)).collect();
        if let Some(place) = self.place.as_mut().filter(|_| !new.is_empty()) {
            place.write(&self.salt, &new)?;
        }
        self.marks.extend(new);
        Ok(())
    }

    /// Octets that it has on the heap.
    pub(crate) fn heap_octets(&self) -> usize {
        self.marks.capacity() * size_of::<Mark>()
    }

    fn mark(&self, key: &Secret) -> Mark {
        let mark = Prf::HmacSha256.mac(&self.salt, &[key.bytes()]);
        mark.bytes().try_into().expect("HMAC-SHA-256 has 32 octets")
    }
}

impl Place {
    fn write(&mut self, salt: &[u8; SALT], marks: &HashSet<Mark>) -> Result<(), SpentError> {
        if self.count + marks.len() > MOST {
            return Err(SpentError::Full { path: self.path.clone() });
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path, self.instance, salt)?),
        };
        let octets: Vec<u8> = marks.iter().flatten().copied().collect();
        // What was left of one that failed is written over.
        let at = HEAD + self.count * size_of::<Mark>();
        file.write_all_at(&octets, at as u64).map_err(failed(&self.path, "write it"))?;
        self.count += marks.len();
        Ok(())
    }
}

/// Makes one without keys, in the place of whatever is there.
fn create(path: &Path, instance: u64, salt: &[u8; SALT]) -> Result<File, SpentError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(path, "replace it")(e)),
        _ => {}
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::RUSR | Mode::WUSR);
    let file = File::from(file.map_err(|e| failed(path, "make it")(e.into()))?);
    let head = [&MAGIC[..], &instance.to_be_bytes(), salt].concat();
    file.write_all_at(&head, 0).map_err(failed(path, "write it"))?;
    Ok(file)
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> SpentError {
    move |source| SpentError::Io { path: path.to_owned(), what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("portcullis-spent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn key(n: u8) -> Secret {
        Secret::copy_of(&[n; 16])
    }

    fn found(directory: &Path, instance: u64) -> Vec<u8> {
        let spent = Spent::open(directory, instance).unwrap();
        (0..10).filter(|n| spent.contains(&key(*n))).collect()
    }

    #[test]
    fn keys_outlive_who_has_added_them_as_long_as_the_regions_are_the_same() {
        let directory = directory("outlive");
        let path = directory.join(FILE);
        let mut spent = Spent::open(&directory, 7).unwrap();
        spent.add(std::iter::empty()).unwrap();
        assert!(!path.exists());
        spent.add([key(1), key(2), key(1)].into_iter()).unwrap();
        spent.add([key(2)].into_iter()).unwrap();
        let octets = std::fs::read(&path).unwrap();
        assert_eq!(octets.len(), HEAD + 2 * 32);
        assert!(!octets.windows(8).any(|window| window == [1; 8] || window == [2; 8]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(found(&directory, 7), [1, 2]);
        Spent::open(&directory, 7).unwrap().add([key(3)].into_iter()).unwrap();
        assert_eq!(found(&directory, 7), [1, 2, 3]);
        // Other regions, with another salt.
        assert_eq!(found(&directory, 8), [0; 0]);
        Spent::open(&directory, 8).unwrap().add([key(1)].into_iter()).unwrap();
        assert_eq!((found(&directory, 8), found(&directory, 7)), (vec![1], vec![]));
        assert_ne!(std::fs::read(&path).unwrap()[HEAD..], octets[HEAD..HEAD + 32]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn wherever_it_was_cut_what_was_whole_before_is_there() {
        let directory = directory("cut");
        let path = directory.join(FILE);
        Spent::open(&directory, 7).unwrap().add([key(1)].into_iter()).unwrap();
        Spent::open(&directory, 7).unwrap().add([key(2)].into_iter()).unwrap();
        let octets = std::fs::read(&path).unwrap();
        for len in 0..octets.len() {
            std::fs::write(&path, &octets[..len]).unwrap();
            let whole = if len < HEAD + 32 { vec![] } else { vec![1] };
            assert_eq!(found(&directory, 7), whole);
            Spent::open(&directory, 7).unwrap().add([key(3)].into_iter()).unwrap();
            assert_eq!(found(&directory, 7), [whole, vec![3]].concat());
        }
        std::fs::write(&path, [b'x'; HEAD]).unwrap();
        assert!(matches!(Spent::open(&directory, 7), Err(SpentError::Damaged { .. })));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let directory = directory("refused");
        let mut spent = Spent::open(&directory, 7).unwrap();
        spent.add([key(1)].into_iter()).unwrap();
        spent.place.as_mut().unwrap().count = MOST;
        assert!(matches!(spent.add([key(2)].into_iter()), Err(SpentError::Full { .. })));
        assert!(!spent.contains(&key(2)));
        std::fs::remove_dir_all(&directory).unwrap();
        let mut spent = Spent::open(&directory, 7).unwrap();
        assert!(matches!(spent.add([key(1)].into_iter()), Err(SpentError::Io { .. })));
    }
}
