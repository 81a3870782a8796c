"""HTTP/1.1 to the gateway: over a unix socket, or over loopback under its secret path."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from ._errors import Unavailable


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Address:
    """Where the gateway is: ``unix:PATH``, or ``http://127.0.0.1:PORT/TOKEN``."""

    def __init__(self, url: str) -> None:
        self._unix: str | None = None
        self._host = self._prefix = ""
        self._port = 0
        if url.startswith("unix:"):
            self._unix = url.removeprefix("unix:")
            return
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1", "localhost") or parts.port is None:
            raise ValueError("a gateway is unix:PATH or http://127.0.0.1:PORT/TOKEN: it speaks plain HTTP on this machine only")
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """A new connection."""
        connection: http.client.HTTPConnection
        if self._unix is not None:
            connection = _UnixConnection(self._unix, timeout)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            connection.connect()
        except OSError as error:
            raise Unavailable(f"the gateway cannot be reached: {error}") from error
        return connection

    def path(self, route: str) -> str:
        """The path of a route of the API."""
        return self._prefix + route

    def __repr__(self) -> str:
        # The path on loopback is a secret.
        return f"unix:{self._unix}" if self._unix is not None else f"http://{self._host}:{self._port}/..."
