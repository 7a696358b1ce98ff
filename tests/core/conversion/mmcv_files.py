"""Checkpoints of ZegCLIP and TagCLIP as mmcv writes them: from the recorded weights, or small random ones by hand."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import tomli_w
import torch
from safetensors.torch import load_file

from ovseg_cli.core.clip.towers import build_module

METHODS = ("zegclip", "tagclip")
TENSORS = {"zegclip": "common_and_zegclip", "tagclip": "tagclip"}


class RecordedOneStage:
    """The recorded weights and results (parity/tagclip); no size of them is written here."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.clip = load_file(folder / "weights_clip.safetensors")
        heads = {name: load_file(folder / f"weights_{name}_head.safetensors") for name in METHODS}
        self.variants = {k: v for k, v in heads["tagclip"].items() if k.startswith("variant.")}
        self.heads = {n: {k: v for k, v in head.items() if k not in self.variants} for n, head in heads.items()}
        self.io = load_file(folder / "common_and_zegclip.safetensors") | load_file(folder / "tagclip.safetensors")
        self.text = self.io["text.fp16"].float()
        self.seen = torch.zeros(len(self.text), dtype=torch.bool)
        self.seen[self.config["base_class"]] = True
        self.names = tuple(f"class {i}" for i in range(len(self.text)))

    def state(self, method: str) -> dict[str, torch.Tensor]:
        return {**self.clip, **self.heads[method]}

    def settings(self) -> list[str]:
        """What no shape tells."""
        own = {
            "clip.heads": self.config["heads"],
            "clip.text_heads": self.config["text_heads"],
            "decoder_heads": self.config["decoder_heads"],
            "window": self.config["crop_size"],
            "stride": self.config["stride"],
        }
        return [part for key, value in own.items() for part in ("--set", f"{key}={value}")]

    def save_data(self, folder: Path) -> str:
        """Write a spec of the recorded classes; return what stands after `--data`."""
        return save_spec(folder, self.names, [self.names[i] for i in self.config["novel_class"]])


def save_spec(folder: Path, names, unseen) -> str:
    spec = {
        "schema": 1,
        "name": "recorded",
        "title": "Recorded classes",
        "task": "semantic",
        "ignore_label": 255,
        "label_dtype": "uint8",
        "default_split": "own",
        "classes": [{"name": name} for name in names],
        "class_splits": [{"id": "own", "unseen": list(unseen), "sources": ["recorded"]}],
    }
    (folder / "recorded.toml").write_text(tomli_w.dumps(spec))
    return "./recorded.toml"


def mmcv(state: dict[str, torch.Tensor], classes=None) -> dict:
    """The dictionary that mmcv saves, its best score a number of numpy."""
    names = {"CLASSES": tuple(classes), "PALETTE": [[i, 0, 0] for i in range(len(classes))]} if classes else {}
    scores = {"hook_msgs": {"best_score": np.float64(0.5), "best_ckpt": "best.pth"}, "iter": 20000, "epoch": 12}
    meta = {"mmseg_version": "0.24.0", "config": "model = dict(type='FewSegViT')\n", **names, **scores}
    ordered = OrderedDict(state)
    ordered._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 2e-4, "params": [0]}]}
    return {"meta": meta, "state_dict": ordered, "optimizer": optimizer}


PROMPTS, DEPTH, LAYERS, CLASSES = 5, 2, 3, 4
SMALL = ["--set", "decoder_heads=4", "--set", "window=32", "--set", "stride=20", "--set", "side=32"]


def small(method: str, words: bool = False, text: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """A small official state dict from the key lists of the codes, heads of 64; with `words` CLIP's own byte pairs."""
    vision = {"image_size": 32, "layers": 3, "width": 64, "head_width": 64, "patch_size": 8}
    length, ids = (77, 49408) if words else (12, 40)
    of_text = {"context_length": length, "vocab_size": ids, "width": 64, "heads": 1, "layers": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": of_text, "quick_gelu": True}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = build_module(config).state_dict()
        del clip["logit_scale"]
        image = {f"backbone.{k.removeprefix('visual.')}": v for k, v in clip.items() if k.startswith("visual.")}
        words_tower = {f"text_encoder.{k}": v for k, v in clip.items() if not k.startswith("visual.")}
        made = {name: torch.randn(shape) * 0.1 for name, shape in _trained(method, 64, 24).items()}
    return {**image, **(words_tower if text else {}), **made}


def _trained(method: str, width: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what the codes save beside CLIP, after section 8 of the specification."""
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.prompt_embeddings": (1, PROMPTS, width),
        "backbone.deep_prompt_embeddings": (DEPTH, PROMPTS, width),
        **_affine("backbone.prompt_proj", width, width),
        **_affine("backbone.prompt_norm", width),
        "decode_head.loss_decode.criterion.empty_weight": (CLASSES + 1,),
    }
    place = {"zegclip": "decode_head.", "tagclip": "decode_head.relationship_discriptor."}[method]
    shapes |= _affine(f"{place}q_proj", dim, 2 * dim)
    if method == "tagclip":
        shapes["decode_head.disc_token"] = (1, dim)
    for i in range(LAYERS):
        layer = f"decode_head.{'decoder_1' if method == 'zegclip' else 'decoder'}.layers.{i}."
        for part in ("q", "k", "v", "proj"):
            shapes |= _affine(f"{layer}multihead_attn.{part}", dim, dim)
        shapes |= _affine(f"{layer}linear1", 4 * dim, dim) | _affine(f"{layer}linear2", dim, 4 * dim)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _affine(f"{layer}{norm}", dim)
        if method == "zegclip" or i == 0:
            shapes |= {f"{layer}self_attn.in_proj_weight": (3 * dim, dim), f"{layer}self_attn.in_proj_bias": (3 * dim,)}
            shapes |= _affine(f"{layer}self_attn.out_proj", dim, dim)
    return shapes


def _affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
