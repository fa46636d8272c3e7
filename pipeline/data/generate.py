"""Synthetic logs of any size, made in parallel: users and items are long-tailed, with a taste that a model can learn.

Call whatever is measured on such a log synthetic. A user likes two of the genres and otherwise follows the crowd. An
item belongs to one genre and appears, less often, in a second. So the matrix of interaction probabilities has the rank
of the number of genres, and some of a user's items tell much about the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infrec.pipeline.cluster import Report, map_tasks, silent
from infrec.pipeline.storage import (
    Artefact,
    ArtefactWriter,
    FileRecord,
    InputError,
    Kind,
    Location,
    finished,
    parquet_bytes,
    write_with_receipt,
)

ROWS_A_FILE = 1 << 20
GENRES = 12
OWN_GENRE, SECOND_GENRE = 0.5, 0.8  # a uniform draw below 0.5 takes the user's first genre, below 0.8 the second
ACTIVITY_SIGMA = 1.1  # the sigma of a user's lognormal number of interactions: it is 1.0 in ML-1M, 1.3 in Netflix
HEAD = 0.01  # this share of the items is about equally popular (Zipf-Mandelbrot): no item is in every history
QUANTILES = 1 << 16  # the resolution of the tabulated inverse distributions
FIRST_SECOND, SECONDS = 1_600_000_000, 365 * 86_400  # a year of UNIX time
_SHARED_STREAM = 2**32 - 1  # the random stream for everything that all files share; file i has stream i


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The size and character of a synthetic log. Raises `InputError` for values out of range."""

    rows: int
    users: int
    items: int
    seed: int = 0
    string_ids: bool = False
    """Whether ids are strings such as `user-0000042` instead of integers such as 42."""
    dirt: float = 0.0
    """The fraction of rows with a defect: a null user, a null item, a NaN rating or an exact duplicate."""
    files: int | None = None
    """The number of files. None: a file for each million rows."""

    def __post_init__(self) -> None:
        for setting, value in {"rows": self.rows, "users": self.users, "items": self.items}.items():
            if value < 1:
                raise InputError(f"The number of {setting} must be at least 1, it is {value}.", setting)
        if self.files is not None and not 1 <= self.files <= self.rows:
            raise InputError(
                f"The number of files must be between 1 and the number of rows, it is {self.files}.", "files", "rows"
            )
        if not 0 <= self.dirt < 1:
            raise InputError(f"The dirt must be a fraction from 0 to below 1, it is {self.dirt}.", "dirt")

    @property
    def num_files(self) -> int:
        return self.files or -(-self.rows // ROWS_A_FILE)

    def rows_of(self, file: int) -> int:
        return self.rows * (file + 1) // self.num_files - self.rows * file // self.num_files


@dataclass(frozen=True)
class _World:
    """The tables that all files of a log share. They turn uniform numbers into users and items."""

    user_at: np.ndarray
    """int32: a user for every quantile of activity. Each user appears at least once."""
    genres_of_user: np.ndarray
    """int8 [users, 2]: the two genres that a user likes."""
    item_at: np.ndarray
    """int32 [GENRES + 1, QUANTILES]: an item for every quantile of a genre. The last row is the crowd's."""


def generate_log(out: str, config: GenerateConfig, *, overwrite: bool = False, report: Report = silent) -> Artefact:
    """Write a synthetic log of Parquet files with the columns user_id, item_id, rating (1 to 5) and timestamp.

    Call this inside a session. The bytes follow from the configuration alone. A killed run goes on after the files
    that it had finished. File i holds the i-th stretch of time. Pairs of user and item may come back, as they do in
    real logs.
    """
    writer = ArtefactWriter(out, Kind.LOG, purpose=asdict(config), overwrite=overwrite)
    world = _world(config)
    files: dict[str, FileRecord] = {}
    done = 0
    report("generate rows", 0, config.rows)
    for index, record in map_tasks(_write_file, range(config.num_files), writer.staging, world, config):
        files[_file_name(index)] = record
        done += config.rows_of(index)
        report("generate rows", done, config.rows)
    return writer.publish(config=asdict(config), inputs={}, counts={"rows": done, "synthetic": True}, files=files)


def _world(config: GenerateConfig) -> _World:
    random = np.random.default_rng([config.seed, _SHARED_STREAM])
    activity = random.lognormal(sigma=ACTIVITY_SIGMA, size=config.users)
    slots = 1 + np.floor(activity * 4 / activity.mean()).astype(np.int64)
    genres_of_user = random.integers(GENRES, size=(config.users, 2), dtype=np.int8)

    popularity = (1 + HEAD * config.items + random.permutation(config.items)) ** -1.0
    genres_of_item = random.integers(GENRES, size=(config.items, 2))
    item_at = np.empty((GENRES + 1, QUANTILES), dtype=np.int32)
    for genre in range(GENRES + 1):
        share = popularity
        if genre < GENRES:
            belongs = (genres_of_item == genre) @ np.array([1.0, 0.3])
            share = popularity * (belongs if belongs.any() else 1.0)
        item_at[genre] = _inverse(share)
    return _World(np.repeat(np.arange(config.users, dtype=np.int32), slots), genres_of_user, item_at)


def _inverse(weights: np.ndarray) -> np.ndarray:
    """Return the index at each quantile of a discrete distribution: int32 [QUANTILES]."""
    reached = np.cumsum(weights)
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES * reached[-1]
    indices: np.ndarray = np.searchsorted(reached, middles).astype(np.int32)
    return indices


def _write_file(index: int, staging: Location, world: _World, config: GenerateConfig) -> tuple[int, FileRecord]:
    """Write a file of the log, unless it is there and whole: the body of a task."""
    if stored := finished(staging, _file_name(index)):
        return index, stored[1]
    content = parquet_bytes(_table(index, world, config))
    return index, write_with_receipt(staging, _file_name(index), content, {})


def _file_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def _table(index: int, world: _World, config: GenerateConfig) -> pa.Table:
    rows = config.rows_of(index)
    random = np.random.default_rng([config.seed, index])
    user = world.user_at[random.integers(len(world.user_at), size=rows)]
    mood = random.random(rows, dtype=np.float32)
    genre = np.where(mood < OWN_GENRE, world.genres_of_user[user, 0], world.genres_of_user[user, 1])
    liked = mood < SECOND_GENRE
    genre[~liked] = GENRES
    item = world.item_at[genre, random.integers(QUANTILES, size=rows, dtype=np.uint16)]
    # A user rates items of the liked genres 3 to 5, and other items 1 to 4
    rating = 1 + 2 * liked + random.integers(np.where(liked, 3, 4), dtype=np.int8)
    start = index * SECONDS // config.num_files
    stop = max(start + 1, (index + 1) * SECONDS // config.num_files)
    timestamp = FIRST_SECOND + random.integers(start, stop, size=rows)

    no_user = no_item = np.zeros(rows, dtype=bool)
    rating = rating.astype(np.float32)
    if config.dirt:
        defect = np.where(random.random(rows) < config.dirt, random.integers(4, size=rows), -1)
        no_user, no_item = defect == 0, defect == 1
        rating[defect == 2] = np.nan
        again = np.flatnonzero(defect == 3)
        original = np.maximum(again - 1, 0)
        for column in (user, item, rating, timestamp):
            column[again] = column[original]
    return pa.table(
        {
            "user_id": _ids(user, no_user, "user", config.users, config.string_ids),
            "item_id": _ids(item, no_item, "item", config.items, config.string_ids),
            "rating": rating,
            "timestamp": timestamp,
        }
    )


def _ids(index: np.ndarray, missing: np.ndarray, what: str, number: int, as_strings: bool) -> pa.Array:
    """Return the ids of `index`: int64, or strings of equal length such as `user-0042`."""
    if not as_strings:
        return pa.array(index.astype(np.int64), mask=missing)
    digits = len(str(number - 1))
    padded = pc.utf8_lpad(pa.array(np.arange(number)).cast(pa.string()), digits, "0")
    names = pc.binary_join_element_wise(what, padded, "-")
    return names.take(pa.array(index, mask=missing))
