"""Tokens of a timm ViT for a picture of any size: which network, which of its features, how positions are resized.

Any plain ViT of timm works: DINO and DINOv2 (a position table) and DINOv3 (rotary positions).
"""

from pathlib import Path
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip import hub
from ovseg_cli.core.clip.vit import resize_positions
from ovseg_cli.core.clip.weights import read_state_dict
from ovseg_cli.core.errors import MachineError, UsageError, nearest
from ovseg_cli.core.proposals.weights import PUBLISHED, RANDOM, with_seed
from ovseg_cli.core.reporter import Reporter

Feature = Literal["token", "query", "key", "value"]
_PROJECTIONS = ("query", "key", "value")
_FILES = ["model.safetensors", "pytorch_model.bin"]
_UNUSED = ("head.", "fc.", "fc_norm.", "mask_token", "projection_head.", "dino_head.")  # of training and of classifiers


Settings = tuple[str, str]
"""What the user calls the network and its weights in --set."""
_DINO: Settings = ("model", "weights")


def build_vit(name: str, weights: str, position: str, reporter: Reporter, settings: Settings = _DINO) -> Any:
    """Build a ViT of timm, frozen and in eval mode.

    Args:
        name: timm's name with its tag, for instance "vit_small_patch16_224.dino".
        weights: "published", "random", or a file (DINO's own .pth, or timm's).
        position: "scale-factor" resizes the position table as DINO's code does, "explicit" as timm does.
        reporter: Told where the weights are random.
        settings: For messages.

    Raises:
        UsageError: timm has no such ViT; the file holds weights of another network.
        MachineError: The weights are not on this machine and cannot be downloaded.
    """
    import timm

    _check_name(name, settings)
    if weights == RANDOM:
        reporter.say(f"{name} runs with random weights: its features mean nothing")
        model = with_seed(lambda: timm.create_model(name, num_classes=0, dynamic_img_size=True))
    else:
        path = _published_file(name, settings) if weights == PUBLISHED else _own_file(weights, settings)
        model = _load(name, path, settings)
    if position == "scale-factor":
        use_dino_positions(model)
    return model.eval().requires_grad_(False)


def _check_name(name: str, settings: Settings) -> None:
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        hit = nearest(name, [m for m in timm.list_models(pretrained=True) if m.startswith("vit_")])
        hint = f"Did you mean '{hit}'?" if hit else "Try vit_small_patch16_224.dino."
        raise UsageError(f"unknown timm model '{name}'.", hint)
    with torch.device("meta"):
        model = timm.create_model(base)
    if not isinstance(model, VisionTransformer | Eva):
        raise UsageError(f"{name}: is no plain ViT, so it has no tokens of patches.", "Try vit_small_patch16_224.dino.")
    if tag and name not in timm.list_pretrained(f"{base}.*"):
        raise UsageError(f"{name}: timm has no published weights of that name.", _published_names(base, settings))


def _published_names(base: str, settings: Settings) -> str:
    import timm

    known = timm.list_pretrained(f"{base}.*")
    return f"Known: {', '.join(known)}." if known else f"Pass a file, or 'random', with --set {settings[1]}=…."


def _published_file(name: str, settings: Settings) -> Path:
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        names = _published_names(name.split(".")[0], settings)
        raise UsageError(f"{name}: timm has no published weights of that name.", names)
    try:
        if config.hf_hub_id:
            return hub.fetch_file(config.hf_hub_id, [config.hf_hub_filename] if config.hf_hub_filename else _FILES)
        return _from_url(str(config.url))
    except Exception as error:
        raise MachineError(
            f"the weights of {name} are not on this machine and could not be downloaded from "
            f"{config.hf_hub_id or config.url} ({hub.first_line(error)}).",
            f"Download {_FILES[0]} where there is a network and pass it with --set {settings[1]}=FILE, or copy the "
            "cache folder from there (HF_HOME, by default ~/.cache/huggingface).",
        ) from error


def _from_url(url: str) -> Path:
    from timm.models._hub import download_cached_file

    hub.check_reachable()
    return Path(download_cached_file(url))


