"""One run: new interactions of the log become a new version of the dataset and its summary, if the gate allows it.

Every stage is a pure function of the plan (the version before, the files, the settings). So the next run continues
a killed run, stage by stage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from infrec.pipeline.cluster import Pool, Report, open_pool, silent
from infrec.pipeline.data import PARTS, Dataset
from infrec.pipeline.distillation import distill, plan_distillation
from infrec.pipeline.ingest import Format, FoundFile, find_files, grow, ingest
from infrec.pipeline.nightly import clock, history
from infrec.pipeline.nightly.config import ResummarizeConfig
from infrec.pipeline.nightly.gate import Verdict, judge, last_night
from infrec.pipeline.nightly.history import Decision
from infrec.pipeline.nightly.log_changes import Changes, to_json
from infrec.pipeline.nightly.state import DATASET, SUMMARY, Found, State, Version
from infrec.pipeline.storage import MANIFEST, ArtefactWriter, InputError, Kind, Location, Lock

_FRESH, _MADE = "fresh", "made.json"
"""Tonight's interactions, and the note that they and the dataset are whole. Both lie in the folder of a version in the
making."""

Say = Callable[[str], None]
"""A function that shows a sentence to the user."""


@dataclass(frozen=True)
class Turn:
    """The work of a run, which is found by looking at files only."""

    state: State
    name: str
    """The name of the version to be made."""
    previous: Version | None
    changes: Changes
    found: Mapping[str, FoundFile]
    anew: bool
    """Whether the dataset is made of the whole log: the first time, with a window, or after the log was rewritten."""
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class _Made:
    """The dataset of a version."""

    dataset: Dataset
    fresh: Dataset | None
    """The users of tonight, with tonight's held-out interactions as their test part."""
    rows: int
    """The number of rows of the log that this run read."""
    dropped: Mapping[str, int]
    """Reason → the number of these rows that were dropped."""


def look(
    logs: Sequence[str], state: State, config: ResummarizeConfig, lock: Lock, run: str, *, allow_rewrite: bool, say: Say
) -> Turn | None:
    """Return the work to do; None if nothing in the log is new. The caller holds the lock.

    The last whole version takes the place of a damaged current one. Raises `InputError` if files of the log vanished or
    shrank, or if no version is whole. `allow_rewrite` permits both. It is also raised if the settings are not those of
    the state, or if a window finds no times in the log.
    """
    state.agree_on(config.lasting)
    in_log = find_files(logs, Format.AUTO)
    glance = state.find(read=False)  # this is enough if nothing is new
    changes = _changes(glance, in_log)
    found = state.find() if changes or glance.damage else glance
    previous = found.version
    if found.damage:
        changes = _changes(found, in_log)
        if previous:
            row = history.entry(run, Decision.FELL_BACK, previous.name, reason=found.damage)
            with lock.ours():
                state.switch(previous.name)
                history.record(state.root, row)
            say(f"{found.damage} Version {previous.name} took its place.")
        elif not allow_rewrite:
            raise InputError(
                f"No version of {state.root} is whole ({found.damage.removesuffix('.')}): "
                f"allow a rewrite to make one anew from the log.",
                "allow_rewrite",
            )
    elif previous:
        with lock.ours():
            history.record(state.root, previous.record)  # perhaps the run that published it was killed before it did
    if not changes:
        return None
    if not allow_rewrite:
        changes.refuse_losses()
    elif changes.took_away:
        gone = f"{len(changes.vanished):,} files are gone and {len(changes.rewritten):,} rewritten"
        say(f"Of the log that was folded in, {gone}: the dataset is made anew.")
    anew = previous is None or changes.took_away or config.window is not None
    times: dict[str, str | None] = {"until": clock.in_words_of(in_log, config.timestamp, clock.midnight(2))}
    if config.window:
        times["since"] = clock.in_words_of(in_log, config.timestamp, clock.midnight(-clock.days(config.window)))
        if times["since"] is None:
            raise InputError(
                f"A window of {config.window} needs a log in Parquet with the column {config.timestamp}.", "window"
            )
    plan = {
        "parent": previous.name if previous else None,
        "options": {**config.lasting, "steps": config.steps},
        "times": times,
        "anew": anew,
        "files": to_json(changes.now),
    }
    found_files = {str(file.location): file for file in in_log}
    return Turn(state, state.next_name(), previous, changes, found_files, anew, plan)


def resummarize(
    turn: Turn, config: ResummarizeConfig, lock: Lock, run: str, *, memory: int, report: Report = silent
) -> dict[str, Any]:
    """Make the next version and publish it, or keep the current one. Return the row of the history.

    The caller runs this inside `ray_session` and holds the lock. `memory` is in bytes. Raises `InputError` for a fault
    that the user can mend, and `Busy` if another run took the lock over. Then the current version stays as it was.
    """
    started = time.perf_counter()
    state, previous = turn.state, turn.previous
    with lock.ours():
        folder = state.begin(turn.name, turn.plan)
    made = _dataset(turn, folder, config, report)
    # If the dataset is made anew, tonight's users have only their interactions of the new files. Otherwise they have
    # all their interactions. The two figures cannot be compared. With a window, every night has the first kind.
    alike = not turn.anew or config.window is not None
    with open_pool() as pool:
        _distill(turn, made.dataset, folder, config, pool, memory, report)
        verdict = judge(
            state.address(folder / SUMMARY),
            made.dataset,
            pool,
            old=state.address(previous.folder / SUMMARY) if previous else None,
            fresh=made.fresh,
            last_night=last_night(previous.record) if previous else None,
            alike=alike,
            tolerance=config.tolerance,
            report=report,
        )
    row = _row(turn, made, verdict, run, seconds=time.perf_counter() - started)
    with lock.ours():  # else another run owns the folder by now: it continues there
        if verdict.objection:
            folder.remove()
        else:
            for left in (_FRESH, _MADE):
                (folder / left).remove()
            state.publish(folder, row)
        history.record(state.root, row)
        state.prune(config.keep)
    current = previous.record if verdict.objection and previous else row
    report("Current version", 1, 1, {"hours old": history.hours_since(current)})
    return row


