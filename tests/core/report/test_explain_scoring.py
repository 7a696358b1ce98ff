"""What is scored for an explanation is kept by one process alone, however many score."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.report import explain_scoring
from ovseg_cli.core.reporter import Silent
from tests.core.report.results import result


@dataclass(frozen=True)
class Job:
    """As much of a job as scoring looks at."""

    run: Any
    group: Any
    request: Any
    choice: Any = field(default_factory=lambda: SimpleNamespace(spec=None))
    folders: Any = field(default_factory=lambda: SimpleNamespace(cache=None))
    subset: str = "val"
    reporter: Any = field(default_factory=Silent)
    method: Any = field(default_factory=lambda: SimpleNamespace(config=SimpleNamespace(windows_per_batch=1)))

    @property
    def stem(self) -> str:
        return str(self.request.limit)


@pytest.mark.parametrize("is_main", [True, False])
def test_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_main: bool) -> None:
    scored = result([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    request = SimpleNamespace(limit=None)
    group = SimpleNamespace(on_main=lambda act: act() if is_main else None)
    job = Job(SimpleNamespace(path=tmp_path, as_model="run"), group, request)
    journal = tmp_path / "results" / "None.explain.unfinished.jsonl"
    journal.parent.mkdir()
    journal.write_text("")
    opened = SimpleNamespace(subset=lambda name: None)
    monkeypatch.setattr(explain_scoring, "PreparedData", SimpleNamespace(open=lambda *_: opened))
    monkeypatch.setattr(explain_scoring, "describe", lambda *_: (None, None, scored))
    monkeypatch.setattr(explain_scoring, "readout_of", lambda *_: None)
    monkeypatch.setattr(explain_scoring, "cached_masks", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(explain_scoring, "evaluate", lambda *_, **__: {"None": scored})
    assert explain_scoring._scored(job, [request], scored) == [scored]  # type: ignore[arg-type,list-item]
    assert journal.exists() != is_main, "another process may still be at work with it"
    written = list(journal.parent.glob("*.json"))
    assert [load_result(path).images for path in written] == [scored.images] * is_main
