"""Saving, loading and naming a CLIP; what wrong files and names get."""

import json
import zipfile

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ovseg_cli.core.clip import hub
from ovseg_cli.core.clip.model import ClipModel, load_clip, save_clip
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.reporter import Silent
from tests.core.clip.tiny import CONVNEXT, VIT, tiny_clip, tiny_config, tiny_tokenizer

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


class Hearing(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, message):
        self.said.append(message)


def save_tiny(path, vision=VIT, seed=0):
    clip = tiny_clip(vision, seed)
    with torch.no_grad():  # half precision is what the file holds
        for tensor in clip.module.state_dict().values():
            tensor.copy_(tensor.half().float())
    save_clip(
        path, clip.module, tiny_config(vision), tiny_tokenizer().to_json(), {"mean": MEAN, "std": STD}, {"seed": seed}
    )
    return clip


@pytest.mark.parametrize("vision", [VIT, CONVNEXT], ids=["vit", "convnext"])
def test_a_saved_clip_comes_back_from_its_run_folder(tmp_path, vision):
    clip = save_tiny(tmp_path / "run" / "clip.safetensors", vision)
    for name in (tmp_path / "run", tmp_path / "run" / "clip.safetensors"):
        again = load_clip(str(name))
        assert again.recipe == {"seed": 0} and again.embed_dim == clip.embed_dim
        torch.testing.assert_close(again.mean, torch.tensor(MEAN))
        images = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(again.dense(images), clip.dense(images), atol=1e-6, rtol=0)
        assert again.tokenize(["a cat"]).equal(clip.tokenize(["a cat"]))
        assert not again.training and not any(p.requires_grad for p in again.parameters())


def test_digests_tell_weights_towers_and_activation_apart():
    first, second = tiny_clip(), tiny_clip()
    assert first.digest == second.digest and first.text_digest == second.text_digest
    with torch.no_grad():
        second.visual.proj[0, 0] += 1
    assert first.digest != second.digest and first.text_digest == second.text_digest
    assert tiny_clip(quick_gelu=True).text_digest != first.text_digest
    assert tiny_clip(seed=1).text_digest != first.text_digest


def test_logit_scale_is_capped_at_100():
    clip = tiny_clip()
    with torch.no_grad():
        clip.module.logit_scale.fill_(3.0)
    assert clip.logit_scale == pytest.approx(20.0855, rel=1e-4)
    with torch.no_grad():
        clip.module.logit_scale.fill_(6.0)
    assert clip.logit_scale == 100.0


