"""What `ovseg convert` says to files and settings that it cannot use; nothing is left behind."""

import os
import pickle

import pytest
import torch

from tests.core.conversion.layouts import SETTINGS, official, random_host


class Code:
    """Unpickled, it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture(scope="module")
def whole():
    return official(random_host("zsseg"))


@pytest.fixture
def state(whole):
    """A checkpoint of ZSSeg, to be spoilt."""
    return dict(whole)


@pytest.fixture
def refused(cli, tmp_path):
    """Convert what lies in `host.pth`; the error, once it is clear that nothing was made."""

    def run(*arguments: str, code: int = 2, method: str = "zsseg", file: str = "host.pth") -> str:
        answer = cli("convert", file, "--method", method, *SETTINGS, *arguments)
        assert answer.code == code, answer.err
        assert "Traceback" not in answer.err and not answer.out
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
        return " ".join(answer.err.replace("│", " ").split())

    return run


def test_a_file_that_is_not_there(refused):
    assert "there is no such file" in refused(code=4, file="nothing.pth")


@pytest.mark.parametrize("content", [b"", b"some words", b"PK\x03\x04 and no more", b"\x80\x02K"])
@pytest.mark.parametrize("name", ["host.pth", "host.safetensors"])
def test_a_file_of_another_kind(refused, tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    assert "cut off or of another kind" in refused(code=4, file=name)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_is_cut_off(refused, tmp_path, state, legacy):
    torch.save(state, "host.pth", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "host.pth").read_bytes()
    for length in (len(whole) // 2, len(whole) - 9):
        (tmp_path / "host.pth").write_bytes(whole[:length])
        assert "cut off" in refused(code=4)


@pytest.mark.parametrize("how", ["archive", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(refused, tmp_path, state, how):
    if how == "archive":
        torch.save({**state, "extra": Code()}, "host.pth")
    else:
        (tmp_path / "host.pth").write_bytes(pickle.dumps({"extra": Code()}, protocol=2))
    said = refused()
    assert "run code" in said and "mkdir" in said


def test_files_without_weights_by_name(refused):
    torch.save([torch.ones(2)], "host.pth")
    assert "holds a list" in refused()
    torch.save({"model": {"epoch": 3}}, "host.pth")
    assert "no tensors by name" in refused()


def test_weights_of_something_else(refused):
    torch.save({"layer1.weight": torch.ones(2), "fc.bias": torch.ones(2)}, "host.pth")
    said = refused()
    assert (
        "no checkpoint of maft, freeseg, zegformer, zsseg, zegclip, tagclip or pixelclip" in said
        and "fc, layer1" in said
    )


def test_a_checkpoint_of_another_method(refused, state):
    torch.save(state, "host.pth")
    for method in ("maft", "freeseg", "zegformer"):
        said = refused(method=method)
        assert "looks like a checkpoint of zsseg" in said and "--method zsseg" in said
    torch.save(official(random_host("zegformer")), "host.pth")
    assert "--method zegformer" in refused()


def test_a_checkpoint_of_maft_is_known_by_its_tuned_tower(recorded, refused, tmp_path):
    recorded.save(tmp_path, name="host.pth")
    assert "looks like a checkpoint of maft. Use --method maft" in refused()


def test_an_unknown_method(refused, state):
    torch.save(state, "host.pth")
    assert "Did you mean 'zegformer'?" in refused(method="zegforme")


@pytest.mark.parametrize(
    "name",
    [
        "backbone.res3.0.conv2.weight",
        "sem_seg_head.pixel_decoder.mask_features.bias",
        "sem_seg_head.pixel_decoder.layer_1.weight",
        "sem_seg_head.predictor.query_embed.weight",
        "clip_adapter.clip_model.visual.proj",
        "clip_adapter.clip_model.ln_final.weight",
        "clip_adapter.non_object_embedding",
    ],
)
def test_a_missing_entry_is_named(refused, state, name):
    del state[name]
    state = {k: v for k, v in state.items() if not k.startswith("_region")}
    torch.save(state, "host.pth")
    said = refused()
    assert name in said and "lacks" in said


def test_a_missing_stage_is_named(refused, state):
    torch.save({k: v for k, v in state.items() if not k.startswith("backbone.res4.")}, "host.pth")
    assert "lacks 'backbone.res4.'" in refused()


@pytest.mark.parametrize(
    "name", ["decoder.weight", "backbone.res6.0.conv1.weight", "clip_adapter.clip_model.visual.extra", "clip_adapter.x"]
)
def test_an_unexpected_entry_is_named(refused, state, name):
    torch.save({**state, name: torch.ones(3)}, "host.pth")
    assert name in refused()


def test_an_entry_of_another_shape_is_named(refused, state):
    state["sem_seg_head.predictor.mask_embed.layers.0.bias"] = torch.ones(5)
    torch.save(state, "host.pth")
    said = refused()
    assert "mask_embed.layers.0.bias is 5, not 16" in said


def test_other_constants_are_refused(refused, state):
    state["clip_adapter.pixel_mean"] = torch.tensor([127.5, 127.5, 127.5]).view(1, 3, 1, 1)
    torch.save(state, "host.pth")
    assert "'clip_adapter.pixel_mean' is 127.5, 127.5, 127.5; the published code has 122.771" in refused()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("generator.width=32", "generator.width = 32 contradicts host.pth, which says 16"),
        ("generator.backbone.stem_width=64", "generator.backbone.stem_width = 64 contradicts"),
        ("clip.layers=12", "clip.layers = 12 contradicts host.pth, which says 3"),
        ("clip.heads=3", "width of 128 cannot be cut into clip.heads = 3"),
        ("generator.heads=3", "16 and 3 do not fit together"),
        ("generator.haeds=3", "Did you mean 'heads'?"),
        ("clip.head=3", "Did you mean 'clip.heads'?"),
        ("ensemble_wieght=0.5", "Did you mean 'ensemble_weight'?"),
        ("ensemble_weight=2", "ensemble_weight"),
        ("heads=2", "Write generator.heads = "),
        ("generator=3", "'generator' must be a table"),
        ("templates=3", "must be a sentence"),
        ("templates=a photo", "templates"),
        ("iterations=10", "unknown setting 'iterations'"),
    ],
)
def test_settings_that_do_not_fit(refused, state, setting, said):
    torch.save(state, "host.pth")
    assert said in refused("--set", setting)


def test_res_net_clips_are_refused(refused, state):
    state["clip_adapter.clip_model.visual.layer1.0.conv1.weight"] = torch.ones(4, 4, 1, 1)
    torch.save(state, "host.pth")
    assert "ResNet" in refused()


def test_a_clip_beside_the_checkpoints_own_is_refused(refused, state):
    torch.save(state, "host.pth")
    assert "holds its own CLIP" in refused("--clip", "ViT-B-16")


def test_a_split_of_another_size_than_was_trained_on(refused, state):
    torch.save(state, "host.pth")
    said = refused("--data", "coco-stuff:156-15")
    assert "has 156 seen classes" in said and "was trained on 5" in said


def test_all_classes_are_offered_where_all_were_trained_on(refused, state):
    from ovseg_cli.core.data.specs import load_spec

    state["criterion.empty_weight"] = torch.ones(load_spec("coco-stuff").num_classes + 1)
    torch.save(state, "host.pth")
    assert "--data coco-stuff:none" in refused("--data", "coco-stuff:156-15")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_there_already_is_kept(refused, state, tmp_path, what):
    torch.save(state, "host.pth")
    if what == "folder":
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine").write_text("kept")
    else:
        (tmp_path / "run").write_text("kept")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert "is there already" in refused("--out", "run")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing_behind(refused, state, tmp_path, monkeypatch):
    import errno

    from ovseg_cli.core.conversion import run_folder

    def full(path, data):
        from ovseg_cli.core.files import explain_os_error

        raise explain_os_error(OSError(errno.ENOSPC, "No space left on device"), path)

    torch.save(state, "host.pth")
    monkeypatch.setattr(run_folder, "write_bytes", full)
    for arguments in ([], ["--out", "run"]):
        assert "disk is full" in refused(*arguments, code=4)
        assert sorted(path.name for path in tmp_path.iterdir()) in (["host.pth"], ["host.pth", "runs"])
