//! What can be set of a master. Later wins: defaults, one TOML file, the environment, flags.
//!
//! The flags' own definitions are the only list of settings: the file has the same names, and the reference is made of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::Args;
use muster_auth::token;
use muster_kit::dirs;
use muster_kit::listen::HANDSHAKES;
use muster_kit::telemetry::{self, LogFormat, TelemetryConfig, TelemetryGuard};
use muster_types::limits::DEFAULT_PORT;
use serde::Deserialize;

use crate::cli::Place;
use crate::exit::Failure;

/// Read if it is there and no other is named.
pub const FILE: &str = "/etc/muster/muster.toml";
/// Holds a password as often as not, and so has no flag.
pub const DATABASE_VARIABLE: &str = "MUSTER_DATABASE_URL";
/// The same of the bus between replicas.
pub const BUS_VARIABLE: &str = "MUSTER_NATS_URL";
/// Where traces go to, of a master and of an operator's command alike.
const OTLP_VARIABLE: &str = "MUSTER_OTLP_ENDPOINT";
/// Metrics and probes.
pub const OBSERVE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT + 1);

/// Settings as flags, environment and file give them. In the file a name has `_` where its flag has `-`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The settings' file [default: /etc/muster/muster.toml, if it is there]
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address and port of the API [default: every address, port 27431]
    #[arg(long, env = "MUSTER_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// How devices reach this master, best first; the first stands in links [default: this host's address]
    #[arg(long, env = "MUSTER_ADDRESS", value_name = "HOST:PORT", value_delimiter = ',')]
    pub address: Vec<String>,
    /// Where metrics and probes are served, in the clear [default: 127.0.0.1:27432]
    #[arg(long, env = "MUSTER_OBSERVE", value_name = "IP:PORT")]
    pub observe: Option<SocketAddr>,
    /// TLS handshakes begun in a second; further callers are told when to try again [default: 500]
    #[arg(long, env = "MUSTER_HANDSHAKES_PER_SECOND", value_name = "N")]
    pub handshakes_per_second: Option<NonZeroU32>,
    /// Where auth is, if it does not run in this process [default: the address in the link that lets a service join]
    #[arg(long, env = "MUSTER_AUTH_ADDRESS", value_name = "HOST:PORT")]
    pub auth_address: Option<String>,
    /// Where gsn-registry is, if the relay runs in another process [default: where auth is]
    #[arg(long, env = "MUSTER_GSN_REGISTRY_ADDRESS", value_name = "HOST:PORT")]
    pub gsn_registry_address: Option<String>,
    /// Addresses of this host from which gsn-registry probes candidates; one that serves nothing else by UDP proves most [default: all]
    #[arg(long, env = "MUSTER_PROBE_FROM", value_name = "IP", value_delimiter = ',')]
    pub probe_from: Vec<IpAddr>,
    /// How nodes reach this relay, if not as they reach the master [default: as --address]
    #[arg(long, env = "MUSTER_RELAY_ADDRESS", value_name = "HOST:PORT", value_delimiter = ',')]
    pub relay_address: Vec<String>,
    /// What tickets call this relay; each replica has its own name [default: drawn once, kept in the data directory]
    #[arg(long, env = "MUSTER_RELAY_NAME", value_name = "NAME")]
    pub relay_name: Option<String>,
    /// Something in front of the master hides where devices come from; then nothing is concluded from their addresses
    #[arg(long, env = "MUSTER_BEHIND_PROXY")]
    pub behind_proxy: bool,
    /// The secret that opens the authority's keys; replicas share it [default: auth.secret in the data directory]
    #[arg(long, env = "MUSTER_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The library of a PKCS#11 token; the keys of root and authorities are made in the token and stay there [default: none]
    #[arg(long, env = "MUSTER_PKCS11_MODULE", value_name = "FILE")]
    pub pkcs11_module: Option<PathBuf>,
    /// The token's label
    #[arg(long, env = "MUSTER_PKCS11_TOKEN", value_name = "LABEL")]
    pub pkcs11_token: Option<String>,
    /// The file with the PIN of the token's user
    #[arg(long, env = "MUSTER_PKCS11_PIN_FILE", value_name = "FILE")]
    pub pkcs11_pin_file: Option<PathBuf>,
    /// What the labels of our keys in the token begin with [default: muster]
    #[arg(long, env = "MUSTER_PKCS11_KEY_LABEL", value_name = "TEXT")]
    pub pkcs11_key_label: Option<String>,
    /// Domain whose _muster._tcp SRV records name the master [default: none]
    #[arg(long, env = "MUSTER_DISCOVERY_DOMAIN", value_name = "DOMAIN")]
    pub discovery_domain: Option<String>,
    /// What is logged, as in info,muster_topology=debug [default: info; of `up` warn]
    #[arg(long, env = "MUSTER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// text or json [default: text]
    #[arg(long, env = "MUSTER_LOG_FORMAT", value_name = "FORMAT", value_parser = log_format)]
    pub log_format: Option<LogFormat>,
    /// A collector of traces, as in http://127.0.0.1:4317 [default: none; nothing is traced]
    #[arg(long, env = OTLP_VARIABLE, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Where EST (RFC 7030) is served to devices without our agent [default: nowhere]
    #[arg(long, env = "MUSTER_EST_LISTEN", value_name = "IP:PORT")]
    pub est_listen: Option<SocketAddr>,
    /// Where SCEP (RFC 8894) is served to devices without our agent [default: nowhere]
    #[arg(long, env = "MUSTER_SCEP_LISTEN", value_name = "IP:PORT")]
    pub scep_listen: Option<SocketAddr>,
    /// PostgreSQL for all services, as in postgres://user@host/database; only in the file or the environment.
    #[arg(skip)]
    pub database_url: Option<String>,
    /// NATS, by which replicas wake each other, as in nats://host:4222; only in the file or the environment.
    #[arg(skip)]
    pub nats_url: Option<String>,
}

