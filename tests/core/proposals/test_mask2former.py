"""Mask2Former and MaskFormer with small random networks of the real classes: scores by hand, sizes, soft masks."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.proposals.mask2former import Mask2Former, Mask2FormerConfig, cut_padding

FAMILIES = ["tiny-mask2former", "tiny-maskformer"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def make(model: str = "tiny-mask2former", **values: object) -> Mask2Former:
    """Build one whose processor keeps pictures small."""
    generator = Mask2Former(Mask2FormerConfig(model=model, weights="random", **values))  # type: ignore[arg-type]
    generator.processor.size = type(generator.processor.size)(shortest_edge=64, longest_edge=128)
    return generator


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)).byte()


def stub(generator: Mask2Former, logits: Tensor, objectness: Tensor) -> Mask2Former:
    generator.queries = lambda image: (logits, objectness)  # type: ignore[method-assign]
    return generator


def test_scores_by_hand():
    logits = torch.full((3, 2, 2), -9.0)
    logits[0] = torch.tensor([[0.75, 0.75], [-9.0, -9.0]]).logit().nan_to_num(-9.0)  # two pixels of 0.75
    logits[1, 0, 0] = torch.tensor(0.95).logit()
    generator = stub(make(), logits, torch.tensor([0.8, 0.5, 1.0]))
    proposals = generator.generate(torch.zeros(3, 2, 2, dtype=torch.uint8))
    # 0.8 · 0.75 and 0.5 · 0.95; the third mask is empty and goes, sure as it is
    assert proposals.scores.tolist() == pytest.approx([0.6, 0.475])
    assert proposals.masks.int().tolist() == [[[1, 1], [0, 0]], [[1, 0], [0, 0]]]


def test_soft_masks_hold_probabilities():
    logits = torch.tensor([[[0.2, 0.8], [0.6, 0.4]]]).logit()
    proposals = stub(make(soft=True), logits, torch.ones(1)).generate(torch.zeros(3, 8, 10, dtype=torch.uint8))
    assert proposals.is_soft and proposals.masks.shape == (1, 2, 2) and proposals.size == (8, 10)
    torch.testing.assert_close(proposals.probabilities(), logits.sigmoid(), rtol=0, atol=0.5 / 255 + 1e-6)
    assert proposals.scores.tolist() == pytest.approx([0.7])  # mean of 0.8 and 0.6


def test_no_object_is_the_last_class(family: str):
    generator = make(family)
    linear = generator.model.class_predictor
    linear.weight.data.zero_()
    linear.bias.data = torch.tensor([0.0] * (linear.out_features - 1) + [torch.tensor(3.0).log()])
    _, objectness = generator.queries(picture(64, 64))
    others = linear.out_features - 1
    torch.testing.assert_close(objectness, torch.full_like(objectness, others / (others + 3)))


@pytest.mark.parametrize("size", [(64, 64), (50, 91), (91, 50), (7, 13)])
def test_masks_have_the_pictures_size(family: str, size: tuple[int, int]):
    image = picture(*size)
    proposals = make(family).generate(image)
    assert proposals.masks.shape[1:] == size == proposals.size and proposals.masks.dtype == torch.bool
    assert proposals.scores.tolist() == sorted(proposals.scores.tolist(), reverse=True)
    soft = make(family, soft=True).generate(image)
    assert soft.masks.shape[1] <= size[0] and soft.masks.shape[2] <= size[1] and soft.size == size


def test_masks_equal_the_librarys_own_resizing(family: str):
    """The reference: the library's logits, resized and cut at ½, as its own instance inference does."""
    generator, image = make(family), picture(50, 91)
    inputs = generator.processor(images=image, return_tensors="pt", input_data_format="channels_first")
    with torch.no_grad():
        out = generator.model(**inputs)
    full = torch.nn.functional.interpolate(out.masks_queries_logits, (50, 91), mode="bilinear")[0].sigmoid()
    objectness = 1 - out.class_queries_logits[0].softmax(-1)[:, -1]
    expected = {}
    for probabilities, weight in zip(full, objectness, strict=True):
        inside = probabilities > 0.5
        if inside.any():
            expected[float(weight * probabilities[inside].mean())] = inside
    proposals = generator.generate(image)
    assert proposals.scores.tolist() == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    best = expected[max(expected)]
    assert any(torch.equal(best, mask) for mask in proposals.masks)


