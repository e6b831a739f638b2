//! The other end of iked's socket.

use crate::{
    iked::{Answer, Request},
    report::{EventReport, IkeReport, Report},
};
use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;

/// How long iked may take for an answer. It may wait for workers a while.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("portcullis-iked does not run ({socket}: {source}); start it: portcullis up")]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The socket is there, but not for us.
    #[error("{socket}: {source}; only the user that runs portcullis-iked may ask it: run as root")]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke, or what came is no answer.
    #[error("portcullis-iked: {0}; see its log")]
    Broken(String),
    /// iked says no.
    #[error("{0}")]
    Refused(String),
}

/// Asks iked.
///
/// # Errors
/// [`ClientError`].
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    answer(&mut send(socket, request)?)
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

fn send(socket: &Path, request: &Request) -> Result<BufReader<UnixStream>, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| {
        let socket = socket.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket, source },
            _ => ClientError::NotRunning { socket, source },
        }
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    let mut line = serde_json::to_string(request).map_err(broken)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(broken)?;
    Ok(BufReader::new(stream))
}

fn answer(lines: &mut BufReader<UnixStream>) -> Result<Answer, ClientError> {
    let mut answer = String::new();
    lines.read_line(&mut answer).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => broken(format!("no answer within {} s", PATIENCE.as_secs())),
        _ => broken(e),
    })?;
    match serde_json::from_str(&answer).map_err(broken)? {
        Answer::Error { error } => Err(ClientError::Refused(error)),
        answer => Ok(answer),
    }
}

/// Asks iked for its IKE SAs.
///
/// # Errors
/// [`ClientError`].
pub fn list(socket: &Path) -> Result<IkeReport, ClientError> {
    match ask(socket, &Request::List {})? {
        Answer::List(report) => Ok(report),
        other => Err(broken(format!("not a list: {other:?}"))),
    }
}

/// Hears of events until iked ends, or `takes` fails; that nobody reads what it writes any more is no failure.
///
/// # Errors
/// [`ClientError`].
pub fn monitor(
    socket: &Path,
    mut takes: impl FnMut(&EventReport) -> io::Result<()>,
) -> Result<(), ClientError> {
    let mut lines = send(socket, &Request::Monitor {})?;
    answer(&mut lines)?;
    lines.get_ref().set_read_timeout(None).map_err(broken)?;
    for line in lines.lines() {
        match takes(&serde_json::from_str(&line.map_err(broken)?).map_err(broken)?) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            taken => taken.map_err(broken)?,
        }
    }
    Ok(())
}

/// Asks iked for its report.
///
/// # Errors
/// [`ClientError`].
pub fn report(socket: &Path) -> Result<Report, ClientError> {
    match ask(socket, &Request::Status {})? {
        Answer::Report(report) => Ok(*report),
        other => Err(ClientError::Broken(format!("not a report: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::net::UnixListener, process, thread};

    /// Of any number of events.
    fn hear(fails: io::ErrorKind) -> (Result<(), ClientError>, usize) {
        let socket = std::env::temp_dir().join(format!("portcullis-monitor-{}-{fails:?}", process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let iked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let event = r#"{"event":"ike-up","ike_sa":1,"connection":"a","text":"up","sa":null}"#;
            // Until nobody hears it.
            stream.write_all(b"{\"events\":\"follow\"}\n").unwrap();
            while writeln!(stream, "{event}").is_ok() {}
        });
        let mut taken = 0;
        let heard = monitor(&socket, |event| {
            assert_eq!(event.text, "up");
            taken += 1;
            if taken < 3 { Ok(()) } else { Err(fails.into()) }
        });
        iked.join().unwrap();
        fs::remove_file(socket).unwrap();
        (heard, taken)
    }

    #[test]
    fn it_ends_when_nobody_reads_it_any_more() {
        assert!(matches!(hear(io::ErrorKind::BrokenPipe), (Ok(()), 3)));
        assert!(matches!(hear(io::ErrorKind::StorageFull), (Err(ClientError::Broken(_)), 3)));
    }
}
