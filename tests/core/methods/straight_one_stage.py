"""ZegCLIP and TagCLIP in the straightforward form, step by step as their codes do it, for tests and benchmarks.

Plain where the package is clever: whole blocks with all tokens, every layer of the decoder to its end (also what nobody
reads), logits, targets and losses of every class at every pixel, gradients by autograd, scores of all classes at full
size. Shares no code with the package but open_clip's own blocks. Weights carry the package's names; those of parts that
the package does not build, the codes' own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Straight:
    """A prompted tower, descriptor and decoder.

    Args:
        visual: Image tower of an open_clip model.
        weights: "prompted.prompt_embeddings", "descriptor.q_proj.weight", "decoder.layers.0.norm2.bias", "trust_token"
            and so on; with the last layer's dead end (`with_dead_end` makes one).
        heads: Of the decoder's attentions.
        dropout: Of prompts and decoder.
    """

    def __init__(self, visual: Any, weights: Mapping[str, Tensor], heads: int, dropout: float = 0.0):
        self.visual, self.weights, self.heads, self.dropout = visual, dict(weights), heads, dropout
        self.layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("decoder."))

    def drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.dropout > 0)

    def linear(self, values: Tensor, name: str) -> Tensor:
        return F.linear(values, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, values: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(values, weight.shape, weight, bias, eps)

    # the prompted tower

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens that enter block 0, without prompts; the class embedding is in the class token twice."""
        visual = self.visual
        maps = visual.conv1(images)
        tokens = maps.flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(len(images), 1, -1)
        side, table = int(math.sqrt(len(visual.positional_embedding) - 1)), visual.positional_embedding
        grid = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, maps.shape[2:], mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        places = torch.cat([(table[0] + visual.class_embedding)[None, None], grid], dim=1)
        return visual.ln_pre(torch.cat([first, tokens], dim=1) + places), (maps.shape[2], maps.shape[3])

    def prompts(self, rows: Tensor, count: int) -> Tensor:
        return self.drop(self.linear(rows, "prompted.prompt_proj").expand(count, -1, -1))

    def blocks(self, tokens: Tensor, depth: int) -> list[Tensor]:
        """What leaves every block, prompts left out."""
        shallow = self.weights["prompted.prompt_embeddings"][0]
        count, left = len(shallow), []
        tokens = torch.cat([tokens[:, :1], self.prompts(shallow, len(tokens)), tokens[:, 1:]], dim=1)
        for i, block in enumerate(self.visual.transformer.resblocks):
            if 0 < i <= depth:
                fresh = self.prompts(self.weights["prompted.deep_prompt_embeddings"][i - 1], len(tokens))
                tokens = torch.cat([tokens[:, :1], fresh, tokens[:, 1 + count :]], dim=1)
            elif i == depth + 1 and depth > 0:
                tokens, count = torch.cat([tokens[:, :1], tokens[:, 1 + count :]], dim=1), 0
            tokens = block(tokens)
            left.append(torch.cat([tokens[:, :1], tokens[:, 1 + count :]], dim=1))
        return left

    def encode(self, images: Tensor, depth: int | None = None) -> tuple[Tensor, Tensor]:
        """Patches (B, D, h, w) and picture (B, D), unit length."""
        deep = self.weights.get("prompted.deep_prompt_embeddings")
        depth = depth if depth is not None else 0 if deep is None else len(deep)
        tokens, grid = self.embed(images)
        tokens = self.blocks(tokens, depth)[-1]
        if depth:
            tokens = self.norm(tokens, "prompted.prompt_norm", 1e-6)
        features = self.visual.ln_post(tokens) @ self.visual.proj
        patches = features[:, 1:].transpose(1, 2).unflatten(2, grid)
        return F.normalize(patches, dim=1), F.normalize(features[:, 0], dim=-1)

    # the head

    def queries(self, picture: Tensor, rows: Tensor) -> Tensor:
        """(B, C, d): text times picture beside text."""
        rows = rows.expand(len(picture), -1, -1)
        return self.linear(torch.cat([picture[:, None] * rows, rows], dim=-1), "descriptor.q_proj")

    def attention(self, queries: Tensor, memory: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """What queries read, and their scores before the softmax, averaged over the heads."""
        q, k, v = (
            self.linear(x, f"{name}.{part}").unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, x in (("q", queries), ("k", memory), ("v", memory))
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        mixed = self.drop(scores.softmax(-1)) @ v
        return self.linear(mixed.transpose(1, 2).flatten(2), f"{name}.proj"), scores.mean(1)

    def among(self, queries: Tensor, name: str) -> Tensor:
        """Self-attention with one packed projection."""
        w = self.weights
        packed = F.linear(queries, w[f"{name}.in_proj_weight"], w[f"{name}.in_proj_bias"])
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in packed.chunk(3, dim=-1))
        mixed = self.drop((q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)) @ v
        return self.linear(mixed.transpose(1, 2).flatten(2), f"{name}.out_proj")

    def layer(self, queries: Tensor, memory: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Queries that leave layer i, and its mask logits (B, C, n)."""
        name = f"decoder.layers.{i}"
        if f"{name}.self_attn.in_proj_weight" in self.weights:
            queries = self.norm(queries + self.drop(self.among(queries, f"{name}.self_attn")), f"{name}.norm1")
        read, masks = self.attention(queries, memory, f"{name}.multihead_attn")
        queries = self.norm(queries + self.drop(read), f"{name}.norm2")
        hidden = self.drop(F.relu(self.linear(queries, f"{name}.linear1")))
        return self.norm(queries + self.drop(self.linear(hidden, f"{name}.linear2")), f"{name}.norm3"), masks

    def decode(self, queries: Tensor, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Queries and mask logits of every layer."""
        found = []
        for i in range(self.layers):
            queries, masks = self.layer(queries, memory, i)
            found.append((queries, masks))
        return found

    def __call__(self, images: Tensor, rows: Tensor, plain: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C, H, W) at the images' size, and (B, H, W) of the token's map, where there is a token."""
        token = None if plain else self.weights.get("trust_token")
        rows = rows if token is None else torch.cat([rows, token])
        patches, picture = self.encode(images)
        masks = self.decode(self.queries(picture, rows), patches.flatten(2).transpose(1, 2))[-1][1]
        big = enlarged(masks.unflatten(-1, patches.shape[2:]), images.shape[2:])
        return (big, None) if token is None else (big[:, :-1], big[:, -1])


def with_dead_end(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add what the package does not build and the codes compute: the end of the last layer, at random."""
    state = {name: value.detach().clone() for name, value in weights.items()}
    last = max(int(name.split(".")[2]) for name in state if name.startswith("decoder."))
    dim = len(state["decoder.layers.0.multihead_attn.q.bias"])
    ffn = 4 * dim if last == 0 else len(state["decoder.layers.0.linear1.bias"])
    shapes = {"multihead_attn.v": (dim, dim), "multihead_attn.proj": (dim, dim), "linear1": (ffn, dim)}
    for name, shape in {**shapes, "linear2": (dim, ffn), "norm2": (dim,), "norm3": (dim,)}.items():
        state[f"decoder.layers.{last}.{name}.weight"] = torch.randn(shape) / math.sqrt(shape[-1])
        state[f"decoder.layers.{last}.{name}.bias"] = torch.zeros(shape[0])
    return state


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) to another size."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


# losses


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows (R, n) of the mean over n."""
    p = logits.sigmoid()
    cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    right = p * targets + (1 - p) * (1 - targets)
    share = 0.25 * targets + 0.75 * (1 - targets)
    return (share * cost * (1 - right) ** 2).mean(1).sum()


def mask_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and dice sums of logits (B, C, H, W) and labels (B, H, W), below 0 no class."""
    count = logits.shape[1]
    targets = F.one_hot(labels.clamp(min=-1) + 1, count + 1)[..., 1:].permute(0, 3, 1, 2).to(logits)
    focal = focal_loss(logits.flatten(0, 1).flatten(1), targets.flatten(0, 1).flatten(1))
    present = targets.flatten(2).any(-1)
    p, y = logits[present].flatten(1).sigmoid(), targets[present].flatten(1)
    dice = 1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)
    return focal, dice.sum()


