"""`ovseg convert` for ZegCLIP and TagCLIP: settings, the way it was trained, a borrowed text tower, class order."""

import json
import tomllib

import numpy as np
import pytest
import torch

from ovseg_cli import load
from ovseg_cli.core.clip.text import encode_vocabulary
from ovseg_cli.core.conversion.class_check import read_rows
from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.training.starts import caveats_of
from ovseg_cli.core.types import Vocabulary
from tests.core.conversion.mmcv_files import CLASSES, METHODS, PROMPTS, SMALL, mmcv, save_spec, small

SIX = ("cat", "dog", "grass", "sky", "road", "dining table")
EMPTY = "decode_head.loss_decode.criterion.empty_weight"
SENTENCE = "a photo of a {}."


@pytest.fixture
def data(tmp_path):
    """Six classes, of which two are unseen."""
    return save_spec(tmp_path, SIX, ["sky", "road"])


@pytest.fixture
def converted(cli):
    """Convert what lies in `official.pth`; the account, without or with a run in `run/`."""

    def convert(document, method, *arguments, out=()):
        torch.save(document, "official.pth")
        answer = cli("convert", "official.pth", "-m", method, *SMALL, *arguments, *(out or ("--dry-run",)), "--json")
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    return convert


@pytest.fixture
def refused(cli, tmp_path):
    """Convert what lies in `official.pth`; the error, once it is clear that nothing was made."""

    def convert(document, method, *arguments, code=2):
        if document is not None:
            torch.save(document, "official.pth")
        answer = cli("convert", "official.pth", "-m", method, *SMALL, *arguments)
        assert answer.code == code, answer.err
        assert "Traceback" not in answer.err and not answer.out and not (tmp_path / "runs").exists()
        return " ".join(answer.err.replace("│", " ").split())

    return convert


def rows_of(document, key="settings", name="setting"):
    return {row[name]: row for row in document[key]}


# Settings


def test_settings_come_from_shapes_or_from_the_code(converted):
    settings = rows_of(converted(small("tagclip"), "tagclip"))
    for name, value in (("prompts", PROMPTS), ("prompt_depth", -1), ("decoder_layers", 3), ("decoder_ffn", 4)):
        assert (settings[name]["value"], settings[name]["source"]) == (value, "the checkpoint")
    assert settings["gamma"]["source"].startswith("default; code") and settings["fusion"]["value"] == "both"
    assert settings["decoder_heads"] == {"setting": "decoder_heads", "value": 4, "source": "--config / --set"}
    assert settings["training: trust_target"]["value"] == "official-unseen"


def test_fewer_and_no_deep_prompts(converted):
    """One deep layer of the two that could be; none: the norm behind the blocks is then never called."""
    state = small("zegclip")
    deep = "backbone.deep_prompt_embeddings"
    one = converted({**state, deep: state[deep][:1]}, "zegclip")
    assert rows_of(one)["prompt_depth"]["value"] == 1
    none = converted({key: value for key, value in state.items() if key != deep}, "zegclip")
    assert rows_of(none)["prompt_depth"]["value"] == 0
    assert rows_of(none, "keys", "prefix")["backbone.prompt_norm."]["action"] == "ignored"


def test_a_query_of_text_alone_is_known_by_its_width(converted):
    state = small("zegclip")
    state["decode_head.q_proj.weight"] = state["decode_head.q_proj.weight"][:, :24]
    assert rows_of(converted(state, "zegclip"))["descriptor"]["value"] == "text"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("prompts=9", "prompts = 9 contradicts official.pth, which says 5"),
        ("prompt_depth=1", "prompt_depth = 1 contradicts"),
        ("token=false", "token = False contradicts"),
        ("learner=figure-5-left", "learner = figure-5-left contradicts"),
        ("decoder_heads=7", "does not divide the 24"),
        ("gama=0.2", "Did you mean 'gamma'?"),
        ("gamma=2", "gamma"),
        ("trust_target=seen-vs-rest", "unknown setting 'trust_target'"),
        ("clip.layers=12", "clip.layers = 12 contradicts"),
    ],
)
def test_settings_that_do_not_fit(refused, setting, said):
    assert said in refused(small("tagclip"), "tagclip", "--set", setting)


