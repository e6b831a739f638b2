//! What confined threads can and cannot do. Each attempt runs in a process of its own: this test again, told by an
//! environment variable what to try.

mod netns;

use portcullis_datapath::{
    confine,
    fib::Prefix,
    steering::{Owner, Steering, Wanted},
};
use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Command, Output},
    ptr,
    sync::mpsc,
    thread,
    time::Duration,
};

const ATTEMPT: &str = "PORTCULLIS_CONFINE_ATTEMPT";
const ROLES: [&str; 3] = ["worker", "mirror", "main"];

fn confine_as(role: &str) {
    match role {
        "worker" => confine::worker(),
        "mirror" => confine::mirror(),
        _ => confine::process(),
    }
    .unwrap();
}

/// Runs `attempt` after `role` was confined, in another process.
fn child(role: &str, attempt: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "attempt", "--nocapture", "--test-threads=1"])
        .env(ATTEMPT, format!("{role} {attempt}"))
        .env("RUST_BACKTRACE", "full")
        .output()
        .unwrap()
}

/// Not a test by itself, but what `child` runs.
#[test]
fn attempt() {
    let Ok(attempt) = std::env::var(ATTEMPT) else { return };
    let (role, attempt) = attempt.split_once(' ').unwrap();
    let sockets = Sockets::new();
    let steering = (attempt == "steer").then(|| {
        netns::enter();
        let mut steering = Steering::load(1).unwrap();
        steering.attach(0, "lo", Wanted::Generic).unwrap();
        steering
    });
    thread::scope(|s| {
        // Also ends the thread while it is confined.
        s.spawn(|| {
            confine_as(role);
            match attempt {
                "needs" => needs(role, &sockets),
                "steer" => steer(steering.unwrap()),
                name => {
                    let (_, call, [a, b, c]) = FORBIDDEN.iter().find(|f| f.0 == name).unwrap();
                    // SAFETY: numbers and null pointers only; what an anonymous mapping gets is not used.
                    let result = unsafe { libc::syscall(*call, *a, *b, *c, 0x22, -1, 0) };
                    panic!("{name} was let through, with {result}: {}", io::Error::last_os_error());
                }
            }
        });
    });
}

/// What no confined thread may do: a name, the call, its first arguments. Pointers are null, so that a call that is
/// let through does nothing.
const FORBIDDEN: &[(&str, i64, [i64; 3])] = &[
    ("socket", libc::SYS_socket, [libc::AF_INET as i64, libc::SOCK_DGRAM as i64, 0]),
    ("execve", libc::SYS_execve, [0; 3]),
    ("fork", libc::SYS_clone, [libc::SIGCHLD as i64, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_PEEKDATA as i64, 0, 0]),
    ("kill", libc::SYS_kill, [1, 0, 0]),
    ("another signal than SIGABRT", libc::SYS_tgkill, [0, 0, libc::SIGTERM as i64]),
    ("setns", libc::SYS_setns, [-1, 0, 0]),
    ("unfilter", libc::SYS_prctl, [libc::PR_SET_SECCOMP as i64, 0, 0]),
    ("take capabilities", libc::SYS_capset, [0; 3]),
    ("load a BPF program", libc::SYS_bpf, [5, 0, 0]),
    ("map code", libc::SYS_mmap, [0, 4096, (libc::PROT_READ | libc::PROT_EXEC) as i64]),
    ("make memory code", libc::SYS_mprotect, [0, 0, (libc::PROT_READ | libc::PROT_EXEC) as i64]),
    ("a call of the x32 numbers", 0x4000_0000 | libc::SYS_getpid, [0; 3]),
];

#[test]
fn what_is_forbidden_ends_the_process_and_is_named() {
    for role in ROLES {
        for (name, call, _) in FORBIDDEN {
            let output = child(role, name);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{role}, {name}: {stderr}");
            let report = format!("portcullis: the {role} thread made system call {call}, which");
            assert!(stderr.contains(&report), "{role}, {name}: {stderr}");
        }
    }
}

#[test]
fn what_is_needed_goes_on_working() {
    for role in ROLES {
        let output = child(role, "needs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{role}: {:?} {stderr}", output.status);
        assert!(stderr.contains("needs are met"), "{role}: {stderr}");
    }
}

#[test]
fn the_mirror_can_steer() {
    let output = child("mirror", "steer");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} {stderr}", output.status);
}

/// What threads have open before they are confined.
struct Sockets {
    near: OwnedFd,
    far: OwnedFd,
}

impl Sockets {
    fn new() -> Sockets {
        let mut fds = [0; 2];
        // SAFETY: `fds` takes the two descriptors, which then are ours alone.
        unsafe {
            assert_eq!(libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, fds.as_mut_ptr()), 0);
            Sockets { near: OwnedFd::from_raw_fd(fds[0]), far: OwnedFd::from_raw_fd(fds[1]) }
        }
    }
}

