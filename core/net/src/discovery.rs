//! Stub.
use crate::endpoint::Shared;
use crate::quic::{Tap, Tapped};
use crate::socket::Sockets;
use crate::usage::Usage;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
#[derive(Debug, Clone, Default)]
pub struct Config {}
pub(crate) struct Discovery {}
impl Discovery {
    pub(crate) fn new(_: Option<Config>, _: &Sockets, _: Arc<Usage>) -> std::io::Result<Self> {
        Ok(Self {})
    }
    pub(crate) fn tap(&self) -> (Tap, mpsc::Receiver<Tapped>) {
        mpsc::channel(4)
    }
    pub(crate) fn rejoin(&self) {}
    pub(crate) fn multicast(&self, _: &[u8]) {}
    pub(crate) fn answer(&self, _: SocketAddr, _: &[u8]) {}
}
pub(crate) fn start(_: &Arc<Shared>, _: mpsc::Receiver<Tapped>) {}
