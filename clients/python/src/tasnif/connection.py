"""Where a server is, and how to reach it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

import grpc

DEFAULT_TARGET = "127.0.0.1:50051"

Token = Union[str, Callable[[], str], None]
"""A bearer token, or what gives one for each call, since tokens may be replaced while a client lives."""

_HTTPS_PORT = 443
_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Replies may be larger than gRPC's default of 4 MiB: Tokenize of 400,000 tokens, say.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Retries are this package's: it knows RetryInfo and keeps to a deadline over all of them.
    ("grpc.enable_retries", 0),
    # A server that comes back is found within seconds; gRPC's default goes up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # A peer that is silently gone ends the call.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Where a name has several addresses, calls go to each in turn.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
)


@dataclass(frozen=True)
class Tls:
    """Files in PEM for TLS.

    Attributes:
        ca: Authorities to trust instead of gRPC's own list.
        certificate: A certificate to show, for mutual TLS; with `key`.
        key: Its private key.
        server_name: The name to expect in the server's certificate, if it is not the host's.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("mutual TLS needs both a certificate and its key")

        def read(path: str | Path | None) -> bytes | None:
            return None if path is None else Path(path).read_bytes()

        return grpc.ssl_channel_credentials(read(self.ca), read(self.key), read(self.certificate))


def open_channel(target: str, tls: Tls | None, library: Any) -> Any:
    """A channel of `library`, which is `grpc` or `grpc.aio`; it connects with the first call.

    Args:
        target: ``http://HOST:PORT``, ``https://HOST:PORT``, ``unix:PATH`` or ``HOST:PORT``.
        tls: With it, ``HOST:PORT`` means https.
        library: Whose channel.
    """
    address, is_secure = _address(target, tls is not None)
    options = list(_OPTIONS)
    if address.startswith("unix:"):
        # gRPC would send the path, percent-encoded, as the host, which the server's HTTP/2 takes for malformed.
        options.append(("grpc.default_authority", "localhost"))
    if not is_secure:
        return library.insecure_channel(address, options=options)
    tls = tls or Tls()
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return library.secure_channel(address, tls.credentials(), options=options)


def metadata(token: Token) -> list[tuple[str, str]] | None:
    """The headers of a call."""
    value = token() if callable(token) else token
    return [("authorization", f"Bearer {value}")] if value else None


def _address(target: str, has_tls: bool) -> tuple[str, bool]:
    """GRPC's name for the target, and whether to use TLS."""
    scheme, separator, rest = target.partition("://")
    if target.startswith("unix:"):
        if has_tls:
            raise ValueError(f"{target!r}: there is no TLS over a Unix socket")
        return target, False
    if not separator:
        return target, has_tls
    host = rest.rstrip("/")
    if scheme == "http" and has_tls:
        raise ValueError(f"{target!r} is without TLS, but files for TLS are given; write https://")
    if scheme == "http":
        return host, False
    if scheme == "https":
        has_port = ":" in host.rpartition("]")[2]
        return host if has_port else f"{host}:{_HTTPS_PORT}", True
    # gRPC's own schemes, such as dns:///HOST:PORT.
    return target, has_tls
