//! The border to gRPC: joiners ask for contacts, operators look into the table.

use std::sync::Arc;
use std::time::Duration;

use muster_kit::policy::Policy;
use muster_kit::status::{Fault, fault};
use muster_net::dht::{Care, Dht, DhtError, Wish};
use muster_proto::dht::v1::bootstrap_service_server::BootstrapService;
use muster_proto::dht::v1::{
    ContactsRequest, ContactsResponse, CrawlRequest, CrawlResponse, FindNodesRequest, FindNodesResponse,
    GetRecordsRequest, GetRecordsResponse, GetStatsRequest, GetStatsResponse, PutRecordRequest,
    PutRecordResponse,
};
use muster_types::{Key, Role};
use muster_wire::record::{self, Value};
use muster_wire::time::to_wire;
use muster_wire::window;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::crawl::{Found, crawl};
use crate::crowd::Crowd;
use crate::metrics;

/// Contacts for a joiner who does not say how many.
const CONTACTS: usize = 20;

/// Contacts in one answer.
const CONTACTS_MAX: usize = 100;

/// A crawl is not done again within this; whoever asks gets the last one.
const CRAWL_FRESH: Duration = Duration::from_secs(10);

const METHODS: [(&str, &[Role]); 6] = [
    ("/muster.dht.v1.BootstrapService/Contacts", Role::PEERS),
    ("/muster.dht.v1.BootstrapService/GetRecords", Role::READERS),
    ("/muster.dht.v1.BootstrapService/FindNodes", Role::READERS),
    ("/muster.dht.v1.BootstrapService/GetStats", Role::READERS),
    ("/muster.dht.v1.BootstrapService/Crawl", Role::COMMANDERS),
    ("/muster.dht.v1.BootstrapService/PutRecord", Role::COMMANDERS),
];

/// Who may call what: anybody of the network asks for contacts, who sees the fleet looks, who commands it changes.
pub fn policy() -> Policy {
    METHODS.into_iter().fold(Policy::new(), |policy, (method, roles)| policy.roles(method, roles))
}

pub(crate) struct Bootstrap {
    crowd: Arc<Crowd>,
    crawled: Mutex<Option<(Instant, CrawlResponse)>>,
}

impl Bootstrap {
    pub(crate) fn new(crowd: Arc<Crowd>) -> Self {
        Self { crowd, crawled: Mutex::default() }
    }

    fn dht(&self) -> Result<&Dht, Fault> {
        self.crowd.first().ok_or_else(|| fault(Code::Unavailable, "NO_NODES", "no bootstrap node runs here"))
    }
}

/// Every reason that a client can meet.
fn refused(error: &DhtError) -> Fault {
    let (code, reason) = match error {
        DhtError::NoSuchKey { .. } => (Code::NotFound, "NO_SUCH_KEY"),
        DhtError::NobodyThere => (Code::Unavailable, "TABLE_EMPTY"),
        DhtError::Record(muster_wire::WireError::TooLarge { .. }) => {
            (Code::InvalidArgument, "RECORD_TOO_LARGE")
        }
        DhtError::Record(_) => (Code::InvalidArgument, "RECORD_INVALID"),
        DhtError::Refused { first: muster_net::dht::Refusal::Full, .. } => (Code::ResourceExhausted, "QUOTA"),
        DhtError::Refused { .. } | DhtError::Silent { .. } => (Code::Unavailable, "NOT_KEPT"),
        DhtError::Ended => (Code::Unavailable, "SHUTTING_DOWN"),
    };
    fault(code, reason, error.to_string())
}

fn key(bytes: &[u8]) -> Result<Key, Fault> {
    Key::try_from(bytes).map_err(|error| fault(Code::InvalidArgument, "KEY_INVALID", error.to_string()))
}

