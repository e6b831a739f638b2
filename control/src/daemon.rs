//! Starting and stopping the two daemons, for `portcullis up` and `down`.
//!
//! A pid file holds the pid and when that process was started, so that a pid that came round again is never taken for
//! ours; signals go through a pidfd that was opened before this was checked.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setsid},
};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use thiserror::Error;

/// How long a daemon may take to be ready.
pub const READY: Duration = Duration::from_secs(15);
/// How long a daemon may take to end in good order.
pub const END: Duration = Duration::from_secs(5);
/// The word by which `portcullis` starts itself to become a daemon; see [`detach`].
pub const DETACH: &str = "detach";

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a log that an error shows.
const TAIL_LINES: usize = 10;

/// Why a daemon is not as it should be.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Something with a file.
    #[error("{path}: cannot {what}: {source}{}", hint(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Another `portcullis` is at it.
    #[error("another `portcullis up` or `down` is under way ({path} is locked); wait for it")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// It ended before it was ready.
    #[error("{program} ended before it was ready{}; its last words, from {log}:\n{tail}",
        .status.map(|s| format!(" ({s})")).unwrap_or_default())]
    Ended {
        /// Which.
        program: &'static str,
        /// How, if we could see.
        status: Option<ExitStatus>,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// It is not ready in time.
    #[error("{program} is not ready after {} s; its last words, from {log}:\n{tail}", READY.as_secs())]
    NotReady {
        /// Which.
        program: &'static str,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// Not even SIGKILL ends it.
    #[error(
        "{program} (process {pid}) does not end, not even by SIGKILL; see what it waits for: cat /proc/{pid}/stack"
    )]
    Stuck {
        /// Which.
        program: &'static str,
        /// Its process.
        pid: u32,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root",
        _ => "",
    }
}

/// How a daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// It did not run.
    NotRunning,
    /// In good order.
    Orderly {
        /// Its process.
        pid: u32,
    },
    /// By SIGKILL, as it did not end in time.
    Killed {
        /// Its process.
        pid: u32,
    },
}

/// One of the two.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The program, which is beside our own.
    pub program: &'static str,
    directory: PathBuf,
    stem: &'static str,
}

/// A daemon that was started just now.
#[derive(Debug)]
pub struct Started {
    child: Child,
    /// Where its part of the log begins.
    mark: u64,
}

/// Held while daemons are started or stopped.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code)] File);

impl Turn {
    /// Ours, unless another `portcullis` is at it.
    ///
    /// # Errors
    /// [`DaemonError::Busy`].
    pub fn take(directory: &Path) -> Result<Turn, DaemonError> {
        let path = directory.join("portcullis.lock");
        let io = |what| {
            let path = path.clone();
            move |source| DaemonError::Io { path, what, source }
        };
        fs::create_dir_all(directory).map_err(io("make its directory"))?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io("open it"))?;
        match file.try_lock() {
            Ok(()) => Ok(Turn(file)),
            Err(TryLockError::WouldBlock) => Err(DaemonError::Busy { path }),
            Err(TryLockError::Error(source)) => Err(io("lock it")(source)),
        }
    }
}

impl Daemon {
    /// `portcullis-iked` with its files in the regions' directory.
    pub fn iked(directory: &Path) -> Daemon {
        Daemon { program: "portcullis-iked", directory: directory.to_owned(), stem: "iked" }
    }

