//! The real programs in network namespaces.
