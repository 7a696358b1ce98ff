"""`ovseg convert --method pixelclip` on the recorded official state dicts (parity/pixelclip), both backbones.

The runs give the official scores; every entry is accounted for; what cannot be used is answered with one sentence.
"""

import json

import pytest
import tomli_w
import torch
from torch.nn import functional as F

from ovseg_cli import load
from ovseg_cli.core.clip.model import save_clip
from ovseg_cli.core.errors import UsageError
from tests.commands.conftest import run_command
from tests.core.clip.parity_models import STUDENT, assert_close, load_recorded, read_fixture
from tests.core.clip.tiny import VIT, tiny_clip
from tests.core.conversion.layouts import official, random_host

PROMPTS = "sem_seg_head.predictor.prompt_tokens"
KINDS = ("vit", "conv")


class Converted:
    """A recorded model, its official file, and the run that is made of it."""

    def __init__(self, parity, kind, folder):
        self.kind, self.folder = kind, folder
        self.recorded = load_recorded(parity, kind)
        self.half = dict(read_fixture(parity, f"{kind}_state"))
        self.config, self.state = self.recorded.config, self.recorded.state

    def settings(self) -> dict:
        """What no shape tells: the recorded model is a toy, given pictures as the data loader hands them over."""
        model, text = self.config["model"], self.config["model"].get("text", {})
        clip = {"text_heads": text.get("heads") or model["transformer_heads"]}
        if self.kind == "vit":
            clip["heads"] = self.config["vision_heads"]
        return {"side": self.config["clip_resolution"][0], "first_short_side": 0, "clip": clip}

    def save(self, name="official.pth", state=None, wrapped=True):
        state = self.state if state is None else state
        document = {"model": state, "optimizer": {"state": {}}, "scheduler": {}, "iteration": 9999}
        torch.save(document if wrapped else state, self.folder / name)
        return self.folder / name

    def convert(self, file, out, *arguments, **changes):
        config = self.folder / "settings.toml"
        config.write_text(tomli_w.dumps({**self.settings(), **changes}))
        place = ["--dry-run", "--json"] if out is None else ["--out", self.folder / out]
        return run_command("convert", file, "--method", "pixelclip", "--config", config, *place, *arguments)


@pytest.fixture(scope="module", params=KINDS)
def converted(request, parity, tmp_path_factory) -> Converted:
    found = Converted(parity, request.param, tmp_path_factory.mktemp(request.param))
    answer = found.convert(found.save(), "run")
    assert answer.code == 0, answer.err
    return found


@pytest.fixture
def vit(parity, tmp_path) -> Converted:
    return Converted(parity, "vit", tmp_path)


def scores_of(model, recorded, templates):
    text = F.normalize(recorded.tensors[f"text.features_{templates}"].mean(1), dim=-1)
    size = tuple(recorded.config["test_output_hw"])
    return model.predict_scores([recorded.tensors["infer.image"]], text_features=text, output_size=size)[0]


@pytest.mark.parametrize("templates", ["select8", "single"])
def test_run_reproduces_the_recorded_scores(converted, templates):
    model = load(converted.folder / "run", device="cpu")
    expected = converted.recorded.tensors[f"infer.sem_seg_{templates}"]
    assert_close(scores_of(model, converted.recorded, templates), expected)


def test_a_bare_file_in_half_precision_gives_the_same_run(converted):
    file = converted.save("bare.pth", converted.half, wrapped=False)
    assert converted.convert(file, "bare").code == 0
    digests = {load(converted.folder / run, device="cpu").method.digest for run in ("run", "bare")}
    assert len(digests) == 1


def test_every_entry_is_accounted_for(converted):
    document = json.loads(converted.convert(converted.folder / "official.pth", None).out)
    state = converted.state
    assert sum(row["tensors"] for row in document["keys"]) == document["tensors"] == len(state)
    rows = {row["prefix"]: (row["tensors"], row["action"]) for row in document["keys"]}
    count = {p: sum(name.startswith(p) for name in state) for p in (STUDENT, f"{STUDENT}visual.", "teacher_", "head.")}
    assert rows == {
        f"{STUDENT}visual.": (count[f"{STUDENT}visual."], "loaded"),
        STUDENT: (count[STUDENT] - count[f"{STUDENT}visual."], "loaded"),
        PROMPTS: (1, "loaded"),
        "teacher_encoder.": (count["teacher_"], "ignored"),
        "head.": (count["head."], "ignored"),
    }
    assert document["beside"] == ["optimizer", "scheduler", "iteration"]
    assert len(document["checks"]) == 1 and "compared with nothing" in document["checks"][0]
    sources = {row["setting"]: row for row in document["settings"]}
    assert sources["prompts"]["value"], sources["prompt_length"]["value"] == state[PROMPTS].shape[:2]
    assert sources["prompts"]["source"] == "the checkpoint"
    assert sources["clip.quick_gelu"]["value"] is (converted.kind == "vit")
    assert sources["resize"]["source"].startswith("default; code")


