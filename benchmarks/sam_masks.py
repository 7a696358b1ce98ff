"""What Segment Anything's masks cost outside the network, ours beside the transformers library's own way.

    python -m benchmarks.sam_masks

One picture of 1024 x 1024, 972 candidates (18 x 18 points, three masks each) of which about a third passes the
predicted IoU and most of those the stability. The network is a table of blobs, so its own time does not count. Both
ways give the same masks, which is checked first.
"""

import argparse
import subprocess
import sys
import time
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import peak_mebibytes, print_table, seconds
from ovseg_cli.core.proposals.sam import Sam, SamConfig
from ovseg_cli.core.proposals.sam_network import Encoded

SIDE, GRID, POINTS, BATCH = 1024, 256, 18, 64


class Table:
    """Answers the points of the grid one batch after another with blobs drawn beforehand."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        count = 3 * POINTS**2
        coarse = torch.randn(count, 1, 6, 6, generator=generator)
        x = torch.linspace(-1, 1, GRID)
        middle = torch.rand(count, 2, 1, 1, generator=generator) * 2 - 1
        distance = ((x[None, :] - middle[:, 0]) ** 2 + (x[:, None] - middle[:, 1]) ** 2).sqrt()
        wobble = torch.nn.functional.interpolate(coarse, (GRID, GRID), mode="bicubic")[:, 0]
        radius = torch.rand(count, 1, 1, generator=generator) * 0.3 + 0.05
        self.logits = (radius - distance) * 800 + 30 * wobble
        self.scores = torch.rand(count, generator=generator) * 0.4 + 0.6
        self.next = 0

    def encode(self, image: Tensor) -> Encoded:
        """Start again."""
        self.next = 0
        return Encoded(None, (SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE))

    def decode(self, encoded: Encoded, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next masks."""
        rows = slice(self.next, self.next + 3 * len(points))
        self.next += 3 * len(points)
        return self.logits[rows], self.scores[rows]


def ours(table: Table) -> tuple[Tensor, Tensor]:
    """Return masks and scores as `ovseg propose sam` makes them."""
    sam = Sam.__new__(Sam)
    sam.config = SamConfig(model="tiny-sam", weights="random", points_per_side=POINTS, points_per_batch=BATCH)
    sam.network = table  # type: ignore[assignment]
    proposals = sam.generate(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8))
    return proposals.masks, proposals.scores


def librarys(table: Table) -> tuple[Tensor, Tensor]:
    """Return the same through the post-processing that the library's mask-generation pipeline calls."""
    from transformers import SamImageProcessor

    processor, found = SamImageProcessor(), []
    for start in range(0, POINTS**2, BATCH):
        rows = slice(3 * start, 3 * (start + BATCH))
        logits, scores = table.logits[rows].unflatten(0, (-1, 3)), table.scores[rows].unflatten(0, (-1, 3))
        full = processor.post_process_masks(logits[None], [(SIDE, SIDE)], [(SIDE, SIDE)], binarize=False)
        found.append(processor.filter_masks(full[0], scores, (SIDE, SIDE), [0, 0, SIDE, SIDE]))
    masks = [mask for part, _, _ in found for mask in part]
    scores, boxes = torch.cat([s for _, s, _ in found]), torch.cat([b for _, _, b in found])
    masks, scores, _, _ = processor.post_process_for_mask_generation(masks, scores, boxes, 0.7)
    return torch.stack([torch.as_tensor(mask) for mask in masks]), scores


WAYS = {"ours": ours, "transformers": librarys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-of", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    table = Table()
    if arguments.memory_of:
        print(peak_mebibytes(lambda: WAYS[arguments.memory_of](table)))
        return
    first, second = (way(table) for way in WAYS.values())
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    times = seconds({name: partial(way, table) for name, way in WAYS.items()}, arguments.repeats, time.process_time)
    rows = []
    for name in WAYS:
        command = [sys.executable, "-m", "benchmarks.sam_masks", "--memory-of", name]
        memory = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        ratio = times[name] / times["ours"]
        rows.append([name, f"{times[name]:.2f}", f"{ratio:.2f}", f"{memory:.0f}"])
    title = f"{len(table.scores)} candidates at {SIDE} x {SIDE}, {len(first[0])} masks kept"
    print_table(
        f"{title}, {torch.get_num_threads()} thread(s)", ["way", "CPU seconds a picture", "ratio", "peak MiB"], rows
    )


if __name__ == "__main__":
    main()
