"""Writes the known-answer vectors of the message format with the official AWS Encryption SDK for Python.

The SDK's randomness is replaced by a fixed stream, so that our writer, given the same stream, must produce the same
bytes, and so that the same vectors come out every time; but for the signed message, whose key is drawn elsewhere, and
for the order of several data keys.

    message_vectors.py DIRECTORY
"""

import hashlib
import json
import os
import pathlib
import sys

import aws_encryption_sdk
from aws_encryption_sdk.identifiers import AlgorithmSuite, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.key_providers.base import MasterKeyProvider, MasterKeyProviderConfig
from aws_encryption_sdk.key_providers.raw import RawMasterKey, WrappingKey

OURS = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
SIGNED = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
UNCOMMITTED = AlgorithmSuite.AES_256_GCM_IV12_TAG16_HKDF_SHA256
SECRET = hashlib.sha256(b"the secret of content-key-1, version 7").digest()
OTHER_SECRET = hashlib.sha256(b"some other secret").digest()


class FixedStream:
    """SHA-256 of a counter; remembers what it gave."""

    def __init__(self, label):
        self.label, self.block, self.given, self.pool = label.encode(), 0, b"", b""

    def __call__(self, count):
        while len(self.pool) < count:
            self.pool += hashlib.sha256(self.label + self.block.to_bytes(4, "big")).digest()
            self.block += 1
        taken, self.pool = self.pool[:count], self.pool[count:]
        self.given += taken
        return taken


def master_key(provider, name, secret):
    wrapping = WrappingKey(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, secret, EncryptionKeyType.SYMMETRIC)
    return RawMasterKey(provider_id=provider, key_id=name, wrapping_key=wrapping)


class Several(MasterKeyProvider):
    """Wraps every data key under each of its members."""

    provider_id = "several"
    _config_class = MasterKeyProviderConfig

    def _new_master_key(self, key_id):
        raise NotImplementedError


def ours(name=b"content-key-1#7", secret=SECRET):
    return master_key("transcode-confidential", name, secret)


def content(length):
    return bytes((at * 7 + 3) % 256 for at in range(length))


def write(directory, name, plaintext, *, frame=128, context=None, keys=None, suite=OURS, refused=None, ours_too=False):
    policy = CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT if suite is UNCOMMITTED else \
        CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    client = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=policy)
    provider = Several()
    provider.add_master_key_providers_from_list(keys or [ours()])
    stream, genuine = FixedStream(name), os.urandom
    os.urandom = stream
    try:
        message, _ = client.encrypt(
            source=plaintext, key_provider=provider, algorithm=suite, frame_length=frame, encryption_context=context or {})
    finally:
        os.urandom = genuine
    vector = {
        "key": "content-key-1#7",
        "secret": SECRET.hex(),
        "context": context or {},
        "frame_length": frame,
        "plaintext": plaintext.hex(),
        "message": message.hex(),
    }
    if ours_too:
        vector["randomness"] = stream.given.hex()
    if refused:
        vector["refused"] = refused
    (directory / f"{name}.json").write_text(json.dumps(vector, indent=2) + "\n")


def main(directory):
    directory = pathlib.Path(directory)
    same = {"ours_too": True}
    write(directory, "empty_content_is_one_empty_final_frame", b"", **same)
    write(directory, "one_byte_is_one_final_frame", b"\x2a", **same)
    write(directory, "one_whole_frame_is_followed_by_an_empty_final_frame", content(128), **same)
    write(directory, "whole_frames_are_followed_by_an_empty_final_frame", content(256), **same)
    write(directory, "a_rest_is_the_final_frame", content(300), **same)
    write(directory, "context_pairs_are_sorted_by_the_bytes_of_their_keys", content(20),
          context={"b": "2", "a": "1", "é": "3", "B": "4", "aa": "", "": "5", "\U0001f3ac": "6", "\uffee": "7"}, **same)
    write(directory, "a_data_key_of_another_provider_beside_ours_is_passed_over", content(20),
          keys=[master_key("somebody-else", b"content-key-1#7", OTHER_SECRET), ours()])
    write(directory, "a_data_key_of_another_version_beside_ours_is_passed_over", content(20),
          keys=[ours(b"content-key-1#6", OTHER_SECRET), ours()])
    write(directory, "a_message_under_another_version_only_is_refused", content(20),
          keys=[ours(b"content-key-1#6", OTHER_SECRET)], refused="other-key")
    write(directory, "a_message_under_another_secret_is_refused", content(20),
          keys=[ours(secret=OTHER_SECRET)], refused="unauthentic")
    write(directory, "a_message_of_nine_data_keys_is_refused", content(20),
          keys=[ours()] + [master_key("somebody-else", b"%d" % n, OTHER_SECRET) for n in range(8)],
          refused="data-key-count")
    write(directory, "content_without_frames_is_refused", content(20), frame=0, refused="not-framed")
    write(directory, "a_suite_with_signature_is_refused", content(20), suite=SIGNED, refused="unsupported-suite")
    write(directory, "a_suite_without_commitment_is_refused", content(20), suite=UNCOMMITTED,
          refused="unsupported-version")


if __name__ == "__main__":
    main(sys.argv[1])
