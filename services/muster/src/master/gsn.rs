//! Starts gsn-registry, in the process of auth or elsewhere.

use muster_gsn_registry::Config;
use muster_kit::connect::GSN_REGISTRY;

use super::post::Post;
use crate::exit::Failure;
use crate::target::Target;

pub(super) async fn start(post: &mut Post<'_>) -> Result<(), Failure> {
    let (tls, auth) = post.admitted(Target::GsnRegistry).await?;
    let (store, trust) = (post.store(Target::GsnRegistry), post.trust);
    let registry = Config {
        probe_from: post.config.probe_from.clone(),
        source_visible: !post.config.behind_proxy,
        ..Config::new(store, trust.network, trust.roots.clone())
    };
    let (incoming, ended) = (post.incoming(GSN_REGISTRY, tls), post.shutdown.clone());
    post.spawn(Target::GsnRegistry, muster_gsn_registry::run(registry, incoming, auth, ended));
    Ok(())
}
