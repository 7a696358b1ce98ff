"""The whole pipeline on the toy world: prepare, (train,) score, compare, draw. Every number is computed when it runs.

A row of a training-free method is scored at once; `--full` trains the toy CLIP anew for each seed, scores every row on
each and reports mean and spread.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg_cli.core.clip.model import load_clip
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.demo.pictures import (
    PICTURE_NOTES,
    check_words,
    comparison_picture,
    sensitivity_picture,
    word_pictures,
)
from ovseg_cli.core.demo.plan import (
    DATA,
    DENSE_ROWS,
    LABEL_FREE_ROW,
    ONE_STAGE,
    ONE_STAGE_ROWS,
    SAME_PATH,
    DemoRequest,
    Row,
    eval_request,
    host_rows,
    rows_of,
)
from ovseg_cli.core.demo.training import trained_clip, trained_runs
from ovseg_cli.core.evaluation.request import resolve
from ovseg_cli.core.evaluation.session import find_scored, score
from ovseg_cli.core.files import make_folder, write_text
from ovseg_cli.core.page.build import PictureWish, page_of
from ovseg_cli.core.page.write import FILE, write_page
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.compare import difference_table
from ovseg_cli.core.report.formats import render
from ovseg_cli.core.report.grouping import Group
from ovseg_cli.core.report.request import Comparison
from ovseg_cli.core.report.stored import Stored
from ovseg_cli.core.report.tables import View, result_table
from ovseg_cli.core.reporter import Reporter

PAGE_PICTURES = {False: 12, True: 4}
"""Pictures on the page, whole demo and `--quick`."""


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo made."""

    tables: tuple[Table, ...]
    pictures: tuple[Path, ...]
    seconds: float
    next_steps: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    page: Path | None = None

    def record(self) -> dict[str, Any]:
        """The outcome as plain data."""
        tables = [{"title": t.title, "rows": t.records(), "notes": list(t.notes)} for t in self.tables]
        pictures = [str(path) for path in self.pictures]
        return {
            "schema": 1,
            "tables": tables,
            "pictures": pictures,
            "page": None if self.page is None else str(self.page),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


def run_demo(request: DemoRequest, reporter: Reporter) -> DemoOutcome:
    """Run the demo; what an interrupted one finished is not done again.

    Raises:
        UsageError: The words make no sense.
        MachineError: The folder cannot be written.
    """
    started = time.monotonic()
    words = check_words(request.words)
    make_folder(request.out)
    steps = 5 if request.full_seeds else 4
    reporter.say(f"1/{steps} prepare: the toy world, drawn into {request.folders.data}")
    prepare(load_spec(DATA.partition(":")[0]), request.folders, reporter=reporter)
    clips = ["toy-clip"]
    if request.full_seeds:
        reporter.say(f"2/{steps} train: {request.full_seeds} toy CLIPs, {estimate(request.full_seeds)}")
        clips = [str(trained_clip(seed, request, reporter)) for seed in range(request.full_seeds)]
    reporter.say(
        f"{steps - 2}/{steps} train: {', '.join(request.hosts)} on seen classes (step 1), MAFT on their masks "
        f"(step 2), {', '.join((*request.label_free, *ONE_STAGE))}"
    )
    tuned = trained_runs(clips, request, reporter)
    rows = rows_of(request)
    reporter.say(f"{steps - 1}/{steps} score: {len(rows)} rows on {DATA}")
    stored = [_scored(row, clips, tuned, request, reporter) for row in rows]
    groups: list[Group] = [[one.result for one in own] for own in stored]
    tables = _tables(rows, groups, request)
    write_text(request.out / "table.md", render(tables, "markdown"))
    reporter.say(f"{steps}/{steps} draw: pictures, labelled by each row and by your words, and a page of it all")
    pictures = [
        comparison_picture(clips[0], tuned[0], request, reporter),
        sensitivity_picture(clips[0], tuned[0], request, reporter),
        *word_pictures(words, clips[0], request, reporter),
    ]
    everything = tuple(one for own in stored for one in own)
    compared = Comparison(everything, tuple(groups), labels=tuple(row.caption for row in rows))
    wish = PictureWish(PAGE_PICTURES[request.quick], gpus=request.gpus)
    page = write_page(page_of(compared, tables, wish, request.folders, reporter), request.out / FILE)
    seconds = time.monotonic() - started
    return DemoOutcome(tuple(tables), tuple(pictures), seconds, _next_steps(request), PICTURE_NOTES, page)


def estimate(seeds: int) -> str:
    """How long training will take, from what the shipped toy CLIP took."""
    minutes = float(load_clip("toy-clip").recipe.get("cpu_minutes", 0.0))
    if not minutes:
        return "several minutes each"
    return f"about {minutes * seeds:.0f} minutes of one core ({minutes:.0f} each, as the shipped one took)"


def _scored(
    row: Row, clips: Sequence[str], tuned: Sequence[dict[str, Path]], request: DemoRequest, reporter: Reporter
) -> list[Stored]:
    """Score one row on every CLIP; the seed of a result is that of its CLIP."""
    results = []
    for seed, clip in enumerate(clips):
        planned = resolve(eval_request(row, clip, seed, tuned[seed], request), request.folders, reporter)
        found = find_scored(planned, request.folders, reporter) or score(planned, request.folders, reporter)[0]
        results.append(Stored(found.result, found.path))
    return results


def _tables(rows: Sequence[Row], groups: Sequence[Group], request: DemoRequest) -> list[Table]:
    """All rows; then each family against its base: CLIP, PixelCLIP's untrained form, frozen CLIP on masks, ZegCLIP."""
    view = View()
    title = "Toy world, unseen classes by combination" + (" (mean of seeds)" if len(groups[0]) > 1 else "")
    tables = [result_table(groups, view, title, [row.caption for row in rows])]
    without_labels = ((SAME_PATH, LABEL_FREE_ROW),) if request.label_free else ()
    for family in (DENSE_ROWS, *without_labels, *(host_rows(host) for host in request.hosts), ONE_STAGE_ROWS):
        pairs = [(row, group) for row, group in zip(rows, groups, strict=True) if row in family]
        base = next((pair for pair in pairs if pair[0].part == "frozen"), pairs[0])
        others = [pair for pair in pairs if pair is not base]
        captions = [row.caption for row, _ in (*others, base)]
        tables.append(difference_table([group for _, group in others], base[1], view, captions))
    return tables


def _next_steps(request: DemoRequest) -> tuple[tuple[str, str], ...]:
    """What to do next and the command that does it."""
    data = f"--data-root {request.folders.data}"
    return (
        ("The table again, with every class:", f"ovseg report {request.folders.runs}/*/ --per-class"),
        ("Another class split:", f"ovseg eval maskclip --data toy:novel {data}"),
        ("Your own pictures (downloads ViT-B-16):", 'ovseg predict maskclip photos/ --classes "cat, grass"'),
        ("A data set of photographs:", "ovseg prepare camvid --source DIR"),
        ("What a method does, and where its settings come from:", "ovseg show maskclip"),
    )
