"""How results look on a terminal: tables, facts, checks. JSON goes out as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.commands import console

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from ovseg_cli.core.data.prepare import PreparedReport, PreparePlan
    from ovseg_cli.core.demo.run import DemoOutcome
    from ovseg_cli.core.diagnosis import Check
    from ovseg_cli.core.evaluation.metrics import Rule, Split
    from ovseg_cli.core.evaluation.proposal_session import Quality
    from ovseg_cli.core.evaluation.session import Scored
    from ovseg_cli.core.explanation import Explanation
    from ovseg_cli.core.prediction.folders import Done
    from ovseg_cli.core.report.cells import Table
    from ovseg_cli.core.report.fitting import Fitted


_MOST_CLASSES = 60
"""Classes whose pixels are printed one by one."""


def rich_table(fitted: "Fitted") -> "RichTable":
    """Build rich's table from ours; numbers flush right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    table = fitted.table
    headers, rows = table.texts()
    drawn = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for header, place, width in zip(headers, table.shown_columns, fitted.widths or (), strict=True):
        is_number = table.columns[place].is_number
        drawn.add_column(Text(header), justify="right" if is_number else "left", width=width)
    for row in rows:
        drawn.add_row(*[Text(text) for text in row])
    return drawn


def show_table(table: "Table") -> None:
    """Print a table and its notes to stdout: as wide as the console, or row by row where that is too narrow."""
    from ovseg_cli.core.report.fitting import fit

    out = console.stdout()
    fitted = fit(table, out.width)
    out.print(table.title, style="bold", markup=False)
    if not table.rows:
        out.print("" if fitted.table.notes else "None yet.\n", end="", markup=False)
    elif fitted.widths is None:
        _show_rows(fitted.table)
    else:
        out.print(rich_table(fitted))
        out.print()
    for note in fitted.table.notes:
        out.print(note, style="dim", markup=False)


def _show_rows(table: "Table") -> None:
    """Print each row as lines of header and value."""
    from rich.table import Table as RichTable
    from rich.text import Text

    out = console.stdout()
    headers, rows = table.texts()
    widest = max(len(header) for header in headers)
    for first, *rest in rows:
        out.print(first, markup=False)
        grid = RichTable.grid(padding=(0, 2))
        grid.add_column(width=widest + 2)
        grid.add_column(overflow="fold")
        for header, text in zip(headers[1:], rest, strict=True):
            grid.add_row(Text(f"  {header}"), Text(text))
        out.print(grid)
        out.print()


def show_document(document: dict[str, Any], as_json: bool, title: str) -> None:
    """Print a small document: as JSON, or as indented lines."""
    if as_json:
        console.print_json(document)
        return
    out = console.stdout()
    out.print(title, style="bold", markup=False)
    for line in _lines(document, "  "):
        out.print(line, markup=False)


def _lines(value: Any, indent: str) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        if key == "schema" or item is None or item == {} or item == []:
            continue
        if isinstance(item, dict):
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for number, part in enumerate(item):
                lines += [f"{indent}{key} {number + 1}:", *_lines(part, indent + "  ")]
        elif isinstance(item, list):
            lines.append(f"{indent}{key}: {', '.join(map(str, item))}")
        else:
            lines.append(f"{indent}{key}: {item}")
    return lines


def show_explanation(document: "Explanation") -> None:
    """Print the facts and tables of one name."""
    from rich.table import Table as RichTable
    from rich.text import Text

    out = console.stdout()
    out.print(f"{document.name} – {document.title}", style="bold", markup=False)
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in document.facts:
        grid.add_row(label, Text(text))
    out.print(grid)
    for table in document.tables:
        out.print()
        show_table(table)


def show_checks(checks: "Sequence[Check]") -> None:
    """Print what `ovseg doctor` found."""
    from rich.table import Table as RichTable
    from rich.text import Text

    marks = {"ok": ("ok", "green"), "note": ("note", "yellow"), "broken": ("broken", "bold red")}
    grid = RichTable.grid(padding=(0, 2))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for check in checks:
        word, style = marks[check.status]
        found = Text(check.found)
        if check.mend:
            found.append(f"\n→ {check.mend}", style="bold")
        grid.add_row(Text(word, style=style), check.what, found)
    console.stdout().print(grid)


def show_report(tables: "Sequence[Table]", form: str, out: Path | None) -> None:
    """Print tables in a format, or write them to a file."""
    from ovseg_cli.core.files import write_text
    from ovseg_cli.core.report.formats import render

    if form == "rich" and out is None:
        for place, table in enumerate(tables):
            if place:
                console.stdout().print()
            show_table(table)
        return
    text = render(tables, "markdown" if form == "rich" else form)
    if out is None:
        import sys

        sys.stdout.write(text)
    else:
        write_text(out, text)
        console.say(f"wrote {out}")


def show_prepared(report: "PreparedReport", as_json: bool) -> None:
    """Print what a preparation or a check found."""
    if as_json:
        from dataclasses import asdict

        document = asdict(report) | {"root": str(report.root), "source": str(report.source) if report.source else None}
        console.print_json({"schema": 1, **document})
        return
    out = console.stdout()
    verb = "prepared" if report.written else "checked"
    made = f", {report.made} of them now" if report.written else ""
    total = sum(report.images.values())
    out.print(f"{verb} {report.name}: {total} pictures{made}, in {report.seconds:.1f} s", style="bold", markup=False)
    for subset, count in report.images.items():
        expected = report.expected.get(subset)
        of = f" of the official {expected:,}" if expected and expected != count else ""
        out.print(f"  {subset}: {count:,} pictures{of}{_ignored(report, subset)}", markup=False)
    out.print(f"  folder {report.root}, fingerprint {report.fingerprint[:12]}", markup=False)
    if not report.written and report.classes:
        show_table(_histogram(report))