/// A master, as it will run.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    pub data_dir: PathBuf,
    /// `None`: every address, on the default port.
    pub listen: Option<SocketAddr>,
    /// Empty: this host's own.
    pub addresses: Vec<String>,
    pub observe: SocketAddr,
    pub handshakes_per_second: NonZeroU32,
    pub auth_address: Option<String>,
    pub gsn_registry_address: Option<String>,
    pub probe_from: Vec<IpAddr>,
    /// Empty: as the master's.
    pub relay_address: Vec<String>,
    pub relay_name: Option<String>,
    pub discovery_domain: String,
    pub est_listen: Option<SocketAddr>,
    pub scep_listen: Option<SocketAddr>,
    pub database_url: Option<String>,
    pub nats_url: Option<String>,
    pub secret_file: Option<PathBuf>,
    pub pkcs11: Option<token::Settings>,
    pub behind_proxy: bool,
    pub telemetry: TelemetryConfig,
}

impl Settings {
    /// Everything decided. `default_log` is what the command logs when nobody says otherwise.
    pub fn resolve(self, place: &Place, default_log: &str) -> Result<MasterConfig, Failure> {
        if place.context.is_some() {
            return Err(Failure::usage("--context names a master elsewhere", "this command runs one here")
                .next("leave it out, or use --data-dir"));
        }
        let file = read(self.config.as_deref())?;
        let pkcs11 = self.token(&file)?;
        let data_dir = match &place.data_dir {
            Some(folder) => folder.clone(),
            None => dirs::master_data_dir().map_err(|error| {
                Failure::usage("there is no place for the master's state", error).next("add --data-dir DIR")
            })?,
        };
        let addresses = if self.address.is_empty() { file.address } else { self.address };
        let relay_address =
            if self.relay_address.is_empty() { file.relay_address } else { self.relay_address };
        for address in addresses.iter().chain(&relay_address) {
            check_address(address)?;
        }
        let telemetry = TelemetryConfig {
            log: self.log.or(file.log).unwrap_or_else(|| default_log.to_owned()),
            log_format: self.log_format.or(file.log_format).unwrap_or_default(),
            otlp_endpoint: self.otlp_endpoint.or(file.otlp_endpoint),
        };
        let database_url = set(DATABASE_VARIABLE).or(file.database_url);
        let nats_url = set(BUS_VARIABLE).or(file.nats_url);
        if nats_url.is_some() && database_url.is_none() {
            return Err(Failure::usage(
                "NATS wakes replicas, and there can be only one on SQLite",
                format!("{BUS_VARIABLE} is set and {DATABASE_VARIABLE} is not"),
            )
            .next(format!(
                "set {DATABASE_VARIABLE}=postgres://user@host/database, or leave out {BUS_VARIABLE}"
            )));
        }
        Ok(MasterConfig {
            data_dir,
            listen: self.listen.or(file.listen),
            addresses,
            observe: self.observe.or(file.observe).unwrap_or(OBSERVE),
            handshakes_per_second: self
                .handshakes_per_second
                .or(file.handshakes_per_second)
                .unwrap_or(HANDSHAKES),
            auth_address: self.auth_address.or(file.auth_address),
            gsn_registry_address: self.gsn_registry_address.or(file.gsn_registry_address),
            probe_from: if self.probe_from.is_empty() { file.probe_from } else { self.probe_from },
            relay_address,
            relay_name: self.relay_name.or(file.relay_name).filter(|name| !name.is_empty()),
            discovery_domain: self.discovery_domain.or(file.discovery_domain).unwrap_or_default(),
            database_url,
            nats_url,
            behind_proxy: self.behind_proxy || file.behind_proxy,
            est_listen: self.est_listen.or(file.est_listen),
            scep_listen: self.scep_listen.or(file.scep_listen),
            secret_file: self.secret_file.or(file.secret_file),
            pkcs11,
            telemetry,
        })
    }

