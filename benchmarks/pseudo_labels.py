"""What would self-training of ZegCLIP or TagCLIP label, and is it right? Asked of finished runs, on training pictures.

    python -m benchmarks.pseudo_labels runs/zegclip-toy-novel-TIME/seed-0 [RUN …] [--data toy:novel] [--pictures 120]

Open pixels are those without a seen label: of an unseen class, or of none. Each gets the best of the unseen names, as
in a step of transductive training (`own_labels`). Reads true labels, which self-training does not.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.finished import open_finished
from benchmarks.measure import print_table
from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.methods.one_stage import OneStageMethod
from ovseg_cli.core.runtime import Folders, folders
from ovseg_cli.core.types import TextFeatures

HEADERS = ["run", "open", "clutter of them", "unseen named rightly", "most frequent name", "its share"]


@torch.no_grad()
def confusion(
    method: OneStageMethod, text: TextFeatures, pictures: SegmentationData, unseen: Tensor, count: int
) -> tuple[Tensor, int]:
    """Return (K + 1, U) pixels, true class (last: none) by place of the pseudo label in `unseen`; and all pixels."""
    classes = text.num_classes
    found = torch.zeros((classes + 1) * len(unseen), dtype=torch.int64)
    total = 0
    for index in range(min(count, len(pictures))):
        image, label = torch.tensor(pictures.image(index)), torch.tensor(pictures.label(index)).long()
        logits, _ = method.mask_logits(method.normalise(image.permute(2, 0, 1)[None].float()), text)
        best = F.interpolate(logits[:, unseen], label.shape, mode="bilinear", align_corners=False).argmax(1)[0]
        label = torch.where(label < classes, label, classes)
        is_open = torch.isin(label, torch.cat([unseen, torch.tensor([classes])]))
        found += torch.bincount((label * len(unseen) + best)[is_open], minlength=len(found))
        total += label.numel()
    return found.view(classes + 1, len(unseen)), total


def measure(run: str, data: str, count: int, places: Folders) -> tuple[str, ...]:
    """Return a row of the table."""
    opened = open_finished(run, data, "train", places)
    unseen = torch.tensor(opened.vocabulary.unseen_ids)
    found, total = confusion(opened.method, opened.text, opened.pictures, unseen, count)
    of_unseen, by_name = found[unseen], found.sum(0)
    right = of_unseen.diagonal().sum() / of_unseen.sum()
    best = int(by_name.argmax())
    shares = (found.sum() / total, found[-1].sum() / found.sum(), right, by_name[best] / by_name.sum())
    percent = [f"{100 * float(share):.1f} %" for share in shares]
    return run, *percent[:3], opened.vocabulary.class_names[int(unseen[best])], percent[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=str)
    parser.add_argument("--data", default="toy:novel")
    parser.add_argument("--pictures", type=int, default=120)
    asked = parser.parse_args()
    places = folders(None, Path("runs"))
    title = f"{asked.data}, {asked.pictures} training pictures; open pixels, each given the best unseen name"
    print_table(title, HEADERS, [measure(run, asked.data, asked.pictures, places) for run in asked.runs])


if __name__ == "__main__":
    main()
