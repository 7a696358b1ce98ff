"""Label maps of scores that are made pixel by pixel, against the form that makes all of them at full size."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.errors import OvsegError, ShapeError
from ovseg_cli.core.nn.label_maps import full_scores, label_map, label_maps
from ovseg_cli.core.types import Readout, SigmoidPrediction
from tests.core.nn.straight_sigmoid import straight_labels, straight_scores
from tests.core.nn.test_label_maps import LargestTensor

CLEAR = 1e-5  # the two best scores differ by more: no rounding can turn them round


def one_window(logits, size=None, **weighting):
    """A window that is the whole canvas; by default the label map has its size."""
    height, width = weighting.pop("canvas", size or logits.shape[1:])
    boxes = torch.tensor([[0, 0, height, width]])
    return SigmoidPrediction(logits[None], boxes, (height, width), size or (height, width), **weighting)


def logit(probability):
    return math.log(probability / (1 - probability))


def test_hand_worked_grid():
    # A 2 x 2 grid becomes 4 x 4 pixels: along an axis the far sample has the weights 0, 1/4, 3/4, 1.
    # Class 0 (seen) has logit 4 left and -4 right: 4, 2, -2, -4, sigmoids .982, .881, .119, .018; less .1
    # .882, .781, .019, -.082.
    # Class 1 (unseen) has logit 0: .5 everywhere.
    # Trust (being unseen) is -ln 9 above, ln 9 below: ±2.197, ±1.099 between, so that w = .1, .25, .75, .9 by rows.
    logits = torch.tensor([[[4.0, -4.0], [4.0, -4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    trust = torch.tensor([[-math.log(9), -math.log(9)], [math.log(9), math.log(9)]])
    plain = one_window(logits, (4, 4))
    assert label_map(plain).tolist() == [[0, 0, 1, 1]] * 4

    weighted = one_window(
        logits, (4, 4), penalty=torch.tensor([0.1, 0.0]), trust=trust[None], gate=torch.tensor([-1, 1])
    )
    seen = torch.tensor([0.88201, 0.78080, 0.01920, -0.08201])  # sigmoid - 0.1 by columns
    w = torch.tensor([0.1, 0.25, 0.75, 0.9])
    expected = torch.stack([(1 - w)[:, None] * seen, (w * 0.5)[:, None].expand(4, 4)])
    torch.testing.assert_close(full_scores(weighted, (4, 4)), expected, rtol=0, atol=2e-5)
    # .794 .703 .017 -.074 against .05; .662 .586 .014 … against .125; .221 .195 … against .375; against .45
    assert label_map(weighted).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_the_sigmoid_comes_after_the_up_sampling():
    # logits 8 and -4 give 8, 5, -1, -4: sigmoid .269 at the third pixel; a mix of sigmoids would give .263 there
    scores = full_scores(one_window(torch.tensor([[[8.0, -4.0]]]), (1, 4)), (1, 4))
    torch.testing.assert_close(scores[0, 0], torch.tensor([8.0, 5.0, -1.0, -4.0]).sigmoid())


def test_overlapping_windows_are_averaged_as_scores():
    # two windows of 1 x 2 on a canvas of 3: the middle has the mean of .9 and .5, not the sigmoid of a mean logit
    logits = torch.tensor([[[[0.0, logit(0.9)]]], [[[0.0, 0.0]]]])
    boxes = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]])
    prediction = SigmoidPrediction(logits, boxes, (1, 3), (1, 3))
    torch.testing.assert_close(full_scores(prediction, (1, 3))[0, 0], torch.tensor([0.5, 0.7, 0.5]))


def test_a_score_below_zero_wins_where_its_gate_is_nearest_zero():
    # all scores are below zero (penalty .9): the row with the smaller factor is the better one
    logits = torch.full((2, 2, 2), logit(0.2))
    for trust, winner in [(4.0, 1), (-4.0, 0)]:
        prediction = one_window(
            logits,
            (9, 9),
            penalty=torch.full((2,), 0.9),
            trust=torch.full((1, 2, 2), trust),
            gate=torch.tensor([1, -1], dtype=torch.int8),
        )
        assert label_map(prediction).unique().tolist() == [winner]


def test_ties_go_to_the_lowest_class():
    logits = torch.zeros(4, 3, 3)
    trust, gate = torch.zeros(1, 3, 3), torch.tensor([1, -1, 1, -1])
    for prediction in (one_window(logits, (5, 7)), one_window(logits, (5, 7), trust=trust, gate=gate)):
        assert label_map(prediction).unique().tolist() == [0]
        assert label_map(prediction, None, torch.tensor([3, 2, 1, 2]), 4).unique().tolist() == [1]


def test_one_class_is_everywhere():
    prediction = one_window(torch.randn(1, 3, 4), (70, 80), penalty=torch.tensor([0.5]))
    assert label_map(prediction).unique().tolist() == [0]


@st.composite
def predictions(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    canvas = (draw(st.integers(1, 150)), draw(st.integers(1, 150)))
    window = [draw(st.sampled_from([side, max(1, side // 2), max(1, side - 3)])) for side in canvas]
    tops, lefts = (starts(canvas[i], window[i], draw(st.integers(max(1, window[i] // 2), window[i]))) for i in (0, 1))
    boxes = torch.tensor([[top, left, *window] for top in tops for left in lefts])
    shape = (len(boxes), draw(st.integers(1, 9)), draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    logits = torch.randn(shape, generator=generator) * draw(st.sampled_from([0.1, 2.0, 8.0]))
    size = draw(st.sampled_from([canvas, (draw(st.integers(1, 150)), draw(st.integers(1, 150)))]))
    prediction = SigmoidPrediction(logits, boxes, canvas, size)
    if draw(st.booleans()):
        penalty = torch.randint(0, 2, shape[1:2], generator=generator) * draw(st.sampled_from([0.1, 0.9]))
        prediction = replace(prediction, penalty=penalty)
    if draw(st.booleans()):
        trust = torch.randn(shape[0], *shape[2:], generator=generator) * 3
        gate = torch.randint(-1, 2, shape[1:2], generator=generator).to(torch.int8)
        prediction = replace(prediction, trust=trust, gate=gate)
    return prediction


def starts(length, window, step):
    return [*range(0, length - window, step), length - window]


def straight_classes(scores, readout, class_of_row, num_classes):
    """Scores of K classes, (K, H, W), and of all rows: penalty, candidates, the best row of each class."""
    bias = torch.zeros(num_classes)
    bias[list(readout.seen_ids)] -= readout.seen_penalty
    if readout.candidates is not None:
        bias[[k for k in range(num_classes) if k not in readout.candidates]] = -torch.inf
    rows = scores + bias[class_of_row][:, None, None]
    best = [rows[class_of_row == k] for k in range(num_classes)]
    return torch.stack([r.amax(0) if len(r) else torch.full(rows.shape[1:], -torch.inf) for r in best]), rows


def check_against_straight(prediction, readout, class_of_row, num_classes):
    found = label_map(prediction, readout, class_of_row, num_classes)
    assert found.dtype == torch.int32 and tuple(found.shape) == tuple(prediction.size)
    classes, rows = straight_classes(straight_scores(prediction), readout, class_of_row, num_classes)
    expected, clear = classes.argmax(0), torch.ones(prediction.size, dtype=torch.bool)
    if num_classes > 1:
        best = classes.topk(2, 0).values
        clear = best[0] - best[1] > CLEAR
    if readout.threshold is not None:
        probability = (rows.double() * readout.softmax_scale).softmax(0).amax(0)
        expected[probability < readout.threshold] = readout.background
        clear &= (probability - readout.threshold).abs() > 1e-4
    assert (found == expected)[clear].all()


@settings(max_examples=150, deadline=None)
@given(predictions(), st.data())
def test_equals_the_straightforward_form(prediction, data):
    num_rows = prediction.logits.shape[1]
    num_classes = data.draw(st.integers(1, num_rows))
    class_of_row = torch.tensor(data.draw(st.permutations([i % num_classes for i in range(num_rows)])))
    ids = st.lists(st.integers(0, num_classes - 1), min_size=1, unique=True).map(tuple)
    readout = Readout(
        candidates=data.draw(st.none() | ids),
        seen_penalty=data.draw(st.sampled_from([0.0, 0.1, 0.6])),
        seen_ids=data.draw(ids),
        **data.draw(st.sampled_from([{}, {"softmax_scale": 9.0, "threshold": 0.5, "background": 0}])),
    )
    check_against_straight(prediction, readout, class_of_row, num_classes)


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(1, 40), st.integers(1, 40))
def test_all_scores_equal_the_straightforward_form(prediction, height, width):
    expected = straight_scores(prediction, (height, width))
    torch.testing.assert_close(full_scores(prediction, (height, width)), expected, rtol=1e-5, atol=2e-6)


def smooth(num, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, num, rows // 4 + 2, columns // 4 + 2, generator=generator) * 4 - 3
    return torch.nn.functional.interpolate(coarse, (rows, columns), mode="bicubic")[0]


def test_smooth_scores_leave_rows_out_and_stay_equal():
    gate = torch.arange(60) % 3 - 1
    prediction = one_window(
        smooth(60, 20, 25, 1), (320, 400), penalty=(gate < 0) * 0.1, trust=smooth(1, 20, 25, 2), gate=gate
    )
    for made in (replace(prediction, trust=None, gate=None), prediction, replace(prediction, size=(200, 333))):
        expected, best = straight_labels(made), straight_scores(made).topk(2, 0).values
        assert (label_map(made) == expected)[best[0] - best[1] > CLEAR].all()


def test_several_readouts_of_one_prediction_equal_one_by_one():
    prediction = one_window(smooth(8, 9, 11, 3), (140, 90), trust=smooth(1, 9, 11, 4), gate=torch.arange(8) % 2 * 2 - 1)
    readouts = [
        Readout(),
        Readout(candidates=(5, 6, 7)),
        Readout(seen_penalty=0.4, seen_ids=(0, 1, 2, 3, 4)),
        Readout(softmax_scale=9.0, threshold=0.3, background=0),
    ]
    together = label_maps(prediction, readouts)
    for readout, found in zip(readouts, together, strict=True):
        assert torch.equal(found, label_map(prediction, readout))
    assert set(together[1].unique().tolist()) <= {5, 6, 7}
    assert not torch.equal(together[0], together[2])


def test_half_precision_logits_are_read_in_float32():
    half = one_window(
        torch.randn(5, 6, 7).bfloat16(), (50, 60), trust=torch.randn(1, 6, 7).bfloat16(), gate=torch.ones(5)
    )
    full = replace(half, logits=half.logits.float(), trust=half.trust.float())
    assert torch.equal(label_map(half), label_map(full))


def test_reading_changes_no_logits():
    # a grid of the window's size is not up-sampled: the samples themselves go through the sigmoid
    prediction = one_window(torch.randn(5, 6, 7), trust=torch.randn(1, 6, 7), gate=torch.ones(5))
    logits, trust = prediction.logits.clone(), prediction.trust.clone()
    first = full_scores(prediction, (6, 7))
    label_map(prediction)
    assert torch.equal(prediction.logits, logits) and torch.equal(prediction.trust, trust)
    assert torch.equal(full_scores(prediction, (6, 7)), first)


@pytest.mark.parametrize("where", ["logits", "trust", "penalty"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_numbers_are_refused(where, bad):
    parts = {"logits": torch.zeros(1, 2, 3, 3), "trust": torch.zeros(1, 3, 3), "penalty": torch.zeros(2)}
    parts[where].view(-1)[1] = bad
    boxes = torch.tensor([[0, 0, 9, 9]])
    with pytest.raises(OvsegError, match="NaN or infinite"):
        label_map(SigmoidPrediction(boxes=boxes, canvas=(9, 9), size=(9, 9), gate=torch.ones(2), **parts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalty": torch.zeros(3)}, r"penalty must be \(2,\) for 2 rows of scores, but got \(3,\)"),
        ({"gate": torch.zeros(2, 1)}, r"gate must be \(2,\)"),
        ({"gate": torch.tensor([0, 2])}, r"gate must hold -1, 0 and 1, but got \[0, 2\]"),
        ({"boxes": torch.zeros(2, 4)}, r"boxes must be \(1, 4\) for 1 windows"),
        ({"boxes": torch.tensor([[0, 0, 9, 10]])}, "leaves the canvas of 9"),
        ({"boxes": torch.tensor([[0, 0, 9, 8]])}, "do not cover the canvas of 9"),
    ],
)
def test_shapes_must_fit(change, message):
    prediction = one_window(torch.zeros(2, 3, 3), (9, 9), trust=torch.zeros(1, 3, 3), gate=torch.ones(2))
    with pytest.raises(ShapeError, match=message):
        label_map(replace(prediction, **change))


def tiled(num_rows, size, device="cpu"):
    """Four overlapping windows on a canvas of 220 x 180, every weighting."""
    generator = torch.Generator().manual_seed(4)
    boxes = torch.tensor([[0, 0, 120, 100], [0, 80, 120, 100], [100, 0, 120, 100], [100, 80, 120, 100]])
    gate = torch.arange(num_rows) % 3 - 1
    logits, trust = torch.randn(4, num_rows, 12, 10, generator=generator), torch.randn(4, 12, 10, generator=generator)
    parts = [part.to(device) for part in (0.1 * (gate < 0), trust, gate.to(torch.int8))]
    return SigmoidPrediction(logits.to(device), boxes, (220, 180), size, *parts)


@pytest.mark.parametrize("size", [(220, 180), (400, 300)])
def test_scores_at_full_size_never_exist(size):
    readouts = [Readout(), Readout(softmax_scale=0.1, threshold=0.5, background=0)]  # the second leaves no row out
    with LargestTensor() as largest:
        label_maps(tiled(200, size), readouts)
    assert largest.numbers < 200 * size[0] * size[1] / 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; run `pytest -m gpu` where there is one")
@pytest.mark.parametrize("size", [(220, 180), (400, 300)])
def test_gpu_gives_the_label_map_of_the_cpu(size):
    readouts = [Readout(), Readout(seen_penalty=0.1, seen_ids=(2, 5)), Readout(candidates=(1, 2, 3))]
    on_cpu, on_gpu = label_maps(tiled(30, size), readouts), label_maps(tiled(30, size, "cuda"), readouts)
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        assert found.is_cuda and (found.cpu() != expected).float().mean() < 1e-4
    scores = full_scores(tiled(30, size, "cuda"), size).cpu()
    torch.testing.assert_close(scores, full_scores(tiled(30, size), size), rtol=1e-5, atol=2e-6)
