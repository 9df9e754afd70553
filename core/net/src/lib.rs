//! Sockets: QUIC over UDP and TCP paths, local discovery; drives nothing, carries everything.
