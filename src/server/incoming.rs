//! Connections: accepting them, and cutting them when the server's time is up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::lifecycle::{Lifecycle, Phase};
use super::telemetry::{ConnectionRefusal, Metrics, OpenConnection};

/// Pause after a failed accept. Out of file descriptors, say, the next accept fails at once too,
/// and trying it in a loop would take a core away from the work that frees them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The stream of accepted connections. Never ends.
pub(crate) struct Incoming {
    listener: TcpListener,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// A TCP connection that fails once the server is [`Phase::Closed`]. hyper's graceful shutdown
/// waits for its peer without bound (hyper #4170), so that the end has to come from below.
pub(crate) struct Connection {
    stream: TcpStream,
    closed: Signal,
    _open: OpenConnection,
}

impl Incoming {
    /// Accepts from `listener`.
    pub(crate) fn new(
        listener: TcpListener,
        lifecycle: Arc<Lifecycle>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { listener, lifecycle, metrics, pause: None }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let accepted = ready!(self.listener.poll_accept(cx));
            match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => {
                    let closed = Box::pin(self.lifecycle.reached(Phase::Closed));
                    let _open = self.metrics.connection_opened();
                    return Poll::Ready(Some(Ok(Connection { stream, closed, _open })));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    self.metrics.connection_refused(ConnectionRefusal::Accept);
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl Connection {
    /// The stream, unless the server is closed.
    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        match self.closed.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // A future that is done must not be polled again.
                self.closed = Box::pin(std::future::ready(()));
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is closed"))
            }
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.open(cx)?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open(cx)?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(cx)?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open(cx)?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_works_until_the_server_is_closed() {
        let lifecycle = Arc::new(Lifecycle::new());
        let metrics = Arc::new(Metrics::new(&crate::pipeline::Models::none()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Incoming::new(listener, Arc::clone(&lifecycle), metrics);
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut server = incoming.next().await.unwrap().unwrap();

        client.write_all(b"ping").await.unwrap();
        let mut received = [0; 4];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"ping");

        // The peer says nothing: only the phase can end this read.
        let read = tokio::spawn(async move {
            let error = server.read(&mut [0; 1]).await.unwrap_err();
            (error.kind(), server.write(b"x").await.unwrap_err().kind())
        });
        lifecycle.advance(Phase::Closed);
        let aborted = io::ErrorKind::ConnectionAborted;
        assert_eq!(read.await.unwrap(), (aborted, aborted));
        assert_eq!(client.read(&mut received).await.unwrap(), 0);
    }
}
