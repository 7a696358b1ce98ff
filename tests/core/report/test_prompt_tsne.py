"""Prompts and names in a plane: what is near stays near, the same on every call; the table and the figure."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.report import prompt_tsne
from ovseg_cli.core.report.prompt_models import NamedPrompts
from ovseg_cli.core.report.prompt_tsne import Moved, moves_table, place
from ovseg_cli.core.report.prompt_tsne_figure import draw_plane

NAMES = ("cat", "dog", "sky")


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_prompts_stand_beside_the_names_that_they_are_near_to():
    pytest.importorskip("sklearn")
    names = torch.eye(12)[:6]
    first = F.normalize(torch.eye(12)[6:] + 0.02 * unit(6, 12), dim=1)
    learned = F.normalize(names + 0.02 * unit(6, 12, seed=1), dim=1)
    plane = place(names, first, learned)
    distances = np.linalg.norm(plane.learned[:, None] - plane.names[None], axis=2)
    assert distances.argmin(1).tolist() == list(range(6))
    again = place(names, first, learned)
    assert np.array_equal(plane.learned, again.learned) and plane.settings == again.settings
    assert plane.settings["perplexity"] == pytest.approx(17 / 3) and plane.settings["random_state"] == 0


@pytest.mark.parametrize(("names", "prompts"), [(1, 2), (2, 2), (60, 40)])
def test_few_and_many_points_are_placed(names, prompts):
    pytest.importorskip("sklearn")
    same = unit(prompts, 8)
    plane = place(unit(names, 8, seed=1), same, same)  # untrained: each prompt where it began
    assert plane.names.shape == (names, 2) and plane.first.shape == plane.learned.shape == (prompts, 2)
    assert np.isfinite(plane.learned).all() and plane.settings["perplexity"] <= 30


def test_without_scikit_learn_it_says_so(monkeypatch):
    monkeypatch.setattr(prompt_tsne, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="needs scikit-learn") as caught:
        prompt_tsne.check_installed()
    assert caught.value.mend == "pip install scikit-learn"


def test_table_says_where_a_prompt_began_and_is():
    first = NamedPrompts(NAMES, torch.tensor([[0.9, 0.1, 0.2]]), torch.eye(3))
    learned = NamedPrompts(NAMES, torch.tensor([[0.3, 0.8, 0.2]]), torch.eye(3))
    table = moves_table([Moved("m", first, learned, torch.tensor([0.5]))], "toy")
    (row,) = table.records()
    assert (row["began"], row["nearest"], row["kept"]) == ("cat", "dog", 0.5)
    assert row["began_cosine"] == pytest.approx(0.9) and row["cosine"] == pytest.approx(0.8)


@pytest.mark.parametrize("prompts", [3, 101])
def test_figure_has_a_panel_for_each_state(tmp_path, prompts):
    generator = np.random.default_rng(0)
    names, first, learned = (generator.normal(size=(count, 2)) for count in (3, prompts, prompts))
    draw_plane(names, (first, learned), NAMES, tmp_path / "a.png", "title", "below")
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    blue, orange = ((drawn[..., 2] - drawn[..., 0] > 90), (drawn[..., 0] - drawn[..., 2] > 90))
    half = drawn.shape[1] // 2
    assert blue[:, :half].any() and not blue[:, half:].any()
    assert orange[:, half:].any() and not orange[:, :half].any()


def test_points_at_one_place_are_drawn(tmp_path):
    same = np.zeros((2, 2))
    draw_plane(same, (same, same), NAMES[:2], tmp_path / "a.png", "title", "below")
    assert (tmp_path / "a.png").is_file()
