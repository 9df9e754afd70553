//! The async shell that every Muster binary shares: what stands between a `main` and its domain.
//!
//! A service opens a [`listen::Listener`], takes its queue of verified connections, and hands it with its routes and
//! its [`policy::Policy`] to [`grpc::serve`]. A client opens a [`connect::Master`] and takes a channel to a service.
//! Both end when [`shutdown::Shutdown`] says so.

pub mod admission;
pub mod backoff;
pub mod bus;
pub mod clock;
pub mod connect;
pub mod crash;
pub mod database;
pub mod dirs;
pub mod files;
pub mod grpc;
pub mod lease;
pub mod listen;
pub mod observe;
pub mod policy;
pub mod shutdown;
pub mod status;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
