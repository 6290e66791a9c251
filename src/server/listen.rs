//! Where a server listens: a TCP address or a Unix socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::serve::ServeError;

/// Where a server listens; written `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// An IP address and a port; port 0 takes one that is free.
    Tcp(SocketAddr),
    /// The path of a socket file. Whoever may write to it may call the server.
    Unix(PathBuf),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)))
    }
}

impl Listen {
    /// Whether only processes of this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected unix:PATH".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected HOST:PORT with a numeric host, or unix:PATH".to_owned()),
        }
    }
}

/// An address that is listened on. Dropping it stops listening and removes a socket's file.
#[derive(Debug)]
pub struct Listener {
    address: Listen,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: tokio::net::UnixListener,
        /// Device and number of its file, by which that is told from a successor's.
        file: Option<(u64, u64)>,
    },
}

/// Bytes to and from a peer, over whatever carries them.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection as the operating system hands it over.
pub(crate) struct Accepted {
    /// The bytes.
    pub(crate) stream: Box<dyn ByteStream>,
    /// The peer's address; `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
}

/// Listens on `address`, for [`serve`](super::serve).
///
/// The file of a Unix socket on which nobody listens any more, left by a server that was killed,
/// is replaced.
///
/// # Errors
/// [`ServeError::Bind`].
pub async fn bind(address: &Listen) -> Result<Listener, ServeError> {
    let bound = match address {
        Listen::Tcp(tcp) => bind_tcp(*tcp).await,
        Listen::Unix(path) => bind_unix(path).await,
    };
    bound.map_err(|source| ServeError::Bind { address: address.clone(), source })
}

async fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let listener = TcpListener::bind(address).await?;
    let address = Listen::Tcp(listener.local_addr()?);
    Ok(Listener { address, socket: Socket::Tcp(listener) })
}

#[cfg(unix)]
async fn bind_unix(path: &std::path::Path) -> io::Result<Listener> {
    use std::os::unix::fs::FileTypeExt;

    use tokio::net::{UnixListener, UnixStream};

    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // To connect to a plain file is refused as well.
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let refused = UnixStream::connect(path)
                .await
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if !(is_socket && refused) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let socket = Socket::Unix { listener, file: file_at(path) };
    Ok(Listener { address: Listen::Unix(path.to_owned()), socket })
}

/// Device and number of the file at `path`.
#[cfg(unix)]
fn file_at(path: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
async fn bind_unix(_: &std::path::Path) -> io::Result<Listener> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}

impl Listener {
    /// The address; with the port that was free if 0 was asked for.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted { stream: Box::new(stream), ip: Some(peer.ip().to_canonical()) })
            }
            #[cfg(unix)]
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted { stream: Box::new(stream), ip: None })
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let (Listen::Unix(path), Socket::Unix { file, .. }) = (&self.address, &self.socket) {
            // Somebody may have removed it, and another server may listen there by now.
            if file.is_some() && file_at(path) == *file {
                drop(std::fs::remove_file(path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for text in ["127.0.0.1:50051", "[::1]:1", "unix:/run/tasnif.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "50051", "localhost:50051", "/run/tasnif.sock"] {
            assert!(text.parse::<Listen>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_other_machines_reach_is_not_local() {
        let local = |text: &str| text.parse::<Listen>().unwrap().is_local();
        assert!(local("127.0.0.1:1") && local("[::1]:1") && local("unix:a"));
        assert!(!local("0.0.0.0:1") && !local("10.0.0.1:1") && !local("[::]:1"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_is_no_socket_or_is_a_successors_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasnif.toml");
        std::fs::write(&path, "[server]").unwrap();
        assert!(bind(&Listen::Unix(path.clone())).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"[server]");
        std::fs::remove_file(&path).unwrap();

        let old = bind(&Listen::Unix(path.clone())).await.unwrap();
        std::fs::rename(&path, directory.path().join("moved")).unwrap();
        let new = bind(&Listen::Unix(path.clone())).await.unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = Listen::Unix(path.clone());
        // A listener of the standard library leaves its file behind, as a killed server does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = bind(&address).await.unwrap();
        let error = bind(&address).await.unwrap_err();
        assert!(error.to_string().contains("unix:"), "{error}");
        drop(live);
        assert!(!path.exists());
    }
}