def test_padding_is_cut_off():
    logits = torch.arange(8.0).expand(1, 8, 8)
    filled = torch.zeros(32, 32, dtype=torch.int64)
    filled[:16, :24] = 1  # whole cells of 4 pixels: the grid is cut
    torch.testing.assert_close(cut_padding(logits, filled)[:, 1:-1, 1:-1], logits[:, 1:3, 1:5])
    filled[:18] = filled[0]  # 18 pixels of 4 end inside a cell
    assert cut_padding(logits, filled).shape == (1, round(8 * 18 / 32), 6)
    assert torch.equal(cut_padding(logits, torch.ones(32, 32)), logits)


def test_a_padding_processor_gives_masks_of_the_picture_alone():
    generator = make("tiny-mask2former")
    plain = generator.generate(picture(64, 96))
    generator.processor.pad_size = type(generator.processor.size)(height=128, width=128)
    padded = generator.generate(picture(64, 96))
    assert padded.size == plain.size and padded.masks.shape[1:] == (64, 96)


def test_filters_drop_and_count():
    logits = torch.full((4, 10, 10), -9.0)
    for i in range(4):
        logits[i, : i + 1, :5] = 9.0  # 5, 10, 15, 20 pixels
    objectness, image = torch.tensor([0.9, 0.7, 0.5, 0.3]), torch.zeros(3, 10, 10, dtype=torch.uint8)
    areas = {
        key: [int(m.sum()) for m in stub(make(**values), logits, objectness).generate(image).masks]
        for key, values in {
            "all": {},
            "score": {"min_score": 0.45},
            "area": {"min_area": 11},
            "few": {"max_masks": 2},
            "none": {"min_area": 1000},
        }.items()
    }
    assert areas == {"all": [5, 10, 15, 20], "score": [5, 10, 15], "area": [15, 20], "few": [5, 10], "none": []}


def test_chunks_at_full_size_change_nothing(monkeypatch: pytest.MonkeyPatch, family: str):
    from ovseg_cli.core.proposals import mask2former

    generator, image = make(family), picture(40, 60)
    whole = generator.generate(image)
    monkeypatch.setattr(mask2former, "_UPSAMPLED", 1)
    assert torch.equal(generator.generate(image).masks, whole.masks)


def test_a_saved_folder_gives_the_same_masks(family: str, tmp_path: Path):
    generator = make(family)
    generator.model.save_pretrained(tmp_path)
    generator.processor.save_pretrained(tmp_path)
    again = Mask2Former(Mask2FormerConfig(model=str(tmp_path)))
    image = picture(50, 70)
    assert again.weights == generator.weights
    assert torch.equal(again.generate(image).masks, generator.generate(image).masks)


def test_random_weights_are_repeatable(family: str):
    assert make(family).digest == make(family).digest


@pytest.mark.parametrize(
    ("values", "error", "message", "mend"),
    [
        ({"model": "mask2former-swin-tinny-coco-panoptic"}, UsageError, "unknown Mask2Former", "swin-tiny-coco"),
        ({"model": "tiny-maskformer"}, UsageError, "never trained", "weights=random"),
        ({"model": "tiny-sam", "weights": "random"}, UsageError, "unknown Mask2Former model 'tiny-sam'", ""),
        ({"model": "/nowhere/at/all"}, MachineError, "no such folder", "path"),
    ],
)
def test_wrong_settings_are_answered(values: dict, error: type, message: str, mend: str):
    with pytest.raises(error, match=message) as caught:
        Mask2Former(Mask2FormerConfig(**values))
    assert mend in (caught.value.mend or "")


def test_absent_weights_say_which_files_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MachineError, match="facebook/mask2former-swin-large-coco-panoptic are not on") as caught:
        Mask2Former(Mask2FormerConfig())
    assert "hf download facebook/mask2former-swin-large-coco-panoptic" in (caught.value.mend or "")
