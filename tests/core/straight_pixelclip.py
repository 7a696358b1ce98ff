"""PixelCLIP's training step in the straightforward form, step by step as its code does it, for tests and benchmarks.

Plain where the package is clever: every text is read to the end of the context, the momentum encoder's features are
up-sampled to the grid of the masks, masks are written out, the text tower's features serve targets and loss, B·k maps
pass the decoder as its layers stand there, logits are up-sampled and compared at full size, gradients by autograd.
Shares no code with the package but open_clip's own blocks. The decoder's weights carry the code's names.

Each function is one of the step's parts and may be used alone; `Straight` puts them together in the code's order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# image and text towers


def dense_vit(visual: Any, images: Tensor) -> Tensor:
    """(B, h, w, D) of (B, 3, H, W): the last block gives own values, and the class token's residual."""
    x = visual.conv1(images)
    grid = x.shape[2:]
    first = visual.class_embedding.expand(len(x), 1, -1)
    x = torch.cat([first, x.flatten(2).transpose(1, 2)], dim=1)
    x = visual.ln_pre(x + positions(visual.positional_embedding, grid))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    attention, width = last.attn, x.shape[-1]
    values = F.linear(last.ln_1(x), attention.in_proj_weight[-width:], attention.in_proj_bias[-width:])
    x = attention.out_proj(values) + x[:, :1]
    x = visual.ln_post(x + last.mlp(last.ln_2(x))) @ visual.proj
    return x[:, 1:].unflatten(1, grid)


def positions(table: Tensor, grid: Sequence[int]) -> Tensor:
    """(1 + h·w, d): the patches' part resized to the grid."""
    side = round((len(table) - 1) ** 0.5)
    patches = table[1:].T.unflatten(1, (side, side))[None]
    if (side, side) != tuple(grid):
        patches = F.interpolate(patches, tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], patches[0].flatten(1).T])


def dense_convnext(visual: Any, images: Tensor) -> Tensor:
    """(B, h, w, D) of (B, 3, H, W): no pooling."""
    x = visual.trunk.head.norm(visual.trunk.forward_features(images))
    return visual.head(x.permute(0, 2, 3, 1))


def class_features(module: Any, words: Tensor, ids: Tensor, places: Sequence[int]) -> Tensor:
    """Features of learned classes, not normalised.

    Args:
        module: open_clip model.
        words: (k, l, width), learned.
        ids: (L,) of the sentence, L the whole context; its end is the largest.
        places: The l columns whose words are learned.

    Returns:
        (k, D).
    """
    x = module.token_embedding(ids).detach().repeat(len(words), 1, 1)
    x[:, list(places)] = words
    x = x + module.positional_embedding
    for block in module.transformer.resblocks:
        x = block(x, attn_mask=module.attn_mask)
    return module.ln_final(x)[:, ids.argmax()] @ module.text_projection


# targets


@torch.no_grad()
def follow(teacher: Any, student: Any, momentum: float) -> None:
    """Let the momentum encoder follow, every parameter of it."""
    for theirs, own in zip(teacher.parameters(), student.parameters(), strict=True):
        theirs.copy_(momentum * theirs + (1 - momentum) * own)


