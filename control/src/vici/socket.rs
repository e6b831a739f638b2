//! The socket of VICI: several clients, one thread.
//!
//! Nothing here waits for a client: what one does not read is kept for it, up to a bound, behind which it hears of no
//! events, is told no more of a list, and may not ask.

use super::{
    command::{self, Reply},
    control::Control,
    listing::Listing,
    message::{Message, Writer},
    sas,
    session::Session,
};
use crate::{
    iked::Iked,
    report::{EventReport, What},
    server::Socket,
};
use rustix::event::PollFlags;
use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// The socket, in the regions' directory.
pub const SOCKET_FILE: &str = "charon.vici";

/// Clients at a time, at most.
const CLIENTS: usize = 32;
/// Octets that wait for a client to read them, at most, before it gets and asks for more.
const PATIENCE: usize = 1 << 20;
/// Octets that are read at a time.
const PART: usize = 16 * 1024;
/// What a client may ask before others have their turn.
const REQUESTS_A_TURN: usize = 256;

/// What clients may hear of.
const EVENTS: &[&str] = &[
    "list-sa",
    "list-conn",
    "list-policy",
    "list-cert",
    "list-authority",
    CONTROL_LOG,
    LOG,
    "ike-updown",
    "ike-rekey",
    "ike-update",
    "child-updown",
    "child-rekey",
    "alert",
];
const CONTROL_LOG: &str = "control-log";
const LOG: &str = "log";

/// The socket and its clients.
pub struct Vici {
    socket: Socket,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    session: Session,
    waits: Option<Waits>,
}

/// What the answer to a request waits for.
enum Waits {
    List(Listing),
    Control(Control),
}

impl Vici {
    /// Listens in a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(directory: &Path) -> io::Result<Vici> {
        Ok(Vici { socket: Socket::listen(&directory.join(SOCKET_FILE))?, clients: vec![] })
    }

    /// What is to be waited for, and what of it: the socket first, then each client.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|client| (client.stream.as_fd(), client.waits_for()));
        [self.socket.waits_for(self.clients.len() < CLIENTS)].into_iter().chain(clients)
    }

    /// Does what clients ask, and takes new ones: `ready` is what has come of [`Vici::fds`].
    pub fn serve(&mut self, ready: impl IntoIterator<Item = PollFlags>, iked: &mut Iked) {
        let mut ready = ready.into_iter();
        let has_come = ready.next().is_some_and(|flags| !flags.is_empty());
        self.clients.retain_mut(|client| {
            let flags = ready.next().unwrap_or(PollFlags::empty());
            flags.is_empty() || client.serve(flags, iked).is_ok()
        });
        while has_come
            && self.clients.len() < CLIENTS
            && let Some(stream) = self.socket.accept()
        {
            self.clients.push(Client { stream, session: Session::new(EVENTS), waits: None });
        }
    }

    /// Tells clients what has happened, and goes on with what they wait for.
    pub fn hear(&mut self, events: &[EventReport], iked: &mut Iked) {
        let now = Instant::now();
        for client in &mut self.clients {
            events.iter().for_each(|event| client.hear(event));
            client.go_on(iked, now);
        }
    }

    /// Whether anybody listens to what happens.
    pub fn is_listening(&self) -> bool {
        let told = |event: &&&str| !event.starts_with("list-") && **event != CONTROL_LOG;
        self.clients.iter().any(|client| {
            matches!(client.waits, Some(Waits::Control(_)))
                || EVENTS.iter().filter(told).any(|event| client.session.hears_of(event))
        })
    }

    /// In how long somebody has waited long enough.
    pub fn due(&self) -> Option<Duration> {
        let deadlines = self.clients.iter().filter_map(|client| match &client.waits {
            Some(Waits::Control(control)) => control.deadline(),
            _ => None,
        });
        deadlines.min().map(|end| end.saturating_duration_since(Instant::now()))
    }
}

impl Client {
    fn has_patience(&self) -> bool {
        self.session.outbound().len() < PATIENCE
    }

    fn waits_for(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.session.wanted() > 0 && self.has_patience() {
            flags |= PollFlags::IN;
        }
        if !self.session.outbound().is_empty() {
            flags |= PollFlags::OUT;
        }
        flags
    }