/// What the mirror's owner has it do with the XDP program.
fn steer(mut steering: Steering) {
    let protected = ["10.7.0.0", "fd07::"].map(|addr| Prefix { addr: addr.parse().unwrap(), len: 24 });
    steering.set_protected(&protected.map(|p| (p, Owner::Worker(0))).into()).unwrap();
    steering.set_protected(&BTreeMap::new()).unwrap();
    steering.counters().unwrap();
    steering.detach().unwrap();
}

/// The calls of rings, of memory, and of threads.
fn needs(role: &str, sockets: &Sockets) {
    let (near, far) = (sockets.near.as_raw_fd(), sockets.far.as_raw_fd());
    let mut bytes = [0u8; 8];
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    let mut poll = libc::pollfd { fd: far, events: libc::POLLIN, revents: 0 };
    // SAFETY: descriptors are open, pointers are to locals of the sizes said, the message has no parts; the mapping
    // is private and gone at the end.
    unsafe {
        assert_eq!(libc::sendto(near, b"x".as_ptr().cast(), 1, libc::MSG_DONTWAIT, ptr::null(), 0), 1);
        assert_eq!(libc::poll(&mut poll, 1, 1000), 1);
        assert_eq!(libc::recvfrom(far, bytes.as_mut_ptr().cast(), 8, 0, ptr::null_mut(), ptr::null_mut()), 1);
        let mut message: libc::msghdr = std::mem::zeroed();
        assert_eq!(libc::recvmsg(far, &mut message, libc::MSG_DONTWAIT), -1);
        assert_eq!(io::Error::last_os_error().kind(), io::ErrorKind::WouldBlock);
        let option = (&raw mut value).cast();
        assert_eq!(libc::getsockopt(near, libc::SOL_SOCKET, libc::SO_TYPE, option, &mut len), 0);
        assert_eq!(value, libc::SOCK_DGRAM);

        let size = 8 << 20;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let memory = libc::mmap(ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        memory.cast::<u8>().add(size - 1).write(1);
        assert_eq!(libc::madvise(memory, size, libc::MADV_DONTNEED), 0);
        assert_eq!(memory.cast::<u8>().add(size - 1).read(), 0);
        assert_eq!(libc::munmap(memory, size), 0);
        let mut time = std::mem::zeroed();
        assert_eq!(
            libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &mut time as *mut libc::timespec),
            0
        );
    }
    // Allocations of all sizes, which grow and are freed.
    let mut all: Vec<Vec<u8>> = (0..2000).map(|n| vec![1; n * 64]).collect();
    all.iter_mut().for_each(|v| v.resize(v.len() * 3, 2));
    drop(all);
    // What fails without ending the process.
    for path in ["/dev/null", "/proc/sys/vm/overcommit_memory"] {
        assert_eq!(std::fs::File::open(path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(std::fs::File::create(path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    // Waiting for each other, by futex.
    let (sender, receiver) = mpsc::channel::<()>();
    assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    drop(sender);
    thread::sleep(Duration::from_millis(1));
    thread::yield_now();
    if role == "mirror" {
        // SAFETY: numbers only.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE) };
        assert!(socket >= 0);
        // SAFETY: the descriptor is ours alone.
        drop(unsafe { OwnedFd::from_raw_fd(socket) });
    }
    if role == "main" {
        let gone = std::fs::remove_file("/run/portcullis-no-such-file").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
    // A panic says what it is about before it ends anything.
    assert!(std::panic::catch_unwind(|| panic!("needs are met")).is_err());
}

#[test]
fn capabilities_are_given_up_for_good() {
    for (role, kept) in [("worker", 0), ("mirror", 1 << 12), ("main", 0u64)] {
        let (tell_id, id) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            confine_as(role);
            // SAFETY: takes nothing.
            tell_id.send(unsafe { libc::gettid() }).unwrap();
            let _ = ended.recv();
        });
        let id = id.recv().unwrap();
        let field = |id: i32, name: &str| {
            let status = std::fs::read_to_string(format!("/proc/self/task/{id}/status")).unwrap();
            let line = status.lines().find(|l| l.starts_with(&format!("{name}:"))).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        // SAFETY: takes nothing.
        let had = field(unsafe { libc::gettid() }, "CapPrm");
        for (name, expected) in [
            ("CapEff", kept & had),
            ("CapPrm", kept & had),
            ("CapInh", 0),
            ("CapAmb", 0),
            ("NoNewPrivs", 1),
            ("Seccomp", 2),
        ] {
            assert_eq!(field(id, name), expected, "{role}: {name}");
        }
        if had & 1 << 8 != 0 {
            assert_eq!(field(id, "CapBnd"), 0, "{role}: with CAP_SETPCAP the bounding set is emptied too");
        }
        end.send(()).unwrap();
        thread.join().unwrap();
    }
}
