"""The README's first table is what `ovseg demo` prints: the whole demo, so only for those who ask for slow tests."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.slow
def test_table_of_the_readme_is_what_the_demo_prints(tmp_path: Path) -> None:
    """Within 0.3 points: processors differ in the last bits of a float."""
    from ovseg_cli.core.demo.plan import DemoRequest
    from ovseg_cli.core.demo.run import run_demo
    from ovseg_cli.core.report.formats import to_markdown
    from ovseg_cli.core.reporter import Silent

    outcome = run_demo(DemoRequest(tmp_path, words="snow, lava", gpus=0), Silent())
    printed = [line for line in to_markdown(outcome.tables[0]).splitlines() if line.startswith("| ")]
    shown = [
        line
        for line in README.read_text(encoding="utf-8").split("## What it does")[0].splitlines()
        if line.startswith("| ")
    ]
    number = re.compile(r"\d+\.\d+")
    assert len(printed) == len(shown)
    for mine, theirs in zip(printed, shown, strict=True):
        assert mine.split("|")[1] == theirs.split("|")[1]
        ours, stated = ([float(x) for x in number.findall(line)] for line in (mine, theirs))
        assert ours == pytest.approx(stated, abs=0.3)
