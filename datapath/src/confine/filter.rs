//! System call filters (seccomp), and the report of a call that one of them refused.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::{cell::Cell, collections::BTreeMap, io};

/// Calls that any thread needs to run, sleep, allocate, log, panic and end.
const ANY: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls on sockets that exist: kicks of rings, statistics, polls.
const SOCKETS: &[i64] = &[
    libc::SYS_getsockopt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
];

/// What else route netlink takes; `socket` itself is allowed for netlink only.
const NETLINK: &[i64] = &[libc::SYS_bind, libc::SYS_getsockname, libc::SYS_setsockopt];

/// Commands of `bpf` on maps that exist: look up, update, delete, next key, information, and the batched ones.
const BPF_MAP_COMMANDS: &[u64] = &[1, 2, 3, 4, 15, 24, 25, 26, 27];

/// What the main thread does at the end: wait for signals and threads, take away its files.
const MAIN: &[i64] = &[
    libc::SYS_flock,
    libc::SYS_msync,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigtimedwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// Calls that the C library and the standard library make on their own account and can do without: to see whether
/// a heap may shrink, and for the names in a backtrace. They fail, and end nothing.
const FAIL: &[i64] = &[
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_readlinkat,
];

/// A list of allowed calls, each with the conditions of which one must hold, or none.
#[derive(Default)]
pub(super) struct Allowed(BTreeMap<i64, Vec<SeccompRule>>, Option<seccompiler::BackendError>);

pub(super) fn worker() -> Allowed {
    Allowed::default().common().all(SOCKETS)
}

pub(super) fn mirror() -> Allowed {
    let bpf = BPF_MAP_COMMANDS.iter().fold(worker().all(NETLINK), |allowed, command| {
        allowed.when(libc::SYS_bpf, &[(0, SeccompCmpOp::Eq, *command)])
    });
    bpf.when(libc::SYS_fcntl, &[(1, SeccompCmpOp::Eq, libc::F_DUPFD_CLOEXEC as u64)])
        .when(libc::SYS_socket, &[(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)])
}

pub(super) fn process() -> Allowed {
    worker().all(MAIN)
}

impl Allowed {
    fn common(self) -> Allowed {
        // No memory that can be executed, so no code but the program's own.
        let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        // abort() only.
        let abort =
            [(0, SeccompCmpOp::Eq, std::process::id() as u64), (2, SeccompCmpOp::Eq, libc::SIGABRT as u64)];
        // The standard library looks whether a descriptor is open before it closes it, in debug builds.
        let is_open = (1, SeccompCmpOp::Eq, libc::F_GETFD as u64);
        self.all(ANY)
            .when(libc::SYS_fcntl, &[is_open])
            .when(libc::SYS_mmap, &[(2, executable.clone(), 0)])
            .when(libc::SYS_mprotect, &[(2, executable, 0)])
            .when(libc::SYS_tgkill, &abort)
    }

    fn all(mut self, calls: &[i64]) -> Allowed {
        self.0.extend(calls.iter().map(|call| (*call, vec![])));
        self
    }

    /// Allows `call` also when all of these arguments are so.
    fn when(mut self, call: i64, arguments: &[(u8, SeccompCmpOp, u64)]) -> Allowed {
        let conditions = arguments
            .iter()
            .map(|(i, op, value)| SeccompCondition::new(*i, SeccompCmpArgLen::Dword, op.clone(), *value));
        match conditions.collect::<Result<_, _>>().and_then(SeccompRule::new) {
            Ok(rule) => self.0.entry(call).or_default().push(rule),
            Err(e) => self.1 = Some(e),
        }
        self
    }

    /// Confines the calling thread to these calls, for good.
    pub(super) fn install(self) -> Result<(), seccompiler::Error> {
        if let Some(e) = self.1 {
            return Err(e.into());
        }
        // The most restrictive answer of all filters of a thread counts, and an error is more so than an allowance.
        let fail: BTreeMap<_, _> = FAIL.iter().map(|call| (*call, vec![])).collect();
        apply(fail.clone(), SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?;
        // A trap ends the process as surely as a kill would: who blocks or ignores SIGSYS dies without a report.
        apply(self.0.into_iter().chain(fail).collect(), SeccompAction::Allow, SeccompAction::Trap)
    }
}

fn apply(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    answer: SeccompAction,
    to_others: SeccompAction,
) -> Result<(), seccompiler::Error> {
    let filter = SeccompFilter::new(calls, to_others, answer, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}

thread_local! {
    /// Named in the report.
    static ROLE: Cell<&'static str> = const { Cell::new("unconfined") };
}

/// Has a refused call of this thread reported before it ends the process.
pub(super) fn report_refused_calls(role: &'static str) -> io::Result<()> {
    ROLE.set(role);
    // SAFETY: `sigaction` is plain numbers and pointers, for all of which zero is a value; the handler is a function
    // of the type that SA_SIGINFO asks for, and does only what a signal handler may.
    let taken = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = refused as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut())
    };
    if taken == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The handler of SIGSYS: a line without allocation or lock, then the end.
extern "C" fn refused(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let mut line = Line { bytes: [0; 160], len: 0 };
    line.push(b"portcullis: the ");
    line.push(ROLE.get().as_bytes());
    line.push(b" thread made system call ");
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`.
    line.push_number(unsafe { call_of(info) });
    line.push(b", which it is not allowed to; the process ends here\n");
    // SAFETY: the bytes are initialised. After SIGSYS for a refused call, another one that is refused while the
    // signal is blocked, as it is in its handler, ends the process by it; any other SIGSYS gets to `_exit`.
    unsafe {
        libc::write(2, line.bytes.as_ptr().cast(), line.len);
        libc::syscall(libc::SYS_getppid);
        libc::_exit(128 + libc::SIGSYS)
    }
}

/// The number of the refused call, which `libc` does not give access to.
///
/// # Safety
/// `info` points to a `siginfo_t`.
unsafe fn call_of(info: *const libc::siginfo_t) -> u32 {
    // `_sigsys` of `asm-generic/siginfo.h`: after three numbers and padding to 16 bytes, the address of the call and
    // its number.
    const AT: usize = 16 + size_of::<usize>();
    const { assert!(AT + 4 <= size_of::<libc::siginfo_t>() && AT.is_multiple_of(4)) };
    // SAFETY: within the `siginfo_t`, and aligned in it, as asserted above.
    unsafe { info.cast::<u8>().add(AT).cast::<u32>().read() }
}

/// A line that needs no allocation.
struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        let n = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&text[..n]);
        self.len += n;
    }

    fn push_number(&mut self, mut n: u32) {
        let mut digits = [0; 10];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.push(&digits[first..]);
    }
}
