"""`infrec demo`: from a real log to a table of models and one user's recommendations, on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import typer

from infrec.jobs import console
from infrec.jobs.options import Debug, Overwrite
from infrec.pipeline.cluster import Pool, Report, open_pool, ray_session
from infrec.pipeline.data import Dataset, GenerateConfig, generate_log
from infrec.pipeline.distillation import DistillConfig, distill
from infrec.pipeline.ingest import IngestConfig, ingest
from infrec.pipeline.models import PAPER_EXPONENTS, EASEConfig, InfiniteAEConfig, fit_ease, fit_popularity
from infrec.pipeline.serving import RecommendConfig, evaluate_all, recommend
from infrec.pipeline.solvers import fit_exact
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind

# This wheel contains MovieLens-100K with its titles. Nothing of the package is installed or imported.
_WHEEL = "recbole==1.2.1"
_MEMBERS = "recbole/dataset_example/ml-100k/ml-100k"
_DOWNLOAD_SECONDS = 60

_SYNTHETIC_USERS = 50


@dataclass(frozen=True)
class _Model:
    """A model in a row of the table: how the demo makes it, and the command that makes the same."""

    name: str
    folder: str
    command: str
    make: Callable[[Dataset, ArtefactWriter, Pool, Report], Artefact]
    kind: Kind = Kind.MODEL


_MODELS = (
    _Model("popularity", "popularity", "fit --model popularity", lambda data, writer, *_: fit_popularity(data, writer)),
    _Model(
        "EASE",
        "ease",
        "fit --model ease",
        lambda data, writer, _, report: fit_ease(data, writer, EASEConfig(), report=report),
    ),
    _Model(
        "∞-AE (the paper's)",
        "infinite-ae-paper",
        "fit --normalize none",
        lambda data, writer, pool, report: fit_exact(
            data, writer, InfiniteAEConfig(exponents=PAPER_EXPONENTS), pool, report=report
        ),
    ),
    _Model(
        "∞-AE (degree-normalised)",
        "infinite-ae",
        "fit",
        lambda data, writer, pool, report: fit_exact(data, writer, InfiniteAEConfig(), pool, report=report),
    ),
    _Model(
        f"∞-AE on {_SYNTHETIC_USERS} synthetic users",
        "summary",
        f"distill --budget {_SYNTHETIC_USERS}",
        lambda data, writer, pool, report: distill(
            data, writer, DistillConfig.for_budget(_SYNTHETIC_USERS), pool, report=report
        ),
        Kind.SUMMARY,
    ),
)


def demo(
    out: Annotated[Path, typer.Option(help="Directory for everything that the demo makes.")] = Path("demo-output"),
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Ingest MovieLens-100K, fit, distil and evaluate, recommend: the whole pipeline in under two minutes."""
    out.mkdir(parents=True, exist_ok=True)
    with ray_session():
        log = _movielens(out) or _synthetic(out, overwrite)
        _step(f"infrec ingest {log} --out {out}/dataset")
        with console.progress() as report:
            dataset = ingest([str(log)], str(out / "dataset"), IngestConfig(), overwrite=overwrite, report=report)
        counts = dataset.manifest.counts
        console.note(f"  {counts['rows']:,} rows, {counts['users']:,} users, {counts['items']:,} items")
        with open_pool() as pool:
            fit_seconds = [_fit(model, dataset, out, pool, overwrite) for model in _MODELS]
            models = [str(out / model.folder) for model in _MODELS]
            _step(f"infrec evaluate {' '.join(models)} --data {out}/dataset")
            evaluations = list(evaluate_all(models, dataset, pool))
            recommendations = out / "recommendations"
            _step(f"infrec recommend {out}/infinite-ae --data {out}/dataset --k 10 --out {recommendations}")
            writer = ArtefactWriter(str(recommendations), Kind.RECOMMENDATIONS, purpose={}, overwrite=overwrite)
            ten = RecommendConfig(k=10)
            table = recommend(str(out / "infinite-ae"), dataset, writer, pool, ten).table("part-00000.parquet")
    rows = [
        [model.name, *console.metric_cells(evaluation), f"{seconds:.1f}"]
        for model, evaluation, seconds in zip(_MODELS, evaluations, fit_seconds, strict=True)
    ]
    title = f"test on {counts['users'] - counts['users_without_test']:,} users of {log.name}"
    console.show_table(title, ["model", *console.HEADLINE_METRICS, "evaluate s", "fit s"], rows)
    _show_one_user(table, _titles(out))


def _fit(model: _Model, dataset: Dataset, out: Path, pool: Pool, overwrite: bool) -> float:
    """Fit and publish the model. Return the seconds that this took."""
    target, (job, *options) = out / model.folder, model.command.split()
    _step(" ".join([f"infrec {job} {out}/dataset --out {target}", *options]))
    started = time.perf_counter()
    writer = ArtefactWriter(str(target), model.kind, purpose={"demo": model.name}, overwrite=overwrite)
    with writer, console.progress() as report:
        model.make(dataset, writer, pool, report)
    return time.perf_counter() - started


def _movielens(out: Path) -> Path | None:
    """Fetch MovieLens-100K and its titles from the package index. Return the log, or None where it cannot be had."""
    log = out / "ml-100k.inter"
    if log.exists():
        return log
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, _WHEEL]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_DOWNLOAD_SECONDS)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (out / "ml-100k.item").write_bytes(archive.read(f"{_MEMBERS}.item"))
                log.write_bytes(archive.read(f"{_MEMBERS}.inter"))
        except (subprocess.SubprocessError, OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
    console.note(f"The log: MovieLens-100K, real ratings, as the package {_WHEEL} carries it.")
    return log


def _synthetic(out: Path, overwrite: bool) -> Path:
    console.note(f"MovieLens-100K CANNOT BE HAD HERE ({_WHEEL} from the package index): THIS LOG IS SYNTHETIC.")
    target = out / "synthetic-log"
    _step(f"infrec generate --rows 100000 --users 1000 --items 1700 --out {target}")
    generate_log(str(target), GenerateConfig(rows=100_000, users=1_000, items=1_700), overwrite=overwrite)
    return target


def _titles(out: Path) -> dict[str, str]:
    """Return the titles of MovieLens by item id. For a synthetic log the result is empty."""
    path = out / "ml-100k.item"
    if not path.exists():
        return {}
    options = pa.csv.ParseOptions(delimiter="\t", quote_char=False)
    table = pa.csv.read_csv(path, parse_options=options)
    ids, titles = table["item_id:token"].cast(pa.string()), table["movie_title:token_seq"]
    return dict(zip(ids.to_pylist(), titles.to_pylist(), strict=True))


def _show_one_user(recommendations: pa.Table, titles: dict[str, str]) -> None:
    user = recommendations["user_id"][0]
    mine = recommendations.filter(pc.equal(recommendations["user_id"], user)).to_pylist()
    rows = [(row["rank"], row["item_id"], f"{row['score']:.3f}", titles.get(str(row["item_id"]), "")) for row in mine]
    console.show_table(f"top {len(rows)} for user {user}", ["rank", "item", "score", "title"], rows)


def _step(command: str) -> None:
    console.note(f"$ {command}")