def _own_file(path: str, settings: Settings) -> Path:
    if not Path(path).is_file():
        raise MachineError(
            f"--set {settings[1]}={path}: there is no such file.", "Check the path, or say 'published' or 'random'."
        )
    return Path(path)


def _load(name: str, path: Path, settings: Settings) -> nn.Module:
    """Build the network and copy a file into it; timm translates DINO's, DINOv2's and DINOv3's own layouts."""
    import timm
    from timm.models import eva, vision_transformer

    model = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    state, _ = read_state_dict(path)
    state = {k.removeprefix("backbone."): v.float() for k, v in state.items()}
    translate: Any = eva.checkpoint_filter_fn if isinstance(model, eva.Eva) else vision_transformer.checkpoint_filter_fn
    patch, theirs = model.state_dict()["patch_embed.proj.weight"], state.get("patch_embed.proj.weight")
    try:
        if theirs is not None and theirs.shape != patch.shape:  # timm would resize the patches and say nothing
            raise ValueError(f"patches {tuple(theirs.shape)}, not {tuple(patch.shape)}")
        state = {k: v for k, v in translate(state, model).items() if not k.startswith(_UNUSED)}
        model.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path}: holds weights of another network than {name} ({' '.join(str(error).split())[:300]}).",
            f"Choose the network that they were made for with --set {settings[0]}=….",
        ) from error
    return model


def use_dino_positions(model: Any) -> None:
    """Let a ViT with a position table resize it as DINO's code does, on this one object.

    Source: DINO's and DINOv2's code pass (side + 0.1) / trained side as scale; timm interpolates to the size, with
    antialiasing. Models without a table (DINOv3) or with one that has no place for the class token stay as they are.
    """
    if getattr(model, "pos_embed", None) is None or hasattr(model, "rope") or model.num_prefix_tokens < 1:
        return
    trained = tuple(model.patch_embed.grid_size)
    if model.no_embed_class:  # DINOv2 with registers: timm has folded the class token's position away
        return

    def pos_embed(self: Any, x: Tensor) -> Tensor:
        grid, patches = (int(x.shape[1]), int(x.shape[2])), x.flatten(1, 2)
        prefix = [t.expand(len(x), -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        table = resize_positions(self.pos_embed[0], trained, grid, "scale-factor")
        return torch.cat([*prefix, patches], dim=1) + table

    model._pos_embed = MethodType(pos_embed, model)


@torch.no_grad()
def vit_tokens(model: Any, images: Tensor, feature: Feature = "token", layer: int = -1) -> Tensor:
    """Return one feature for each patch.

    Args:
        model: As `build_vit` returns it.
        images: (B, 3, H, W), normalised; H and W are multiples of the patch.
        feature: "token" is a block's output after the network's last LayerNorm (PixelCLIP); "query", "key" and
            "value" are its attention's projections, heads side by side.
        layer: Block, counted from the end where negative.

    Returns:
        (B, h, w, D).
    """
    depth = len(model.blocks)
    index = layer % depth
    patch = model.patch_embed.patch_size
    grid = (images.shape[2] // patch[0], images.shape[3] // patch[1])
    if feature == "token":
        maps = model.forward_intermediates(images, indices=[index], norm=True, stop_early=True, intermediates_only=True)
        return maps[0].permute(0, 2, 3, 1)
    inputs: list[Tensor] = []
    attention = model.blocks[index].attn
    handle = attention.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        model.forward_intermediates(images, indices=[index], stop_early=True, intermediates_only=True)
    finally:
        handle.remove()
    tokens = F.linear(inputs[0], *_projection(attention, _PROJECTIONS.index(feature)))
    return tokens[:, model.num_prefix_tokens :].unflatten(1, grid)


def _projection(attention: Any, which: int) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the query, key or value projection, fused or not."""
    if getattr(attention, "qkv", None) is None:
        single = (attention.q_proj, attention.k_proj, attention.v_proj)[which]
        return single.weight, single.bias
    weight = attention.qkv.weight.chunk(3)[which]
    if attention.qkv.bias is not None:
        return weight, attention.qkv.bias.chunk(3)[which]
    if getattr(attention, "q_bias", None) is not None:
        return weight, (attention.q_bias, attention.k_bias, attention.v_bias)[which]
    return weight, None
