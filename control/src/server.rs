//! The control socket: lines of JSON, several clients, one thread.

use crate::iked::{Answer, Iked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Octets of a request, at most.
const LONGEST: usize = 64 * 1024;
/// Clients at a time, at most.
const CLIENTS: usize = 32;

/// The socket and its clients.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    clients: Vec<(UnixStream, Vec<u8>)>,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`, in place of a socket that a predecessor left. Whoever holds the SADB's lock may.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(path: &Path) -> io::Result<Server> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Server { listener, clients: vec![], path: path.to_owned() })
    }

    /// Waits for requests, `timeout` at most, and answers them.
    pub fn turn(&mut self, iked: &mut Iked, timeout: Duration) {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.clients.iter().map(|(stream, _)| PollFd::new(stream, PollFlags::IN)));
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos() as i64 };
        // A signal ends the wait as a request does.
        let _ = poll(&mut fds, Some(&timeout));
        drop(fds);
        while self.clients.len() < CLIENTS
            && let Ok((stream, _)) = self.listener.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push((stream, vec![]));
            }
        }
        self.clients.retain_mut(|(stream, buffer)| serve(stream, buffer, iked));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads what a client sent and answers whole lines. False: the client is done.
fn serve(stream: &mut UnixStream, buffer: &mut Vec<u8>, iked: &mut Iked) -> bool {
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return false,
            Ok(n) => buffer.extend(&part[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return false,
        }
        if buffer.len() > LONGEST {
            let error = format!("a request has at most {LONGEST} octets");
            let _ = send(stream, &Answer::Error { error });
            return false;
        }
    }
    while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
        let line: Vec<u8> = buffer.drain(..=end).collect();
        let answer = iked.answer(&String::from_utf8_lossy(&line));
        if send(stream, &answer).is_err() {
            return false;
        }
    }
    true
}

/// A client that does not read its answer is let go.
fn send(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let written = stream.write_all(&text);
    stream.set_nonblocking(true)?;
    written
}
