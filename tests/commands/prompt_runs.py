"""Runs of PixelCLIP that nobody trained, for the figures of its prompts."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ovseg_cli.core.clip.model import load_clip
from ovseg_cli.core.methods.pixelclip import PixelClip, PixelClipConfig, PixelClipTraining
from ovseg_cli.core.runs import WEIGHTS, create_run

SENTENCE = ("a photo of {}",)
PROPOSALS = {"proposals": "superpixels", "mask_size": 48, "assignment_scale": 20.0}


def make_run(
    place: Path, name: str = "pixel", prompts: int = 12, training: dict[str, Any] | None = None, shift: float = 0.5
) -> Path:
    """Write a finished run on the toy world.

    Args:
        place: The run becomes `place/runs/NAME`.
        name: Its folder.
        prompts: k.
        training: Settings of the training that differ from those of `PROPOSALS`.
        shift: How far, in standard deviations, the prompts are moved from where they began.
    """
    config = PixelClipConfig(resize="none", upsample_features=0, prompts=prompts, prompt_length=2,
                             prompt_templates=SENTENCE)  # fmt: skip
    method = PixelClip(load_clip("toy-clip"), config)
    tokens = method.class_prompts.prompt_tokens
    with torch.no_grad():
        noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
        tokens += shift * tokens.std() * noise
    tables = {
        "clip": {"name": "toy-clip"},
        "method": config.model_dump(mode="json"),
        "training": PixelClipTraining(**{**PROPOSALS, **(training or {})}).model_dump(mode="json"),
        "vocabulary": {"training_names": []},
    }
    run = create_run(place / "runs", "segmentation", "pixelclip", "toy:combo", tables, path=place / "runs" / name)
    save_file({key: value.contiguous() for key, value in method.trained_state().items()}, run.path / WEIGHTS)
    run.finish()
    return run.path
