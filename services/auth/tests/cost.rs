//! What an enrollment costs: processor time of auth's side, from the request's bytes to the signed answer, store included.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_auth::domain::enrollment::Applicant;
use muster_auth::domain::link::{Terms, node_terms};
use muster_auth::domain::request::{CertificateRequest, NodeKeys};
use muster_auth::service::Wanted;
use muster_types::{EnrollmentLink, Identity, Role};
use world::token::SoftHsm;
use world::{Backend, Device, World};

/// Enrollments measured.
const COUNT: usize = 1_000;

/// Enrollments under way at once: what one commit to disk is shared by.
const PARALLEL: usize = 64;

/// Processor time of this process so far.
fn processor_time() -> Duration {
    /// Clock ticks of a second on Linux (sysconf(_SC_CLK_TCK)).
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1_000 / TICKS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrollment_costs_a_few_milliseconds_of_a_core_at_most() {
    measure(World::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrollment_costs_little_more_where_the_key_is_in_a_token() {
    let name = "an_enrollment_costs_little_more_where_the_key_is_in_a_token";
    let Some(hsm) = SoftHsm::of(name) else { return };
    measure(World::start_with(Backend::Sqlite, |config| config.pkcs11 = Some(hsm.settings())).await).await;
}

async fn measure(world: World) {
    let world = Arc::new(world);
    let operator =
        Identity { network: world.auth.authority().network(), role: Role::Operator, name: "alice".into() };
    let terms = Terms { use_limit: 100_000, ..node_terms() };
    let wanted = Wanted { terms, request_id: None, validate_only: false };
    let secret = world.auth.create_link(&operator, &wanted).await.unwrap().secret.unwrap();
    let link: EnrollmentLink = secret.parse().unwrap();
    // The devices' own work is not auth's.
    let requests: Vec<_> = (0..COUNT)
        .map(|_| {
            let device = Device::new();
            let request = device.certificate_request();
            let keys = device.node_keys(&request);
            (request, keys)
        })
        .collect();
    let (begun, before) = (Instant::now(), processor_time());
    let shared = Arc::new(requests);
    let workers: Vec<_> = (0..PARALLEL)
        .map(|worker| {
            let (world, requests, token) = (world.clone(), shared.clone(), link.token.clone());
            tokio::spawn(async move {
                for (request, keys) in requests.iter().skip(worker).step_by(PARALLEL) {
                    let parsed = CertificateRequest::parse(request).unwrap();
                    let (noise, sealing) = (&keys.noise_key, &keys.sealing_key);
                    let node_keys =
                        NodeKeys::proven(noise, sealing, &keys.signing_key, &keys.signing_proof, &parsed);
                    let applicant = Applicant {
                        request: parsed,
                        node_keys: Some(node_keys.unwrap()),
                        host_name: "host".into(),
                        software_version: "1".into(),
                        hardware_serial: String::new(),
                        source: "192.0.2.1".into(),
                    };
                    world.auth.enroll(&token, &applicant).await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let (wall, spent) = (begun.elapsed(), processor_time() - before);
    let each = spent / u32::try_from(COUNT).unwrap();
    println!(
        "{COUNT} enrollments: {each:?} of a core each, {:.0} a second on one core; {:.0} a second here",
        1.0 / each.as_secs_f64(),
        COUNT as f64 / wall.as_secs_f64()
    );
    // The aim is 500 a second on one core; the bound leaves room for a build that is not a release.
    assert!(each <= Duration::from_millis(2 * 2), "{each:?}");
}
