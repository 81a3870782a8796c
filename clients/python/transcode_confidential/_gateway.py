"""What the gateway passes on to the enclave."""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote

from ._errors import Refused, Unavailable
from ._transport import Address

PROVIDER_ID = "transcode-confidential"
"""Provider id of the wrapped data keys in messages."""

_PIECE = 256 * 1024
_ANSWER_LIMIT = 8 * 1024 * 1024
_BATCH = 256


@dataclass(frozen=True)
class WrappedDataKey:
    """A data key as it lies in the header of a message."""

    provider_id: str
    provider_info: bytes
    ciphertext: bytes

    def to_bytes(self) -> bytes:
        """The three fields, each behind its 16-bit length."""
        fields = (self.provider_id.encode(), self.provider_info, self.ciphertext)
        return b"".join(len(field).to_bytes(2, "big") + field for field in fields)

    @classmethod
    def from_bytes(cls, data: bytes) -> WrappedDataKey:
        """Reads :meth:`to_bytes`, and nothing else."""
        fields = []
        for _ in range(3):
            length = int.from_bytes(data[:2], "big")
            if len(data) < 2 + length:
                raise Unavailable("a wrapped data key is cut off")
            fields.append(data[2 : 2 + length])
            data = data[2 + length :]
        if data:
            raise Unavailable("bytes follow a wrapped data key")
        try:
            return cls(fields[0].decode(), fields[1], fields[2])
        except UnicodeDecodeError as error:
            raise Unavailable("a wrapped data key names no provider") from error


@dataclass(frozen=True)
class DataKey:
    """A data key for one message, and its wrapped form."""

    plaintext: bytes = field(repr=False)
    wrapped: WrappedDataKey
    receipt: str
    """Receipt of the event that records it, base64."""


@dataclass(frozen=True)
class ContentDone:
    """What went through, after all of it did."""

    key: str
    """``<key id>#<version>``"""
    context: Mapping[str, str]
    receipt: str
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True)
class Reported:
    """A report that is on the record."""

    receipt: str
    repeated: bool
    """Whether the same was reported before."""