    /// `portcullis-datapath` with its files in the regions' directory.
    pub fn datapath(directory: &Path) -> Daemon {
        Daemon { program: "portcullis-datapath", directory: directory.to_owned(), stem: "datapath" }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("{}.{ending}", self.stem))
    }

    /// The process that we started, if it runs.
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.file("pid")).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (start_time(pid)? == started).then_some(pid)
    }

    /// Starts it, in a session of its own, with its output in its log.
    ///
    /// # Errors
    /// [`DaemonError::Io`].
    pub fn start(&self, config: &Path) -> Result<Started, DaemonError> {
        let io = |path: &Path, what| {
            let path = path.to_owned();
            move |source| DaemonError::Io { path, what, source }
        };
        let config = fs::canonicalize(config).map_err(io(config, "find it"))?;
        let log = self.file("log");
        let out = OpenOptions::new().create(true).append(true).open(&log).map_err(io(&log, "open it"))?;
        let mark = out.metadata().map_err(io(&log, "read it"))?.len();
        let twin = out.try_clone().map_err(io(&log, "share it"))?;
        let own = own_path().map_err(io(Path::new("/proc/self/exe"), "read it"))?;
        let program = own.with_file_name(self.program);
        if let Err(source) = fs::metadata(&program) {
            return Err(io(&program, "start it")(source));
        }
        let mut command = Command::new(&own);
        command.args([DETACH, "--"]).arg(&program).arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(twin).stderr(out).current_dir("/");
        let child = command.spawn().map_err(io(&program, "start it"))?;
        let path = self.file("pid");
        let started = start_time(child.id()).unwrap_or_default();
        // Whole or not at all: a reader never sees half a number.
        let half = self.file("pid.new");
        fs::write(&half, format!("{} {started}\n", child.id())).map_err(io(&half, "write it"))?;
        fs::rename(&half, &path).map_err(io(&path, "write it"))?;
        Ok(Started { child, mark })
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// [`DaemonError::Ended`] or [`DaemonError::NotReady`], with what the daemon said last.
    pub fn wait(&self, started: &mut Started, mut ready: impl FnMut() -> bool) -> Result<(), DaemonError> {
        let deadline = Instant::now() + READY;
        let log = self.file("log");
        loop {
            // Asked first, so that one that was ready and ended is not taken for ready. Where our parent left SIGCHLD
            // ignored, the kernel keeps no status, and says that there is no such child.
            let ended = started.child.try_wait();
            if !matches!(ended, Ok(None)) {
                let _ = fs::remove_file(self.file("pid"));
                let (status, tail) = (ended.ok().flatten(), tail(&log, started.mark));
                return Err(DaemonError::Ended { program: self.program, status, log, tail });
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let tail = tail(&log, started.mark);
                return Err(DaemonError::NotReady { program: self.program, log, tail });
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Stops the process that we started, if it runs: by SIGTERM, and if that does not end it, by SIGKILL.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub fn stop(&self) -> Result<Stopped, DaemonError> {
        self.end(Signal::TERM)
    }

    /// The same, by SIGUSR1: a datapath leaves its program on the interfaces, which drops what is protected until the next one
    /// is there.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub fn hand_over(&self) -> Result<Stopped, DaemonError> {
        self.end(Signal::USR1)
    }

    fn end(&self, wish: Signal) -> Result<Stopped, DaemonError> {
        let path = self.file("pid");
        let Some(number) = self.pid() else {
            let _ = fs::remove_file(&path);
            return Ok(Stopped::NotRunning);
        };
        let io =
            |source: io::Error| DaemonError::Io { path: path.clone(), what: "signal its process", source };
        let Some(pid) = Pid::from_raw(number as i32) else { return Ok(Stopped::NotRunning) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(Stopped::NotRunning),
            Err(e) => return Err(io(e.into())),
        };
        if self.pid() != Some(number) {
            return Ok(Stopped::NotRunning);
        }
        for signal in [wish, Signal::KILL] {
            match pidfd_send_signal(&process, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(io(e.into())),
            }
            let deadline = Instant::now() + END;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos() as i64 };
                // Readable when it has ended.
                let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&time));
                if ended.is_ok_and(|n| n > 0) {
                    let _ = fs::remove_file(&path);
                    return Ok(match signal {
                        Signal::KILL => Stopped::Killed { pid: number },
                        _ => Stopped::Orderly { pid: number },
                    });
                }
                if left.is_zero() {
                    break;
                }
            }
        }
        Err(DaemonError::Stuck { program: self.program, pid: number })
    }
}

