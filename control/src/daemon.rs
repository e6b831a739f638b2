//! Starting and stopping the two daemons, for `portcullis up` and `down`.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use thiserror::Error;

/// How long a daemon may take to be ready, or to end.
pub const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a daemon is not as it should be.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum DaemonError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{program} ended at once:\n{log}")]
    Ended { program: &'static str, log: String },
    #[error("{program} is not ready after {} s:\n{log}", PATIENCE.as_secs())]
    NotReady { program: &'static str, log: String },
    #[error("{program} (process {pid}) does not end")]
    Stuck { program: &'static str, pid: u32 },
}

/// One of the two.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The program, which is beside our own.
    pub program: &'static str,
    directory: PathBuf,
    stem: &'static str,
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

    /// The process, if it runs: the pid file holds its start time too, so that a reused pid is not taken for it.
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.file("pid")).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (start_time(pid)? == started).then_some(pid)
    }

    /// Starts it, if it does not run. False: it ran.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub fn start(&self, config: &Path) -> Result<bool, DaemonError> {
        if self.pid().is_some() {
            return Ok(false);
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| DaemonError::Io { path, source }
        };
        fs::create_dir_all(&self.directory).map_err(io(&self.directory))?;
        let log = self.file("log");
        let out = OpenOptions::new().create(true).append(true).open(&log).map_err(io(&log))?;
        let mark = out.metadata().map_err(io(&log))?.len();
        let program = beside(self.program);
        let twin = out.try_clone().map_err(io(&log))?;
        let mut command = Command::new(&program);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(twin).stderr(out).process_group(0);
        let mut child = command.spawn().map_err(io(&program))?;
        let pid = child.id();
        let path = self.file("pid");
        let started = start_time(pid).unwrap_or_default();
        fs::write(&path, format!("{pid} {started}\n")).map_err(io(&path))?;
        // One that refuses its configuration ends at once: then it says why.
        thread::sleep(LOOK_EVERY);
        match child.try_wait() {
            Ok(Some(_)) => {
                let _ = fs::remove_file(&path);
                Err(DaemonError::Ended { program: self.program, log: tail(&log, mark) })
            }
            _ => Ok(true),
        }
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// [`DaemonError`], with what the daemon said last.
    pub fn wait(&self, mut ready: impl FnMut() -> bool) -> Result<(), DaemonError> {
        let deadline = Instant::now() + PATIENCE;
        let log = || tail(&self.file("log"), 0);
        while !ready() {
            if self.pid().is_none() {
                let _ = fs::remove_file(self.file("pid"));
                return Err(DaemonError::Ended { program: self.program, log: log() });
            }
            if Instant::now() > deadline {
                return Err(DaemonError::NotReady { program: self.program, log: log() });
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Stops it in good order, if it runs. False: it did not.
    ///
    /// # Errors
    /// [`DaemonError::Stuck`].
    pub fn stop(&self) -> Result<bool, DaemonError> {
        let Some(number) = self.pid() else { return Ok(false) };
        let Some(pid) = Pid::from_raw(number as i32) else { return Ok(false) };
        for signal in [Signal::TERM, Signal::KILL] {
            let _ = kill_process(pid, signal);
            let deadline = Instant::now() + PATIENCE / 2;
            while Instant::now() < deadline {
                if self.pid().is_none() || test_kill_process(pid).is_err() {
                    let _ = fs::remove_file(self.file("pid"));
                    return Ok(true);
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        Err(DaemonError::Stuck { program: self.program, pid: number })
    }
}

fn beside(program: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|p| Some(p.parent()?.join(program)));
    beside.filter(|p| p.exists()).unwrap_or_else(|| program.into())
}

/// Field 22 of /proc/PID/stat: when a process that is no zombie was started.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

/// The last lines of a log, from `mark` on.
fn tail(path: &Path, mark: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.seek(SeekFrom::Start(mark));
        let _ = file.read_to_string(&mut text);
    }
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
