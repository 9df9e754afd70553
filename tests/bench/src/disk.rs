//! What an fsync costs on this disk: the unit in which durable acknowledgements are counted.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Enough for a median.
const SYNCS: usize = 200;

/// What a small transaction appends to a log.
const PAGE: [u8; 4096] = [7; 4096];

/// Appends and syncs, again and again, in `folder`.
pub(crate) fn sync_times(folder: &Path) -> Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(folder)?;
    (0..SYNCS).map(|_| sync_once(&mut file)).collect()
}

fn sync_once(file: &mut File) -> Result<Duration> {
    file.write_all(&PAGE)?;
    let began = Instant::now();
    file.sync_data()?;
    Ok(began.elapsed())
}