/// Becomes another program in a session of its own, so that no terminal can end it. Returns only when that fails.
pub fn detach(program: &OsString, arguments: &[OsString]) -> io::Error {
    if let Err(e) = setsid() {
        return e.into();
    }
    Command::new(program).args(arguments).exec()
}

/// Becomes the program of that name beside our own. Returns only when that fails, with what to do.
pub fn become_beside(program: &str, arguments: &[OsString]) -> String {
    match beside(program) {
        Some(path) => format!("{}: {}", path.display(), Command::new(&path).args(arguments).exec()),
        None => format!(
            "there is no {program} beside this program; install it there, or build it: cargo build --release -p {program}"
        ),
    }
}

/// Our own program, also when its file was replaced by a newer one since we started.
fn own_path() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or(path))
}

/// The program of that name beside our own.
pub fn beside(program: &str) -> Option<PathBuf> {
    Some(own_path().ok()?.with_file_name(program)).filter(|p| p.exists())
}

/// Field 22 of /proc/PID/stat: when a process that is no zombie was started.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 can hold blanks and brackets.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

/// The last lines of a log, from `mark` on.
fn tail(path: &Path, mark: u64) -> String {
    let mut text = vec![];
    if let Ok(mut file) = File::open(path) {
        let _ = file.seek(SeekFrom::Start(mark));
        let _ = file.take(1 << 20).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    match lines.is_empty() {
        true => "(nothing)".to_owned(),
        false => lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portcullis-daemon-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_pid_that_came_round_again_is_not_ours() {
        let directory = directory("pid");
        let daemon = Daemon::iked(&directory);
        let own = std::process::id();
        let started = start_time(own).unwrap();
        for (text, pid) in [
            (format!("{own} {started}\n"), Some(own)),
            (format!("{own} {started}1\n"), None),
            (format!("{own}\n"), None),
            (String::new(), None),
            (format!("4194305 {started}\n"), None),
        ] {
            fs::write(directory.join("iked.pid"), &text).unwrap();
            assert_eq!(daemon.pid(), pid, "{text}");
        }
        // Nothing is signalled: this test goes on.
        fs::write(directory.join("iked.pid"), format!("{own} {started}1\n")).unwrap();
        assert_eq!(daemon.stop().unwrap(), Stopped::NotRunning);
        assert!(!directory.join("iked.pid").exists());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn stop_ends_the_obedient_and_kills_the_stubborn() {
        let directory = directory("stop");
        let daemon = Daemon::datapath(&directory);
        for (script, is_obedient) in
            [("echo; exec sleep 60", true), ("trap '' TERM; echo; while :; do sleep 1; done", false)]
        {
            let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let pid = child.id();
            // It says a line when its trap is set.
            child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            fs::write(directory.join("datapath.pid"), format!("{pid} {}\n", start_time(pid).unwrap()))
                .unwrap();
            let reaper = thread::spawn(move || child.wait());
            let wanted = if is_obedient { Stopped::Orderly { pid } } else { Stopped::Killed { pid } };
            assert_eq!(daemon.stop().unwrap(), wanted);
            reaper.join().unwrap().unwrap();
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn one_at_a_time() {
        let directory = directory("turn");
        let turn = Turn::take(&directory).unwrap();
        assert!(matches!(Turn::take(&directory), Err(DaemonError::Busy { .. })));
        drop(turn);
        Turn::take(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_tail_is_of_this_run() {
        let directory = directory("tail");
        let path = directory.join("log");
        let lines: String = (0..20).map(|i| format!("line {i}\n")).collect();
        fs::write(&path, format!("before\n{lines}")).unwrap();
        assert_eq!(tail(&path, 7).lines().next(), Some("line 10"));
        assert_eq!(tail(&path, 7 + lines.len() as u64), "(nothing)");
        fs::remove_dir_all(&directory).unwrap();
    }
}
