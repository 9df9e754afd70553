//! Whom and when: what verification needs to know besides the message.

use muster_overlay::standing::Uptime;
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};

use crate::error::WireError;
use crate::field;
use crate::ticket::{self, NodeTicket, TicketError};
use crate::trust::TrustStore;

/// Believes what leads to the trust store's roots, at one moment by the master's clock.
#[derive(Debug, Clone, Copy)]
pub struct Verifier<'a> {
    pub trust: &'a TrustStore,
    pub now: Timestamp,
}

impl Verifier<'_> {
    pub(crate) fn ticket(
        &self,
        field: &'static str,
        sealed: Option<&Envelope>,
    ) -> Result<NodeTicket, WireError> {
        let sealed = field::required(field, sealed)?;
        NodeTicket::open(sealed, self.trust, self.now).map_err(|source| WireError::Ticket { field, source })
    }

    /// The attested uptime of `node`. Without a ticket, or with one that has run out, it is zero: boasting
    /// gains nothing and a master that is away harms nobody.
    pub(crate) fn uptime(
        &self,
        field: &'static str,
        sealed: Option<&Envelope>,
        node: NodeId,
    ) -> Result<Uptime, WireError> {
        let Some(sealed) = sealed else { return Ok(Uptime::default()) };
        match ticket::open_uptime(sealed, self.trust, self.now) {
            Ok(attested) => field::same_node(field, attested.node, node).map(|()| attested.uptime),
            Err(TicketError::NotNow { .. }) => Ok(Uptime::default()),
            Err(source) => Err(WireError::Ticket { field, source }),
        }
    }
}
