//! The BitTorrent table by the crate `mainline`.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id};

use crate::load::{Table, VALUE};

#[derive(Default)]
pub(crate) struct Mainline {
    nodes: Vec<(AsyncDht, u16)>,
}

impl Table for Mainline {
    type Key = Id;

    const SETTINGS: &'static str = "crate mainline 8.0.1, server mode, its defaults (k 20, 2 s a request); immutable \
        values; nothing is encrypted, signed or authenticated";

    async fn join(&mut self) -> Result<()> {
        let mut builder = Dht::builder();
        builder.server_mode().bind_address(Ipv4Addr::LOCALHOST);
        match self.nodes.first() {
            Some((_, port)) => builder.bootstrap(&[("127.0.0.1", *port)]),
            None => builder.no_bootstrap(),
        };
        let node = builder.build()?.as_async();
        let port = node.info().await.local_addr().port();
        if !self.nodes.is_empty() {
            ensure!(node.bootstrapped().await, "it did not bootstrap");
        }
        self.nodes.push((node, port));
        Ok(())
    }

    fn count(&self) -> usize {
        self.nodes.len()
    }

    async fn put(&self, node: usize, value: [u8; VALUE]) -> Result<Id> {
        Ok(self.nodes[node].0.put_immutable(&value).await?)
    }

    async fn get(&self, node: usize, key: &Id) -> Result<Vec<u8>> {
        Ok(self.nodes[node].0.get_immutable(*key).await.context("no value")?.into())
    }

    async fn find(&self, node: usize) -> Result<usize> {
        Ok(self.nodes[node].0.find_node(Id::random()).await.len())
    }

    fn port(&self, node: usize) -> u16 {
        self.nodes[node].1
    }

    fn drop_node(&mut self, node: usize) {
        self.nodes.swap_remove(node);
    }
}