    /// The token with the authority's keys, if there is one: then it has a module, a label and a PIN.
    fn token(&self, file: &Self) -> Result<Option<token::Settings>, Failure> {
        let module = self.pkcs11_module.clone().or_else(|| file.pkcs11_module.clone());
        let token = self.pkcs11_token.clone().or_else(|| file.pkcs11_token.clone());
        let pin_file = self.pkcs11_pin_file.clone().or_else(|| file.pkcs11_pin_file.clone());
        let key_label = self.pkcs11_key_label.clone().or_else(|| file.pkcs11_key_label.clone());
        match (module, token, pin_file) {
            (None, None, None) => Ok(None),
            (Some(module), Some(token), Some(pin_file)) => {
                let key_label = key_label.unwrap_or_else(|| token::KEY_LABEL.to_owned());
                Ok(Some(token::Settings { module, token, pin_file, key_label }))
            }
            _ => Err(Failure::usage(
                "the token is only half described",
                "it takes a module, a label and a file with the PIN",
            )
            .next("--pkcs11-module FILE --pkcs11-token LABEL --pkcs11-pin-file FILE")),
        }
    }
}

impl MasterConfig {
    /// Where nodes reach a relay of this process. Of the master's addresses the first is this process's own; behind the
    /// others there may be other relays.
    pub fn relay_addresses<'a>(&'a self, master: &'a [String]) -> &'a [String] {
        if self.relay_address.is_empty() { master.get(..1).unwrap_or_default() } else { &self.relay_address }
    }
}

/// A variable that is empty is not set: charts and shells cannot leave one out as easily.
fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Traces of an operator's command, if the environment names a collector; messages are the command's own.
pub fn operator_telemetry() -> Result<Option<TelemetryGuard>, Failure> {
    let Some(endpoint) = set(OTLP_VARIABLE) else {
        return Ok(None);
    };
    let config = TelemetryConfig {
        log: "warn".to_owned(),
        otlp_endpoint: Some(endpoint),
        ..TelemetryConfig::default()
    };
    telemetry::init("muster-cli", &config)
        .map(Some)
        .map_err(|error| Failure::usage("cannot trace as configured", error))
}

fn read(named: Option<&Path>) -> Result<Settings, Failure> {
    let path = named.unwrap_or(Path::new(FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::usage(format!("cannot read {}", path.display()), error)),
    };
    toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("{} is not understood", path.display()), error.to_string().trim())
            .next("muster config-reference")
    })
}

/// `host:port`, as it will stand in links.
fn check_address(address: &str) -> Result<(), Failure> {
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        (!host.is_empty()).then_some(())?;
        port.parse::<u16>().ok().filter(|&port| port != 0)
    });
    port.map(|_| ()).ok_or_else(|| {
        Failure::usage(format!("{address:?} is no address of a master"), "it wants a host and a port")
            .next("--address master.example.org:27431")
    })
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("it is text or json".to_owned()),
    }
}

/// This host's address in the network that its default route leads to; loopback without one. Nothing is sent.
pub fn own_address() -> IpAddr {
    // Documentation addresses (RFC 5737, RFC 3849): connecting a datagram socket only asks the routing table.
    let probes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let found = probes.into_iter().find_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    });
    found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> Place {
        Place { data_dir: Some(folder.to_owned()), context: None }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("muster.toml");
        std::fs::write(&file, "log = \"debug\"\nlisten = \"127.0.0.1:1\"\naddress = [\"a:1\"]\n").unwrap();
        let flags = Settings {
            config: Some(file),
            listen: Some("127.0.0.1:2".parse().unwrap()),
            ..Settings::default()
        };
        let config = flags.resolve(&place(folder.path()), "warn").unwrap();
        assert_eq!(config.listen, Some("127.0.0.1:2".parse().unwrap()));
        assert_eq!(config.telemetry.log, "debug");
        assert_eq!(config.addresses, ["a:1"]);
        assert_eq!(config.observe, OBSERVE);
    }

    #[test]
    fn a_misspelt_setting_and_a_missing_file_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("muster.toml");
        std::fs::write(&file, "lissten = 1\n").unwrap();
        for config in [file, folder.path().join("missing.toml")] {
            let name = config.file_name().unwrap().to_owned();
            let settings = Settings { config: Some(config), ..Settings::default() };
            let failure = settings.resolve(&place(folder.path()), "warn").unwrap_err();
            assert!(format!("{failure:?}").contains(name.to_str().unwrap()), "{failure:?}");
        }
    }

    #[test]
    fn an_address_for_links_has_a_host_and_a_port() {
        assert!(check_address("master:443").is_ok());
        assert!(check_address("[2001:db8::1]:443").is_ok());
        for wrong in ["master", ":443", "master:0", "master:https"] {
            assert!(check_address(wrong).is_err(), "{wrong}");
        }
    }
}
