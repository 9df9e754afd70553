//! A real HTTP proxy on loopback: Debian's tinyproxy.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// It answers within this, or it is not coming.
const START_LIMIT: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The running proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Tinyproxy {
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Tinyproxy {
    /// With these lines in its settings beside the usual ones.
    ///
    /// # Panics
    /// It is not installed, or does not start.
    pub fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the proxy's settings");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let file = folder.path().join("tinyproxy.conf");
        let usual = format!("Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 20\n");
        std::fs::write(&file, usual + settings).expect("the proxy's settings are written");
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("tinyproxy is in Debian's tinyproxy-bin");
        let proxy = Self { port, child, _folder: folder };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < START_LIMIT, "tinyproxy does not answer");
            std::thread::sleep(ASK_AGAIN);
        }
        proxy
    }

    /// Its URL, with `user:password` if it wants them.
    pub fn url(&self, login: &str) -> String {
        let at = if login.is_empty() { "" } else { "@" };
        format!("http://{login}{at}127.0.0.1:{}", self.port)
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