def pooled(features: Tensor, masks: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Features of one picture's masks.

    Args:
        features: (h, w, D).
        masks: (N, H, W), 0 or 1.
        grid: M.

    Returns:
        (n, D) means, and (n, M, M) masks, of those with at least two pixels on the grid.
    """
    small = F.interpolate(masks[None].float(), (grid, grid), mode="nearest")[0]
    small = small[small.sum((1, 2)) > 1]
    big = enlarged(features.permute(2, 0, 1)[None], (grid, grid))[0]
    return torch.einsum("nhw,dhw->nd", small, big) / small.sum((1, 2))[:, None], small


def sinkhorn(logits: Tensor, rounds: int) -> Tensor:
    """Q (m, k): balanced shares of the classes."""
    shares = logits.softmax(1)
    shares = shares / shares.sum()
    masks, classes = shares.shape
    for _ in range(rounds):
        shares = shares / shares.sum(0, keepdim=True) / classes
        shares = shares / shares.sum(1, keepdim=True) / masks
    return shares * masks


def target_maps(masks: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """(k, M, M) union of the masks (N, M, M) of each class, chosen (N,)."""
    united = masks.new_zeros(classes, *masks.shape[1:])
    return united.index_add(0, chosen, masks).clamp(max=1)


def regions(targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same targets (B, k, M, M) as the package holds them: ids (B, M, M) int32 and tables (B, R, k) uint8."""
    found = [torch.unique(t.flatten(1).T.to(torch.uint8), dim=0, return_inverse=True) for t in targets]
    most = max(len(rows) for rows, _ in found)
    tables = [F.pad(rows, (0, 0, 0, most - len(rows))) for rows, _ in found]
    return torch.stack([i.view(targets.shape[2:]).int() for _, i in found]), torch.stack(tables)


# decoder and loss


def decode(weights: Mapping[str, Tensor], similarity: Tensor) -> Tensor:
    """(B, k, 4h, 4w) of (B, k, h, w), each map alone; `weights` as in the code's `head.`, without this prefix."""
    w = weights
    x = F.conv2d(similarity.flatten(0, 1)[:, None], w["conv0.weight"], w["conv0.bias"], padding=1)
    for part in ("1", "2"):
        x = F.conv_transpose2d(x, w[f"up{part}.weight"], w[f"up{part}.bias"], stride=2)
        for conv, norm in (("0", "1"), ("3", "4")):
            name = f"conv{part}.double_conv"
            x = F.conv2d(x, w[f"{name}.{conv}.weight"], padding=1)
            scale, shift = w[f"{name}.{norm}.weight"], w[f"{name}.{norm}.bias"]
            x = F.relu(F.group_norm(x, len(scale) // 16, scale, shift))
    x = F.conv2d(x, w["proj.weight"], w["proj.bias"], padding=1)
    return x.unflatten(0, similarity.shape[:2])[:, :, 0]


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) to another size."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def loss_sum(maps: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Sum over covered pixels and classes, and their number; maps (B, k, h', w'), targets (B, k, M, M)."""
    logits, covered = enlarged(maps, targets.shape[2:]), targets.sum(1) > 0
    logits, wanted = (x.permute(0, 2, 3, 1)[covered] for x in (logits, targets.to(logits)))
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum"), wanted.numel()


# the step


@dataclass
class Straight:
    """A training in one process.

    Attributes:
        module: open_clip model; its image tower is the student.
        teacher: Image tower.
        dense: `dense_vit` or `dense_convnext`.
        words: (k, l, width), learned.
        ids: (L,) of the sentence, all of the context, and the places of the words in it.
        places: The l columns of the learned words.
        decoder: Its weights.
        scale: Multiplies cosines before they are balanced.
        rounds: Of the balancing.
        momentum: Of the teacher.
        grid: M, side of the masks' grid.
    """

    module: Any
    teacher: Any
    dense: Callable[[Any, Tensor], Tensor]
    words: Tensor
    ids: Tensor
    places: Sequence[int]
    decoder: Mapping[str, Tensor]
    scale: float
    rounds: int = 3
    momentum: float = 0.999
    grid: int = 256

    def loss(self, weak: Tensor, strong: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """The step's loss, after the momentum encoder has followed.

        Args:
            weak: (B, 3, R, R), normalised; seen by the momentum encoder.
            strong: Likewise, seen by the student.
            masks: For each picture (N, H, W), 0 or 1.
        """
        features = F.normalize(self.dense(self.module.visual, strong), dim=-1)
        follow(self.teacher, self.module.visual, self.momentum)
        names = F.normalize(class_features(self.module, self.words, self.ids, self.places), dim=-1)
        targets = self.targets(weak, masks, names)
        maps = decode(self.decoder, torch.einsum("bhwd,kd->bkhw", features, names))
        total, count = loss_sum(maps, targets)
        return total / count

    @torch.no_grad()
    def targets(self, weak: Tensor, masks: Sequence[Tensor], names: Tensor) -> Tensor:
        """(B, k, M, M)."""
        found = [pooled(f, m, self.grid) for f, m in zip(self.dense(self.teacher, weak), masks, strict=True)]
        means = F.normalize(torch.cat([mean for mean, _ in found]), dim=-1)
        chosen = sinkhorn(self.scale * means @ names.T, self.rounds).argmax(1)
        parts = chosen.split([len(mean) for mean, _ in found])
        return torch.stack([target_maps(m, part, len(names)) for (_, m), part in zip(found, parts, strict=True)])
