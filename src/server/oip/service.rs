//! The six RPCs of `inference.GRPCInferenceService`.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use super::outputs::{self, Output};
use super::proto::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use super::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use super::{inputs, metadata, parameters};
use crate::pipeline::{Classifier, ClassifyError, Models, Options};
use crate::server::batch::{self, InOrder};
use crate::server::config::ServerConfig;
use crate::server::convert::CallOptions;
use crate::server::lifecycle::Lifecycle;
use crate::server::status::CallError;
use crate::server::work::{CallContext, Work, find_model};

/// Triton's extensions that this server follows.
const EXTENSIONS: [&str; 2] = ["classification", "schedule_policy"];

/// What clients of Triton call the version of a model that has only one.
const ONLY_VERSION: &str = "1";

/// Bytes of a request's id, at most: it is given back, so it takes room in the answer.
const MAX_ID_BYTES: usize = 1_024;

/// The service: the models, and the limits on what one call may ask of them.
pub(crate) struct OpenInference {
    models: Arc<Models>,
    lifecycle: Arc<Lifecycle>,
    max_batch_documents: usize,
    in_flight: usize,
}

/// Serves `models` while `lifecycle` says so.
pub(crate) fn server(
    models: Arc<Models>,
    lifecycle: Arc<Lifecycle>,
    config: &ServerConfig,
) -> GrpcInferenceServiceServer<OpenInference> {
    let service = OpenInference {
        models,
        lifecycle,
        max_batch_documents: config.max_batch_documents,
        in_flight: config.max_stream_in_flight,
    };
    GrpcInferenceServiceServer::new(service)
        .max_decoding_message_size(config.max_message_bytes)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
}

/// The model of this name and version. `fields` is where the caller has put them.
fn find(
    models: &Models,
    name: &str,
    version: &str,
    fields: [&'static str; 2],
) -> Result<Arc<Classifier>, CallError> {
    let [name_field, version_field] = fields;
    let model = find_model(models, name, name_field)?;
    let info = model.info();
    if !["", ONLY_VERSION, &info.revision].contains(&version) {
        return Err(CallError::UnknownVersion {
            field: version_field,
            version: version.to_owned(),
            model: info.name.clone(),
            known: info.revision.clone(),
        });
    }
    Ok(model)
}

impl OpenInference {
    fn is_ready(&self) -> bool {
        self.lifecycle.accept().is_ok()
    }

    async fn infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<ModelInferResponse, CallError> {
        let call = CallContext::of(&request);
        let request = request.into_inner();
        let version = request.model_version.unwrap_or_default();
        let fields = ["model_name", "model_version"];
        let model = find(&self.models, &request.model_name, &version, fields)?;
        if request.id.len() > MAX_ID_BYTES {
            let (field, unit, limit, actual) = ("id", "bytes", MAX_ID_BYTES, request.id.len());
            return Err(ClassifyError::FieldTooLong { field, unit, limit, actual }.into());
        }
        let info = model.info().clone();
        let outputs = Output::requested(&info.tasks, &request.outputs)?;
        let timeout = parameters::timeout(&request.parameters)?;
        // A timeout past what the clock can count is none.
        let timeout = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let asked = CallOptions {
            model: request.model_name,
            lane: parameters::lane(&request.parameters)?,
            options: Options::default(),
        };
        let raw = request.raw_input_contents;
        let documents = inputs::documents(request.inputs, &raw, self.max_batch_documents)?;
        call.expect_answers(documents.len())?;
        let is_raw = !raw.is_empty();
        drop(raw);

        let lane = batch::default_lane(documents.len());
        let deadline = call.deadline.into_iter().chain(timeout).min();
        let work = Work::on(model, asked, lane, CallContext { deadline, ..call })?;
        let mut answers = Vec::with_capacity(documents.len());
        let mut running = InOrder::new(work, documents, self.in_flight);
        while let Some((_, outcome)) = running.next().await {
            // The protocol has no place for the error of one document, so it is that of the call.
            answers.push(outcome.map_err(|error| error.of_document(answers.len()))?);
        }
        let mut response = ModelInferResponse {
            model_name: info.name,
            model_version: info.revision,
            id: request.id,
            ..ModelInferResponse::default()
        };
        outputs::fill(&mut response, &outputs, &answers, is_raw);
        Ok(response)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for OpenInference {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let version = version.unwrap_or_default();
        let found = find(&self.models, &name, &version, ["name", "version"]);
        // Whoever asks may have no token, and is not told what there is.
        found.map_err(|error| error.without_known(name))?;
        Ok(Response::new(ModelReadyResponse { ready: self.is_ready() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let _open = self.lifecycle.accept()?;
        Ok(Response::new(ServerMetadataResponse {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let _open = self.lifecycle.accept()?;
        let ModelMetadataRequest { name, version } = request.into_inner();
        let version = version.unwrap_or_default();
        let model = find(&self.models, &name, &version, ["name", "version"])?;
        Ok(Response::new(metadata::model(model.info())))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let _open = self.lifecycle.accept()?;
        Ok(Response::new(self.infer(request).await?))
    }
}
