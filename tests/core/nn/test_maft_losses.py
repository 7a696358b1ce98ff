import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ovseg_cli.core.nn.maft_losses import (
    distillation_sum,
    mask_aware_count,
    mask_aware_sum,
    normalised_rows,
    present_classes,
    soft_iou,
)


@pytest.fixture
def recorded(parity):
    return load_file(parity / "maft" / "maft_losses.safetensors")


def pictures(recorded):
    """Masks, label maps with -1 where no class enters the loss, and the classes that do, picture by picture."""
    for i, masks in enumerate(recorded["masks"].float()):
        label, classes = recorded[f"label_map_{i}"].long(), recorded[f"labels_{i}"]
        yield masks, torch.where(torch.isin(label, classes), label, -1), classes


def ma_loss(recorded, logits):
    """The recorded batch: mean over present classes × proposals of the whole batch."""
    parts = list(zip(logits[..., :-1].softmax(-1), pictures(recorded), strict=True))
    count = sum(mask_aware_count(len(masks), label) for _, (masks, label, _) in parts)
    return sum(mask_aware_sum(p, masks.to(p), label) for p, (masks, label, _) in parts) / count


def assert_near(actual, expected, tolerance=2e-5):
    assert (actual - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


def test_iou_targets_match_maft(recorded):
    rows = [soft_iou(masks, label, classes) for masks, label, classes in pictures(recorded)]
    assert_near(torch.cat(rows), recorded["iou"])
    assert_near(torch.cat([normalised_rows(r) for r in rows]), recorded["iou_normalised"])


def test_probabilities_that_are_compared_match_maft(recorded):
    probabilities = recorded["clip_logits"][..., :-1].softmax(-1)
    rows = [p[:, classes].T for p, (_, _, classes) in zip(probabilities, pictures(recorded), strict=True)]
    assert_near(torch.cat(rows), recorded["selected_probs"])


def test_present_classes_rise_and_leave_ignored_pixels_out():
    assert present_classes(torch.tensor([[4, -1], [2, 4]])).tolist() == [2, 4]
    assert present_classes(torch.full((2, 2), -1)).tolist() == []


def test_mask_aware_loss_and_gradient_match_maft(recorded):
    logits = recorded["clip_logits"].clone().requires_grad_()
    loss = ma_loss(recorded, logits)
    loss.backward()
    assert_near(loss.detach(), recorded["ma_loss"])
    assert_near(logits.grad, recorded["grad_clip_logits"], 1e-8)  # recorded gradients are small: about 1e-4
    assert abs(ma_loss(recorded, recorded["clip_logits"].double()) - recorded["ma_loss_f64"]) <= 1e-10


def test_distillation_and_gradient_match_maft(recorded):
    student = recorded["student_logits"].clone().requires_grad_()
    loss = distillation_sum(student[:, :-1], recorded["teacher_logits"][:, :-1]) / len(student)
    loss.backward()
    assert_near(loss.detach(), recorded["dis_loss_unweighted"])
    assert_near(student.grad, recorded["grad_student_logits"])


def test_soft_iou_by_hand():
    # class 2 fills the left half of 2 x 2; masks: the left half, half of everything, nothing
    label = torch.tensor([[2, -1], [2, 0]])
    masks = torch.tensor([[[1.0, 0], [1, 0]], [[0.5, 0.5], [0.5, 0.5]], [[0, 0], [0, 0]]])
    iou = soft_iou(masks, label, torch.tensor([2, 0]))
    # class 2: 2/2, 1/(2+2-1), 0; class 0 (one pixel): 0, 0.5/(1+2-0.5), 0
    torch.testing.assert_close(iou, torch.tensor([[1, 1 / 3, 0], [0, 0.2, 0]]))
    torch.testing.assert_close(normalised_rows(iou), torch.tensor([[1, 1 / 3, 0], [0, 1, 0]]), atol=1e-6, rtol=0)


def test_mask_aware_sum_by_hand():
    label = torch.tensor([[1, 1], [-1, -1]])
    masks = torch.tensor([[[1.0, 1], [0, 0]], [[0, 0], [1, 1]]])  # targets 1 and 0
    probabilities = torch.tensor([[0.5, 0.5], [0.4, 0.6]])
    # ½ (1 - 0.5)² + ½ (0.6 - 0)²
    assert float(mask_aware_sum(probabilities, masks, label)) == pytest.approx(0.125 + 0.18)
    assert mask_aware_count(len(masks), label) == 2


def test_uint8_masks_count_255_as_one():
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 256, (5, 9, 7), dtype=torch.uint8, generator=generator)
    label = torch.randint(-1, 3, (9, 7), generator=generator)
    classes = present_classes(label)
    torch.testing.assert_close(soft_iou(masks, label, classes), soft_iou(masks.float() / 255, label, classes))


