//! Progress that a program tells by writing lines into the FIFO that `MUSTER_PROGRESS` names.
//!
//! A line is a percentage, a phase of one word and a text: `echo "40 unpack 12 of 30 files" > "$MUSTER_PROGRESS"`.
//! Lines that come faster than they are sent replace each other.

use std::path::Path;
use std::time::Duration;

use muster_proto::task::v1::Progress;
use rustix::fs::{FileType, Mode, mknodat};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

/// The variable that names the FIFO.
pub(super) const VARIABLE: &str = "MUSTER_PROGRESS";

/// Progress is sent at most once in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of one line; the pipe is atomic up to this (pipe(7): PIPE_BUF).
const LINE_BYTES: usize = 4096;

/// What a program may leave unread: what a pipe holds (pipe(7)).
const LAST_BYTES: usize = 64 * 1024;

/// Characters kept of phase and text.
const PHASE_CHARS: usize = 64;
const TEXT_CHARS: usize = 512;

/// The reading end.
pub(super) struct Listener {
    pipe: pipe::Receiver,
    buffer: Vec<u8>,
    latest: Option<Progress>,
    sent_at: Instant,
}

impl Listener {
    /// Makes the FIFO. Whoever may enter its directory may write.
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        let everybody = Mode::RUSR | Mode::WUSR | Mode::WGRP | Mode::WOTH;
        mknodat(rustix::fs::CWD, path, FileType::Fifo, everybody, 0)?;
        rustix::fs::chmod(path, everybody)?;
        // Held open for writing too, so that a program that comes and goes does not end it.
        let pipe = pipe::OpenOptions::new().read_write(true).open_receiver(path)?;
        Ok(Self { pipe, buffer: Vec::new(), latest: None, sent_at: Instant::now() - INTERVAL })
    }

    /// Waits for lines, and takes them in. To be dropped at any moment.
    pub(super) async fn read(&mut self) {
        if self.pipe.read_buf(&mut self.buffer).await.is_err() {
            return std::future::pending().await;
        }
        self.take_in();
    }

    fn take_in(&mut self) {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.latest = parse(&String::from_utf8_lossy(&line)).or(self.latest.take());
        }
        if self.buffer.len() > LINE_BYTES {
            self.buffer.clear();
        }
    }

    /// When the latest line should go out, in the past if it should have.
    pub(super) fn due(&self) -> Option<Instant> {
        self.latest.as_ref().map(|_| self.sent_at + INTERVAL)
    }

    /// What the program said last and was not sent yet.
    pub(super) fn last(&mut self) -> Option<Progress> {
        // Whoever wrote has ended, so what there is is there at once; the runtime may not know it yet.
        let mut rest = vec![0; LAST_BYTES];
        let read = rustix::io::read(&self.pipe, &mut rest).unwrap_or_default();
        self.buffer.extend_from_slice(&rest[..read]);
        self.take_in();
        self.latest.take()
    }

    pub(super) fn take(&mut self) -> Option<Progress> {
        self.sent_at = Instant::now();
        self.latest.take()
    }
}

fn parse(line: &str) -> Option<Progress> {
    let mut parts = line.trim().splitn(3, char::is_whitespace);
    let percent = parts.next()?.trim_end_matches('%').parse::<u32>().ok()?.min(100);
    let cut = |text: &str, most: usize| text.chars().filter(|c| !c.is_control()).take(most).collect();
    let phase = cut(parts.next().unwrap_or_default(), PHASE_CHARS);
    let text = cut(parts.next().unwrap_or_default(), TEXT_CHARS);
    Some(Progress { phase, percent, text, ..Progress::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_percentage_a_phase_and_a_text() {
        let progress = parse("40% unpack 12 of 30 files\n").unwrap();
        assert_eq!((progress.percent, progress.phase.as_str()), (40, "unpack"));
        assert_eq!(progress.text, "12 of 30 files");
        assert_eq!(parse("250 x").unwrap().percent, 100);
        assert_eq!(parse("soon"), None);
    }
}
