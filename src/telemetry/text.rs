//! Figures as text: OpenMetrics 1.0, or the older format of Prometheus for those who ask for it.

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text::encode,
    },
    metrics::MetricType,
    registry::{Registry, Unit},
};
use std::fmt;

use crate::{
    figure::{Figure, Kind, Series, Value},
    metrics::Metrics,
};

/// A form of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus 0.0.4.
    Prometheus,
}

/// All figures as text.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

impl Format {
    /// What a header `Accept` asks for; OpenMetrics unless it prefers plain text.
    pub fn accepted(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::OpenMetrics);
        for (media, quality) in accept.into_iter().flat_map(media) {
            let format = match media {
                "application/openmetrics-text" => Self::OpenMetrics,
                // A browser shows plain text and would save anything else as a file.
                "text/plain" | "text/*" | "text/html" => Self::Prometheus,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Media types with their weights, from 0 to 1.
fn media(accept: &str) -> impl Iterator<Item = (&str, f64)> {
    accept.split(',').map(|part| {
        let mut words = part.split(';').map(str::trim);
        let media = words.next().unwrap_or_default();
        let quality = words.find_map(|word| word.strip_prefix("q=")?.trim().parse().ok());
        (media, quality.unwrap_or(1.0))
    })
}

impl Metrics {
    /// All figures as text.
    ///
    /// # Errors
    /// None that is known: writing to a string does not fail.
    pub fn expose(&self, format: Format) -> Result<Exposition, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Moment(self.figures())));
        let mut body = String::new();
        encode(&mut body, &registry)?;
        if format == Format::Prometheus {
            body = plain(&body);
        }
        Ok(Exposition { content_type: format.content_type(), body })
    }
}

/// What was read for one answer.
#[derive(Debug)]
struct Moment(Vec<Figure>);

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|figure| one(&mut encoder, figure))
    }
}

fn one(encoder: &mut DescriptorEncoder<'_>, figure: &Figure) -> Result<(), fmt::Error> {
    let unit = figure.unit().map(|unit| if unit == "seconds" { Unit::Seconds } else { Unit::Bytes });
    // The encoder appends the unit and, to the samples of a counter, `_total`.
    let mut name = figure.stem();
    if let Some(unit) = figure.unit() {
        name = name.strip_suffix(unit).unwrap_or(name).trim_end_matches('_');
    }
    let kind = match figure.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut encoder = encoder.encode_descriptor(name, figure.help, unit.as_ref(), kind)?;
    for series in &figure.series {
        // Without labels there are no braces either.
        if series.labels.is_empty() {
            sample(&mut encoder, series, figure.kind)?;
        } else {
            sample(&mut encoder.encode_family(&Labels(series))?, series, figure.kind)?;
        }
    }
    Ok(())
}

fn sample(encoder: &mut MetricEncoder<'_>, series: &Series, kind: Kind) -> Result<(), fmt::Error> {
    match (&series.value, kind) {
        (Value::Number(value), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
        (Value::Number(value), _) => encoder.encode_gauge(value),
        (Value::Buckets { bounds, counts, sum }, _) => {
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(counts.iter().copied()).collect();
            encoder.encode_histogram::<NoLabelSet>(*sum, counts.iter().sum(), &buckets, None)
        }
    }
}

/// The labels of a series.
#[derive(Debug)]
struct Labels<'a>(&'a Series);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.labels.iter().try_for_each(|(name, value)| (*name, value.as_str()).encode(encoder.encode_label()))
    }
}

/// OpenMetrics in the older form: families of counters carry `_total`, there are no units and no end.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let of_counter = counter(line) || lines.peek().is_some_and(|next| counter(next));
        match described.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if of_counter => {
                let word = line.get(..7).unwrap_or_default();
                out.push_str(&format!("{word}{name}_total {rest}"));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}
