"""FreeSeg against the recorded model in the official layout (parity/maft, section 5): generator, scores, training step.

The recorded picture statistics of the joint run went through half precision (`half_statistics`); the host's own run and
its training step were made with exact ones.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ovseg_cli.core.clip import weights
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.methods.freeseg import FreeSeg, FreeSegConfig, FreeSegTraining
from ovseg_cli.core.nn.generator import FreeSegGenerator, official_state
from ovseg_cli.core.nn.generator_config import GeneratorConfig, half_statistics
from ovseg_cli.core.nn.mask_losses import class_logits
from ovseg_cli.core.nn.matcher import Targets, match
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import tiny_tokenizer

CLIP = "clip_adapter.clip_model."
FLOAT32 = 2e-5  # relative to the largest value; the fixture's README
MASKED = 1e-4  # behind attention masks, where a pixel within round-off of one half may flip a key


class Recorded:
    def __init__(self, folder):
        self.config = json.loads((folder / "maft_e2e_config.json").read_text())
        self.state = {k: v.float() for k, v in load_file(folder / "maft_e2e_weights.safetensors").items()}
        self.io = load_file(folder / "maft_e2e_io.safetensors")
        self.pictures = [self.io[f"image_{i}"] for i in range(len(self.config["input_sizes"]))]
        self.text = TextFeatures.of_classes(self.io["text_features"])
        self.seen = torch.tensor(self.config["trainable_flag"]).bool()

    def sizes(self, **known) -> GeneratorConfig:
        heads = self.config["dims"]["MODEL.SEM_SEG_HEAD.NUM_HEADS"]
        return GeneratorConfig.from_state_dict(self.state, interaction_heads=heads, **known)

    def generator(self, **known) -> FreeSegGenerator:
        generator = FreeSegGenerator(self.sizes(**known)).eval()
        generator.load_state_dict(official_state(self.state))
        return generator

    def batch(self, generator) -> torch.Tensor:
        """The recorded pictures on one canvas of whole strides, zeros around them."""
        sides = torch.tensor([p.shape[1:] for p in self.pictures]).amax(0)
        height, width = (-(-int(n) // 32) * 32 for n in sides)
        return torch.stack(
            [F.pad(generator.normalise(p), (0, width - p.shape[2], 0, height - p.shape[1])) for p in self.pictures]
        )

    def rows(self) -> torch.Tensor:
        non_object = self.state["clip_adapter.non_object_embedding"]
        return torch.cat([self.text.features, F.normalize(non_object, dim=1)])

    def clip(self) -> ClipModel:
        sizes = self.config["clip"]
        vision = {
            "image_size": sizes["image_resolution"],
            "layers": sizes["vision_layers"],
            "width": sizes["vision_width"],
            "head_width": 64,
            "patch_size": sizes["vision_patch_size"],
        }
        text = {
            "context_length": sizes["context_length"],
            "vocab_size": sizes["vocab_size"],
            "width": sizes["transformer_width"],
            "heads": sizes["transformer_heads"],
            "layers": sizes["transformer_layers"],
        }
        config = {"embed_dim": sizes["embed_dim"], "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
        module = build_module(config)
        weights.load_into(module, {k.removeprefix(CLIP): v for k, v in self.state.items() if k.startswith(CLIP)}, "")
        return ClipModel(module, "recorded", config, tiny_tokenizer())

    def host(self, **settings) -> FreeSeg:
        start = self.config["start_layers"]
        config = FreeSegConfig(
            generator=self.sizes(), scorer="masked-clip", start_layer=start, resize="none", logit_scale=100, **settings
        )
        host = FreeSeg(self.clip(), config)
        host.generator.load_state_dict(official_state(self.state))
        host.non_object_embedding.data.copy_(self.state["clip_adapter.non_object_embedding"])
        return host


@pytest.fixture(scope="module")
def recorded(parity):
    if not (parity / "maft" / "maft_e2e_config.json").is_file():
        pytest.skip("no recorded MAFT model")
    return Recorded(parity / "maft")


def assert_near(actual, expected, tolerance):
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    assert error <= tolerance * max(1.0, float(expected.abs().max())), f"off by {error:.2e}"


def test_configured_sizes_are_read_from_the_checkpoint(recorded):
    sizes, dims = recorded.sizes(), recorded.config["dims"]
    read = {
        "SEM_SEG_HEAD.CONVS_DIM": sizes.width,
        "MASK_FORMER.HIDDEN_DIM": sizes.width,
        "SEM_SEG_HEAD.MASK_DIM": sizes.mask_width,
        "SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": sizes.encoder_layers,
        "MASK_FORMER.NHEADS": sizes.heads,
        "MASK_FORMER.DIM_FEEDFORWARD": sizes.decoder_ffn,
        "MASK_FORMER.DEC_LAYERS": sizes.decoder_layers,
        "SEM_SEG_HEAD.EMBEDDING_DIM": sizes.embed_width,
        "SEM_SEG_HEAD.EMBED_HIDDEN_DIM": sizes.embed_hidden,
        "SEM_SEG_HEAD.EMBED_DIM": sizes.interaction_width,
        "RESNETS.STEM_OUT_CHANNELS": sizes.backbone.stem_width,
        "RESNETS.RES2_OUT_CHANNELS": sizes.backbone.res2_width,
        "RESNETS.WIDTH_PER_GROUP": sizes.backbone.width,
    }
    assert read == {key: dims[f"MODEL.{key}"] for key in read}


def test_every_official_entry_of_the_generator_is_used(recorded):
    part = official_state(recorded.state)
    rest = recorded.state.keys() - part.keys()
    assert part.keys() == recorded.generator().state_dict().keys()
    assert {key.split(".")[0] for key in rest} == {"clip_adapter", "criterion", "IPCLIP", "T"}


@torch.no_grad()
def test_each_stage_of_the_generator_matches(recorded):
    generator = recorded.generator(**half_statistics(recorded.state))
    head = generator.sem_seg_head
    maps = generator.backbone(recorded.batch(generator))
    for name, found in maps.items():
        assert_near(found, recorded.io[f"backbone_{name}"], FLOAT32)
    pyramid = head.pixel_decoder(maps)
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in pyramid.levels], dim=1)
    assert_near(memory, recorded.io["deform_encoder_memory"], FLOAT32)
    mixed = head.interaction([*pyramid.levels, pyramid.mask_features], recorded.rows())
    expected = recorded.io["interaction_mask_features_b0_ch0_4"]
    assert_near(mixed[-1][: expected.shape[0], : expected.shape[1]], expected, FLOAT32)


@torch.no_grad()
def test_masks_and_embeddings_match(recorded):
    generator = recorded.generator(**half_statistics(recorded.state))
    output = generator(recorded.batch(generator), recorded.rows())
    assert_near(output.embeddings, recorded.io["pred_embeds"], MASKED)
    assert_near(output.mask_logits, recorded.io["pred_masks"], MASKED)


def recorded_variants(recorded):
    """Yield settings, seen flags and scores of each recorded score map: "w08_zs", "w00_ov", ..., "noensemble"."""
    prefix = "host_sem_seg_0_"
    for key in (k for k in recorded.io if k.startswith(prefix)):
        weight, _, flag = key.removeprefix(prefix).partition("_")
        by_weight = {"ensemble_weight": int(weight[1:]) / 10} if flag else {"ensemble": False}
        yield by_weight, recorded.seen if flag == "zs" else None, recorded.io[key]


def test_scores_of_the_frozen_host_match(recorded):
    variants = list(recorded_variants(recorded))
    assert len(variants) > 2
    for settings, seen, expected in variants:
        size = (int(expected.shape[1]), int(expected.shape[2]))
        host = recorded.host(**settings)
        (scores,) = host.predict_scores(recorded.pictures[:1], recorded.text.features, size, seen)
        assert_near(scores, expected, MASKED)
        assert scores.argmax(0).equal(expected.argmax(0))


def test_masks_on_the_canvas_differ_where_there_is_padding(recorded):
    """The code's frozen hosts crop the masks and not the picture; mended, scores of a padded picture change."""
    picture = next((p for p in recorded.pictures if p.shape[1] % 32 or p.shape[2] % 32), None)
    if picture is None:
        pytest.skip("no recorded picture needs padding")
    results = []
    for on_canvas in (False, True):
        host = recorded.host(masks_on_canvas=on_canvas)
        canvas = host.canvas(picture)
        with torch.no_grad():
            (candidates,) = host.propose([canvas], recorded.text)
            padded = host.clip_logits(canvas, candidates.masks, recorded.text)
            bare = replace(canvas, size=canvas.area)
            masks = candidates.masks[:, : canvas.area[0], : canvas.area[1]]
            results.append((padded, host.clip_logits(bare, masks, recorded.text)))
    assert canvas.size != canvas.area and not torch.allclose(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])  # without padding there is nothing to mend


