//! The control process: connections, policy, and the only writer of the SADB.
#![deny(missing_docs)]
#![forbid(unsafe_code)]
