//! Traces: a span for each call and, under it, spans for its documents, sent over OTLP.
//!
//! The spans of a document are made after it, from the timing of its answer: nothing is done for
//! them while it runs, and nothing at all for a call that is not sampled. They go to a bounded
//! queue from which a thread of the SDK's sends them. If the collector cannot be reached, the queue
//! fills, new spans are dropped, and no call waits.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Uri};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span,
};
use tonic::Code;

use super::series::{OTHER, lane_name};
use crate::engine::Lane;
use crate::pipeline::Classification;
use crate::pipeline::{SettingError, check_times};

/// Spans that wait to be sent, at most.
const MAX_QUEUED_SPANS: usize = 4_096;

/// Bytes of `traceparent`, and of `tracestate`, which every span of the call carries, at most; the
/// specification asks for this much of the latter. What is longer is ignored.
const MAX_CONTEXT_BYTES: usize = 512;

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TracingConfig {
    /// The collector, such as `http://127.0.0.1:4317`, which speaks OTLP over gRPC; `None`: spans
    /// are not made.
    pub otlp_endpoint: Option<String>,
    /// The share of calls that are traced, in `[0, 1]`, of those whose caller does not say: a
    /// caller's own decision, in `traceparent`, is followed.
    pub sample_ratio: f64,
    /// `service.name` of every span.
    pub service_name: String,
    /// How long sending a batch of spans may take.
    #[serde(with = "humantime_serde")]
    pub export_timeout: Duration,
    /// How long the spans that are left may take at the end, after the drain.
    #[serde(with = "humantime_serde")]
    pub flush_timeout: Duration,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sample_ratio: 1.0,
            service_name: "tasnif".to_owned(),
            export_timeout: Duration::from_secs(5),
            flush_timeout: Duration::from_secs(2),
        }
    }
}

impl TracingConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first that cannot work, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), SettingError> {
        let fault = |field, value: &dyn ToString, expected| {
            Err(SettingError { field, value: value.to_string(), expected })
        };
        if let Some(endpoint) = &self.otlp_endpoint {
            // A collector is a neighbour; for a far one there is the collector's own TLS.
            let plain = endpoint.parse::<Uri>().is_ok_and(|uri| {
                uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())
            });
            if !plain {
                let expected = "an http:// address, such as http://127.0.0.1:4317";
                return fault("tracing.otlp_endpoint", endpoint, expected);
            }
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return fault("tracing.sample_ratio", &self.sample_ratio, "from 0 to 1");
        }
        if self.service_name.is_empty() {
            return fault("tracing.service_name", &self.service_name, "at least one character");
        }
        check_times([
            ("tracing.export_timeout", self.export_timeout),
            ("tracing.flush_timeout", self.flush_timeout),
        ])
    }
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TracingError {
    /// A setting cannot work.
    #[error("setting {0}")]
    Config(#[from] SettingError),
    /// The exporter cannot be made.
    #[error("the OTLP exporter cannot be made: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// The way of spans to a collector.
#[derive(Debug)]
pub struct Tracing {
    provider: SdkTracerProvider,
    flush_timeout: Duration,
}

impl Tracing {
    /// Starts sending to the collector that `config` names, if it names one; that nobody listens
    /// there is no error. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// A setting cannot work.
    pub fn start(config: &TracingConfig) -> Result<Option<Self>, TracingError> {
        config.validate()?;
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(config.export_timeout)
            .build()?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(MAX_QUEUED_SPANS).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", config.service_name.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ]);
        let sampler = Sampler::TraceIdRatioBased(config.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_resource(resource.build())
            .build();
        Ok(Some(Self { provider, flush_timeout: config.flush_timeout }))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("tasnif")
    }

    /// Sends what is left and ends. Takes no longer than the flush may.
    pub(crate) async fn finish(self) {
        let Self { provider, flush_timeout } = self;
        // It waits for its own thread, which would block the runtime's.
        let flush = move || provider.shutdown_with_timeout(flush_timeout);
        match tokio::task::spawn_blocking(flush).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "spans were lost at the end"),
            Err(error) => tracing::warn!(%error, "spans were lost at the end"),
        }
    }
}

/// The trace context that a caller sent, if it is well formed.
pub(super) fn remote_context(headers: &HeaderMap) -> Option<SpanContext> {
    // The propagator takes ids that are too short, too.
    if !headers.get("traceparent").is_some_and(|value| has_form(value.as_bytes())) {
        return None;
    }
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    let remote = context.span().span_context().clone();
    remote.is_valid().then_some(remote)
}

/// Whether `traceparent` begins with fields of the lengths that W3C Trace Context gives them; a
/// later version may have more of them.
fn has_form(traceparent: &[u8]) -> bool {
    let mut fields = traceparent.split(|byte| *byte == b'-');
    [2, 32, 16, 2].into_iter().all(|length| {
        fields
            .next()
            .is_some_and(|field| field.len() == length && field.iter().all(u8::is_ascii_hexdigit))
    })
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key).filter(|value| value.len() <= MAX_CONTEXT_BYTES)?;
        value.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of a call under way.
pub(super) struct CallSpan {
    span: Span,
}

impl CallSpan {
    /// A call of `method`, as the metrics label it, whose caller sent `remote`.
    pub(super) fn start(
        tracer: &SdkTracer,
        method: &'static str,
        remote: Option<&SpanContext>,
    ) -> Self {
        let parent = remote.map_or_else(Context::new, |remote| {
            Context::new().with_remote_span_context(remote.clone())
        });
        let mut attributes = vec![KeyValue::new("rpc.system", "grpc")];
        // What a client calls can be anything, so only methods that are there are named.
        if method != OTHER
            && let Some((service, method)) = method.split_once('/')
        {
            attributes.push(KeyValue::new("rpc.service", service));
            attributes.push(KeyValue::new("rpc.method", method));
        }
        let builder =
            SpanBuilder::from_name(method).with_kind(SpanKind::Server).with_attributes(attributes);
        Self { span: tracer.build_with_context(builder, &parent) }
    }

    pub(super) fn context(&self) -> SpanContext {
        self.span.span_context().clone()
    }

    /// The call ended with `code`, for `reason` if it failed.
    pub(super) fn end(&mut self, code: Code, reason: Option<&str>) {
        self.span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code as i32)));
        if let Some(reason) = reason {
            self.span.set_attribute(KeyValue::new("error.type", reason.to_owned()));
        }
        if is_server_fault(code) {
            self.span.set_status(Status::error(""));
        }
        self.span.end();
    }
}

