//! Which HTTP proxy stands on the way to an address: one that the settings, the environment or a file of the system names.
//!
//! the first of them that names one -> but for what is excepted, and this host itself -> [`Proxy`]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwapOption;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use serde::{Deserialize, Serialize};

use super::proxy::{Proxy, ProxyFault};

/// What names a proxy for TLS, as curl has it; capital letters count more.
const NAMES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// What excepts hosts.
const EXCEPT: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Where Linux keeps the variables of every session: pam_env(8), and SUSE's own.
const FILES: [&str; 2] = ["/etc/environment", "/etc/sysconfig/proxy"];
/// SUSE's switch, in the second of them.
const SWITCH: &str = "PROXY_ENABLED";
/// Such a file has some lines.
const FILE_BYTES: u64 = 64 * 1024;
/// In place of a URL: no proxy, whatever else names one.
const NEVER: &str = "none";
/// Asked for, to learn whether a URL names a proxy.
const ANYWHERE: &str = "https://anywhere.invalid/";
/// Stands for a proxy whose URL does not.
const UNREADABLE: &str = "http://unreadable.invalid";

/// What can be set of the proxy on the way to the master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// `http://USER:PASSWORD@HOST:PORT`; `none`: no proxy is used. Default: what the environment or the system names.
    #[serde(skip_serializing)]
    pub url: ProxyUrl,
    /// Reached without it, beside what NO_PROXY names: hosts, domains with all below them, addresses, networks (CIDR).
    pub except: Vec<String>,
}

/// A proxy's URL, which may hold a password: it cannot be printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ProxyUrl(String);

impl From<&str> for ProxyUrl {
    fn from(url: &str) -> Self {
        Self(url.trim().to_owned())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none is set" } else { "a URL" })
    }
}

