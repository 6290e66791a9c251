//! What a bad request is answered: a precise status, with details that name field and figures.

use tasnif::server::ServerConfig;
use tasnif::server::proto::{
    self, ClassifyBatchRequest, ClassifyRequest, ClassifyResponse, ClassifyStreamRequest, LongText,
    Options, Token, TokenizeRequest,
};
use tonic::{Code, Request, Status};

use crate::harness::{TestServer, assert_status, document, figure, plain, request, text};
use tasnif::engine::EngineConfig;

async fn refusal(server: &TestServer, request: ClassifyRequest) -> Status {
    server.client().await.classify(request).await.unwrap_err()
}

#[tokio::test]
async fn a_document_without_anything_to_read_is_refused() {
    let server = TestServer::start().await;
    for empty in ["", " \n\t ", "\u{200f}\u{64e}\u{640}"] {
        let document = proto::Document { text: empty.to_owned(), ..document(0) };
        let status = refusal(&server, plain(document)).await;
        let fields = assert_status(&status, Code::InvalidArgument, "EMPTY_TEXT");
        assert_eq!(fields, ["document.text"]);
    }
    let status = refusal(&server, ClassifyRequest::default()).await;
    let fields = assert_status(&status, Code::InvalidArgument, "MISSING_DOCUMENT");
    assert_eq!(fields, ["document"]);
}

#[tokio::test]
async fn an_unknown_model_or_task_is_not_found() {
    let server = TestServer::start().await;
    let options = Options { model: "large".to_owned(), ..Options::default() };
    let status = refusal(&server, request(options)).await;
    let fields = assert_status(&status, Code::NotFound, "UNKNOWN_MODEL");
    assert_eq!(fields, ["options.model"]);
    assert!(status.message().contains("tiny, other"), "{}", status.message());

    let tasks = vec!["topic".to_owned(), "tone".to_owned()];
    let status = refusal(&server, request(Options { tasks, ..Options::default() })).await;
    let fields = assert_status(&status, Code::NotFound, "UNKNOWN_TASK");
    assert_eq!(fields, ["options.tasks"]);
    assert!(status.message().contains("topic, sentiment"), "{}", status.message());

    let tokenize = TokenizeRequest { document: Some(document(0)), model: "large".to_owned() };
    let status = server.client().await.tokenize(tokenize).await.unwrap_err();
    let fields = assert_status(&status, Code::NotFound, "UNKNOWN_MODEL");
    assert_eq!(fields, ["model"]);
}

#[tokio::test]
async fn an_error_that_quotes_the_client_still_fits_in_headers() {
    let server = TestServer::start().await;
    let tasks = vec!["م".repeat(500_000)];
    let status = refusal(&server, request(Options { tasks, ..Options::default() })).await;
    assert_status(&status, Code::NotFound, "UNKNOWN_TASK");
}

#[tokio::test]
async fn an_option_out_of_range_is_refused_by_name() {
    let server = TestServer::start().await;
    let bad = [
        ("options.priority", Options { priority: 9, ..Options::default() }),
        ("options.long_text", Options { long_text: -1, ..Options::default() }),
        ("options.min_score", Options { min_score: f32::NAN, ..Options::default() }),
        ("options.min_score", Options { min_score: 1.5, ..Options::default() }),
        ("options.min_score", Options { min_score: -0.5, ..Options::default() }),
        ("options.evidence", Options { evidence: 65, ..Options::default() }),
    ];
    for (field, options) in bad {
        let status = refusal(&server, request(options.clone())).await;
        let fields = assert_status(&status, Code::InvalidArgument, "INVALID_OPTION");
        assert_eq!(fields, [field]);
        assert!(status.message().starts_with(field), "{}", status.message());
        // They are for all documents of a batch, so they fail it.
        let batch = ClassifyBatchRequest { documents: vec![document(0)], options: Some(options) };
        let status = server.client().await.classify_batch(batch).await.unwrap_err();
        assert_eq!(assert_status(&status, Code::InvalidArgument, "INVALID_OPTION"), [field]);
    }
}

