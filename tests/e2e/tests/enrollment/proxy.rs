//! A proxy that inspects TLS, as companies have them: it ends the client's TLS with a certificate of its own, could read
//! what comes, and passes it on by TLS of its own. What is not TLS passes as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use muster_kit::connect::AUTH;
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{CallerCertificate, ClientTls, ServerTls};
use muster_types::Role;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The first byte of every TLS connection (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Dropping it closes its port.
pub(crate) struct Proxy {
    pub address: String,
    authority: Pki,
    opened: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

#[derive(Clone)]
struct Way {
    master: String,
    ours: Arc<ServerTls>,
    theirs: Arc<ClientTls>,
    opened: Arc<AtomicUsize>,
}

impl Proxy {
    /// In front of the master at `master`, whose root it knows.
    pub(crate) async fn before(master: &str, roots: &[CertificateDer<'static>]) -> Result<Self> {
        let authority = Pki::new();
        let leaf = authority.leaf(&authority.identity(Role::Service, "auth"));
        let opened = Arc::<AtomicUsize>::default();
        let way = Way {
            master: master.to_owned(),
            ours: ServerTls::new(leaf, CallerCertificate::Optional)?,
            theirs: ClientTls::anonymous(roots)?,
            opened: opened.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that goes away in the middle is its own business.
                let way = way.clone();
                tokio::spawn(async move { way.carry(client).await });
            }
        });
        Ok(Self { address, authority, opened, listening })
    }

    /// What its owner installs on the hosts whose traffic it may read.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.authority.root_der()
    }

    /// Connections that it could read.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Way {
    async fn carry(self, mut client: TcpStream) -> Result<()> {
        let mut first = [0];
        client.peek(&mut first).await?;
        let mut master = TcpStream::connect(&self.master).await?;
        if first != [TLS_HANDSHAKE] {
            tokio::io::copy_bidirectional(&mut client, &mut master).await?;
            return Ok(());
        }
        let mut client = TlsAcceptor::from(self.ours.config()).accept(client).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        let name = ServerName::try_from(AUTH)?;
        let mut master = TlsConnector::from(self.theirs.config()).connect(name, master).await?;
        tokio::io::copy_bidirectional(&mut client, &mut master).await?;
        Ok(())
    }
}
