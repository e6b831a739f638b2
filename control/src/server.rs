//! The control socket: lines of JSON, several clients, one thread; and beside it that of VICI.
//!
//! Nothing here waits for a client: what one does not read is kept for it, up to a bound, and one that sends too much
//! without a line end is told so and let go.

use crate::{
    iked::{Answer, Iked, SOCKET_FILE},
    report::EventReport,
    vici::socket::Vici,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::Mode,
    process::umask,
};
use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Octets of a request, at most.
pub const LONGEST_REQUEST: usize = 64 * 1024;
/// Octets that wait for a client to read them, at most, before it may ask for more.
const PATIENCE: usize = 1 << 20;
/// Clients at a time, at most.
const CLIENTS: usize = 32;

/// A socket that only the owner can connect to. It is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`, in place of a socket that a predecessor left. Whoever holds the SADB's lock may.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn listen(path: &Path) -> io::Result<Socket> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(e)),
            _ => {}
        }
        // From its first moment on, not by a chmod after it.
        let before = umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.map_err(named)?;
        listener.set_nonblocking(true)?;
        Ok(Socket { listener, path: path.to_owned() })
    }

    /// What is to be waited for, if there is room for another client.
    pub fn waits_for(&self, accepts: bool) -> (BorrowedFd<'_>, PollFlags) {
        (self.listener.as_fd(), if accepts { PollFlags::IN } else { PollFlags::empty() })
    }

    /// A client that has come. Nothing waits for it.
    pub fn accept(&self) -> Option<UnixStream> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The sockets and their clients.
pub struct Server {
    socket: Socket,
    clients: Vec<Client>,
    vici: Vici,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// It hears of events.
    monitors: bool,
    /// Nothing more is read from it.
    is_done: bool,
}

impl Server {
    /// Listens in the regions' directory, on its own socket and on that of VICI.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(directory: &Path) -> io::Result<Server> {
        let socket = Socket::listen(&directory.join(SOCKET_FILE))?;
        Ok(Server { socket, clients: vec![], vici: Vici::listen(directory)? })
    }

    /// Tells what has happened, waits for requests, `timeout` at most or until a signal comes, and answers them.
    pub fn turn(&mut self, iked: &mut Iked, timeout: Duration) {
        let events: Vec<_> = iked.take_events().into();
        self.clients.iter_mut().for_each(|client| client.hear(&events));
        self.vici.hear(&events, iked);
        let mut all = vec![self.socket.waits_for(self.clients.len() < CLIENTS)];
        all.extend(self.clients.iter().map(|c| (c.stream.as_fd(), c.waits_for())));
        let ours = all.len();
        all.extend(self.vici.fds());
        let served = all.len();
        // What iked waits for wakes it, too.
        all.extend(iked.fds().into_iter().map(|fd| (fd, PollFlags::IN)));
        let mut fds: Vec<_> = all.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = [iked.due(), self.vici.due()].into_iter().flatten().fold(timeout, Duration::min);
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos() as i64 };
        if poll(&mut fds, Some(&timeout)).is_err() {
            return;
        }
        let ready: Vec<PollFlags> = fds[..served].iter().map(PollFd::revents).collect();
        let mut of_clients = ready[1..ours].iter();
        self.clients.retain_mut(|client| {
            of_clients.next().is_none_or(|flags| flags.is_empty()) || client.serve(iked).is_ok()
        });
        while !ready[0].is_empty()
            && self.clients.len() < CLIENTS
            && let Some(stream) = self.socket.accept()
        {
            let (request, answer) = (vec![], vec![]);
            self.clients.push(Client { stream, request, answer, monitors: false, is_done: false });
        }
        self.vici.serve(ready[ours..].iter().copied(), iked);
        let is_heard = self.vici.is_listening() || self.clients.iter().any(|client| client.monitors);
        if let Some((ike, _)) = iked.ike() {
            ike.set_heard(is_heard);
        }
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

    /// Tells what has happened, if it wants to know. What one that does not read has no room for is lost to it.
    fn hear(&mut self, events: &[EventReport]) {
        for event in events.iter().filter(|_| self.monitors) {
            if self.answer.len() < PATIENCE && serde_json::to_writer(&mut self.answer, event).is_ok() {
                self.answer.push(b'\n');
            }
        }
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
                let answer = iked.answer(&line);
                self.monitors |= matches!(answer, Answer::Events { .. });
                self.put(&answer)?;
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
