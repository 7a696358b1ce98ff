"""Segment Anything with small random networks of the real classes: against the library's own pipeline, and by rule."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.proposals.point_grid import point_grid
from ovseg_cli.core.proposals.sam import Sam, SamConfig
from ovseg_cli.core.proposals.sam_network import Encoded
from ovseg_cli.core.reporter import Silent

FAMILIES = ["tiny-sam", "tiny-sam2", "tiny-sam3"]
ALL = {"predicted_iou": -99.0, "stability": 0.0, "box_iou": 1.0, "points_per_side": 4}


def make(model: str = "tiny-sam", **values: object) -> Sam:
    return Sam(SamConfig(model=model, weights="random", **values))  # type: ignore[arg-type]


def picture(height: int = 72, width: int = 100, seed: int = 0) -> Tensor:
    """Smooth blobs, so that masks have edges."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].byte()


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("size", [(72, 100), (100, 72), (128, 128), (9, 31)])
def test_masks_have_the_pictures_size_and_falling_scores(model: str, size: tuple[int, int]):
    proposals = make(model, **ALL).generate(picture(*size))
    assert proposals.size == size and proposals.masks.shape[1:] == size and proposals.masks.dtype == torch.bool
    assert 0 < len(proposals) <= 3 * 16
    assert proposals.masks.flatten(1).any(1).all()
    assert proposals.scores.tolist() == sorted(proposals.scores.tolist(), reverse=True)


def _pipeline_masks(sam: Sam, image: Tensor, **settings: object) -> tuple[np.ndarray, Tensor]:
    """The library's own mask generation with the same network."""
    from PIL import Image
    from transformers import pipeline

    network = sam.network
    generator = pipeline(
        "mask-generation", model=network.module, image_processor=network.processor, device="cpu", framework=None
    )
    out = generator(Image.fromarray(image.permute(1, 2, 0).numpy()), points_per_batch=8, **settings)
    return np.stack([np.asarray(m) for m in out["masks"]]), out["scores"]


# The library scales points by the long side alone, which is right for SAM's padded input; SAM 2 and SAM 3 squash, so
# only square pictures agree there.
@pytest.mark.parametrize(("model", "size"), [("tiny-sam", (72, 100)), ("tiny-sam2", (90, 90)), ("tiny-sam3", (90, 90))])
@pytest.mark.parametrize("thresholds", [(-9.0, 0.0), (0.3, 0.5)])
def test_equals_the_librarys_own_pipeline(model: str, size: tuple[int, int], thresholds: tuple[float, float]):
    image = picture(*size)
    sam = make(model, predicted_iou=thresholds[0], stability=thresholds[1], points_per_side=5, stability_offset=0.1)
    ours = sam.generate(image)
    masks, scores = _pipeline_masks(
        sam,
        image,
        points_per_crop=5,
        pred_iou_thresh=thresholds[0] if thresholds[0] > 0 else 0,
        stability_score_thresh=thresholds[1],
        stability_score_offset=0.1,
        crops_nms_thresh=0.7,
    )
    assert len(ours) == len(masks) > 0
    torch.testing.assert_close(ours.scores, scores.float(), rtol=1e-5, atol=1e-5)
    # the library reads the PIL picture, we the tensor; resampling may flip single pixels
    assert (ours.masks.numpy() != masks).mean() < 1e-3


@pytest.mark.parametrize("model", FAMILIES)
def test_points_land_where_the_library_puts_them(model: str):
    """The processor of a checkpoint scales points by itself; both axes of an oblong picture."""
    sam, image = make(model, **ALL), picture(60, 120)
    encoded = sam.network.encode(image)
    points = torch.tensor([[0.25, 0.5], [0.9, 0.1]])
    seen: list[Tensor] = []
    handle = sam.network.module.prompt_encoder.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(kwargs["input_points"]), with_kwargs=True
    )
    sam.network.decode(encoded, points)
    handle.remove()
    side = sam.network.module.config.prompt_encoder_config.image_size
    if model == "tiny-sam":  # long side becomes the input's side
        expected = points * torch.tensor([side, side / 2])
    else:  # squashed to a square
        expected = points * side
    torch.testing.assert_close(seen[0][0, :, 0], expected)


def test_the_picture_is_encoded_once(monkeypatch: pytest.MonkeyPatch):
    sam = make("tiny-sam", **ALL, points_per_batch=3)
    calls = []
    encode = type(sam.network.module).get_image_embeddings
    monkeypatch.setattr(
        type(sam.network.module), "get_image_embeddings", lambda self, x: (calls.append(1), encode(self, x))[1]
    )
    sam.generate(picture())
    assert len(calls) == 1


@pytest.mark.parametrize("model", FAMILIES)
def test_batches_of_points_change_nothing(model: str):
    image = picture()
    one, many = (make(model, **ALL, points_per_batch=n).generate(image) for n in (16, 3))
    torch.testing.assert_close(one.scores, many.scores, rtol=1e-5, atol=1e-5)
    assert (one.masks != many.masks).float().mean() < 1e-3


