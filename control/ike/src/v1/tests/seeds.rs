//! Many worlds, each by its seed.
