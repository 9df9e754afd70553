//! What every call passes, in this order: a span under the caller's trace, the policy, the deadline, the service, the count.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::Instrument;

use super::{Routes, methods};
use crate::listen::PeerInfo;
use crate::policy::Policy;
use crate::status::fault;
use crate::telemetry;

/// No single call may take longer, whatever the client asks for; also the deadline of clients that ask for none.
pub const UNARY_LIMIT: Duration = Duration::from_secs(60);

/// How a method that the policy does not name is counted: what callers invent is no label.
const UNKNOWN: &str = "unknown";

#[derive(Clone)]
pub(super) struct Gate(Arc<Inner>);

struct Inner {
    name: &'static str,
    policy: Policy,
    routes: Routes,
}

impl Gate {
    pub(super) fn new(name: &'static str, policy: Policy, routes: Routes) -> Self {
        Self(Arc::new(Inner { name, policy, routes }))
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move { Ok(inner.answer(request).await) })
    }
}

impl Inner {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let begin = Instant::now();
        let method = self.policy.knows(request.uri().path()).unwrap_or(UNKNOWN);
        let peer = request.extensions().get::<PeerInfo>();
        let span = tracing::info_span!("rpc", service = self.name, method, peer = tracing::field::Empty);
        if let Some(identity) = peer.and_then(|peer| peer.identity.as_ref()) {
            span.record("peer", identity.resource_name());
        }
        if let Some(parent) = request.headers().get("traceparent").and_then(|value| value.to_str().ok()) {
            telemetry::continue_from(&span, parent);
        }
        let response = self.pass(request).instrument(span).await;
        let code =
            Code::from_bytes(response.headers().get("grpc-status").map_or(b"0", |code| code.as_bytes()));
        // A stream is counted when it begins: its end says nothing about the method's speed.
        metrics::histogram!(
            "muster_rpc_server_duration_seconds",
            "method" => method,
            "code" => code_label(code),
        )
        .record(begin.elapsed());
        response
    }

    async fn pass(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        if let Err(refused) = self.policy.check(path, request.extensions().get::<PeerInfo>()) {
            tracing::info!(reason = refused.reason, "refused a call: {}", refused.message);
            return Status::from(refused).into_http();
        }
        if methods::streams(path) {
            return self.routes.call(request).await;
        }
        let limit = deadline(request.headers());
        match tokio::time::timeout(limit, self.routes.call(request)).await {
            Ok(response) => response,
            Err(_) => Status::from(fault(
                Code::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                format!("no answer within {limit:?}; whether the call took effect is unknown"),
            ))
            .into_http(),
        }
    }
}

/// What the client asks for, up to [`UNARY_LIMIT`].
fn deadline(headers: &HeaderMap) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse_timeout);
    asked.unwrap_or(UNARY_LIMIT).min(UNARY_LIMIT)
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let digits_only = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = digits_only.then(|| digits.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

fn code_label(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_deadline_counts_up_to_the_cap() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers)
        };
        assert_eq!(asked("250m"), Duration::from_millis(250));
        assert_eq!(asked("2S"), Duration::from_secs(2));
        assert_eq!(asked("99999999H"), UNARY_LIMIT);
        for nonsense in ["", "S", "5", "-1S", "+1S", "123456789S", "1x"] {
            assert_eq!(asked(nonsense), UNARY_LIMIT, "{nonsense:?}");
        }
        assert_eq!(deadline(&HeaderMap::new()), UNARY_LIMIT);
    }
}
