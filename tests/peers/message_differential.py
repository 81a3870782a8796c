"""Changed messages, read by us and by the AWS Encryption SDK for Python: what we accept, it accepts, as the same plaintext.

We may be the stricter one; what only the SDK accepts is counted by our reason, and only reasons that the format states
are allowed. Messages come from both writers, are changed by an own generator, and from files where folders are given
(a fuzzer's corpus for the target `message`: an even first byte, one that is passed over, then a message).

    message_differential.py PATH_OF_THE_EXAMPLE_BINARY_message [--rounds N] [--seed S] [FOLDER...]
"""

import argparse
import collections
import hashlib
import logging
import os
import pathlib
import random
import subprocess
import sys

import encryption_sdk as peer

# The key of the vectors, under which files of the fuzzer may be genuine.
peer.SECRET = hashlib.sha256(b"the secret of content-key-1, version 7").digest()
# What the format leaves out on purpose, as our errors begin.
STRICTER = ("Error: Malformed(Trailing", "Error: Malformed(DataKeyCount", "Error: Malformed(ContentType")


def by_us(message):
    done = subprocess.run([peer.BINARY, "decrypt", peer.NAME, peer.SECRET.hex()], input=message, capture_output=True,
                          check=False)
    return done.stdout if done.returncode == 0 else None, done.stderr.decode(errors="replace").strip()


def by_the_sdk(message):
    try:
        return peer.SDK.decrypt(source=message, **peer.master_key(secret=peer.SECRET))[0]
    except Exception:  # noqa: BLE001 the SDK and its parts have many kinds, and all of them refuse
        return None


def genuine(chance):
    """One message, from either writer."""
    plaintext = chance.randbytes(chance.choice([0, 1, 100, 128, 129, 500]))
    context = chance.choice(peer.CONTEXTS)
    if chance.random() < 0.5:
        message, _ = peer.SDK.encrypt(source=plaintext, algorithm=peer.SUITE, frame_length=128,
                                      encryption_context=context, **peer.master_key(secret=peer.SECRET))
        return message
    return peer.ours("encrypt", plaintext, chance.choice([1, 64, 128, 4096]) if plaintext else 128, context=context)[1]


def changed(message, other, chance):
    """One to three changes: bits, bytes, cuts, repeats, swaps, parts of another message, lengths off by little."""
    message = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(message)) if message else 0
        count = chance.randint(1, 40)
        kind = chance.randrange(8)
        if kind == 0 and message:
            message[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del message[at:at + count]
        elif kind == 2:
            message[at:at] = chance.randbytes(count)
        elif kind == 3:
            message[at:at] = message[at:at + count]
        elif kind == 4:
            del message[at:]
        elif kind == 5:
            start = chance.randrange(len(other))
            message[at:at + count] = other[start:start + count]
        elif kind == 6 and message:
            message[at] = (message[at] + chance.choice([1, 255])) % 256
        else:
            message += chance.choice([b"\0", other, chance.randbytes(3)])
    return bytes(message)


def inputs(rounds, chance, folders):
    for folder in folders:
        for path in sorted(pathlib.Path(folder).iterdir()):
            data = path.read_bytes()
            if len(data) > 2 and data[0] % 2 == 0:
                yield path.name, data[2:]
    pool = [genuine(chance) for _ in range(40)]
    for number, message in enumerate(pool):
        yield f"genuine {number}", message
    for number in range(rounds):
        yield f"round {number}", changed(chance.choice(pool), chance.choice(pool), chance)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    peer.BINARY = arguments.binary
    verdicts, failed = collections.Counter(), 0
    for name, message in inputs(arguments.rounds, random.Random(arguments.seed), arguments.folders):
        (ours, reason), theirs = by_us(message), by_the_sdk(message)
        if ours is not None and ours != theirs or name.startswith("genuine") and ours is None:
            failed += 1
            print(f"FAILED {name}: {message.hex()}")
        elif ours is None and theirs is not None:
            verdicts[f"only the SDK accepts: {reason}"] += 1
            if not reason.startswith(STRICTER):
                failed += 1
                print(f"FAILED {name}: {reason}: {message.hex()}")
        else:
            verdicts["both accept" if ours is not None else "both refuse"] += 1
    for verdict, count in verdicts.most_common():
        print(f"{count:7} {verdict}")
    print(f"{sum(verdicts.values())} messages read twice (seed {arguments.seed}), {failed} disagreements")
    return 1 if failed or not verdicts["both accept"] or not verdicts["both refuse"] else 0


if __name__ == "__main__":
    sys.exit(main())
