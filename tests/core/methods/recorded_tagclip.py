"""Builds ZegCLIP and TagCLIP from the recorded fixtures in parity/tagclip; no size is written here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ovseg_cli.core.clip import weights
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.methods.one_stage import OneStageMethod
from ovseg_cli.core.methods.tagclip import TagClip, TagClipConfig
from ovseg_cli.core.methods.zegclip import ZegClip, ZegClipConfig
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.parity_models import Fixture
from tests.core.methods.straight_one_stage import Straight

OWN_NAMES = (
    ("backbone.prompt", "prompted.prompt"),
    ("backbone.deep_prompt", "prompted.deep_prompt"),
    ("decode_head.decoder_1.", "decoder."),
    ("decode_head.decoder.", "decoder."),
    ("decode_head.relationship_discriptor.", "descriptor."),
    ("decode_head.q_proj.", "descriptor.q_proj."),
    ("decode_head.disc_token", "trust_token"),
)
"""Official names' beginnings and the package's."""


def own_name(official: str) -> str:
    """The package's name of an official parameter; the official one where the package has none."""
    for start, own in OWN_NAMES:
        if official.startswith(start):
            return own + official.removeprefix(start)
    return official


class RecordedTexts:
    """A tokenizer that answers with recorded ids; texts are "template class"."""

    def __init__(self, ids: Tensor):
        self.ids, self.context_length = ids.long(), int(ids.shape[-1])

    def __call__(self, texts):
        return torch.stack([self.ids[int(text.split()[1]), int(text.split()[0])] for text in texts])

    def unknown(self, texts):
        return []

    def too_long(self, texts):
        return []

    def to_json(self):
        return {"kind": "recorded"}


class Recorded:
    """The folder: configuration, tensors by name, CLIP, both methods and their straightforward forms."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.io = Fixture({
            **load_file(folder / "common_and_zegclip.safetensors"), **load_file(folder / "tagclip.safetensors")
        })  # fmt: skip
        self.clip_weights = load_file(folder / "weights_clip.safetensors")
        heads = {name: load_file(folder / f"weights_{name}_head.safetensors") for name in ("zegclip", "tagclip")}
        self.official = {name: {**self.clip_weights, **head} for name, head in heads.items()}
        self.pipeline = dict(np.load(folder / "pipeline.npz"))
        self.folder = folder
        self.clip = self._clip()

    def _clip(self) -> ClipModel:
        own = self.config
        vision = {
            "image_size": own["input_resolution"],
            "layers": own["layers"],
            "width": own["width"],
            "head_width": own["width"] // own["heads"],
            "patch_size": own["patch_size"],
        }
        text = {
            "context_length": own["context_length"],
            "vocab_size": own["vocab_size"],
            "width": own["text_width"],
            "heads": own["text_heads"],
            "layers": own["text_layers"],
        }
        config = {"embed_dim": own["embed_dim"], "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
        module = build_module(config)
        state = {"logit_scale": torch.tensor(1.0)}
        for name, value in self.clip_weights.items():
            if name.startswith("backbone.") and "prompt" not in name:
                state[f"visual.{name.removeprefix('backbone.')}"] = value
            elif name.startswith("text_encoder."):
                state[name.removeprefix("text_encoder.")] = value
        weights.load_into(module, state, "recorded")
        return ClipModel(module, "recorded", config, RecordedTexts(self.io["in.token_ids"]))

    @property
    def seen(self) -> Tensor:
        """(A,) bool."""
        flags = torch.zeros(self.config["num_classes_all"], dtype=torch.bool)
        flags[self.config["base_class"]] = True
        return flags

    def text(self, which: str = "all") -> TextFeatures:
        """The recorded rows of all names or of the seen ones, as an inductive training or a test gets them."""
        rows = self.io["text.fp16"].float()
        rows = rows if which == "all" else rows[self.config["base_class"]]
        seen = self.seen if which == "all" else torch.ones(len(rows), dtype=torch.bool)
        return TextFeatures(rows, torch.arange(len(rows)), len(rows), seen)

    def settings(self, name: str, **changed) -> dict:
        """Settings of a method with the recorded sizes."""
        own, ffn = self.config, self.own_state(name)["decoder.layers.0.linear1.bias"]
        return {
            "side": own["crop_size"],
            "window": own["crop_size"],
            "stride": own["stride"],
            "prompts": own["num_tokens"],
            "prompt_depth": own["deep_prompt_layers"],
            "decoder_layers": own["decoder_layers"],
            "decoder_heads": own["decoder_heads"],
            "decoder_ffn": len(ffn) // own["embed_dim"],
            "gamma": own[name]["gamma"],
            **changed,
        }

    def own_state(self, name: str) -> dict[str, Tensor]:
        """All official weights of a method under the package's names."""
        return {own_name(key): value for key, value in self.official[name].items()}

    def method(self, name: str, **changed) -> OneStageMethod:
        """Build a method with the recorded weights; what it does not build is left out."""
        made: OneStageMethod
        if name == "zegclip":
            made = ZegClip(self.clip, ZegClipConfig(**self.settings(name, **changed)))
        else:
            made = TagClip(self.clip, TagClipConfig(**self.settings(name, **changed)))
        state = self.own_state(name)
        made.load_trained_state({key: state[key] for key in made.trained_state()}, "recorded")
        return made

    def straight(self, name: str, token: bool = True) -> Straight:
        """The straightforward form; what ZegCLIP's code holds and never calls is left out."""
        state = {k: v for k, v in self.own_state(name).items() if k.startswith(("prompted.", "decoder.", "desc"))}
        if name == "zegclip":
            state = {k: v for k, v in state.items() if ".self_attn." not in k}
        elif token:
            state["trust_token"] = self.own_state(name)["trust_token"]
        return Straight(self.clip.visual, state, self.config["decoder_heads"])

    def labels(self, key: str, which: str = "seen", marks: bool = False) -> Tensor:
        """A recorded label map (B, 1, H, W) in positions of the seen or of all names; -2 marks unseen classes."""
        table = torch.full((256,), -1)
        for i, k in enumerate(self.config["base_class"]):
            table[k] = i if which == "seen" else k
        if marks:
            table[self.config["novel_class"]] = -2
        return table[self.io[key][:, 0].long()]


@pytest.fixture(scope="module")
def recorded(parity) -> Recorded:
    """For test files to import."""
    if not (parity / "tagclip" / "config.json").is_file():
        pytest.skip(f"{parity / 'tagclip' / 'config.json'} is absent")
    return Recorded(parity / "tagclip")


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Within the fixtures' tolerance: relative to the largest value, at least to 1."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = float((actual.detach().float() - expected.float()).abs().max())
    assert error <= tolerance * max(1.0, float(expected.abs().max())), f"off by {error:.2e}"
