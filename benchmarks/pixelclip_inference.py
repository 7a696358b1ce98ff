"""PixelCLIP's inference beside the order of its published code in plain torch: one picture, text features cached.

    python -m benchmarks.pixelclip_inference [--classes 150] [--repeats 7] [--cpu-time]

A picture of 512 x 683 becomes 640 x 853 and then 320 x 320, ViT-B/16 with random weights reads it, and its 64 x 64
scores become a label map of the picture's size. "plain" resizes by PIL, normalises, resizes again, resizes the features
to 64 x 64 before they meet the names, brings all scores to full size and takes the arg-max. Both have one encoder, the
core's: what is compared is the time outside it. Random weights tell classes apart badly, so that the label map is
slower here than with trained ones.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import print_table, seconds
from ovseg_cli.core.clip.model import load_clip
from ovseg_cli.core.methods.pixelclip import PixelClip
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.types import DensePrediction, TextFeatures

SIZE, FIRST, SIDE, GRID = (512, 683), (640, 853), 320, 64


def picture() -> Tensor:
    """Draw (3, 512, 683) uint8 whose neighbouring pixels agree."""
    coarse = torch.rand(1, 3, 16, 21, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255)[0].to(torch.uint8)


@dataclass(frozen=True)
class Plain:
    """The published order of operations."""

    method: PixelClip

    def image(self, image: Tensor) -> Tensor:
        """Return (1, 3, 320, 320)."""
        loaded = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(FIRST[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(loaded)).permute(2, 0, 1).float()
        mean, std = (255 * value[:, None, None] for value in (self.method.clip.mean, self.method.clip.std))
        return F.interpolate(((pixels - mean) / std)[None], (SIDE, SIDE), mode="bilinear", align_corners=False)

    def labels(self, features: Tensor, text: TextFeatures) -> Tensor:
        """Return (512, 683) of (1, 20, 20, D)."""
        maps = F.interpolate(features.permute(0, 3, 1, 2), (GRID, GRID), mode="bilinear", align_corners=False)
        scores = torch.einsum("bdhw,md->bmhw", F.normalize(maps, dim=1), text.features)
        return F.interpolate(scores, SIZE, mode="bilinear", align_corners=False)[0].argmax(0)


@dataclass(frozen=True)
class Ours:
    """The method's own steps, in which `predict` takes them."""

    method: PixelClip

    def image(self, image: Tensor) -> Tensor:
        """Return (1, 3, 320, 320)."""
        return self.method.prepare(image)[None]

    def labels(self, features: Tensor, text: TextFeatures) -> Tensor:
        """Return (512, 683) of (1, 20, 20, D)."""
        return label_map(DensePrediction(self.method.cosines(features, text.features)[0], SIZE))


@torch.no_grad()
def main() -> None:
    """Time the parts of both, which take turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="the processor's own time, for a busy machine")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    method, image = PixelClip(load_clip("ViT-B-16", "random")), picture()
    text = TextFeatures.of_classes(F.normalize(torch.randn(options.classes, method.clip.embed_dim), dim=1))
    inputs = method.prepare(image)[None]
    features = method.features(inputs)
    ways: dict[str, Plain | Ours] = {"plain": Plain(method), "ours": Ours(method)}
    calls: dict[str, Callable[[], object]] = {"encoder": lambda: method.features(inputs)}
    for name, way in ways.items():
        calls[f"{name} image"] = lambda way=way: way.image(image)  # type: ignore[misc]
        calls[f"{name} labels"] = lambda way=way: way.labels(features, text)  # type: ignore[misc]
    spent = seconds(calls, options.repeats, time.process_time if options.cpu_time else time.perf_counter)
    report(spent, options.classes, options.threads)
    one, other = (way.labels(method.features(way.image(image)), text) for way in ways.values())
    print(f"\n{100 * (one == other).double().mean():.2f} % of the labels are equal")


def report(spent: dict[str, float], classes: int, threads: int) -> None:
    """Print milliseconds and ratios."""
    rows = []
    for part in ("image", "labels"):
        plain, ours = spent[f"plain {part}"], spent[f"ours {part}"]
        rows.append([part, f"{1000 * plain:.1f}", f"{1000 * ours:.1f}", f"{plain / ours:.1f}"])
    outside = [spent[f"{way} image"] + spent[f"{way} labels"] for way in ("plain", "ours")]
    whole = [part + spent["encoder"] for part in outside]
    rows.append(["encoder", *[f"{1000 * spent['encoder']:.0f}"] * 2, "1.0"])
    for name, (plain, ours) in (("outside the encoder", outside), ("whole picture", whole)):
        rows.append([name, f"{1000 * plain:.0f}", f"{1000 * ours:.0f}", f"{plain / ours:.1f}"])
    shares = [f"{100 * part / every:.1f} %" for part, every in zip(outside, whole, strict=True)]
    rows.append(["share outside", *shares, ""])
    title = f"PixelCLIP, ViT-B/16, 512 x 683, {classes} classes, {threads} threads"
    print_table(title, ["part", "plain ms", "ours ms", "times as fast"], rows)


if __name__ == "__main__":
    main()
