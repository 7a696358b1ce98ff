"""A training step of PixelCLIP beside its straightforward form, and what makes its decoder fast, one by one.

    python -m benchmarks.pixelclip_step [--only step] [--precision float32] [--clip ViT-B-16] [--repeats 3]

"straight" is tests/core/straight_pixelclip.py: texts to the end of the context, momentum features and masks written out
on the 256 x 256 grid, B·k maps through the decoder and to that grid at once, gradients by autograd. "ours" is the
package. Both have the same random weights; the relative difference of their losses is printed beside the times.

* step: two pictures of 640 x 640 with 60 overlapping masks each, 64 class prompts: both towers, assignment, decoder,
  loss, backward, AdamW.
* decoder: decoder and loss alone, forward and backward, of 2 x 64 maps of 20 x 20; from straight to ours in steps:
  channels last in memory; layers merged as well; the loss a few maps at a time as well; a few maps at a time through
  all of it and at once backward.

Every way has a fresh process and takes its turn, numbers are medians: wall seconds and processor seconds of all threads
of a second call, and peak memory of the first above the level before.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.measure import peak_mebibytes, print_table
from ovseg_cli.core.clip.inputs import normalise
from ovseg_cli.core.clip.model import load_clip
from ovseg_cli.core.data import rle
from ovseg_cli.core.methods.pixelclip import PixelClip, PixelClipTraining
from ovseg_cli.core.nn.covered_bce import covered_bce_sum
from ovseg_cli.core.nn.decoded_bce import decoded_bce_sum
from ovseg_cli.core.nn.map_decoder import MapDecoder
from ovseg_cli.core.proposals.regions import split_regions
from ovseg_cli.core.training.mask_crops import MaskCrops
from ovseg_cli.core.training.precision import forward_context, step_context
from ovseg_cli.core.types import TextFeatures
from tests.core import straight_pixelclip as plain

PICTURES, MASKS, CROP, CLASSES, GRID, SIDE = 2, 60, 640, 64, 256, 20
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WAYS = {
    "step": ["straight", "ours"],
    "decoder": ["straight", "channels last", "merged", "merged, own loss", "ours"],
}
CPU = torch.device("cpu")
Call = Callable[[], Tensor]


def masks_of(generator: np.random.Generator) -> np.ndarray:
    """(N, H, W) bool: ellipses of all sizes, which overlap freely."""
    rows, columns = np.mgrid[:CROP, :CROP]
    found = []
    for _ in range(MASKS):
        (y, x), (a, b) = generator.uniform(0, CROP, 2), np.exp(generator.uniform(2.5, 5.3, 2))
        found.append(((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1)
    return np.stack(found)


class Step:
    """Both ways of a step, with the same weights."""

    def __init__(self, clip_name: str):
        torch.manual_seed(0)
        clip = load_clip(clip_name, "random")
        self.masks = [masks_of(np.random.default_rng(seed)) for seed in range(PICTURES)]
        self.images = torch.randint(0, 256, (2, PICTURES, 3, CROP, CROP), dtype=torch.uint8)
        self.method = PixelClip(clip)
        self.groups = self.method.parameter_groups(PixelClipTraining())
        self.method.train_mode()

    def ours(self) -> Call:
        """The package's step: what the loop does before the losses, and the losses."""
        parts = [zip(("ids", "table"), split_regions(rle.encode(m), (CROP, CROP)), strict=True) for m in self.masks]
        crops = MaskCrops.of([{name: torch.from_numpy(array.copy()) for name, array in part} for part in parts])
        areas, boxes = torch.tensor([[CROP, CROP]] * PICTURES), torch.zeros(PICTURES, 4, dtype=torch.int64)
        batch = {"images": self.images[0], "strong": self.images[1], "areas": areas, "cut_outs": boxes, "masks": crops}
        text = TextFeatures.of_classes(torch.zeros(0, self.method.clip.embed_dim))

        def loss() -> Tensor:
            with torch.no_grad():
                (joins,) = self.method.before_step([batch], text, lambda values: values)
            return self.method.losses(batch | joins, text, self.method.normalisers(batch | joins))["cross_entropy"]

        return updated(torch.optim.AdamW(self.groups), loss)

    def straight(self) -> Call:
        """The straightforward step."""
        method, clip = self.method, self.method.clip
        module = copy.deepcopy(clip.module)
        trained = {name for name, p in method.tower.named_parameters() if p.requires_grad}
        tuned = [p.requires_grad_(name in trained) for name, p in module.visual.named_parameters()]
        words = method.class_prompts.prompt_tokens.detach().clone().requires_grad_()
        decoder = {n: p.detach().clone().requires_grad_() for n, p in method.decoder.named_parameters()}
        sentence = method.class_prompts.sentences[0]
        ids = torch.zeros(clip.tokenizer.context_length, dtype=torch.int64)
        ids[: len(sentence.ids(words.shape[1]))] = torch.tensor(sentence.ids(words.shape[1]))
        places = range(len(sentence.before), len(sentence.before) + words.shape[1])
        teacher = copy.deepcopy(clip.visual).requires_grad_(False)
        step = plain.Straight(module, teacher, plain.dense_vit, words, ids, places, decoder, 100.0, grid=GRID)
        masks = [torch.from_numpy(m) for m in self.masks]
        size = (SIDE * clip.patch_size,) * 2

        def loss() -> Tensor:
            weak, strong = (plain.enlarged(normalise(i.float(), clip.mean, clip.std), size) for i in self.images)
            return step.loss(weak, strong, masks)

        return updated(torch.optim.AdamW([*[p for p in tuned if p.requires_grad], words, *decoder.values()]), loss)


