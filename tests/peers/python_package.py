"""The Python package against a real gateway and enclave, and the official AWS Encryption SDK through its keyring.

    python.py PATH_OF_THE_BINARY_peer_world
"""

import hashlib
import io
import itertools
import json
import logging
import os
import subprocess
import sys
import threading

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput
from aws_encryption_sdk.identifiers import AlgorithmSuite, CommitmentPolicy

from transcode_confidential import DataKey, Gateway, Refused, Unavailable
from transcode_confidential.keyring import ConfidentialKeyring

SUITE = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
SDK = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
CONTEXTS = [{}, {"content": "episode-7", "rung": "1080p"}, {"größe": "ü", "\U0001f3ac": "\uffee", "a": ""}]
MIB = 1 << 20
LENGTHS = [0, 1, 4095, 4096, 4097, 8192, 65_536, 131_072, 5 * MIB + 17]


class World:
    def __init__(self, binary):
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())
        self.key = self.about["key"]
        self.gateways = [Gateway(url) for url in self.about["urls"]]
        self.gateway = self.gateways[0]

    def raw_keyring(self):
        providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
        return providers.create_raw_aes_keyring(CreateRawAesKeyringInput(
            key_namespace="transcode-confidential", key_name=f"{self.key}#{self.about['version']}",
            wrapping_key=bytes.fromhex(self.about["material"]), wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16))

    def encrypt(self, content, context=None, gateway=None):
        sink = io.BytesIO()
        (gateway or self.gateway).encrypt(self.key, io.BytesIO(content), sink, context=context, content_id="reel-3")
        return sink.getvalue()

    def decrypt(self, message, context=None):
        sink = io.BytesIO()
        done = self.gateway.decrypt(io.BytesIO(message), sink, context=context)
        return sink.getvalue(), done


def the_sdk_reads_what_the_enclave_writes(world, length, context):
    content = os.urandom(length)
    message = world.encrypt(content, context)
    for keyring in (world.raw_keyring(), ConfidentialKeyring(world.gateway), ConfidentialKeyring(world.gateway, world.key)):
        read, header = SDK.decrypt(source=message, keyring=keyring)
        assert read == content
        assert dict(header.encryption_context) == context


def the_enclave_reads_what_the_sdk_writes_with_our_keyring(world, length, context):
    content = os.urandom(length)
    keyring = ConfidentialKeyring(world.gateway, world.key, content_id="reel-4")
    message, _ = SDK.encrypt(source=content, keyring=keyring, algorithm=SUITE, frame_length=4096, encryption_context=context)
    read, done = world.decrypt(message, context)
    assert read == content
    assert done.key == f"{world.key}#1" and dict(done.context) == context and done.bytes_out == length
    for other in (world.raw_keyring(), keyring):
        assert SDK.decrypt(source=message, keyring=other)[0] == content


def what_is_changed_cut_or_under_another_key_is_refused(world):
    message = world.encrypt(os.urandom(300_000), {"reel": "3"})
    changed = bytearray(message)
    changed[-1] ^= 1
    for bad in (bytes(changed), message[:-1], message[: len(message) // 2]):
        raises((Unavailable, Refused), lambda bad=bad: world.decrypt(bad))
        raises(Exception, lambda bad=bad: SDK.decrypt(source=bad, keyring=ConfidentialKeyring(world.gateway)))
    raises(Unavailable, lambda: world.decrypt(message + b"x"))
    assert code(lambda: world.decrypt(message, {"reel": "4"})) == "UNVERIFIED"
    raises(Exception, lambda: SDK.decrypt(source=message, keyring=ConfidentialKeyring(world.gateway, "other-key")))
    signed = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
    keyring = ConfidentialKeyring(world.gateway, world.key)
    raises(Exception, lambda: SDK.encrypt(source=b"content", keyring=keyring, algorithm=signed))


def data_keys_come_by_the_batch_and_fail_one_by_one(world):
    issued = world.gateway.issue_data_keys(world.key, context={"a": "1"}, segments=[{"n": str(n)} for n in range(200)])
    assert len({item.plaintext for item in issued}) == 200
    items = [(item.wrapped, {"a": "1", "n": str(n)}) for n, item in enumerate(issued)]
    items[7] = (items[7][0], {"a": "2"})
    results = world.gateway.unwrap_data_keys(items * 2)
    for n, result in enumerate(results):
        if n % 200 == 7:
            assert isinstance(result, Refused) and result.code == "UNVERIFIED"
        else:
            assert isinstance(result, DataKey) and result.plaintext == issued[n % 200].plaintext
    assert repr(issued[0]).find(issued[0].plaintext.hex()) < 0 and "plaintext" not in repr(issued[0])
    assert code(lambda: world.gateway.issue_data_keys("no-such-key")) == "DENIED"
    assert code(lambda: world.gateway.issue_data_keys(world.key, count=257)) == "MALFORMED"


def reports_are_repeatable_and_gateways_are_alike(world):
    for number, gateway in enumerate(world.gateways):
        content = f"reel-3:{number}"
        digest = hashlib.sha256(b"out").digest()
        first = gateway.report(content, key=world.key, job="job", sequence=1, frames=48, output_digest=digest)
        again = gateway.report(content, key=world.key, job="job", sequence=1, frames=48, output_digest=digest)
        assert (first.repeated, again.repeated, first.receipt) == (False, True, again.receipt)
        assert code(lambda: gateway.report(content, key=world.key, job="job", sequence=1)) == "CONFLICT"
        assert world.decrypt(world.encrypt(b"content", gateway=gateway))[0] == b"content"


def many_threads_share_one_gateway(world):
    errors = []

    def work():
        try:
            for _ in range(5):
                content = os.urandom(100_000)
                assert world.decrypt(world.encrypt(content))[0] == content
                world.gateway.issue_data_keys(world.key)
        except Exception as error:  # noqa: BLE001 told below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def a_source_that_fails_leaves_no_message(world):
    class Failing(io.RawIOBase):
        left = 3

        def read(self, size=-1):
            self.left -= 1
            if not self.left:
                raise RuntimeError("the disk is gone")
            return b"x" * 1000

    raises(RuntimeError, lambda: world.gateway.encrypt(world.key, Failing(), io.BytesIO()))


def raises(kinds, call):
    try:
        call()
    except kinds as error:
        return error
    raise AssertionError("not refused")


def code(call):
    return raises(Refused, call).code


def cases(world):
    for length, context in itertools.product(LENGTHS, CONTEXTS):
        yield the_sdk_reads_what_the_enclave_writes, (world, length, context)
        yield the_enclave_reads_what_the_sdk_writes_with_our_keyring, (world, length, context)
    for case in (
        what_is_changed_cut_or_under_another_key_is_refused,
        data_keys_come_by_the_batch_and_fail_one_by_one,
        reports_are_repeatable_and_gateways_are_alike,
        many_threads_share_one_gateway,
        a_source_that_fails_leaves_no_message,
    ):
        yield case, (world,)


def main():
    # What is refused on purpose is no news.
    logging.disable(logging.CRITICAL)
    world = World(sys.argv[1])
    passed, failed = 0, 0
    for case, arguments in cases(world):
        try:
            case(*arguments)
            passed += 1
        except Exception as error:  # noqa: BLE001 every failure is told, whatever it is
            failed += 1
            print(f"{case.__name__}{arguments[1:]}: {type(error).__name__}: {error}")
    world.process.stdin.close()
    if world.process.wait() != 0:
        failed += 1
        print("the world did not end well: its log is not intact")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
