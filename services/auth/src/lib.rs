//! The auth service: certificate authority, links, renewal, signing.
