//! Starts topology, in the process of auth or elsewhere.

use muster_kit::connect::TOPOLOGY;
use muster_kit::observe::Pages;
use muster_topology::Config;

use super::post::Post;
use crate::exit::Failure;
use crate::target::Target;

pub(super) async fn start(post: &mut Post<'_>, pages: Pages) -> Result<(), Failure> {
    let (tls, auth) = post.admitted(Target::Topology).await?;
    let (store, trust) = (post.store(Target::Topology), post.trust);
    let topology = Config {
        bus: post.config.nats_url.clone(),
        pages: Some(pages),
        source_visible: !post.config.behind_proxy,
        ..Config::new(store, &post.config.data_dir, trust.network, trust.roots.clone())
    };
    let (incoming, ended) = (post.incoming(TOPOLOGY, tls), post.shutdown.clone());
    post.spawn(Target::Topology, muster_topology::run(topology, incoming, auth, ended));
    Ok(())
}
