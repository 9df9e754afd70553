//! The hash tables that are compared, each behind [`Table`](crate::load::Table).

pub(crate) mod discv5;
pub(crate) mod libp2p;
pub(crate) mod mainline;
pub(crate) mod muster;
