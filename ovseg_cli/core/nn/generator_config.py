"""The sizes of FreeSeg's mask generator, and what the shapes of a checkpoint tell about them. Imports no torch."""

import struct
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ovseg_cli.core.nn.resnet_config import ResNetConfig, count_parts

IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)
"""ImageNet's mean and standard deviation, RGB, 0 to 255."""

LEVELS = 3
"""Maps that the deformable encoder and the decoder read: strides 32, 16, 8."""


class GeneratorConfig(BaseModel):
    """Sizes of the generator; the defaults are the published ones.

    Two are not in any configuration file of the papers: the encoder's FFN of 1024 is hard-coded there, and their
    "DEC_LAYERS = 10" builds ten layers, where Mask2Former's own reading would build nine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: ResNetConfig = Field(default=ResNetConfig(), description="The ResNet.")
    width: int = Field(default=256, ge=4, description="Channels of the pyramid and of the queries (CONVS_DIM).")
    mask_width: int = Field(default=256, ge=1, description="Channels of the mask features (MASK_DIM).")
    encoder_layers: int = Field(default=6, ge=1, description="Layers of the deformable encoder.")
    encoder_ffn: int = Field(default=1024, ge=1, description="Hidden width of the encoder's FFN.")
    heads: int = Field(default=8, ge=1, description="Attention heads of the encoder and the decoder.")
    points: int = Field(default=4, ge=1, description="Places that an encoder head looks at in each level.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout of the encoder and of the text interaction.")
    groups: int = Field(default=32, ge=1, description="Groups of the pixel decoder's group norms.")
    interaction_width: int = Field(default=2048, ge=1, description="Inner width of the text interaction (EMBED_DIM).")
    interaction_heads: int = Field(default=8, ge=1, description="Heads of the text interaction.")
    queries: int = Field(default=100, ge=1, description="Masks that are proposed for each picture.")
    decoder_layers: int = Field(default=10, ge=1, description="Layers of the masked-attention decoder.")
    decoder_ffn: int = Field(default=2048, ge=1, description="Hidden width of the decoder's FFN.")
    embed_width: int = Field(
        default=0, ge=0, description="Width of text rows and class embeddings; 0 is that of the CLIP."
    )
    embed_hidden: int = Field(default=1024, ge=1, description="Hidden width of the class head.")
    pixel_mean: tuple[float, float, float] = Field(default=IMAGE_MEAN, description="Taken from RGB, 0 to 255.")
    pixel_std: tuple[float, float, float] = Field(default=IMAGE_STD, description="Divides what is left.")

    @model_validator(mode="after")
    def _divides(self) -> "GeneratorConfig":
        for name, whole, part in (
            ("width by heads", self.width, self.heads),
            ("width by groups", self.width, self.groups),
            ("width by 4 (sine positions)", self.width, 4),
            ("interaction_width by interaction_heads", self.interaction_width, self.interaction_heads),
        ):
            if whole % part:
                raise ValueError(f"{whole} and {part} do not fit together: {name} must divide without a rest")
        if self.mask_width != self.width:
            raise ValueError(f"mask_width {self.mask_width} must equal width {self.width}: both go through one norm")
        return self

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], **known: Any) -> "GeneratorConfig":
        """Read sizes from shapes; what leaves no trace keeps its published value.

        The generator's `pixel_mean` and `pixel_std` are in no checkpoint (but see `half_statistics`).
        No shape tells `interaction_heads`, `groups`, `dropout`, and the backbone's `multi_grid` and `stride_in_1x1`.
        `heads` follows from the encoder's attention weights if `points` is 4.

        Args:
            state: Tensors (or anything with a `shape`) by official name: "backbone.*", "sem_seg_head.*".
            known: Values that the caller knows; they win.

        Raises:
            KeyError: An entry that tells a size is missing; names it.
        """
        encoder, decoder = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
        layer = f"{encoder}transformer.encoder.layers."
        points = known.get("points", cls.model_fields["points"].default)
        queries = f"{decoder}query_feat.weight"
        read = {
            "width": _size(state, f"{encoder}input_proj.0.0.weight", 0),
            "mask_width": _size(state, f"{encoder}mask_features.weight", 0),
            "encoder_layers": count_parts(state, layer),
            "encoder_ffn": _size(state, f"{layer}0.linear1.weight", 0),
            "heads": _size(state, f"{layer}0.self_attn.attention_weights.weight", 0) // (LEVELS * points),
            "interaction_width": _size(state, "sem_seg_head.interaction.attn.q_proj.weight", 0),
            "queries": _size(state, queries if queries in state else f"{decoder}static_query.weight", 0),
            "decoder_layers": count_parts(state, f"{decoder}transformer_ffn_layers."),
            "decoder_ffn": _size(state, f"{decoder}transformer_ffn_layers.0.linear1.weight", 0),
            "embed_width": _size(state, f"{decoder}class_embed.layers.1.weight", 0),
            "embed_hidden": _size(state, f"{decoder}class_embed.layers.0.weight", 0),
        }
        backbone = known.pop("backbone", None) or ResNetConfig.from_state_dict(state)
        return cls(**{"backbone": backbone, **read, **known})


def half_statistics(state: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return `pixel_mean` and `pixel_std` rounded to half precision where a checkpoint shows such rounding.

    The generator's own constants are saved in no checkpoint. Where a whole model was brought to half precision and
    saved, they were rounded with it, and the rounded ones are those that its numbers belong to.

    Args:
        state: Official checkpoint; `clip_adapter.pixel_mean` is what tells.

    Returns:
        Settings of `GeneratorConfig`, none where nothing was rounded or nothing tells.
    """
    saved = state.get("clip_adapter.pixel_mean")
    if saved is None or any(float(value) != _half(float(value)) for value in saved.flatten()):
        return {}
    return {"pixel_mean": tuple(map(_half, IMAGE_MEAN)), "pixel_std": tuple(map(_half, IMAGE_STD))}


def _half(value: float) -> float:
    """Round to the nearest number of half precision."""
    return struct.unpack("e", struct.pack("e", value))[0]


def _size(state: Mapping[str, Any], key: str, axis: int) -> int:
    return int(state[key].shape[axis])
