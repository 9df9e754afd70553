//! Every crash point that the sources have, and where the matrix hits it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{enrollment, lsn, master, node};

/// Fewer steps than these would leave out some of the way.
const LEAST: usize = 12;

/// What a point looks like in the sources.
const MARK: &str = "crash::point(\"";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn in_sources() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace");
    let mut files = Vec::new();
    ["core", "services", "agent"].iter().for_each(|room| sources(&root.join(room), &mut files));
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts
        .flat_map(|text| {
            let names = text.split(MARK).skip(1).filter_map(|rest| rest.split('"').next());
            names.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_matrix_hits_exactly_the_points_that_the_sources_have() {
    let matrix: BTreeSet<String> = node::STEPS
        .iter()
        .map(|step| step.point)
        .chain(master::STEPS.iter().map(|step| step.point))
        .chain(lsn::STEPS.iter().map(|step| step.point))
        .chain(node::APART)
        .chain(master::APART)
        .chain(lsn::APART)
        .chain(enrollment::ON_THE_DEVICE)
        .chain(enrollment::AT_AUTH)
        .chain(enrollment::AT_FOUNDING)
        .chain(enrollment::AT_THE_OPERATOR)
        .map(str::to_owned)
        .collect();
    assert_eq!(in_sources(), matrix);
    assert!(matrix.len() >= LEAST, "only {} points", matrix.len());
}
