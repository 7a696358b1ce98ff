"""Live progress: how far, how fast, how long still, and a few words beside it; as a bar or as plain lines."""

import io
import sys
import time

import pytest

from ovseg_cli.commands import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(reporter: console.TerminalReporter, steps: int = 3, pause: float = 0.0) -> list[int]:
    done = []
    for item in reporter.track(range(steps), "maft"):
        reporter.note(f"loss {item}.5")
        time.sleep(pause)
        done.append(item)
    return done


def test_plain_lines_tell_rate_estimate_and_words(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(console, "LINE_EVERY_SECONDS", 0.0)
    assert work(console.TerminalReporter()) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("maft: 1/3 (33 %), ") and "/s, " in lines[0] and lines[0].endswith("s left, loss 0.5")
    assert lines[-1].startswith("maft: 3 in ") and lines[-1].endswith("done")


def test_bar_shows_the_words_and_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert work(console.TerminalReporter(), pause=0.15) == [0, 1, 2]  # longer than tqdm's time between two drawings
    drawn = screen.getvalue()
    assert "maft" in drawn and "3/3" in drawn and "loss 1.5" in drawn
    assert drawn.endswith("\r") and not drawn.rstrip("\r").endswith("it/s]")


def test_words_belong_to_the_innermost_progress(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(console, "LINE_EVERY_SECONDS", 0.0)
    reporter = console.TerminalReporter()
    reporter.note("nobody is there to show this")
    for _ in reporter.track(range(1), "outer"):
        reporter.note("outer words")
        for _ in reporter.track(range(1), "inner"):
            reporter.note("inner words")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "inner words" in line][0].startswith("inner: ")
    assert [line for line in lines if "outer words" in line][0].startswith("outer: ")


def test_work_that_is_left_early_forgets_its_progress(capsys) -> None:
    reporter = console.TerminalReporter()
    stream = reporter.track(range(5), "maft")
    next(stream)
    stream.close()
    reporter.note("for nobody")
    assert "for nobody" not in capsys.readouterr().err
