//! The five RPCs of `tasnif.v1.Classifier`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::batch;
use super::config::ServerConfig;
use super::convert;
use super::lifecycle::Lifecycle;
use super::proto::classifier_server::Classifier;
use super::proto::{
    ClassifyBatchRequest, ClassifyBatchResponse, ClassifyRequest, ClassifyResponse,
    ClassifyStreamRequest, ListModelsRequest, ListModelsResponse, TokenizeRequest,
    TokenizeResponse,
};
use super::received::Kind;
use super::status::CallError;
use super::stream::{self, Responses, StreamContext};
use super::work::{CallContext, Work, find_model};
use crate::engine::Lane;
use crate::pipeline::{Document, Models};

/// The service: the models, and the limits on what one call may ask of them.
pub(crate) struct Service {
    models: Arc<Models>,
    lifecycle: Arc<Lifecycle>,
    max_batch_documents: usize,
    max_stream_in_flight: usize,
    max_message_bytes: usize,
}

impl Service {
    /// Serves `models` while `lifecycle` says so.
    pub(crate) fn new(
        models: Arc<Models>,
        lifecycle: Arc<Lifecycle>,
        config: &ServerConfig,
    ) -> Self {
        Self {
            models,
            lifecycle,
            max_batch_documents: config.max_batch_documents,
            max_stream_in_flight: config.max_stream_in_flight,
            max_message_bytes: config.max_message_bytes,
        }
    }

    async fn batch(
        &self,
        request: Request<ClassifyBatchRequest>,
    ) -> Result<ClassifyBatchResponse, CallError> {
        let call = CallContext::of(&request);
        let ClassifyBatchRequest { documents, options } = request.into_inner();
        batch::check_size(documents.len(), self.max_batch_documents)?;
        call.expect_answers(documents.len())?;
        let lane = batch::default_lane(documents.len());
        let work = Work::resolve(&self.models, convert::options(options)?, lane, call)?;
        let documents: Result<Vec<Document>, _> =
            documents.into_iter().map(|document| convert::document(Some(document))).collect();
        batch::classify(work, documents?, self.max_stream_in_flight).await
    }
}

#[tonic::async_trait]
impl Classifier for Service {
    async fn classify(
        &self,
        request: Request<ClassifyRequest>,
    ) -> Result<Response<ClassifyResponse>, Status> {
        let _open = self.lifecycle.accept()?;
        let call = CallContext::of(&request);
        let ClassifyRequest { document, options } = request.into_inner();
        let asked = convert::options(options)?;
        let work = Work::resolve(&self.models, asked, Lane::Interactive, call)?;
        let answer = work.classify(&convert::document(document)?).await?;
        let timing = Some(convert::timing(&answer.timing));
        let classification = Some(convert::classification(answer));
        Ok(Response::new(ClassifyResponse { classification, timing }))
    }

    async fn classify_batch(
        &self,
        request: Request<ClassifyBatchRequest>,
    ) -> Result<Response<ClassifyBatchResponse>, Status> {
        let _open = self.lifecycle.accept()?;
        Ok(Response::new(self.batch(request).await?))
    }

    type ClassifyStreamStream = Responses;

    async fn classify_stream(
        &self,
        request: Request<Streaming<ClassifyStreamRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let open = self.lifecycle.accept()?;
        let context = StreamContext {
            models: Arc::clone(&self.models),
            in_flight: self.max_stream_in_flight,
            max_message_bytes: self.max_message_bytes,
            connection: request.extensions().get().cloned(),
            budget: request.extensions().get().cloned(),
            call: CallContext::of(&request),
            open,
        };
        // The response starts before the first request is there: there are clients that send
        // nothing before they see it.
        let mut response = Response::new(stream::respond(request.into_inner(), context));
        response.extensions_mut().insert(Kind::Outcomes);
        Ok(response)
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let _open = self.lifecycle.accept()?;
        Ok(Response::new(ListModelsResponse {
            models: self.models.iter().map(|model| convert::model(model.info())).collect(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        let _open = self.lifecycle.accept()?;
        let CallContext { client, .. } = CallContext::of(&request);
        let TokenizeRequest { document, model } = request.into_inner();
        let classifier = find_model(&self.models, &model, "model")?;
        let document = convert::document(document)?;
        let tokens = classifier.tokenize(document, client).await.map_err(CallError::from)?;
        Ok(Response::new(convert::tokenization(tokens)))
    }
}
