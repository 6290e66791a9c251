//! SIGTERM while hostile clients hang on: the server answers what it accepted, and ends in time.

use prost::Message;
use tasnif::server::proto::ClassifyStreamRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, Peer, fields, frame, window};
use crate::messages::{CLASSIFY, CLASSIFY_STREAM, HEALTH_WATCH};
use crate::process::{Server, bundle};
use crate::steady::{document, request};
use crate::wire::framed;

#[tokio::test]
async fn a_drain_ends_whoever_hangs_on() {
    let bundle = bundle();
    // Every other bound is far away: only that of the drain ends these clients.
    let server = Server::start(bundle.path(), &["--drain-timeout", "3s"]);
    let address = server.address;
    let head = |path| frame(HEADERS, END_HEADERS, 1, &fields(path));
    let message = framed(&request(1).encode_to_vec());
    let mut stuck = Vec::new();
    for begun in [
        // Nothing, half a greeting, a greeting.
        Vec::new(),
        PREFACE[..10].to_vec(),
        [PREFACE, &window(65_535)].concat(),
        // Calls whose messages do not come, or not to their end; a stream without any.
        [PREFACE, &window(65_535), &head(CLASSIFY)].concat(),
        [PREFACE, &window(65_535), &head(CLASSIFY), &frame(DATA, 0, 1, &message[..20])].concat(),
        [PREFACE, &window(65_535), &head(CLASSIFY_STREAM)].concat(),
        [PREFACE, &window(65_535), &head(HEALTH_WATCH), &frame(DATA, END_STREAM, 1, &framed(&[]))]
            .concat(),
        // A reader without room, and one that never reads.
        [PREFACE, &window(0), &head(CLASSIFY), &frame(DATA, END_STREAM, 1, &message)].concat(),
        [PREFACE, &window(65_535), &head(CLASSIFY), &frame(DATA, END_STREAM, 1, &message)].concat(),
    ] {
        let mut peer = Peer::silent(address).await;
        assert!(peer.send(&begun).await);
        stuck.push(peer);
    }
    // A good client with a stream under way, whose documents are answered.
    let mut client = server.client().await;
    let (sender, documents) = mpsc::channel(1);
    let answers = client.classify_stream(ReceiverStream::new(documents)).await;
    let mut answers = answers.unwrap().into_inner();
    for index in 0..10 {
        let document = Some(document(index));
        sender.send(ClassifyStreamRequest { document, options: None }).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap().result.unwrap();
        assert_eq!(answer.id, index.to_string());
    }
    let ending = tokio::spawn(server.terminate());
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(ending.await.unwrap().code(), Some(0), "every accepted document was answered");
    for peer in stuck {
        peer.ended().await;
    }
}
