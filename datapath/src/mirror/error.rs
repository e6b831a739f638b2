//! Why there is no mirror.

use crate::confine::ConfineError;
use std::io;
use thiserror::Error;

/// Why there is no mirror.
#[derive(Debug, Error)]
pub enum MirrorError {
    /// The netlink sockets could not be opened.
    #[error("cannot open a route netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel's tables could not be read.
    #[error("cannot read the kernel's links, routes and neighbours")]
    Dump(#[source] io::Error),
    /// A port's device is not there.
    #[error("[[port]] interface = \"{name}\": there is no such interface here; there are: {}", existing.join(", "))]
    UnknownInterface {
        /// The name in the configuration.
        name: String,
        /// The devices of this network namespace.
        existing: Vec<String>,
    },
    /// A port's device is not Ethernet.
    #[error("[[port]] interface = \"{name}\": it is not an Ethernet interface")]
    NotEthernet {
        /// The name in the configuration.
        name: String,
    },
    /// Two ports by one device.
    #[error("[[port]] interface = \"{name}\": it is listed twice")]
    Twice {
        /// The name in the configuration.
        name: String,
    },
    /// The thread could not be started.
    #[error("cannot start the mirror thread")]
    Thread(#[source] io::Error),
    /// The thread could not be confined.
    #[error("cannot confine the mirror thread")]
    Confine(#[source] ConfineError),
}
