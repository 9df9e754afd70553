//! The plain port: what a scraper and a prober see. Alone in its file, because a process records metrics once.

use muster_kit::observe::Observatory;
use muster_kit::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn metrics_come_with_buckets_and_readiness_follows_its_flag() {
    let observatory = Observatory::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = observatory.local_addr().unwrap();
    let readiness = observatory.readiness();
    let shutdown = Shutdown::new();
    let serving = tokio::spawn(observatory.run(shutdown.clone()));
    let ask = |path: &'static str| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };

    metrics::histogram!("muster_rpc_server_duration_seconds", "method" => "m", "code" => "OK").record(0.02);
    let metrics = ask("/metrics").await;
    assert!(metrics.contains("muster_rpc_server_duration_seconds_bucket{"), "{metrics}");
    assert!(metrics.contains("# HELP muster_rpc_server_duration_seconds "), "{metrics}");

    assert!(ask("/healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(ask("/readyz").await.starts_with("HTTP/1.1 503 "));
    readiness.set(true);
    assert!(ask("/readyz").await.starts_with("HTTP/1.1 200 "));
    assert!(ask("/else").await.starts_with("HTTP/1.1 404 "));

    shutdown.trigger();
    serving.await.unwrap();
}