# Real architectures in miniature: a configuration of our own under a name that open_clip knows only in these tests.
@pytest.fixture
def architectures(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, quick in (("Tiny-ViT", False), ("Tiny-ViT-quickgelu", True), ("Wide-ViT", False)):
        vision = {**VIT, "width": 48 if name == "Wide-ViT" else 32}
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
        config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick}
        (folder / f"{name}.json").write_text(json.dumps(config))
    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    open_clip.add_model_config(folder)
    tags = {"openai": {"hf_hub": "x/tiny/", "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}}
    tags["laion"] = {"hf_hub": "x/laion/weights.bin"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-ViT", tags)
    return folder


def state_of(name):
    torch.manual_seed(1)
    return build_module(open_clip.get_model_config(name)).state_dict()


@pytest.mark.parametrize("form", ["bare.pt", "nested.pt", "module.bin", "plain.safetensors"])
def test_local_files_of_every_form_are_read(tmp_path, architectures, form):
    state = state_of("Tiny-ViT")
    path = tmp_path / form
    if form == "plain.safetensors":
        save_file({k: v.half().contiguous() for k, v in state.items()}, path)
    elif form == "nested.pt":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        torch.save({f"module.{k}": v for k, v in state.items()} if form == "module.bin" else state, path)
    clip = load_clip("Tiny-ViT", str(path))
    assert clip.name == f"Tiny-ViT/{form}"
    torch.testing.assert_close(clip.visual.proj, state["visual.proj"], atol=1e-3, rtol=0)
    assert clip.visual.proj.dtype == torch.float32


def test_openai_state_dict_runs_quickgelu_whatever_the_name(tmp_path, architectures):
    path = tmp_path / "ViT.pt"
    extras = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(1)}
    torch.save({**{k: v.half() for k, v in state_of("Tiny-ViT").items()}, **extras}, path)
    hearing = Hearing()
    clip = load_clip("Tiny-ViT", str(path), reporter=hearing)
    block = clip.visual.transformer.resblocks[0]
    assert type(block.mlp.gelu).__name__ == "QuickGELU" and clip.open_clip_config["quick_gelu"] is True
    assert "QuickGELU (a file in OpenAI's form)" in hearing.said[0]


class Archive(torch.nn.Module):
    """The form of OpenAI's own files: the model as TorchScript, with three extra numbers."""

    def __init__(self, module):
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(77))

    def forward(self, x):
        return x + 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_openai_archive_gives_its_weights_and_quickgelu(tmp_path, architectures):
    torch.manual_seed(1)
    module = build_module(open_clip.get_model_config("Tiny-ViT"))
    torch.jit.trace(Archive(module).eval(), torch.zeros(1), check_trace=False).save(str(tmp_path / "ViT.pt"))
    clip = load_clip("Tiny-ViT", str(tmp_path / "ViT.pt"))
    assert clip.open_clip_config["quick_gelu"] is True
    for key, value in module.state_dict().items():
        assert clip.module.state_dict()[key].equal(value), key


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("hub--tiny.openai", "Tiny-ViT", "QuickGELU"),
        ("somewhere", "Tiny-ViT", "GELU"),
        ("somewhere", "Tiny-ViT-quickgelu", "QuickGELU"),
    ],
)
def test_a_local_file_runs_the_activation_that_its_place_tells(tmp_path, architectures, folder, name, expected):
    path = tmp_path / folder / "w.safetensors"
    path.parent.mkdir()
    save_file({k: v.contiguous() for k, v in state_of("Tiny-ViT").items()}, path)
    hearing = Hearing()
    clip = load_clip(name, str(path), reporter=hearing)
    assert type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__ == expected
    assert ("does not tell" in hearing.said[0]) == (folder == "somewhere")


def test_configuration_beside_the_file_rules_activation_and_normalisation(tmp_path, architectures):
    save_file({k: v.contiguous() for k, v in state_of("Tiny-ViT").items()}, tmp_path / "w.safetensors")
    document = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    clip = load_clip("Tiny-ViT", str(tmp_path / "w.safetensors"))
    assert clip.open_clip_config["quick_gelu"] is True
    torch.testing.assert_close(clip.mean, torch.tensor(MEAN))


def test_quickgelu_by_name_on_weights_known_to_be_gelu_is_refused(tmp_path, architectures):
    path = tmp_path / "tiny.laion" / "w.safetensors"
    path.parent.mkdir()
    save_file({k: v.contiguous() for k, v in state_of("Tiny-ViT").items()}, path)
    with pytest.raises(UsageError, match="exact GELU.*Use --clip Tiny-ViT"):
        load_clip("Tiny-ViT-quickgelu", str(path))


def test_a_tag_brings_its_activation_and_normalisation(tmp_path, architectures, monkeypatch):
    save_file({k: v.contiguous() for k, v in state_of("Tiny-ViT").items()}, tmp_path / "w.safetensors")
    monkeypatch.setattr(hub, "fetch_tag", lambda architecture, tag: tmp_path / "w.safetensors")
    clip = load_clip("Tiny-ViT", "openai")
    assert type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    torch.testing.assert_close(clip.mean, torch.tensor([0.1, 0.2, 0.3]))
    assert load_clip("Tiny-ViT", "laion").open_clip_config["quick_gelu"] is False


def test_every_published_vit_b16_weight_knows_its_activation():
    """The trap itself: `ViT-B-16` says GELU, OpenAI's weights for it need QuickGELU."""
    from ovseg_cli.core.clip.provenance import find_provenance

    config = open_clip.get_model_config("ViT-B-16")
    quick = {t for t in open_clip.list_pretrained_tags_by_model("ViT-B-16")
             if find_provenance("ViT-B-16", config, t, hub.Path("x"), False).quick_gelu}  # fmt: skip
    assert {"openai", "dfn2b", "metaclip_400m"} <= quick and "laion2b_s34b_b88k" not in quick


