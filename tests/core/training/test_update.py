"""One update: micro-batches, moving average, precision, compilation; by hand where it fits."""

import json

import pytest
import torch
from torch import nn

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training.ema import MovingAverage
from ovseg_cli.core.training.group import ONE
from ovseg_cli.core.training.loop import fit
from ovseg_cli.core.training.task import TrainingError
from ovseg_cli.core.training.toy_clip import ToyClipTask
from ovseg_cli.core.training.update import Updater
from tests.core.training.parts import Sums, settings, train, weights

CPU = torch.device("cpu")


def updater_of(task, **changes):
    return Updater(task, settings(**changes), CPU, ONE)


def gradients(updater, parts, step=0, factor=1.0):
    data = updater.task.steps(parts)
    values = updater.gradients([data[step * parts + p] for p in range(parts)], factor, {"flag": 1.0})
    return values, [p.grad.clone() for p in updater.parameters]


def test_gradient_is_that_of_the_whole_batch_and_the_terms_are_its_terms():
    task = Sums()
    batch = task.steps(1)[0]
    totals = task.normalisers(batch)
    terms = task.losses(batch, totals)
    expected = torch.autograd.grad(sum(terms.values()), [p for g in task.optimizer().param_groups for p in g["params"]])
    for parts in (1, 2, 4, 8):
        values, found = gradients(updater_of(Sums(), clip_grad_norm=None), parts)
        assert values["fit"] == pytest.approx(terms["fit"].item(), rel=1e-6)
        assert values["(images)"] == 8 and values["(flag)"] == 1
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(found, expected, strict=True))
        assert values["(gradient_norm)"] == pytest.approx(float(torch.cat([g.flatten() for g in expected]).norm()))


def test_gradients_are_cut_to_the_norm_and_the_norm_before_is_told():
    values, found = gradients(updater_of(Sums(), clip_grad_norm=0.25), 2)
    assert values["(gradient_norm)"] > 0.25
    assert float(torch.cat([g.flatten() for g in found]).norm()) == pytest.approx(0.25, rel=1e-4)


def test_each_group_has_its_own_rate_times_the_factor():
    updater = updater_of(Sums())
    gradients(updater, 1, factor=0.25)
    assert updater.rates == pytest.approx([0.005, 0.0025])  # 0.02 and 0.01 times 0.25


def test_step_without_any_loss_changes_weights_by_decay_alone():
    class Nothing(Sums):
        def losses(self, batch, totals):
            return {"fit": torch.zeros(()), "rare": torch.zeros(())}

    values, found = gradients(updater_of(Nothing()), 2)
    assert values["fit"] == 0 and all(not g.any() for g in found)


def test_average_is_the_one_computed_by_hand():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average = MovingAverage(module, 0.75)
    for value in (5.0, 9.0):  # 0.75 · 1 + 0.25 · 5 = 2; 0.75 · 2 + 0.25 · 9 = 3.75
        with torch.no_grad():
            module.weight.fill_(value)
        average.update()
    with average.in_place():
        assert module.weight.item() == 3.75
    assert module.weight.item() == 9.0
    average.put()
    assert module.weight.item() == 3.75


def test_average_is_evaluated_and_returned_but_the_weights_are_saved(tmp_path):
    scored = []

    class Scored(Sums):
        def evaluate(self):
            scored.append(weights(self))
            return {}

    task = Scored()
    fit(task, settings(4, ema=0.5, eval_every=4), tmp_path, Silent())
    plain = train(tmp_path / "plain", total=4)
    assert torch.equal(scored[0], weights(task)) and not torch.equal(weights(task), weights(plain))
    from ovseg_cli.core.training.checkpoint import load_checkpoint

    saved = load_checkpoint(tmp_path / "checkpoints", Silent()).weights
    assert torch.equal(saved["head.weight"], plain.module["head"].weight)


def test_frozen_weights_have_no_average():
    assert {name.split(".")[0] for name in MovingAverage(Sums().module, 0.5).average} == {"trunk", "head", "rare"}


def test_float16_on_the_cpu_is_refused(tmp_path):
    with pytest.raises(MachineError, match="float16 is for GPUs") as caught:
        train(tmp_path, precision="float16")
    assert "precision=bfloat16" in caught.value.mend and not (tmp_path / "metrics.jsonl").exists()


