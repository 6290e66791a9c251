//! What calls and documents report to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, Request};
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::trace::SdkTracer;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::Observability;
use super::metrics::{Metrics, Scope};
use super::series::OTHER;
use super::tracing::{self as spans, CallSpan, Tracing};
use crate::engine::Lane;
use crate::pipeline::{Classification, Document};
use crate::server::auth::asks_health;
use crate::server::call_log::{CallLog, Ids};
use crate::server::status::CallError;

/// Documents of one call that get spans of their own; a stream has no end of them.
const MAX_DOCUMENT_SPANS: u64 = 32;

/// Characters of a document's title and text that are logged where it was asked for.
const MAX_LOGGED_CHARS: usize = 2_000;

/// The server's observer.
#[derive(Debug)]
pub(crate) struct Observer {
    metrics: Arc<Metrics>,
    tracer: Option<SdkTracer>,
    log_documents: bool,
}

/// A call under way. Its end is counted, traced and logged once; a call that is dropped before
/// it has one was cancelled.
pub(crate) struct CallRecord {
    observer: Arc<Observer>,
    method: &'static str,
    started: Instant,
    span: Option<CallSpan>,
    log: CallLog,
    ended: bool,
}

/// What the documents of a call report to. Travels in the request's extensions.
#[derive(Clone)]
pub(crate) struct CallObserver {
    observer: Arc<Observer>,
    ids: Ids,
    /// The call's span, if it is sampled, and documents that have been traced under it.
    span: Option<(SpanContext, Arc<AtomicU64>)>,
}

impl Observer {
    pub(crate) fn new(observability: &Observability) -> Self {
        Self {
            metrics: Arc::clone(&observability.metrics),
            tracer: observability.tracing.as_ref().map(Tracing::tracer),
            log_documents: observability.log_documents,
        }
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Takes note of a call that starts now, and puts its [`CallObserver`] into `request`. Whoever
    /// is not `admitted` has no say in what is traced.
    pub(crate) fn call<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        admitted: bool,
    ) -> CallRecord {
        let path = request.uri().path();
        let method = Metrics::method(path);
        let remote = spans::remote_context(request.headers()).filter(|_| admitted);
        // Probes ask every few seconds and would drown the rest; they may need no token, too.
        let tracer = self.tracer.as_ref().filter(|_| !asks_health(path));
        let span = tracer.map(|tracer| CallSpan::start(tracer, method, remote.as_ref()));
        let context = span.as_ref().map(CallSpan::context);
        let trace = context.as_ref().or(remote.as_ref()).map(SpanContext::trace_id);
        let ids = Ids::new(request.headers(), trace.map(|id| id.to_string()));
        let log = CallLog::start(path, ids.clone());
        let sampled = context.filter(SpanContext::is_sampled);
        request.extensions_mut().insert(CallObserver {
            observer: Arc::clone(self),
            ids,
            span: sampled.map(|span| (span, Arc::default())),
        });
        self.metrics.call_started(method);
        let observer = Arc::clone(self);
        CallRecord { observer, method, started: Instant::now(), span, log, ended: false }
    }
}

impl CallRecord {
    /// The call ended with the status in `headers`, if there is one in them.
    pub(crate) fn end_with_headers(&mut self, headers: &HeaderMap) {
        if self.ended {
            return;
        }
        let Some(status) = Status::from_header_map(headers) else { return };
        let info = status.get_details_error_info();
        let reason = info.as_ref().map_or(OTHER, |info| info.reason.as_str());
        self.end(status.code(), Some(reason).filter(|_| status.code() != Code::Ok));
    }

    /// The call ended with `error`.
    pub(crate) fn end_with_error(&mut self, error: &CallError) {
        self.end(error.code(), Some(error.reason()));
    }

    /// The call ended with `code`, without saying why.
    pub(crate) fn end_with_code(&mut self, code: Code) {
        self.end(code, (code != Code::Ok).then_some(OTHER));
    }

    /// What comes after the first end is ignored.
    fn end(&mut self, code: Code, reason: Option<&str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let time = self.started.elapsed();
        self.observer.metrics.call_ended(self.method, code, time);
        if let Some(reason) = reason {
            self.observer.metrics.failed(Scope::Call, reason);
        }
        if let Some(span) = &mut self.span {
            span.end(code, reason);
        }
        self.log.end(code, time);
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        // That its client left, as every health watch ends, is no error.
        self.end(Code::Cancelled, None);
    }
}

impl CallObserver {
    /// That of the call which `request` came with.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        request.extensions().get::<Self>().cloned()
    }

    /// A document of the call was answered just now.
    pub(crate) fn answered(&self, document: &Document, lane: Lane, answer: &Classification) {
        let Observer { metrics, tracer, log_documents } = &*self.observer;
        metrics.answered(lane, answer);
        if let (Some(tracer), Some((call, traced))) = (tracer, &self.span)
            && traced.fetch_add(1, Ordering::Relaxed) < MAX_DOCUMENT_SPANS
        {
            spans::document(tracer, call, lane, answer);
        }
        if *log_documents {
            let labels = answer.tasks.iter().map(|task| format!("{}={}", task.task, task.label));
            tracing::debug!(
                request_id = self.ids.request,
                trace_id = self.ids.trace,
                id = document.id,
                title = clip(&document.title),
                text = clip(&document.text),
                labels = labels.collect::<Vec<_>>().join(" "),
                "document answered"
            );
        }
    }

    /// A document of a batch or stream failed, the call itself not.
    pub(crate) fn document_failed(&self, error: &CallError) {
        self.observer.metrics.failed(Scope::Document, error.reason());
    }
}

fn clip(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_LOGGED_CHARS).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}
