//! Spans on their way to the collector: from where they end, through a bounded queue, in batches.

use opentelemetry::{
    Context,
    trace::{SpanKind, TracerProvider},
};
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use supervise::{Stop, TaskResult};
use tokio::sync::{
    Mutex,
    mpsc::{self, error::TryRecvError},
};
use tonic::Request;
use tracing_opentelemetry::OpenTelemetryLayer;

use super::{
    Settings,
    link::{Link, Sent},
};
use crate::{family::Counter, metrics::Metrics, trace};

/// Spans that may wait; when the queue is full, new ones are dropped and counted.
const QUEUE: usize = 2048;
/// Spans of one batch.
const MOST_TOGETHER: usize = 512;
/// How long spans wait for company.
const DELAY: Duration = Duration::from_secs(1);

/// Spans as they end. Made before logging starts; sent from [`super::start`] on.
pub struct Traces {
    /// Kept, for with the last provider the tracer ends.
    provider: SdkTracerProvider,
    ended: mpsc::Receiver<SpanData>,
    dropped: Arc<AtomicU64>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traces({} wait)", self.ended.len())
    }
}

impl Traces {
    /// For spans of this service. Which are sampled says `OTEL_TRACES_SAMPLER`; all, unless it does.
    pub fn new(settings: &Settings) -> Self {
        let (sender, ended) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = Queue { sender, dropped: dropped.clone() };
        let provider =
            SdkTracerProvider::builder().with_span_processor(queue).with_resource(settings.resource()).build();
        Self { provider, ended, dropped }
    }

    /// The layer that turns spans of `tracing` into ours.
    pub fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("spear"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
    }
}

/// Where ended spans go; never waits.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        // Known by what is set on it; a field of the span would stand in every line of the log.
        if span.attributes.iter().any(|attribute| attribute.key.as_str() == trace::SERVED) {
            span.span_kind = SpanKind::Server;
        }
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends batches of spans.
pub(super) struct Sender {
    _provider: SdkTracerProvider,
    ended: Mutex<mpsc::Receiver<SpanData>>,
    resource: ResourceAttributesWithSchema,
    sent: Counter,
    dropped: Arc<AtomicU64>,
}

impl Sender {
    pub(super) fn new(traces: Traces, metrics: &Metrics, resource: &Resource) -> Self {
        let Traces { provider, ended, dropped } = traces;
        let read = dropped.clone();
        metrics.read(
            "spear_otel_spans_dropped_total",
            "Spans that never reached the collector: the queue was full, or it did not take them.",
            move || Some(read.load(Ordering::Relaxed) as f64),
        );
        Self {
            _provider: provider,
            ended: Mutex::new(ended),
            resource: resource.into(),
            sent: metrics.counter("spear_otel_spans_sent_total", "Spans that the collector took."),
            dropped,
        }
    }

    pub(super) async fn run(&self, link: &Link, stop: &Stop, last: Duration) -> TaskResult {
        let mut ended = self.ended.lock().await;
        let mut rest = None;
        while !stop.is_cancelled() {
            let batch = gather(&mut ended, stop).await;
            rest = self.send(link, stop, batch).await;
        }
        // The phases that make spans are over: what is here is all there will be.
        let began = tokio::time::Instant::now();
        loop {
            let (count, request) = match rest.take() {
                Some(unsent) => unsent,
                None => self.request(waiting(&mut ended)),
            };
            if count == 0 {
                return Ok(());
            }
            let left = last.saturating_sub(began.elapsed());
            let taken = link.send_last("spans", left, request, |request| export(link, request)).await;
            self.note(count, taken);
        }
    }

    /// Sends a batch; what a stop cut short comes back.
    async fn send(&self, link: &Link, stop: &Stop, batch: Vec<SpanData>) -> Option<(u64, ExportTraceServiceRequest)> {
        let (count, request) = self.request(batch);
        if count == 0 {
            return None;
        }
        let sent = link.send("spans", stop, &request, |request| export(link, request)).await;
        if sent == Sent::CutShort {
            return Some((count, request));
        }
        self.note(count, sent == Sent::Taken);
        None
    }

    fn note(&self, count: u64, taken: bool) {
        if taken {
            self.sent.add(count);
        } else {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// A batch as it is sent, with the number of its spans.
    fn request(&self, batch: Vec<SpanData>) -> (u64, ExportTraceServiceRequest) {
        let count = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        (count, ExportTraceServiceRequest { resource_spans })
    }
}

async fn export(link: &Link, request: Request<ExportTraceServiceRequest>) -> Result<(), tonic::Status> {
    TraceServiceClient::new(link.channel.clone()).export(request).await.map(drop)
}

/// Waits for spans: a full batch, or what has come a while after the first.
async fn gather(ended: &mut mpsc::Receiver<SpanData>, stop: &Stop) -> Vec<SpanData> {
    let mut batch = Vec::new();
    let gathering = async {
        ended.recv_many(&mut batch, MOST_TOGETHER).await;
        let more = async {
            while batch.len() < MOST_TOGETHER {
                let room = MOST_TOGETHER - batch.len();
                if ended.recv_many(&mut batch, room).await == 0 {
                    return std::future::pending().await;
                }
            }
        };
        // Time running out is the usual end.
        drop(tokio::time::timeout(DELAY, more).await);
    };
    // `recv_many` loses nothing when it is dropped: what it took is in the batch.
    stop.run_until_cancelled(gathering).await;
    batch
}

fn waiting(ended: &mut mpsc::Receiver<SpanData>) -> Vec<SpanData> {
    let mut batch = Vec::new();
    while batch.len() < MOST_TOGETHER {
        match ended.try_recv() {
            Ok(span) => batch.push(span),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    batch
}