def _histogram(report: "PreparedReport") -> "Table":
    """Pixels and pictures of each class, subset by subset."""
    from ovseg_cli.core.catalogue import make_table
    from ovseg_cli.core.data.reports import class_counts
    from ovseg_cli.core.report.cells import Column

    columns = [Column("id", "id", "count"), Column("class", "class")]
    subsets = [name for name, counts in report.pixels.items() if sum(counts)]
    for name in subsets:
        columns.append(Column(f"{name}_pixels", f"{name}: % of pixels", "number", decimals=3))
        columns.append(Column(f"{name}_pictures", "pictures", "count"))
    rows = []
    for i in class_counts(report, _MOST_CLASSES):
        shares = [(100 * report.pixels[n][i] / sum(report.pixels[n]), report.pictures[n][i]) for n in subsets]
        rows.append((i, report.classes[i], *(value for pair in shares for value in pair)))
    few = f" ({_MOST_CLASSES} rarest that occur; --json has all)" if len(report.classes) > _MOST_CLASSES else ""
    return make_table(f"Pixels and pictures of each class{few}", columns, rows)


def _ignored(report: "PreparedReport", subset: str) -> str:
    """How many pixels have no class, as the end of a sentence; nothing for data without classes or labels."""
    ignored = report.ignored.get(subset, 0)
    total = ignored + sum(report.pixels.get(subset, ()))
    return f", {100 * ignored / total:.1f} % of the pixels without a class" if total else ""


def show_plan(plan: "PreparePlan", as_json: bool) -> None:
    """Print what `ovseg prepare` would do."""
    from dataclasses import asdict

    document = {"schema": 1, **asdict(plan)}
    document["root"], document["source"] = str(plan.root), str(plan.source) if plan.source else None
    document["problems"] = [str(problem) for problem in plan.problems]
    if not as_json:
        document["need"], document["free"] = f"{plan.need / 2**20:.1f} MiB", f"{plan.free / 2**30:.1f} GiB"
    show_document(document, as_json, f"plan: prepare {plan.name}")


def show_scores(scored: "Sequence[Scored]", split: "Split", absent: "Rule", as_json: bool) -> None:
    """Print the scores of an evaluation; as JSON: every score of both rules, and the result files."""
    from ovseg_cli.core.report.tables import View, result_table

    if as_json:
        console.print_json({"schema": 1, "results": [scored_record(item, split) for item in scored]})
        return
    view = View(rule=absent, split=split)
    show_table(result_table([[item.result] for item in scored], view))
    for item in scored:
        console.say(f"result: {item.path}")


def scored_record(item: "Scored", split: "Split") -> dict[str, Any]:
    """Return every score of both rules, in percent, and where the result came from."""
    result = item.result
    rules: dict[str, Any] = {}
    both: tuple[Rule, ...] = ("union", "present")
    for rule in both:
        scores = result.metrics(rule, split)
        rules[rule] = {name: None if value != value else round(100 * value, 4) for name, value in scores.items()}
        rules[rule]["classes"] = result.num_averaged(rule, split)
    return {
        "method": result.method,
        "data": result.data,
        "subset": result.subset,
        "images": len(result.images),
        "split": split,
        "candidates": result.protocol.get("candidates"),
        "percent": rules,
        "fingerprints": result.fingerprints,
        "run": result.run,
        "file": str(item.path),
        "notes": list(result.notes),
    }


def show_quality(scored: "Sequence[Quality]", split: str, as_json: bool) -> None:
    """Print the quality of proposals: a table of all data sets, and, where few enough, one of the classes of each."""
    from ovseg_cli.core.report.proposal_tables import class_quality_table, quality_table

    if as_json:
        results = [{**quality.document, "file": str(quality.path)} for quality in scored]
        console.print_json({"schema": 1, "results": results})
        return
    documents = [quality.document for quality in scored]
    show_table(quality_table(documents, split))
    for quality in scored:
        console.stdout().print()
        show_table(class_quality_table(quality.document, split))
        console.say(f"result: {quality.path}")


def show_predictions(done: "Done", out: Path, as_json: bool) -> None:
    """Print where the label maps are."""
    if as_json:
        pictures = [{"picture": str(job.path), "files": [str(f) for f in files]} for job, files in done.outputs]
        failed = [{"picture": str(path), "reason": reason} for path, reason in done.failed]
        console.print_json({"schema": 1, "out": str(out), "pictures": pictures, "failed": failed})
        return
    for job, files in done.outputs:
        console.stdout().print(f"{job.path} → {', '.join(str(f) for f in files)}", markup=False)


def show_demo(outcome: "DemoOutcome", as_json: bool) -> None:
    """Print the demo's tables, its pictures, its page and what to do next."""
    if as_json:
        console.print_json(outcome.record())
        return
    out = console.stdout()
    for table in outcome.tables:
        show_table(table)
        out.print()
    out.print("Pictures", style="bold")
    for path in outcome.pictures:
        out.print(f"  {path}", markup=False)
    for note in outcome.notes:
        out.print(note, style="dim", markup=False)
    if outcome.page is not None:
        out.print("All of it on one page, for a browser", style="bold")
        out.print(f"  {outcome.page}", markup=False)
    out.print()
    out.print(f"Done in {outcome.seconds:.0f} s. Next:", style="bold")
    for what, command in outcome.next_steps:
        out.print(f"# {what}", style="dim", markup=False)
        out.print(command, markup=False, soft_wrap=True)
