"""The papers' recipes ship as data: every one fits its method, and the numbers that the papers name are there."""

import pytest

from ovseg_cli.core import registry
from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.build import choose_model, split_settings

RECIPES = [(name, method) for name in spec_names() for method in load_spec(name).preset.methods]


@pytest.mark.parametrize(("data", "method"), RECIPES, ids=lambda value: str(value))
def test_every_recipe_fits_its_method(data, method, tmp_path):
    choice = choose_model(method, tmp_path, load_spec(data), to_train=True)
    config, training = split_settings(
        registry.METHODS[method].load(), choice.settings, f"{data} {method}", choice.optional
    )
    assert config is not None and (training is None) == (registry.METHODS[method].trained == "nothing")


BY_SETTING = [(data, method, name) for data, method in RECIPES for name in load_spec(data).preset.by_setting(method)]


def training_of(data, method, folder, **settings):
    spec = load_spec(data) if isinstance(data, str) else data
    choice = choose_model(method, folder, spec, settings=settings, to_train=True)
    return split_settings(registry.METHODS[method].load(), choice.settings, method, choice.optional)[1]


@pytest.mark.parametrize(("data", "method", "setting"), BY_SETTING, ids=lambda value: str(value))
def test_every_recipe_for_a_setting_fits_its_method(data, method, setting, tmp_path):
    assert training_of(data, method, tmp_path, setting=setting).setting == setting


@pytest.mark.parametrize("method", ["zegclip", "tagclip"])
@pytest.mark.parametrize(
    ("data", "steps"),
    [("voc-20", (20000, 10000)), ("coco-stuff", (80000, 40000)), ("pascal-context-59", (40000, 20000))],
)
def test_self_training_takes_half_as_long(data, method, steps, tmp_path):
    settings = ({}, {"setting": "transductive"}, {"setting": "supervised"})
    found = tuple(training_of(data, method, tmp_path, **more).iterations for more in settings)
    assert found == (*steps, steps[0])
    assert training_of(data, method, tmp_path, setting="transductive", iterations=3).iterations == 3


def with_recipe(recipe):
    toy = load_spec("toy")
    return toy.model_copy(update={"preset": toy.preset.model_copy(update={"methods": {"zegclip": recipe}})})


def test_a_recipe_itself_may_choose_the_setting_that_it_is_chosen_by(tmp_path):
    spec = with_recipe({"setting": "supervised", "iterations": 5, "by_setting": {"supervised": {"batch_size": 3}}})
    training = training_of(spec, "zegclip", tmp_path)
    assert (training.setting, training.iterations, training.batch_size) == ("supervised", 5, 3)
    assert training_of(spec, "zegclip", tmp_path, setting="inductive").batch_size == 16


def test_the_method_s_own_setting_chooses_where_nothing_is_said(tmp_path):
    spec = with_recipe({"by_setting": {"inductive": {"iterations": 7}}})
    assert training_of(spec, "zegclip", tmp_path).iterations == 7


def test_a_recipe_for_a_setting_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match="unknown setting 'transductiv'. Did you mean 'transductive'"):
        training_of(with_recipe({"by_setting": {"transductiv": {}}}), "zegclip", tmp_path)


@pytest.mark.parametrize(("data", "steps"), [("voc-20", 100), ("coco-stuff", 1000), ("ade20k-847", 5000)])
def test_maft_trains_as_long_as_its_paper_says(data, steps, tmp_path):
    choice = choose_model("maft", tmp_path, load_spec(data), to_train=True)
    _, training = split_settings(registry.METHODS["maft"].load(), choice.settings, "maft", choice.optional)
    assert training.iterations == steps


def test_the_user_s_settings_win_over_the_recipe_and_tables_are_merged(tmp_path):
    choice = choose_model(
        "freeseg",
        tmp_path,
        load_spec("toy"),
        settings={"iterations": 7, "generator": {"queries": 9}},
        to_train=True,
    )
    config, training = split_settings(registry.METHODS["freeseg"].load(), choice.settings, "freeseg", choice.optional)
    assert training.iterations == 7 and config.generator.queries == 9
    assert config.generator.width == load_spec("toy").preset.methods["freeseg"]["generator"]["width"]
