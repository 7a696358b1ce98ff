"""`ovseg show METHOD`: settings, training and recipes, each value with its source."""

import pytest

from ovseg_cli.core import registry
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.settings_tables import method_tables

TRAINED = [name for name, entry in registry.METHODS.items() if entry.trained != "nothing"]


@pytest.mark.parametrize("name", TRAINED)
def test_training_settings_are_shown_with_the_sources_of_the_paper(name):
    method = registry.METHODS[name].load()
    settings, training, *_ = method_tables(method)
    rows = {row["setting"]: row for row in training.records()}
    assert list(rows) == list(method.Training.model_fields)
    for key, source in method.training_sources.items():
        assert rows[key]["source"] == f"{source.kind}: {source.place}"
    for key in ("iterations", "batch_size", "learning_rate", "weight_decay", "schedule"):
        assert not rows[key]["source"].startswith("ours"), key
    assert all(row["meaning"] for row in rows.values())
    assert "iterations" not in {row["setting"] for row in settings.records()}


def test_recipes_are_those_of_the_specs():
    recipe = load_spec("toy").preset.methods["maft"]
    rows = [row for row in method_tables(registry.METHODS["maft"].load())[2].records() if row["data"] == "toy"]
    assert [row["setting"] for row in rows] == list(recipe)
    assert dict((row["setting"], row["value"]) for row in rows)["iterations"] == str(recipe["iterations"])


def test_a_method_without_training_has_no_table_of_it():
    titles = [table.title for table in method_tables(registry.METHODS["maskclip"].load())]
    assert not any("training" in title for title in titles)
