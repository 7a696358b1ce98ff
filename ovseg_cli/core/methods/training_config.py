"""How a method is trained: the settings that all trained methods share, one sentence each. Imports no torch.

A method's file derives its own model from this one, with the defaults of its paper and its own settings.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Grey = Annotated[int, Field(ge=0, le=255)]


class TrainingConfig(BaseModel):
    """Length, optimizer, arithmetic, bookkeeping and augmentation of a training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int = Field(default=1000, ge=1, description="Optimizer steps in all.")
    batch_size: int = Field(
        default=16, ge=1, description="Pictures in a step, over all processes and accumulated parts together."
    )
    accumulate: int = Field(
        default=1, ge=1, description="Parts into which a process cuts its share of a step to save memory; same result."
    )
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="Rule of the update.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Rate before the schedule's factor.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decay of the weights that a method lets decay.")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="AdamW's two moments.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD's momentum.")
    schedule: Literal["constant", "poly", "cosine"] = Field(
        default="poly", description="How the rate falls from the first step to the last."
    )
    power: float = Field(default=0.9, gt=0, description="Exponent of the poly schedule.")
    final_learning_rate: float = Field(
        default=0.0, ge=0, le=1, description="Share of the rate that is left at the end (poly and cosine)."
    )
    warmup: int = Field(default=0, ge=0, description="Steps in which the rate rises linearly.")
    warmup_start: float = Field(default=0.0, ge=0, le=1, description="Share of the rate at the start of the warm-up.")
    clip_grad_norm: float = Field(
        default=0.0, ge=0, description="The norm of all gradients together is cut to this; 0 cuts nothing."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Arithmetic of the forward pass; auto is bfloat16 where the device computes it fast.",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of a moving average of the weights, which is then scored; 0 is none.",
    )
    compile: bool = Field(default=False, description="Let torch.compile translate the training step.")
    workers: int = Field(
        default=1, ge=0, description="Processes, for each device, that make batches in the background."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the new weights, the order of pictures and the augmentation."
    )
    log_every: int = Field(default=20, ge=1, description="Steps between two lines of the log.")
    save_every: int = Field(default=100, ge=1, description="Steps between two checkpoints.")
    eval_every: int = Field(default=0, ge=0, description="Steps between two evaluations; 0 scores nothing in between.")

    short_sides: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="Short sides in pixels of which each picture gets one; none keeps the picture's own."
    )
    scale_range: tuple[float, float] = Field(
        default=(1.0, 1.0), description="The chosen short side and train_long_side times a random factor of this range."
    )
    train_long_side: int = Field(
        default=2560,
        ge=0,
        description="Pictures are made smaller where the long side would exceed this; 0 is no limit.",
    )
    crop_size: int = Field(
        default=0, ge=0, description="Side in pixels of the random square that is cut out; 0 takes the whole picture."
    )
    crop_max_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="A crop in which one class has a larger share of the labelled pixels is drawn anew, 10 times at "
        "most; 1 takes the first.",
    )
    color_jitter: bool = Field(
        default=False, description="Change brightness, contrast, saturation and hue at random, as SSD does."
    )
    flip: float = Field(default=0.5, ge=0, le=1, description="Probability that a picture is mirrored left to right.")
    pad_value: Grey | tuple[Grey, Grey, Grey] = Field(
        default=128, description="Grey, or red, green and blue, around pictures that are smaller than the canvas."
    )

    @model_validator(mode="after")
    def _optimizer_fits(self) -> "TrainingConfig":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must lie between 0 and 1, 1 excluded")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"a batch_size of {self.batch_size} cannot be cut into accumulate = {self.accumulate} parts"
            )
        return self

    @model_validator(mode="after")
    def _augmentation_fits(self) -> "TrainingConfig":
        low, high = self.scale_range
        if not 0 < low <= high:
            raise ValueError(f"scale_range {[low, high]} must be two positive factors, the smaller one first")
        if self.train_long_side and self.short_sides and max(self.short_sides) > self.train_long_side:
            raise ValueError(
                f"a short side of {max(self.short_sides)} exceeds train_long_side {self.train_long_side}; "
                "raise the latter"
            )
        if self.crop_max_share < 1 and not self.crop_size:
            raise ValueError("crop_max_share needs a crop; set crop_size too")
        return self
