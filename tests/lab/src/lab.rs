//! The lab itself: an internet with a data centre, places behind routers, hosts in the places.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use muster_sim::model::Shape;
use tokio::sync::Mutex;

use crate::dns::{self, NameServer};
use crate::host::{Attachment, Host};
use crate::machine::Machine;
use crate::place::{Place, cable};
use crate::plan::{
    AGENTS_MAX, DATA_CENTRE_GATEWAY, DNS, DataCentreHost, FIRST_GUEST, Family, MASTER, PLACES_MAX,
    PlaceNumber, PlacePlan, host_number,
};
use crate::probe::{ECHO_PORT, Echo, Sample, verify};
use crate::roster::Roster;

/// What the lab shall be.
#[derive(Debug, Clone)]
pub struct Builder {
    places: Vec<PlacePlan>,
}

impl Builder {
    /// So many places, all alike.
    pub fn places(mut self, places: usize) -> Self {
        let plan = self.places.first().copied().unwrap_or_default();
        self.places = vec![plan; places];
        self
    }

    /// So many hosts in each place.
    pub fn agents(mut self, agents: usize) -> Self {
        self.places.iter_mut().for_each(|plan| plan.agents = agents);
        self
    }

    /// The protocols of all places.
    pub fn family(mut self, family: Family) -> Self {
        self.places.iter_mut().for_each(|plan| plan.family = family);
        self
    }

    /// One more place, as planned.
    pub fn place(mut self, plan: PlacePlan) -> Self {
        self.places.push(plan);
        self
    }

    /// Builds it. The calling process must stand on a stage.
    pub async fn build(self) -> Result<Lab> {
        let directory =
            crate::stage::entered().context("a lab is built inside its stage: see muster_lab::stage")?;
        ensure!(self.places.len() <= PLACES_MAX, "at most {PLACES_MAX} places, not {}", self.places.len());
        let most = self.places.iter().map(|plan| plan.agents).max().unwrap_or(0);
        ensure!(most <= AGENTS_MAX, "at most {AGENTS_MAX} agents in a place, not {most}");
        Lab::build(directory, &self.places).await
    }
}

/// A running lab. It ends with its process.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    internet: Machine,
    master: Machine,
    dns: Machine,
    places: Vec<Place>,
    hosts: BTreeMap<String, Host>,
    guests: AtomicUsize,
    name_server: Mutex<Option<NameServer>>,
    _echoes: [Echo; 2],
}

impl Lab {
    /// A lab without places yet.
    pub fn builder() -> Builder {
        Builder { places: Vec::new() }
    }

    async fn build(directory: PathBuf, plans: &[PlacePlan]) -> Result<Self> {
        let start = async |name: String| start_machine(&directory, &name).await;
        let internet = start("internet".to_owned()).await?;
        build_internet(&internet).await?;
        let (master, dns) = (start(MASTER.name.to_owned()).await?, start(DNS.name.to_owned()).await?);
        plug_into_data_centre(&internet, &master, MASTER).await?;
        plug_into_data_centre(&internet, &dns, DNS).await?;
        let (mut places, mut hosts) = (Vec::new(), BTreeMap::new());
        for (index, plan) in plans.iter().enumerate() {
            let number = PlaceNumber(index + 1);
            let place = Place::build(number, *plan, &internet, start).await?;
            for host in 1..=plan.agents {
                let machine = start(number.host(host)).await?;
                let attachment = Attachment { place: number, number: host_number(host), family: plan.family };
                hosts.insert(number.host(host), Host::plug_in(machine, &place, attachment).await?);
            }
            places.push(place);
        }
        let name_server = NameServer::start(&dns, MASTER.v4(), MASTER.v6()).await?;
        let echoes = [
            Echo::start(&dns, SocketAddr::new(DNS.v4().into(), ECHO_PORT)).await?,
            Echo::start(&dns, SocketAddr::new(DNS.v6().into(), ECHO_PORT)).await?,
        ];
        let guests = AtomicUsize::new(FIRST_GUEST);
        let lab = Self {
            directory,
            internet,
            master,
            dns,
            places,
            hosts,
            guests,
            name_server: Mutex::new(Some(name_server)),
            _echoes: echoes,
        };
        lab.roster().save(&lab.directory)?;
        Ok(lab)
    }

    /// The lab's own files: logs, and a directory for each machine. It goes when the lab goes.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The host called `name`, such as `p1a3`.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.get(name).with_context(|| format!("there is no host {name} in this lab"))
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// The hosts that are in a place now.
    pub fn hosts_in(&self, place: usize) -> impl Iterator<Item = &Host> {
        self.hosts().filter(move |host| host.attachment().place == PlaceNumber(place))
    }