/// The codes that the conventions of OpenTelemetry call errors of a server's span.
fn is_server_fault(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
    [Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss].contains(&code)
}

/// Makes the spans of a document that was answered just now, under `call`.
pub(super) fn document(
    tracer: &SdkTracer,
    call: &SpanContext,
    lane: Lane,
    answer: &Classification,
) {
    let timing = &answer.timing;
    let start = SystemTime::now().checked_sub(timing.total).unwrap_or(SystemTime::UNIX_EPOCH);
    let span = |name: &'static str, parent: &SpanContext, start: SystemTime, attributes| {
        let builder =
            SpanBuilder::from_name(name).with_start_time(start).with_attributes(attributes);
        let parent = Context::new().with_remote_span_context(parent.clone());
        tracer.build_with_context(builder, &parent)
    };
    let usage = &answer.usage;
    let mut document = span(
        "document",
        call,
        start,
        vec![
            KeyValue::new("tasnif.model", answer.model.clone()),
            KeyValue::new("tasnif.lane", lane_name(lane)),
            KeyValue::new("tasnif.tokens", count(usage.tokens)),
            KeyValue::new("tasnif.windows", count(usage.windows)),
            KeyValue::new("tasnif.truncated", usage.truncated),
        ],
    );
    let parent = document.span_context().clone();
    let tokens = || vec![KeyValue::new("tasnif.tokens", count(usage.tokens))];
    let batch = vec![KeyValue::new("tasnif.batch_tokens", count(timing.batch_tokens))];
    let mut at = start;
    for (name, time, attributes) in [
        ("tokenize", timing.tokenize, tokens()),
        ("queue", timing.queue, tokens()),
        ("inference", timing.inference, batch),
    ] {
        let mut stage = span(name, &parent, at, attributes);
        at = at.checked_add(time).unwrap_or(at);
        stage.end_with_timestamp(at);
    }
    document.end_with_timestamp(start.checked_add(timing.total).unwrap_or(start));
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(traceparent: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", http::HeaderValue::from_bytes(traceparent).unwrap());
        headers
    }

    #[test]
    fn a_context_that_is_not_well_formed_is_none() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let remote = remote_context(&headers(good)).unwrap();
        assert_eq!(remote.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            &b""[..],
            b"00",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
            b"\xff\xfe",
        ] {
            assert!(remote_context(&headers(bad)).is_none(), "{bad:?}");
        }
        assert!(remote_context(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_state_that_is_too_long_is_left_out() {
        let mut headers = headers(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let state = |headers: &HeaderMap| remote_context(headers).unwrap().trace_state().header();
        headers.insert("tracestate", "vendor=value".parse().unwrap());
        assert_eq!(state(&headers), "vendor=value");
        let long = format!("vendor={}", "x".repeat(600));
        headers.insert("tracestate", long.parse().unwrap());
        assert_eq!(state(&headers), "");
    }

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        let good = TracingConfig::default;
        assert_eq!(good().validate(), Ok(()));
        let endpoint =
            |text: &str| TracingConfig { otlp_endpoint: Some(text.to_owned()), ..good() };
        assert_eq!(endpoint("http://collector:4317").validate(), Ok(()));
        for (field, bad) in [
            ("tracing.otlp_endpoint", endpoint("collector:4317")),
            ("tracing.otlp_endpoint", endpoint("https://collector:4317")),
            ("tracing.otlp_endpoint", endpoint("")),
            ("tracing.sample_ratio", TracingConfig { sample_ratio: f64::NAN, ..good() }),
            ("tracing.sample_ratio", TracingConfig { sample_ratio: 1.1, ..good() }),
            ("tracing.service_name", TracingConfig { service_name: String::new(), ..good() }),
            ("tracing.export_timeout", TracingConfig { export_timeout: Duration::ZERO, ..good() }),
            ("tracing.flush_timeout", TracingConfig { flush_timeout: Duration::ZERO, ..good() }),
            ("tracing.flush_timeout", TracingConfig { flush_timeout: Duration::MAX, ..good() }),
        ] {
            assert_eq!(bad.validate().unwrap_err().field, field);
        }
    }
}
