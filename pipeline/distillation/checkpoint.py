"""The checkpoint from which a killed distillation continues.

It is one file beside the summary in the making. Every write replaces it as a whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np
import optax
import pyarrow as pa
from jaxtyping import Array, Float, Float32

from infrec.pipeline.storage import Location

_NAME = "checkpoint.npz"
_NOTED = ("step", "lam", "restarts", "begun", "stale", "history")
"""The fields of a state that are numbers, or rows of numbers."""


@dataclass(frozen=True)
class Best:
    """The summary with the best validation so far."""

    step: int
    lam: float
    label_exponent: int | None
    """The exponent of c' of its solved labels."""
    metrics: Mapping[str, float]
    summary: Float32[np.ndarray, "budget weighted"]


@dataclass(frozen=True)
class State:
    """Everything that the remaining steps depend on, apart from the config and the dataset."""

    step: int
    """The number of updates made so far. It also keys the noise and the batches of the remaining steps."""
    logits: Float[Array, "budget weighted"]
    optimiser: optax.OptState
    lam: float
    """The λ of the loss: the last one that validation chose."""
    best: Best | None = None
    restarts: int = 0
    """The number of times that the steps began anew from the best summary."""
    begun: int = 0
    """The step at which they last began."""
    stale: int = 0
    """The number of validations since the best one, or since the last restart."""
    history: tuple[Mapping[str, float | None], ...] = field(default=())
    """One row for each validation."""

    def save(self, folder: Location) -> None:
        """Write the state. A reader sees either this state or the one before."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self.optimiser)]
        arrays = {"logits": np.asarray(self.logits), **{f"optimiser-{i}": leaf for i, leaf in enumerate(leaves)}}
        note: dict[str, Any] = {name: getattr(self, name) for name in _NOTED}
        if self.best:
            arrays["best-summary"] = self.best.summary
            note["best"] = {name: getattr(self.best, name) for name in ("step", "lam", "label_exponent", "metrics")}
        arrays["note"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        (folder / _NAME).write(pa.py_buffer(content.getbuffer()))

    @classmethod
    def load(cls, folder: Location, like: State) -> State:
        """Return the state that was saved in `folder`.

        Without a whole one there, return `like`, the state that a run begins with.
        """
        file = folder / _NAME
        if not file.exists():
            return like
        try:
            return cls._read(file, like)
        except (BadZipFile, ValueError, KeyError, TypeError):  # damaged (it has checksums), or of another version
            return like

    @classmethod
    def _read(cls, file: Location, like: State) -> State:
        with np.load(io.BytesIO(file.read().to_pybytes()), allow_pickle=False) as arrays:
            note = json.loads(arrays["note"].tobytes())
            leaves, structure = jax.tree.flatten(like.optimiser)
            saved = [jax.numpy.asarray(arrays[f"optimiser-{i}"]) for i in range(len(leaves))]
            best = None
            if "best" in note:
                best = Best(**note["best"], summary=arrays["best-summary"])
            return cls(
                logits=jax.numpy.asarray(arrays["logits"]),
                optimiser=jax.tree.unflatten(structure, saved),
                best=best,
                **{name: note[name] for name in _NOTED} | {"history": tuple(note["history"])},
            )
