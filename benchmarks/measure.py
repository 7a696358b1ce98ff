"""How long does a call take, and how much memory does it need above what was there before?

Times are medians of repeats, of alternatives that take turns, so that a busy machine is unfair to all alike.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def seconds(
    calls: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each call; the calls take turns, the first round is not counted.

    Args:
        calls: What to measure, by name.
        repeats: Rounds that count.
        clock: Wall clock, or `time.process_time`: the processor's own time, which a busy machine stretches less.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = clock()
            call()
            spent[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in spent.items()}


def peak_mebibytes(call: Callable[[], object]) -> float:
    """Peak resident memory of a call above the level before it; run in a process that did nothing else.

    Linux can reset its high-water mark; elsewhere the mark since the start of the process is the level before.
    """
    before = _reset_peak()
    call()
    return max(0.0, _peak() - before)


def _reset_peak() -> float:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> float:
    if _STATUS.exists():
        return _status("VmHWM")
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / (2**20 if sys.platform == "darwin" else 2**10)


def _status(key: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 2**10
    raise RuntimeError(f"{_STATUS} has no {key}")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a markdown table, columns aligned."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}\n")
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
