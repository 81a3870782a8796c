"""Our transparency formats, read and verified by code that is not ours. Usage: transparency.py DIR, as tests/transparency.rs
fills it. Every check has its counterpart: the same files, changed, must be refused."""

import base64
import hashlib
import json
import pathlib
import sys

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from proofbundle import checkpoint, merkle, tlogproof
from proofbundle.errors import ProofBundleError
from pycose.headers import Algorithm, KID
from pycose.keys import OKPKey
from pycose.messages import CoseMessage, Sign1Message

directory = pathlib.Path(sys.argv[1])
passed = failed = 0


def check(what, holds):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print("FAILED", what)


def refuses(work):
    """Whether a verifier says no: by its answer, or by an error of its own."""
    try:
        answer = work()
    except (ProofBundleError, ValueError):
        return True
    return not (answer.get("ok") if isinstance(answer, dict) else answer)


def read(name):
    return (directory / name).read_text()


key = read("verifier-key")
origin = key.split("+", 1)[0]
other_key = checkpoint.vkey(origin, Ed25519PrivateKey.generate().public_key().public_bytes_raw())


def leaves():
    """The leaves, out of the entry bundles of the tiles."""
    found = []
    for bundle in sorted((directory / "tiles/tile/entries").rglob("*"), key=str):
        if not bundle.is_file():
            continue
        rest = bundle.read_bytes()
        while rest:
            length = int.from_bytes(rest[:2], "big")
            found.append(rest[2 : 2 + length])
            rest = rest[2 + length :]
    return found


# Checkpoints, C2SP signed notes.
heads = {}
for name in ["small", "large", "tiles/checkpoint"]:
    note = read(name)
    head = checkpoint.verify_checkpoint(note, key)
    check(f"checkpoint {name}", head["ok"] and head["origin"] == origin)
    heads[name] = head
    check(f"checkpoint {name} under another key", refuses(lambda: checkpoint.verify_checkpoint(note, other_key)))
    changed = 0
    for at in range(note.index("\n\n")):
        tampered = note[:at] + ("A" if note[at] != "A" else "B") + note[at + 1 :]
        changed += 1
        check(f"checkpoint {name}, character {at}", refuses(lambda: checkpoint.verify_checkpoint(tampered, key)))
check("tiles carry the large checkpoint", heads["tiles/checkpoint"]["root"] == heads["large"]["root"])

# Tiles: the root over the bundles' leaves is the checkpoint's, and tiles of hashes are those leaves' hashes, byte for byte.
entries = leaves()
check("as many entries as the checkpoint says", len(entries) == heads["large"]["tree_size"])
check("the root over the entries", merkle.merkle_tree_hash(entries) == heads["large"]["root"])
small = entries[: heads["small"]["tree_size"]]
check("the root over the first of them", merkle.merkle_tree_hash(small) == heads["small"]["root"])
hashes = b"".join(merkle.leaf_hash(entry) for entry in entries)
tiles = directory / "tiles/tile/0"
stored = b"".join(path.read_bytes() for path in sorted(tiles.rglob("*"), key=str) if path.is_file())
check("tiles of leaf hashes", stored == hashes)
check("other entries have another root", merkle.merkle_tree_hash(entries[:-1]) != heads["large"]["root"])

# tlog-proof files.
for path in sorted(directory.glob("*.tlog-proof")):
    text = path.read_text()
    index, size = path.stem.split("-")[0], path.stem.split("-")[1].split(".")[0]
    leaf = entries[int(index)]
    found = tlogproof.verify_tlog_proof(text, leaf, key, expected_origin=origin)
    check(path.name, found["ok"] and found["index"] == int(index) and found["root"] == heads[size]["root"])
    check(f"{path.name} carries its leaf", tlogproof.parse_tlog_proof(text)["extra"] == leaf)
    wrong = [
        ("another leaf", lambda: tlogproof.verify_tlog_proof(text, leaf + b"\0", key)),
        ("another key", lambda: tlogproof.verify_tlog_proof(text, leaf, other_key)),
        ("another origin", lambda: tlogproof.verify_tlog_proof(text, leaf, key, expected_origin=origin + "x")),
        ("a witness that is not there", lambda: tlogproof.verify_tlog_proof(text, leaf, key, threshold=1)),
    ]
    for what, work in wrong:
        check(f"{path.name}: {what}", refuses(work))
    begin = text.index("\nindex ") + 1
    end = text.rindex("\n\n")
    for at in range(begin, end, 3):
        tampered = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        check(f"{path.name}, character {at}", refuses(lambda: tlogproof.verify_tlog_proof(tampered, leaf, key)))
    rebuilt = tlogproof.format_tlog_proof(
        int(index), tlogproof.parse_tlog_proof(text)["proof"], tlogproof.parse_tlog_proof(text)["checkpoint"], leaf
    )
    check(f"{path.name} is byte for byte what they would write", rebuilt == text)

# Consistency between the two checkpoints.
proof = json.loads(read("consistency.json"))
nodes = [bytes.fromhex(node) for node in proof["proof"]]
old, new = heads["small"], heads["large"]
check("sizes of the consistency proof", (proof["old"], proof["new"]) == (old["tree_size"], new["tree_size"]))
check("consistency", merkle.verify_consistency(proof["old"], proof["new"], nodes, old["root"], new["root"]))
check("it is the proof that they would make", merkle.consistency_proof(entries, proof["old"]) == nodes)
for at in range(len(nodes)):
    changed = list(nodes)
    changed[at] = hashlib.sha256(nodes[at]).digest()
    for what, spoilt in [("changed", changed), ("left out", nodes[:at] + nodes[at + 1 :])]:
        wrong = lambda: merkle.verify_consistency(proof["old"], proof["new"], spoilt, old["root"], new["root"])
        check(f"consistency with node {at} {what}", refuses(wrong))

# COSE receipts.
public = base64.b64decode(key.rsplit("+", 1)[1])[1:]
log_key = OKPKey(crv="ED25519", x=public)
log_id = bytes.fromhex(origin.split("/")[1])


def opened(encoded, entry):
    """Whether the signature is the log key's over the root that the path leads to, and place and size that the proof names."""
    message = CoseMessage.decode(encoded)
    if not isinstance(message, Sign1Message) or message.payload is not None:
        return None
    vds = [value for label, value in message.phdr.items() if label == 395]
    proofs = [value for label, value in message.uhdr.items() if label == 396]
    if vds != [1] or message.phdr[KID] != log_id or message.phdr[Algorithm].fullname != "EDDSA":
        return None
    [inclusion] = proofs[0][-1]
    size, index, path = cbor2.loads(inclusion)
    message.key = log_key
    message.payload = merkle.root_from_inclusion(index, size, merkle.leaf_hash(entry), list(path))
    return message.verify_signature(), index, size


def opened_or_none(encoded, entry):
    try:
        return opened(encoded, entry)
    except Exception:  # Whatever their decoders raise at what is no receipt.
        return None


for path in sorted(directory.glob("*.cose")):
    encoded, index = path.read_bytes(), int(path.stem)
    right = (True, index, len(entries))
    check(path.name, opened(encoded, entries[index]) == right)
    check(f"{path.name} of another entry", opened_or_none(encoded, entries[index] + b"\0") != right)
    for at in range(0, len(encoded), 5):
        tampered = encoded[:at] + bytes([encoded[at] ^ 1]) + encoded[at + 1 :]
        check(f"{path.name}, byte {at}", opened_or_none(tampered, entries[index]) != right)

print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
