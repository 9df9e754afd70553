//! Statements that both databases understand, compiled once for each: `super` says which.

use async_trait::async_trait;
use muster_types::Timestamp;
use muster_wire::datagram::PeerAddress;

use super::ThisStore;
use crate::domain::identity::Identity;
use crate::store::{CONTACTS, Store, StoreError};

const IDENTITIES: &str = "SELECT slot, noise_secret, signing_key, port FROM dht_nodes ORDER BY slot";
const KEEP_IDENTITY: &str = "INSERT INTO dht_nodes (slot, noise_secret, signing_key, port) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (slot) DO UPDATE SET port = excluded.port";
const HOLD: &str = "UPDATE dht_nodes SET holder = $1, held_until = $2 \
     WHERE slot = $3 AND (holder = $1 OR held_until <= $4)";
const LET_GO: &str = "UPDATE dht_nodes SET holder = '', held_until = 0 WHERE holder = $1";
const ALL_CONTACTS: &str = "SELECT node_id, noise_key, address FROM dht_contacts";
const DROP_CONTACTS: &str = "DELETE FROM dht_contacts";
const KEEP_CONTACT: &str = "INSERT INTO dht_contacts (node_id, noise_key, address) VALUES ($1, $2, $3)";

type IdentityRow = (i64, Vec<u8>, Vec<u8>, i64);
type ContactRow = (Vec<u8>, Vec<u8>, String);

fn identity((slot, noise_secret, signing_key, port): IdentityRow) -> Result<Identity, StoreError> {
    Ok(Identity {
        slot: u16::try_from(slot).map_err(|_| StoreError::Damaged("slot"))?,
        noise_secret: noise_secret.try_into().map_err(|_| StoreError::Damaged("Noise key"))?,
        signing_key,
        port: u16::try_from(port).map_err(|_| StoreError::Damaged("port"))?,
    })
}

/// A damaged contact is none.
fn contact((node, key, at): ContactRow) -> Option<PeerAddress> {
    Some(PeerAddress {
        node: node.as_slice().try_into().ok()?,
        key: key.try_into().ok()?,
        at: at.parse().ok()?,
    })
}

#[async_trait]
impl Store for ThisStore {
    async fn identities(&self) -> Result<Vec<Identity>, StoreError> {
        let rows: Vec<IdentityRow> = sqlx::query_as(IDENTITIES).fetch_all(&self.pool).await?;
        rows.into_iter().map(identity).collect()
    }

    async fn keep_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        sqlx::query(KEEP_IDENTITY)
            .bind(i64::from(identity.slot))
            .bind(&identity.noise_secret[..])
            .bind(&identity.signing_key)
            .bind(i64::from(identity.port))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn hold(
        &self,
        slot: u16,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let held = sqlx::query(HOLD)
            .bind(holder)
            .bind(until.as_micros())
            .bind(i64::from(slot))
            .bind(now.as_micros())
            .execute(&self.pool)
            .await?;
        Ok(held.rows_affected() == 1)
    }

    async fn let_go(&self, holder: &str) -> Result<(), StoreError> {
        sqlx::query(LET_GO).bind(holder).execute(&self.pool).await?;
        Ok(())
    }

    async fn contacts(&self) -> Result<Vec<PeerAddress>, StoreError> {
        let rows: Vec<ContactRow> = sqlx::query_as(ALL_CONTACTS).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().filter_map(contact).collect())
    }

    async fn keep_contacts(&self, contacts: &[PeerAddress]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(DROP_CONTACTS).execute(&mut *transaction).await?;
        for contact in contacts.iter().take(CONTACTS) {
            sqlx::query(KEEP_CONTACT)
                .bind(contact.node.as_bytes())
                .bind(&contact.key[..])
                .bind(contact.at.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}
