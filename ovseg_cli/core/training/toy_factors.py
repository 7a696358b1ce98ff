"""What has a toy CLIP learned? Accuracy by factor: stuff, color, pattern, given each region's true mask.

Image-text retrieval alone misleads: it was above 60 % in worlds whose toys were named by chance.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.masked import masked_features
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.data import toy
from ovseg_cli.core.data.toy_captions import CLASS_NAMES, STUFF, thing_factors

MIN_REGION = 60  # pixels; smaller regions are not asked about
TEMPLATES = ("a photo of {}", "a picture of {}", "there is {}", "{}", "a scene with {}")
FACTORS = ("all", "stuff", "things", "color", "pattern")


@torch.no_grad()
def class_features(clip: ClipModel) -> Tensor:
    """Return (K, D) features of the toy world's names, unit length, mean over `TEMPLATES`."""
    per_template = [
        F.normalize(clip.encode_text(clip.tokenize([template.format(name) for name in CLASS_NAMES])), dim=-1)
        for template in TEMPLATES
    ]
    return F.normalize(torch.stack(per_template).mean(0), dim=-1)


def grid_masks(label: Tensor, classes: Tensor, grid: int) -> Tensor:
    """Average true regions onto the grid of patches: half of a patch counts, the best patch always.

    Args:
        label: (H, W) train ids.
        classes: (N,) the regions' train ids.
        grid: h = w, the patches on a side.

    Returns:
        (N, h, w) bool.
    """
    regions = (label[None] == classes[:, None, None]).float()
    share = F.adaptive_avg_pool2d(regions[None], grid)[0]
    return (share >= 0.5) | (share == share.amax((1, 2), keepdim=True))


@torch.no_grad()
def factor_accuracy(
    clip: ClipModel, size: int, scenes: int = 100, start_layer: int = 1, subset: str = "tune"
) -> dict[str, float]:
    """Name the true regions of scenes; the arg-max is over all classes.

    Args:
        clip: A CLIP with a ViT.
        size: Side of the scenes in pixels.
        scenes: How many scenes.
        start_layer: First block in which masks hold (clip/masked.py).
        subset: Which scenes; never the scored ones for a choice.

    Returns:
        Shares in 0..1: `all`, `stuff`, `things` (both factors right), `color`, `pattern` (over toys; one that was
        called stuff is wrong in both).
    """
    world, text = toy.ToyWorld(size), class_features(clip)
    hits: dict[str, list[bool]] = {name: [] for name in FACTORS}
    for index in range(scenes):
        image, label, _ = world.scene(subset, index)
        truth = torch.from_numpy(label).long()
        counts = torch.bincount(truth.flatten(), minlength=toy.IGNORE + 1)[: len(CLASS_NAMES)]
        classes = (counts >= MIN_REGION).nonzero()[:, 0]
        masks = grid_masks(truth, classes, size // clip.patch_size)
        pixels = normalised(clip, [image])
        features = masked_features(clip.visual, pixels, masks[None], start_layer, position="explicit")[0]
        for true_id, guess in zip(classes.tolist(), (features @ text.T).argmax(-1).tolist(), strict=True):
            _note(hits, true_id, guess)
    return {name: round(sum(flags) / max(1, len(flags)), 4) for name, flags in hits.items()}


def _note(hits: dict[str, list[bool]], truth: int, guess: int) -> None:
    hits["all"].append(truth == guess)
    if truth < len(STUFF):
        hits["stuff"].append(truth == guess)
        return
    hits["things"].append(truth == guess)
    (color, pattern), guessed = thing_factors(truth), thing_factors(guess)
    hits["color"].append(guess >= len(STUFF) and guessed[0] == color)
    hits["pattern"].append(guess >= len(STUFF) and guessed[1] == pattern)


@torch.no_grad()
def retrieval(clip: ClipModel, size: int, scenes: int = 100, subset: str = "tune") -> float:
    """Return R@1 in 0..1: how often a scene's own caption is the nearest of all captions."""
    world = toy.ToyWorld(size)
    drawn = [world.scene(subset, index) for index in range(scenes)]
    images = clip.encode_image(normalised(clip, [scene[0] for scene in drawn]))
    texts = clip.encode_text(clip.tokenize([scene[2] for scene in drawn]))
    nearest = (F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T).argmax(-1)
    return round((nearest == torch.arange(scenes, device=nearest.device)).float().mean().item(), 4)


def normalised(clip: ClipModel, images: list[Any]) -> Tensor:
    """Return (B, 3, H, W) inputs of (H, W, 3) uint8 pictures of one size."""
    pixels = torch.stack([torch.from_numpy(image) for image in images]).to(clip.device).permute(0, 3, 1, 2).float()
    return (pixels / 255 - clip.mean[:, None, None]) / clip.std[:, None, None]
