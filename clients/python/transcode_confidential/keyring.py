"""A keyring for the AWS Encryption SDK whose data keys come from the enclave.

Needs ``transcode-confidential[encryption-sdk]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cryptographic_material_providers.mpl.models import (
    DecryptionMaterials,
    EncryptedDataKey,
    EncryptionMaterials,
    OnDecryptInput,
    OnDecryptOutput,
    OnEncryptInput,
    OnEncryptOutput,
)
from aws_cryptographic_material_providers.mpl.references import IKeyring

from ._errors import ConfidentialError, Refused
from ._gateway import PROVIDER_ID, DataKey, Gateway, WrappedDataKey

_RESERVED = "aws-crypto-"


class ConfidentialKeyring(IKeyring):  # type: ignore[misc]
    """Issues a data key for each message that is encrypted, and unwraps that of each that is decrypted; both on the record.

    The suite must be ``AES_256_GCM_HKDF_SHA512_COMMIT_KEY`` (0x0478): a signed message has a pair in its context that the
    enclave refuses. In a multi-keyring this is the generator: the enclave wraps no keys that others made.
    """

    def __init__(self, gateway: Gateway, key: str | None = None, *, content_id: str | None = None) -> None:
        """``key`` is needed to encrypt, and when decrypting refuses messages under any other."""
        super().__init__()
        self._gateway, self._key, self._content_id = gateway, key, content_id

    def on_encrypt(self, param: OnEncryptInput) -> OnEncryptOutput:
        """Called by the SDK for each message."""
        materials = param.materials
        if self._key is None:
            raise ConfidentialError("name the key to encrypt under")
        if materials.plaintext_data_key:
            raise ConfidentialError("this keyring issues the data key: make it the generator")
        context = dict(materials.encryption_context)
        if any(name.startswith(_RESERVED) for name in context):
            raise ConfidentialError("use the suite AES_256_GCM_HKDF_SHA512_COMMIT_KEY, which does not sign")
        [issued] = self._gateway.issue_data_keys(self._key, context=context, content_id=self._content_id)
        wrapped = EncryptedDataKey(
            key_provider_id=issued.wrapped.provider_id,
            key_provider_info=issued.wrapped.provider_info,
            ciphertext=issued.wrapped.ciphertext,
        )
        fields = _fields(materials)
        fields["plaintext_data_key"] = issued.plaintext
        fields["encrypted_data_keys"] = [*materials.encrypted_data_keys, wrapped]
        return OnEncryptOutput(materials=EncryptionMaterials(**fields))

    def on_decrypt(self, param: OnDecryptInput) -> OnDecryptOutput:
        """Called by the SDK for each message."""
        materials = param.materials
        if materials.plaintext_data_key:
            return OnDecryptOutput(materials=materials)
        context: Mapping[str, str] = dict(materials.encryption_context)
        refused: Refused | None = None
        for found in param.encrypted_data_keys:
            wrapped = WrappedDataKey(found.key_provider_id, bytes(found.key_provider_info), bytes(found.ciphertext))
            if wrapped.provider_id != PROVIDER_ID or not self._is_ours(wrapped):
                continue
            [result] = self._gateway.unwrap_data_keys([(wrapped, context)], content_id=self._content_id)
            if isinstance(result, DataKey):
                fields = _fields(materials)
                fields["plaintext_data_key"] = result.plaintext
                return OnDecryptOutput(materials=DecryptionMaterials(**fields))
            refused = refused or result
        raise refused or ConfidentialError("no data key of the message is under a key that is expected")

    def _is_ours(self, wrapped: WrappedDataKey) -> bool:
        return self._key is None or wrapped.provider_info.startswith(self._key.encode() + b"#")


def _fields(materials: Any) -> dict[str, Any]:
    """The fields of materials that are set."""
    return {name: value for name, value in vars(materials).items() if value is not None}
