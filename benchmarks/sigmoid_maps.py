"""Label maps of one-stage methods block by block against the straightforward form: time and peak memory.

    python -m benchmarks.sigmoid_maps

Scores are made pixel by pixel (up-sampled logits through a sigmoid, a penalty, a gate by the trust map), as ZegCLIP and
TagCLIP do. "smooth" logits resemble a network's: most classes are far below zero nearly everywhere, neighbours agree.
"noise" is the worst case: every grid point drawn by itself, so that few classes can be left out. The plain path is
mmseg's: padded windows are added up, divided by their number and resized, all classes at full size. Peak memory is that
of a fresh process above its level before the call.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmarks.measure import peak_mebibytes, print_table, seconds
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.types import SigmoidPrediction
from tests.core.nn.straight_sigmoid import straight_labels

WINDOW, STRIDE, GRID = 512, 426, 32
FINE = 8  # pixels of the canvas between the points of a smooth field


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    kind: str
    num_classes: int
    gated: bool
    canvas: tuple[int, int] = (512, 512)
    size: tuple[int, int] = (512, 512)

    @property
    def title(self) -> str:
        """What the table calls it."""
        sizes = " to ".join(f"{height} x {width}" for height, width in dict.fromkeys((self.canvas, self.size)))
        return f"{self.kind}, {self.num_classes} classes, {'gated' if self.gated else 'ungated'}, {sizes}"


CASES = [
    *(Case("smooth", k, gated) for k in (20, 171) for gated in (False, True)),
    *(Case("smooth", k, gated, (512, 683), (375, 500)) for k in (20, 171) for gated in (False, True)),
    *(Case("noise", k, gated) for k in (20, 171) for gated in (False, True)),
    *(Case("noise", 171, gated, (512, 683), (375, 500)) for gated in (False, True)),
]


def smooth_field(num: int, canvas: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Logits (num, one a 8 x 8 pixels of the canvas) that change sign over some 5 of the windows' samples."""
    rows, columns = (side // FINE + 1 for side in canvas)
    coarse = torch.randn(1, num, rows // 10 + 2, columns // 10 + 2, generator=generator) * 4 - 4
    return F.interpolate(coarse, (rows, columns), mode="bicubic")[0]


def windows(num: int, case: Case, boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Logits of the windows, (N, num, 32, 32)."""
    noise = torch.randn(len(boxes), num, GRID, GRID, generator=generator)
    if case.kind == "noise":
        return noise * 2 - 2
    field, step = smooth_field(num, case.canvas, generator), WINDOW // GRID // FINE
    places = [(top // FINE, left // FINE) for top, left in boxes[:, :2].tolist()]
    span = GRID * step
    return noise * 0.3 + torch.stack([field[:, y : y + span : step, x : x + span : step] for y, x in places])


def make(case: Case) -> SigmoidPrediction:
    """Draw a prediction; one class in ten is unseen, the others bear the penalty of 0.1."""
    generator = torch.Generator().manual_seed(0)
    starts = [[*range(0, side - WINDOW, STRIDE), side - WINDOW] for side in case.canvas]
    boxes = torch.tensor([[top, left, WINDOW, WINDOW] for top in starts[0] for left in starts[1]])
    logits = windows(case.num_classes, case, boxes, generator)
    unseen = torch.arange(case.num_classes) % 10 == 9
    penalty = 0.1 * (~unseen).float()
    if not case.gated:
        return SigmoidPrediction(logits, boxes, case.canvas, case.size, penalty)
    trust = windows(1, case, boxes, generator)[:, 0]
    return SigmoidPrediction(logits, boxes, case.canvas, case.size, penalty, trust, unseen.to(torch.int8) * 2 - 1)


WAYS = {"plain": straight_labels, "blocks": label_map}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="the cases whose title holds these words, such as 'smooth, 171'")
    parser.add_argument("--cpu-time", action="store_true", help="the processor's own time, for a busy machine")
    parser.add_argument("--memory", nargs=2, metavar=("WAY", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(json.dumps(measure_memory(options.memory[0], CASES[int(options.memory[1])])))
        return
    chosen = [i for i, case in enumerate(CASES) if options.only in case.title]
    clock = time.process_time if options.cpu_time else time.perf_counter
    rows = [line(i, options.repeats, options.threads, clock) for i in tqdm(chosen, desc="label maps")]
    header = ["scores", "plain ms", "blocks ms", "times as fast", "plain MiB", "blocks MiB", "share of memory", "equal"]
    print_table(f"Label maps of sigmoid scores on the CPU, {options.threads} threads", header, rows)


def measure_memory(way: str, case: Case) -> float:
    prediction = make(case)
    WAYS[way](make(Case(case.kind, 4, case.gated)))  # buffers of the libraries are not the call's
    return peak_mebibytes(lambda: WAYS[way](prediction))


def line(index: int, repeats: int, threads: int, clock: Callable[[], float]) -> list[str]:
    case = CASES[index]
    peaks = {way: memory_in_a_fresh_process(way, index, threads) for way in WAYS}
    prediction = make(case)
    spent = seconds({way: partial(WAYS[way], prediction) for way in WAYS}, repeats, clock)
    equal = (WAYS["plain"](prediction) == WAYS["blocks"](prediction)).float().mean()
    return [
        case.title,
        *(f"{1000 * spent[way]:.0f}" for way in WAYS),
        f"{spent['plain'] / spent['blocks']:.1f}",
        *(f"{peaks[way]:.0f}" for way in WAYS),
        f"1/{peaks['plain'] / max(peaks['blocks'], 1):.0f}",
        f"{float(equal):.6f}",
    ]


def memory_in_a_fresh_process(way: str, index: int, threads: int) -> float:
    options = ["--threads", str(threads), "--memory", way, str(index)]
    command = [sys.executable, "-m", "benchmarks.sigmoid_maps", *options]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


if __name__ == "__main__":
    main()