@pytest.mark.parametrize("count", [0, 4])
def test_picture_without_a_labelled_class_is_zero_with_gradient(count):
    probabilities = torch.rand(count, 3, requires_grad=True)
    loss = mask_aware_sum(probabilities, torch.rand(count, 6, 6), torch.full((6, 6), -1))
    assert loss.item() == 0 and mask_aware_count(count, torch.full((6, 6), -1)) == 0
    loss.backward()
    assert probabilities.grad.shape == (count, 3) and not probabilities.grad.any()


def test_no_proposals_are_zero_too():
    label = torch.zeros(6, 6, dtype=torch.int64)
    assert float(mask_aware_sum(torch.zeros(0, 3), torch.zeros(0, 4, 4), label)) == 0


def test_masks_and_teacher_get_no_gradient():
    masks, teacher = torch.rand(3, 4, 4, requires_grad=True), torch.rand(1, 3, requires_grad=True)
    label = torch.zeros(4, 4, dtype=torch.int64)
    logits = torch.rand(3, 3, requires_grad=True)
    (mask_aware_sum(logits.softmax(-1), masks, label) + distillation_sum(logits[:1], teacher)).backward()
    assert masks.grad is None and teacher.grad is None and logits.grad is not None


class Measured:
    """Masks that answer for themselves, as those of the training data do."""

    def __init__(self, masks):
        self.masks = masks

    def __len__(self):
        return len(self.masks)

    def areas(self):
        return self.masks.sum((1, 2))

    def overlaps(self, labels, num_classes):
        return torch.stack([self.masks[:, labels == k].sum(1) for k in range(num_classes)], dim=1)


def test_masks_may_measure_themselves():
    generator = torch.Generator().manual_seed(1)
    masks, probabilities = torch.rand(5, 8, 8, generator=generator), torch.rand(5, 4, generator=generator)
    for label in (torch.randint(-1, 4, (8, 8), generator=generator), torch.full((8, 8), -1)):
        written, measured = (mask_aware_sum(probabilities, m, label) for m in (masks, Measured(masks)))
        torch.testing.assert_close(measured, written)


def plain_loss(probabilities, masks, label):
    """Written out pixel by pixel, class by class."""
    total, count = 0.0, 0
    for c in sorted({int(v) for v in label.flatten() if v >= 0}):
        truth = (label == c).double()
        ious = [float((truth * m).sum() / (truth.sum() + m.sum() - (truth * m).sum() + 1e-7)) for m in masks]
        for n, iou in enumerate(ious):
            target = (iou - min(ious)) / (max(ious) - min(ious) + 1e-8)
            total += 0.5 * (float(probabilities[n, c]) - target) ** 2  # both lie in 0..1, so always below beta
            count += 1
    return total, count


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(1, 4))
def test_equals_the_definition_and_follows_permuted_masks(seed, count, classes):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 5, 6, generator=generator, dtype=torch.float64)
    label = torch.randint(-1, classes, (5, 6), generator=generator)
    probabilities = torch.rand(count, classes, generator=generator, dtype=torch.float64)
    total, terms = plain_loss(probabilities, masks, label)
    assert float(mask_aware_sum(probabilities, masks, label)) == pytest.approx(total, abs=1e-9)
    assert mask_aware_count(len(masks), label) == terms
    order = torch.randperm(count, generator=generator)
    assert float(mask_aware_sum(probabilities[order], masks[order], label)) == pytest.approx(total, abs=1e-9)
