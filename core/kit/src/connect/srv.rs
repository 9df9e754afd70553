//! The master by DNS: SRV records of a domain, for when it is not where it was.

use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

/// Addresses that are taken of one answer.
const TARGETS: usize = 16;

/// A domain name service that does not answer must not hold up other ways.
const LIMIT: Duration = Duration::from_secs(3);

/// `host:port` of the targets of `_muster._tcp.<domain>` by priority, then by weight (RFC 2782).
///
/// # Errors
/// There is no such record, or nobody answers; in words.
pub async fn by_domain(domain: &str) -> Result<Vec<String>, String> {
    let answer = tokio::time::timeout(LIMIT, look_up(domain)).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")))
}

async fn look_up(domain: &str) -> Result<Vec<String>, String> {
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let resolver = resolver.map_err(|error| error.to_string())?;
    let name = format!("_muster._tcp.{}.", domain.trim_end_matches('.'));
    let answer = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
    let mut targets: Vec<_> = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv.priority, u16::MAX - srv.weight, srv.target.to_utf8(), srv.port)),
            _ => None,
        })
        .collect();
    targets.sort();
    // A single dot as target says that there is no such service (RFC 2782).
    let addresses = targets.into_iter().filter(|(_, _, host, _)| host != ".");
    Ok(addresses
        .map(|(_, _, host, port)| format!("{}:{port}", host.trim_end_matches('.')))
        .take(TARGETS)
        .collect())
}
