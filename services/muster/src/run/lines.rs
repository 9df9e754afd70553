//! Whole lines out of the hosts' chunks, each with its host in front: stdout to stdout, stderr to stderr.

use std::collections::HashMap;
use std::io::Write;

use muster_proto::task::v1::{Output, OutputStream};

use crate::render::paint::{Colour, Paint};

/// A line without an end is shown in pieces of this.
const LINE_BYTES: usize = 64 * 1024;

pub struct Lines {
    paint: Paint,
    /// Of the widest host name.
    width: usize,
    /// What follows the last line break of each stream.
    open: HashMap<(String, OutputStream), Vec<u8>>,
}

impl Lines {
    pub fn new(width: usize) -> Self {
        Self { paint: Paint::stdout(), width, open: HashMap::new() }
    }

    pub fn print(&mut self, host: &str, output: &Output) {
        self.width = self.width.max(host.len());
        let stream = output.stream();
        let mut bytes = self.open.remove(&(host.to_owned(), stream)).unwrap_or_default();
        bytes.extend_from_slice(&output.data);
        let mut rest = &bytes[..];
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.write(host, stream, &rest[..end]);
            rest = &rest[end + 1..];
        }
        if rest.len() >= LINE_BYTES {
            self.write(host, stream, rest);
        } else if !rest.is_empty() {
            self.open.insert((host.to_owned(), stream), rest.to_vec());
        }
    }

    /// Shows what the host left without a line break.
    pub fn finish(&mut self, host: &str) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if let Some(rest) = self.open.remove(&(host.to_owned(), stream)) {
                self.write(host, stream, &rest);
            }
        }
    }

    fn write(&self, host: &str, stream: OutputStream, line: &[u8]) {
        let padding = " ".repeat(self.width.saturating_sub(host.len()));
        let mark =
            if stream == OutputStream::Stderr { self.paint.paint(Colour::Yellow, "!") } else { "|".into() };
        let mut whole = format!("{}{padding} {mark} ", self.paint.host(host)).into_bytes();
        whole.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        whole.push(b'\n');
        // Who closed the pipe wants no more of it; the task itself goes on.
        let _ = match stream {
            OutputStream::Stderr => std::io::stderr().write_all(&whole),
            _ => std::io::stdout().write_all(&whole),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_in_two_chunks_is_kept_until_it_is_whole() {
        let chunk = |data: &'static [u8]| Output { stream: 1, data: data.into(), ..Output::default() };
        let mut lines = Lines::new(4);
        lines.print("host", &chunk(b"one\ntw"));
        let key = ("host".to_owned(), OutputStream::Stdout);
        assert_eq!(lines.open[&key], b"tw");
        lines.print("host", &chunk(b"o\n"));
        assert!(lines.open.is_empty());
        lines.print("host", &chunk(b"end"));
        lines.finish("host");
        assert!(lines.open.is_empty());
    }
}
