//! The work of one call: its options, resolved against the loaded models, and its documents as
//! they run.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::call::contained;
use super::convert::CallOptions;
use super::deadline::Deadline;
use super::status::CallError;
use crate::engine::{Admission, ClientId, Lane};
use crate::pipeline::{Classification, Classifier, Document, Models, Options, Submission};

/// What all documents of a call have in common.
#[derive(Clone)]
pub(crate) struct Work {
    classifier: Arc<Classifier>,
    options: Options,
    submission: Submission,
}

/// A document under way in a task of its own. Dropping this cancels it.
pub(crate) struct RunningItem {
    id: String,
    task: JoinHandle<Result<Classification, CallError>>,
}

/// The model called `name`; empty: the default. `field` is where the caller has named it.
///
/// # Errors
/// There is no such model.
pub(crate) fn find_model<'a>(
    models: &'a Models,
    name: &str,
    field: &'static str,
) -> Result<&'a Arc<Classifier>, CallError> {
    models.get(name).ok_or_else(|| CallError::UnknownModel {
        field,
        model: name.to_owned(),
        known: models.iter().map(|model| model.info().name.clone()).collect(),
    })
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
        deadline: Option<Instant>,
    ) -> Result<Self, CallError> {
        let classifier = find_model(models, &asked.model, "options.model")?;
        classifier.check(&asked.options)?;
        let lane = asked.lane.unwrap_or(lane);
        let admission = match lane {
            Lane::Interactive => Admission::Reject,
            Lane::Bulk => Admission::Wait,
        };
        let options = Options { lane, ..asked.options };
        let submission = Submission { client: ClientId::default(), admission, deadline };
        Ok(Self { classifier: Arc::clone(classifier), options, submission })
    }

    /// The same work, of which every document waits for room in the queue.
    pub(crate) fn waiting(self) -> Self {
        let submission = Submission { admission: Admission::Wait, ..self.submission };
        Self { submission, ..self }
    }

    /// Classifies one document.
    ///
    /// # Errors
    /// Those of the pipeline.
    pub(crate) async fn classify(&self, document: &Document) -> Result<Classification, CallError> {
        Ok(self.classifier.classify(document, &self.options, &self.submission).await?)
    }

    /// Starts on a document, in a task of its own: what waits for a slow reader must not hold a
    /// place in the engine's queue, and what panics must not take its neighbours along.
    pub(crate) fn start(self: &Arc<Self>, document: Result<Document, CallError>) -> RunningItem {
        let id = document.as_ref().map(|document| document.id.clone()).unwrap_or_default();
        let work = Arc::clone(self);
        let classify = async move {
            let document = document?;
            let classify = contained(work.classify(&document));
            Deadline::from(work.submission.deadline).limit(classify).await??
        };
        RunningItem { id, task: tokio::spawn(classify) }
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