def test_prompts_are_kept_and_the_clip_is_the_runs_own(converted):
    run = converted.folder / "run"
    method = load(run, device="cpu").method
    state = converted.state
    assert method.class_prompts.prompt_tokens.equal(state[PROMPTS])
    assert method.visual.state_dict().keys() == method.clip.visual.state_dict().keys()
    for name, tensor in method.clip.module.state_dict().items():
        assert tensor.equal(state[STUDENT + name])
    assert list(method.trained_state()) == ["class_prompts.prompt_tokens"]  # the CLIP holds the tower, once
    assert method.training_names == ()  # no label was read, whatever the data


def test_other_methods_read_with_the_tuned_clip(converted):
    """Its CLIP is one like any other: PixelCLIP's weights in another method's place (paper, Table 2)."""
    settings = {"upsample_features": 64, "resize": "square", "side": converted.settings()["side"], "antialias": False}
    dense = {"vit": ("maskclip", {"variant": "value-cls"}), "conv": ("clip", {})}[converted.kind]
    model = load(dense[0], clip=str(converted.folder / "run"), device="cpu", **settings, **dense[1])
    expected = converted.recorded.tensors["infer.sem_seg_single"]
    assert_close(scores_of(model, converted.recorded, "single"), expected)


def test_without_a_tokenizer_words_and_prompts_are_refused(converted):
    method = load(converted.folder / "run", device="cpu").method
    if method.clip.word_table.num_embeddings == 49408:
        pytest.skip("this model has CLIP's own tokenizer")
    with pytest.raises(UsageError, match="no tokenizer of that size is known"):
        method.class_prompts(method.clip)


def test_data_says_what_it_was_trained_on_and_no_class_was_seen(converted):
    for number, data in enumerate(("sa-1b", "coco-stuff")):
        answer = converted.convert(converted.folder / "official.pth", f"on{number}", "--data", data)
        assert answer.code == 0, answer.err
        assert "No label was read" in " ".join((answer.out + answer.err).split())
        assert load(converted.folder / f"on{number}", device="cpu").method.training_names == ()


def test_dino_is_left_out(vit):
    state = {**vit.state, "dino.cls_token": torch.ones(1, 1, 4), "dino.norm.weight": torch.ones(4)}
    document = json.loads(vit.convert(vit.save(state=state), None).out)
    assert {"prefix": "dino.", "tensors": 2, "action": "ignored"}.items() <= document["keys"][-1].items()


class TestOriginalClip:
    """`--clip` names the CLIP that it was tuned from, to compare with."""

    def clip(self, converted, change=()):
        """The teacher's image tower and the text tower, as a file that describes itself."""
        clip = converted.recorded.clip
        state = {k.removeprefix(STUDENT): v.clone() for k, v in converted.state.items() if k.startswith(STUDENT)}
        for name in change:
            state[name] += 1
        clip.module.load_state_dict(state)
        document = {"kind": "none", "vocab_size": 1, "context_length": 1}
        path = converted.folder / "original.safetensors"
        save_clip(path, clip.module, clip.open_clip_config, document, clip.preprocess, {}, torch.float32)
        return path

    def checks(self, converted, *change):
        answer = converted.convert(converted.folder / "official.pth", None, "--clip", self.clip(converted, change))
        assert answer.code == 0, answer.err
        return json.loads(answer.out)["checks"]

    def test_an_equal_text_tower_is_said(self, converted):
        name = "visual.positional_embedding" if converted.kind == "vit" else "visual.head.proj.weight"
        (said,) = self.checks(converted, name)
        assert "its text tower equals it; 1 of" in said

    def test_another_text_tower_is_reported(self, converted):
        (said,) = self.checks(converted, "ln_final.weight")
        assert "its text tower differs from it in 1 ('ln_final.weight')" in said and "; 0 of" in said

    def test_a_clip_of_another_kind_is_refused(self, converted):
        other = tiny_clip(VIT) if converted.kind == "conv" else None
        if other is None:
            from tests.core.clip.tiny import CONVNEXT

            other = tiny_clip(CONVNEXT)
        save_clip(
            path := converted.folder / "other.safetensors",
            other.module,
            other.open_clip_config,
            other.tokenizer.to_json(),
            other.preprocess,
            {},
        )
        said = refused(converted, converted.state, "--clip", path)
        kinds = ("a ViT", "a ConvNeXt") if converted.kind == "conv" else ("a ConvNeXt", "a ViT")
        assert f"has {kinds[0]} as image tower" in said and f"has {kinds[1]}. Name the CLIP" in said

    def test_a_clip_of_other_sizes_is_refused(self, vit):
        other = tiny_clip(VIT)
        path = vit.folder / "other.safetensors"
        save_clip(path, other.module, other.open_clip_config, other.tokenizer.to_json(), other.preprocess, {})
        assert "'ln_final.bias' is (32,)" in refused(vit, vit.state, "--clip", path)


