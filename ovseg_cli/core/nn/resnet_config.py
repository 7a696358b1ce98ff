"""How deep and how wide is a ResNet, and what do the shapes of its weights tell about it? Imports no torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottleneck blocks of res2 to res5 by depth."""


class ResNetConfig(BaseModel):
    """Settings of a bottleneck ResNet. The defaults are the "R-101c" that FreeSeg was published with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blocks: tuple[int, int, int, int] = Field(
        default=BLOCKS[101], description="Bottleneck blocks of res2 to res5; 3, 4, 23, 3 is a ResNet-101."
    )
    stem: Literal["basic", "deeplab"] = Field(
        default="deeplab", description="One 7x7 convolution, or three 3x3 ones (two of half the width, then the full)."
    )
    stem_width: int = Field(default=128, ge=2, description="Channels after the stem.")
    width: int = Field(default=64, ge=1, description="Inner channels of res2's bottlenecks; doubled at each stage.")
    res2_width: int = Field(default=256, ge=1, description="Output channels of res2; doubled at each stage.")
    stride_in_1x1: bool = Field(
        default=False,
        description="Where a stage's stride is: in its first 1x1 (original MSRA weights) or in its 3x3 convolution.",
    )
    multi_grid: tuple[int, ...] = Field(
        default=(1, 2, 4), description="Dilations of res5's 3x3 convolutions, block by block; (1, 1, 1) has none."
    )
    norm: Literal["frozen-bn", "group-norm"] = Field(
        default="frozen-bn",
        description="Batch norm with fixed statistics, for pre-trained weights, or group norm, to train from scratch.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "ResNetConfig":
        if min(self.blocks) < 1:
            raise ValueError(f"blocks {self.blocks}: each stage needs at least one")
        if self.stem == "deeplab" and self.stem_width % 2:
            raise ValueError(f"stem_width {self.stem_width}: must be even, the deeplab stem begins with half of it")
        if len(self.multi_grid) != self.blocks[3] or min(self.multi_grid) < 1:
            raise ValueError(f"multi_grid {self.multi_grid}: res5 has {self.blocks[3]} blocks, one dilation each")
        return self

    @property
    def channels(self) -> dict[str, int]:
        """Output channels of each stage by name, res2 to res5."""
        return {f"res{i + 2}": self.res2_width * 2**i for i in range(4)}

    @classmethod
    def basic(cls, depth: int = 101, **changes: Any) -> "ResNetConfig":
        """Return the plain ResNet of 50, 101 or 152 layers: 7x7 stem, no dilation (ZegFormer and ZSSeg's R-50/101)."""
        settings: dict[str, Any] = {"blocks": BLOCKS[depth], "stem": "basic", "stem_width": 64, "multi_grid": (1, 1, 1)}
        return cls(**{**settings, **changes})

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], prefix: str = "backbone.") -> "ResNetConfig":
        """Read what shapes tell: blocks, stem, widths and kind of norm.

        Dilations and the place of the stride leave no trace in the weights. They are taken from what was published:
        the deeplab stem came with strides in the 3x3 and, in FreeSeg, dilations 1, 2, 4; the basic stem with neither.

        Args:
            state: Tensors (or anything with a `shape`) by name.
            prefix: What stands before "stem" and "res2".

        Raises:
            KeyError: A stage is missing.
        """
        blocks = tuple(count_parts(state, f"{prefix}res{stage}.") for stage in (2, 3, 4, 5))
        deeplab = f"{prefix}stem.conv3.weight" in state
        stem = state[f"{prefix}stem.conv{3 if deeplab else 1}.weight"].shape[0]
        frozen = f"{prefix}res2.0.conv1.norm.running_mean" in state
        multi_grid = (1, 2, 4) if deeplab and blocks[3] == 3 else (1,) * blocks[3]
        return cls(
            blocks=blocks,  # type: ignore[arg-type]
            stem="deeplab" if deeplab else "basic",
            stem_width=int(stem),
            width=int(state[f"{prefix}res2.0.conv1.weight"].shape[0]),
            res2_width=int(state[f"{prefix}res2.0.conv3.weight"].shape[0]),
            multi_grid=multi_grid,
            norm="frozen-bn" if frozen else "group-norm",
        )


def count_parts(state: Mapping[str, Any], prefix: str) -> int:
    """Return how many numbered parts follow a prefix; KeyError where there is none."""
    numbers = {int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix)}
    if not numbers:
        raise KeyError(prefix)
    return max(numbers) + 1
