//! TLS between nodes: version 1.3, certificates on both sides, the standard webpki verifiers and nothing else.
//! No resumption and no early data: a resumed session would skip the check of the certificate.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::Material;
use crate::error::BindError;

/// Keeps QUIC connections of other protocols, and of later incompatible versions of this one, apart.
const ALPN: &[u8] = b"muster/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(material: &Material) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in &material.roots {
        store.add(root.clone())?;
    }
    Ok(Arc::new(store))
}

/// Verifies that the server is the very node that was dialled: the name is `{id}.node.muster`.
pub(crate) fn client(material: &Material) -> Result<ClientConfig, BindError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(material)?)
        .with_client_auth_cert(material.chain.clone(), material.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Verifies that the client's certificate leads to our root; whose it is, the caller reads from it.
pub(crate) fn server(material: &Material) -> Result<ServerConfig, BindError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(material)?, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain.clone(), material.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
