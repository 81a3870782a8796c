"""Content keys in an attested enclave, through the gateway on this machine."""

from ._errors import ConfidentialError, Refused, Unavailable
from ._gateway import ContentDone, DataKey, Gateway, Reported, WrappedDataKey

__all__ = [
    "ConfidentialError",
    "ContentDone",
    "DataKey",
    "Gateway",
    "Refused",
    "Reported",
    "Unavailable",
    "WrappedDataKey",
]
