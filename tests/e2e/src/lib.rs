//! The real programs on loopback, and the rules of the house: see `tests/`.