# --- training


def training_step(recorded):
    """The host in its recorded training step, dropout off; weights of the loss as the checkpoint rounded them."""
    host = recorded.host()
    host.parameter_groups(FreeSegTraining())
    rounded = float(recorded.state["criterion.empty_weight"][-1])
    host.loss_weights = replace(host.loss_weights, no_object=rounded)
    count = sum(key.startswith("train_image_") for key in recorded.io)
    labels = torch.stack([recorded.io[f"train_labels_{i}"] for i in range(count)]).long()
    images = torch.stack([recorded.io[f"train_image_{i}"] for i in range(count)])
    return host, {"images": images, "labels": labels.masked_fill(labels == 255, -1), "names": []}


@torch.no_grad()
def test_pairs_of_the_last_layer_match(recorded):
    host, batch = training_step(recorded)
    rows = host.text_rows(recorded.text)
    output = host.generator(host.generator.normalise(batch["images"]), rows)
    targets = [Targets.of_labels(one) for one in batch["labels"]]
    pairs = match(class_logits(output.embeddings, rows), output.mask_logits, targets)
    for i, (query, target) in enumerate(pairs):
        assert query.equal(recorded.io[f"host_train_match_query_{i}"])
        assert target.equal(recorded.io[f"host_train_match_target_{i}"])


def test_every_term_and_the_gradients_match(recorded):
    host, batch = training_step(recorded)
    losses = host.losses(batch, recorded.text, host.normalisers(batch))
    assert {f"loss_{name}" for name in losses} == recorded.config["host_losses"].keys()
    for name, value in losses.items():
        assert value.item() == pytest.approx(recorded.config["host_losses"][f"loss_{name}"], rel=MASKED)
    total = sum(losses.values())
    assert total.item() == pytest.approx(recorded.io["host_train_total"].item(), rel=MASKED)
    total.backward()
    assert_near(host.non_object_embedding.grad, recorded.io["host_train_grad_non_object"], MASKED)
    expected = recorded.io["host_train_grad_mask_embed0"]
    assert_near(
        host.generator.sem_seg_head.predictor.mask_embed.layers[0].weight.grad[: len(expected)], expected, MASKED
    )
