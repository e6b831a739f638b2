//! Many ikeds start in one directory at once.

use portcullis_sadb::*;
use std::{
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};

const SIZES: Sizes = Sizes { max_sas: 8, max_policies: 8 };
const STARTS: u64 = 8;

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As iked starts: it takes over what it finds, or makes it.
fn start(dir: &Path, random: u64) -> Result<Sadb, RegionError> {
    match Sadb::open(dir) {
        Err(RegionError::Missing { path }) if path == dir.join(SADB_FILE) => {
            Sadb::create(dir, &SIZES, [random; 2])
        }
        other => other,
    }
}

/// One gets the regions, the others hear who has them, and the two files are a pair.
fn one_of_many(dir: &Path, round: u64) -> Sadb {
    let together = Barrier::new(STARTS as usize);
    let results: Vec<Result<Sadb, RegionError>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..STARTS)
            .map(|i| {
                let (together, random) = (&together, 1 + round * STARTS + i);
                scope.spawn(move || {
                    together.wait();
                    if i % 2 == 0 { start(dir, random) } else { Sadb::create(dir, &SIZES, [random; 2]) }
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut winners = vec![];
    for result in results {
        match result {
            Ok(sadb) => winners.push(sadb),
            Err(RegionError::InUse { path, .. }) => assert_eq!(path, dir.join(SADB_FILE)),
            Err(e) => panic!("round {round}: {e}"),
        }
    }
    assert_eq!(winners.len(), 1, "round {round}");
    let (reader, ..) = Reader::attach(dir).unwrap_or_else(|e| panic!("round {round}: {e}"));
    assert!(reader.is_current());
    winners.remove(0)
}

fn policy(priority: u32) -> Policy {
    let all = "0.0.0.0/0".parse().unwrap();
    let selector = Selector::between(all, all);
    Policy { direction: Direction::Outbound, selector, priority, action: Action::Discard, reqid: 0, sa: None }
}

#[test]
fn of_many_that_start_at_once_one_gets_the_regions() {
    let dir = Dir(std::env::temp_dir().join(format!("portcullis-sadb-race-{}", std::process::id())));
    for round in 0..300 {
        std::fs::create_dir_all(&dir.0).unwrap();
        let mut sadb = one_of_many(&dir.0, round);
        // What the winner writes is there for all to see.
        let count = sadb.policies().count();
        sadb.add_policy(&policy(count as u32)).unwrap();
        assert_eq!(Reader::attach(&dir.0).unwrap().0.policies().count(), count + 1, "round {round}");
        drop(sadb);
        // Every other round finds what the one before left.
        if round % 2 == 1 {
            std::fs::remove_dir_all(&dir.0).unwrap();
        }
    }
}
