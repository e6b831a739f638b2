//! News of the kernel's links, addresses and routes, gathered: by themselves they do not say enough, and what is to be known is
//! read anew. What takes long is not repeated at once, so that large tables cost at most a tenth of a core.

use portcullis_netlink::{Event, Events, RouteNetlinkMessage};
use rustix::time::{ClockId, clock_gettime};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(10);
/// After an error, all is read again after this long.
const RECOVER: Duration = Duration::from_secs(1);

/// What follows them.
#[derive(Debug)]
pub struct News {
    events: Events,
    due: Option<Instant>,
    rest_until: Instant,
}

impl News {
    /// Follows them from now on. All is to be read first.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<News> {
        let now = Instant::now();
        Ok(News { events: Events::of_routes()?, due: Some(now), rest_until: now })
    }

    /// When it is to be looked again, if that is known.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes in what changed. Whether all is to be read now: until that is done ([`News::read`]), it is.
    pub fn turn(&mut self) -> bool {
        let now = Instant::now();
        let mut has_news = false;
        let told = self.events.read(|event| {
            has_news |= match event {
                Event::Message(message) => is_about_routes(&message),
                Event::Unread | Event::Overrun => true,
            };
        });
        if let Err(e) = told {
            self.retry(&e);
        }
        if has_news {
            self.due.get_or_insert((now + GATHER).max(self.rest_until));
        }
        self.due.is_some_and(|due| due <= now)
    }

    /// All is read.
    pub fn read(&mut self) {
        self.due = None;
    }

    /// It was not: it is to be read again in a while.
    pub fn retry(&mut self, why: &io::Error) {
        tracing::warn!("netlink: {why}; it is read again");
        self.read_later();
    }

    /// All is to be read again in a while.
    pub fn read_later(&mut self) {
        self.due = Some(Instant::now() + RECOVER);
    }

    /// Rests for nine times as long as the last reading, and what came of it, kept this thread busy: since this
    /// [`thread_time`].
    pub fn rest(&mut self, since: Duration) {
        self.rest_until = Instant::now() + thread_time().saturating_sub(since) * 9;
    }
}

/// For how long this thread has been busy so far.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn is_about_routes(message: &RouteNetlinkMessage) -> bool {
    use RouteNetlinkMessage::*;
    matches!(message, NewLink(_) | DelLink(_) | NewAddress(_) | DelAddress(_) | NewRoute(_) | DelRoute(_))
}
