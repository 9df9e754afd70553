//! A place: a switch that its hosts hang on (a bridge with real multicast and broadcast) and a router to the internet.

use anyhow::Result;
use muster_sim::model::Shape;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::counters::{Counters, read_counters};
use crate::gateway::{Gateway, Passage};
use crate::machine::Machine;
use crate::plan::{GATEWAY_NUMBER, PlaceNumber, PlacePlan, Translation};
use crate::router::Router;

/// The kernel's translation: what comes in from the WAN unasked is dropped, as on real routers. Without the drop an
/// early packet of a hole punch makes a state for the router itself, and the answer gets another port.
const MASQUERADE: &str = "
table ip home {
    chain out {
        type nat hook postrouting priority srcnat;
        oifname \"wan0\" masquerade
    }
    chain in {
        type filter hook input priority filter;
        ct state established,related accept
        iifname \"wan0\" drop
    }
    chain through {
        type filter hook forward priority filter;
        ct state established,related accept
        iifname \"wan0\" drop
    }
}
";

/// One place.
#[derive(Debug)]
pub struct Place {
    number: PlaceNumber,
    plan: PlacePlan,
    switch: Machine,
    gateway: Machine,
    router: Router,
}

impl Place {
    /// Builds the place and joins it to `internet`.
    pub async fn build(
        number: PlaceNumber,
        plan: PlacePlan,
        internet: &Machine,
        start: impl AsyncFn(String) -> Result<Machine>,
    ) -> Result<Self> {
        let switch = start(number.switch()).await?;
        switch.ip("link add name br0 type bridge mcast_snooping 0\nlink set dev br0 up").await?;
        let gateway = start(number.gateway()).await?;
        switch.ip(&cable(&number.gateway(), "lan0", &gateway)).await?;
        let nats = match (plan.translation, plan.carrier) {
            (Translation::Model(home), None) => vec![(number.public(), home)],
            (Translation::Model(home), Some(carrier)) => {
                vec![(number.shared(), home), (number.public(), carrier)]
            }
            (Translation::Kernel | Translation::None, _) => Vec::new(),
        };
        let mind = Gateway::new(&nats, ChaCha8Rng::seed_from_u64(number.0 as u64));
        let uplink = number.uplink();
        let router = Router::start(mind, (&gateway, "wan0"), (internet, &uplink)).await?;
        let place = Self { number, plan, switch, gateway, router };
        place.address_gateway().await?;
        place.route(internet).await?;
        Ok(place)
    }

    pub fn number(&self) -> PlaceNumber {
        self.number
    }

    pub fn plan(&self) -> PlacePlan {
        self.plan
    }

    /// The machine whose bridge joins the hosts.
    pub fn switch(&self) -> &Machine {
        &self.switch
    }

    /// The machine that is the hosts' default route.
    pub fn gateway(&self) -> &Machine {
        &self.gateway
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Lets nothing through any more, or everything again, without a word to either side.
    pub fn set_dark(&self, dark: bool) {
        self.router.gateway().restrict(Passage { dark, ..Passage::default() });
    }

    /// Parts the LAN in two: `apart` and the other hosts no longer hear each other; the router hears both.
    pub async fn split(&self, apart: &[&str]) -> Result<()> {
        let apart = apart.join(", ");
        let gateway = self.number.gateway();
        self.switch
            .nft(&format!(
                "table bridge split {{\nchain through {{\ntype filter hook forward priority 0\n\
                 iifname {gateway} accept\noifname {gateway} accept\n\
                 iifname {{ {apart} }} oifname != {{ {apart} }} drop\n\
                 iifname != {{ {apart} }} oifname {{ {apart} }} drop\n}}\n}}\n"
            ))
            .await
    }

    /// Joins the LAN's two parts again.
    pub async fn heal(&self) -> Result<()> {
        self.switch.nft("delete table bridge split\n").await
    }

    /// What went over the link to the internet: sent is up, received is down.
    pub async fn wan_traffic(&self) -> Result<Counters> {
        read_counters(&self.gateway, "wan0").await
    }

    /// The link's two directions, up and down, as they are set.
    pub fn shapes(&self) -> (Shape, Shape) {
        self.router.gateway().shapes()
    }

    async fn address_gateway(&self) -> Result<()> {
        let mut batch = "link set dev lan0 up\n".to_owned();
        if self.plan.family.has_v4() {
            batch += &format!("addr add {}/24 dev lan0\n", self.number.v4(GATEWAY_NUMBER));
            batch += "route add default dev wan0\n";
            self.gateway.sysctl("net.ipv4.ip_forward", "1").await?;
        }
        if self.plan.family.has_v6() {
            batch += &format!("addr add {}/64 dev lan0 nodad\n", self.number.v6(GATEWAY_NUMBER));
            batch += "route add ::/0 dev wan0\n";
            self.gateway.sysctl("net.ipv6.conf.all.forwarding", "1").await?;
        }
        if self.plan.translation == Translation::Kernel {
            batch += &format!("addr add {}/32 dev wan0\n", self.number.public());
            self.gateway.nft(MASQUERADE).await?;
        }
        self.gateway.ip(&batch).await
    }

    async fn route(&self, internet: &Machine) -> Result<()> {
        let (public, lan, uplink) = (self.number.public(), self.number.v6(0), self.number.uplink());
        let mut batch = format!("route add {public}/32 dev {uplink}\nroute add {lan}/64 dev {uplink}");
        if self.plan.translation == Translation::None {
            batch += &format!("\nroute add {}/24 dev {uplink}", self.number.v4(0));
        }
        internet.ip(&batch).await
    }
}

/// The `ip` commands for a cable from this switch, whose end on `machine` is called `end`.
pub(crate) fn cable(port: &str, end: &str, machine: &Machine) -> String {
    format!(
        "link add name {port} type veth peer name {end} netns {}\nlink set dev {port} master br0\nlink set dev {port} up",
        machine.thread_id()
    )
}
