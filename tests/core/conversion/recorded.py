"""The recorded model in the official layout, as users meet it: one file, and a TOML for what it does not hold."""

import json
from pathlib import Path

import tomli_w
import torch
from safetensors.torch import load_file


class Recorded:
    def __init__(self, folder: Path):
        self.config = json.loads((folder / "maft_e2e_config.json").read_text())
        self.state = load_file(folder / "maft_e2e_weights.safetensors")
        self.io = load_file(folder / "maft_e2e_io.safetensors")
        self.text = self.io["text_features"].float()
        self.pictures = [self.io[f"image_{i}"] for i in range(len(self.config["input_sizes"]))]
        self.seen = torch.tensor(self.config["trainable_flag"]).bool()

    def settings(self) -> dict:
        """What no shape tells, from the recorded configuration."""
        return {
            "resize": "none",
            "start_layer": self.config["start_layers"],
            "clip": {"text_heads": self.config["clip"]["transformer_heads"]},
            "generator": {"interaction_heads": self.config["dims"]["MODEL.SEM_SEG_HEAD.NUM_HEADS"]},
        }

    def save(self, folder: Path, wrapped: bool = False, state: dict | None = None, name: str = "MAFT.pt") -> Path:
        state = self.state if state is None else state
        if wrapped:
            state = {f"module.{key}": value for key, value in state.items()}
            torch.save({"model": state, "iteration": 999, "optimizer": {"state": {}}}, folder / name)
        else:
            torch.save(state, folder / name)
        return folder / name

    def save_settings(self, folder: Path, **changes) -> Path:
        path = folder / "convert.toml"
        path.write_text(tomli_w.dumps({**self.settings(), **changes}))
        return path

    def step_one(self) -> dict:
        """The checkpoint as it was before MAFT."""
        return {k: v for k, v in self.state.items() if not k.startswith(("IPCLIP.", "T."))}
