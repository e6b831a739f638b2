//! Traffic generation and measurement.
#![deny(missing_docs)]