class Decoder:
    """Ways of decoder and loss."""

    def __init__(self, clip_name: str):
        torch.manual_seed(0)
        self.decoder = MapDecoder()
        self.weights = {n: p.detach().clone().requires_grad_() for n, p in self.decoder.named_parameters()}
        self.similarity = torch.rand(PICTURES, CLASSES, SIDE, SIDE).requires_grad_()
        grid = [F.interpolate(torch.from_numpy(masks_of(np.random.default_rng(s)))[None].float(), GRID) for s in (0, 1)]
        chosen = torch.randint(CLASSES, (MASKS,))
        self.targets = torch.stack([plain.target_maps(masks[0], chosen, CLASSES) for masks in grid])
        self.ids, self.tables = plain.regions(self.targets)
        self.count = int((self.targets.sum(1) > 0).sum()) * CLASSES

    def straight(self) -> Call:
        """Layers as they stand, full-size logits and targets."""

        def loss() -> Tensor:
            return plain.loss_sum(plain.decode(self.weights, self.similarity), self.targets)[0] / self.count

        return updated(torch.optim.SGD([*self.weights.values()], 0), loss)

    def channels_last(self) -> Call:
        """The same layers with channels last."""
        for name, weight in self.weights.items():
            if weight.dim() == 4:
                last = weight.detach().contiguous(memory_format=torch.channels_last)
                self.weights[name] = last.requires_grad_()
        return self.straight()

    def merged(self) -> Call:
        """Merged layers."""
        return self._own(lambda: plain.loss_sum(self.decoder(self.similarity), self.targets)[0])

    def merged_own_loss(self) -> Call:
        """Merged layers, and the loss a few maps at a time."""
        return self._own(lambda: covered_bce_sum(self.decoder(self.similarity), self.ids, self.tables))

    def ours(self) -> Call:
        """A few maps at a time through decoder and loss, and back at once."""
        return self._own(lambda: decoded_bce_sum(self.decoder, self.similarity, self.ids, self.tables))

    def _own(self, total: Call) -> Call:
        return updated(torch.optim.SGD(self.decoder.parameters(), 0), lambda: total() / self.count)


def updated(optimizer: torch.optim.Optimizer, loss: Call) -> Call:
    """Return the step with this loss."""

    def step() -> Tensor:
        optimizer.zero_grad()
        with step_context(CPU):
            with forward_context(CPU, PRECISIONS[precision]):
                value = loss()
            value.backward()
        optimizer.step()
        return value.detach()

    return step


precision = "float32"
"""Of this process."""


def measure(clip: str, case: str, way: str) -> dict[str, float]:
    """Loss, wall seconds, processor seconds and MiB of one way."""
    work = (Step if case == "step" else Decoder)(clip)
    call, losses = getattr(work, way.replace(", ", "_").replace(" ", "_"))(), []
    peak = peak_mebibytes(lambda: losses.append(float(call())))
    wall, busy = time.perf_counter(), time.process_time()
    call()
    spent = {"wall": time.perf_counter() - wall, "busy": time.process_time() - busy}
    return {**spent, "peak": peak, "loss": losses[0]}


def main() -> None:
    global precision
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", default="ViT-B-16", help="a ViT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--precision", nargs="+", choices=[*PRECISIONS], default=[*PRECISIONS])
    parser.add_argument("--child", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        precision = options.precision[0]
        print(json.dumps(measure(options.clip, *options.child)))
        return
    lines = [(case, kind) for case in options.only for kind in options.precision]
    header = ["case", "precision", "way", "s", "processor s", "times as fast", "MiB", "share of memory", "loss off"]
    rows = [row for line in tqdm(lines, desc="pixelclip") for row in rows_of(*line, options)]
    title = f"{options.clip}, {PICTURES} pictures, {CLASSES} prompts, {MASKS} masks each, {options.threads} threads"
    print_table(title, header, rows)


def rows_of(case: str, kind: str, options: argparse.Namespace) -> list[list[str]]:
    """Measure all ways in turns."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS[case]}
    for _ in range(options.repeats):
        for way, values in found.items():
            values.append(in_a_fresh_process(case, way, kind, options))
    medians = {way: {k: statistics.median(v[k] for v in values) for k in values[0]} for way, values in found.items()}
    first, rows = medians["straight"], []
    for way, own in medians.items():
        faster, share = first["busy"] / own["busy"], own["peak"] / first["peak"]
        numbers = [f"{own['wall']:.2f}", f"{own['busy']:.2f}", f"{faster:.2f}", f"{own['peak']:.0f}", f"{share:.2f}"]
        rows.append([case, kind, way, *numbers, f"{abs(own['loss'] / first['loss'] - 1):.0e}"])
    return rows


def in_a_fresh_process(case: str, way: str, kind: str, options: argparse.Namespace) -> Any:
    command = [sys.executable, "-m", "benchmarks.pixelclip_step", "--child", case, way, "--precision", kind]
    command += ["--clip", options.clip, "--threads", str(options.threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
