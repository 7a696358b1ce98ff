"""What checkpoints of ZegFormer and ZSSeg share: MaskFormer, its sizes and its tensors."""

from typing import Any

from pydantic import BaseModel
from torch import Tensor

from ovseg_cli.core.conversion.choices import Choice, make_sizes, read_sizes, take_table
from ovseg_cli.core.conversion.freeseg import backbone_sizes, missing_size
from ovseg_cli.core.conversion.ledger import Ledger
from ovseg_cli.core.nn.maskformer_config import MaskFormerConfig

UNTOLD = ("groups", "heads", "dropout")
_LOOSE = {"groups": 1, "heads": 1}


def maskformer_sizes(
    ledger: Ledger, asked: dict[str, Any], sizes_class: type[MaskFormerConfig]
) -> tuple[Any, list[Choice]]:
    """Return MaskFormer's sizes.

    Raises:
        UsageError: A part is missing, or a setting contradicts the file.
    """
    where = ledger.where
    backbone, of_backbone = backbone_sizes(ledger, take_table(asked, "backbone"))
    try:
        read: BaseModel = sizes_class.from_state_dict(ledger.state, backbone=backbone, **_LOOSE)
    except KeyError as error:
        raise missing_size(where, error) from error
    from_shapes = {key: value for key, value in read.model_dump().items() if key != "backbone"}
    from_shapes |= {key: sizes_class.model_fields[key].default for key in _LOOSE}
    chosen, choices = read_sizes(sizes_class, from_shapes, asked, UNTOLD, where, "generator")
    return make_sizes(sizes_class, {**chosen, "backbone": backbone}, where, "generator"), [*of_backbone, *choices]


def load_generator(ledger: Ledger) -> dict[str, Tensor]:
    """Hand out the tensors of MaskFormer; what the predictor holds beside it must have been handed out before."""
    found = ledger.load("backbone.", "backbone of the mask generator")
    for part in ("pixel_decoder.", "predictor."):
        found |= ledger.load(f"sem_seg_head.{part}", "mask generator")
    return found
