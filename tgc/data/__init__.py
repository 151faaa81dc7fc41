"""Data on its way to a model: files of arrays, and shuffled batches of them."""

from tgc.data.batches import batches
from tgc.data.idx import read_idx

__all__ = ["batches", "read_idx"]
