//! How far a program's memory grows, looked at all the while.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Server;

const LOOK: Duration = Duration::from_millis(20);

/// Begun with what the program has now.
pub struct Growth {
    before: u64,
    most: JoinHandle<u64>,
    stop: watch::Sender<bool>,
}

impl Growth {
    pub fn begin(server: &Server) -> Self {
        let before = server.resident_bytes();
        let (stop, stopped) = watch::channel(false);
        let status = format!("/proc/{}/status", server.pid());
        let most = tokio::spawn(async move {
            let mut most = 0;
            while !*stopped.borrow() {
                let text = std::fs::read_to_string(&status).expect("the program is there");
                let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
                let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("kilobytes");
                most = most.max(kib * 1024);
                tokio::time::sleep(LOOK).await;
            }
            most
        });
        Self { before, most, stop }
    }

    /// Holds that it was by less than this.
    ///
    /// # Panics
    /// When it was not.
    pub async fn end(self, what: &str, bound: u64) {
        self.stop.send_replace(true);
        let grown = self.most.await.expect("a reading").saturating_sub(self.before);
        eprintln!("{what}: memory grew by {} KiB", grown / 1024);
        assert!(grown < bound, "{what}: memory grew by {grown} bytes, and {bound} is the bound");
    }
}

/// The time that all but a hundredth of these are within.
///
/// # Panics
/// When there are none.
pub fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[(took.len() - 1) * 99 / 100]
}
