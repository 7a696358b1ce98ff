"""Learned prompts and the names nearest to them, by hand; what a table says of the pixels that they share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ovseg_cli.core.report.prompt_clusters import Clusters, clusters_table
from ovseg_cli.core.report.prompt_models import NamedPrompts, class_cosines
from ovseg_cli.core.types import TextFeatures

COSINES = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.6]])
NAMED = NamedPrompts(("cat", "dog", "sky"), COSINES, torch.eye(3))


def test_nearest_names_of_hand_made_cosines():
    assert [name for name, _ in NAMED.nearest(0)] == ["dog", "sky", "cat"]
    assert NAMED.nearest(1, 1) == [("cat", pytest.approx(0.7))]
    assert NAMED.classes == [1, 0] and NAMED.labels == ["0: dog", "1: cat"]


def test_prompts_without_any_class_name_have_numbers():
    bare = NamedPrompts((), torch.zeros(2, 0), torch.zeros(0, 3))
    assert bare.labels == ["prompt 0", "prompt 1"] and bare.classes == [] and bare.nearest(0) == []


def test_class_with_synonyms_is_as_near_as_its_nearest():
    rows = torch.eye(3)  # names 0 and 2 are synonyms of class 1
    text = TextFeatures(rows, torch.tensor([1, 0, 1]), 2)
    prompts = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])
    assert class_cosines(prompts, text).tolist() == [pytest.approx([0.0, 0.8]), pytest.approx([1.0, 0.0])]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 3), min_size=4, max_size=9), st.integers(0, 99))
def test_cosines_of_classes_are_those_of_a_loop(prompts, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = [0, 1, 2, 3, *rows]
    text = TextFeatures(F.normalize(torch.randn(len(rows), 5, generator=generator), dim=1), torch.tensor(rows), 4)
    own = F.normalize(torch.randn(prompts, 5, generator=generator), dim=1)
    expected = [
        [max(float(own[p] @ text.features[i]) for i, row in enumerate(rows) if row == c) for c in range(4)]
        for p in range(prompts)
    ]
    torch.testing.assert_close(class_cosines(own, text), torch.tensor(expected))


def clusters(*maps, caption="m", named=NAMED):
    return Clusters(caption, tuple(np.array(m) for m in maps), named)


def test_table_says_how_many_prompts_share_the_pixels_and_how_evenly():
    even = clusters([[0, 1]], [[1, 0]])
    alone = clusters([[1, 1]], [[1, 1]], caption="n")
    uneven = clusters([[0, 0, 0, 1]], caption="o")
    assert even.pixels.tolist() == [2, 2] and alone.pixels.tolist() == [0, 4]
    rows = clusters_table([even, alone, uneven], "toy val, 2 pictures").records()
    assert [(r["used"], r["effective"], r["largest"], r["names"]) for r in rows[:2]] == [
        (2, pytest.approx(2), 50.0, 2), (1, pytest.approx(1), 100.0, 1),
    ]  # fmt: skip
    assert rows[2]["effective"] == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_table_counts_no_names_where_there_are_none():
    bare = clusters([[0, 1]], named=NamedPrompts((), torch.zeros(2, 0), torch.zeros(0, 3)))
    assert clusters_table([bare], "x").records()[0]["names"] is None
