"""Builds the models of the recorded fixtures in parity/pixelclip from their own configuration and state dict.

Shared by every test that compares with those fixtures; nothing about their sizes is written here.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ovseg_cli.core.clip import weights
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.towers import build_module

STUDENT = "sem_seg_head.predictor.clip_model."
TEACHER = "teacher_encoder."


class RecordedTokenizer:
    """Answers with the ids that the fixture recorded for a text."""

    def __init__(self, ids: dict[str, Tensor], context_length: int):
        self.ids, self.context_length = ids, context_length

    def __call__(self, texts):
        return torch.stack([self.ids[text] for text in texts])

    def unknown(self, texts):
        return []

    def too_long(self, texts):
        return []

    def to_json(self):
        return {"kind": "recorded"}


@dataclass
class Recorded:
    """One variant: configuration, recorded tensors, official state dict in float32, student CLIP, "vit" or "conv"."""

    config: dict
    tensors: dict[str, Tensor]
    state: dict[str, Tensor]
    clip: ClipModel
    kind: str

    def teacher(self) -> ClipModel:
        """Build the momentum encoder, with the student's text tower."""
        visual = {k.removeprefix(TEACHER): v for k, v in self.state.items() if k.startswith(f"{TEACHER}visual.")}
        student = {k.removeprefix(STUDENT): v for k, v in self.state.items() if k.startswith(STUDENT)}
        return _clip(self.config, self.tensors, student | visual, self.kind)

    @property
    def synonyms(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(name.split(", ")) for name in self.config["classes"])


class Fixture(dict[str, Tensor]):
    """Recorded tensors; a test that needs one that this set lacks is skipped."""

    def __missing__(self, key: str) -> Tensor:
        pytest.skip(f"these fixtures record no {key}")


def read_fixture(parity: Path, name: str) -> dict[str, Tensor]:
    path = parity / "pixelclip" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return Fixture(load_file(path))


def load_recorded(parity: Path, kind: str) -> Recorded:
    if not (parity / "pixelclip" / f"{kind}_config.json").is_file():
        pytest.skip(f"{parity / 'pixelclip' / f'{kind}_config.json'} is absent")
    config = json.loads((parity / "pixelclip" / f"{kind}_config.json").read_text())
    tensors = read_fixture(parity, f"{kind}_tensors")
    state = {k: v.float() if v.is_floating_point() else v for k, v in read_fixture(parity, f"{kind}_state").items()}
    student = {k.removeprefix(STUDENT): v for k, v in state.items() if k.startswith(STUDENT)}
    return Recorded(config, tensors, state, _clip(config, tensors, student, kind), kind)


def open_clip_config(config: dict, kind: str) -> dict:
    """Translate the fixture's `model` section into open_clip's form."""
    model = config["model"]
    if kind == "conv":
        vision = {
            "timm_model_name": "convnext_base",
            "image_size": config["clip_resolution"][0],
            "timm_model_kwargs": {"depths": model["depths"], "dims": model["dims"]},
        }
        return {"embed_dim": model["embed_dim"], "vision_cfg": vision, "text_cfg": model["text"], "quick_gelu": False}
    vision = {
        "image_size": model["image_resolution"],
        "layers": model["vision_layers"],
        "width": model["vision_width"],
        "head_width": model["vision_width"] // config["vision_heads"],
        "patch_size": model["vision_patch_size"],
    }
    text = {
        "context_length": model["context_length"],
        "vocab_size": model["vocab_size"],
        "width": model["transformer_width"],
        "heads": model["transformer_heads"],
        "layers": model["transformer_layers"],
    }
    return {"embed_dim": model["embed_dim"], "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}


def _clip(config: dict, tensors: dict[str, Tensor], state: dict[str, Tensor], kind: str) -> ClipModel:
    clip_config = open_clip_config(config, kind)
    module = build_module(clip_config)
    weights.load_into(module, state, kind)
    ids = dict(zip(config["texts_in_row_order"], tensors["text.token_ids"], strict=True))
    tokenizer = RecordedTokenizer(ids, tensors["text.token_ids"].shape[1])
    preprocess = {
        "mean": [m / 255 for m in config["pixel_mean"]],
        "std": [s / 255 for s in config["pixel_std"]],
    }
    return ClipModel(module, f"recorded-{kind}", clip_config, tokenizer, preprocess)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare within the fixture's tolerance: relative to the largest absolute value that is expected."""
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, f"largest relative error {error:.2e}"
