//! `swanctl.conf`: connections, secrets, pools and authorities in the format that IKE's users have them in.

pub mod syntax;
