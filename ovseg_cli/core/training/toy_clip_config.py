"""The settings of `ovseg train toy-clip`. Imports neither torch nor numpy."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ToyClipConfig(BaseModel):
    """How the toy CLIP is built and trained; the defaults made the shipped weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int = Field(default=2400, ge=1, description="Optimizer steps in all.")
    batch_size: int = Field(
        default=128, ge=2, description="Image-caption pairs in a step; each is contrasted with the others."
    )
    learning_rate: float = Field(default=2e-3, gt=0, description="AdamW's rate after the warm-up.")
    final_learning_rate: float = Field(
        default=0.02, ge=0, le=1, description="Share of the rate that is left at the end."
    )
    warmup: int = Field(default=100, ge=0, description="Steps in which the rate rises linearly from zero.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's decay, on matrices only; embeddings have none.")
    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="AdamW's two moments.")
    clip_grad_norm: float = Field(default=1.0, gt=0, description="The gradient's norm is cut to this.")
    max_logit_scale: float = Field(
        default=100.0, gt=1, description="The learned scale of the cosine is kept below this."
    )
    seed: int = Field(default=0, ge=0, lt=1000, description="Seed of the weights and of the scenes that are drawn.")
    image_size: int = Field(
        default=96, ge=16, description="Side that the CLIP is made for, in pixels, a multiple of the patch."
    )
    crop_size: int = Field(
        default=64, ge=16, description="Side of the smaller scenes of the first stage, at the same scale."
    )
    full_size_share: float = Field(
        default=0.15, ge=0, le=1, description="Share of the steps, at the end, in which scenes have the full side."
    )
    patch_size: int = Field(default=8, ge=2, description="Side of a patch in pixels.")
    embed_dim: int = Field(default=128, ge=8, description="Size of the shared embedding, D.")
    vision_width: int = Field(default=96, ge=8, description="Channels of the image tower.")
    vision_layers: int = Field(default=6, ge=1, description="Blocks of the image tower.")
    vision_head_width: int = Field(default=32, ge=4, description="Channels of an attention head of the image tower.")
    patch_dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Share of patches that a training step leaves out."
    )
    text_width: int = Field(default=128, ge=8, description="Channels of the text tower.")
    text_layers: int = Field(default=2, ge=1, description="Blocks of the text tower.")
    text_heads: int = Field(default=4, ge=1, description="Attention heads of the text tower.")
    context_length: int = Field(default=32, ge=8, description="Token ids in a text, start and end included.")
    reserve: int = Field(default=1024, ge=1, description="Places for words that the training never shows.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Arithmetic of the forward pass; auto is bfloat16 where the device computes it fast.",
    )
    workers: int = Field(
        default=1, ge=0, description="Processes that draw scenes in the background; 0 draws in the loop."
    )
    log_every: int = Field(default=20, ge=1, description="Steps between two lines of the log.")
    save_every: int = Field(default=100, ge=1, description="Steps between two checkpoints.")
    figure_scenes: int = Field(
        default=100, ge=1, le=200, description="Scenes for tuning on which the figures are measured at the end."
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ToyClipConfig":
        for key in ("image_size", "crop_size"):
            if getattr(self, key) % self.patch_size:
                raise ValueError(f"{key} {getattr(self, key)} is no multiple of patch_size {self.patch_size}")
        if self.crop_size > self.image_size:
            raise ValueError(f"crop_size {self.crop_size} is larger than image_size {self.image_size}")
        if self.vision_width % self.vision_head_width or self.text_width % self.text_heads:
            raise ValueError("a tower's width must be a multiple of its heads")
        return self

    def scene_size(self, step: int) -> int:
        """Return the side of the scenes of a step, in pixels."""
        return self.image_size if step >= round(self.iterations * (1 - self.full_size_share)) else self.crop_size

    def open_clip_config(self, vocab_size: int) -> dict:
        """Return the configuration that `open_clip.model.CLIP` is built from; activation is plain GELU."""
        return {
            "embed_dim": self.embed_dim,
            "quick_gelu": False,
            "vision_cfg": {
                "layers": self.vision_layers,
                "width": self.vision_width,
                "head_width": self.vision_head_width,
                "patch_size": self.patch_size,
                "image_size": self.image_size,
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": vocab_size,
                "width": self.text_width,
                "heads": self.text_heads,
                "layers": self.text_layers,
            },
        }
