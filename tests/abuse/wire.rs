//! Calls as bytes: any header, any body, and how the call ended.

use std::fmt;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::process::PATIENCE;

/// Bytes of a body that a failed test shows.
const SHOWN_BYTES: usize = 400;

/// A call.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The body, in the pieces in which it is sent.
    pub(crate) body: Vec<Bytes>,
    /// The answer may go on for ever, so its first message is enough.
    pub(crate) endless: bool,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With a gRPC status, and the bytes before it.
    Status(Status, Bytes),
    /// With an HTTP status that says why there is no gRPC one.
    Http(u16),
    /// Its stream was reset.
    Reset(Reason),
    /// The connection was closed.
    Closed,
    /// A message of an endless answer came.
    Answering,
}

/// A connection, made again when the server has closed it.
pub(crate) struct Wire {
    address: SocketAddr,
    send: Option<SendRequest<Bytes>>,
}

impl Call {
    /// The call of a well-behaved client.
    pub(crate) fn new(path: &str, body: Vec<u8>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        headers.insert("te", "trailers".parse().unwrap());
        Self {
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body: vec![body.into()],
            endless: false,
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, headers, body, .. } = self;
        let bytes = body.concat();
        let shown = Bytes::copy_from_slice(&bytes[..bytes.len().min(SHOWN_BYTES)]);
        let pieces: Vec<usize> = body.iter().map(Bytes::len).collect();
        write!(f, "{method} {path} {headers:?} with pieces of {pieces:?} bytes: {shown:?}")
    }
}

/// A message behind its flag and length.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    with_header(0, message.len(), message)
}

/// The same with any flag and length.
pub(crate) fn with_header(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    let length = (length as u32).to_be_bytes();
    [&[flag], &length[..], message].concat()
}

/// The messages in a body that is whole.
pub(crate) fn unframed(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while body.remaining() >= 5 {
        assert_eq!(body.get_u8(), 0, "not compressed");
        let length = body.get_u32() as usize;
        messages.push(body.split_to(length));
    }
    messages
}

/// The reason in the details of a status, if it has one.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

impl Wire {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, send: None }
    }

    /// Makes a call, which has to end.
    pub(crate) async fn call(&mut self, call: &Call) -> End {
        let ending = timeout(PATIENCE, self.end_of(call)).await;
        let end = ending.unwrap_or_else(|_| panic!("no end of {call:?}"));
        end.unwrap_or_else(|error| {
            if let Some(reason) = error.reason()
                && error.is_reset()
            {
                return End::Reset(reason);
            }
            self.send = None;
            End::Closed
        })
    }

    async fn end_of(&mut self, call: &Call) -> Result<End, h2::Error> {
        let mut send = match self.send.take() {
            Some(send) => send,
            None => {
                let stream = TcpStream::connect(self.address).await.expect("the server accepts");
                let (send, connection) = h2::client::handshake(stream).await?;
                tokio::spawn(connection);
                send
            }
        };
        send = send.ready().await?;
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("http://{}{}", self.address, call.path))
            .body(())
            .unwrap();
        *request.headers_mut() = call.headers.clone();
        let (response, mut body) = send.send_request(request, call.body.is_empty())?;
        self.send = Some(send);
        for (index, piece) in call.body.iter().enumerate() {
            // An early answer ends the stream; what it says is read below.
            if body.send_data(piece.clone(), index + 1 == call.body.len()).is_err() {
                break;
            }
        }
        let (head, body) = response.await?.into_parts();
        if head.status != 200 {
            return Ok(End::Http(head.status.as_u16()));
        }
        read(head.headers, body, call.endless).await
    }
}

async fn read(
    mut headers: HeaderMap,
    mut body: RecvStream,
    endless: bool,
) -> Result<End, h2::Error> {
    let mut received = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
        if endless && received.len() > 5 {
            return Ok(End::Answering);
        }
    }
    headers.extend(body.trailers().await?.unwrap_or_default());
    let status = Status::from_header_map(&headers)
        .unwrap_or_else(|| Status::new(Code::Unknown, "the call ended without a status"));
    Ok(End::Status(status, received.freeze()))
}
