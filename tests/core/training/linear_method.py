"""The smallest trained method: one linear map from colours to the CLIP's space, with masks if they are wanted."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.types import Prediction, TextFeatures, TrainBatch
from tests.core.clip.tiny import tiny_clip


class Linear(TrainedMethod):
    name = "linear"
    title = "Linear"
    paper = "none"

    def __init__(self, seed: int = 0):
        super().__init__(tiny_clip())
        self.clip.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.colors = nn.Linear(3, 24)
        self.frozen = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).requires_grad_(False)
        self.steps_seen = 0

    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        return [
            {"params": [self.colors.weight]},
            {"params": [self.colors.bias], "weight_decay": 0.0, "lr": 0.1 * training.learning_rate},
            {"params": []},
        ]

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        return {"pixels": float((batch["labels"] >= 0).sum())}

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: dict[str, float]) -> dict[str, Tensor]:
        pixels = self.frozen(batch["images"].float() / 255).permute(0, 2, 3, 1)
        logits = 10 * F.normalize(self.colors(pixels), dim=-1) @ text.features.T
        loss = F.cross_entropy(logits.permute(0, 3, 1, 2), batch["labels"], ignore_index=-1, reduction="sum")
        return {"pixels": loss / max(1.0, totals["pixels"])}

    def after_step(self) -> dict[str, float]:
        self.steps_seen += 1
        return {"steps_seen": float(self.steps_seen)}

    def predict(self, images: Sequence[Tensor], text: TextFeatures) -> list[Prediction]:
        raise NotImplementedError

    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        raise NotImplementedError


class Masked(Linear):
    """Pulls the mean colour of each mask towards the class that it overlaps most."""

    wants_proposals: ClassVar[bool] = True

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        return {"masks": float(sum(batch["masks"].counts))}

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: dict[str, float]) -> dict[str, Tensor]:
        terms = []
        for image, label, masks, crop in zip(
            batch["images"].float() / 255, batch["labels"], batch["masks"], batch["masks"].crops, strict=True
        ):
            overlaps = crop.overlaps(label, text.num_classes)
            means = torch.einsum("nhw,chw->nc", masks.float() / 255, image) / crop.areas().clamp(min=1)[:, None]
            logits = 10 * F.normalize(self.colors(means), dim=-1) @ text.features.T
            target = torch.where(overlaps.amax(1) > 0, overlaps.argmax(1), -1)
            terms.append(F.cross_entropy(logits, target, ignore_index=-1, reduction="sum"))
        return {"masks": torch.stack(terms).sum() / max(1.0, totals["masks"])}
