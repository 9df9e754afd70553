//! auth's list of revocations, in the table: what follows each number stands under that number, so that a cell which is cut
//! off from the master finds what it lacks.
//!
//! auth -> [`follow`] -> records. They prove themselves by auth's signature, not by who published them.

use std::time::Duration;

use muster_kit::backoff::Backoff;
use muster_kit::connect::MasterChannel;
use muster_net::dht::{Dht, DhtError};
use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
use muster_proto::auth::v1::{GetRevocationListRequest, WatchRevocationListRequest};
use muster_proto::trust::v1::Envelope;
use muster_types::NetworkId;
use muster_wire::record::{self, Value};
use muster_wire::revocation::base_of;
use tonic::Status;

/// Numbers that are told anew when this service starts: who was away for longer asks the master.
const RETOLD: u64 = 16;

/// Everything is told anew so often, before it runs out.
const AGAIN: Duration = Duration::from_secs(record::LIFE.as_secs() / 2);

/// Why following broke off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("auth does not tell it: {0}")]
    Auth(#[from] Status),
    #[error("the table does not keep it: {0}")]
    Table(#[from] DhtError),
    #[error("the stream ended")]
    Ended,
}

struct Teller {
    dht: Dht,
    network: NetworkId,
    auth: RevocationServiceClient<MasterChannel>,
}

/// Follows auth's list until the task is dropped.
pub(crate) async fn follow(dht: Dht, network: NetworkId, auth: MasterChannel) {
    let teller = Teller { dht, network, auth: RevocationServiceClient::new(auth) };
    let mut backoff = Backoff::new();
    loop {
        if let Ok(Err(error)) = tokio::time::timeout(AGAIN, teller.tell(&mut backoff)).await {
            tracing::warn!(%error, "revocations are not followed; trying again");
            let delay = backoff.next_delay(&mut rand::rng());
            tokio::time::sleep(delay).await;
        }
    }
}

impl Teller {
    async fn tell(&self, backoff: &mut Backoff) -> Result<(), Broken> {
        let from = WatchRevocationListRequest { after_number: 0 };
        let mut lists = self.auth.clone().watch_revocation_list(from).await?.into_inner();
        let mut told = None;
        while let Some(list) = lists.message().await? {
            match told.replace(list.number) {
                None => self.retell(list.number).await?,
                Some(before) if before < list.number => {
                    self.publish(list.revocation_list.unwrap_or_default()).await?;
                }
                // A sign of life.
                Some(_) => {}
            }
            backoff.reset();
        }
        Err(Broken::Ended)
    }

    async fn retell(&self, newest: u64) -> Result<(), Broken> {
        for after_number in newest.saturating_sub(RETOLD)..newest {
            let request = GetRevocationListRequest { after_number };
            let list = self.auth.clone().get_revocation_list(request).await?.into_inner();
            self.publish(list.revocation_list.unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn publish(&self, sealed: Envelope) -> Result<(), Broken> {
        let base = base_of(&sealed).map_err(DhtError::Record)?;
        let key = record::revocations_key(self.network, base);
        match self.dht.put(key, Value::Revocations(sealed)).await {
            Ok((kept, _)) => tracing::info!(base, holders = kept.count(), "revocations are in the table"),
            Err(DhtError::Record(error)) => {
                tracing::info!(base, %error, "too many revocations at once for the table; the master tells them");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
