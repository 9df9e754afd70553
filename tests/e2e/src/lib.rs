//! The real programs on loopback.
