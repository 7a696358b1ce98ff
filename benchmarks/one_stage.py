"""ZegCLIP and TagCLIP beside their straightforward form: a picture's label map, and a step of training.

    python -m benchmarks.one_stage [--clip ViT-B-16] [--threads 1] [--repeats 3] [--only train-156 ...]

"straight" is tests/core/methods/straight_one_stage.py: every token through every block, every layer of the decoder to
its end, and at 512 px logits, targets, losses and scores of all classes at every pixel, gradients by autograd; windows
are added up as in mmseg. "ours" is the package. Both have the same random weights; the largest difference of their
losses (dropout off, 128 px), or the share of equal labels, is printed beside the times.

A picture is (3, 512, 512) uint8; the time runs from it to its label map. A step has two pictures: forward, backward and
AdamW, dropout on. Every call has a fresh process, which first makes the same call with a picture of 64 px; the ways
take turns, numbers are medians: wall seconds, processor seconds of all threads, peak memory above the level before.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.measure import peak_mebibytes, print_table
from ovseg_cli.core.clip.model import ClipModel, load_clip
from ovseg_cli.core.methods.one_stage import OneStageMethod
from ovseg_cli.core.methods.tagclip import TagClip
from ovseg_cli.core.methods.zegclip import ZegClip
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.types import TextFeatures, TrainBatch
from tests.core.methods import straight_one_stage as plain

SIDE, PICTURES, DROPOUT = 512, 2, 0.1
CHECKED_SIDE = 128  # of the pictures that both losses are compared on


@dataclass(frozen=True)
class Case:
    """One line of the table: what is done, with how many names and prompts."""

    work: str
    names: int
    prompts: int

    def __str__(self) -> str:
        return f"{self.work}-{self.names}"


CASES = [Case("picture", 20, 10), Case("picture", 171, 100), Case("train", 15, 10), Case("train", 156, 100)]
METHODS: dict[str, type[OneStageMethod]] = {"zegclip": ZegClip, "tagclip": TagClip}
Step = Callable[[], Tensor]


class Work:
    """One method, one case: both ways with the same weights."""

    def __init__(self, clip: ClipModel, name: str, case: Case):
        torch.manual_seed(0)
        self.method = METHODS[name](clip, METHODS[name].Config(prompts=case.prompts))
        self.method.parameter_groups(self.method.Training())
        state = plain.with_dead_end(self.method.trained_state())
        self.straight = plain.Straight(clip.visual, state, self.method.config.decoder_heads)
        rows = F.normalize(torch.randn(case.names, clip.embed_dim), dim=1)
        seen = torch.ones(case.names, dtype=torch.bool)
        if case.work == "picture":
            seen[::10] = False
        self.text = TextFeatures(rows, torch.arange(case.names), case.names, seen)
        self.fusion = {"fusion": self.method.config.fusion} if isinstance(self.method, TagClip) else {}

    # a picture

    def label_maps(self, side: int = SIDE) -> dict[str, Step]:
        """From a picture to its label map."""
        image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
        self.method.eval()
        return {"straight": lambda: self._straight_labels(image), "ours": lambda: self._own_labels(image)}

    @torch.inference_mode()
    def _own_labels(self, image: Tensor) -> Tensor:
        return label_map(self.method.predict([image], self.text)[0])

    @torch.inference_mode()
    def _straight_labels(self, image: Tensor) -> Tensor:
        canvas, own = self.method.prepare(image)[None], self.method.config
        size, seen = (image.shape[1], image.shape[2]), self.text.seen
        return plain.slide_labels(
            self.straight, canvas, self.text.features, seen, size, own.window, own.stride, own.gamma, **self.fusion
        )[0]

    # a step

    def batch(self, side: int) -> TrainBatch:
        """Two pictures with some seven classes each; the rest has none."""
        images = torch.randint(0, 256, (PICTURES, 3, side, side), dtype=torch.uint8)
        few = torch.randint(0, self.text.num_classes, (PICTURES, 7))
        patches = torch.randint(-2, 7, (PICTURES, 8, 8))
        patches = torch.where(patches < 0, -1, few.gather(1, patches.clamp_min(0).flatten(1)).view_as(patches))
        labels = F.interpolate(patches[:, None].float(), (side, side), mode="nearest")[:, 0].long()
        return {"images": images, "labels": labels}

    def steps(self, side: int = SIDE, dropout: float = DROPOUT) -> dict[str, Step]:
        """Forward, backward, update; each returns its loss."""
        batch = self.batch(side)
        if dropout:
            self.method.train_mode()
        else:
            self.method.eval()
        self.straight.dropout = dropout
        own = [p for p in self.method.parameters() if p.requires_grad]
        self.straight.weights = {k: v.detach().requires_grad_() for k, v in self.straight.weights.items()}
        settings = {"lr": self.method.recipe.learning_rate, "weight_decay": self.method.recipe.weight_decay}
        optimizers = [torch.optim.AdamW(w, **settings) for w in (own, list(self.straight.weights.values()))]
        return {
            "straight": lambda: update(optimizers[1], self._straight_loss(batch)),
            "ours": lambda: update(optimizers[0], self._own_loss(batch)),
        }

    def _own_loss(self, batch: TrainBatch) -> Tensor:
        losses = self.method.losses(batch, self.text, self.method.normalisers(batch))
        return torch.stack(list(losses.values())).sum()

    def _straight_loss(self, batch: TrainBatch) -> Tensor:
        images, recipe = self.method.normalise(batch["images"].float()), self.method.recipe
        logits, trust = self.straight(images, self.text.features)
        weights = {"focal": recipe.focal_weight, "dice": recipe.dice_weight}
        weights["trust"] = getattr(recipe, "trust_weight", 0.0)
        return plain.total_loss(logits, trust, batch["labels"], batch["labels"] < 0, weights)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Compute the gradients and take a step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def agreement(work: Work, case: Case) -> str:
    """How far the two ways agree, with the weights as they were drawn."""
    if case.work == "picture":
        first, second = (way() for way in work.label_maps().values())
        return f"{float((first == second).float().mean()):.6f} equal"
    batch = work.batch(CHECKED_SIDE)
    work.method.eval()
    with torch.no_grad():
        own, straight = work._own_loss(batch), work._straight_loss(batch)
    return f"loss {float((own - straight).abs() / straight):.0e} off"


def ways(work: Work, case: Case, side: int = SIDE) -> dict[str, Step]:
    """What is compared."""
    return work.label_maps(side) if case.work == "picture" else work.steps(side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", default="ViT-B-16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[str(case) for case in CASES], help="some of the cases")
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=sorted(METHODS, reverse=True))
    parser.add_argument("--child", nargs=3, metavar=("METHOD", "CASE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = {str(case): case for case in CASES}
    if options.child:
        name, case, way = options.child
        torch.manual_seed(0)
        print(json.dumps(measure(load_clip(options.clip, "random"), name, cases[case], way)))
        return
    lines = [(name, case) for case in options.only or cases for name in options.methods]
    rows = [line(name, case, options) for name, case in tqdm(lines, desc="one stage")]
    header = ["work-names", "method", "straight s", "ours s", "times as fast", "straight CPU s", "ours CPU s", "ratio"]
    header += ["straight MiB", "ours MiB", "share of memory", "agreement"]
    title = f"{options.clip}, {SIDE} px, steps of {PICTURES} pictures, {options.threads} threads"
    print_table(title, header, rows)


def measure(clip: ClipModel, name: str, case: Case, way: str) -> list[float | str]:
    """Wall seconds, processor seconds, MiB of one call; for "agreement" a sentence."""
    work = Work(clip, name, case)
    if way == "agreement":
        return [agreement(work, case)]
    ways(work, case, 64)[way]()  # what libraries set up is not the call's
    call, spent = ways(work, case)[way], []

    def timed() -> None:
        wall, busy = time.perf_counter(), time.process_time()
        call()
        spent.extend([time.perf_counter() - wall, time.process_time() - busy])

    peak = peak_mebibytes(timed)
    return [*spent, peak]


def line(name: str, case: str, options: argparse.Namespace) -> list[str]:
    """Measure both ways in turns, each time in a fresh process."""
    found = {"straight": [], "ours": []}
    for _ in range(options.repeats):
        for way, values in found.items():
            values.append(in_a_fresh_process(name, case, way, options))
    numbers = []
    for straight, ours in zip(
        *(map(statistics.median, zip(*values, strict=True)) for values in found.values()), strict=True
    ):
        digits = 0 if len(numbers) == 6 else 2
        ratio = ours / straight if len(numbers) == 6 else straight / ours
        numbers += [f"{straight:.{digits}f}", f"{ours:.{digits}f}", f"{ratio:.2f}"]
    return [case, name, *numbers, str(in_a_fresh_process(name, case, "agreement", options)[0])]


def in_a_fresh_process(name: str, case: str, way: str, options: argparse.Namespace) -> list[Any]:
    command = [sys.executable, "-m", "benchmarks.one_stage", "--child", name, case, way]
    command += ["--clip", options.clip, "--threads", str(options.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