def test_chunks_at_full_size_change_nothing(monkeypatch: pytest.MonkeyPatch):
    from ovseg_cli.core.proposals import sam_network

    image, sam = picture(), make("tiny-sam2", **ALL)
    whole = sam.generate(image)
    monkeypatch.setattr(sam_network, "_UPSAMPLED", 1)
    assert torch.equal(sam.generate(image).masks, whole.masks)


def test_thresholds_drop_masks():
    image = picture()
    everything = make("tiny-sam", **ALL).generate(image)
    sure = make("tiny-sam", **ALL | {"predicted_iou": 0.5}).generate(image)
    assert 0 < len(sure) < len(everything) and (sure.scores > 0.5).all()
    assert torch.equal(sure.masks, everything.masks[everything.scores > 0.5])
    stable = make("tiny-sam", **ALL | {"stability": 0.3, "stability_offset": 0.05}).generate(image)
    assert 0 < len(stable) < len(everything)
    assert len(make("tiny-sam", **ALL, max_masks=5).generate(image)) == 5


@pytest.mark.parametrize("layers", [0, 1])
def test_no_mask_may_pass(layers: int):
    proposals = make(predicted_iou=99.0, crop_layers=layers, min_area=10).generate(picture())
    assert len(proposals) == 0 and proposals.masks.shape == (0, 72, 100) and proposals.scores.dtype == torch.float32


class Discs:
    """A network that answers each point with one disc around it: an independent check of all geometry.

    Its input is padded as SAM's is: the long side fills 64 pixels, masks have a grid of 32.
    """

    def encode(self, image: Tensor) -> Encoded:
        height, width = image.shape[1:]
        inside = (round(64 * height / max(height, width)), round(64 * width / max(height, width)))
        return Encoded(None, (height, width), inside, (64, 64))

    def decode(self, encoded: Encoded, points: Tensor) -> tuple[Tensor, Tensor]:
        middle = points * torch.tensor([encoded.inside[1], encoded.inside[0]]) / 2
        y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
        distance = ((x - middle[:, 0, None, None]) ** 2 + (y - middle[:, 1, None, None]) ** 2).sqrt()
        return (2.5 - distance) * 10, torch.linspace(0.9, 0.95, len(points))


def centres(masks: Tensor) -> Tensor:
    """Return (N, 2) x, y of the centres of masks, in pixels."""
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in masks.shape[1:]), indexing="ij")
    area = masks.sum((1, 2))
    return torch.stack([(masks * x).sum((1, 2)) / area, (masks * y).sum((1, 2)) / area], 1)


@pytest.mark.parametrize("size", [(100, 200), (200, 100), (120, 120)])
def test_masks_lie_where_their_points_are(size: tuple[int, int]):
    sam = make("tiny-sam", points_per_side=4, points_per_batch=5, stability=0.5)
    sam.network = Discs()  # type: ignore[assignment]
    found = centres(sam.generate(picture(*size)).masks)
    expected = point_grid(4) * torch.tensor([size[1], size[0]])
    assert len(found) == 16
    assert (torch.cdist(expected, found).min(1).values < 1).all()


def test_crops_ask_at_their_own_points_and_leave_out_what_their_edges_cut():
    sam = make("tiny-sam", points_per_side=4, crop_layers=1, crop_overlap=0.0, stability=0.5, crop_points_divisor=2)
    sam.network = Discs()  # type: ignore[assignment]
    found = centres(sam.generate(picture(160, 160)).masks)
    whole = point_grid(4) * 160  # cells of 40
    crops = torch.cat([point_grid(2) * 80 + torch.tensor([x, y]) for x in (0.0, 80.0) for y in (0.0, 80.0)])
    assert torch.equal(crops.sort(0).values, whole.sort(0).values)  # the same places, with discs of half the size
    # discs of the crops reach to 20 - 6.25 pixels from the crop's edge: near an inner edge they count as cut off
    inner = ((crops > 40) & (crops < 120)).any(1)
    assert len(found) == 16 + int((~inner).sum())


def test_small_crops_win_over_the_whole_picture():
    sam, boxes = make("tiny-sam", crop_layers=1), torch.tensor([[0, 0, 9, 9], [0, 0, 9, 9]]).float()
    masks = torch.ones(2, 20, 20, dtype=torch.bool)
    masks[1, 0, 0] = False
    parts = iter(
        [
            (masks[:1], boxes[:1], torch.tensor([0.9]), torch.tensor([1 / 400])),
            (masks[1:], boxes[1:], torch.tensor([0.5]), torch.tensor([1 / 100])),
        ]
    )
    sam._crops = lambda size: [(0, (0, 0, 20, 20)), (1, (0, 0, 10, 10))]  # type: ignore[method-assign]
    sam._crop = lambda image, layer, crop: next(parts)  # type: ignore[method-assign,assignment]
    proposals = sam.generate(torch.zeros(3, 20, 20, dtype=torch.uint8))
    assert torch.equal(proposals.masks, masks[1:]) and proposals.scores.tolist() == [0.5]


