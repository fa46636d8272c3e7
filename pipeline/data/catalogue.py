"""Positions of item ids in a catalogue."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def known_index(vocabulary: pa.Array, known: pa.Array) -> np.ndarray:
    """Return the position of each item of the vocabulary among the `known` ids: int32 [vocabulary], −1 for others."""
    if vocabulary.type != known.type:  # both are integers, of two widths
        vocabulary, known = vocabulary.cast(pa.int64()), known.cast(pa.int64())
    index: np.ndarray = pc.fill_null(pc.index_in(vocabulary, known), -1).to_numpy().astype(np.int32)
    return index
