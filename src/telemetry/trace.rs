//! Which trace a piece of work belongs to, as the one line of text that W3C calls `traceparent`.
//!
//! It comes with requests, is kept with what they cause, and goes out with calls to others. Without the feature
//! `otel`, or without a collector, there is none and nothing here does anything.

use tracing::Span;

/// Header, in HTTP and gRPC.
pub const HEADER: &str = "traceparent";

/// Longest one that is read; the only version there is has 55 characters.
pub const MOST_LENGTH: usize = 64;

/// Attribute that marks a span as the answer to somebody's call; its value is the route or the rpc.
pub const SERVED: &str = "spear.served";

/// The `traceparent` of a span, for what it causes elsewhere.
#[cfg(feature = "otel")]
pub fn of(span: &Span) -> Option<String> {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let context = span.context();
    let context = context.span().span_context().clone();
    let flags = context.trace_flags().to_u8() & 1;
    context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
}

/// The same for the span that is current.
pub fn current() -> Option<String> {
    of(&Span::current())
}

/// Makes a new span, not entered yet, the child of what a `traceparent` names; one that is malformed is ignored, as
/// W3C wants it.
#[cfg(feature = "otel")]
pub fn adopt(span: &Span, traceparent: Option<&str>) {
    use opentelemetry::propagation::TextMapPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let Some(traceparent) = traceparent.filter(|text| text.len() <= MOST_LENGTH) else { return };
    let propagator = opentelemetry_sdk::propagation::TraceContextPropagator::new();
    let context = propagator.extract_with_context(&opentelemetry::Context::new(), &Carrier(traceparent));
    // Fails only where nobody collects spans.
    if span.set_parent(context).is_err() {
        tracing::trace!("nobody collects this span");
    }
}

/// Sets an attribute that only the trace shows, not the log.
#[cfg(feature = "otel")]
pub fn mark(span: &Span, name: &'static str, value: &str) {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let context = span.context();
    if context.span().is_recording() {
        context.span().set_attribute(opentelemetry::KeyValue::new(name, value.to_owned()));
    }
}

/// Gives a span the name that the trace shows.
#[cfg(feature = "otel")]
pub fn name(span: &Span, name: &str) {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let context = span.context();
    if context.span().is_recording() {
        context.span().update_name(name.to_owned());
    }
}

/// Says that what a span did went wrong.
#[cfg(feature = "otel")]
pub fn failed(span: &Span, why: &str) {
    use opentelemetry::trace::Status;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    span.set_status(Status::error(why.to_owned()));
}

#[cfg(feature = "otel")]
struct Carrier<'a>(&'a str);

#[cfg(feature = "otel")]
impl opentelemetry::propagation::Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == HEADER).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![HEADER]
    }
}

/// The `traceparent` of a span: none in this build.
#[cfg(not(feature = "otel"))]
pub fn of(_span: &Span) -> Option<String> {
    None
}

/// Does nothing in this build.
#[cfg(not(feature = "otel"))]
pub fn adopt(_span: &Span, _traceparent: Option<&str>) {}

/// Does nothing in this build.
#[cfg(not(feature = "otel"))]
pub fn name(_span: &Span, _name: &str) {}

/// Does nothing in this build.
#[cfg(not(feature = "otel"))]
pub fn mark(_span: &Span, _name: &'static str, _value: &str) {}

/// Does nothing in this build.
#[cfg(not(feature = "otel"))]
pub fn failed(_span: &Span, _why: &str) {}