#[tonic::async_trait]
impl BootstrapService for Bootstrap {
    async fn contacts(
        &self,
        request: Request<ContactsRequest>,
    ) -> Result<Response<ContactsResponse>, Status> {
        metrics::asked_for_contacts();
        let wanted = usize::try_from(request.into_inner().max_contacts).unwrap_or(0);
        let wanted = if wanted == 0 { CONTACTS } else { wanted.min(CONTACTS_MAX) };
        let bootstrap = self.crowd.addresses();
        let mut sample = self.dht()?.sample(wanted).await;
        sample.retain(|contact| bootstrap.iter().all(|own| own.node != contact.node));
        let wire = |contacts: &[_]| contacts.iter().map(window::contact).collect();
        Ok(Response::new(ContactsResponse { bootstrap: wire(&bootstrap), sample: wire(&sample) }))
    }

    async fn get_records(
        &self,
        request: Request<GetRecordsRequest>,
    ) -> Result<Response<GetRecordsResponse>, Status> {
        let request = request.into_inner();
        let kind = record::kind("kind", request.kind)
            .map_err(|error| fault(Code::InvalidArgument, "KIND_UNKNOWN", error.to_string()))?;
        let key = key(&request.key)?;
        let got = self.dht()?.get(key, kind, Wish::Newest, Care::OnMiss).await;
        let got = got.map_err(|error| refused(&error))?;
        let records = got.found.iter().map(window::found).collect();
        Ok(Response::new(GetRecordsResponse { records, effort: Some(window::effort(&got.effort)) }))
    }

    async fn put_record(
        &self,
        request: Request<PutRecordRequest>,
    ) -> Result<Response<PutRecordResponse>, Status> {
        let request = request.into_inner();
        let put = self.dht()?.put(key(&request.key)?, Value::Opaque(request.value)).await;
        let (kept, effort) = put.map_err(|error| refused(&error))?;
        Ok(Response::new(window::kept(&kept, &effort)))
    }

    async fn find_nodes(
        &self,
        request: Request<FindNodesRequest>,
    ) -> Result<Response<FindNodesResponse>, Status> {
        let found = self.dht()?.find(key(&request.into_inner().key)?, Care::Plain).await;
        let (closest, effort) = found.map_err(|error| refused(&error))?;
        let closest = closest.iter().map(window::contact).collect();
        Ok(Response::new(FindNodesResponse { closest, effort: Some(window::effort(&effort)) }))
    }

    async fn get_stats(&self, _: Request<GetStatsRequest>) -> Result<Response<GetStatsResponse>, Status> {
        let mut nodes = Vec::new();
        for node in &self.crowd.nodes {
            let stats = node.dht.stats().await.map_err(|error| refused(&error))?;
            nodes.push(window::stats(Some(&node.address), &stats));
        }
        Ok(Response::new(GetStatsResponse { nodes }))
    }

    async fn crawl(&self, _: Request<CrawlRequest>) -> Result<Response<CrawlResponse>, Status> {
        // One at a time: whoever comes meanwhile gets the same.
        let mut last = self.crawled.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < CRAWL_FRESH
        {
            return Ok(Response::new(*answer));
        }
        let begin = self.crowd.addresses();
        let found = crawl(self.dht()?, begin, record::root_key(self.crowd.network())).await;
        metrics::crawled(&found.health, found.root_holders);
        let answer = crawled(&found);
        *last = Some((Instant::now(), answer));
        Ok(Response::new(answer))
    }
}

fn crawled(found: &Found) -> CrawlResponse {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    CrawlResponse {
        crawl_time: Some(to_wire(muster_kit::clock::wall())),
        duration: Some(muster_wire::time::span_to_wire(found.lasted)),
        alive: number(found.health.alive),
        dead: number(found.health.dead),
        table_health: found.health.table_health,
        healthy_share: found.health.healthy_share,
        root_holders: number(found.root_holders),
        truncated: found.truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generated code names the methods; the table must name the same.
    #[test]
    fn every_method_of_the_contract_has_its_line_in_the_policy() {
        let path = format!("{}/../../proto/muster/dht/v1/bootstrap.proto", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let policy = policy();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
            let method = format!("/muster.dht.v1.BootstrapService/{}", line.split('(').next().unwrap());
            assert!(policy.knows(&method).is_some(), "{method}");
        }
    }
}