def pairs_of(labels: Tensor) -> int:
    """Pictures and classes in them, at least 1."""
    return max(1, sum(len([k for k in label.unique().tolist() if k >= 0]) for label in labels))


def total_loss(
    logits: Tensor,
    trust: Tensor | None,
    labels: Tensor,
    target: Tensor | None,
    weights: Mapping[str, float],
) -> Tensor:
    """All terms; `weights` has "focal", "dice" and, with a token, "trust"."""
    focal, dice = mask_losses(logits, labels)
    total = weights["focal"] * focal + weights["dice"] * dice
    if trust is not None:
        assert target is not None
        total = total + weights["trust"] * focal_loss(trust.flatten(1), target.to(trust).flatten(1))
    return total / pairs_of(labels)


# inference


def scores_of(logits: Tensor, trust: Tensor | None, seen: Tensor, gamma: float, fusion: str = "none") -> Tensor:
    """Scores (B, C, H, W) of logits at full size; `seen` is (C,) bool."""
    scores = logits.sigmoid()
    scores[:, seen] = scores[:, seen] - gamma
    if trust is not None:
        w = trust.sigmoid()[:, None]
        if fusion in ("seen", "both"):
            scores[:, seen] = scores[:, seen] * (1 - w)
        if fusion in ("unseen", "both"):
            scores[:, ~seen] = scores[:, ~seen] * w
    return scores


def slide_scores(
    model: Straight,
    canvas: Tensor,
    rows: Tensor,
    seen: Tensor,
    size: Sequence[int],
    window: int,
    stride: int,
    gamma: float,
    fusion: str = "none",
) -> Tensor:
    """Scores (1, C, *size) of one prepared picture (1, 3, H, W), as mmseg adds its windows up."""
    height, width = canvas.shape[2:]
    total, count = canvas.new_zeros(1, len(rows), height, width), canvas.new_zeros(1, 1, height, width)
    for row in range(max(height - window + stride - 1, 0) // stride + 1):
        for column in range(max(width - window + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + window, height), min(column * stride + window, width)
            top, left = max(bottom - window, 0), max(right - window, 0)
            logits, trust = model(canvas[:, :, top:bottom, left:right], rows)
            scores = scores_of(logits, trust, seen, gamma, fusion)
            total = total + F.pad(scores, (left, width - right, top, height - bottom))
            count[:, :, top:bottom, left:right] += 1
    return enlarged(total / count, size)


def slide_labels(model: Straight, canvas: Tensor, *rest: Any, **settings: Any) -> Tensor:
    """The class of every pixel, (1, *size); the softmax changes no arg-max and is what the codes do."""
    return slide_scores(model, canvas, *rest, **settings).softmax(1).argmax(1)
