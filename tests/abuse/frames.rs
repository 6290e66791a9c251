//! HTTP/2 by hand, frame by frame (RFC 9113), right and wrong.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with the most that a stream may be sent before its reader says more.
pub(crate) fn window(size: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4], &size.to_be_bytes()[..]].concat())
}

/// A header field as HPACK (RFC 7541), without an index and without Huffman's code.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut coded = Vec::new();
    if text.len() < 127 {
        coded.push(text.len() as u8);
    } else {
        coded.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            coded.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        coded.push(rest as u8);
    }
    coded.extend(text.as_bytes());
    coded
}

/// The header fields of a call.
pub(crate) fn fields(path: &str) -> Vec<u8> {
    [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "localhost"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ]
    .concat()
}

/// A connection to a server, in bytes.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    /// A connection on which nothing has been said.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// A connection that has begun as it should, with `settings`.
    pub(crate) async fn greeted(address: SocketAddr, settings: &[u8]) -> Self {
        let mut peer = Self::silent(address).await;
        peer.send(&[PREFACE, settings].concat()).await;
        peer
    }

    /// Sends bytes, as far as the server takes them.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write(bytes).await.is_ok()
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(PATIENCE, self.0.write_all(bytes)).await;
        written.expect("the server takes the bytes, or cuts the connection")
    }

    /// Reads to the end of the connection, which has to come. Returns what was read.
    pub(crate) async fn ended(mut self) -> Vec<u8> {
        let mut received = Vec::new();
        let end = timeout(PATIENCE, self.0.read_to_end(&mut received)).await;
        drop(end.expect("the server ends the connection"));
        received
    }

    /// Sends bytes as far as the server takes them, and reads meanwhile, to the end of the
    /// connection, which has to come.
    pub(crate) async fn exchanged(self, bytes: Vec<u8>) {
        let (reader, mut writer) = self.0.into_split();
        let reading = tokio::spawn(async move {
            let mut reader = reader;
            reader.read_to_end(&mut Vec::new()).await
        });
        let written = timeout(PATIENCE, writer.write_all(&bytes)).await;
        drop(written.expect("the server takes the bytes, or cuts the connection"));
        let end = timeout(PATIENCE, reading).await;
        drop(end.expect("the server ends the connection"));
    }

    /// Waits for the end of the connection without reading a byte of it.
    pub(crate) async fn ended_unread(mut self) {
        // What is sent after the end is answered with a reset, which the second send meets.
        while self.send(&frame(PING, 0, 0, &[7; 8])).await {
            tokio::task::yield_now().await;
        }
    }

    /// Reads frames until one is `wanted`.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let reading = async {
            loop {
                let frame = self.frame().await.expect("the connection goes on");
                if wanted(&frame) {
                    return frame;
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the frame comes")
    }

    async fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}