    /// A place by its number, from 1.
    pub fn place(&self, number: usize) -> Result<&Place> {
        let index = number.checked_sub(1);
        index.and_then(|index| self.places.get(index)).with_context(|| format!("there is no place {number}"))
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The machine in the data centre that the master runs on.
    pub fn master(&self) -> &Machine {
        &self.master
    }

    /// The machine in the data centre with the DNS server and the echo.
    pub fn dns(&self) -> &Machine {
        &self.dns
    }

    /// The machine that is the internet.
    pub fn internet(&self) -> &Machine {
        &self.internet
    }

    /// Moves a host to another place, where it gets new addresses.
    pub async fn move_host(&self, name: &str, place: usize) -> Result<()> {
        let host = self.host(name)?;
        let (from, to) = (self.place(host.attachment().place.0)?, self.place(place)?);
        host.move_to(from, to, self.guests.fetch_add(1, Ordering::Relaxed)).await?;
        self.roster().save(&self.directory)
    }

    /// Moves the master to another address in the data centre. Only the DNS server is told.
    pub async fn move_master(&self, to: DataCentreHost) -> Result<()> {
        self.master.ip(&format!("addr flush dev eth0 scope global\n{}", data_centre_addressing(to))).await?;
        let mut name_server = self.name_server.lock().await;
        if let Some(old) = name_server.take() {
            old.stop().await?;
        }
        *name_server = Some(NameServer::start(&self.dns, to.v4(), to.v6()).await?);
        Ok(())
    }

    /// Silently takes every packet from and to a host, or gives them back.
    pub async fn set_cut_off(&self, name: &str, cut_off: bool) -> Result<()> {
        let host = self.host(name)?;
        host.set_cut_off(self.place(host.attachment().place.0)?, cut_off).await
    }

    /// Changes the link between a place and the internet, and measures that it changed.
    pub async fn impair(&self, place: usize, up: Shape, down: Shape) -> Result<Sample> {
        let place = self.place(place)?;
        place.router().gateway().reshape(up, down);
        let echo = SocketAddr::new(DNS.address(place.plan().family), ECHO_PORT);
        verify(place.gateway(), echo, up, down).await.with_context(|| format!("place {}", place.number().0))
    }

    fn roster(&self) -> Roster {
        let mut roster = Roster::default();
        let centre = [(&self.internet, DATA_CENTRE_GATEWAY), (&self.master, MASTER), (&self.dns, DNS)];
        for (machine, place) in centre {
            roster.add(machine, "data centre", &[place.v4().into(), place.v6().into()]);
        }
        for place in &self.places {
            let name = format!("place {}", place.number().0);
            roster.add(place.switch(), &name, &[]);
            roster.add(place.gateway(), &name, &[place.number().public().into()]);
        }
        for host in self.hosts.values() {
            let attachment = host.attachment();
            let addresses: Vec<_> =
                attachment.v4().map(Into::into).into_iter().chain(attachment.v6().map(Into::into)).collect();
            roster.add(host.machine(), &format!("place {}", attachment.place.0), &addresses);
        }
        roster
    }
}

async fn start_machine(directory: &Path, name: &str) -> Result<Machine> {
    Machine::start(name, &directory.join("machines").join(name), &dns::resolver()).await
}

async fn build_internet(internet: &Machine) -> Result<()> {
    internet.sysctl("net.ipv4.ip_forward", "1").await?;
    internet.sysctl("net.ipv6.conf.all.forwarding", "1").await?;
    let (v4, v6) = (DATA_CENTRE_GATEWAY.v4(), DATA_CENTRE_GATEWAY.v6());
    let bridge = "link add name br0 type bridge mcast_snooping 0\nlink set dev br0 up";
    internet.ip(&format!("{bridge}\naddr add {v4}/24 dev br0\naddr add {v6}/64 dev br0 nodad")).await
}

async fn plug_into_data_centre(internet: &Machine, machine: &Machine, host: DataCentreHost) -> Result<()> {
    internet.ip(&cable(host.name, "eth0", machine)).await?;
    machine.ip(&data_centre_addressing(host)).await
}

fn data_centre_addressing(host: DataCentreHost) -> String {
    let (gateway_v4, gateway_v6) = (DATA_CENTRE_GATEWAY.v4(), DATA_CENTRE_GATEWAY.v6());
    format!(
        "link set dev eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n\
         route replace default via {gateway_v4}\nroute replace ::/0 via {gateway_v6}",
        host.v4(),
        host.v6()
    )
}
