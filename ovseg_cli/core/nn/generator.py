"""FreeSeg's mask generator: which masks does a picture hold, given the names that are asked for?

ResNet, deformable pixel decoder, text interaction, masked-attention decoder. The state dict has the official key names
`backbone.*` and `sem_seg_head.*`, so a released checkpoint loads after its other parts are taken away; `official_state`
does that and renames the one entry that older checkpoints call otherwise.

What the released weights need, although it looks like a slip, is kept:

* the text interaction starts from normalised pixels and normalises the text once more at each map (text_interaction);
* the encoder's FFN is 1024 wide whatever the width (generator_config);
* ten decoder layers, eleven predictions, of which the tenth never had a loss weight (mask_losses).

Source: Qin et al., "FreeSeg", CVPR 2023; the code of FreeSeg and MAFT, which agree.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.generator_config import GeneratorConfig
from ovseg_cli.core.nn.generator_output import GeneratorOutput
from ovseg_cli.core.nn.mask_decoder import MaskDecoder
from ovseg_cli.core.nn.pixel_decoder import PixelDecoder, Pyramid
from ovseg_cli.core.nn.resnet import ResNet
from ovseg_cli.core.nn.text_interaction import TextInteraction

STRIDE = 32
"""Height and width of the canvas are multiples of this."""


class GeneratorHead(nn.Module):
    """All behind the backbone; keys `pixel_decoder.*`, `interaction.*`, `predictor.*`."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.pixel_decoder = PixelDecoder(
            config.backbone.channels,
            config.width,
            config.mask_width,
            config.encoder_layers,
            config.encoder_ffn,
            config.heads,
            config.points,
            config.dropout,
            config.groups,
        )
        self.interaction = TextInteraction(
            config.width, config.embed_width, config.interaction_width, config.interaction_heads, config.dropout
        )
        self.predictor = MaskDecoder(
            config.width,
            config.mask_width,
            config.embed_width,
            config.embed_hidden,
            config.queries,
            config.decoder_layers,
            config.heads,
            config.decoder_ffn,
        )

    def forward(self, maps: dict[str, Tensor], text: Tensor) -> GeneratorOutput:
        """Return the queries of backbone maps res2 to res5 and text rows (K + 1, D)."""
        pyramid = self.pixel_decoder(maps)
        *levels, mask_features = self.interaction([*pyramid.levels, pyramid.mask_features], text)
        return self.predictor(Pyramid(levels, mask_features))


class FreeSegGenerator(nn.Module):
    """Masks and class embeddings of a picture."""

    def __init__(self, config: GeneratorConfig | None = None):
        super().__init__()
        self.config = config or GeneratorConfig()
        self.backbone = ResNet(self.config.backbone)
        self.sem_seg_head = GeneratorHead(self.config)

    def normalise(self, image: Tensor) -> Tensor:
        """Return (..., 3, H, W) float32 with the configuration's mean and deviation, of 0 to 255 RGB."""
        return normalise(image, self.config.pixel_mean, self.config.pixel_std)

    def forward(self, images: Tensor, text: Tensor) -> GeneratorOutput:
        """Propose masks.

        Args:
            images: (B, 3, H, W), from `normalise`, zeros around it; H and W multiples of 32.
            text: (K + 1, D), unit length, the non-object row last.

        Returns:
            Embeddings (B, Q, D), mask logits (B, Q, H/4, W/4), and those of the bare queries and the earlier layers.

        Raises:
            ShapeError: The canvas is no multiple of 32, or the text rows have another width.
        """
        if images.shape[-2] % STRIDE or images.shape[-1] % STRIDE:
            raise ShapeError(f"the canvas {tuple(images.shape)} must have a height and width that {STRIDE} divides")
        if text.ndim != 2 or text.shape[1] != self.config.embed_width:
            raise ShapeError(
                f"text rows {tuple(text.shape)} and the generator's embed_width {self.config.embed_width} differ"
            )
        return self.sem_seg_head(self.backbone(images), text)


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (..., 3, H, W) float32 of 0 to 255 RGB: mean taken away, deviation divided out.

    What is padded to a picture is 0 *after* this, the mean colour.
    """
    offset, scale = (torch.tensor(v, device=image.device)[:, None, None] for v in (mean, std))
    return (image.float() - offset) / scale


def official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the generator's part of an official checkpoint, under this module's names.

    Kept as they are: `backbone.*` and `sem_seg_head.*`. Older checkpoints say `static_query` where later ones say
    `query_feat`. Everything else (`clip_adapter.*`, `IPCLIP.*`, `T.*`, `criterion.*`) belongs to other parts.
    """
    parts = ("backbone.", "sem_seg_head.")
    return {
        key.replace("predictor.static_query.", "predictor.query_feat."): value
        for key, value in state.items()
        if key.startswith(parts)
    }
