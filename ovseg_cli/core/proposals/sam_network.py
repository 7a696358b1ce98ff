"""Segment Anything as a network: SAM, SAM 2 or SAM 3 of the transformers library behind two verbs, encode and decode.

They differ in how a picture becomes their input (SAM pads the long side's square, the others squash), in what an
encoded picture is (one map or several), and in who bears the point-promptable part of SAM 3 (its tracker).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.proposals.tiny_models import TINY
from ovseg_cli.core.proposals.weights import image_processor, load_transformers, processor_class, resolve_name
from ovseg_cli.core.reporter import Reporter

KNOWN = {
    "sam-vit-base": "facebook/sam-vit-base",
    "sam-vit-large": "facebook/sam-vit-large",
    "sam-vit-huge": "facebook/sam-vit-huge",
    "sam2.1-hiera-tiny": "facebook/sam2.1-hiera-tiny",
    "sam2.1-hiera-small": "facebook/sam2.1-hiera-small",
    "sam2.1-hiera-base-plus": "facebook/sam2.1-hiera-base-plus",
    "sam2.1-hiera-large": "facebook/sam2.1-hiera-large",
    "sam3": "facebook/sam3",
    **{name: name for name in TINY if "sam" in name},
}
KINDS = ("sam", "sam2", "sam2_video", "sam3_tracker", "sam3_video")
_UPSAMPLED = 2**24  # values that are brought to full size at once: 64 MiB


@dataclass(frozen=True)
class Encoded:
    """One encoded picture or crop.

    Attributes:
        embeddings: What the network's decoder wants.
        size: (H, W) of the crop.
        inside: (h, w) of the network's input that the crop fills, from the top left; the rest is padding.
        square: (h, w) of the network's whole input.
    """

    embeddings: Any
    size: tuple[int, int]
    inside: tuple[int, int]
    square: tuple[int, int]


class SamNetwork:
    """SAM, SAM 2 or SAM 3, frozen.

    Args:
        model: Short name in `KNOWN`, hub repository or local folder.
        weights: "published" or "random".
        device: Where it runs.
        reporter: Told where the weights are random.

    Raises:
        UsageError: Unknown name; a model of another kind.
        MachineError: The weights are absent.
    """

    def __init__(self, model: str, weights: str, device: str, reporter: Reporter):
        from transformers import AutoModelForMaskGeneration

        name = resolve_name(model, KNOWN, "SAM model")
        what = "a Segment Anything that takes points"
        self.module, folder = load_transformers(AutoModelForMaskGeneration, name, weights, KINDS, what, reporter)
        self.module.to(device)
        self.device = device
        self.processor = image_processor(folder, lambda: _default_processor(self.module.config))

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        """Run the image encoder once.

        Args:
            image: (3, H, W) uint8 RGB, a picture or a crop of it.
        """
        inputs = self.processor(images=image, input_data_format="channels_first", return_tensors="pt")
        pixels = inputs["pixel_values"].to(self.device)
        square = (int(pixels.shape[2]), int(pixels.shape[3]))
        inside = inputs["reshaped_input_sizes"][0].tolist() if "reshaped_input_sizes" in inputs else square
        size = (int(image.shape[1]), int(image.shape[2]))
        return Encoded(self.module.get_image_embeddings(pixels), size, (int(inside[0]), int(inside[1])), square)

    @torch.no_grad()
    def decode(self, encoded: Encoded, points: Tensor) -> tuple[Tensor, Tensor]:
        """Ask for the masks at points.

        Args:
            encoded: Of `encode`.
            points: (P, 2) x, y between 0 and 1 of the crop; each asks alone.

        Returns:
            Three masks a point: logits (3P, h, w) on the network's grid, and the IoU (3P,) that it expects of each.
        """
        scale = torch.tensor([encoded.inside[1], encoded.inside[0]], device=self.device)
        places = (points.to(self.device) * scale)[None, :, None]
        labels = torch.ones(places.shape[:3], dtype=torch.int64, device=self.device)
        out = self.module(image_embeddings=encoded.embeddings, input_points=places, input_labels=labels)
        return out.pred_masks[0].flatten(0, 1), out.iou_scores[0].flatten()


def chunk_size(encoded: Encoded) -> int:
    """Return how many masks may be brought to full size at once."""
    pixels = max(encoded.size[0] * encoded.size[1], encoded.square[0] * encoded.square[1])
    return max(1, _UPSAMPLED // pixels)


def full_size(logits: Tensor, encoded: Encoded) -> Tensor:
    """Bring (N, h, w) logits to the crop, (N, H, W): bilinear; padding is cut off at the input's size first."""
    if not len(logits):
        return logits.new_zeros((0, *encoded.size))
    maps = logits[None]
    if encoded.inside != encoded.square:
        maps = F.interpolate(maps, encoded.square, mode="bilinear", align_corners=False)
        maps = maps[..., : encoded.inside[0], : encoded.inside[1]]
    return F.interpolate(maps, encoded.size, mode="bilinear", align_corners=False)[0]


def _default_processor(config: Any) -> Any:
    """Return the family's own image processor at the size that the model was made for."""
    side = config.prompt_encoder_config.image_size
    square = {"height": side, "width": side}
    if config.model_type == "sam":
        return processor_class("Sam")(size={"longest_edge": side}, pad_size=square)
    return processor_class("Sam2" if config.model_type.startswith("sam2") else "Sam3")(size=square)
