//! Hostile requests to every RPC: each ends, none harms the server, and nobody else notices.

use std::collections::BTreeMap;

use bytes::Bytes;
use h2::Reason;
use prost::Message;
use tasnif::server::proto::item_result::Outcome;
use tasnif::server::proto::{ClassifyBatchResponse, ClassifyStreamResponse, ItemResult};
use tonic::Code;

use crate::messages::{CLASSIFY_BATCH, CLASSIFY_STREAM, HEALTH_WATCH, RPCS};
use crate::mutations;
use crate::process::{Server, bundle};
use crate::random::{Random, from_environment};
use crate::steady::Steady;
use crate::wire::{Call, End, Wire, framed, reason, unframed};

/// Hostile requests, unless the environment says otherwise.
const REQUESTS: u64 = 4_000;
/// Connections that make them.
const CONNECTIONS: u64 = 8;
/// Of them, those of the warm-up, after which the memory of the server is looked at.
const WARM_UP: u64 = 400;
/// The end of a call whose connection was closed. The HTTP/2 library does so (ENHANCE_YOUR_CALM,
/// too_many_data_frames) when some thousand small frames came after the answers to their calls.
const CLOSED: &str = "the connection was closed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_end_and_do_no_harm() {
    let requests = from_environment("TASNIF_ABUSE_REQUESTS").unwrap_or(REQUESTS);
    let bundle = bundle();
    let mut server = Server::start(bundle.path(), &[]);
    let mut steady = Steady::start(&server).await;
    attack(&server, "warm-up", WARM_UP).await;
    steady.ask().await;
    let before = server.usage();

    let good = steady.work();
    let ends = attack(&server, "attack", requests).await;
    good.stop().await;

    let ended: u64 = ends.values().sum();
    eprintln!("{ended} hostile requests ended: {ends:#?}");
    assert_eq!(ended, requests);
    let closed = ends.get(CLOSED).copied().unwrap_or_default();
    assert!(closed * 100 <= requests, "{closed} of {requests} calls lost their connection");
    server.assert_unharmed();
    steady.ask().await;
    server.until_back_at(before).await;
    drop(steady);
    assert_eq!(server.terminate().await.code(), Some(0), "every accepted document was answered");
}

/// Makes `requests` over a few connections; returns how many ended in which way.
async fn attack(server: &Server, name: &str, requests: u64) -> BTreeMap<String, u64> {
    let attackers: Vec<_> = (0..CONNECTIONS)
        .map(|index| {
            let mut random = Random::of(&format!("{name} {index}"));
            let mut wire = Wire::new(server.address);
            let share = requests / CONNECTIONS + u64::from(index < requests % CONNECTIONS);
            tokio::spawn(async move {
                let mut ends = BTreeMap::<String, u64>::new();
                for _ in 0..share {
                    let call = mutations::call(&mut random);
                    let end = wire.call(&call).await;
                    *ends.entry(harmless(&call, end)).or_default() += 1;
                }
                ends
            })
        })
        .collect();
    let mut all = BTreeMap::<String, u64>::new();
    for attacker in attackers {
        for (end, count) in attacker.await.unwrap() {
            *all.entry(end).or_default() += count;
        }
    }
    all
}

/// Names the end of a call, which may not be one that a fault of the server makes.
fn harmless(call: &Call, end: End) -> String {
    match end {
        End::Status(status, body) => {
            let code = status.code();
            let is_fault = matches!(code, Code::Internal | Code::Unknown | Code::DataLoss);
            assert!(!is_fault, "{status:?} to {call:?}");
            if code == Code::Ok {
                assert_no_fault(&call.path, body);
            }
            format!("{code:?} {}", reason(&status))
        }
        End::Http(status) => {
            assert!((400..500).contains(&status), "HTTP {status} to {call:?}");
            format!("HTTP {status}")
        }
        End::Reset(reason) => {
            assert_ne!(reason, Reason::INTERNAL_ERROR, "{call:?}");
            format!("reset: {reason}")
        }
        End::Closed => CLOSED.to_owned(),
        End::Answering => "answering".to_owned(),
    }
}

/// Asserts that no document in an answer failed by a fault of the server.
fn assert_no_fault(path: &str, body: Bytes) {
    let items: Vec<ItemResult> = match path {
        CLASSIFY_BATCH => {
            let batch = |message| ClassifyBatchResponse::decode(message).unwrap().results;
            unframed(body).into_iter().flat_map(batch).collect()
        }
        CLASSIFY_STREAM => {
            let item = |message| ClassifyStreamResponse::decode(message).unwrap().result;
            unframed(body).into_iter().filter_map(item).collect()
        }
        _ => return,
    };
    for item in items {
        if let Some(Outcome::Error(error)) = item.outcome {
            let code = Code::from(error.code);
            assert!(!matches!(code, Code::Internal | Code::Unknown), "{error:?}");
        }
    }
}

#[tokio::test]
async fn every_rpc_answers_its_valid_message() {
    let bundle = bundle();
    let mut server = Server::start(bundle.path(), &[]);
    let mut wire = Wire::new(server.address);
    let mut random = Random::of("valid");
    let mut unanswered = Vec::new();
    for rpc in RPCS {
        let mut is_answered = false;
        for _ in 0..50 {
            let message = (rpc.message)(&mut random);
            let mut call = Call::new(rpc.path, framed(&message));
            call.endless = rpc.path == HEALTH_WATCH;
            is_answered |= match wire.call(&call).await {
                End::Status(status, body) => status.code() == Code::Ok && !body.is_empty(),
                End::Answering => true,
                other => panic!("{other:?} to {call:?}"),
            };
        }
        if !is_answered {
            unanswered.push(rpc.path);
        }
    }
    let missing = ["/tasnif.v1.Classifier/Train", "/grpc.channelz.v1.Channelz/GetServers", "/"];
    assert_eq!(unanswered, missing, "only what does not exist has no answer");
    server.assert_unharmed();
}
