//! Installed packages: dpkg's own list where there is one, else what rpm says.

use std::process::{Command, Stdio};

use muster_proto::task::v1::{Package, PackagesSection};

/// dpkg's database: paragraphs as in deb-control(5).
const DPKG_STATUS: &str = "/var/lib/dpkg/status";

/// rpm has no database that others should read; its own tool answers in any format.
const RPM_FORMAT: &str = "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{ARCH}\n";

/// `None` where no known package system is.
pub(super) fn collect() -> Option<PackagesSection> {
    let section = |source: &str, packages| PackagesSection { source: source.to_owned(), packages };
    if let Ok(status) = std::fs::read_to_string(DPKG_STATUS) {
        return Some(section("dpkg", parse_dpkg(&status)));
    }
    let rpm = Command::new("rpm")
        .args(["--query", "--all", "--queryformat", RPM_FORMAT])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(section("rpm", parse_rpm(&String::from_utf8_lossy(&rpm.stdout))))
}

fn parse_dpkg(status: &str) -> Vec<Package> {
    status.split("\n\n").filter_map(paragraph).collect()
}

/// One package, if it is installed: its third status word says so (dpkg(1)).
fn paragraph(text: &str) -> Option<Package> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    };
    let installed = field("Status").split(' ').nth(2) == Some("installed");
    installed.then(|| Package {
        name: field("Package").to_owned(),
        version: field("Version").to_owned(),
        architecture: field("Architecture").to_owned(),
    })
}

fn parse_rpm(lines: &str) -> Vec<Package> {
    let package = |line: &str| {
        let mut fields = line.split('\t');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let version = fields.next()?;
        // An epoch of zero is not written, as in rpm's own names.
        let version = version.strip_prefix("0:").unwrap_or(version).to_owned();
        Some(Package { name, version, architecture: fields.next()?.to_owned() })
    };
    lines.lines().filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_packages_whose_configuration_is_left_do_not_count() {
        let status = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n\
                      Description: shell\n Status: no field\n\n\
                      Package: nginx\nStatus: deinstall ok config-files\nVersion: 1.2\n";
        let packages = parse_dpkg(status);
        assert_eq!(packages.len(), 1);
        assert_eq!((packages[0].name.as_str(), packages[0].version.as_str()), ("bash", "5.2-1"));
    }

    #[test]
    fn rpm_versions_lose_an_epoch_of_zero_and_keep_others() {
        let packages = parse_rpm("bash\t0:5.2-1\tx86_64\nopenssl\t1:3.0-2\tx86_64\nbroken\n");
        assert_eq!(packages[0].version, "5.2-1");
        assert_eq!(packages[1].version, "1:3.0-2");
        assert_eq!(packages.len(), 2);
    }
}
