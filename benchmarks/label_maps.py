"""Label maps block by block against the plain path (all scores at full size, then arg-max): time and peak memory.

    python -m benchmarks.label_maps

"smooth" scores resemble a network's: neighbours agree but for noise. "noise" is the worst case: every grid point drawn
by itself, so that few rows can be left out. Peak memory is that of a fresh process above its level before the call.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmarks.measure import peak_mebibytes, print_table, seconds
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.types import DensePrediction, MaskPrediction, Prediction, WindowPrediction


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    kind: str
    num_classes: int
    size: tuple[int, int]
    large: bool = False

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.kind}, {self.num_classes} classes, {self.size[0]} x {self.size[1]}"


CASES = [
    Case("smooth", 150, (512, 683)),
    Case("smooth", 847, (512, 683)),
    Case("noise", 150, (512, 683)),
    Case("noise", 847, (512, 683)),
    Case("windows", 150, (512, 683)),
    Case("windows", 847, (512, 683)),
    Case("masks", 150, (512, 683)),
    Case("masks", 847, (512, 683)),
    Case("smooth", 847, (2000, 1500), large=True),
    Case("noise", 847, (2000, 1500), large=True),
    Case("windows", 847, (2000, 1500), large=True),
]


def smooth_scores(num: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Scores (num, height, width) whose neighbours agree but for some noise, like 100 x cosines."""
    coarse = torch.randn(1, num, height // 5 + 2, width // 5 + 2, generator=generator) * 2
    noise = torch.randn(num, height, width, generator=generator) * 0.3
    return F.interpolate(coarse, (height, width), mode="bicubic")[0] + noise + 20


def make(case: Case) -> Prediction:
    """Draw a prediction: a ViT-16 grid at short side 512, windows of 224 with stride 112 at 336, or 100 masks."""
    generator = torch.Generator().manual_seed(0)
    k, (height, width) = case.num_classes, case.size
    rows, columns = round(32 * height / 512), round(32 * width / 512)
    if case.kind == "noise":
        return DensePrediction(torch.randn(k, rows, columns, generator=generator), case.size)
    if case.kind == "masks":
        masks = (smooth_scores(100, 128, 171, generator) - 22).sigmoid()
        return MaskPrediction(torch.randn(100, k, generator=generator).mul_(3).softmax(1), masks, case.size)
    if case.kind == "windows":
        short = 336 / min(case.size)
        canvas = round(height * short), round(width * short)
        starts = [[*range(0, side - 224, 112), side - 224] for side in canvas]
        boxes = torch.tensor([[top, left, 224, 224] for top in starts[0] for left in starts[1]])
        logits = torch.stack([smooth_scores(k, 14, 14, generator) for _ in boxes])
        return WindowPrediction(logits, boxes, canvas, case.size)
    return DensePrediction(smooth_scores(k, rows, columns, generator), case.size)


def plain(prediction: Prediction) -> Tensor:
    """All scores at full size, then the arg-max."""
    return plain_scores(prediction).argmax(0)


def plain_scores(prediction: Prediction) -> Tensor:
    match prediction:
        case DensePrediction():
            return _bilinear(prediction.logits, prediction.size)
        case MaskPrediction():
            masks = _bilinear(prediction.masks, prediction.size)
            return torch.einsum("nm,nhw->mhw", prediction.class_scores, masks)
        case WindowPrediction():
            total = torch.zeros(prediction.logits.shape[1], *prediction.canvas)
            covered = torch.zeros(prediction.canvas)
            for window, (top, left, height, width) in zip(prediction.logits, prediction.boxes.tolist(), strict=True):
                total[:, top : top + height, left : left + width] += _bilinear(window, (height, width))
                covered[top : top + height, left : left + width] += 1
            return _bilinear(total.div_(covered), prediction.size)


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


WAYS = {"plain": plain, "blocks": label_map}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--large", action="store_true", help="run the plain path on 2000 x 1500 too: 10 GB of memory")
    parser.add_argument("--memory", nargs=2, metavar=("WAY", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(json.dumps(measure_memory(options.memory[0], CASES[int(options.memory[1])])))
        return
    rows = []
    for index, case in enumerate(tqdm(CASES, desc="label maps")):
        ways = ["blocks"] if case.large and not options.large else list(WAYS)
        rows.append(line(case, index, ways, options.repeats, options.threads))
    header = ["scores", "plain ms", "blocks ms", "times as fast", "plain MiB", "blocks MiB", "share of memory"]
    print_table(f"Label maps on the CPU, {options.threads} threads", header, rows)


def measure_memory(way: str, case: Case) -> float:
    prediction = make(case)
    WAYS[way](make(Case(case.kind, 4, (64, 64))))  # buffers of the libraries are not the call's
    return peak_mebibytes(lambda: WAYS[way](prediction))


def line(case: Case, index: int, ways: list[str], repeats: int, threads: int) -> list[str]:
    peaks = {}
    for way in ways:
        command = [
            sys.executable,
            "-m",
            "benchmarks.label_maps",
            "--threads",
            str(threads),
            "--memory",
            way,
            str(index),
        ]
        peaks[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    prediction = make(case)
    spent = seconds({way: partial(WAYS[way], prediction) for way in ways}, 1 if case.large else repeats)
    cells = [f"{1000 * spent[way]:.0f}" if way in ways else "" for way in WAYS]
    cells += [f"{spent['plain'] / spent['blocks']:.1f}" if "plain" in ways else ""]
    cells += [f"{peaks[way]:.0f}" if way in ways else "" for way in WAYS]
    return [case.title, *cells, f"1/{peaks['plain'] / max(peaks['blocks'], 1):.0f}" if "plain" in ways else ""]


if __name__ == "__main__":
    main()
