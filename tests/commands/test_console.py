"""The console: how wide it is, and that nothing is broken or padded when output is piped."""

import io
import os
import re
import sys

import pytest

from ovseg_cli.commands import console, views
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.tables import View, result_table
from tests.core.report.results import random_result


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(console, "_terminal_width", lambda: None)


def test_width_without_a_terminal(no_terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert console.stdout().width == console.PLAIN_WIDTH
    monkeypatch.setenv("COLUMNS", "93")
    assert console.stdout().width == 93
    monkeypatch.setenv("COLUMNS", "wide")
    assert console.stdout().width == console.PLAIN_WIDTH


def test_piped_output_is_as_wide_as_the_terminal_of_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((77, 20)))
    assert console.stdout().width == 77
    monkeypatch.setenv("COLUMNS", "93")
    assert console.stdout().width == 93


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_piped_tables_break_no_number_and_have_no_blank_at_the_end(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    protocols = [{"variant": "original"}, {"variant": "value-cls"}]
    table = result_table([[random_result(i, protocol=p)] for i, p in enumerate(protocols)], View(resamples=20))
    views.show_table(table)
    out = capsys.readouterr().out
    lines = out.partition("\n\n")[0].splitlines()
    assert all(line == line.rstrip() for line in out.splitlines()) and max(map(len, lines)) <= width
    found = re.findall(r"\d+\.\d+", "\n".join(lines))
    assert found and all(re.fullmatch(r"\d{1,2}\.\d", number) for number in found)
    assert "value-cls" in out and "MaskCLIP" in out
    assert ("Left out" in out) == (width < 120)


def test_a_table_of_long_words_is_shown_row_by_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    columns = (Column("run", "run"), Column("where", "where"))
    views.show_table(Table("Runs", columns, ((Cell("a" * 30), Cell("b" * 30)),)))
    assert capsys.readouterr().out.splitlines() == ["Runs", "a" * 30, "  where  " + "b" * 30, ""]


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    views.show_table(Table("Runs", (Column("run", "run"),), (), ("There is none yet; `x` makes one.",)))
    views.show_table(Table("Runs", (Column("run", "run"),), ()))
    out = capsys.readouterr().out
    assert out.splitlines() == ["Runs", "There is none yet; `x` makes one.", "Runs", "None yet."]
