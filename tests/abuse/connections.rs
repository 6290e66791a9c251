//! Connections that break HTTP/2, or bend it: each is served or cut, and a good client beside them
//! notices nothing.

use std::net::SocketAddr;

use prost::Message;
use tasnif::server::proto::ClassifyResponse;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, field, fields, frame, window,
};
use crate::messages::{CLASSIFY, CLASSIFY_STREAM, LIST_MODELS};
use crate::process::{Server, bundle};
use crate::random::Random;
use crate::steady::{Steady, request};
use crate::wire::framed;

/// What a server with little patience is told. Its connections get the short end, so nothing here
/// takes long.
const SHORT: [&str; 10] = [
    "--set",
    "server.handshake_timeout=1s",
    "--set",
    "server.message_timeout=1s",
    "--set",
    "server.response_timeout=1s",
    "--set",
    "server.idle_timeout=1s",
    "--set",
    "server.stream_idle_timeout=1s",
];
/// Frames of a flood.
const FLOOD: usize = 20_000;

/// A server, and a good client beside it.
struct Beside {
    server: Server,
    steady: Steady,
}

impl Beside {
    async fn start(args: &[&str]) -> (tempfile::TempDir, Self) {
        let bundle = bundle();
        let server = Server::start(bundle.path(), args);
        let steady = Steady::start(&server).await;
        (bundle, Self { server, steady })
    }

    /// Asserts that nothing is left of `attack`, and that a good client did not notice it.
    async fn unharmed_by(mut self, attack: impl AsyncFnOnce(SocketAddr)) {
        self.steady.ask().await;
        let before = self.server.usage();
        let good = self.steady.work();
        attack(self.server.address).await;
        good.stop().await;
        // Its connection may be idle longer than it may be while the process is looked at.
        let (server, steady) = (&self.server, &mut self.steady);
        let working = steady.work();
        server.until_back_at(before).await;
        working.stop().await;
        steady.ask().await;
        self.server.assert_unharmed();
        drop(self.steady);
        assert_eq!(self.server.terminate().await.code(), Some(0));
    }
}

fn call(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &fields(path))
}

fn message() -> Vec<u8> {
    framed(&request(1).encode_to_vec())
}

#[tokio::test]
async fn half_open_calls_and_connections_are_cut() {
    let (_bundle, beside) = Beside::start(&SHORT).await;
    let attack = async |address| {
        let message = message();
        let mut peers = Vec::new();
        for _ in 0..4 {
            // Nothing at all; half of the first words; no more than them.
            peers.push(Peer::silent(address).await);
            let mut hesitant = Peer::silent(address).await;
            hesitant.send(&PREFACE[..10]).await;
            peers.push(hesitant);
            peers.push(Peer::greeted(address, &window(65_535)).await);
            // Half a frame, half the headers, and headers without a message.
            let head = call(1, CLASSIFY, 0);
            for begun in [
                &head[..5],
                &head[..40],
                &frame(HEADERS, 0, 1, &fields(CLASSIFY)),
                &head,
                &call(1, CLASSIFY_STREAM, 0),
                // A message that stops, within its length and within itself.
                &[head.clone(), frame(DATA, 0, 1, &message[..3])].concat(),
                &[head.clone(), frame(DATA, 0, 1, &message[..message.len() - 1])].concat(),
                // A frame of data that stops.
                &[head.clone(), frame(DATA, 0, 1, &message)[..30].to_vec()].concat(),
            ] {
                let mut peer = Peer::greeted(address, &window(65_535)).await;
                peer.send(begun).await;
                peers.push(peer);
            }
        }
        for peer in peers {
            peer.ended().await;
        }
    };
    beside.unharmed_by(attack).await;
}

#[tokio::test]
async fn readers_that_do_not_read_are_cut() {
    let (_bundle, beside) = Beside::start(&SHORT).await;
    let attack = async |address| {
        let message = message();
        // No room for an answer, and room for one byte of it.
        for room in [0, 1] {
            let mut peer = Peer::greeted(address, &window(room)).await;
            for stream in (1..100).step_by(2) {
                peer.send(&call(stream, CLASSIFY, 0)).await;
                peer.send(&frame(DATA, END_STREAM, stream, &message)).await;
            }
            peer.ended().await;
        }
        // Room for all of it, in a socket that is never read.
        let mut deaf = Peer::greeted(address, &window(65_535)).await;
        for stream in (1..400).step_by(2) {
            deaf.send(&call(stream, CLASSIFY, 0)).await;
            deaf.send(&frame(DATA, END_STREAM, stream, &message)).await;
        }
        deaf.ended_unread().await;
    };
    beside.unharmed_by(attack).await;
}

