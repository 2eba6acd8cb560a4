"""A hash of all that a graph in memory holds: part of the names of what follows from it."""

import hashlib

import onnx

from pipeline.graph.large_models import is_large, without_weights


def digest_of(model: onnx.ModelProto) -> bytes:
    """Return the SHA-256 of a graph; one that is too large to be serialized is hashed in parts."""
    if not is_large(model):
        return hashlib.sha256(model.SerializeToString(deterministic=True)).digest()
    digest = hashlib.sha256(without_weights(model).SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        part = tensor.SerializeToString(deterministic=True)
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
