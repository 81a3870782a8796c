"""What can go wrong."""

from __future__ import annotations

from collections.abc import Mapping


class ConfidentialError(Exception):
    """Whatever keeps a call from having a result."""

    retryable: bool = False
    """Whether the same call may succeed later."""


class Unavailable(ConfidentialError):
    """No answer came, or none that can be read, or content ended before its end."""

    retryable = True


class Refused(ConfidentialError):
    """The enclave, or the gateway, answered with an error."""

    def __init__(self, code: str, message: str, retryable: bool, request_id: str) -> None:
        super().__init__(f"{code}: {message}" + (f" (request {request_id})" if request_id else ""))
        self.code = code
        """What went wrong, for programs: DENIED, REVOKED, ROTATION_DUE, ..."""
        self.message = message
        """What went wrong, for people."""
        self.retryable = retryable
        self.request_id = request_id
        """Names the request in the enclave's log."""

    @classmethod
    def of(cls, error: Mapping[str, object]) -> Refused:
        """The error that an answer holds."""
        code, message = error.get("code"), error.get("message")
        if not isinstance(code, str) or not isinstance(message, str):
            raise Unavailable("an error came that cannot be read")
        return cls(code, message, error.get("retryable") is True, str(error.get("request_id", "")))
