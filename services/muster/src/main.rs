//! The master in one binary, and the operator’s command line.

fn main() {}
