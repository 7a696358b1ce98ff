import torch

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.data.toy_captions import CLASS_NAMES, thing_id
from ovseg_cli.core.training import toy_factors
from ovseg_cli.core.training.toy_clip import ToyClipTask
from ovseg_cli.core.training.toy_clip_config import ToyClipConfig


def tiny() -> ClipModel:
    return ToyClipTask(ToyClipConfig(vision_width=32, vision_layers=3, vision_head_width=16, embed_dim=16)).as_clip()


def test_grid_masks_by_hand():
    # 4 x 4 pixels on a 2 x 2 grid: class 3 fills one cell, half of another and a quarter of a third; class 5 one pixel
    label = torch.tensor([[3, 3, 3, 0], [3, 3, 3, 0], [3, 0, 0, 0], [0, 0, 0, 5]])
    masks = toy_factors.grid_masks(label, torch.tensor([3, 5]), 2)
    assert masks[0].tolist() == [[True, True], [False, False]]
    assert masks[1].tolist() == [[False, False], [False, True]]  # too small for a half: its best cell counts


def test_factors_are_counted_apart():
    hits = {name: [] for name in toy_factors.FACTORS}
    toy_factors._note(hits, 0, 0)  # stuff, right
    toy_factors._note(hits, thing_id(1, 2), thing_id(1, 3))  # color right, pattern wrong
    toy_factors._note(hits, thing_id(1, 2), 4)  # a toy called stuff: both wrong
    assert hits == {
        "all": [True, False, False],
        "stuff": [True],
        "things": [False, False],
        "color": [True, False],
        "pattern": [False, False],
    }


def test_untrained_clip_is_near_chance():
    found = toy_factors.factor_accuracy(tiny(), 64, 20)
    assert found["all"] < 6 / len(CLASS_NAMES)
    assert 0 <= toy_factors.retrieval(tiny(), 64, 20) < 0.4
