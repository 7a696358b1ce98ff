"""The sizes of MaskFormer's mask generator, and what the shapes of a checkpoint tell about them. Imports no torch."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ovseg_cli.core.nn.resnet_config import ResNetConfig, count_parts

PREDICTOR, PIXELS = "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."


class MaskFormerConfig(BaseModel):
    """Sizes of the generator; the defaults are those of ZSSeg (R-101c, class head of two layers)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: ResNetConfig = Field(default=ResNetConfig(), description="The ResNet.")
    pyramid_width: int = Field(default=256, ge=1, description="Channels of the feature pyramid (CONVS_DIM).")
    groups: int = Field(default=32, ge=1, description="Groups of the pyramid's group norms.")
    mask_width: int = Field(default=256, ge=1, description="Channels of the mask features (MASK_DIM).")
    memory: Literal["res3", "res4", "res5"] = Field(
        default="res5", description="Backbone stage that the queries read (TRANSFORMER_IN_FEATURE)."
    )
    width: int = Field(default=256, ge=4, description="Channels of the queries (HIDDEN_DIM).")
    queries: int = Field(default=100, ge=1, description="Masks that are proposed for each picture.")
    decoder_layers: int = Field(default=6, ge=1, description="Layers of the decoder.")
    decoder_ffn: int = Field(default=2048, ge=1, description="Hidden width of the decoder's FFN.")
    heads: int = Field(default=8, ge=1, description="Attention heads of the decoder.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout of the decoder, in training.")
    embed_width: int = Field(
        default=0, ge=0, description="Width of text rows and class embeddings; 0 is the CLIP's own (512 for ViT-B/16)."
    )
    embed_hidden: int = Field(
        default=1024, ge=0, description="Hidden width of the class head; 0 is one linear layer, as in ZegFormer."
    )

    @model_validator(mode="after")
    def _divides(self) -> "MaskFormerConfig":
        for name, whole, part in (
            ("width by heads", self.width, self.heads),
            ("pyramid_width by groups", self.pyramid_width, self.groups),
            ("width by 4 (sine positions)", self.width, 4),
        ):
            if whole % part:
                raise ValueError(f"{whole} and {part} do not fit together: {name} must divide without a rest")
        return self

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], **known: Any) -> Self:
        """Read sizes from shapes; what leaves no trace keeps its published value.

        Args:
            state: Tensors (or anything with a `shape`) of a checkpoint, official key names.
            known: Settings that shapes do not tell, and that the caller knows: heads, groups, dropout; or a
                `backbone` with its dilations.

        Raises:
            KeyError: A part is missing.
        """
        backbone = known.pop("backbone", None) or ResNetConfig.from_state_dict(state)
        if isinstance(backbone, Mapping):
            backbone = ResNetConfig(**backbone)
        layer = f"{PREDICTOR}transformer.decoder.layers."
        queries, width = state[f"{PREDICTOR}query_embed.weight"].shape
        two_layers = f"{PREDICTOR}class_embed.layers.1.weight" in state
        head = state[f"{PREDICTOR}class_embed.layers.1.weight" if two_layers else f"{PREDICTOR}projection_layer.weight"]
        read = {
            "backbone": backbone,
            "pyramid_width": state[f"{PIXELS}layer_1.weight"].shape[0],
            "mask_width": state[f"{PIXELS}mask_features.weight"].shape[0],
            "memory": _memory(state, backbone, int(width)),
            "width": width,
            "queries": queries,
            "decoder_layers": count_parts(state, layer),
            "decoder_ffn": state[f"{layer}0.linear1.weight"].shape[0],
            "embed_width": head.shape[0],
            "embed_hidden": head.shape[1] if two_layers else 0,
        }
        return cls(**{**read, **known})


class ZegFormerSizes(MaskFormerConfig):
    """Sizes of ZegFormer's generator: R-101 with the plain stem, one linear class layer."""

    backbone: ResNetConfig = Field(default=ResNetConfig.basic(101), description="The ResNet.")
    embed_hidden: int = Field(
        default=0, ge=0, description="Hidden width of the class head; 0 is one linear layer, as in ZegFormer."
    )


def _memory(state: Mapping[str, Any], backbone: ResNetConfig, width: int) -> str:
    """Return the stage whose channels the input projection takes; without a projection, the one as wide as queries."""
    key = f"{PREDICTOR}input_proj.weight"
    inputs = int(state[key].shape[1]) if key in state else width
    names = [name for name, channels in backbone.channels.items() if channels == inputs]
    if not names:
        raise KeyError(key)
    return names[0]
