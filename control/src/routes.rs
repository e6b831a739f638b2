//! The kernel's routes that lead into tunnels, followed as they come and go.
//!
//! As in the datapath's mirror, changes are gathered and the tables then dumped anew, since changes by themselves do not
//! say enough: a device that goes down takes its routes with it untold, and what is lost when changes come too fast is not
//! known.

mod selectors;

pub use selectors::{ROUTE_PRIORITY, RouteSelectors, RouteTable, any, priority};

use crate::{interface, news::News};
use portcullis_netlink::{FAMILIES, Requests, Route, RouteNetlinkMessage, Topic};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// A dump that the kernel calls incomplete is repeated this often before it is taken.
const WHOLE_DUMPS: usize = 5;

/// What follows the routes.
#[derive(Debug)]
pub struct Routes {
    requests: Requests,
    news: News,
    /// Interfaces of tunnels, and what is wrong with those that are not as they must be.
    interfaces: BTreeMap<String, Option<String>>,
}

impl Routes {
    /// Follows the routes to these interfaces, which are made if they are not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(interfaces: impl Iterator<Item = String>) -> io::Result<Routes> {
        // First to be told of changes, then to read: nothing falls between.
        let news = News::open()?;
        let mut routes = Routes {
            requests: Requests::open()?,
            news,
            interfaces: interfaces.map(|name| (name, None)).collect(),
        };
        let Routes { requests, interfaces, .. } = &mut routes;
        for (name, problem) in interfaces {
            match interface::prepare(requests, name) {
                Ok(true) => tracing::info!(
                    "made the interface {name}, and its other end {}",
                    interface::path_of(name)
                ),
                Ok(false) => {}
                Err(e) => {
                    tracing::error!("interface {name}: {e}");
                    *problem = Some(e.to_string());
                }
            }
        }
        Ok(routes)
    }

    /// What is wrong with an interface, as far as was seen when it was prepared.
    pub fn problem(&self, interface: &str) -> Option<&str> {
        self.interfaces.get(interface)?.as_deref()
    }

    /// When it is to be looked again, if that is known.
    pub fn due(&self) -> Option<Instant> {
        self.news.due()
    }

    /// Takes in what changed. The selectors, if they are to be read anew now.
    pub fn turn(&mut self) -> Option<RouteSelectors> {
        if !self.news.turn() {
            return None;
        }
        match self.read() {
            Ok(selectors) => {
                self.news.read();
                Some(selectors)
            }
            Err(e) => {
                self.news.retry(&e);
                None
            }
        }
    }

    /// Reads the routes.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&mut self) -> io::Result<RouteSelectors> {
        let mut indices = HashMap::new();
        for device in self.requests.devices()? {
            if self.interfaces.contains_key(&device.name) {
                indices.insert(device.index, device.name);
            }
        }
        for (name, problem) in &mut self.interfaces {
            if !indices.values().any(|there| there == name) {
                problem
                    .get_or_insert_with(|| "it is not there; `portcullis reload` makes it anew".to_owned());
            }
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (mut table, mut whole) = (RouteTable::new(&indices), true);
            for family in FAMILIES {
                whole &= self.requests.dump(Topic::Routes(family), |message| {
                    if let RouteNetlinkMessage::NewRoute(message) = message
                        && let Some(route) = Route::of(&message)
                    {
                        table.add(&route);
                    }
                })?;
            }
            // What changed in between has been told as well, so an incomplete dump is followed by another.
            if whole || attempt == WHOLE_DUMPS {
                return Ok(table.selectors());
            }
        }
    }

    /// Rests for nine times as long as the last reading, and what came of it, kept this thread busy: since this
    /// [`thread_time`](crate::news::thread_time).
    pub fn rest(&mut self, since: Duration) {
        self.news.rest(since);
    }

    /// Reads the routes again in a while, since what they were could not be installed.
    pub fn retry(&mut self) {
        self.news.read_later();
    }
}

impl AsFd for Routes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}
