//! Messages to bytes and back: codec, sealed datagrams, signed envelopes. No I/O.
