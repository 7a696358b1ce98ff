"""Counting one picture against the ways of detectron2 and mmsegmentation, written down here from their description.

    python -m benchmarks.counting

One 512 x 683 picture, 25 classes present, 5 % ignored. All ways give the same counts, which is checked first. Ours
also checks every value and returns the non-zero cells of the picture; theirs do neither.
"""

import argparse
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from benchmarks.measure import print_table, seconds
from ovseg_cli.core.evaluation.confusion import Counts, count
from ovseg_cli.core.evaluation.metrics import Areas

IGNORE = 65535


def draw(num_classes: int) -> tuple[Tensor, Tensor]:
    """Draw prediction (int32, as label maps are) and label (int64), blocky as real ones."""
    generator = torch.Generator().manual_seed(0)
    present = torch.randperm(num_classes, generator=generator)[:25]
    shape = (512, 683)
    coarse = present[torch.randint(0, 25, (32, 43), generator=generator)]
    label = coarse.repeat_interleave(16, 0).repeat_interleave(16, 1)[:, : shape[1]].contiguous()
    other = present[torch.randint(0, 25, shape, generator=generator)]
    prediction = torch.where(torch.rand(shape, generator=generator) < 0.3, other, label).to(torch.int32)
    label[torch.rand(shape, generator=generator) < 0.05] = IGNORE
    return prediction, label


def ours(prediction: Tensor, label: Tensor, num_classes: int) -> Counts:
    """Return counts with ignored pixels in an extra column, every value checked."""
    return count(prediction, label, num_classes, IGNORE)


def detectron2_way(prediction: Tensor, label: Tensor, num_classes: int) -> NDArray[np.int64]:
    """Count in numpy: both as 64-bit integers, ignore as class K, one (K + 1)² bincount; rows prediction."""
    truth, guess = np.array(label, dtype=np.int64), np.array(prediction, dtype=np.int64)
    truth[truth == IGNORE] = num_classes
    size = num_classes + 1
    return np.bincount(size * guess.ravel() + truth.ravel(), minlength=size * size).reshape(size, size)


def mmseg_way(prediction: Tensor, label: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Count by leaving ignored pixels out and three float histograms: hits, predicted, truth."""
    counted = label != IGNORE
    guess, truth = prediction[counted], label[counted]
    return tuple(
        torch.histc(ids.float(), bins=num_classes, min=0, max=num_classes - 1)
        for ids in (guess[guess == truth], guess, truth)
    )


def check(prediction: Tensor, label: Tensor, num_classes: int) -> None:
    """Refuse to time ways that do not agree."""
    matrix = ours(prediction, label, num_classes).matrix()
    areas = Areas.of(matrix)
    assert (detectron2_way(prediction, label, num_classes).T[:-1, :-1] == matrix).all()
    hits, predicted, truth = (part.numpy() for part in mmseg_way(prediction, label, num_classes))
    assert (hits == areas.hits).all() and (predicted == areas.predicted).all() and (truth == areas.truth).all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for num_classes in tqdm((171, 847), desc="counting"):
        pair = draw(num_classes)
        check(*pair, num_classes)
        ways = {"ours": ours, "detectron2": detectron2_way, "mmseg": mmseg_way}
        calls = {name: partial(way, *pair, num_classes) for name, way in ways.items()}
        spent = seconds(calls, options.repeats)
        ratios = [f"{spent[name] / spent['ours']:.1f}" for name in ("detectron2", "mmseg")]
        rows.append([str(num_classes), *(f"{1000 * spent[name]:.2f}" for name in ways), *ratios])
    header = ["classes", "ours ms", "detectron2's way ms", "mmseg's way ms", "detectron2 / ours", "mmseg / ours"]
    print_table("Counting one 512 x 683 picture, one thread", header, rows)


if __name__ == "__main__":
    main()
