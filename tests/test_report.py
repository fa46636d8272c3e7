"""The report of a sweep as a reader has it: in a real browser, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from infrec.pipeline.report.findings import Findings
from infrec.pipeline.report.page import report_html
from tests.sweeps import made_up_findings, trial_row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
NARROW = {"width": 360, "height": 780}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the report needs a browser: put Chromium on PATH (apt-get install chromium)"
)

PATIENCE_MS = 60_000
"""How long a page may take for what it does at once on an idle machine."""


def hostile_findings() -> Findings:
    """With a stopped trial, a failed one, and markup wherever a string can have it."""
    stopped = trial_row("distill-cf", "infinite-ae", 50, temperature=5.0) | {"status": "stopped"}
    failed = {"trial": HOSTILE, "method": "distill-cf", "learner": "ease", "budget": 1600, "noise": 0.0, "seed": 1}
    failed |= {"status": "failed", "reason": f"RuntimeError: {HOSTILE}", "chosen": False}
    odd = [trial_row(HOSTILE, "infinite-ae", budget) for budget in (10, 50)]
    findings = made_up_findings(noise=(0.0, 0.2), more=[stopped, failed, *odd])
    findings.config[HOSTILE] = findings.dataset[HOSTILE] = HOSTILE  # type: ignore[index]
    return findings


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "report.html"
    path.write_text(report_html(hostile_findings()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, opened; whatever a test does with it, there are no errors and nothing is loaded."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert complaints == []
    assert requests == [report.as_uri()]
    page.close()


def shown_rows(page: Page) -> Locator:
    return page.locator(".rows tbody tr:visible")


def column(page: Page, title: str) -> list[str]:
    """The cells of the rows that are shown."""
    titles = page.locator(".rows thead th").all_inner_texts()
    return page.evaluate(
        "index => [...document.querySelectorAll('.rows tbody tr')].filter(row => row.checkVisibility())"
        ".map(row => row.cells[index].dataset.value ?? row.cells[index].textContent)",
        titles.index(title),
    )


def test_the_page_opens_with_the_sentence_and_has_all_figures(page: Page) -> None:
    findings = hostile_findings()
    expect(page.get_by_role("heading", level=1)).to_have_text(findings.sentence)
    assert page.title() == findings.sentence
    headings = ["Quality by budget", "Noise", "Cost", "Hyper-parameters", "Trials", "What made this"]
    assert page.get_by_role("heading", level=2).all_inner_texts() == headings
    for name in headings[:4]:
        drawing = page.get_by_role("region", name=name, exact=True).locator("figure svg:visible")
        expect(drawing).to_have_count(1)
        box = drawing.bounding_box()
        assert box is not None and min(box["width"], box["height"]) > 200
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(each => each.id)).size") == page.evaluate(
        "document.querySelectorAll('[id]').length"
    )


def test_numbers_stand_below_a_figure(page: Page) -> None:
    findings = hostile_findings()
    point = findings.curve("nystrom", "infinite-ae")[1]
    share = findings.share(point)
    assert share is not None
    table = page.get_by_role("region", name="Quality by budget, in numbers")
    titles = table.locator("thead th").all_inner_texts()
    cells = table.locator("tbody tr", has_text="50 users").first.locator("th, td").all_inner_texts()
    mean, spread = point.mean("test nDCG@10"), point.spread("test nDCG@10")
    expected = f"{mean:.2f} ± {spread:.2f}\n{100 * share:.1f} %"
    assert cells[titles.index("Nyström")].replace("\N{NO-BREAK SPACE}", " ") == expected


def test_all_that_findings_hold_is_text(page: Page) -> None:
    assert HOSTILE in page.locator(".rows tr.failed").inner_text()
    assert HOSTILE in page.locator(".made-by").inner_text()
    assert HOSTILE in page.locator("#quality-wide-figure_1").text_content()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.title() != "taken"


@pytest.mark.parametrize("title", ["Budget, users", "nDCG@10, test", "Trained in"])
def test_columns_of_numbers_are_sorted_as_numbers(page: Page, title: str) -> None:
    heading = page.locator(".rows thead th").filter(has=page.get_by_role("button", name=title))
    button = heading.get_by_role("button")
    before = column(page, title)
    known = sorted(float(value) for value in before if value)
    assert known != [float(value) for value in before if value]
    button.click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    ascending = column(page, title)
    assert [float(value) for value in ascending if value] == known
    button.click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    descending = column(page, title)
    assert [float(value) for value in descending if value] == known[::-1]
    missing = before.count("")
    assert all(values[len(values) - missing :] == [""] * missing for values in (ascending, descending))


def test_rows_stay_whole_when_they_are_sorted(page: Page) -> None:
    before = sorted(page.locator(".rows tbody tr").all_inner_texts())
    page.get_by_role("button", name="Status").click()
    assert column(page, "Status") == sorted(column(page, "Status"))
    assert sorted(page.locator(".rows tbody tr").all_inner_texts()) == before
    assert page.locator(".rows [aria-sort]").count() == 1


def test_filters_narrow_the_rows_the_count_and_the_lines(page: Page) -> None:
    total = hostile_findings().trials.num_rows
    count = page.locator(".count")
    assert count.get_attribute("aria-live") == "polite"
    expect(count).to_have_text(f"{total} of {total} rows")
    expect(page.locator(".dim")).to_have_count(0)
    page.get_by_label("Status").select_option("stopped")
    expect(count).to_have_text(f"1 of {total} rows")
    expect(shown_rows(page)).to_have_count(1)
    drawn = page.locator("[id^=hyper-parameters-wide-trial-]")
    expect(page.locator("[id^=hyper-parameters-wide-trial-]:not(.dim)")).to_have_count(1)
    assert drawn.count() > 1
    page.get_by_role("button", name="Show all").click()
    expect(count).to_have_text(f"{total} of {total} rows")
    expect(page.locator(".dim")).to_have_count(0)


def test_words_and_choices_must_all_be_met(page: Page) -> None:
    page.get_by_label("Method").select_option("nystrom")
    page.get_by_label("Learner").select_option("ease")
    page.get_by_label("Contains").fill("NYSTROM-50 0.2")
    expect(shown_rows(page)).to_have_count(3)
    assert set(column(page, "Method")) == {"Nyström"} and set(column(page, "Learner")) == {"EASE"}
    page.get_by_label("Contains").fill("no such trial")
    expect(page.locator(".count")).to_contain_text("0 of")


def test_a_row_and_its_line_stand_out_together(page: Page) -> None:
    row = page.locator(".rows tr.stopped")
    row.hover()
    expect(page.locator("[id^=hyper-parameters-wide-].lit")).to_have_count(1)
    expect(page.locator("#pointed")).to_contain_text("Temperature 5")
    line = page.locator(f"[id=hyper-parameters-wide-{row.get_attribute('data-line')}]")
    page.mouse.move(0, 0)
    expect(page.locator(".lit")).to_have_count(0)
    line.dispatch_event("mouseenter")
    expect(row).to_have_class("stopped lit-row")


def test_the_table_is_used_from_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the table of trials"
    page.keyboard.press("Enter")
    titles = page.locator(".rows thead th").all_inner_texts()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.cellIndex") == titles.index("Budget, users"):
            break
    page.keyboard.press("Enter")
    budgets = [int(value) for value in column(page, "Budget, users")]
    assert budgets == sorted(budgets) and len(set(budgets)) > 1
    for _ in range(len(titles)):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.localName") == "tr":
            break
    first = page.evaluate("document.activeElement.rowIndex")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.rowIndex") == first + 1
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_it_is_read_on_a_phone(page: Page) -> None:
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].filter(text => text.checkVisibility())"
        ".map(text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"
    )
    assert smallest >= 10
    table = page.get_by_role("region", name="Table of trials")
    assert table.evaluate("each => each.scrollWidth > each.clientWidth")  # it scrolls by itself


def test_print_has_every_row_and_no_controls(page: Page) -> None:
    total = hostile_findings().trials.num_rows
    page.get_by_label("Status").select_option("failed")
    expect(shown_rows(page)).to_have_count(1)
    page.emulate_media(media="print")
    expect(shown_rows(page)).to_have_count(total)
    expect(page.locator("form")).to_be_hidden()
    region = page.get_by_role("region", name="Table of trials")
    assert region.evaluate("each => each.scrollHeight <= each.clientHeight + 1")


@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, NARROW])
def test_axe_finds_nothing_that_shuts_somebody_out(page: Page, size: dict[str, int]) -> None:
    page.set_viewport_size(size)  # type: ignore[arg-type]
    result = Axe().run(page)
    assert result.response["passes"]
    assert result.violations_count == 0, result.generate_report()


def test_without_scripts_every_number_is_there(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    expect(page.locator(".rows tbody tr")).to_have_count(hostile_findings().trials.num_rows)
    expect(page.locator("form")).to_be_hidden()
    context.close()


def test_a_sweep_without_a_finished_trial_has_a_report(browser: Browser, tmp_path: Path) -> None:
    failed = {"trial": "a", "method": "distill-cf", "budget": 10, "status": "failed", "reason": "no memory"}
    path = tmp_path / "report.html"
    path.write_text(report_html(made_up_findings(budgets=(), noise=(), more=[failed])), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text("No summary was learned, so there is no recipe.")
    expect(page.locator("figure")).to_have_count(0)
    expect(page.locator(".rows tr.failed")).to_contain_text("no memory")
    page.close()
