"""How much memory `ovseg prepare` and its check take, for few and for many label files.

A few tiny pictures and labels are drawn; all others are second names of them (hard links), so that 100 000 are quick to
make. Each command runs in a process of its own; /proc says the most memory that it and its workers ever held (VmHWM).
What grows is what is known of each picture: its names, sizes and counts, which the parent keeps in lists.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

DRAWN = 100  # different pictures; a file system allows some 65 000 names for one file
CLASSES = 8


def make_source(folder: Path, count: int) -> Path:
    """Write `count` pictures and labels and a spec with one class split; return the spec's path."""
    rng = np.random.default_rng(0)
    for kind, ending in (("images", "png"), ("labels", "png")):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            path = folder / kind / f"{i:08d}.{ending}"
            if i < DRAWN:
                shape = (24, 32, 3) if kind == "images" else (24, 32)
                values = rng.integers(0, 256 if kind == "images" else CLASSES, shape)
                Image.fromarray(values.astype(np.uint8)).save(path)
            else:
                os.link(folder / kind / f"{i % DRAWN:08d}.{ending}", path)
    classes = ", ".join(f'{{ name = "c{i}", raw_id = {i} }}' for i in range(CLASSES))
    spec = folder / "many.toml"
    spec.write_text(
        f'name = "many"\nclasses = [{classes}]\ndefault_split = "a"\n[encoding]\nkind = "label-png"\n[[layouts]]\n'
        '[layouts.subsets]\ntrain = { images = "images/{stem}.png", labels = "labels/{stem}.png" }\n'
        '[[class_splits]]\nid = "a"\nunseen = ["c1"]\n'
    )
    return spec


def peaks(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return the most MiB held by it, the most by one of its workers, and the seconds it took."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    parent, workers = 0.0, 0.0
    while process.poll() is None:
        parent = max(parent, _peak(process.pid))
        workers = max([workers, *map(_peak, _children(process.pid))])
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {process.stderr.read() if process.stderr else ''}")
    return parent, workers, time.perf_counter() - started


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _children(pid: int) -> list[int]:
    """Return the processes below a process: its workers, and the one that follows their resources."""
    try:
        own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*own, *(below for child in own for below in _children(child))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs=2, default=[10_000, 100_000], metavar=("FEW", "MANY"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    rows: dict[str, list[tuple[float, float, float]]] = {"prepare": [], "prepare again": [], "check": []}
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as place:
            spec = make_source(Path(place) / "source", count)
            base = [sys.executable, "-m", "ovseg_cli.app", "prepare", str(spec), "--data-root", f"{place}/data"]
            base += ["--source", str(spec.parent), "--workers", str(arguments.workers)]
            rows["prepare"].append(peaks(base))
            rows["prepare again"].append(peaks(base))
            rows["check"].append(
                peaks([part for part in base if part not in ("--source", str(spec.parent))] + ["--check"])
            )
    few, many = arguments.counts
    print(f"MiB at their highest, with {arguments.workers} workers; {few:,} and {many:,} pictures of 32 x 24")
    print(f"{'':15}{'parent':>16}{'ratio':>7}{'bytes a picture':>17}{'worker':>16}{'seconds':>16}")
    for name, (one, two) in rows.items():
        each = (two[0] - one[0]) * 2**20 / (many - few)
        print(f"{name:15}{one[0]:8.0f}{two[0]:8.0f}{two[0] / one[0]:7.2f}{each:17.0f}", end="")
        print(f"{one[1]:8.0f}{two[1]:8.0f}{one[2]:8.0f}{two[2]:8.0f}")


if __name__ == "__main__":
    main()
