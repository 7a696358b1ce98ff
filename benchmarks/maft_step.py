"""A training step of MAFT: masks from a cache and shared passes, beside the generator and every pass in full.

python -m benchmarks.maft_step [--clip ViT-B-16] [--side 480] [--crop 640] [--masks 100] [--repeats 3]

"in full" is the step as published: FreeSeg's generator (ResNet-101, its sizes as published) on the crop, the student
with masks as one sequence, the student without masks from the first block, the teacher, masks enlarged to the crop for
their overlaps. "in full, masks given" leaves the generator out. "shared, cached" is core/methods/maft.py with soft
masks of a cache; reading the cache is the loader's work and not in the step. These three give the same losses on the
same masks: the largest relative difference is printed. "in bfloat16" is other arithmetic, for machines that have it.
Random weights, one picture a step, processor seconds of one thread, forward and backward.
"""

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import print_table, seconds
from ovseg_cli.core.clip.model import ClipModel, load_clip
from ovseg_cli.core.clip.vit import embed, project, run_blocks
from ovseg_cli.core.methods.maft import Maft, MaftConfig, MaftTraining, tuned_names
from ovseg_cli.core.methods.masked import training_canvases
from ovseg_cli.core.nn.generator import FreeSegGenerator
from ovseg_cli.core.nn.generator_config import GeneratorConfig
from ovseg_cli.core.nn.maft_losses import distillation_sum, mask_aware_count, mask_aware_sum
from ovseg_cli.core.proposals.soft_masks import SoftMasks, bilinear
from ovseg_cli.core.types import TextFeatures, TrainBatch
from tests.core.clip.one_sequence import one_sequence

CLASSES = 156


class Step:
    """One picture, its label, its masks, a student whose weights are not the teacher's any more."""

    def __init__(self, clip: ClipModel, options: argparse.Namespace):
        generator = torch.Generator().manual_seed(0)
        self.method = Maft(clip, MaftConfig(clip_side=options.side, resize="none"))
        self.method.parameter_groups(MaftTraining())
        with torch.no_grad():
            for name in tuned_names(clip.visual):
                self.method.ip_clip.get_parameter(name).mul_(1.02)
        crop = options.crop
        blocks = torch.randint(-1, 6, (1, 4, 4), generator=generator)
        self.labels = F.interpolate(blocks[None].float(), (crop, crop), mode="nearest")[0].long()
        self.images = torch.randint(0, 256, (1, 3, crop, crop), generator=generator).to(torch.uint8)
        coarse = torch.randn(options.masks, 1, 5, 5, generator=generator) - 0.4
        probabilities = F.interpolate(coarse, (crop // 4, crop // 4), mode="bicubic")[:, 0].mul(8).sigmoid()
        self.levels = (255 * probabilities).round().to(torch.uint8)
        self.enlarge = bilinear(crop // 4, crop)
        rows = torch.randn(CLASSES, clip.embed_dim, generator=generator)
        self.text = TextFeatures.of_classes(F.normalize(rows, dim=1))
        self.freeseg = FreeSegGenerator(GeneratorConfig(queries=options.masks, embed_width=clip.embed_dim)).eval()
        self.freeseg.requires_grad_(False)

    def batch(self) -> TrainBatch:
        """What the loader hands over."""
        masks = SimpleNamespace(crops=[SoftMasks(self.levels, self.enlarge, self.enlarge)])
        return {"images": self.images, "labels": self.labels, "masks": masks}

    def shared(self) -> Tensor:
        """The step of this project."""
        batch = self.batch()
        return self.update(sum(self.method.losses(batch, self.text, self.method.normalisers(batch)).values()))

    def in_full(self, generate: bool) -> Tensor:
        """The step as published, with or without the generator; its masks are then replaced by the given ones."""
        if generate:
            self.propose()
        masks = self.enlarge @ (self.levels.float() / 255) @ self.enlarge.T
        images = self.method.clip_images(training_canvases(self.images))
        start, student = self.method.start_layer, self.method.ip_clip
        features = one_sequence(student, images, masks[None], start)[:, : len(masks)]
        overlap = mask_aware_sum(self.logits(features)[0].softmax(-1), masks, self.labels[0])
        with torch.no_grad():
            teacher = self.logits(whole(self.method.clip.visual, images))
        kept = distillation_sum(self.logits(whole(student, images)), teacher)
        return self.update(overlap / mask_aware_count(len(masks), self.labels[0]) + 0.1 * kept)

    @torch.no_grad()
    def propose(self) -> Tensor:
        """Run the generator."""
        text = torch.cat([self.text.features, self.text.features[:1]])
        logits = self.freeseg(self.freeseg.normalise(self.images), text).mask_logits
        size = (self.images.shape[-2], self.images.shape[-1])
        return F.interpolate(logits, size, mode="bilinear", align_corners=True).sigmoid()

    def logits(self, features: Tensor) -> Tensor:
        """Scaled cosines."""
        return 100 * F.normalize(features, dim=-1) @ self.text.features.T

    def update(self, loss: Tensor) -> Tensor:
        """Compute the gradients."""
        self.method.zero_grad()
        loss.backward()
        return loss.detach()


def whole(visual: torch.nn.Module, images: Tensor) -> Tensor:
    """CLIP's feature of a picture, every token through every block."""
    tokens, _ = embed(visual, images, "align-corners")
    return project(visual, run_blocks(visual, tokens, 0, len(visual.transformer.resblocks))[:, 0])  # type: ignore[union-attr,arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", default="ViT-B-16")
    parser.add_argument("--side", type=int, default=480)
    parser.add_argument("--crop", type=int, default=640)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = Step(load_clip(options.clip, "random"), options)
    ways: dict[str, Callable[[], Tensor]] = {
        "in full": lambda: step.in_full(True),
        "in full, masks given": lambda: step.in_full(False),
        "shared, cached": step.shared,
    }
    losses = [way() for way in ways.values()]
    ways["shared, cached, in bfloat16"] = torch.autocast("cpu", dtype=torch.bfloat16)(step.shared)
    gap = max(float((loss - losses[0]).abs() / losses[0]) for loss in losses)
    spent = seconds(ways, options.repeats, time.process_time)
    rows = [[n, f"{s:.2f}", f"{spent['in full'] / s:.2f}"] for n, s in spent.items()]
    title = f"{options.clip} at {options.side} px, crop {options.crop}, {options.masks} masks, 1 thread"
    print_table(f"{title}; largest difference of the losses {gap:.1e}", ["step", "processor s", "times as fast"], rows)


if __name__ == "__main__":
    main()
