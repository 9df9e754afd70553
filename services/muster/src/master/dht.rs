//! Starts dht-bootstrap, in the process of auth or elsewhere.

use muster_dht_bootstrap::Config;
use muster_kit::connect::DHT_BOOTSTRAP;

use super::post::Post;
use crate::exit::Failure;
use crate::target::Target;

pub(super) async fn start(post: &mut Post<'_>) -> Result<(), Failure> {
    let (tls, auth) = post.admitted(Target::DhtBootstrap).await?;
    let (store, trust) = (post.store(Target::DhtBootstrap), post.trust);
    let address = post.reached.public_address().await;
    let bootstrap = Config::new(store, trust.network, trust.roots.clone(), address);
    let (incoming, ended) = (post.incoming(DHT_BOOTSTRAP, tls), post.shutdown.clone());
    post.spawn(Target::DhtBootstrap, muster_dht_bootstrap::run(bootstrap, incoming, auth, ended));
    Ok(())
}
