"""A small method is trained on prepared data: what reaches its weights, and what does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.errors import DataError, ShapeError
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training.loop import LoopSettings, fit
from ovseg_cli.core.training.method_data import open_train_data
from ovseg_cli.core.training.method_task import MethodTask, loop_settings_of, schedule_of
from ovseg_cli.core.types import TextFeatures
from tests.core.training.linear_method import Linear, Masked
from tests.core.training.pictures import SEEN, make_data, make_proposals

TRAINING = TrainingConfig(
    iterations=12, batch_size=4, learning_rate=0.01, crop_size=10, crop_max_share=0.7, short_sides=(9, 14),
    color_jitter=True, workers=0, log_every=4, save_every=100, precision="float32",
)  # fmt: skip
TEXT = TextFeatures.of_classes(F.normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(0)), dim=-1))


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than the training."""
    monkeypatch.setattr("ovseg_cli.core.training.loop.draw_curves", lambda *_: None)


def task_of(folder: Path, training: TrainingConfig = TRAINING, kind: type[Linear] = Linear, **changed) -> MethodTask:
    pictures = make_data(folder, **changed)
    store = make_proposals(folder / "masks", pictures) if kind.wants_proposals else None
    return MethodTask(kind(), open_train_data(pictures, SEEN, training, store), TEXT)


def trained(folder: Path, training: TrainingConfig = TRAINING, kind: type[Linear] = Linear, **changed) -> torch.Tensor:
    """Train from the source files to the weights; returns the weights."""
    task = task_of(folder, training, kind, **changed)
    before = task.module.colors.weight.detach().clone()
    torch.manual_seed(0)
    fit(task, LoopSettings(**loop_settings_of(training)), folder / "run", Silent())
    assert not torch.equal(before, task.module.colors.weight)
    return torch.cat([task.module.colors.weight.detach().flatten(), task.module.colors.bias.detach()])


def swap(label: np.ndarray) -> np.ndarray:
    """Dog (1) becomes cow (3) and cow dog."""
    return np.where(label == 1, 3, np.where(label == 3, 1, label)).astype(np.uint8)


def one_for_all(label: np.ndarray) -> np.ndarray:
    return np.where(label == 3, 1, label).astype(np.uint8)


def forget(label: np.ndarray) -> np.ndarray:
    """Unseen pixels lose their label."""
    return np.where((label == 1) | (label == 3), 255, label).astype(np.uint8)


def confuse_seen(label: np.ndarray) -> np.ndarray:
    return np.where(label == 0, 2, label).astype(np.uint8)


@pytest.mark.parametrize("kind", [Linear, Masked])
def test_labels_of_unseen_pixels_change_no_weight(tmp_path: Path, kind: type[Linear]) -> None:
    """From the files on disk, through `prepare`, to the weights: bit for bit."""
    reference = trained(tmp_path / "as-is", kind=kind)
    changes: list[Callable[[np.ndarray], np.ndarray]] = [swap, one_for_all, forget]
    for change in changes:
        assert torch.equal(trained(tmp_path / change.__name__, kind=kind, relabel=change), reference), change.__name__
    assert not torch.equal(trained(tmp_path / "seen", kind=kind, relabel=confuse_seen), reference)


@pytest.mark.parametrize("kind", [Linear, Masked])
def test_parts_and_workers_change_nothing_but_rounding(tmp_path: Path, kind: type[Linear]) -> None:
    whole = trained(tmp_path / "whole", kind=kind)
    parts = trained(tmp_path / "parts", TRAINING.model_copy(update={"accumulate": 3, "workers": 1}), kind)
    assert torch.allclose(parts, whole, atol=1e-6)


def test_optimizer_takes_the_methods_groups_and_the_configs_rest(tmp_path: Path) -> None:
    groups = task_of(tmp_path).optimizer().param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.01, 1e-4), (0.001, 0.0)]
    assert groups[0]["betas"] == (0.9, 0.999)


def test_sgd_has_momentum(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"optimizer": "sgd", "momentum": 0.7})
    optimizer = task_of(tmp_path, training).optimizer()
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"] == 0.7


def test_frozen_parts_stay_as_when_scoring(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    task.train_mode()
    assert task.module.colors.training and not any(m.training for m in task.module.frozen)
    batch = task.steps(1)[0]
    first, second = (task.losses(batch, task.normalisers(batch))["pixels"] for _ in range(2))
    assert torch.equal(first, second), "dropout of a frozen part is on"


def test_checkpoint_holds_what_is_trained_and_not_the_clip(tmp_path: Path) -> None:
    names = task_of(tmp_path).kept().keys()
    assert {"colors.weight", "colors.bias"} <= names and not any(name.startswith("clip.") for name in names)


def test_text_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    data = task_of(tmp_path).data
    with pytest.raises(ShapeError, match="4 classes, the training labels for 3"):
        MethodTask(Linear(), data, TextFeatures.of_classes(torch.zeros(4, 24)))


def test_evaluation_is_the_sessions(tmp_path: Path) -> None:
    data = task_of(tmp_path).data
    assert MethodTask(Linear(), data, TEXT).evaluate() == {}
    assert MethodTask(Linear(), data, TEXT, evaluate=lambda: {"mIoU": 1.0}).evaluate() == {"mIoU": 1.0}


def test_resuming_on_changed_data_is_refused(tmp_path: Path) -> None:
    def run(task: MethodTask, resume: bool) -> None:
        fit(task, LoopSettings(**loop_settings_of(TRAINING)), tmp_path / "run", Silent(), resume=resume,
            identity={"data": task.data.digest})  # fmt: skip

    run(task_of(tmp_path / "as-is"), False)
    run(task_of(tmp_path / "again"), True)
    with pytest.raises(DataError, match="data is not what this run began with"):
        run(task_of(tmp_path / "other", relabel=confuse_seen), True)


def test_schedule_is_the_configs() -> None:
    config = TrainingConfig(iterations=10, schedule="poly", power=1.0, warmup=2, warmup_start=0.5)
    assert [schedule_of(config).factor(step) for step in (0, 2, 5, 10)] == pytest.approx([0.5, 0.8, 0.5, 0.0])
    assert loop_settings_of(config)["clip_grad_norm"] is None