#[tokio::test]
async fn a_text_too_long_for_one_window_can_be_refused() {
    let server = TestServer::start().await;
    let options = Some(Options { long_text: LongText::Reject as i32, ..Options::default() });
    let long = proto::Document { text: text(12), ..document(0) };
    let too_long = ClassifyRequest { document: Some(long), options: options.clone() };
    let status = refusal(&server, too_long).await;
    let fields = assert_status(&status, Code::InvalidArgument, "TEXT_TOO_LONG");
    assert_eq!(fields, ["document.text"]);
    assert_eq!(figure(&status, "limit"), "64");
    let actual = figure(&status, "actual");
    assert!(actual.parse::<usize>().unwrap() > 64);
    assert!(status.message().contains(&actual), "{}", status.message());

    let short = ClassifyRequest { document: Some(document(0)), options };
    server.client().await.classify(short).await.unwrap();
}

#[tokio::test]
async fn a_field_over_its_limit_is_refused_by_name() {
    let server = TestServer::start().await;
    let long = |count| "م".repeat(count);
    let bad = [
        ("document.id", proto::Document { id: "x".repeat(1_025), ..document(0) }),
        ("document.title", proto::Document { title: long(2_001), ..document(0) }),
        ("document.text", proto::Document { text: long(400_001), ..document(0) }),
    ];
    for (field, document) in bad {
        let status = refusal(&server, plain(document)).await;
        let fields = assert_status(&status, Code::InvalidArgument, "FIELD_TOO_LONG");
        assert_eq!(fields, [field]);
        let (limit, actual) = (figure(&status, "limit"), figure(&status, "actual"));
        assert!(status.message().contains(&limit) && status.message().contains(&actual));
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_both_sizes() {
    let config = ServerConfig { max_message_bytes: 4_096, ..ServerConfig::default() };
    let server = TestServer::start_with(config, EngineConfig::default()).await;
    let client = &mut server.client().await;
    let long = proto::Document { text: "a".repeat(5_000), ..document(0) };
    let status = client.classify(plain(long)).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    assert_eq!(figure(&status, "limit"), "4096");
    assert!(figure(&status, "actual").parse::<usize>().unwrap() > 5_000);
    // The connection is as good as before.
    client.classify(plain(document(0))).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let server = TestServer::start().await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    // A number where a document must be.
    let codec = tonic_prost::ProstCodec::<Token, ClassifyResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/tasnif.v1.Classifier/Classify");
    let request = Request::new(Token { id: 5, ..Token::default() });
    let status = grpc.unary(request, path, codec).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "MALFORMED_MESSAGE");
}

#[tokio::test]
async fn a_batch_without_or_with_too_many_documents_is_refused() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    for count in [0, 257] {
        let documents = (0..count).map(document).collect();
        let request = ClassifyBatchRequest { documents, options: None };
        let status = client.classify_batch(request).await.unwrap_err();
        let fields = assert_status(&status, Code::InvalidArgument, "BATCH_SIZE");
        assert_eq!(fields, ["documents"]);
        assert_eq!(figure(&status, "limit"), "256");
        assert_eq!(figure(&status, "actual"), count.to_string());
    }
}

#[tokio::test]
async fn a_panic_of_the_model_fails_its_batch_and_not_the_server() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    server.gate.panic_next();
    let status = client.classify(plain(document(0))).await.unwrap_err();
    assert_status(&status, Code::Internal, "WORKER_PANICKED");
    client.classify(plain(document(0))).await.unwrap();
}

#[tokio::test]
async fn a_message_of_very_many_task_names_is_not_even_decoded() {
    let server = TestServer::start().await;
    let options = Options { tasks: vec![String::new(); 1_500_000], ..Options::default() };
    let mut client = server.client().await;
    let batch =
        ClassifyBatchRequest { documents: vec![document(0)], options: Some(options.clone()) };
    let stream =
        ClassifyStreamRequest { document: Some(document(0)), options: Some(options.clone()) };
    let responses = client.classify_stream(tokio_stream::once(stream)).await.unwrap();
    for status in [
        client.classify(request(options)).await.unwrap_err(),
        client.classify_batch(batch).await.unwrap_err(),
        responses.into_inner().message().await.unwrap_err(),
    ] {
        let fields = assert_status(&status, Code::InvalidArgument, "TOO_MANY_FIELDS");
        assert_eq!(fields, ["options.tasks"]);
        assert_eq!(
            (figure(&status, "limit"), figure(&status, "actual")),
            ("1024".into(), "1500000".into())
        );
    }
}
