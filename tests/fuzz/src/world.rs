//! The network that the fed bytes arrive in: one node that speaks, one verifier that hears.

use muster_overlay::standing::Uptime;
use muster_types::NodeId;
use muster_wire::sealing::SealingKey;
use muster_wire::testing::operators::TestOperators;
use muster_wire::testing::{NOW, TestNetwork, TestNode};
use muster_wire::{Hello, Signer, TrustStore, Verifier};

const NODE: NodeId = NodeId([1; 20]);
const PEER: NodeId = NodeId([2; 20]);
const UPTIME: Uptime = Uptime(4_200);

/// The boot nonce of the speaking node.
pub const NONCE: u64 = 77;

pub struct World {
    pub network: TestNetwork,
    pub node: TestNode,
    pub trust: TrustStore,
    pub signer: Signer,
    pub hello: Hello,
    pub operators: TestOperators,
    pub sealing: SealingKey,
    /// Who writes sealed datagrams to the node.
    pub peer: TestNode,
}

impl Default for World {
    fn default() -> Self {
        let network = TestNetwork::new();
        let node = network.node(NODE);
        let trust = network.trust();
        let mut signer = node.signer(NONCE);
        signer.set_uptime(network.uptime(NODE, UPTIME));
        let hello = node.hello(NONCE, &trust);
        let (operators, sealing) = (TestOperators::new(), SealingKey::new([7; 32]));
        let peer = network.node(PEER);
        Self { network, node, trust, signer, hello, operators, sealing, peer }
    }
}

impl World {
    pub fn verifier(&self) -> Verifier<'_> {
        Verifier { trust: &self.trust, now: NOW }
    }
}
