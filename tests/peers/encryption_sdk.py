"""Our messages against the official AWS Encryption SDK for Python, in both directions.

The content key is given to the SDK as a raw AES key: namespace `transcode-confidential`, name `<key id>#<version>`, once
through a keyring of the material providers library and once through the SDK's own master key.

    encryption_sdk.py PATH_OF_THE_EXAMPLE_BINARY_message
"""

import itertools
import logging
import os
import subprocess
import sys

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput
from aws_encryption_sdk.identifiers import AlgorithmSuite, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.key_providers.raw import RawMasterKey, WrappingKey

NAMESPACE, NAME = "transcode-confidential", "content-key-1#7"
SECRET = os.urandom(32)
SUITE = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
SDK = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
CONTEXTS = [{}, {"content": "episode-7", "rung": "1080p"}, {"größe": "ü", "\U0001f3ac": "\uffee", "a": "", "B": "b"}]
MIB = 1 << 20


def keyring(name=NAME, secret=SECRET):
    providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    return {"keyring": providers.create_raw_aes_keyring(CreateRawAesKeyringInput(
        key_namespace=NAMESPACE, key_name=name, wrapping_key=secret,
        wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16))}


def master_key(name=NAME, secret=SECRET):
    wrapping = WrappingKey(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, secret, EncryptionKeyType.SYMMETRIC)
    return {"key_provider": RawMasterKey(provider_id=NAMESPACE, key_id=name.encode(), wrapping_key=wrapping)}


def ours(verb, data, *arguments, name=NAME, context=None):
    pairs = [f"{key}={value}" for key, value in (context or {}).items()]
    done = subprocess.run(
        [BINARY, verb, name, SECRET.hex(), *map(str, arguments), *pairs], input=data, capture_output=True, check=False)
    return done.returncode, done.stdout


def we_read_what_the_sdk_writes(key, length, frame, context):
    plaintext = os.urandom(length)
    message, _ = SDK.encrypt(
        source=plaintext, algorithm=SUITE, frame_length=frame, encryption_context=context, **key())
    assert ours("decrypt", message, context=context) == (0, plaintext)


def the_sdk_reads_what_we_write(key, length, frame, context):
    plaintext = os.urandom(length)
    status, message = ours("encrypt", plaintext, frame, context=context)
    assert status == 0
    read, header = SDK.decrypt(source=message, **key())
    assert read == plaintext
    assert dict(header.encryption_context) == context


def the_sdk_refuses_a_changed_byte_of_ours(key):
    _, message = ours("encrypt", os.urandom(300), 128, context=CONTEXTS[1])
    for at in range(0, len(message), 7):
        refused(key, message[:at] + bytes([message[at] ^ 1]) + message[at + 1:])


def the_sdk_refuses_a_truncated_message_of_ours(key):
    _, message = ours("encrypt", os.urandom(300), 128)
    for end in range(0, len(message), 13):
        refused(key, message[:end])


def refused(key, message):
    try:
        SDK.decrypt(source=message, **key())
    except Exception:  # noqa: BLE001 the SDK and its parts have many kinds, and all of them refuse
        return
    raise AssertionError("the SDK has read it")


def we_refuse_a_changed_byte_of_the_sdk(key):
    plaintext = os.urandom(300)
    message, _ = SDK.encrypt(source=plaintext, algorithm=SUITE, frame_length=128, **key())
    for at in range(0, len(message), 7):
        status, released = ours("decrypt", message[:at] + bytes([message[at] ^ 1]) + message[at + 1:])
        assert status != 0 and plaintext.startswith(released), at


def a_message_of_another_version_is_refused(key):
    other = "content-key-1#8"
    message, _ = SDK.encrypt(source=b"x", algorithm=SUITE, **key(name=other))
    assert ours("decrypt", message)[0] != 0
    assert ours("decrypt", message, name=other) == (0, b"x")
    _, message = ours("encrypt", b"x", 4096, name=other)
    refused(key, message)
    assert SDK.decrypt(source=message, **key(name=other))[0] == b"x"


def cases():
    sizes = [0, 1, 127, 128, 129, 256, 1000, 128 * 77]
    for key, length, context in itertools.product([keyring, master_key], sizes, CONTEXTS):
        yield we_read_what_the_sdk_writes, (key, length, 128, context)
        yield the_sdk_reads_what_we_write, (key, length, 128, context)
    for key, (length, frame) in itertools.product(
            [keyring, master_key], [(0, 4096), (3 * 4096, 4096), (MIB, 65536), (9 * MIB + 17, 65536), (5 * MIB, MIB)]):
        yield we_read_what_the_sdk_writes, (key, length, frame, CONTEXTS[1])
        yield the_sdk_reads_what_we_write, (key, length, frame, CONTEXTS[1])
    for key, frame in itertools.product([keyring, master_key], [1, 7, 1000]):
        # The SDK writes frames of multiples of 128 bytes only; it reads any.
        yield the_sdk_reads_what_we_write, (key, 2100, frame, CONTEXTS[0])
    for key in [keyring, master_key]:
        yield the_sdk_refuses_a_changed_byte_of_ours, (key,)
        yield the_sdk_refuses_a_truncated_message_of_ours, (key,)
        yield we_refuse_a_changed_byte_of_the_sdk, (key,)
        yield a_message_of_another_version_is_refused, (key,)


def main():
    logging.disable(logging.CRITICAL)  # what the SDK is made to refuse, it also logs
    passed = failed = 0
    for check, arguments in cases():
        try:
            check(*arguments)
            passed += 1
        except Exception as error:  # noqa: BLE001 one failure must not hide the next
            failed += 1
            told = [argument.__name__ if callable(argument) else argument for argument in arguments]
            print(f"FAILED {check.__name__}{tuple(told)}: {error!r}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    BINARY = sys.argv[1]
    sys.exit(main())
