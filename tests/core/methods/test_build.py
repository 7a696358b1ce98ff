"""Which CLIP and which settings a model gets: options, then the run's, then the data set's, then the defaults."""

import pytest
from safetensors.torch import save_file

from ovseg_cli.core.clip.model import load_clip
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.build import DEFAULT_CLIP, build_method, choose_model
from ovseg_cli.core.methods.tagclip import TagClip, TagClipConfig
from ovseg_cli.core.runs import WEIGHTS, create_run

TOY, CAMVID = load_spec("toy"), load_spec("camvid")  # with and without a preset


@pytest.fixture
def run(tmp_path):
    """A run on weights of its own."""
    tables = {"clip": {"name": "ViT-L-14", "pretrained": "mine.bin"}, "method": {"variant": "original", "side": 40}}
    return str(create_run(tmp_path, "segmentation", "maskclip", "toy:combo", tables).path)


def clip_of(model, runs, **options):
    choice = choose_model(model, runs, **options)
    return choice.clip, choice.pretrained


def test_clip_is_the_option_s_else_the_run_s_else_the_preset_s_else_the_default(tmp_path, run):
    assert clip_of("clip", tmp_path) == clip_of("clip", tmp_path, spec=CAMVID) == DEFAULT_CLIP
    assert clip_of("clip", tmp_path, spec=TOY) == (TOY.preset.clip, None)
    assert clip_of(run, tmp_path, spec=TOY) == ("ViT-L-14", "mine.bin")
    assert clip_of(run, tmp_path, spec=TOY, clip="RN50", pretrained="openai") == ("RN50", "openai")


def test_weights_default_to_openai_s_for_the_default_architecture_alone(tmp_path):
    assert clip_of("clip", tmp_path, clip=DEFAULT_CLIP[0]) == DEFAULT_CLIP
    assert clip_of("clip", tmp_path, clip="RN50") == ("RN50", None)
    assert clip_of("clip", tmp_path, clip=DEFAULT_CLIP[0], pretrained="random") == (DEFAULT_CLIP[0], "random")


def test_weights_alone_are_of_the_run_s_architecture_else_of_the_default(tmp_path, run):
    assert clip_of(run, tmp_path, pretrained="other.bin") == ("ViT-L-14", "other.bin")
    assert clip_of("clip", tmp_path, spec=TOY, pretrained="f.bin") == (DEFAULT_CLIP[0], "f.bin")


def test_settings_are_the_options_over_the_run_s_or_the_preset_s(tmp_path, run):
    preset = TOY.preset.shared | TOY.preset.recipe("maskclip")
    assert preset and choose_model("maskclip", tmp_path, TOY).settings == preset
    assert choose_model("maskclip", tmp_path, TOY, settings={"side": 1}).settings == {**preset, "side": 1}
    assert choose_model("maskclip", tmp_path, CAMVID).settings == {}
    own = {"variant": "original", "side": 40}
    assert choose_model(run, tmp_path, TOY).settings == own, "no preset: what the run was made with counts"
    assert choose_model(run, tmp_path, TOY, settings={"side": 1}).settings == {**own, "side": 1}


def test_preset_is_no_recipe_for_pictures_from_elsewhere(tmp_path):
    choice = choose_model("maskclip", tmp_path, TOY, recipe=False)
    assert choice.settings == {} and choice.clip == TOY.preset.clip


def test_what_is_no_method_is_refused_with_the_way_to_use_it(tmp_path, monkeypatch):
    trained = create_run(tmp_path, "toy-clip", "toy-clip", "toy", {}).path
    with pytest.raises(UsageError, match="it holds no segmentation method.*--clip"):
        choose_model(str(trained), tmp_path)
    with pytest.raises(UsageError, match="Use --clip toy-clip"):
        choose_model("toy-clip", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"type ./{trained.name}"):
        choose_model(trained.name, tmp_path)
    with pytest.raises(UsageError, match="Did you mean"):
        choose_model("masclip", tmp_path)


def test_method_is_ready_to_predict(tmp_path):
    method = build_method(choose_model("maskclip", tmp_path, TOY, settings={"variant": "original"}))
    assert not any(part.training for part in method.modules())
    assert method.config.variant == "original" and method.config.side == TOY.preset.side
    with pytest.raises(UsageError, match="maskclip: unknown setting 'sid'. Did you mean 'side'"):
        build_method(choose_model("maskclip", tmp_path, TOY, settings={"sid": 1}))


def test_a_setting_that_changes_the_network_of_a_finished_run_is_named(tmp_path):
    settings = {"decoder_heads": 4, "prompts": 2, "window": 0, "stride": 0}
    model = TagClip(load_clip("toy-clip"), TagClipConfig(**settings))
    tables = {"clip": {"name": "toy-clip"}, "method": model.config.model_dump(mode="json"), "vocabulary": {}}
    run = create_run(tmp_path, "segmentation", "tagclip", "toy:combo", tables).path
    save_file({name: tensor.contiguous() for name, tensor in model.trained_state().items()}, run / WEIGHTS)
    assert build_method(choose_model(str(run), tmp_path, settings={"gamma": 0.2})).config.gamma == 0.2
    with pytest.raises(UsageError, match="do not fit what was set here .*trust_token") as caught:
        build_method(choose_model(str(run), tmp_path, settings={"token": False, "fusion": "none"}))
    assert caught.value.mend == "One of these changes the network: fusion, token. Leave it out."