WRONG = {
    "unknown architecture": (("Tiny-VitT", "openai"), UsageError, "Did you mean 'Tiny-ViT'"),
    "unknown tag": (("Tiny-ViT", "opanai"), UsageError, "Did you mean 'openai'.*Known: openai, laion"),
    "architecture without published weights": (("Wide-ViT", "openai"), UsageError, "no published weights"),
    "missing weights file": (("Tiny-ViT", "no/such.pt"), MachineError, "no such file"),
    "missing folder": (("no/such/run", None), MachineError, "no such file or folder"),
    "missing run": (("runs/none-such", None), MachineError, "no such file"),
    "missing file": (("none.safetensors", None), MachineError, "no such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_names_are_answered(architectures, case):
    (name, pretrained), kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        load_clip(name, pretrained)


def test_broken_files_are_answered(tmp_path, architectures):
    good = tmp_path / "good.safetensors"
    save_tiny(good)
    torch.save(state_of("Tiny-ViT"), tmp_path / "good.pt")
    for name in ("good.safetensors", "good.pt"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(data[: len(data) // 2])
    with pytest.raises(MachineError, match="cut off"):
        load_clip(str(tmp_path / "cut-good.safetensors"))
    for name in ("cut-good.safetensors", "cut-good.pt"):
        with pytest.raises(MachineError, match="cut off"):
            load_clip("Tiny-ViT", str(tmp_path / name))


def test_weights_of_another_architecture_name_what_differs(tmp_path, architectures):
    torch.save(state_of("Wide-ViT"), tmp_path / "wide.pt")
    with pytest.raises(UsageError, match=r"visual.class_embedding is 48, not 32.*entries differ"):
        load_clip("Tiny-ViT", str(tmp_path / "wide.pt"))


def test_a_file_that_would_run_code_is_refused(tmp_path, architectures):
    torch.save({"state_dict": WRONG.__class__, "x": print}, tmp_path / "code.pt")
    with pytest.raises(UsageError, match="would run code"):
        load_clip("Tiny-ViT", str(tmp_path / "code.pt"))


def test_files_without_description_or_tensors_are_answered(tmp_path, architectures):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match="does not describe itself.*--pretrained"):
        load_clip(str(tmp_path / "plain.safetensors"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UsageError, match="only safetensors describe themselves.*--pretrained"):
        load_clip(str(tmp_path / "list.pt"))
    with pytest.raises(UsageError, match="no state dict"):
        load_clip("Tiny-ViT", str(tmp_path / "list.pt"))
    with zipfile.ZipFile(tmp_path / "pictures.pt", "w") as archive:
        archive.writestr("a/picture.txt", "no weights")
    with pytest.raises(MachineError, match="of another kind"):
        load_clip("Tiny-ViT", str(tmp_path / "pictures.pt"))


@pytest.mark.parametrize("key", ["embed_dim", "vision_cfg", "kind", "words"])
def test_an_incomplete_description_is_answered(tmp_path, key):
    clip, config, tokenizer = tiny_clip(), tiny_config(), tiny_tokenizer().to_json()
    for document in (config, tokenizer):
        document.pop(key, None)
    save_clip(tmp_path / "clip.safetensors", clip.module, config, tokenizer, {}, {})
    with pytest.raises(UsageError, match="incomplete|cannot be built"):
        load_clip(str(tmp_path))


def test_pretrained_beside_a_clip_with_its_own_weights_is_refused(tmp_path):
    save_tiny(tmp_path / "clip.safetensors")
    with pytest.raises(UsageError, match="brings its own weights"):
        load_clip(str(tmp_path), "openai")


def test_random_weights_are_said_aloud(architectures):
    hearing = Hearing()
    assert isinstance(load_clip("Tiny-ViT", "random", reporter=hearing), ClipModel)
    assert "random weights" in hearing.said[0]
