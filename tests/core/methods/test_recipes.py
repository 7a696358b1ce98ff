"""The papers' recipes ship as data: every one fits its method, and the numbers that the papers name are there."""

import pytest

from ovseg_cli.core import registry
from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.methods.build import choose_model, split_settings

RECIPES = [(name, method) for name in spec_names() for method in load_spec(name).preset.methods]


@pytest.mark.parametrize(("data", "method"), RECIPES, ids=lambda value: str(value))
def test_every_recipe_fits_its_method(data, method, tmp_path):
    choice = choose_model(method, tmp_path, load_spec(data), to_train=True)
    config, training = split_settings(
        registry.METHODS[method].load(), choice.settings, f"{data} {method}", choice.optional
    )
    assert config is not None and (training is None) == (registry.METHODS[method].trained == "nothing")


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
