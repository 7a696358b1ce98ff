"""One CLIP: its two towers, tokenizer, preprocessing and fingerprint, however its weights were found.

`load_clip` finds it by name; `save_clip` (saved.py) writes a file that describes itself.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg_cli.core.clip import hub, weights
from ovseg_cli.core.clip.dense import PATHS, PositionRule, dense_features, pooled_features, tower_of
from ovseg_cli.core.clip.provenance import explain, find_provenance
from ovseg_cli.core.clip.saved import TOY, read_saved
from ovseg_cli.core.clip.saved import save_clip as save_clip
from ovseg_cli.core.clip.tokenizer import OpenClipTokenizer, Tokenizer, tokenizer_from_json
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.clip.vit import LastBlock
from ovseg_cli.core.errors import MachineError, UsageError, unknown_name
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.reporter import Reporter, Silent

RUN_FILE = "clip.safetensors"  # name inside a run folder
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_ASSET = Path(__file__).resolve().parents[2] / "assets" / "toy_clip.safetensors"


class ClipModel(nn.Module):
    """CLIP with everything that goes with its weights. Frozen and in eval mode when it is made.

    Args:
        module: open_clip model in float32 (CLIP, CustomTextCLIP).
        name: What the user typed, for instance "ViT-B-16/openai".
        config: open_clip's model configuration, `quick_gelu` as used.
        tokenizer: Text to ids.
        preprocess: "mean" and "std" of RGB values between 0 and 1; "dense_side" where the file names one.
        recipe: How the weights were made, where the file says so.

    Attributes:
        visual: Image tower, for methods that walk through its blocks (vit.py has the steps).
        mean: (3,) of RGB values between 0 and 1; `std` likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        name: str,
        config: dict[str, Any],
        tokenizer: Tokenizer,
        preprocess: dict[str, Any] | None = None,
        recipe: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.module: Any = module.requires_grad_(False)
        self.name = name
        self.open_clip_config = config
        self.tokenizer = tokenizer
        self.preprocess = {"mean": OPENAI_MEAN, "std": OPENAI_STD, **(preprocess or {})}
        self.recipe = recipe or {}
        self.register_buffer("mean", torch.tensor(self.preprocess["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(self.preprocess["std"]), persistent=False)
        self.eval()

    @property
    def visual(self) -> Any:
        """Image tower."""
        return self.module.visual

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mean.device

    @property
    def logit_scale(self) -> float:
        """Multiplies the cosine: min(exp(logit_scale), 100) of the checkpoint."""
        return min(math.exp(float(self.module.logit_scale)), 100.0)

    @property
    def embed_dim(self) -> int:
        """D."""
        return int(self.open_clip_config["embed_dim"])

    @property
    def image_size(self) -> int:
        """Side of the square picture that the CLIP was trained on, in pixels."""
        size = self.visual.image_size
        return int(size[0] if isinstance(size, Sequence) else size)

    @property
    def dense_side(self) -> int:
        """Side in pixels at which dense features are read unless somebody says otherwise.

        What the file says, else 1.5 times the image size: SCLIP's and NACLIP's 336 for ViT-B/16.
        """
        return int(self.preprocess.get("dense_side") or round(1.5 * self.image_size))

    @property
    def patch_size(self) -> int:
        """Pixels between two dense features: the ViT's patch, or the ConvNeXt's output stride."""
        return tower_of(self.visual).stride

    @property
    def digest(self) -> str:
        """Fingerprint of all weights, the activation and the configuration."""
        return self._digest(self.module.state_dict())

    @property
    def text_digest(self) -> str:
        """Fingerprint of what text features depend on: text tower, configuration, tokenizer."""
        tower = {k: v for k, v in self.module.state_dict().items() if not k.startswith("visual.")}
        return digest_of([self._digest(tower), json.dumps(self.tokenizer.to_json(), sort_keys=True)])

    def _digest(self, state: dict[str, Tensor]) -> str:
        parts: list[str | bytes] = ["clip-1", json.dumps(self.open_clip_config, sort_keys=True)]
        for key in sorted(state):
            parts += [key, state[key].detach().float().cpu().contiguous().numpy().data.cast("B")]  # type: ignore[list-item]
        return digest_of(parts)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return (n, L) int64 ids."""
        return self.tokenizer(texts)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return (n, D) text features of (n, L) ids, not normalised.

        Attention is causal and the feature is read at the end of the text, so the columns after the last end are left
        out: the same features, for class names in a fraction of the time.
        """
        if not self._reads_the_end:
            return self.module.encode_text(tokens)
        ends = tokens.argmax(dim=-1)
        return self.encode_embedded(self.word_table(tokens[:, : int(ends.max()) + 1]), ends)

    def encode_embedded(self, embedded: Tensor, ends: Tensor) -> Tensor:
        """Encode texts whose words are vectors, rows of `word_table` or learned ones; gradients reach them.

        Args:
            embedded: (n, L, width), without positions; L is at most the context length, and columns after the last end
                only cost time.
            ends: (n,) int64, the column of each text's end, where its feature is read.

        Returns:
            (n, D), not normalised.

        Raises:
            UsageError: The text tower takes no vectors (`word_table`).
        """
        module, length = self.module, embedded.shape[1]
        self._need_vectors()
        x = embedded + module.positional_embedding[:length]
        x = module.ln_final(module.transformer(x, attn_mask=module.attn_mask[:length, :length]))
        x = x[torch.arange(len(x), device=x.device), ends]
        projection = module.text_projection
        return projection(x) if isinstance(projection, nn.Linear) else x if projection is None else x @ projection

    @property
    def word_table(self) -> nn.Embedding:
        """The vectors of all ids, (vocabulary, width).

        Raises:
            UsageError: The text tower is none of CLIP's own, which reads causally and at the end of the text.
        """
        self._need_vectors()
        return self.module.token_embedding

    @property
    def _reads_the_end(self) -> bool:
        return getattr(self.module, "text_pool_type", None) == "argmax" and self.module.attn_mask is not None

    def _need_vectors(self) -> None:
        if not self._reads_the_end:
            raise UsageError(
                f"the text tower of {self.name} takes no learned words: it is not CLIP's own causal transformer.",
                "Choose another --clip, such as ViT-B-16.",
            )

    def encode_image(self, images: Tensor) -> Tensor:
        """Return (B, D) features of whole pictures, not normalised.

        Args:
            images: (B, 3, H, W), normalised with `mean` and `std`. A plain ViT takes any size; its position table is
                resized bicubically to the grid.
        """
        if tuple(images.shape[-2:]) != (self.image_size,) * 2 and tower_of(self.visual).kind == "vit":
            return pooled_features(self.visual, images)
        return self.module.encode_image(images)

    def dense(self, images: Tensor, path: str | LastBlock = "raw", position: PositionRule | str = "explicit") -> Tensor:
        """Return one feature for each patch, (B, h, w, D), not normalised.

        Args:
            images: (B, 3, H, W), normalised with `mean` and `std`, any size (dense.py says what happens to a rest).
            path: What the last block does: a name in `dense.PATHS` or a `LastBlock`.
            position: How the position table is resized (dense.POSITION_RULES).

        Raises:
            UsageError: Unknown path or rule, or a tower that has no such path.
        """
        if isinstance(path, str) and path not in PATHS:
            raise unknown_name("dense path", path, PATHS)
        return dense_features(self.visual, images, PATHS[path] if isinstance(path, str) else path, position)


def load_clip(
    name: str, pretrained: str | None = None, device: torch.device | str = "cpu", reporter: Reporter | None = None
) -> ClipModel:
    """Find a CLIP by name.

    Args:
        name: "toy-clip"; a run folder or a file that describes itself; or an open_clip architecture ("ViT-B-16").
        pretrained: For an architecture: one of its tags, a local file, or "random". Absent: "openai".
        device: Where to put it.
        reporter: Told which weights and which activation are used.

    Raises:
        UsageError: Unknown architecture or tag; weights of another architecture or activation.
        MachineError: A file is missing or broken; weights cannot be downloaded.
    """
    reporter = reporter or Silent()
    if name == TOY:
        clip = _load_file(_ASSET, TOY)
    elif _is_path(name):
        path = Path(name) / RUN_FILE if Path(name).is_dir() else Path(name)
        clip = _load_file(path, name)
    else:
        clip = _load_architecture(name, pretrained or "openai", reporter)
        return clip.to(device)
    if pretrained:
        raise UsageError(
            f"--pretrained {pretrained}: {name} brings its own weights.",
            "Leave --pretrained out, or give an open_clip architecture to --clip.",
        )
    return clip.to(device)


def parameter_count(name: str) -> int | None:
    """Count the parameters of a CLIP by name without loading its weights; None where that cannot be known.

    Args:
        name: As in `load_clip`.
    """
    if name == TOY or _is_path(name):
        path = _ASSET if name == TOY else Path(name) / RUN_FILE if Path(name).is_dir() else Path(name)
        return sum(t.numel() for t in read_saved(path, name).state.values()) if path.is_file() else None
    with torch.device("meta"):
        module = build_module(weights.model_config(name.replace("/", "-")))
    return sum(p.numel() for p in module.parameters())


def _is_path(name: str) -> bool:
    return (
        name.endswith(".safetensors") or ("/" in name and Path(name).exists()) or name.startswith((".", "/", "runs/"))
    )


def _load_architecture(name: str, pretrained: str, reporter: Reporter) -> ClipModel:
    config = weights.model_config(name)
    name = name.replace("/", "-")
    if pretrained == "random":
        reporter.say(f"{name} runs with random weights: its features mean nothing")
        return _wrap(build_module(config), name, "random", config, {})
    file, is_tag = Path(pretrained), not Path(pretrained).is_file()
    if is_tag and (file.suffix or "/" in pretrained):
        raise MachineError(f"--pretrained {pretrained}: there is no such file.", "Check the path, or give a tag.")
    path = hub.fetch_tag(name, pretrained) if is_tag else file
    state, is_openai = weights.read_state_dict(path)
    found = find_provenance(name, config, pretrained if is_tag else None, path, is_openai)
    config["quick_gelu"] = found.quick_gelu
    reporter.say(explain(name, config, pretrained, found))
    module = build_module(config)
    weights.load_into(module, state, f"{path} for {name}")
    return _wrap(module, name, pretrained, config, found.preprocess)


def _wrap(
    module: nn.Module, name: str, pretrained: str, config: dict[str, Any], preprocess: dict[str, Any]
) -> ClipModel:
    label = Path(pretrained).name if "/" in pretrained else pretrained
    return ClipModel(module, f"{name}/{label}", config, OpenClipTokenizer(config, name), preprocess)


def _load_file(path: Path, name: str) -> ClipModel:
    saved = read_saved(path, name)
    try:
        module = build_module(saved.config)
        tokenizer = tokenizer_from_json(saved.tokenizer, saved.config)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: its description is incomplete ({error}).", "Save it again.") from error
    weights.load_into(module, saved.state, str(path))
    return ClipModel(module, name, saved.config, tokenizer, saved.preprocess, saved.recipe)
