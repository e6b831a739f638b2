//! Steering of frames to workers: the decision, shared by the XDP program and the host.
#![deny(missing_docs)]
