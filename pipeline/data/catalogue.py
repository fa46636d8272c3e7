"""Positions of item ids in a catalogue."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def known_index(vocabulary: pa.Array, known: pa.Array) -> np.ndarray:
    """int32 [vocabulary]: the position of each item among the `known` ones, −1 for the others."""
    if vocabulary.type != known.type:  # integers of two widths
        vocabulary, known = vocabulary.cast(pa.int64()), known.cast(pa.int64())
    index: np.ndarray = pc.fill_null(pc.index_in(vocabulary, known), -1).to_numpy().astype(np.int32)
    return index