def refused(converted, state, *arguments, code=2, **changes) -> str:
    """Convert a spoilt file; the error, once it is clear that nothing was made."""
    answer = converted.convert(converted.save("spoilt.pth", state), "nothing", *arguments, **changes)
    assert answer.code == code, answer.err
    assert "Traceback" not in answer.err and not (converted.folder / "nothing").exists()
    return " ".join(answer.err.replace("│", " ").split())


@pytest.mark.parametrize(
    "name", [PROMPTS, f"{STUDENT}logit_scale", f"{STUDENT}token_embedding.weight", f"{STUDENT}text_projection"]
)
def test_a_missing_entry_is_named(converted, name):
    said = refused(converted, {k: v for k, v in converted.state.items() if k != name})
    assert f"'{name}'" in said or f": {name}." in said


def test_a_missing_part_of_the_image_tower_is_named(converted):
    part = {"vit": "transformer.resblocks.0.attn.", "conv": "trunk.stages.1.downsample."}[converted.kind]
    name = f"{STUDENT}visual.{part}"
    assert name in refused(converted, {k: v for k, v in converted.state.items() if not k.startswith(name)})


def test_half_a_file_is_named(converted):
    names = sorted(converted.state)
    half = {name: converted.state[name] for name in names[: len(names) // 2]}
    assert "lacks" in refused(converted, half)
    visual = {k: v for k, v in converted.state.items() if not k.startswith(f"{STUDENT}visual.")}
    assert f"lacks '{STUDENT}visual." in refused(converted, visual)


@pytest.mark.parametrize("part", [PROMPTS, f"{STUDENT}visual.", f"{STUDENT}ln_final.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(converted, part, value):
    name = next(name for name in sorted(converted.state) if name.startswith(part))
    spoilt = converted.state[name].clone()
    spoilt.view(-1)[-1] = value
    assert f"'{name}' holds values that are no numbers" in refused(converted, {**converted.state, name: spoilt})


@pytest.mark.parametrize("shape", [(8,), (8, 4, 7), (0, 4, 64), ()])
def test_prompts_of_another_shape_are_named(converted, shape):
    said = refused(converted, {**converted.state, PROMPTS: torch.ones(shape)})
    assert f"'{PROMPTS}' is" in said and "k×l×" in said


def test_weights_of_another_shape_are_named(converted):
    name = f"{STUDENT}visual." + {"vit": "ln_post.bias", "conv": "trunk.head.norm.bias"}[converted.kind]
    assert f"{name} is 5, not" in refused(converted, {**converted.state, name: torch.ones(5)})
    conv = (
        f"{STUDENT}visual." + {"vit": "conv1.weight", "conv": "trunk.stages.0.blocks.0.conv_dw.weight"}[converted.kind]
    )
    assert refused(converted, {**converted.state, conv: torch.ones(())})


@pytest.mark.parametrize("name", ["decoder.weight", f"{STUDENT}visual.extra", "sem_seg_head.predictor.gamma"])
def test_an_unexpected_entry_is_named(converted, name):
    assert name in refused(converted, {**converted.state, name: torch.ones(3)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": 63}, "prompts = 63 contradicts"),
        ({"prompt_length": 9}, "prompt_length = 9 contradicts"),
        ({"clip": {"embed_dim": 3}}, "clip.embed_dim = 3 contradicts"),
        ({"clip": {"head": 3}}, "clip.head"),
        ({"first_short_sied": 3}, "Did you mean 'first_short_side'?"),
        ({"iterations": 3}, "unknown setting 'iterations'"),
    ],
)
def test_settings_that_do_not_fit(converted, changes, said):
    assert said in refused(converted, converted.state, **changes)


@pytest.mark.parametrize(
    ("key", "value"), [("image_size", 0), ("image_size", "big"), ("drop_path", 2), ("drop_path", True)]
)
def test_settings_of_a_convnext_that_do_not_fit(parity, tmp_path, key, value):
    conv = Converted(parity, "conv", tmp_path)
    assert f"clip.{key} = {value!r}: must be a number" in refused(conv, conv.state, clip={key: value})


def test_checkpoints_of_other_methods_are_told_apart(vit, recorded):
    host = official(random_host("zsseg"))
    assert "looks like a checkpoint of zsseg. Use --method zsseg" in refused(vit, host)
    assert "looks like a checkpoint of freeseg. Use --method freeseg" in refused(vit, recorded.step_one())
    answer = run_command("convert", vit.save(), "--method", "zegformer", "--out", vit.folder / "nothing")
    assert answer.code == 2 and "--method pixelclip" in answer.err
    clip = {k.removeprefix(STUDENT): v for k, v in vit.state.items() if k.startswith(STUDENT)}
    assert "this is no checkpoint of" in refused(vit, clip)


def test_a_text_tower_that_was_trained_is_reported(vit):
    state = {**vit.state, "teacher_encoder.ln_final.bias": vit.state["teacher_encoder.ln_final.bias"] + 1}
    said = json.loads(vit.convert(vit.save(state=state), None).out)["checks"]
    assert any("was not frozen: 1 ('ln_final.bias')" in sentence for sentence in said)


def test_help_names_the_method():
    answer = run_command("convert", "--help")
    assert "pixelclip" in answer.out