#[tokio::test]
async fn a_slow_writer_and_reader_is_answered() {
    let (_bundle, beside) = Beside::start(&[]).await;
    let attack = async |address| {
        let mut peer = Peer::silent(address).await;
        let all = [
            PREFACE.to_vec(),
            window(1),
            call(1, CLASSIFY, 0),
            frame(DATA, END_STREAM, 1, &message()),
        ]
        .concat();
        for byte in all {
            assert!(peer.send(&[byte]).await);
            tokio::task::yield_now().await;
        }
        // A byte at a time, as the window asks for.
        let mut answer = Vec::new();
        loop {
            let frame_read = peer.until(|frame| frame.stream == 1).await;
            if frame_read.kind == DATA {
                assert!(frame_read.payload.len() <= 1, "{frame_read:?}");
                answer.extend(frame_read.payload);
                peer.send(&frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await;
            } else if frame_read.flags & END_STREAM != 0 {
                break;
            }
        }
        let answer = ClassifyResponse::decode(&answer[5..]).unwrap();
        assert_eq!(answer.classification.unwrap().id, "1");
    };
    beside.unharmed_by(attack).await;
}

#[tokio::test]
async fn floods_are_survived() {
    let (_bundle, beside) = Beside::start(&SHORT).await;
    let attack = async |address| {
        let name = "x".repeat(100);
        let many: Vec<u8> = (0..150).flat_map(|i| field(&format!("x-{i}"), &name)).collect();
        let much = [fields(LIST_MODELS), many].concat();
        let floods: [Vec<u8>; 10] = [
            // Many headers in one frame; more in more of them; no end to them; empty ones.
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &much[..16_000]),
            [
                frame(HEADERS, 0, 1, &fields(LIST_MODELS)),
                frame(CONTINUATION, 0, 1, &much[..16_000]).repeat(200),
            ]
            .concat(),
            [
                frame(HEADERS, 0, 1, &fields(LIST_MODELS)),
                frame(CONTINUATION, 0, 1, &[]).repeat(FLOOD),
            ]
            .concat(),
            // One header of a megabyte.
            [
                frame(HEADERS, 0, 1, &field("x", &"x".repeat(1 << 20))[..16_000]),
                frame(CONTINUATION, 0, 1, &[b'x'; 16_000]).repeat(64),
            ]
            .concat(),
            // Calls that are reset as soon as they are made.
            (0..FLOOD as u32)
                .flat_map(|i| {
                    let reset = frame(RST_STREAM, 0, 2 * i + 1, &8_u32.to_be_bytes());
                    [call(2 * i + 1, CLASSIFY, 0), reset].concat()
                })
                .collect(),
            // The same, reset by what is wrong with them.
            (0..FLOOD as u32)
                .flat_map(|i| {
                    let overflow = frame(WINDOW_UPDATE, 0, 2 * i + 1, &0_u32.to_be_bytes());
                    [call(2 * i + 1, CLASSIFY, 0), overflow].concat()
                })
                .collect(),
            window(65_535).repeat(FLOOD),
            frame(PING, 0, 0, &[0; 8]).repeat(FLOOD),
            // Data without any.
            [call(1, CLASSIFY, 0), frame(DATA, 0, 1, &[]).repeat(FLOOD)].concat(),
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]).repeat(FLOOD),
        ];
        for flood in &floods {
            Peer::greeted(address, &window(65_535)).await.exchanged(flood.clone()).await;
            // The same without reading what the server says to it.
            let mut deaf = Peer::greeted(address, &window(65_535)).await;
            deaf.send(flood).await;
            deaf.ended_unread().await;
        }
    };
    beside.unharmed_by(attack).await;
}

#[tokio::test]
async fn what_is_not_http2_is_cut() {
    let (_bundle, beside) = Beside::start(&SHORT).await;
    let attack = async |address| {
        let mut random = Random::of("not HTTP/2");
        let mut noises: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            b"POST /tasnif.v1.Classifier/Classify HTTP/1.0\r\n\r\n".to_vec(),
            // The beginning of TLS.
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &random.bytes(500)].concat(),
            vec![0; 100_000],
            // Frames that may not be: too long, of a client that pushes, on the wrong stream.
            [PREFACE, &[0xff; 9]].concat(),
            [PREFACE, &window(0x8000_0000)].concat(),
            [PREFACE, &window(1), &frame(PUSH_PROMISE, END_HEADERS, 1, &fields("/"))].concat(),
            [PREFACE, &window(1), &call(2, CLASSIFY, 0)].concat(),
            [PREFACE, &window(1), &call(0, CLASSIFY, 0)].concat(),
            [PREFACE, &window(1), &frame(DATA, 0, 99, b"x")].concat(),
            [PREFACE, &window(1), &frame(SETTINGS, 0, 0, b"12345")].concat(),
            [PREFACE, &window(1), &frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])].concat(),
            [PREFACE, &window(1), &call(3, CLASSIFY, 0), &call(1, CLASSIFY, 0)].concat(),
            // More data than there is room for.
            [
                PREFACE,
                &window(1),
                &call(1, CLASSIFY, 0),
                &frame(DATA, 0, 1, &[0; 16_384]).repeat(80),
            ]
            .concat(),
        ];
        for _ in 0..60 {
            let length = 1 + random.below(400);
            let noise = random.bytes(length);
            let begun = [PREFACE, &window(100)].concat();
            noises.push(match random.below(4) {
                0 => noise,
                1 => [begun, noise].concat(),
                // Headers that are not HPACK.
                2 => [begun, frame(HEADERS, END_HEADERS | END_STREAM, 1, &noise)].concat(),
                _ => {
                    let (kind, flags) = (random.byte() % 11, random.byte());
                    let noise = frame(kind, flags, random.below(4) as u32, &noise);
                    [begun, noise.repeat(3)].concat()
                }
            });
        }
        for noise in noises {
            let mut peer = Peer::silent(address).await;
            peer.send(&noise).await;
            peer.ended().await;
        }
    };
    beside.unharmed_by(attack).await;
}

#[tokio::test]
async fn connections_that_come_and_go_leave_nothing() {
    let (_bundle, beside) = Beside::start(&[]).await;
    let attack = async |address| {
        let message = message();
        for index in 0..600_usize {
            let mut peer = Peer::silent(address).await;
            let begun = [
                PREFACE.to_vec(),
                window(65_535),
                call(1, CLASSIFY, 0),
                frame(DATA, END_STREAM, 1, &message),
            ]
            .concat();
            peer.send(&begun[..index * begun.len() / 600]).await;
            if index.is_multiple_of(3) {
                // So that the end is a reset and not a farewell.
                peer.0.set_zero_linger().unwrap();
            }
        }
    };
    beside.unharmed_by(attack).await;
}
