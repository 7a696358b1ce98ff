"""What the shared settings of training accept, and what they say about what they refuse."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.build import check_settings
from ovseg_cli.core.methods.training_config import TrainingConfig


def test_every_setting_has_its_sentence() -> None:
    for name, field in TrainingConfig.model_fields.items():
        assert field.description and field.description.endswith("."), name


def test_lists_of_a_toml_file_are_taken() -> None:
    training = TrainingConfig(**{"short_sides": [320, 640], "scale_range": [0.5, 2], "pad_value": [124, 116, 104]})
    assert training.short_sides == (320, 640) and training.scale_range == (0.5, 2.0)
    assert training.pad_value == (124, 116, 104)
    assert TrainingConfig(**training.model_dump(mode="json")) == training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"betas": (0.9, 1.0)}, "must lie between 0 and 1"),
        ({"batch_size": 2, "accumulate": 3}, "cannot be cut into accumulate = 3 parts"),
        ({"scale_range": (2.0, 0.5)}, "the smaller one first"),
        ({"scale_range": (0.0, 0.5)}, "two positive factors"),
        ({"short_sides": (320, 960), "train_long_side": 800}, "a short side of 960 exceeds train_long_side 800"),
        ({"crop_max_share": 0.75}, "crop_max_share needs a crop"),
        ({"pad_value": 256}, "less than or equal to 255"),
        ({"short_sides": (0,)}, "greater than or equal to 1"),
        ({"flip": 1.5}, "less than or equal to 1"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"ema": 1.0}, "less than 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(**settings)


def test_a_limit_of_zero_is_none() -> None:
    assert TrainingConfig(short_sides=(4000,), train_long_side=0).train_long_side == 0


def test_unknown_settings_offer_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'learning_rate'"):
        check_settings(TrainingConfig, {"learning_rat": 1e-4}, "maft")


def test_settings_are_checked_without_torch() -> None:
    code = "import sys, ovseg_cli.core.methods.training_config; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
