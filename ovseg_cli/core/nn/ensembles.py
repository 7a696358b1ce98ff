"""How class scores of a host and of CLIP become one score for each mask and class: the formulas of the hosts.

Axes: N masks, M names. Host logits are (N, M + 1), last column "no object"; CLIP logits are (N, M), already scaled.
All scores are 0 or more; a pixel's score is their sum over the masks, weighted by the mask (types.MaskPrediction).
"""

from typing import Literal

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError

ZegFormerFusion = Literal["seen_unseen", "all", "none"]


def host_scores(host_logits: Tensor) -> Tensor:
    """Score masks by the host alone: softmax over names and "no object", whose column is then dropped.

    Args:
        host_logits: (N, M + 1).

    Returns:
        (N, M), rows sum to at most 1.
    """
    return host_logits.softmax(-1)[:, :-1]


def clip_scores(clip_logits: Tensor, empty: Tensor | None = None) -> Tensor:
    """Score masks by CLIP alone: softmax over the names.

    Args:
        clip_logits: (N, M).
        empty: (N,) bool, masks to leave out, or None to keep all: the frozen hosts leave out what has no pixel above
            their threshold, MAFT keeps every mask.

    Returns:
        (N, M), rows sum to 1; rows of zeros for masks that are left out.
    """
    scores = clip_logits.softmax(-1)
    return scores if empty is None else scores.masked_fill(empty[:, None], 0.0)


def geometric_scores(
    host_logits: Tensor,
    clip_logits: Tensor,
    weight: float,
    seen: Tensor | None = None,
    empty: Tensor | None = None,
) -> Tensor:
    """Combine host and CLIP as ZSSeg and FreeSeg do, and MAFT where its host takes part.

    With m the host's scores, c CLIP's and l the weight: seen classes m^l · c^(1-l), unseen ones m^(1-l) · c^l.

    Args:
        host_logits: (N, M + 1). "No object" is dropped after the host's softmax.
        clip_logits: (N, M). CLIP's "no object" is dropped before its softmax, so it is not asked for.
        weight: l, 0 to 1: share of the host in seen classes and of CLIP in unseen ones. At 0 CLIP scores alone,
            in seen and unseen classes alike (the formula would give unseen classes to the host).
        seen: (M,) bool; None: all classes count as unseen, as the code does where a data set has no such flag.
        empty: (N,) bool, masks without a region: c is 1 for them, and at weight 0 they are left out.

    Returns:
        (N, M).

    Raises:
        ShapeError: Host and CLIP differ in masks or names.

    Source: ZSSeg, code (`semantic_inference`); FreeSeg and MAFT repeat it.
    """
    if weight == 0:
        return clip_scores(clip_logits, empty)
    _check(host_logits, clip_logits)
    host, clip = host_scores(host_logits), clip_logits.softmax(-1)
    if empty is not None:
        clip = clip.masked_fill(empty[:, None], 1.0)
    unseen = host ** (1 - weight) * clip**weight
    return unseen if seen is None else torch.where(seen, host**weight * clip ** (1 - weight), unseen)


def zegformer_scores(
    host_logits: Tensor,
    clip_logits: Tensor,
    fusion: ZegFormerFusion = "seen_unseen",
    seen: Tensor | None = None,
    weight: float = 2 / 3,
) -> Tensor:
    """Combine host and CLIP as ZegFormer does.

    The host's background logit joins CLIP's logits before their softmax and is dropped after it. With m, c and l as in
    `geometric_scores` and s the mean of c over the seen classes:

    - "seen_unseen": seen classes m^l · s^(1-l), so that CLIP only says how much a mask is of any seen class; unseen
      ones m^(1-l) · c^l.
    - "all": m^(1-l) · c^l for every class.
    - "none": c, CLIP alone.

    Args:
        host_logits: (N, M + 1), last column background.
        clip_logits: (N, M).
        fusion: Which of the three.
        seen: (M,) bool; None: all classes count as unseen, which makes "seen_unseen" the same as "all". (The code
            counts them as seen where a data set has no flag, but ships no such configuration.)
        weight: l; 2/3 in code and paper.

    Returns:
        (N, M). Masks that are empty are kept: CLIP sees a picture of the mean colour for them.

    Raises:
        ShapeError: Host and CLIP differ in masks or names.

    Source: ZegFormer, code (`mask_former_model.py`). It computes CLIP's logits in half precision; we do not.
    """
    _check(host_logits, clip_logits)
    clip = torch.cat([clip_logits, host_logits[:, -1:]], dim=1).softmax(-1)[:, :-1]
    if fusion == "none":
        return clip
    host = host_scores(host_logits)
    unseen = host ** (1 - weight) * clip**weight
    if fusion == "all" or seen is None or not bool(seen.any()):
        return unseen
    mean = clip[:, seen].mean(dim=1, keepdim=True)
    return torch.where(seen, host**weight * mean ** (1 - weight), unseen)


def _check(host_logits: Tensor, clip_logits: Tensor) -> None:
    if host_logits.shape != (clip_logits.shape[0], clip_logits.shape[1] + 1):
        raise ShapeError(
            f"host logits {tuple(host_logits.shape)} need one column more than CLIP's {tuple(clip_logits.shape)}"
        )