def roll_back(state: State, to: str | None, lock: Lock, run: str) -> dict[str, Any]:
    """Make version `to` the current one; None means the one before. Return the row of the history.

    The caller holds the lock. Raises `InputError` if there is no such version, or it is not whole or current already.
    """
    named = state.pointed_at()
    if to is None:
        if named is None:
            raise InputError(f"{state.root} has no current version, or cannot tell: say which it shall be.", "to")
        to = state.parent(named)
        if to is None:
            raise InputError(f"{state.root} has no version before {named}.")
    if to == named:
        raise InputError(f"{state.root} is at version {to} already.")
    to = state.version(to).name
    row = history.entry(run, Decision.ROLLED_BACK, to, **{"from": named})
    with lock.ours():
        state.switch(to)
        history.record(state.root, row)
    return row


def _changes(found: Found, in_log: Sequence[FoundFile]) -> Changes:
    return Changes.between(found.version.files if found.version else {}, in_log)


def _dataset(turn: Turn, folder: Location, config: ResummarizeConfig, report: Report) -> _Made:
    """Return the dataset of the log as it is now, and that of tonight. They are made once, even if a run is killed."""
    note = folder / _MADE
    if not note.exists():
        rows, dropped, has_fresh = _ingested(turn, folder, config, report)
        note.write(json.dumps({"rows": rows, "dropped": dropped, "has_fresh": has_fresh}).encode())
    made = json.loads(note.read().to_pybytes())
    fresh = Dataset.open(folder / _FRESH) if made["has_fresh"] else None
    return _Made(Dataset.open(folder / DATASET), fresh, made["rows"], made["dropped"])


def _ingested(
    turn: Turn, folder: Location, config: ResummarizeConfig, report: Report
) -> tuple[int, Mapping[str, int], bool]:
    """Make the dataset and that of tonight. Return rows read, rows dropped by reason, and whether tonight has any."""
    state, previous, times = turn.state, turn.previous, turn.plan["times"]
    out, fresh = folder / DATASET, folder / _FRESH
    news = [turn.found[name] for name in turn.changes.to_fold]
    if previous and not turn.anew:
        grown = grow(previous.dataset, news, out, fresh, config.ingest(**times), overwrite=True, report=report)
        return grown.rows, grown.dropped, True
    items_from = state.address(previous.folder / DATASET) if previous else None
    everything = config.ingest(**times, items_from=items_from)
    counts = ingest(list(turn.found.values()), out, everything, overwrite=True, report=report).manifest.counts
    has_fresh = False
    if previous and news:
        known_items = config.ingest(**times, items_from=state.address(out), known_items_only=True)
        with suppress(InputError):  # no row of tonight counts, but the rest stays good
            ingest(news, fresh, known_items, overwrite=True, report=report)
            has_fresh = True
    return counts["rows"], counts["dropped"], has_fresh


def _distill(
    turn: Turn,
    dataset: Dataset,
    folder: Location,
    config: ResummarizeConfig,
    pool: Pool,
    memory: int,
    report: Report,
) -> None:
    """Make the summary, from the one before if there is one. Do nothing if a run that was killed later has made it."""
    out = folder / SUMMARY
    if (out / MANIFEST).exists():
        return
    before = turn.previous.summary if turn.previous else None
    how = config.distill(turn.name, warm=before is not None)
    plan_distillation(dataset, how).require(memory)
    with ArtefactWriter(out, Kind.SUMMARY, purpose=asdict(how), overwrite=True) as writer:
        distill(dataset, writer, how, pool, warm_start=before, report=report)


def _row(turn: Turn, made: _Made, verdict: Verdict, run: str, *, seconds: float) -> dict[str, Any]:
    decision = Decision.KEPT if verdict.objection else Decision.PUBLISHED
    current = turn.previous.name if turn.previous and verdict.objection else turn.name
    changes = turn.changes
    return history.entry(
        run,
        decision,
        current,
        reason=verdict.objection,
        files={"new": len(changes.new), "grown": len(changes.grown)}
        | {"rewritten": len(changes.rewritten), "vanished": len(changes.vanished)},
        anew=turn.anew,
        rows=made.rows,
        added=_interactions(made.dataset) - (_interactions(turn.previous.dataset) if turn.previous else 0),
        dropped=dict(made.dropped),
        users=made.dataset.num_users,
        items=made.dataset.num_items,
        quality=verdict.to_json(),
        seconds=round(seconds, 1),
    )


def _interactions(dataset: Dataset) -> int:
    return sum(int(dataset.manifest.counts[part]) for part in PARTS)
