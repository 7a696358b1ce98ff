"""A linear method whose settings choose what it reads of the labels, and that labels pixels itself."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.methods.trained import LabelView
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.types import UNSEEN_PIXEL, TextFeatures, TrainBatch
from tests.core.training.linear_method import Linear


class ViewedTraining(TrainingConfig):
    setting: Literal["inductive", "transductive", "supervised"] = Field(default="inductive")
    self_training: Literal["honest", "starred"] = Field(default="honest")
    marks: bool = Field(default=False)


class Viewed(Linear):
    """Names, labels and marks as the settings say; dropout is on in training and off while it labels pixels."""

    name = "viewed"
    Training = ViewedTraining

    def __init__(self, training: ViewedTraining):
        super().__init__()
        self.recipe = training
        self.dropout = nn.Dropout(0.3)
        self.heard: list[tuple[bool, torch.dtype | None]] = []

    @classmethod
    def label_view(cls, training: Any) -> LabelView:
        if training.setting == "supervised":
            return LabelView("all", "all")
        if training.setting == "transductive":
            return LabelView("all", "seen", marks_unseen=training.self_training == "starred")
        return LabelView("seen", "seen", marks_unseen=training.marks)

    def train_mode(self) -> None:
        super().train_mode()
        self.dropout.train()

    def logits(self, images: Tensor, text: TextFeatures) -> Tensor:
        self.heard.append((torch.is_autocast_enabled("cpu"), self.dropout.training))
        pixels = self.dropout(images.float() / 255).permute(0, 2, 3, 1)
        return 10 * F.normalize(self.colors(pixels), dim=-1) @ text.features.T

    def own_labels(self, batch: TrainBatch, text: TextFeatures) -> Tensor | None:
        if self.recipe.setting != "transductive":
            return None
        self.eval()
        assert text.seen is not None and batch["labels"].dtype == torch.int64
        best = self.logits(batch["images"], text).masked_fill(text.seen, -torch.inf).argmax(-1)
        starred = self.recipe.self_training == "starred"
        return torch.where(batch["labels"] == UNSEEN_PIXEL if starred else batch["labels"] < 0, best, batch["labels"])

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        classes = sum(len(found) for found in batch["classes"])
        return {**super().normalisers(batch), "classes": float(classes)}

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: dict[str, float]) -> dict[str, Tensor]:
        logits, labels = self.logits(batch["images"], text).permute(0, 3, 1, 2), batch["labels"]
        loss = F.cross_entropy(logits, labels.clamp_min(-1), ignore_index=-1, reduction="sum")
        marked = (logits.mean(1) * (labels == UNSEEN_PIXEL)).sum()
        return {"pixels": loss / max(1.0, totals["pixels"]), "marked": marked / max(1.0, totals["classes"])}