def test_the_same_depth_in_a_number_is_no_contradiction(converted):
    converted(small("zegclip"), "zegclip", "--set", "prompt_depth=2")


# How it was trained


@pytest.mark.parametrize("method", METHODS)
def test_names_in_the_loss_tell_the_setting(converted, data, method):
    """Four names: the seen ones. Six: all, with labels of the seen ones (transductive) or, if so named, of all."""
    state = small(method)
    official = {"trust_target": "official-unseen"} if method == "tagclip" else {}
    starred = {"self_training": "starred"} if method == "zegclip" else {}
    found = converted(state, method, "--data", data)
    assert found["training"] == {"setting": "inductive", **official}
    assert rows_of(found)["gamma"]["value"] == 0.1
    state[EMPTY] = torch.ones(len(SIX) + 1)
    found = converted(state, method, "--data", data)
    assert found["training"] == {"setting": "transductive", **starred, **official}
    assert "--data NAME:none" in rows_of(found)["training: setting"]["source"], "no file tells it from supervised"
    assert rows_of(found)["gamma"] == {
        "setting": "gamma",
        "value": 0.0,
        "source": "default; code: transductive setting",
    }
    found = converted(state, method, "--data", f"{data}:none")
    assert found["training"] == {"setting": "supervised"} and rows_of(found)["gamma"]["value"] == 0.0
    assert method != "tagclip" or rows_of(found)["fusion"]["value"] == "none"
    assert converted(state, method)["training"] == official


def test_another_number_of_names_is_another_data_set(refused, data):
    state = small("zegclip")
    state[EMPTY] = torch.ones(CLASSES + 2)
    assert "has 4 seen classes, but official.pth was trained on 5" in refused(state, "zegclip", "--data", data)


def test_caveat_of_the_official_target_reaches_the_run(converted, data, tmp_path):
    from ovseg_cli.core.methods.tagclip import TagClip

    converted(small("tagclip"), "tagclip", "--data", data, out=("--out", "run"))
    table = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["conversion"]
    assert table["trust_target"] == "official-unseen"
    assert any("unseen classes are" in sentence for sentence in TagClip.caveats(table))
    assert any("unseen classes are" in sentence for sentence in caveats_of(TagClip, {"conversion": table}))


def test_voc_reads_one_sentence_as_its_code_does(converted):
    state = small("zegclip")
    state[EMPTY] = torch.ones(16)
    found = converted(state, "zegclip", "--data", "voc:15-5")
    assert rows_of(found)["templates"]["value"] == ["a photo of a {}"]
    state[EMPTY] = torch.ones(157)
    assert len(rows_of(converted(state, "zegclip", "--data", "coco-stuff"))["templates"]["value"]) == 15


# A text tower from elsewhere


def test_a_file_without_text_tower_takes_that_of_clip(converted, cli, tmp_path):
    whole = small("zegclip", words=True)
    converted(whole, "zegclip", out=("--out", "whole"))
    found = converted(
        small("zegclip", words=True, text=False), "zegclip", "--clip", "whole/clip.safetensors", out=("--out", "run")
    )
    settings = rows_of(found)
    assert settings["clip's text tower"]["source"] == "--clip whole/clip.safetensors; not in the checkpoint"
    first, second = (load(tmp_path / name, device="cpu").method for name in ("whole", "run"))
    assert first.digest == second.digest


def test_text_towers_that_do_not_fit_are_refused(refused):
    state = small("zegclip", text=False)
    said = refused(state, "zegclip", "--clip", "toy-clip")
    assert "has 128 dimensions" in said and "--clip ViT-B-16" in said
    state = {key: value for key, value in state.items() if key != "backbone.proj"}
    state["backbone.proj"] = torch.ones(64, 128)
    assert "activation" in refused(state, "zegclip", "--clip", "toy-clip")


