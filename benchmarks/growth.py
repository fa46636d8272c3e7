"""Growth: more rows, users, synthetic users or items, and time and peak memory next to what the plan says.

    python -m benchmarks.growth [--users N …] [--budgets M …] [--items I …] [--logs ../shared/data/ml-1m.parquet]

rows      of ingest: as `benchmarks.ingest` measured them
users     the ∞-AE in memory, in files and on 1,000 landmarks, λ = 5; synthetic logs of 50 rows a user, 5,000 items
budget    Distill-CF on ML-1M, a few steps and one validation; its plan is of memory alone
items     Distill-CF of 500 synthetic users (likewise) and Nyström on 500 landmarks (one candidate); synthetic logs of
          2M rows of 60,000 users

Every size that is named goes into results/growth.json beside those that are there; then all are drawn, on axes with
logarithmic scales, in results/growth.svg, and printed as a table. Peaks are of the driver and its workers, with Python
and all libraries; those of ingest are of all processes, above that of a Ray with nothing to do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.infinite_ae import LOGS
from benchmarks.measure import WHILE_TIMED, environment, in_subprocess, peak_memory
from benchmarks.solvers import fitted, made

RESULTS = Path("benchmarks/results")
OUT, PLOT = RESULTS / "growth.json", RESULTS / "growth.svg"
USERS = (2_500, 5_000, 10_000, 20_000)
ROWS_A_USER, ITEMS = 50, 5_000
SOLVERS = {"exact": "in memory", "tiled": "in files", "nystrom": "Nyström"}
BUDGETS = (125, 250, 500, 1_000)
STEPS = 6
ITEM_COUNTS = (20_000, 60_000, 200_000, 600_000)
OF_ITEMS = {"rows": 2_000_000, "users": 60_000}
_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's, that the colour-blind tell apart
_MARKERS = ("o", "s", "^")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", nargs="*", type=int, default=USERS)
    parser.add_argument("--budgets", nargs="*", type=int, default=BUDGETS)
    parser.add_argument("--items", nargs="*", type=int, default=ITEM_COUNTS)
    parser.add_argument("--logs", default=LOGS)
    parser.add_argument("--run", nargs=2, help="one run of a program on a dataset; for the script itself")
    arguments = parser.parse_args()
    if arguments.run:
        program, options = arguments.run
        print(json.dumps(_PROGRAMS[program](**json.loads(options))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for users in arguments.users:
            log = made(f"{scratch}/{users}", rows=ROWS_A_USER * users, users=users, items=ITEMS)
            _add("users", users, {name: fitted(dataset=log, solver=name, evaluated=False) for name in SOLVERS})
        if arguments.budgets:
            log = made(f"{scratch}/ml-1m", logs=arguments.logs)
        for budget in arguments.budgets:
            _add("budget", budget, {"distill-cf": _by_itself("distill-cf", dataset=log, budget=budget)})
        for items in arguments.items:
            log = made(f"{scratch}/items-{items}", **OF_ITEMS, items=items)
            runs = {program: _by_itself(program, dataset=log, budget=500) for program in _PROGRAMS}
            _add("items", runs["distill-cf"]["items"], runs)
    panels = _panels(json.loads(OUT.read_text()), json.loads((RESULTS / "ingest.json").read_text()))
    _draw(panels)
    print(_table(panels))


def _by_itself(program: str, **options: Any) -> dict[str, Any]:
    return in_subprocess("benchmarks.growth", "--run", program, json.dumps(options))


def _add(figure: str, size: int, measured: dict[str, Any]) -> None:
    """Put one size of a figure into the results, in order."""
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    sizes = {**known.get(figure, {}), str(size): measured}
    known |= {**environment(), figure: dict(sorted(sizes.items(), key=lambda entry: int(entry[0])))}
    OUT.write_text(json.dumps(known, indent=1) + "\n")


def _distil(dataset: str, budget: int) -> dict[str, Any]:
    from infrec.pipeline.distillation import DistillConfig, plan_summarise, summarise
    from infrec.pipeline.storage import Kind

    config = DistillConfig(budget=budget, steps=STEPS, validate_every=STEPS)
    return _watched(dataset, Kind.SUMMARY, lambda data: plan_summarise(data, config), partial(summarise, config=config))


def _landmarks(dataset: str, budget: int) -> dict[str, Any]:
    from infrec.pipeline.models import PAPER_EXPONENTS, NystromConfig
    from infrec.pipeline.solvers import fit_nystrom, plan_nystrom
    from infrec.pipeline.storage import Kind

    config = NystromConfig(landmarks=budget, lambdas=(5.0,), exponents=PAPER_EXPONENTS)
    return _watched(dataset, Kind.MODEL, lambda data: plan_nystrom(data, config), partial(fit_nystrom, config=config))


def _watched(dataset: str, kind: Any, planned: Callable[[Any], Any], make: Callable[..., Any]) -> dict[str, Any]:
    """Measure the time and the peak memory of a job in a running session."""
    from infrec.pipeline.cluster import open_pool, ray_session
    from infrec.pipeline.data import Dataset
    from infrec.pipeline.storage import ArtefactWriter

    data = Dataset.open(dataset)
    with ray_session(), tempfile.TemporaryDirectory() as scratch, peak_memory(WHILE_TIMED) as peak:
        plan = planned(data)
        started = time.perf_counter()
        with open_pool() as pool, ArtefactWriter(f"{scratch}/out", kind, purpose={}) as writer:
            make(data, writer, pool=pool)
        seconds = time.perf_counter() - started
    return {
        "items": data.num_items,
        "seconds": round(seconds, 1),
        "peak_gb": round(peak.of_the_job / 1e9, 2),
        "planned_peak_gb": round(plan.peak / 1e9, 2),
    }


_PROGRAMS: dict[str, Callable[..., dict[str, Any]]] = {"distill-cf": _distil, "nystrom": _landmarks}


class _Line(NamedTuple):
    """Times and peaks of one program as something was doubled, with the peaks of its plan if it has one."""

    name: str
    sizes: Sequence[int]
    seconds: Sequence[float]
    peaks: Sequence[float]
    planned_seconds: Sequence[float] = ()
    planned_peaks: Sequence[float] = ()


def _panels(growth: dict[str, Any], ingest: dict[str, Any]) -> dict[str, list[_Line]]:
    """The lines of every figure, by what is doubled."""
    logs = {int(rows): run for rows, run in ingest["ingest"].items() if rows.isdigit()}
    rows = _Line(
        "ingest",
        list(logs),
        [rows / run["rows_a_second_at_first"] for rows, run in logs.items()],
        [run["peak_mb_above_idle_ray"] / 1e3 for run in logs.values()],
    )
    lines = [_line(SOLVERS[name], growth["users"], name, seconds="fit_seconds", peak="fit_peak_gb") for name in SOLVERS]
    budget = _line("Distill-CF", growth["budget"], "distill-cf", seconds="seconds", peak="peak_gb")
    names = {"distill-cf": "Distill-CF", "nystrom": "Nyström"}
    items = [_line(name, growth["items"], key, seconds="seconds", peak="peak_gb") for key, name in names.items()]
    return {
        "rows of the log": [rows],
        "training users": lines,
        f"synthetic users ({STEPS} steps, one validation)": [budget],
        "items (500 synthetic users or landmarks)": items,
    }


def _line(name: str, figure: dict[str, Any], program: str, *, seconds: str, peak: str) -> _Line:
    runs = [measured[program] for measured in figure.values()]
    return _Line(
        name,
        [run.get("users", int(size)) for run, size in zip(runs, figure, strict=True)],
        [run[seconds] for run in runs],
        [run[peak] for run in runs],
        [run[f"planned_{seconds}"] for run in runs if f"planned_{seconds}" in run],
        [run["planned_peak_gb"] for run in runs],
    )


def _draw(panels: dict[str, list[_Line]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"  # the same figures, the same bytes
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(2, len(panels), figsize=(15, 7), sharex="col", sharey="row", layout="constrained")
    for (times, peaks), (doubled, lines) in zip(axes.T, panels.items(), strict=True):
        for line, colour, marker in zip(lines, _COLOURS, _MARKERS, strict=False):
            for place, measured, planned in (
                (times, line.seconds, line.planned_seconds),
                (peaks, line.peaks, line.planned_peaks),
            ):
                place.plot(line.sizes, measured, color=colour, marker=marker, label=line.name)
                if planned:
                    hollow = {"color": colour, "marker": marker, "markerfacecolor": "none", "linestyle": "--"}
                    place.plot(line.sizes, planned, label=f"{line.name}, plan", **hollow)
        for place in (times, peaks):
            place.set(xscale="log", yscale="log")
            place.grid(which="both", alpha=0.25)
            place.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            place.yaxis.set_major_formatter("{x:g}")
            place.xaxis.set_major_locator(ticker.FixedLocator(lines[0].sizes))
            place.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
            place.minorticks_off()
        peaks.set_xlabel(doubled)
        peaks.legend(fontsize="small", ncols=len(lines), loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, GB")
    figure.savefig(PLOT, metadata={"Date": None})


def _table(panels: dict[str, list[_Line]]) -> str:
    """In Markdown; the plan in parentheses."""
    rows = ["| | | seconds (plan) | peak GB (plan) |", "|---|---|---|---|"]
    for doubled, lines in panels.items():
        for line in lines:
            for index, size in enumerate(line.sizes):
                seconds = _cell(line.seconds[index], line.planned_seconds[index : index + 1], ".1f")
                peak = _cell(line.peaks[index], line.planned_peaks[index : index + 1], ".2f")
                rows.append(f"| {line.name} | {size:,} {doubled} | {seconds} | {peak} |")
    return "\n".join(rows)


def _cell(measured: float, planned: Sequence[float], form: str) -> str:
    return f"{measured:{form}}" + "".join(f" ({value:{form}})" for value in planned)


if __name__ == "__main__":
    main()
