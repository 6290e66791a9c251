//! The work of one call: its options, resolved against the loaded models, and its documents as
//! they run.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Request;

use super::call::contained;
use super::convert::CallOptions;
use super::deadline::Deadline;
use super::received::{Hold, Received};
use super::request::Caller;
use super::status::CallError;
use super::telemetry::CallObserver;
use crate::engine::{Admission, ClientId, Lane};
use crate::pipeline::{Classification, Classifier, Document, Models, Options, Submission};

/// What a call brings along beside its message.
#[derive(Clone)]
pub(crate) struct CallContext {
    /// On whose behalf it is.
    pub(crate) client: ClientId,
    /// When its caller stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// What its documents report to.
    pub(crate) observer: Option<CallObserver>,
    /// What it has received.
    pub(crate) received: Option<Arc<Mutex<Received>>>,
}

/// What all documents of a call have in common.
#[derive(Clone)]
pub(crate) struct Work {
    classifier: Arc<Classifier>,
    options: Arc<Options>,
    submission: Submission,
    observer: Option<CallObserver>,
}

/// Work that goes on for as long as its caller likes. It holds no model: each document runs on the
/// one that is served when it starts, so that one that was replaced is soon free.
pub(crate) struct LastingWork {
    models: Arc<Models>,
    model: String,
    options: Arc<Options>,
    submission: Submission,
    observer: Option<CallObserver>,
}

/// A document under way in a task of its own. Dropping this cancels it.
pub(crate) struct RunningItem {
    id: String,
    task: JoinHandle<Result<Classification, CallError>>,
    _held: Option<Hold>,
}

/// The model called `name`; empty: the default. `field` is where the caller has named it.
///
/// # Errors
/// There is no such model.
pub(crate) fn find_model(
    models: &Models,
    name: &str,
    field: &'static str,
) -> Result<Arc<Classifier>, CallError> {
    models.get(name).ok_or_else(|| CallError::UnknownModel {
        field,
        model: name.to_owned(),
        known: models.iter().map(|model| model.info().name.clone()).collect(),
    })
}

impl CallContext {
    /// That of the call which `request` came with.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let caller = request.extensions().get::<Caller>();
        Self {
            client: caller.map(|caller| ClientId::new(&caller.0)).unwrap_or_default(),
            deadline: Deadline::of(request),
            observer: CallObserver::of(request),
            received: request.extensions().get().cloned(),
        }
    }

    /// Sees to it that there is room for the answers to `documents`, of which none is sent before
    /// the last is there.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn expect_answers(&self, documents: usize) -> Result<(), CallError> {
        self.received.as_ref().map_or(Ok(()), |received| received.lock().expect_answers(documents))
    }
}

impl Work {
    /// Finds the model and the tasks that `asked` names. Documents queue in the lane that it asks
    /// for or else in `lane`; bulk ones wait for room in the queue, others are refused without.
    ///
    /// # Errors
    /// There is no such model, or it cannot follow the options.
    pub(crate) fn resolve(
        models: &Models,
        asked: CallOptions,
        lane: Lane,
        call: CallContext,
    ) -> Result<Self, CallError> {
        Self::on(find_model(models, &asked.model, "options.model")?, asked, lane, call)
    }

    /// As [`resolve`](Self::resolve), on a model that is found already.
    ///
    /// # Errors
    /// The model cannot follow the options.
    pub(crate) fn on(
        classifier: Arc<Classifier>,
        asked: CallOptions,
        lane: Lane,
        call: CallContext,
    ) -> Result<Self, CallError> {
        classifier.check(&asked.options)?;
        let lane = asked.lane.unwrap_or(lane);
        let admission = match lane {
            Lane::Interactive => Admission::Reject,
            Lane::Bulk => Admission::Wait,
        };
        let CallContext { client, deadline, observer, .. } = call;
        let options = Arc::new(Options { lane, ..asked.options });
        let submission = Submission { client, admission, deadline };
        Ok(Self { classifier, options, submission, observer })
    }

    /// What the documents report to.
    pub(crate) fn observer(&self) -> Option<CallObserver> {
        self.observer.clone()
    }

    /// Classifies one document.
    ///
    /// # Errors
    /// Those of the pipeline.
    pub(crate) async fn classify(&self, document: &Document) -> Result<Classification, CallError> {
        let answer = self.classifier.classify(document, &self.options, &self.submission).await?;
        if let Some(observer) = &self.observer {
            observer.answered(document, self.options.lane, &answer);
        }
        Ok(answer)
    }

    /// Starts on a document in a task of its own: what waits for a slow reader must not hold a place
    /// in the engine's queue, and what panics must not take its neighbours along. `held` counts
    /// until its answer is taken.
    pub(crate) fn start(
        self,
        document: Result<Document, CallError>,
        held: Option<Hold>,
    ) -> RunningItem {
        let id = document.as_ref().map(|document| document.id.clone()).unwrap_or_default();
        let run = async move {
            let classify = async {
                let document = document?;
                let classify = contained(self.classify(&document));
                Deadline::from(self.submission.deadline).limit(classify).await??
            };
            classify.await
        };
        RunningItem { id, task: tokio::spawn(run), _held: held }
    }
}

impl LastingWork {
    /// As [`Work::resolve`], except that every document waits for room in the queue.
    ///
    /// # Errors
    /// Those of [`Work::resolve`], by the model that is served now.
    pub(crate) fn resolve(
        models: &Arc<Models>,
        asked: CallOptions,
        lane: Lane,
        call: CallContext,
    ) -> Result<Self, CallError> {
        let model = asked.model.clone();
        let Work { options, submission, observer, .. } = Work::resolve(models, asked, lane, call)?;
        let submission = Submission { admission: Admission::Wait, ..submission };
        Ok(Self { models: Arc::clone(models), model, options, submission, observer })
    }

    /// As [`Work::start`], on the model that is served now.
    ///
    /// # Errors
    /// There is no such model any more.
    pub(crate) fn start(
        &self,
        document: Result<Document, CallError>,
        held: Option<Hold>,
    ) -> Result<RunningItem, CallError> {
        let work = Work {
            classifier: find_model(&self.models, &self.model, "options.model")?,
            options: Arc::clone(&self.options),
            submission: self.submission.clone(),
            observer: self.observer.clone(),
        };
        Ok(work.start(document, held))
    }
}

impl RunningItem {
    /// Waits for the document's id and answer.
    pub(crate) async fn finish(mut self) -> (String, Result<Classification, CallError>) {
        // A task fails if it panics, which is contained above, or if its runtime ends.
        let outcome = (&mut self.task).await.unwrap_or(Err(CallError::Panicked));
        (std::mem::take(&mut self.id), outcome)
    }
}

impl Drop for RunningItem {
    fn drop(&mut self) {
        self.task.abort();
    }
}
