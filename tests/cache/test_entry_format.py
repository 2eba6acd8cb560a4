"""What is kept: JSON and numbers, as they were; nothing else is kept or read."""

import json
import math
import pickle

import numpy as np
import pytest

from pipeline.cache.cache_key import key_of
from pipeline.cache.entry_format import START, Entry, NotPlainError, packed, unpacked
from pipeline.cache.kinds import Kind
from pipeline.config.mode_settings import StaticConfig

PLAIN = Kind("things", of_code=False)


def again(entry):
    return unpacked(memoryview(packed(entry)))


def test_values_come_back_bit_for_bit():
    arrays = {
        "audio": np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32),
        "ids": np.arange(6).reshape(3, 2)[:, ::-1],
        "mask": np.array([True, False]),
        "half": np.array([1.5, np.nan], np.float16),
        "": np.float64(-0.0),
        "nothing": np.zeros((0, 3), np.int8),
    }
    facts = {"loss": math.inf, "change": 0.1 + 0.2, "words": "ä\n", "none": None}
    found = again(Entry(facts, arrays))
    assert found.facts == facts
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].tobytes() == np.ascontiguousarray(array).tobytes()
        assert found.arrays[name].shape == array.shape


@pytest.mark.parametrize(
    "entry", [Entry(arrays={"x": np.array(["a"], object)}), Entry(arrays={"x": np.array(["a"])}), Entry({"x": {1, 2}})]
)
def test_what_is_neither_json_nor_numbers_is_not_kept(entry):
    with pytest.raises(NotPlainError):
        packed(entry)


def of(header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return START + len(text).to_bytes(8, "little") + text + content


@pytest.mark.parametrize(
    "content",
    [
        b"", START, START + b"\xff" * 8, of(b"[" * 5000), of([1]), of({"facts": 1}), pickle.dumps(Entry()),
        of({"facts": 0, "arrays": [["x", "|O", [1]]]}, bytes(8)), of({"facts": 0, "arrays": [["x", "<f4", [2]]]}, bytes(4)),
        of({"facts": 0, "arrays": [["x", "<f4", [1]]]}, bytes(8)),
        of({"facts": 0, "arrays": [["x", "<f4", [-1, -1]]]}, bytes(4)),
        of({"facts": 0, "arrays": [["x", "<f4", [1 << 62, 4]]]}), of({"facts": 0, "arrays": [["x", "<f7", [1]]]}, bytes(7)),
    ],
)  # fmt: skip
def test_bytes_that_are_no_entry_are_refused(content):
    with pytest.raises((ValueError, TypeError)):
        unpacked(memoryview(content))


def test_a_name_follows_from_all_that_it_is_given_and_from_nothing_else():
    one = np.arange(4, dtype=np.float32)
    parts = [
        (), ("",), ("", ""), ("ab",), ("a", "b"), (b"ab",), (1,), (1.0,), (True,), (None,), ([1, 2],), ([1], 2), ({1: 2},),
        (one,),
        (one.reshape(2, 2),), (one.astype(np.float64),), (StaticConfig(),), (StaticConfig(percentile=99.0),),
    ]  # fmt: skip
    names = [key_of(PLAIN, *some) for some in parts]
    assert len(set(names)) == len(parts)
    assert key_of(PLAIN, {"a": 1, "b": {2, 3}}) == key_of(PLAIN, {"b": {3, 2}, "a": 1})
    assert key_of(PLAIN) != key_of(Kind("things", 2, of_code=False)) != key_of(Kind("things"))
    with pytest.raises(TypeError):
        key_of(PLAIN, object())
