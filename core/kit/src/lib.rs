//! The async shell that every binary shares.
