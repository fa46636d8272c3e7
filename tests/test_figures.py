"""The figures of a report show what the table of trials holds."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infrec.pipeline.report.coordinates import hyper_parameter_figure, line_ids
from infrec.pipeline.report.drawing import Artboard, moved_apart, style_of
from infrec.pipeline.report.figures import FIGURES, cost_figure, noise_figure, quality_figure, save
from infrec.pipeline.report.findings import ALL_USERS, TRIALS_SCHEMA
from tests.sweeps import USERS, made_up_findings, trial_row

FINDINGS = made_up_findings()


def line(axes: Axes, method: str) -> Line2D:
    (found,) = [each for each in axes.get_lines() if each.get_label() == style_of(method).name]
    return found


def values(axes: Axes, method: str) -> tuple[list[float], list[float]]:
    drawn = line(axes, method)
    return list(np.asarray(drawn.get_xdata())), list(np.asarray(drawn.get_ydata()))


def test_lines_of_the_quality_figure_are_means_over_seeds() -> None:
    figure = quality_figure(FINDINGS)
    assert figure is not None
    for axes, learner in zip(figure.axes, ("infinite-ae", "ease"), strict=True):
        for method in ("distill-cf", "nystrom", "random-users"):
            rows = [
                row
                for row in FINDINGS.trials.to_pylist()
                if (row["method"], row["learner"], row["noise"], row["chosen"]) == (method, learner, 0, True)
            ]
            budgets = [10, 50, 200]
            means = [np.mean([row["test nDCG@10"] for row in rows if row["budget"] == budget]) for budget in budgets]
            assert values(axes, method)[0] == budgets
            assert values(axes, method)[1] == pytest.approx(means)
        assert axes.get_xscale() == "log"


def test_bands_of_the_quality_figure_are_a_standard_deviation_to_both_sides() -> None:
    figure = quality_figure(FINDINGS)
    assert figure is not None
    (band,) = [each for each in figure.axes[0].collections if each.get_label() == "_band of Distill-CF"]
    assert isinstance(band, PolyCollection)
    corners = band.get_paths()[0].vertices
    for point in FINDINGS.curve("distill-cf", "infinite-ae"):
        heights = np.unique(corners[corners[:, 0] == point.budget, 1])
        mean, spread = point.mean("test nDCG@10"), point.spread("test nDCG@10")
        assert spread > 0
        assert [heights[0], heights[-1]] == pytest.approx([mean - spread, mean + spread])


def test_one_seed_has_no_band() -> None:
    figure = quality_figure(made_up_findings(seeds=(0,)))
    assert figure is not None
    assert not figure.axes[0].collections


def test_lines_across_are_what_all_users_reach_and_the_target() -> None:
    figure = quality_figure(FINDINGS)
    full = FINDINGS.reference("ease")
    assert figure is not None and full is not None
    heights = [each.get_ydata()[0] for each in figure.axes[1].get_lines() if list(each.get_xdata()) == [0, 1]]
    assert heights == pytest.approx([full.mean("test nDCG@10"), 0.8 * full.mean("test nDCG@10")])


def test_the_recipe_is_ringed_where_it_stands() -> None:
    figure = quality_figure(FINDINGS)
    assert figure is not None and FINDINGS.recipe is not None
    rings = [[each for each in axes.get_lines() if each.get_label() == "_recipe"] for axes in figure.axes]
    assert list(map(len, rings)) == [1, 0]
    assert list(rings[0][0].get_xdata()) == [FINDINGS.recipe.budget] == [200]


def test_the_noise_figure_shows_the_share_that_is_kept() -> None:
    figure = noise_figure(FINDINGS)
    assert figure is not None and FINDINGS.noise_budget == 200
    for method, budget in (("distill-cf", 200), (ALL_USERS, USERS)):
        quality = {
            point.noise: point.mean("test nDCG@10")
            for point in FINDINGS.points
            if (point.method, point.learner, point.budget) == (method, "infinite-ae", budget)
        }
        rates, kept = values(figure.axes[0], method)
        assert rates == pytest.approx([0, 20, 50])
        assert kept == pytest.approx([100 * quality[rate] / quality[0] for rate in (0, 0.2, 0.5)])


def test_there_is_no_noise_figure_of_one_rate() -> None:
    assert noise_figure(made_up_findings(noise=(0.0,))) is None


def test_the_cost_figure_shows_time_and_size() -> None:
    figure = cost_figure(FINDINGS)
    assert figure is not None
    time, size = figure.axes[:2]
    assert values(time, "nystrom")[1] == pytest.approx([1e-6 * budget**1.7 for budget in (10, 50, 200)])
    assert values(size, "nystrom")[1] == pytest.approx([4000, 20_000, 80_000])
    assert time.get_yscale() == size.get_yscale() == "log"
    assert 1e-6 * USERS**1.7 in [each.get_ydata()[0] for each in time.get_lines()]


@pytest.mark.parametrize("board", Artboard)
def test_every_trial_of_distill_cf_without_noise_is_a_line_across_the_coordinates(board: Artboard) -> None:
    stopped = trial_row("distill-cf", "infinite-ae", 50, temperature=5.0) | {"status": "stopped"}
    failed = {"trial": "broken", "method": "distill-cf", "learner": "infinite-ae", "budget": 50, "noise": 0.0}
    findings = made_up_findings(more=[stopped, failed | {"seed": 0, "status": "failed", "chosen": False}])
    figure = hyper_parameter_figure(findings, board)
    ids = line_ids(findings)
    expected = {
        ids[row["trial"]]
        for row in findings.trials.to_pylist()
        if row["method"] == "distill-cf" and row["noise"] == 0 and row["status"] != "failed"
    }
    assert figure is not None
    drawn = {str(each.get_gid()): each for each in figure.axes[0].get_lines() if each.get_gid()}
    assert set(drawn) == expected
    ends = drawn[ids[stopped["trial"]]]
    positions = np.asarray(ends.get_ydata() if board is Artboard.WIDE else ends.get_xdata())
    assert len(positions) == 3  # budget, temperature, validation quality: nothing else varies
    assert positions[:2] == pytest.approx([np.log(5) / np.log(20), 1])
    assert ends.get_linestyle() == "--"


def test_there_are_no_coordinates_of_a_single_recipe() -> None:
    assert hyper_parameter_figure(made_up_findings(temperatures=(0.5,))) is None


def test_without_a_finished_trial_there_is_no_figure() -> None:
    findings = made_up_findings(budgets=(), noise=())
    assert [figure(findings, Artboard.WIDE) for figure in FIGURES.values()] == [None] * len(FIGURES)


def test_without_the_reference_there_are_no_lines_across() -> None:
    findings = made_up_findings()
    kept = [row for row in findings.trials.to_pylist() if row["method"] != ALL_USERS]
    for draw in (quality_figure, cost_figure):
        figure = draw(made_up_findings(budgets=(), noise=(), more=kept))
        assert figure is not None
        assert all(list(each.get_xdata()) != [0, 1] for axes in figure.axes for each in axes.get_lines())


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_findings_make_the_same_files(name: str) -> None:
    def saved() -> dict[str, bytes]:
        figure = FIGURES[name](made_up_findings(), Artboard.WIDE)
        assert isinstance(figure, Figure)
        return save(figure, name)

    files = saved()
    assert files == saved()
    assert files[f"{name}.png"].startswith(b"\x89PNG")
    root = ET.fromstring(files[f"{name}.svg"])
    assert any("nDCG" in text or "train" in text for text in root.itertext())  # text is text


def test_labels_that_would_meet_are_moved_apart_and_no_others() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        heights = list(rng.uniform(0, 60, 6))
        placed = moved_apart([*heights, 200.0], 13.0)
        assert np.diff(np.sort(placed)).min() >= 13 - 1e-9
        assert list(np.argsort(placed)) == list(np.argsort([*heights, 200.0]))
        assert placed[-1] == 200


def test_the_sentence_says_what_is_not_reached_and_what_is_not_known() -> None:
    enough = made_up_findings(learners=("infinite-ae",), noise=(0.0,))
    assert enough.sentence.startswith("200 synthetic users are enough: they reach ")
    never = replace(enough, target=2.0)
    assert never.sentence.startswith("No budget reaches 200 % on validation; the best, 200 synthetic users, reach ")
    rows = enough.trials.to_pylist()
    lost = [row | {"status": "failed"} if row["method"] == ALL_USERS else row for row in rows]
    unknown = replace(enough, trials=pa.Table.from_pylist(lost, schema=TRIALS_SCHEMA))
    assert unknown.sentence.endswith("what all users reach is not known, as that trial failed.")


def test_a_quality_of_nothing_has_no_shares() -> None:
    """A budget of one on a small log may hit nothing at all."""
    findings = made_up_findings()
    nothing = [row | {f"test {findings.select}": 0.0} for row in findings.trials.to_pylist()]
    empty = replace(findings, trials=pa.Table.from_pylist(nothing, schema=TRIALS_SCHEMA))
    assert empty.sentence.endswith(f"all {USERS:,} users reach none.")
    assert all(empty.share(point) is None and empty.kept(point) is None for point in empty.points)
    for draw in FIGURES.values():
        figure = draw(empty, Artboard.WIDE)
        assert figure is None or save(figure, "figure")