def test_a_clip_beside_the_files_own_is_refused(refused):
    assert "holds its own CLIP" in refused(small("tagclip"), "tagclip", "--clip", "ViT-B-16")


# The order of classes


@pytest.mark.parametrize("method", METHODS)
def test_classes_in_order_are_said(converted, data, method):
    found = converted(mmcv(small(method), SIX), method, "--data", data)
    assert found["checks"] == ["Its 6 class names are the classes of recorded:own, in order."]
    seen = [name for name in SIX if name not in ("sky", "road")]
    found = converted(mmcv(small(method), [*seen[:-1], "Diningtable"]), method, "--data", data)
    assert found["checks"] == ["Its 4 class names are the seen classes of recorded:own, in order."]


def test_classes_out_of_order_are_refused(refused, data):
    state = small("zegclip")
    for names, said in (
        (("background", *SIX), "shifted by 1, it begins with 'background'"),
        (("dog", "cat", *SIX[2:]), "permuted, class 0 is 'dog' instead of 'cat'"),
        ((*SIX[:5], "car"), "another list of 6 instead of 6 classes, it has 'car' and lacks 'dining table'"),
    ):
        assert said in refused(mmcv(state, names), "zegclip", "--data", data)


def test_a_data_set_with_these_classes_is_offered(refused, converted):
    from ovseg_cli.core.data.specs import load_spec

    names = load_spec("voc-21").class_names
    state = {**small("zegclip"), EMPTY: torch.ones(16)}
    said = refused(mmcv(state, names), "zegclip", "--data", "voc:15-5")
    assert "shifted by 1, it begins with 'background'" in said and "--data voc-21" in said
    assert "--data voc-21" in converted(mmcv(state, names), "zegclip")["checks"][0]


def test_unchecked_order_is_said(converted, data):
    assert "was not checked" in converted(small("zegclip"), "zegclip")["checks"][0]
    assert "no --data" in converted(small("zegclip"), "zegclip")["checks"][0]
    assert "holds no class names." in converted(small("zegclip"), "zegclip", "--data", data)["checks"][0]
    assert "compared with nothing" in converted(mmcv(small("zegclip"), SIX), "zegclip")["checks"][0]


@pytest.fixture
def features(converted, tmp_path):
    """Rows as the code would have shipped them: the checkpoint's own text tower, half precision."""
    torch.manual_seed(0)
    converted(small("zegclip", words=True), "zegclip", out=("--out", "for-features"))
    clip = load(tmp_path / "for-features", device="cpu").method.clip
    vocabulary = Vocabulary(SIX, tuple((name,) for name in SIX), (SENTENCE,))
    return encode_vocabulary(clip, vocabulary).half().numpy()


