//! Every parser of network bytes.
