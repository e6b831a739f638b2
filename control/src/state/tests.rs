use super::*;
use std::os::unix::fs::PermissionsExt;

/// A directory on a tmpfs, with an instance of its own.
fn place(name: &str) -> (PathBuf, u64) {
    let directory = PathBuf::from(format!("/dev/shm/portcullis-state-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    (directory, getrandom::u64().unwrap())
}

fn record(name: u64, octets: Option<&[u8]>) -> Record {
    Record { kind: Kind::IkeSa, name, octets: octets.map(|octets| Zeroizing::new(octets.to_vec())) }
}

fn found(directory: &Path, instance: u64) -> Vec<(u64, Vec<u8>)> {
    let records = read(directory, instance).unwrap().unwrap();
    records.into_iter().map(|record| (record.name, record.octets.unwrap().to_vec())).collect()
}

#[test]
fn what_counts_is_what_was_written_last() {
    let (directory, instance) = place("last");
    assert!(read(&directory, instance).unwrap().is_none());
    let secret = b"nobody reads this";
    let mut file =
        StateFile::create(&directory, instance, &[record(1, Some(b"one")), record(2, Some(secret))]).unwrap();
    file.append(&[record(1, Some(b"another")), record(3, Some(b"three"))]).unwrap();
    file.append(&[record(2, None)]).unwrap();
    file.append(&[]).unwrap();
    assert_eq!(found(&directory, instance), [(1, b"another".to_vec()), (3, b"three".to_vec())]);
    let path = directory.join(FILE);
    let octets = std::fs::read(&path).unwrap();
    assert_eq!(octets.len() as u64, file.octets());
    assert!(!octets.windows(secret.len()).any(|window| window == secret));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    // Another takes its place, with another salt.
    let other = StateFile::create(&directory, instance, &[record(9, Some(b"nine"))]).unwrap();
    assert_eq!(found(&directory, instance), [(9, b"nine".to_vec())]);
    assert_ne!(std::fs::read(&path).unwrap()[..HEAD], octets[..HEAD]);
    assert!(!directory.join(NEW_FILE).exists());
    other.remove().unwrap();
    assert!(read(&directory, instance).unwrap().is_none());
    forget_key(instance);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Wherever the process was killed, what was whole before counts; and whatever else is changed, nothing does.
#[test]
fn what_is_not_whole_does_not_count_and_what_is_changed_is_refused() {
    let (directory, instance) = place("whole");
    let mut file = StateFile::create(&directory, instance, &[record(1, Some(b"one"))]).unwrap();
    let whole = file.octets() as usize;
    file.append(&[record(1, Some(b"two")), record(2, Some(b"two"))]).unwrap();
    let (path, octets) = (directory.join(FILE), std::fs::read(directory.join(FILE)).unwrap());
    for len in 0..octets.len() {
        std::fs::write(&path, &octets[..len]).unwrap();
        match len {
            _ if len < HEAD => assert!(matches!(read(&directory, instance), Err(StateError::Other { .. }))),
            _ if len < whole => assert!(read(&directory, instance).unwrap().unwrap().is_empty()),
            _ => assert_eq!(found(&directory, instance), [(1, b"one".to_vec())]),
        }
    }
    // The length of the last frame may say that there is more of it.
    let is_length = |at: usize| (HEAD..HEAD + 4).contains(&at) || (whole..whole + 4).contains(&at);
    for at in (0..octets.len()).filter(|at| !is_length(*at)) {
        let mut other = octets.clone();
        other[at] ^= 0x10;
        std::fs::write(&path, &other).unwrap();
        let error = read(&directory, instance).unwrap_err();
        match at {
            0..24 => assert!(matches!(error, StateError::Other { .. }), "{at}: {error}"),
            _ => assert!(matches!(error, StateError::Damaged { .. }), "{at}: {error}"),
        }
    }
    // Frames of another file, or in another order.
    let second = &octets[whole..];
    for frames in [[second, &octets[HEAD..whole]].concat(), [&octets[HEAD..], second].concat()] {
        std::fs::write(&path, [&octets[..HEAD], &frames].concat()).unwrap();
        assert!(matches!(read(&directory, instance), Err(StateError::Damaged { .. })));
    }
    std::fs::write(&path, &octets).unwrap();
    assert_eq!(found(&directory, instance).len(), 2);
    // Without its key it is of no use, as after a boot.
    forget_key(instance);
    assert!(matches!(read(&directory, instance), Err(StateError::Keyring(_))));
    assert!(matches!(read(&directory, instance + 1), Err(StateError::Other { .. })));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn it_is_on_no_disk_and_no_link() {
    let (directory, instance) = place("link");
    let error = StateFile::create(Path::new("/proc"), instance, &[]).unwrap_err();
    assert!(matches!(&error, StateError::Disk { .. }) && error.to_string().contains("/run/portcullis"));
    let elsewhere = directory.join("elsewhere");
    std::fs::write(&elsewhere, b"as it was").unwrap();
    for file in [FILE, NEW_FILE] {
        std::os::unix::fs::symlink(&elsewhere, directory.join(file)).unwrap();
    }
    assert!(matches!(read(&directory, instance), Err(StateError::Io { what: "open it", .. })));
    StateFile::create(&directory, instance, &[record(1, Some(b"one"))]).unwrap();
    assert_eq!(found(&directory, instance).len(), 1);
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"as it was");
    forget_key(instance);
    std::fs::remove_dir_all(&directory).unwrap();
}