def test_text_features_in_and_out_of_order(converted, refused, features, tmp_path):
    document = mmcv(small("zegclip", words=True), SIX)
    ask = ["--set", f"templates={SENTENCE}", "--text-features"]
    np.save("rows.npy", features)
    np.savez("rows.npz", six=features, other=features)
    for place in ("rows.npy", "rows.npz:six"):
        found = converted(document, "zegclip", *ask, place)
        assert found["checks"][1] == f"Each of the 6 rows of {place} is nearest to its own class name."
    np.save("shifted.npy", np.roll(features, 1, axis=0))
    said = refused(document, "zegclip", *ask, "shifted.npy")
    assert "row 0 is nearest to class 5 ('dining table'), not to 0 ('cat'): the rows are shifted by 1" in said
    np.save("permuted.npy", features[[0, 1, 3, 2, 4, 5]])
    said = refused(document, "zegclip", *ask, "permuted.npy")
    assert "row 2 is nearest to class 3 ('sky')" in said and "permuted, 2 of 6" in said


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("none.npy", "there is no such file"),
        ("cut.npy", "cannot be read"),
        ("code.npy", "cannot be read"),
        ("words.npy", "cannot be read"),
        ("two.npz", "holds one, two"),
        ("two.npz:three", "holds one, two"),
        ("flat.npy", "no table"),
        ("whole.npy", "no table"),
        ("empty.npy", "no table"),
        ("nan.npy", "no numbers"),
    ],
)
def test_files_that_hold_no_text_features(tmp_path, monkeypatch, place, said):
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.ones(6, np.float32))
    np.save("whole.npy", np.ones((6, 24), np.int64))
    np.save("empty.npy", np.ones((0, 24), np.float32))
    np.save("nan.npy", np.full((6, 24), np.nan, np.float32))
    np.save("code.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.savez("two.npz", one=np.ones((2, 2)), two=np.ones((2, 2)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "flat.npy").read_bytes()[:-9])
    (tmp_path / "words.npy").write_text("some words")
    with pytest.raises((UsageError, MachineError), match=said):
        read_rows(place)


def test_text_features_that_do_not_fit(refused):
    np.save("wide.npy", np.ones((6, 7), np.float32))
    np.save("rows.npy", np.ones((6, 24), np.float32))
    document = mmcv(small("zegclip"), SIX)
    assert "have 7 values, those of official.pth 24" in refused(document, "zegclip", "--text-features", "wide.npy")
    assert "of which names?" in refused(small("zegclip"), "zegclip", "--text-features", "rows.npy")
    assert "no tokenizer" in refused(document, "zegclip", "--text-features", "rows.npy")


# Files that cannot be used


@pytest.mark.parametrize(("method", "other"), [METHODS, METHODS[::-1]])
def test_a_checkpoint_of_the_other_method(refused, method, other):
    said = refused(mmcv(small(method), SIX), other)
    assert f"looks like a checkpoint of {method}. Use --method {method}" in said


def test_a_checkpoint_of_a_host(refused):
    from tests.core.conversion.layouts import official, random_host

    assert "Use --method zsseg" in refused(official(random_host("zsseg")), "tagclip")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "part",
    [
        "backbone.prompt_embeddings",
        "backbone.prompt_proj.bias",
        "backbone.proj",
        "backbone.conv1.weight",
        "text_encoder.ln_final.weight",
        "q_proj.weight",
        "layers.0.multihead_attn.v.bias",
        "layers.2.multihead_attn.k.weight",
        "layers.0.linear1.weight",
    ],
)
def test_a_missing_entry_is_named(refused, method, part):
    state = small(method)
    name = next(key for key in state if key.endswith(part))
    del state[name]
    said = refused(state, method)
    assert "lacks" in said and name in said


@pytest.mark.parametrize("name", ["backbone.prompt_extra", "decode_head.conv_seg.weight", "neck.weight"])
def test_an_unexpected_entry_is_named(refused, name):
    assert name in refused({**small("zegclip"), name: torch.ones(3)}, "zegclip")


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("backbone.prompt_embeddings", (5, 64), "not (1, T, width)"),
        ("backbone.prompt_proj.weight", (64, 32), "prompt_proj.weight is 64×32, not 64×64"),
        ("backbone.positional_embedding", (16, 64), "15 positions of its CLIP make no square grid"),
        ("decode_head.decoder.layers.0.linear1.weight", (97, 24), "not (n d, d)"),
        ("decode_head.disc_token", (2, 24), "disc_token is 2×24, not 1×24"),
        ("backbone.deep_prompt_embeddings", (9, 5, 64), "deep prompts for 9 blocks"),
    ],
)
def test_an_entry_of_another_shape_is_named(refused, name, shape, said):
    assert said in refused({**small("tagclip"), name: torch.ones(shape)}, "tagclip")


def test_a_file_that_is_cut_off(refused, tmp_path):
    torch.save(mmcv(small("tagclip"), SIX), "official.pth")
    whole = (tmp_path / "official.pth").read_bytes()
    for length in (len(whole) // 2, len(whole) - 9):
        (tmp_path / "official.pth").write_bytes(whole[:length])
        assert "cut off" in refused(None, "tagclip", code=4)


def test_a_malformed_list_of_classes_is_none(converted):
    document = mmcv(small("zegclip"), SIX)
    for names in ((), 5, ["cat", 3], "cat", None):
        document["meta"]["CLASSES"] = names
        assert "holds no class names" in converted(document, "zegclip")["checks"][0]
