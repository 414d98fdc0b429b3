//! Subscribers of ends, or of another stream, by server-sent events, on a thread of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::Response;

use super::http::Http;
use super::{Seen, session_of};

/// What ends are called.
pub const ENDS: &str = "lastpong.session.disconnected.v1";

/// How long a stream may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);
/// How long one that is to stop waits for its next chunk.
const LOOK: Duration = Duration::from_millis(100);

/// Some subscribers, each with a connection of its own. The first tells what it saw; all count.
pub struct Sse {
    pub seen: Seen,
    delivered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sse {
    /// Subscribes to ends, and returns once every stream has begun.
    ///
    /// # Errors
    /// Where one does not begin.
    pub fn subscribe(http: &Http, count: usize) -> anyhow::Result<Self> {
        Self::follow(http, &format!("/v1/events?types={ENDS}"), count)
    }

    /// The same for another stream.
    ///
    /// # Errors
    /// Where one does not begin.
    pub fn follow(http: &Http, path: &str, count: usize) -> anyhow::Result<Self> {
        let (seen, delivered, stop) = (Seen::default(), Arc::<AtomicU64>::default(), Arc::default());
        let (url, admin) = (http.url(path), http.admin().to_owned());
        let (begun, begins) = mpsc::channel();
        let thread = {
            let (seen, delivered, stop) = (seen.clone(), delivered.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                if let Err(error) = serve(&url, &admin, count, &begun, &seen, &delivered, &stop) {
                    // Who waits for the beginning is told; later, ends that are missing tell it.
                    let _ = begun.send(Err(error));
                }
            })
        };
        let sse = Self { seen, delivered, stop, thread: Some(thread) };
        begins.recv_timeout(BEGINS_WITHIN).context("no stream of events began")??;
        Ok(sse)
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Waits until so many events were delivered, to all of them together.
    ///
    /// # Errors
    /// Where they were not in time.
    pub fn until(&self, events: u64, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        while self.delivered() < events {
            let delivered = self.delivered();
            anyhow::ensure!(Instant::now() < deadline, "{delivered} of {events} events came in {within:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Sse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn serve(
    url: &str,
    admin: &str,
    count: usize,
    begun: &mpsc::Sender<anyhow::Result<()>>,
    seen: &Seen,
    delivered: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut readers = Vec::new();
        for n in 0..count {
            let request = http.get(url).bearer_auth(admin).header("Accept", "text/event-stream");
            let mut response = request.send().await?.error_for_status()?;
            // The comment by which a stream begins.
            response.chunk().await?;
            let seen = (n == 0).then(|| seen.clone());
            readers.push(tokio::spawn(read(response, seen, delivered.clone(), stop.clone())));
        }
        // Nobody listens any more where the time for it is over.
        let _ = begun.send(Ok(()));
        for reader in readers {
            reader.await??;
        }
        Ok(())
    })
}

/// Reads until it is to stop, or the stream ends.
async fn read(
    mut response: Response,
    seen: Option<Seen>,
    delivered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let chunk = match tokio::time::timeout(LOOK, response.chunk()).await {
            Err(_) => continue,
            Ok(chunk) => chunk?.context("the stream ended")?,
        };
        buffer.extend_from_slice(&chunk);
        let mut done = 0;
        while let Some(end) = buffer[done..].iter().position(|byte| *byte == b'\n') {
            if let Some(event) = buffer[done..done + end].strip_prefix(b"data: ") {
                delivered.fetch_add(1, Ordering::Relaxed);
                if let Some((seen, session)) = seen.as_ref().zip(session_of(event)) {
                    seen.saw(session);
                }
            }
            done += end + 1;
        }
        buffer.drain(..done);
    }
    Ok(())
}