class Gateway:
    """A gateway on this machine. Safe to use from several threads; each has a connection of its own."""

    def __init__(self, url: str, *, timeout: float = 120.0) -> None:
        self._address = Address(url)
        self._timeout = timeout
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"Gateway({self._address!r})"

    def issue_data_keys(
        self,
        key: str,
        *,
        context: Mapping[str, str] | None = None,
        content_id: str | None = None,
        count: int | None = None,
        segments: Sequence[Mapping[str, str]] = (),
    ) -> list[DataKey]:
        """Data keys under the active version of ``key``, each for one message. There may be fewer than asked for, the first
        ones and at least one, where the version came to its limit in between. Needs the grant ``issue-data-key``."""
        request: dict[str, object] = {}
        if context:
            request["context"] = dict(context)
        if content_id is not None:
            request["content_id"] = content_id
        if count is not None:
            request["count"] = count
        if segments:
            request["segments"] = [dict(pairs) for pairs in segments]
        answer = self._json(f"/v1/keys/{quote(key, safe=':@')}/data-keys", request)
        wanted = len(segments) or count or 1
        issued = _list(answer, "data_keys")
        if not 1 <= len(issued) <= wanted:
            raise Unavailable(f"{len(issued)} data keys for {wanted}")
        return [
            DataKey(_key(item), WrappedDataKey.from_bytes(_base64(item, "wrapped")), _text(item, "receipt"))
            for item in issued
        ]

    def unwrap_data_keys(
        self,
        items: Iterable[tuple[WrappedDataKey, Mapping[str, str]]],
        *,
        content_id: str | None = None,
    ) -> list[DataKey | Refused]:
        """The plaintext of wrapped data keys, each with the whole context of its message: for each a data key, or why it is
        refused. Needs the grant ``decrypt``."""
        wanted = list(items)
        results: list[DataKey | Refused] = []
        for start in range(0, len(wanted), _BATCH):
            results += self._unwrap(wanted[start : start + _BATCH], content_id)
        return results

    def _unwrap(
        self, items: Sequence[tuple[WrappedDataKey, Mapping[str, str]]], content_id: str | None
    ) -> Iterator[DataKey | Refused]:
        entries = [
            {"wrapped": base64.b64encode(wrapped.to_bytes()).decode(), "context": dict(context)}
            for wrapped, context in items
        ]
        request: dict[str, object] = {"items": entries}
        if content_id is not None:
            request["content_id"] = content_id
        answers = _list(self._json("/v1/data-keys/unwrap", request), "items")
        if len(answers) != len(items):
            raise Unavailable(f"{len(answers)} results for {len(items)} items")
        for answer, (wrapped, _) in zip(answers, items):
            found = answer.get("data_key")
            if isinstance(found, dict):
                yield DataKey(_key(found), wrapped, _text(found, "receipt"))
            else:
                error = answer.get("error")
                yield Refused.of(error if isinstance(error, dict) else {})

    def encrypt(
        self,
        key: str,
        source: BinaryIO,
        sink: BinaryIO,
        *,
        context: Mapping[str, str] | None = None,
        content_id: str | None = None,
    ) -> ContentDone:
        """Encrypts ``source`` into one message in ``sink``, through the enclave. What was written is a message only if this
        returns. Needs the grant ``encrypt``."""
        return self._stream(f"/v1/keys/{quote(key, safe=':@')}/encrypt", source, sink, context, content_id)

    def decrypt(
        self,
        source: BinaryIO,
        sink: BinaryIO,
        *,
        context: Mapping[str, str] | None = None,
        content_id: str | None = None,
    ) -> ContentDone:
        """Decrypts one message from ``source`` into ``sink``, through the enclave; refuses one without the pairs of
        ``context``. Every byte that is written was authenticated, but that nothing is missing is known only when this
        returns. Needs the grant ``decrypt``."""
        return self._stream("/v1/decrypt", source, sink, context, content_id)

    def report(
        self,
        content_id: str,
        *,
        key: str,
        job: str,
        sequence: int,
        complete: bool = True,
        frames: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        input_digest: bytes | None = None,
        output_digest: bytes | None = None,
    ) -> Reported:
        """Puts on the record what was done with piece ``sequence`` of a job. The digests are SHA-256. Safe to repeat. Needs
        the grant ``report``. A gateway takes content ids of letters, digits and ``. _ : - @`` only."""
        request: dict[str, object] = {
            "key": key, "job": job, "sequence": sequence, "complete": complete, "frames": frames,
            "bytes_in": bytes_in, "bytes_out": bytes_out,
        }
        for name, digest in (("input_digest", input_digest), ("output_digest", output_digest)):
            if digest is not None:
                request[name] = digest.hex()
        answer = self._json(f"/v1/content/{quote(content_id, safe=':@')}/report", request)
        return Reported(_text(answer, "receipt"), answer.get("repeated") is True)

    def _json(self, route: str, request: Mapping[str, object]) -> dict[str, object]:
        body = json.dumps(request).encode()
        headers = {"content-type": "application/json"}
        # An idle connection may have been closed by the other end: then nothing was sent, and a new one is tried.
        kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if kept is not None:
            try:
                kept.request("POST", self._address.path(route), body, headers)
                answer = kept.getresponse()
                return self._read(kept, answer)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                kept.close()
        connection = self._address.open(self._timeout)
        try:
            connection.request("POST", self._address.path(route), body, headers)
            return self._read(connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(f"no answer: {error}") from error

    def _read(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> dict[str, object]:
        value = _object(answer)
        if answer.will_close:
            connection.close()
        else:
            self._local.connection = connection
        if answer.status >= 300:
            raise Refused.of(value)
        return value

    def _stream(
        self,
        route: str,
        source: BinaryIO,
        sink: BinaryIO,
        context: Mapping[str, str] | None,
        content_id: str | None,
    ) -> ContentDone:
        headers = {"content-type": "application/octet-stream", "transfer-encoding": "chunked"}
        if context:
            headers["confidential-context"] = base64.b64encode(json.dumps(dict(context)).encode()).decode()
        if content_id is not None:
            headers["confidential-content-id"] = content_id
        connection = self._address.open(self._timeout)
        sending = _Sending(connection, self._address.path(route), headers, source)
        try:
            sending.start()
            answer = connection.response_class(connection.sock, method="POST")
            answer.begin()
            if answer.status >= 300:
                raise Refused.of(_object(answer))
            # Without an end mark nobody could tell whether it is complete.
            if answer.length is None and not answer.chunked:
                raise Unavailable("the answer has no end mark")
            written = 0
            while piece := answer.read(_PIECE):
                sink.write(piece)
                written += len(piece)
            if answer.length:
                raise Unavailable("the content ends early")
            sending.finish()
            sink.flush()
            shown = answer.headers.get("confidential-context")
            return ContentDone(
                key=answer.headers.get("confidential-key", ""),
                context=json.loads(base64.b64decode(shown)) if shown else dict(context or {}),
                receipt=answer.headers.get("confidential-receipt", ""),
                bytes_in=sending.sent,
                bytes_out=written,
            )
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise sending.failure() or Unavailable(f"the content ends early: {error}") from error
        finally:
            sending.stop()
            connection.close()


class _Sending(threading.Thread):
    """Sends the content while the answer is read."""

    def __init__(
        self, connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str], source: BinaryIO
    ) -> None:
        super().__init__(daemon=True)
        self._connection, self._path, self._headers, self._source = connection, path, headers, source
        self._error: Exception | None = None
        self._ended = False
        self._stopped = False
        self.sent = 0

    def run(self) -> None:
        connection = self._connection
        try:
            connection.putrequest("POST", self._path)
            for name, value in self._headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            while not self._stopped and (piece := self._source.read(_PIECE)):
                connection.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
                self.sent += len(piece)
            if not self._stopped:
                connection.send(b"0\r\n\r\n")
                self._ended = True
        except Exception as error:  # noqa: BLE001 whatever the source raises is told to whoever waits for the answer
            self._error = error
            # Without an end of the content the enclave gives it up.
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Without the whole input there is no whole output."""
        self.join()
        if not self._ended:
            raise self.failure() or Unavailable("not all of the content was taken")

    def failure(self) -> Exception | None:
        """What the source raised."""
        error = self._error
        return None if error is None or isinstance(error, (OSError, http.client.HTTPException)) else error

    def stop(self) -> None:
        self._stopped = True


def _object(answer: http.client.HTTPResponse) -> dict[str, object]:
    body = answer.read(_ANSWER_LIMIT + 1)
    if len(body) > _ANSWER_LIMIT:
        raise Unavailable("an answer is too long")
    try:
        value = json.loads(body)
    except ValueError as error:
        raise Unavailable(f"status {answer.status} without an answer that can be read") from error
    if not isinstance(value, dict):
        raise Unavailable(f"status {answer.status} without an answer that can be read")
    return value


def _list(value: Mapping[str, object], name: str) -> list[dict[str, object]]:
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unavailable(f"the answer has no {name}")
    return found


def _text(value: Mapping[str, object], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise Unavailable(f"the answer has no {name}")
    return found


def _base64(value: Mapping[str, object], name: str) -> bytes:
    try:
        return base64.b64decode(_text(value, name), validate=True)
    except binascii.Error as error:
        raise Unavailable(f"{name} is not base64") from error


def _key(value: Mapping[str, object]) -> bytes:
    plaintext = _base64(value, "plaintext")
    if len(plaintext) != 32:
        raise Unavailable("a data key of another length")
    return plaintext
