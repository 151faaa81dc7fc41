"""Weights in files: what is written is read, and nothing else gets in."""

import json
from pathlib import Path

import numpy as np
import pytest

from tgc import nn
from tgc.dtypes import DTYPES
from tgc.errors import ParseError, UserError
from tgc.nn.weights import read_weights, write_weights


def test_every_dtype_is_read_as_it_was_written(tmp_path: Path) -> None:
    weights = {name: np.arange(6).reshape(2, 3).astype(d.numpy) for name, d in DTYPES.items()}
    weights |= {"scalar": np.array(1.5, np.float32), "empty": np.zeros((0, 3), np.float32)}
    write_weights(tmp_path / "w.safetensors", weights)
    read = read_weights(tmp_path / "w.safetensors")
    assert read.keys() == weights.keys()
    for name, array in weights.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x00" * 8, (1 << 60).to_bytes(8, "little") + b"{}"])
def test_a_damaged_file_is_refused_and_changes_nothing(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    layer = nn.Linear(2, 2)
    before = layer.state_dict()
    with pytest.raises(ParseError, match="is no safetensors file"):
        layer.load(path)
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_dtype_that_tgc_does_not_have_is_named(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00")
    with pytest.raises(ParseError, match="w has the dtype F8_E4M3"):
        read_weights(path)


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "none.safetensors")
