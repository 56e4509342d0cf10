//! The figures in OTLP: the very ones that `/metrics` shows, under the same names, cumulative since the start.

use opentelemetry_proto::{
    tonic::{
        collector::metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
        metrics::v1::{
            AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
            ScopeMetrics, Sum, metric, number_data_point,
        },
        resource::v1::Resource as ResourceMessage,
    },
    transform::common::tonic::ResourceAttributesWithSchema,
};
use opentelemetry_sdk::Resource;
use std::{sync::Arc, time::Duration};
use supervise::{Stop, TaskResult};
use tonic::Request;
use types::Clock;

use super::link::Link;
use crate::{
    figure::{Figure, Kind, Series, Value},
    metrics::Metrics,
};

/// Tells the figures every now and then.
pub(super) struct Sender {
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    resource: ResourceMessage,
    interval: Duration,
    /// Since when counters count, nanoseconds since 1970.
    since: u64,
}

impl Sender {
    pub(super) fn new(metrics: &Metrics, clock: Arc<dyn Clock>, resource: &Resource, interval: Duration) -> Self {
        let attributes = ResourceAttributesWithSchema::from(resource).attributes.0;
        let resource = ResourceMessage { attributes, ..ResourceMessage::default() };
        let since = nanos(&*clock);
        Self { metrics: metrics.clone(), clock, resource, interval, since }
    }

    pub(super) async fn run(&self, link: &Link, stop: &Stop, last: Duration) -> TaskResult {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first comes at once, when there is nothing to tell yet.
        tick.tick().await;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            link.send("figures", stop, &self.request().await?, |request| export(link, request)).await;
        }
        link.send_last("figures", last, self.request().await?, |request| export(link, request)).await;
        Ok(())
    }

    async fn request(&self) -> Result<ExportMetricsServiceRequest, tokio::task::JoinError> {
        let metrics = self.metrics.clone();
        // Some figures are read from files.
        let figures = tokio::task::spawn_blocking(move || metrics.figures()).await?;
        let times = (self.since, nanos(&*self.clock));
        let told = figures.iter().filter(|figure| !figure.series.is_empty());
        let scope = InstrumentationScope { name: "spear".to_owned(), ..InstrumentationScope::default() };
        let scope_metrics = ScopeMetrics {
            scope: Some(scope),
            metrics: told.map(|figure| message(figure, times)).collect(),
            ..ScopeMetrics::default()
        };
        let of = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        Ok(ExportMetricsServiceRequest { resource_metrics: vec![of] })
    }
}

async fn export(link: &Link, request: Request<ExportMetricsServiceRequest>) -> Result<(), tonic::Status> {
    MetricsServiceClient::new(link.channel.clone()).export(request).await.map(drop)
}

fn nanos(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.wall().millis()).unwrap_or(0).saturating_mul(1_000_000)
}

fn message(figure: &Figure, times: (u64, u64)) -> Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = || figure.series.iter().filter_map(|series| number(series, times)).collect();
    let data = match figure.kind {
        Kind::Counter => {
            metric::Data::Sum(Sum { data_points: numbers(), aggregation_temporality: cumulative, is_monotonic: true })
        }
        Kind::Gauge => metric::Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: figure.series.iter().filter_map(|series| buckets(series, times)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    let unit = match figure.unit() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "1",
    };
    Metric {
        name: figure.name.to_owned(),
        description: figure.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn attributes(series: &Series) -> Vec<KeyValue> {
    let one = |(name, value): &(&'static str, String)| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.clone())) }),
        ..KeyValue::default()
    };
    series.labels.iter().map(one).collect()
}

fn number(series: &Series, (since, now): (u64, u64)) -> Option<NumberDataPoint> {
    let Value::Number(value) = series.value else { return None };
    Some(NumberDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: since,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    })
}

fn buckets(series: &Series, (since, now): (u64, u64)) -> Option<HistogramDataPoint> {
    let Value::Buckets { bounds, counts, sum } = &series.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: counts.iter().sum(),
        sum: Some(*sum),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    })
}
