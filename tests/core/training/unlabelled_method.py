"""A linear method that reads no labels: both views of a mask, less what the box hides, are to have one mean colour."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ovseg_cli.core.methods.trained import LabelView, SecondView, Total
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.types import TextFeatures, TrainBatch
from tests.core.training.linear_method import Linear


class UnlabelledTraining(TrainingConfig):
    class_names: Literal["none", "data"] = Field(default="none")
    strong_colors: bool = Field(default=True)
    cut_out: bool = Field(default=True)


class Unlabelled(Linear):
    name = "unlabelled"
    Training = UnlabelledTraining
    wants_proposals: ClassVar[bool] = True

    @classmethod
    def label_view(cls, training: Any) -> LabelView:
        return LabelView("all" if training.class_names == "data" else "none", "none")

    @classmethod
    def second_view(cls, training: Any) -> SecondView:
        return SecondView(training.strong_colors, training.cut_out)

    def before_step(self, parts: Sequence[TrainBatch], text: TextFeatures, total: Total) -> list[dict[str, Any]]:
        """Add how many masks the whole batch has."""
        assert all((part["labels"] == -1).all() and not any(len(c) for c in part["classes"]) for part in parts)
        count = total(torch.tensor([float(sum(part["masks"].counts)) for part in parts]).sum()[None])
        return [{"every": count} for _ in parts]

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        return {"masks": float(sum(batch["masks"].counts))}

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: dict[str, float]) -> dict[str, Tensor]:
        assert float(batch["every"]) == totals["masks"]
        weak, strong = (self.colors(batch[key].float().movedim(1, -1) / 255) for key in ("images", "strong"))
        summed = (weak.sum() + strong.sum()) * 0
        for i, masks in enumerate(batch["masks"]):
            inside = masks.clone().float() / 255
            top, left, height, width = batch["cut_outs"][i].tolist()
            inside[:, top : top + height, left : left + width] = 0
            share = inside / inside.sum((1, 2), keepdim=True).clamp_min(1)
            gap = torch.einsum("nhw,hwd->nd", share, weak[i] - 0.5 * strong[i])
            summed = summed + gap.square().sum()
        return {"masks": summed / max(1.0, totals["masks"])}