    /// Reads, does what is asked, and sends what it takes. An error: it is done with.
    fn serve(&mut self, flags: PollFlags, iked: &mut Iked) -> io::Result<()> {
        if flags.intersects(PollFlags::HUP | PollFlags::ERR) && !flags.contains(PollFlags::IN) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for _ in 0..REQUESTS_A_TURN {
            let has_more = self.read()?;
            self.ask(iked);
            self.go_on(iked, Instant::now());
            self.write()?;
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    /// Takes some octets of what it sends; whether there were any.
    fn read(&mut self) -> io::Result<bool> {
        // They may be secrets.
        let mut part = Zeroizing::new([0; PART]);
        let wanted = if self.has_patience() { self.session.wanted().min(PART) } else { 0 };
        if wanted == 0 {
            return Ok(false);
        }
        match self.stream.read(&mut part[..wanted]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.session.handle_octets(&part[..n]).map_err(|malformed| {
                    tracing::warn!("a client of VICI is left: {malformed}");
                    io::Error::from(io::ErrorKind::InvalidData)
                })?;
                Ok(true)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.session.outbound().is_empty() {
            match self.stream.write(self.session.outbound()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.session.handle_sent(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn ask(&mut self, iked: &mut Iked) {
        if self.waits.is_some() {
            return;
        }
        let Some(request) = self.session.request() else { return };
        match command::ask(iked, &request) {
            Reply::Now(message) => self.session.respond(&message),
            Reply::Unknown => self.session.respond_unknown(),
            Reply::Lists(listing) => self.waits = Some(Waits::List(listing)),
            Reply::Waits(control) => self.waits = Some(Waits::Control(control)),
        }
    }

    /// Answers what has waited, if it is done.
    fn go_on(&mut self, iked: &mut Iked, now: Instant) {
        let answer = match &mut self.waits {
            None => return,
            Some(Waits::List(listing)) => loop {
                if self.session.outbound().len() >= PATIENCE {
                    return;
                }
                match listing.next(iked) {
                    Some(message) => self.session.event(listing.event, &message),
                    None => break Message::default(),
                }
            },
            Some(Waits::Control(control)) => match control.outcome(iked.ike().map(|(ike, _)| &*ike), now) {
                Some(message) => message,
                None => return,
            },
        };
        self.waits = None;
        self.session.respond(&answer);
    }

    fn hear(&mut self, event: &EventReport) {
        let is_about = match &mut self.waits {
            Some(Waits::Control(control)) => control.hear(event) && control.level >= LOG_LEVEL,
            _ => false,
        };
        if !self.has_patience() {
            return;
        }
        for (name, is_told) in [(CONTROL_LOG, is_about), (LOG, true)] {
            if is_told && self.session.hears_of(name) {
                self.session.event(name, &log(event));
            }
        }
        if let Some((name, message)) = told(event, |name| self.session.hears_of(name)) {
            self.session.event(name, &message);
        }
    }
}

/// The level of all that is told.
const LOG_LEVEL: i64 = 1;

fn log(event: &EventReport) -> Message {
    let group = match event.what {
        What::ChildUp { .. }
        | What::ChildReplaced { .. }
        | What::ChildFailed { .. }
        | What::ChildDown { .. } => "CHD",
        _ => "IKE",
    };
    let mut writer = Writer::default();
    writer
        .value("group", group)
        .value("level", LOG_LEVEL.to_string())
        .value("thread", "0")
        .value("ikesa-name", &event.connection)
        .value("ikesa-uniqueid", event.ike_sa.to_string())
        .value("msg", &event.text);
    writer.finish().unwrap_or_default()
}

/// The event of an SA, if it is one that somebody hears of.
fn told(event: &EventReport, hears_of: impl Fn(&str) -> bool) -> Option<(&'static str, Message)> {
    let sa = event.sa.as_ref()?;
    let (name, is_up) = match &event.what {
        What::IkeUp => ("ike-updown", true),
        // What another has the place of was told with that.
        What::IkeDown { replaced: false } => ("ike-updown", false),
        What::IkeMoved => ("ike-update", false),
        What::IkeReplaced { .. } => ("ike-rekey", false),
        What::ChildUp { .. } => ("child-updown", true),
        What::ChildDown { replaced: false, .. } => ("child-updown", false),
        What::ChildReplaced { .. } => ("child-rekey", false),
        _ => return None,
    };
    if !hears_of(name) {
        return None;
    }
    let mut writer = Writer::default();
    if is_up {
        writer.value("up", "yes");
    }
    writer.section(&event.connection, |writer| match (&event.what, &event.before) {
        (What::IkeReplaced { .. }, Some(before)) => sas::ike_rekey(writer, before, sa),
        (What::IkeMoved, _) => sas::ike_update(writer, sa),
        (What::ChildReplaced { .. }, _) => sas::child_rekey(writer, sa),
        _ => sas::ike_sa(writer, sa),
    });
    Some((name, writer.finish().ok()?))
}