def test_bfloat16_trains(tmp_path):
    task = train(tmp_path, precision="bfloat16")
    assert torch.isfinite(weights(task)).all() and all(p.dtype == torch.float32 for p in task.module.parameters())


def scaled(scale, task=None):
    """An updater that magnifies the loss, as in float16 on a GPU."""
    updater = updater_of(task or Sums())
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return updater


def test_magnified_loss_gives_the_same_gradients():
    plain, found = gradients(updater_of(Sums()), 2), gradients(scaled(2.0**10), 2)
    assert found[0] == pytest.approx(plain[0])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(found[1], plain[1], strict=True))


def test_overflow_keeps_the_weights_and_halves_the_scale():
    class Loud(Sums):
        def losses(self, batch, totals):
            return {name: 1e4 * term for name, term in super().losses(batch, totals).items()}

    updater = scaled(2.0**126, Loud())
    before = weights(updater.task).clone()
    values, _ = gradients(updater, 1)
    assert not torch.isfinite(torch.tensor(values["(gradient_norm)"])) and updater.may_overflow
    assert not updater.step() and torch.equal(weights(updater.task), before)
    assert updater.scaler.get_scale() == 2.0**125


def test_overflow_is_logged_and_ends_the_training_where_the_scale_is_least(tmp_path, monkeypatch):
    class Broken(Sums):
        def losses(self, batch, totals):
            terms = super().losses(batch, totals)
            return {**terms, "rare": terms["rare"] + self.module["head"].weight.mul(0).sum().sqrt()}  # gradient NaN

    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: SCALER("cpu", init_scale=2.0**-8))
    with pytest.raises(TrainingError, match="'gradient' is nan in step 3"):
        fit(Broken(), settings(9, log_every=1), tmp_path, Silent())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["overflowed"] for line in lines] == [1.0, 1.0] and "gradient_norm" not in lines[0]


SCALER = torch.amp.GradScaler


def test_scale_is_saved_and_restored():
    updater = scaled(4.0)
    state = updater.state_dict()
    other = scaled(2.0)
    other.load_state_dict(state)
    assert other.scaler.get_scale() == 4.0


def test_compile_that_fails_is_said(tmp_path, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(*_):
        raise BackendCompilerFailed("inductor", RuntimeError("no compiler was found"), None)

    updater = updater_of(Sums(), compile=True)
    monkeypatch.setattr(updater.losses, "_compiled_call_impl", broken)
    with pytest.raises(MachineError, match=r"torch.compile failed .*") as caught:
        gradients(updater, 1)
    assert "compile=false" in caught.value.mend


@pytest.mark.slow
def test_compiled_losses_train_to_the_same_weights(tmp_path):
    """Fused kernels round elsewhere: six steps of AdamW agree to five digits."""
    plain, compiled = train(tmp_path / "a"), train(tmp_path / "b", compile=True)
    assert torch.allclose(weights(plain), weights(compiled), rtol=1e-4, atol=1e-5)


def test_toy_clip_has_no_parts():
    with pytest.raises(UsageError, match="cannot be cut into 2 parts"):
        ToyClipTask().steps(2)


def test_log_has_rates_of_all_groups_and_evaluations_have_lines_of_their_own(tmp_path):
    train(tmp_path, total=4, eval_every=2, accumulate=2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [("evaluation" in line, line["step"]) for line in lines] == [(False, 2), (True, 2), (False, 4), (True, 4)]
    assert lines[0]["learning_rates"] == pytest.approx([0.01, 0.005]) and lines[0]["learning_rate"] == 0.01
    assert lines[0]["images_per_second"] > 0 and 0 <= lines[0]["waited_share"] <= 1


def test_nan_that_comes_with_a_part_is_named(tmp_path):
    with pytest.raises(TrainingError, match="'rare' is nan in step 3"):
        train(tmp_path, nan_at=6, accumulate=2)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_on_a_gpu_half_precision_trains_and_resumes(tmp_path, precision, compiled):
    def run(folder, total, resume=False):
        task = Sums()
        task.module.cuda()
        options = {"precision": precision, "ema": 0.8, "accumulate": 2, "compile": compiled}
        fit(task, settings(total, **options), folder, Silent(), "cuda", resume)
        return weights(task).cpu()

    straight = run(tmp_path / "a", 6)
    run(tmp_path / "b", 3)
    torch.testing.assert_close(run(tmp_path / "b", 6, resume=True), straight, rtol=1e-2, atol=1e-3)
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["peak_memory_mib"] >= 0
