//! Ethereum's node discovery, version 5.1, by the crate `discv5`: contacts only, no values.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Result, anyhow, bail};
use discv5::{ConfigBuilder, Discv5, ListenConfig};
use enr::{CombinedKey, Enr, NodeId};

use crate::load::{Table, VALUE};

#[derive(Default)]
pub(crate) struct Ethereum {
    nodes: Vec<(Discv5, u16)>,
}

impl Table for Ethereum {
    type Key = ();

    const SETTINGS: &'static str = "crate discv5 0.12.0, its defaults (k 16, alpha 3, 1 s a request) but that it keeps \
        its own address without incoming connections; encrypted, records of nodes signed; stores no values";
    const STORES: bool = false;

    async fn join(&mut self) -> Result<()> {
        // It wants to know its port before it binds.
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let key = CombinedKey::generate_secp256k1();
        let own = Enr::builder().ip4(Ipv4Addr::LOCALHOST).udp4(port).build(&key)?;
        let listen = ListenConfig::Ipv4 { ip: Ipv4Addr::LOCALHOST, port };
        let config = ConfigBuilder::new(listen).auto_nat_listen_duration(None).build();
        let mut node = Discv5::new(own.clone(), key, config).map_err(|error| anyhow!(error))?;
        if let Some((first, _)) = self.nodes.first() {
            node.add_enr(first.local_enr()).map_err(|error| anyhow!(error))?;
        }
        node.start().await.map_err(|error| anyhow!("{error:?}"))?;
        if !self.nodes.is_empty() {
            find(&node, own.node_id()).await?;
        }
        self.nodes.push((node, port));
        Ok(())
    }

    fn count(&self) -> usize {
        self.nodes.len()
    }

    async fn put(&self, _: usize, _: [u8; VALUE]) -> Result<()> {
        bail!("it stores no values")
    }

    async fn get(&self, _: usize, (): &()) -> Result<Vec<u8>> {
        bail!("it stores no values")
    }

    async fn find(&self, node: usize) -> Result<usize> {
        find(&self.nodes[node].0, NodeId::random()).await
    }

    fn port(&self, node: usize) -> u16 {
        self.nodes[node].1
    }

    fn drop_node(&mut self, node: usize) {
        let (mut node, _) = self.nodes.swap_remove(node);
        node.shutdown();
    }
}

/// How many nodes a lookup brought.
async fn find(node: &Discv5, target: NodeId) -> Result<usize> {
    let found = node.find_node(target).await.map_err(|error| anyhow!("{error:?}"))?;
    Ok(found.len())
}
