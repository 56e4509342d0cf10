//! What a collector of OpenTelemetry gets: one trace from the request to the guest, across processes, and the figures.

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value},
    metrics::v1::{AggregationTemporality, metric, number_data_point},
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::support::{Client, Daemon, sample, serve, spear};

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector {
    /// Instance and span.
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    metrics: Arc<Mutex<Vec<(String, ExportMetricsServiceRequest)>>>,
    keys: Arc<Mutex<BTreeSet<String>>>,
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

fn instance(resource: Option<&Resource>) -> String {
    let attributes = &resource.unwrap().attributes;
    assert_eq!(text(attributes, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(text(attributes, "service.name").as_deref(), Some("spear-test"));
    text(attributes, "service.instance.id").unwrap()
}

impl Collector {
    fn note<T>(&self, request: &Request<T>) {
        let key = request.metadata().get("x-key").map(|key| key.to_str().unwrap().to_owned());
        self.keys.lock().unwrap().insert(key.unwrap_or_default());
    }

    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, address)
    }

    /// The only span of a trace with this name.
    fn span(&self, trace: &str, name: &str) -> Option<(String, Span)> {
        let spans = self.spans.lock().unwrap();
        let found: Vec<_> =
            spans.iter().filter(|(_, span)| hex(&span.trace_id) == trace && span.name == name).cloned().collect();
        assert!(found.len() <= 1, "{name} is there {} times", found.len());
        found.into_iter().next()
    }

    /// Instances that told a figure with this value, cumulative and rising.
    fn told(&self, name: &str, labels: &[(&str, &str)], value: f64) -> BTreeSet<String> {
        let all = self.metrics.lock().unwrap();
        let mut found = BTreeSet::new();
        for (instance, request) in all.iter() {
            let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            for metric in scopes.flat_map(|scope| &scope.metrics).filter(|metric| metric.name == name) {
                let Some(metric::Data::Sum(sum)) = &metric.data else { panic!("{name} is no sum") };
                assert!(sum.is_monotonic && !metric.description.is_empty());
                assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
                let fits = sum.data_points.iter().any(|point| {
                    assert!(point.start_time_unix_nano > 0 && point.time_unix_nano >= point.start_time_unix_nano);
                    point.value == Some(number_data_point::Value::AsDouble(value))
                        && labels.iter().all(|(key, value)| text(&point.attributes, key).as_deref() == Some(*value))
                });
                if fits {
                    found.insert(instance.clone());
                }
            }
        }
        found
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.note(&request);
        for of in request.into_inner().resource_spans {
            let instance = instance(of.resource.as_ref());
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| (instance.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let instance = instance(request.resource_metrics[0].resource.as_ref());
        self.metrics.lock().unwrap().push((instance, request));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Arguments of a role that sends to a collector.
fn sending(dir: &Path, role: &str, collector: SocketAddr) -> Vec<String> {
    let path = dir.join(format!("{role}.toml"));
    let otel = format!(
        "[otel]\nendpoint = \"http://{collector}\"\nheaders = \"x-key=from%20us\"\nservice_name = \"spear-test\"\n\
         metrics_interval = 200\n"
    );
    std::fs::write(&path, otel).unwrap();
    let mut args = serve(role);
    args.extend(["--config".to_owned(), path.display().to_string()]);
    args
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_one_trace_from_the_callers_span_through_registry_and_agent_and_figures_come_too() {
    let (collector, address) = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let sms = Daemon::start_with(dir.path(), sending(dir.path(), "sms", address));
    let mut args = sending(dir.path(), "spearlet", address);
    args.extend(["--sms-addr".to_owned(), sms.address("sms/grpc").to_string()]);
    args.extend(["--sms-http-addr".to_owned(), sms.address("sms/http").to_string()]);
    let agent = Daemon::start_with(dir.path(), args);
    let client = Client::new(&sms.sms());
    let uri = client.upload("echo.wasm", sample("echo")).await;
    let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let body = json!({
        "name": "traced", "endpoint": "http://127.0.0.1/", "version": "1",
        "executable": {"type": "wasm", "uri": uri, "name": "echo.wasm"},
    });
    let request = client.http.post(format!("{}/api/v1/tasks", client.base)).json(&body);
    let (status, answer) = client.send(request.header("traceparent", format!("00-{trace}-{caller}-01"))).await;
    assert_eq!(status, 200, "{answer}");
    let ended = client.ended(answer["execution_id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], json!("completed"), "{ended}");
    // What has not been sent by then is sent when they stop.
    for daemon in [agent, sms] {
        daemon.signal(rustix::process::Signal::TERM);
        let (status, log) = daemon.wait();
        assert!(status.success(), "{log}");
        assert!(!log.contains("abandoned"), "{log}");
    }
    let span = |name: &str| {
        collector.span(trace, name).unwrap_or_else(|| {
            let spans = collector.spans.lock().unwrap();
            let all: Vec<_> = spans.iter().map(|(_, span)| (span.name.clone(), hex(&span.trace_id))).collect();
            panic!("no span {name}; there are {all:?}")
        })
    };
    let (registry, request) = span("POST /api/v1/tasks");
    assert_eq!((hex(&request.parent_span_id).as_str(), request.kind()), (caller, SpanKind::Server));
    assert_eq!(text(&request.attributes, "http.response.status_code").as_deref(), Some("200"));
    let (of, placement) = span("placement");
    assert_eq!((&of, &placement.parent_span_id), (&registry, &request.span_id));
    let (node, execution) = span("execution");
    assert_eq!(execution.parent_span_id, placement.span_id);
    assert_ne!(node, registry, "it is of the other process");
    assert_eq!(text(&execution.attributes, "spear.status").as_deref(), Some("completed"));
    for phase in ["fetch", "compile", "run"] {
        let (of, span) = span(phase);
        assert_eq!((&of, &span.parent_span_id), (&node, &execution.span_id), "{phase}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{phase}");
        assert!(span.start_time_unix_nano >= execution.start_time_unix_nano, "{phase}");
        assert!(span.end_time_unix_nano <= execution.end_time_unix_nano, "{phase}");
    }
    let finished = [("status", "completed"), ("reason", "none")];
    assert_eq!(collector.told("spear_executions_finished_total", &finished, 1.0), BTreeSet::from([registry]));
    assert_eq!(collector.told("spear_agent_executions_finished_total", &finished, 1.0), BTreeSet::from([node]));
    assert_eq!(*collector.keys.lock().unwrap(), BTreeSet::from(["from us".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_delays_neither_work_nor_the_end() {
    // Connections are taken by the kernel, and that is all.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(dir.path(), sending(dir.path(), "all", silent.local_addr().unwrap()));
    let client = Client::new(&daemon.sms());
    let uri = client.upload("echo.wasm", sample("echo")).await;
    let (_, execution) = client.task("echo", &uri, json!({})).await;
    assert_eq!(client.ended(&execution).await["status"], json!("completed"));
    daemon.signal(rustix::process::Signal::TERM);
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    assert!(!log.contains("abandoned"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_no_connection_is_made_and_the_standard_variables_name_one() {
    let dir = tempfile::tempdir().unwrap();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=very-secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
        ("OTEL_SERVICE_NAME", "by-variable"),
    ];
    let output = spear(dir.path()).envs(variables).args(["config", "print", "--sources"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["http://127.0.0.1:4317", "2500ms", "15s", "by-variable", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("very-secret"), "{text}");
    for (value, told) in [("nonsense", "otel.endpoint"), ("https://127.0.0.1:4317", "otel.certificate")] {
        let mut command = spear(dir.path());
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", value).args(serve("all"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(told)), (Some(2), true), "{said}");
    }
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    assert!(!client.text("/metrics").await.contains("spear_otel_"), "figures of a collector that nobody named");
}