def test_smaller_crops_rank_higher():
    sam = make("tiny-sam", points_per_side=2, stability=0.5)
    sam.network = Discs()  # type: ignore[assignment]
    ranks = [sam._crop(picture(160, 160), n, crop)[3] for n, crop in ((0, (0, 0, 160, 160)), (1, (0, 0, 80, 80)))]
    assert len(ranks[0]) and len(ranks[1]) and ranks[0].max() < ranks[1].min()


def test_min_area_removes_holes_and_islands_and_what_became_double():
    sam = make("tiny-sam", min_area=3)
    masks = torch.zeros(3, 12, 12, dtype=torch.bool)
    masks[0, 2:9, 2:9] = True
    masks[1] = masks[0]
    masks[1, 5, 5] = False  # a hole: filled, then equal to the first, which needed no change
    masks[2, 0:2, 0:2], masks[2, 11, 11] = True, True  # an island of one pixel
    from ovseg_cli.core.proposals.mask_filters import mask_boxes

    tidy, scores = sam._tidy(masks, mask_boxes(masks), torch.tensor([0.4, 0.9, 0.5]))
    assert sorted(round(s, 3) for s in scores.tolist()) == [0.4, 0.5]
    assert sorted(int(m.sum()) for m in tidy) == [4, 49]


@pytest.mark.parametrize("model", FAMILIES)
def test_a_saved_folder_gives_the_same_masks(model: str, tmp_path: Path):
    sam = make(model, **ALL)
    sam.network.module.save_pretrained(tmp_path)
    sam.network.processor.save_pretrained(tmp_path)
    again = Sam(SamConfig(model=str(tmp_path), **ALL))
    assert again.weights == sam.weights and again.digest != sam.digest  # settings name another model
    assert torch.equal(again.generate(picture()).masks, sam.generate(picture()).masks)
    (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
    (tmp_path / "processor_config.json").unlink(missing_ok=True)
    bare = Sam(SamConfig(model=str(tmp_path), **ALL))
    assert torch.equal(bare.generate(picture()).masks, sam.generate(picture()).masks)


def test_random_weights_are_repeatable_and_said():
    class Says(Silent):
        said: list[str] = []

        def say(self, message: str) -> None:
            self.said.append(message)

    one = Sam(SamConfig(model="tiny-sam", weights="random"), reporter=Says())
    assert one.digest == make().digest
    assert any("mean nothing" in s for s in Says.said)


@pytest.mark.parametrize(
    ("values", "error", "message", "mend"),
    [
        ({"model": "sam-vit-hug"}, UsageError, "unknown SAM model", "sam-vit-huge"),
        ({"model": "tiny-sam"}, UsageError, "never trained", "weights=random"),
        ({"model": "tiny-sam", "weights": "openai"}, UsageError, "'published' or 'random'", "model=FOLDER"),
        ({"model": "./nowhere"}, MachineError, "no such folder", "path"),
    ],
)
def test_wrong_settings_are_answered(values: dict, error: type, message: str, mend: str):
    with pytest.raises(error, match=message) as caught:
        Sam(SamConfig(**values))
    assert mend in (caught.value.mend or "")


def test_a_folder_of_another_kind_is_refused(tmp_path: Path):
    from ovseg_cli.core.proposals.tiny_models import TINY

    TINY["tiny-mask2former"]().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="'mask2former', not a Segment Anything"):
        Sam(SamConfig(model=str(tmp_path), weights="random"))


def test_broken_folders_are_answered(tmp_path: Path):
    module = make().network.module
    with pytest.raises(MachineError, match=r"no config\.json"):
        Sam(SamConfig(model=str(tmp_path)))
    module.config.save_pretrained(tmp_path)
    with pytest.raises(MachineError, match=r"no model\.safetensors"):
        Sam(SamConfig(model=str(tmp_path)))
    module.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MachineError, match="cannot be read"):
        Sam(SamConfig(model=str(tmp_path)))
    from safetensors.torch import load, save_file

    state = load(whole)
    del state["mask_decoder.iou_prediction_head.proj_in.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(MachineError, match="1 tensors of the model are not in its weights"):
        Sam(SamConfig(model=str(tmp_path)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(MachineError, match="no configuration"):
        Sam(SamConfig(model=str(tmp_path)))


def test_a_type_that_the_library_does_not_know_asks_for_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ovseg_cli.core.proposals import sam_network

    (tmp_path / "config.json").write_text('{"model_type": "sam9"}')
    monkeypatch.setattr(sam_network, "KINDS", ("sam9",))
    with pytest.raises(UsageError, match="does not know a model of type 'sam9'") as caught:
        Sam(SamConfig(model=str(tmp_path), weights="random"))
    assert "pip install --upgrade transformers" in (caught.value.mend or "")


def test_absent_weights_say_which_files_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MachineError, match="facebook/sam-vit-huge are not on this machine") as caught:
        Sam(SamConfig())
    mend = caught.value.mend or ""
    assert "hf download facebook/sam-vit-huge" in mend and "HF_HOME" in mend and "--set model=FOLDER" in mend
