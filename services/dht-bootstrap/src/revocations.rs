//! auth's list of revocations, in the table: what follows each number stands under that number, so that a cell which is cut
//! off from the master finds what it lacks.
//!
//! auth -> [`follow`] -> records. They prove themselves by auth's signature, not by who published them.

use std::time::Duration;

use muster_kit::backoff::Backoff;
use muster_kit::connect::MasterChannel;
use muster_net::dht::{Care, Dht, DhtError, Kind, Wish};
use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
use muster_proto::auth::v1::{
    AdoptRevocationListRequest, GetRevocationListRequest, WatchRevocationListRequest,
};
use muster_proto::trust::v1::{Envelope, RevocationList};
use muster_types::NetworkId;
use muster_wire::record::{self, Value};
use muster_wire::revocation::{base_of, restored_of};
use prost::Message;
use tonic::Status;

/// Numbers that are told anew when this service starts: who was away for longer asks the master.
const RETOLD: u64 = 16;

/// Lists that are read back after a restore; each leads to the next.
const LOST: usize = 1_000;

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

/// A list, and the number up to which it goes.
fn lost_list(value: Value) -> Option<(u64, Envelope)> {
    let Value::Revocations(sealed) = value else { return None };
    let number = RevocationList::decode(&sealed.payload[..]).ok()?.number;
    Some((number, sealed))
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
            match told {
                None => {
                    self.read_back(list.revocation_list.as_ref()).await?;
                    let newest = self.newest(list.number).await?;
                    self.retell(newest).await?;
                    told = Some(newest);
                }
                Some(before) if before < list.number => {
                    self.publish(list.revocation_list.unwrap_or_default()).await?;
                    told = Some(list.number);
                }
                // A sign of life.
                Some(_) => {}
            }
            backoff.reset();
        }
        Err(Broken::Ended)
    }

    /// What the table still holds of lists that a restored auth has lost, one behind the other.
    async fn read_back(&self, list: Option<&Envelope>) -> Result<(), Broken> {
        let restored = list.map(restored_of).transpose().map_err(DhtError::Record)?.flatten();
        let Some(mut base) = restored else { return Ok(()) };
        for _ in 0..LOST {
            let key = record::revocations_key(self.network, base);
            let found = self.dht.get(key, Kind::Revocations, Wish::Newest, Care::OnMiss).await;
            let lists = found.map(|got| got.found).unwrap_or_default().into_iter();
            let mut lists: Vec<_> = lists.filter_map(|opened| lost_list(opened.value)).collect();
            lists.sort_by_key(|(number, _)| *number);
            let Some((number, sealed)) = lists.pop().filter(|(number, _)| *number > base) else { break };
            let request = AdoptRevocationListRequest { revocation_list: Some(sealed) };
            match self.auth.clone().adopt_revocation_list(request).await {
                Ok(answer) => {
                    tracing::info!(base, adopted = answer.into_inner().adopted, "read back from the table");
                }
                Err(status) => tracing::warn!(base, error = status.message(), "auth does not take it back"),
            }
            base = number;
        }
        Ok(())
    }

    /// The number of the last list behind `number`.
    async fn newest(&self, mut number: u64) -> Result<u64, Broken> {
        loop {
            let request = GetRevocationListRequest { after_number: number };
            let next = self.auth.clone().get_revocation_list(request).await?.into_inner().number;
            if next <= number {
                return Ok(number);
            }
            number = next;
        }
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
