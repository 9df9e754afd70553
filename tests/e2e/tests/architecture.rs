//! Who may know whom, read from `cargo metadata`: `types <- overlay <- wire <- net <- agent`; `kit <- services, agent`;
//! no service knows another; nothing knows the tests.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

/// Each crate of ours, and those of ours it may depend on (tests included).
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("muster-types", &[]),
    ("muster-proto", &[]),
    ("muster-overlay", &["muster-types"]),
    ("muster-wire", &["muster-types", "muster-overlay", "muster-proto"]),
    ("muster-net", &["muster-types", "muster-overlay", "muster-wire", "muster-proto"]),
    ("muster-kit", &["muster-types", "muster-proto"]),
    ("muster-topology", &["muster-types", "muster-proto", "muster-wire", "muster-overlay", "muster-kit"]),
    ("muster-auth", &["muster-types", "muster-proto", "muster-wire", "muster-kit"]),
    (
        "muster-relay",
        &["muster-types", "muster-overlay", "muster-proto", "muster-wire", "muster-net", "muster-kit"],
    ),
    (
        "muster-dht-bootstrap",
        &["muster-types", "muster-overlay", "muster-proto", "muster-wire", "muster-net", "muster-kit"],
    ),
    (
        "muster-gsn-registry",
        &["muster-types", "muster-overlay", "muster-proto", "muster-wire", "muster-net", "muster-kit"],
    ),
    (
        "muster-agent",
        &["muster-types", "muster-overlay", "muster-proto", "muster-wire", "muster-net", "muster-kit"],
    ),
    (
        "muster",
        &[
            "muster-types",
            "muster-proto",
            "muster-wire",
            "muster-kit",
            "muster-topology",
            "muster-auth",
            "muster-dht-bootstrap",
            "muster-gsn-registry",
            "muster-relay",
            "muster-agent",
        ],
    ),
];

/// Crates under `tests/`: they may know everything, and nothing outside may know them.
const TESTS: &[&str] = &["muster-sim", "muster-e2e", "muster-lab", "muster-bench", "muster-fuzz"];

/// What a state machine without I/O must not name.
const IO: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "tokio",
    "std::fs",
    "std::thread",
    "std::net::Udp",
    "std::net::Tcp",
    "Mutex",
    "RwLock",
    "thread_rng",
    "rand::rng",
    "async fn",
    ".await",
];

/// Frameworks that stop at a service's border.
const FRAMEWORKS: &[&str] = &["tonic::", "tokio::", "prost::", "sqlx::"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tests/e2e lies two below the root")
        .to_owned()
}

/// Every crate of the workspace with those of the workspace that it names as dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let known = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        dependencies.iter().map(name).filter(|dependency| ours.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), known(package))).collect()
}

#[test]
fn every_crate_knows_only_those_to_its_left() {
    let mut faults = Vec::new();
    for (package, known) in dependencies() {
        if TESTS.contains(&package.as_str()) {
            continue;
        }
        match MAY_KNOW.iter().find(|(name, _)| *name == package) {
            None => faults.push(format!("{package} has no room in the house")),
            Some((_, allowed)) => faults.extend(
                known
                    .iter()
                    // A crate may name itself among its dev-dependencies, to switch a feature on for its tests.
                    .filter(|other| **other != package && !allowed.contains(&other.as_str()))
                    .map(|other| format!("{package} must not know {other}")),
            ),
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn no_rule_speaks_of_a_crate_that_is_gone() {
    let crates = dependencies();
    for (name, _) in MAY_KNOW {
        assert!(crates.contains_key(*name), "{name}");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Lines of shipped code in these files that hold one of the words.
fn lines_with(files: impl IntoIterator<Item = PathBuf>, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in shipped.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn every_threat_names_tests_that_there_are() {
    let table = fs::read_to_string(root().join("tests/THREATS.md")).unwrap();
    let all: String = ["agent", "core", "services", "tests"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let is_name =
        |word: &&str| word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let named: BTreeSet<_> = table.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() > 50, "{named:?}");
    let gone: Vec<_> = named.into_iter().filter(|name| !all.contains(&format!("fn {name}("))).collect();
    assert!(gone.is_empty(), "no tests any more: {gone:?}");
}

#[test]
fn the_protocol_core_has_no_io_no_clock_no_lock_and_no_randomness_of_its_own() {
    let core =
        ["core/overlay/src", "core/types/src"].into_iter().flat_map(|folder| sources(&root().join(folder)));
    assert_eq!(lines_with(core, IO), Vec::<String>::new());
}

#[test]
fn frameworks_stop_at_the_border_of_a_domain() {
    let services =
        fs::read_dir(root().join("services")).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let domains = services.flat_map(|service| {
        let file = service.join("domain.rs");
        let folder = service.join("domain");
        let inside = if folder.is_dir() { sources(&folder) } else { Vec::new() };
        file.is_file().then_some(file).into_iter().chain(inside)
    });
    assert_eq!(lines_with(domains, FRAMEWORKS), Vec::<String>::new());
}
