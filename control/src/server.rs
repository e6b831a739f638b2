//! The control socket: lines of JSON, several clients, one thread.
//!
//! Nothing here waits for a client: what one does not read is kept for it, up to a bound, and one that sends too much
//! without a line end is told so and let go.

use crate::iked::{Answer, Iked};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::Mode,
    process::umask,
};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

/// Octets of a request, at most.
pub const LONGEST_REQUEST: usize = 64 * 1024;
/// Octets that wait for a client to read them, at most, before it may ask for more.
const PATIENCE: usize = 1 << 20;
/// Clients at a time, at most.
const CLIENTS: usize = 32;

/// The socket and its clients.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    clients: Vec<Client>,
    path: PathBuf,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Nothing more is read from it.
    is_done: bool,
}

impl Server {
    /// Listens at `path`, in place of a socket that a predecessor left. Whoever holds the SADB's lock may. Only the
    /// owner can connect.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(path: &Path) -> io::Result<Server> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // From its first moment on, not by a chmod after it.
        let before = umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        Ok(Server { listener, clients: vec![], path: path.to_owned() })
    }

    /// Waits for requests, `timeout` at most or until a signal comes, and answers them.
    pub fn turn(&mut self, iked: &mut Iked, timeout: Duration) {
        let accepts = self.clients.len() < CLIENTS;
        let mut fds =
            vec![PollFd::new(&self.listener, if accepts { PollFlags::IN } else { PollFlags::empty() })];
        fds.extend(self.clients.iter().map(|c| PollFd::new(&c.stream, c.waits_for())));
        // What iked waits for wakes it, too.
        let others = iked.fds();
        fds.extend(others.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = iked.due().map_or(timeout, |due| timeout.min(due));
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos() as i64 };
        if poll(&mut fds, Some(&timeout)).is_err() {
            return;
        }
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        drop(others);
        let mut ready = ready.into_iter();
        self.clients.retain_mut(|client| !ready.next().unwrap_or(false) || client.serve(iked).is_ok());
        while self.clients.len() < CLIENTS
            && let Ok((stream, _)) = self.listener.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, request: vec![], answer: vec![], is_done: false });
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Client {
    fn waits_for(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if !self.is_done && self.answer.len() < PATIENCE {
            flags |= PollFlags::IN;
        }
        if !self.answer.is_empty() {
            flags |= PollFlags::OUT;
        }
        flags
    }

    /// Reads what it sent, answers whole lines, and sends what it takes. An error: it is done with.
    fn serve(&mut self, iked: &mut Iked) -> io::Result<()> {
        if !self.is_done && self.answer.len() < PATIENCE {
            self.is_done = !self.read()?;
        }
        loop {
            self.answer_lines(iked)?;
            if self.answer.is_empty() {
                return if self.is_done { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
            }
            match self.stream.write(&self.answer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.answer.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// False: it sends no more.
    fn read(&mut self) -> io::Result<bool> {
        let mut part = [0; 4096];
        while self.request.len() <= LONGEST_REQUEST {
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(false),
                Ok(n) => self.request.extend(&part[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn answer_lines(&mut self, iked: &mut Iked) -> io::Result<()> {
        while self.answer.len() < PATIENCE
            && let Some(end) = self.request.iter().position(|b| *b == b'\n')
        {
            let line: Vec<u8> = self.request.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if !line.trim().is_empty() {
                self.put(&iked.answer(&line))?;
            }
        }
        if self.request.len() > LONGEST_REQUEST && !self.request.contains(&b'\n') {
            self.put(&Answer::Error { error: format!("a request has at most {LONGEST_REQUEST} octets") })?;
            self.request.clear();
            self.is_done = true;
        }
        Ok(())
    }

    fn put(&mut self, answer: &Answer) -> io::Result<()> {
        serde_json::to_writer(&mut self.answer, answer)?;
        self.answer.push(b'\n');
        Ok(())
    }
}
