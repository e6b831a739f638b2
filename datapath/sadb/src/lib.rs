//! The shared-memory contract between the IKE process and the datapath: SAD, SPD and runtime state.
#![deny(missing_docs)]