/// Who names a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Settings,
    Environment,
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("the settings"),
            Self::Environment => f.write_str("the environment"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What came of the last connection that was to go by a proxy.
#[derive(Debug)]
pub struct Tried {
    /// `host:port`
    pub proxy: String,
    pub source: Source,
    /// Why it did not carry us.
    pub fault: Option<ProxyFault>,
}

/// Where a proxy may be named. Looked up again for every connection: who sets one need not restart anything that reads files.
#[derive(Debug, Default)]
pub struct Proxies {
    config: ProxyConfig,
    /// A file like the system's, which is read last.
    kept: Option<PathBuf>,
    last: ArcSwapOption<Tried>,
}

impl Proxies {
    pub fn new(config: ProxyConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Where nothing else names a proxy, this file may, with lines as in `/etc/environment` ([`kept`]).
    pub fn or_kept_in(mut self, file: PathBuf) -> Self {
        self.kept = Some(file);
        self
    }

    /// The proxy on the way to each of these addresses (`host:port`), if there is one.
    pub fn to(&self, addresses: &[String]) -> Vec<Option<Proxy>> {
        match self.named() {
            Some(named) => {
                let rules = named.rules();
                addresses.iter().map(|address| rules.to(address)).collect()
            }
            None => vec![None; addresses.len()],
        }
    }

    /// What came of the last connection that was to go by a proxy.
    pub fn last(&self) -> Option<std::sync::Arc<Tried>> {
        self.last.load_full()
    }

    pub(super) fn note(&self, proxy: &Proxy, fault: Option<ProxyFault>) {
        let tried = Tried { proxy: proxy.address(), source: proxy.source().clone(), fault };
        self.last.store(Some(tried.into()));
    }

    fn named(&self) -> Option<Named> {
        let never = self.config.url.0.eq_ignore_ascii_case(NEVER);
        let mut named = if never {
            return None;
        } else if self.config.url.0.is_empty() {
            self.found()?
        } else {
            Named { url: self.config.url.0.clone(), except: Vec::new(), source: Source::Settings }
        };
        named.except.extend(self.config.except.iter().cloned());
        named.except.extend(first(&environment, &EXCEPT));
        Some(named)
    }

    fn found(&self) -> Option<Named> {
        let files = FILES.iter().map(Path::new).chain(self.kept.as_deref());
        Named::by(&environment, Source::Environment).or_else(|| {
            files.filter_map(|path| Some((path, variables(path)?))).find_map(|(path, variables)| {
                Named::by(&|name| variables.get(name).cloned(), Source::File(path.to_owned()))
            })
        })
    }
}

/// What the environment says of proxies, in the form of [`Proxies::or_kept_in`]: for a service, which does not inherit the
/// environment of whoever installs it. `None`: it names none.
pub fn kept() -> Option<String> {
    let url = first(&environment, &NAMES)?;
    let except = first(&environment, &EXCEPT).unwrap_or_default();
    Some(format!("{}={url}\n{}={except}\n", NAMES[0], EXCEPT[0]))
}

/// A proxy somebody names, and what that one excepts.
struct Named {
    url: String,
    except: Vec<String>,
    source: Source,
}

impl Named {
    fn by(says: &dyn Fn(&str) -> Option<String>, source: Source) -> Option<Self> {
        let off = says(SWITCH).is_some_and(|switch| switch.eq_ignore_ascii_case("no"));
        let url = first(says, &NAMES).filter(|_| !off)?;
        Some(Self { url, except: first(says, &EXCEPT).into_iter().collect(), source })
    }

    fn rules(self) -> Rules {
        let readable =
            Matcher::builder().https(&self.url).build().intercept(&Uri::from_static(ANYWHERE)).is_some();
        let url = if readable { &self.url } else { UNREADABLE };
        let built = Matcher::builder().https(url).no(self.except.join(",")).build();
        Rules { built, readable, source: self.source }
    }
}

struct Rules {
    built: Matcher,
    readable: bool,
    source: Source,
}

impl Rules {
    fn to(&self, address: &str) -> Option<Proxy> {
        let destination: Uri = format!("https://{address}/").parse().ok()?;
        let host = destination.host()?.trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let taken = self.built.intercept(&destination).filter(|_| !here)?;
        let uri = if self.readable { taken.uri().clone() } else { Uri::default() };
        Some(Proxy::new(uri, taken.basic_auth().cloned(), self.source.clone()))
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The first that says something.
fn first(says: &dyn Fn(&str) -> Option<String>, names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| says(name))
        .map(|said| said.trim().to_owned())
        .find(|said| !said.is_empty())
}

fn variables(path: &Path) -> Option<BTreeMap<String, String>> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(read(&text))
}

/// Lines `NAME=value`, with or without quotes, or `export` before them.
fn read(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let bare = value.trim();
        let quoted = ['"', '\''].iter().find_map(|it| bare.strip_prefix(*it)?.strip_suffix(*it));
        Some((name.trim().to_owned(), quoted.unwrap_or(bare).to_owned()))
    };
    text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: &str = "master.example:27431";

    fn named(text: &str) -> Option<Named> {
        let variables = read(text);
        Named::by(&|name| variables.get(name).cloned(), Source::Environment)
    }

    fn way(text: &str, address: &str) -> Option<String> {
        named(text).and_then(|named| named.rules().to(address)).map(|proxy| proxy.address())
    }

    #[test]
    fn a_proxy_is_used_but_for_what_is_excepted_and_for_this_host() {
        let text = "HTTPS_PROXY=http://ada:s3cret@proxy.example:3128\nno_proxy=.inside.example,lone.example,10.0.0.0/8";
        let by_proxy = Some("proxy.example:3128".to_owned());
        for address in [MASTER, "[2001:db8::1]:27431", "192.0.2.1:1"] {
            assert_eq!(way(text, address), by_proxy, "{address}");
        }
        let excepted = ["a.inside.example:1", "lone.example:1", "10.1.2.3:1"];
        for direct in [&excepted[..], &["127.0.0.1:1", "[::1]:1", "localhost:1"]].concat() {
            assert_eq!(way(text, direct), None, "{direct}");
        }
    }

    #[test]
    fn a_file_of_the_system_is_read_with_quotes_comments_and_its_switch() {
        let text =
            "# proxy\nPATH=\"/usr/bin\"\nexport HTTPS_PROXY=\"http://10.0.0.1:8080/\"\nNO_PROXY='lan'\n";
        assert_eq!(way(text, MASTER).as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(way(text, "host.lan:1"), None);
        assert_eq!(way(&format!("{text}PROXY_ENABLED=\"no\""), MASTER), None);
        assert_eq!(way("HTTPS_PROXY=\nall_proxy=proxy.example", MASTER).as_deref(), Some("proxy.example:80"));
        assert_eq!(way("", MASTER), None);
    }

    #[test]
    fn the_settings_come_first_and_may_forbid_every_proxy() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("proxy");
        std::fs::write(&kept, "HTTPS_PROXY=http://kept.example:1\n").unwrap();
        let proxies = |url: &str| {
            let config = ProxyConfig { url: url.into(), except: vec!["office.example".to_owned()] };
            Proxies::new(config).or_kept_in(kept.clone())
        };
        let set = proxies("http://set.example:2").to(&[MASTER.to_owned(), "office.example:1".to_owned()]);
        assert_eq!(set[0].as_ref().unwrap().address(), "set.example:2");
        assert!(set[1].is_none());
        assert!(proxies("none").to(&[MASTER.to_owned()])[0].is_none());
    }

    #[test]
    fn a_password_is_not_printed() {
        let config = ProxyConfig { url: "http://ada:s3cret@proxy.example:3128".into(), except: Vec::new() };
        let proxies = Proxies::new(config);
        let proxy = &proxies.to(&[MASTER.to_owned()])[0];
        let printed = format!("{proxies:?} {proxy:?}");
        assert!(proxy.is_some() && !printed.contains("s3cret") && !printed.contains("YWRh"), "{printed}");
    }
}
