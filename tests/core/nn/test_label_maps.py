"""Label maps made block by block, against the plain path that makes all scores at full size."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ovseg_cli.core.errors import OvsegError, ShapeError, UsageError
from ovseg_cli.core.nn.label_maps import full_scores, label_map, label_maps
from ovseg_cli.core.types import DensePrediction, MaskPrediction, Readout, WindowPrediction

TOLERANCE = 1e-5  # of the largest score; below it the two best are a tie in float32


def plain_scores(prediction, size=None):
    """All scores at full size, (M, H, W), as the published codes make them."""
    size = size or prediction.size
    if isinstance(prediction, DensePrediction):
        return bilinear(prediction.logits, size)
    if isinstance(prediction, MaskPrediction):
        return torch.einsum("nm,nhw->mhw", prediction.class_scores.float(), bilinear(prediction.masks, size))
    total = torch.zeros(prediction.logits.shape[1], *prediction.canvas)
    seen = torch.zeros(prediction.canvas)
    for window, (top, left, height, width) in zip(prediction.logits, prediction.boxes.tolist(), strict=True):
        total[:, top : top + height, left : left + width] += bilinear(window, (height, width))
        seen[top : top + height, left : left + width] += 1
    return bilinear(total / seen, size)


def bilinear(maps, size):
    return F.interpolate(maps[None].float(), size, mode="bilinear", align_corners=False)[0]


def plain_classes(scores, readout, class_of_row, num_classes):
    """Scores of K classes at full size: penalty, candidates, the best row of each class."""
    scores = scores.clone()
    for row, class_id in enumerate(class_of_row.tolist()):
        if class_id in readout.seen_ids:
            scores[row] -= readout.seen_penalty
        if readout.candidates is not None and class_id not in readout.candidates:
            scores[row] = -torch.inf
    classes = torch.full((num_classes, *scores.shape[1:]), -torch.inf)
    for row, class_id in enumerate(class_of_row.tolist()):
        classes[class_id] = torch.maximum(classes[class_id], scores[row])
    return classes, scores


def plain_label_map(scores, readout, class_of_row, num_classes):
    classes, rows = plain_classes(scores, readout, class_of_row, num_classes)
    ids = classes.argmax(0)
    if readout.threshold is not None:
        probability = (rows.double() * readout.softmax_scale).softmax(0).amax(0)
        ids[probability < readout.threshold] = readout.background
    return ids


def check_against_plain(prediction, readout, class_of_row, num_classes):
    found = label_map(prediction, readout, class_of_row, num_classes)
    assert found.dtype == torch.int32 and tuple(found.shape) == tuple(prediction.size)
    scores = plain_scores(prediction)
    expected = plain_label_map(scores, readout, class_of_row, num_classes)
    best = plain_classes(scores, readout, class_of_row, num_classes)[0].topk(min(2, num_classes), 0).values
    clear = torch.ones_like(expected, dtype=torch.bool)
    if num_classes > 1:
        clear = best[0] - best[1] > TOLERANCE * scores.abs().max()
    if readout.threshold is not None:
        rows = plain_classes(scores, readout, class_of_row, num_classes)[1]
        probability = (rows.double() * readout.softmax_scale).softmax(0).amax(0)
        clear &= (probability - readout.threshold).abs() > 1e-4
    assert (found == expected)[clear].all()


def test_hand_worked_row():
    # two pixels become four: weights of the right one are 0, 1/4, 3/4, 1. Class 0: 8 8→0 …, class 1: 3 everywhere
    logits = torch.tensor([[[8.0, 0.0]], [[3.0, 3.0]]])
    # class 0 gives 8, 6, 2, 0
    assert label_map(DensePrediction(logits, (1, 4))).tolist() == [[0, 0, 1, 1]]


def test_ties_go_to_the_lowest_class():
    logits = torch.zeros(4, 3, 3)
    assert label_map(DensePrediction(logits, (5, 7))).unique().tolist() == [0]
    rows = torch.tensor([3, 2, 1, 2])
    assert label_map(DensePrediction(logits, (5, 7)), None, rows, 4).unique().tolist() == [1]


@st.composite
def predictions(draw):
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    num_rows = draw(st.integers(1, 9))
    size = (draw(st.integers(1, 150)), draw(st.integers(1, 150)))
    grid = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    scale = draw(st.sampled_from([0.01, 1.0, 100.0]))
    kind = draw(st.sampled_from(["dense", "masks", "windows"]))
    if kind == "dense":
        return DensePrediction(torch.randn(num_rows, *grid, generator=generator) * scale, size)
    if kind == "masks":
        num_masks = draw(st.integers(1, 6))
        masks = torch.rand(num_masks, *grid, generator=generator)
        masks[:, : grid[0] // 2] *= torch.randint(0, 2, (num_masks, 1, 1), generator=generator)
        return MaskPrediction(torch.randn(num_masks, num_rows, generator=generator), masks, size)
    canvas = (draw(st.integers(2, 60)), draw(st.integers(2, 60)))
    window = (draw(st.integers(1, canvas[0])), draw(st.integers(1, canvas[1])))
    tops, lefts = (starts(canvas[i], window[i], draw(st.integers(1, window[i]))) for i in (0, 1))
    boxes = torch.tensor([[top, left, *window] for top in tops for left in lefts])[:400]
    if len(boxes) < len(tops) * len(lefts):
        boxes = torch.tensor([[0, 0, *canvas]])
    logits = torch.randn(len(boxes), num_rows, draw(st.integers(1, 5)), draw(st.integers(1, 5)), generator=generator)
    return WindowPrediction(logits * scale, boxes, canvas, size)


def starts(length, window, step):
    found = list(range(0, length - window, step))
    return [*found, length - window]


@settings(max_examples=120, deadline=None)
@given(predictions(), st.data())
def test_equals_the_plain_path(prediction, data):
    scores = prediction.class_scores if isinstance(prediction, MaskPrediction) else prediction.logits
    num_rows = scores.shape[1] if scores.ndim != 3 else scores.shape[0]
    num_classes = data.draw(st.integers(1, num_rows))
    class_of_row = torch.tensor(data.draw(st.permutations([i % num_classes for i in range(num_rows)])))
    ids = st.lists(st.integers(0, num_classes - 1), min_size=1, unique=True).map(tuple)
    readout = Readout(
        candidates=data.draw(st.none() | ids),
        seen_penalty=data.draw(st.sampled_from([0.0, 0.1, 2.5])),
        seen_ids=data.draw(ids),
        **data.draw(st.sampled_from([{}, {"softmax_scale": 3.0, "threshold": 0.5, "background": 0}])),
    )
    check_against_plain(prediction, readout, class_of_row, num_classes)


@settings(max_examples=30, deadline=None)
@given(predictions(), st.integers(1, 40), st.integers(1, 40))
def test_full_scores_equal_the_plain_path(prediction, height, width):
    expected = plain_scores(prediction, (height, width))
    torch.testing.assert_close(
        full_scores(prediction, (height, width)), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
    )


@pytest.mark.parametrize(
    ("grid", "size"), [((32, 43), (512, 683)), ((90, 20), (45, 300)), ((7, 7), (7, 7)), ((1, 1), (130, 129))]
)
def test_well_separated_scores_are_exactly_equal(grid, size):
    generator = torch.Generator().manual_seed(5)
    steps = torch.stack([torch.randperm(30, generator=generator) for _ in range(grid[0] * grid[1])], 1)
    logits = steps.view(30, *grid).float() ** 2  # the best is far ahead of the second but for crossing lines
    prediction = DensePrediction(logits, size)
    scores = plain_scores(prediction)
    best = scores.topk(2, 0).values
    differs = label_map(prediction) != scores.argmax(0)
    assert not differs[best[0] - best[1] > 1e-3].any()


def test_smooth_scores_leave_rows_out_and_stay_equal():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 60, 4, 5, generator=generator) * 3
    logits = F.interpolate(coarse, (24, 30), mode="bicubic")[0]
    check_against_plain(DensePrediction(logits, (384, 480)), Readout(), torch.arange(60), 60)


def test_several_readouts_of_one_prediction_equal_one_by_one():
    generator = torch.Generator().manual_seed(2)
    prediction = DensePrediction(torch.randn(8, 9, 11, generator=generator), (140, 90))
    readouts = [
        Readout(),
        Readout(candidates=(5, 6, 7)),
        Readout(seen_penalty=0.4, seen_ids=(0, 1, 2, 3, 4)),
        Readout(softmax_scale=4.0, threshold=0.6, background=0),
    ]
    together = label_maps(prediction, readouts)
    for readout, found in zip(readouts, together, strict=True):
        assert torch.equal(found, label_map(prediction, readout))
    assert set(together[1].unique().tolist()) <= {5, 6, 7}
    assert not torch.equal(together[0], together[2])


def test_rows_of_a_class_compete_one_by_one():
    logits = torch.tensor([[[1.0]], [[4.0]], [[3.0]], [[3.5]]])
    # classes 1, 0, 2, 2: the best row is row 1, class 0; without it row 3, class 2
    rows = torch.tensor([1, 0, 2, 2])
    assert label_map(DensePrediction(logits, (2, 2)), Readout(), rows, 3).unique().tolist() == [0]
    assert label_map(DensePrediction(logits, (2, 2)), Readout(candidates=(1, 2)), rows, 3).unique().tolist() == [2]


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers that any tensor held."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


@pytest.mark.parametrize("kind", ["dense", "masks", "windows"])
def test_scores_at_full_size_never_exist(kind):
    generator = torch.Generator().manual_seed(4)
    num_rows, size = 200, (400, 300)
    grids = torch.randn(4, num_rows, 12, 10, generator=generator)
    boxes = torch.tensor([[0, 0, 120, 100], [0, 80, 120, 100], [100, 0, 120, 100], [100, 80, 120, 100]])
    prediction = {
        "dense": DensePrediction(grids[0], size),
        "masks": MaskPrediction(torch.rand(30, num_rows, generator=generator), torch.rand(30, 50, 40), size),
        "windows": WindowPrediction(grids, boxes, (220, 180), size),
    }[kind]
    readouts = [Readout(), Readout(softmax_scale=0.1, threshold=0.5, background=0)]  # the second leaves no row out
    with LargestTensor() as largest:
        label_maps(prediction, readouts)
    assert largest.numbers < num_rows * size[0] * size[1] / 10


def test_threshold_turns_unsure_pixels_into_background():
    logits = torch.tensor([[[0.0, 0.0]], [[9.0, 0.2]], [[0.0, 0.0]]])
    readout = Readout(softmax_scale=1.0, threshold=0.9, background=2)
    assert label_map(DensePrediction(logits, (1, 2)), readout).tolist() == [[1, 2]]


def test_half_precision_scores_are_read_in_float32():
    logits = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    found = label_map(DensePrediction(logits, (50, 60)))
    assert torch.equal(found, label_map(DensePrediction(logits.float(), (50, 60))))


def test_autocast_and_coarse_products_around_change_nothing():
    prediction = DensePrediction(torch.randn(9, 6, 7, generator=torch.Generator().manual_seed(6)), (150, 160))
    expected, precision, threads = full_scores(prediction, (99, 98)), "medium", torch.get_num_threads()
    ids = label_map(prediction)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(full_scores(prediction, (99, 98)), expected) and torch.equal(label_map(prediction), ids)
        assert torch.get_float32_matmul_precision() == precision and torch.get_num_threads() == threads
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_numbers_are_refused(bad):
    logits = torch.zeros(2, 3, 3)
    logits[1, 2, 2] = bad
    with pytest.raises(OvsegError, match="NaN or infinite"):
        label_map(DensePrediction(logits, (9, 9)))


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (Readout(candidates=()), "candidates is empty"),
        (Readout(candidates=(0, 7)), "candidate id 7 is not one of the 2 classes"),
        (Readout(seen_ids=(-1,), seen_penalty=0.1), "seen id -1"),
        (Readout(threshold=0.1, background=0), "needs the scale"),
        (Readout(threshold=0.1, softmax_scale=40.0), "id of the background"),
    ],
)
def test_a_readout_that_cannot_be_is_refused(readout, message):
    with pytest.raises(UsageError, match=message):
        label_map(DensePrediction(torch.zeros(2, 3, 3), (9, 9)), readout)


def test_rows_and_classes_must_fit():
    with pytest.raises(ShapeError, match="2 rows of scores, class_of_row has 3"):
        label_map(DensePrediction(torch.zeros(2, 3, 3), (9, 9)), Readout(), torch.arange(3), 3)
    with pytest.raises(ShapeError, match="ids from 0 to 0"):
        label_map(DensePrediction(torch.zeros(2, 3, 3), (9, 9)), Readout(), torch.tensor([0, 1]), 1)


def test_windows_must_form_a_grid_that_covers_the_canvas():
    logits = torch.zeros(1, 2, 3, 3)
    boxes = torch.tensor([[0, 0, 4, 4], [0, 1, 4, 4], [1, 0, 3, 4]])
    with pytest.raises(ShapeError, match="3 windows do not form a grid of 2 x 2"):
        label_map(WindowPrediction(torch.zeros(3, 2, 3, 3), boxes, (4, 5), (9, 9)))
    with pytest.raises(ShapeError, match="do not cover"):
        label_map(WindowPrediction(logits, torch.tensor([[0, 0, 4, 4]]), (4, 5), (9, 9)))
    with pytest.raises(ShapeError, match="leaves the canvas"):
        label_map(WindowPrediction(logits, torch.tensor([[0, 1, 4, 5]]), (4, 5), (9, 9)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; run `pytest -m gpu` where there is one")
@pytest.mark.parametrize("kind", ["dense", "masks", "windows"])
def test_gpu_gives_the_label_map_of_the_cpu(kind):
    generator = torch.Generator().manual_seed(7)
    grids, size = torch.randn(4, 30, 12, 10, generator=generator), (400, 300)
    boxes = torch.tensor([[0, 0, 120, 100], [0, 80, 120, 100], [100, 0, 120, 100], [100, 80, 120, 100]])
    masks, class_scores = torch.rand(6, 40, 30, generator=generator), torch.rand(6, 30, generator=generator)

    def made(device):
        return {
            "dense": DensePrediction(grids[0].to(device), size),
            "masks": MaskPrediction(class_scores.to(device), masks.to(device), size),
            "windows": WindowPrediction(grids.to(device), boxes.to(device), (220, 180), size),
        }[kind]

    readouts = [
        Readout(),
        Readout(candidates=(1, 2, 3), seen_penalty=0.1, seen_ids=(2,)),
        Readout(softmax_scale=4.0, threshold=0.3, background=0),
    ]
    rows = torch.arange(30).flip(0)
    for on_cpu, on_gpu in zip(
        label_maps(made("cpu"), readouts, rows), label_maps(made("cuda"), readouts, rows.cuda()), strict=True
    ):
        assert on_gpu.is_cuda and (on_gpu.cpu() != on_cpu).float().mean() < 1e-4
    torch.testing.assert_close(full_scores(made("cuda"), size).cpu(), full_scores(made("cpu"), size))
