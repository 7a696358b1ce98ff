"""Checkpoints of ZegFormer and ZSSeg written by hand: public key layouts from our own weights, the other way round.

No released file is at hand, so the mapping is written here once more, independently, from the key lists of the codes:
MaskFormer's own names stay (backbone, sem_seg_head.pixel_decoder, sem_seg_head.predictor), the rest is placed.
"""

import torch

from ovseg_cli.core.clip.model import OPENAI_MEAN, OPENAI_STD
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.methods.zegformer import ZegFormer, ZegFormerConfig
from ovseg_cli.core.methods.zsseg import ZSSeg, ZSSegConfig
from tests.core.clip.tiny import ClipModel, tiny_tokenizer
from tests.core.methods.tiny_methods import BACKBONE, MASKFORMER

HEADS, GROUPS, CLASSES = MASKFORMER["heads"], MASKFORMER["groups"], 5
DETECTRON = {**BACKBONE, "norm": "frozen-bn"}
SIZES = {
    "zegformer": {**MASKFORMER, "backbone": {**DETECTRON, "stem": "basic"}, "embed_hidden": 0},
    "zsseg": {**MASKFORMER, "backbone": {**DETECTRON, "stem": "deeplab"}, "embed_hidden": 12},
}


def openai_clip(words: bool = False) -> ClipModel:
    """A small CLIP in OpenAI's form: heads of 64, QuickGELU; with `words` a text tower for its byte pairs."""
    vision = {"image_size": 32, "layers": 3, "width": 128, "head_width": 64, "patch_size": 8}
    length, ids = (77, 49408) if words else (12, 40)
    text = {"context_length": length, "vocab_size": ids, "width": 64, "heads": 1, "layers": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    return ClipModel(build_module(config), "small", config, tiny_tokenizer())


def random_host(name: str, seed: int = 0, words: bool = False):
    """A host with random weights; every one of them differs from what it is initialised with."""
    method, config = {"zegformer": (ZegFormer, ZegFormerConfig), "zsseg": (ZSSeg, ZSSegConfig)}[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scale = {"logit_scale": 100.0} if name == "zsseg" else {}
        host = method(openai_clip(words), config(resize="none", generator=SIZES[name], **scale)).eval()
        own = [parameter.data for parameter in host.parameters(recurse=False)]
        for tensor in [*host.generator.state_dict().values(), *own]:
            tensor.copy_(tensor + 0.1 * torch.randn(tensor.shape).abs())
    return host


def official(host) -> dict[str, torch.Tensor]:
    """The state dict as the host's own code would save it."""
    state = {name: tensor.clone() for name, tensor in host.generator.state_dict().items()}
    clip = {name: tensor.clone() for name, tensor in host.clip.module.state_dict().items()}
    state["criterion.empty_weight"] = torch.tensor([1.0] * CLASSES + [0.1])
    if host.name == "zegformer":
        state |= {f"sem_seg_head.predictor.clip_model.{name}": tensor for name, tensor in clip.items()}
        state["sem_seg_head.predictor.bg_feature"] = host.background.detach().clone()
        state["sem_seg_head.predictor.logit_scale"] = torch.tensor([1 / 0.01]).log()
        return state
    for adapter in ("clip_adapter.", "_region_clip_adapter."):
        state |= {f"{adapter}clip_model.{name}": tensor for name, tensor in clip.items()}
        state[f"{adapter}pixel_mean"] = 255 * torch.tensor(OPENAI_MEAN).view(1, 3, 1, 1)
        state[f"{adapter}pixel_std"] = 255 * torch.tensor(OPENAI_STD).view(1, 3, 1, 1)
    state["clip_adapter.non_object_embedding"] = host.non_object_embedding.detach().clone()
    state["_region_clip_adapter.non_object_embedding"] = torch.randn(1, 24)
    return state


SETTINGS = ["--set", "resize=none", "--set", f"generator.heads={HEADS}", "--set", f"generator.groups={GROUPS}"]
"""What no shape tells; res5 is one block here, so that its dilations are one number."""
