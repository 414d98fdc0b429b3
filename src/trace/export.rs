//! The queue of spans, and the thread that sends them by OTLP (HTTP, protobuf).
//!
//! A receiver that is away or slow costs spans and nothing else: its thread alone waits for it. What became of each span
//! is counted (`lastpong_spans_total`): `exported`, `dropped` for want of room, `failed`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus::IntCounter;

use crate::ids::{Incarnation, NodeId};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// Spans that may wait: some seconds of a storm, in a few megabytes.
const QUEUE: usize = 8_192;
/// Spans in one request, and how long the first of them waits for others.
const BATCH: usize = 512;
const GATHER: Duration = Duration::from_secs(1);
/// For one request, with its retries.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Exporter(#[from] ExporterBuildError),
    #[error("the thread that sends traces cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

pub(super) struct Exporter {
    spans: SyncSender<SpanData>,
    dropped: IntCounter,
    stopping: Arc<AtomicBool>,
    stopped: std::sync::Mutex<Receiver<()>>,
}

struct Sender {
    exporter: SpanExporter,
    spans: Receiver<SpanData>,
    stopping: Arc<AtomicBool>,
    exported: IntCounter,
    failed: IntCounter,
}

impl Exporter {
    pub(super) fn start(
        endpoint: &Secret,
        node_id: &NodeId,
        incarnation: Incarnation,
        metrics: Arc<Metrics>,
    ) -> Result<Self, NotStarted> {
        let endpoint = format!("{}/v1/traces", endpoint.expose().trim_end_matches('/'));
        let builder = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let mut exporter = builder.with_endpoint(endpoint).with_timeout(TIMEOUT).build()?;
        exporter.set_resource(
            &Resource::builder_empty()
                .with_attributes([
                    KeyValue::new("service.name", "lastpong"),
                    KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                    KeyValue::new("service.instance.id", incarnation.to_string()),
                    KeyValue::new("host.name", node_id.to_string()),
                ])
                .build(),
        );
        let (spans, waiting) = sync_channel(QUEUE);
        let (done, stopped) = sync_channel(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let count = |outcome| metrics.spans.with_label_values(&[outcome]);
        let sender = Sender {
            exporter,
            spans: waiting,
            stopping: stopping.clone(),
            exported: count("exported"),
            failed: count("failed"),
        };
        thread::Builder::new().name("lastpong-traces".into()).spawn(move || {
            sender.run();
            // Whoever waited for it may have given up.
            let _ = done.try_send(());
        })?;
        Ok(Self { spans, dropped: count("dropped"), stopping, stopped: stopped.into() })
    }

    /// Never waits.
    pub(super) fn send(&self, span: SpanData) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.spans.try_send(span) {
            self.dropped.inc();
        }
    }

    /// What waits is sent, for as long as `patience` allows; nothing is sent afterwards.
    pub(super) fn finish(&self, patience: Duration) {
        self.stopping.store(true, Relaxed);
        let stopped = self.stopped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stopped.recv_timeout(patience).is_err() {
            log::warn!("the last spans were not taken in time");
        }
    }
}

impl Sender {
    fn run(self) {
        while let Some(batch) = self.gather() {
            let count = batch.len() as u64;
            // The client blocks, so that the future is done when it is first looked at.
            match self.exporter.export(batch).now_or_never() {
                Some(Ok(())) => self.exported.inc_by(count),
                Some(Err(error)) => {
                    self.failed.inc_by(count);
                    log::warn!(spans = count, error:% = error; "spans were not taken");
                }
                None => self.failed.inc_by(count),
            }
        }
    }

    /// The next spans to send; `None` at the end.
    fn gather(&self) -> Option<Vec<SpanData>> {
        let mut batch = vec![self.first()?];
        let full_at = Instant::now() + GATHER;
        while batch.len() < BATCH {
            let left = full_at.saturating_duration_since(Instant::now()).min(LOOK);
            match self.spans.recv_timeout(left) {
                Ok(span) => batch.push(span),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if Instant::now() >= full_at || self.stopping.load(Relaxed) {
                        break;
                    }
                }
            }
        }
        Some(batch)
    }

    fn first(&self) -> Option<SpanData> {
        loop {
            match self.spans.recv_timeout(LOOK) {
                Ok(span) => return Some(span),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.stopping.load(Relaxed) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::time::Timestamp;
    use crate::trace::{Context, Span, SpanKind};

    /// Sends until a span is dropped, and says how many were sent.
    fn fill(exporter: &Exporter) -> usize {
        let most = 4 * (QUEUE + BATCH);
        let full = (1..=most).find(|_| {
            Span::new("x", SpanKind::Internal, Context::root(), None)
                .lasting(Timestamp(0), Timestamp(1))
                .send(exporter);
            exporter.dropped.get() > 0
        });
        full.expect("the queue has an end")
    }

    #[test]
    fn a_receiver_that_does_not_answer_fills_a_bounded_queue_and_holds_up_nobody() {
        // It takes connections, as the kernel does for it, and never reads.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Secret::new(format!("http://{}", mute.local_addr().unwrap()));
        let metrics = Arc::new(Metrics::new());
        let node = "n1".parse().unwrap();
        let exporter = Exporter::start(&endpoint, &node, Incarnation::new(), metrics.clone()).unwrap();
        let sent = fill(&exporter);
        assert!((QUEUE..=QUEUE + 2 * BATCH + 1).contains(&sent), "{sent}");
        let count = |outcome| metrics.spans.with_label_values(&[outcome]).get();
        assert_eq!((count("exported"), count("dropped")), (0, 1));
        // Its end is not waited for longer than was said.
        exporter.finish(Duration::from_millis(10));
    }
}
