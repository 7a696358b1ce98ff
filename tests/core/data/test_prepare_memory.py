"""The benchmark of memory measures what it says: the most that a process held, on a source of few files."""

import sys
from pathlib import Path

import pytest

from benchmarks.prepare_memory import make_source, peaks


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_benchmark_says_what_a_process_held(tmp_path: Path) -> None:
    """A process that fills 64 MiB more than another held about that much more."""
    code = "import time; x = bytearray({}); x[::4096] = b'1' * len(x[::4096]); time.sleep(0.5)"
    small, large = (peaks([sys.executable, "-c", code.format(size)])[0] for size in (1, 64 << 20))
    assert 55 < large - small < 75 and small > 0


def test_source_of_many_names_has_few_files(tmp_path: Path) -> None:
    spec = make_source(tmp_path / "source", 250)
    pictures = sorted((tmp_path / "source" / "images").iterdir())
    assert len(pictures) == 250 and len({path.stat().st_ino for path in pictures}) == 100 and spec.exists()
