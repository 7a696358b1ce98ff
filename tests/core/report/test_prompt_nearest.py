"""The table of the names nearest to prompts, by hand."""

import numpy as np
import pytest
import torch

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.report.prompt_models import NamedPrompts, require_names
from ovseg_cli.core.report.prompt_nearest import PromptUse, nearest_table

COSINES = torch.tensor([[0.1, 0.9, 0.5, 0.2], [0.7, 0.2, 0.6, 0.1], [0.0, 0.0, 0.0, 1.0]])
NAMED = NamedPrompts(("cat", "dog", "sky", "sea"), COSINES, torch.eye(4))


def use(pixels, masks=None, caption="m", named=NAMED):
    return PromptUse(caption, named, (), np.array(pixels), None if masks is None else np.array(masks))


def test_rows_are_prompts_the_most_used_first():
    table = nearest_table([use([10, 30, 0], [2, 0, 1])], "toy val, 1 picture")
    rows = table.records()
    assert [row["prompt"] for row in rows] == [1, 0, 2]
    assert [rows[0][key] for key in ("name_1", "name_2", "name_3")] == ["cat", "sky", "dog"]
    assert [rows[0][f"cosine_{n}"] for n in (1, 2, 3)] == pytest.approx([0.7, 0.6, 0.2])
    assert [(row["pixels"], row["pixel_count"], row["masks"]) for row in rows] == [(75, 30, 0), (25, 10, 2), (0, 0, 1)]


def test_masks_have_a_column_where_they_were_counted():
    bare = nearest_table([use([1, 1, 1])], "x")
    assert "masks" not in bare.records()[0] and "--proposals" in bare.notes[-1]
    both = nearest_table([use([1, 1, 1]), use([1, 1, 1], [3, 0, 0], caption="n")], "x").records()
    assert [(row["model"], row["masks"]) for row in both[:4]] == [("m", None)] * 3 + [("n", 3)]


def test_few_names_leave_the_other_columns_empty():
    one = NamedPrompts(("cat",), COSINES[:, :1], torch.eye(4)[:1])
    row = nearest_table([use([1, 0, 0], named=one)], "x").records()[0]
    assert row["name_1"] == "cat" and row["name_2"] is None and row["cosine_3"] is None


def test_no_pixel_at_all_is_no_division_by_zero():
    assert nearest_table([use([0, 0, 0])], "x").records()[0]["pixels"] == 0


def test_data_without_names_are_refused():
    require_names("toy", ("cat",))
    with pytest.raises(UsageError, match="sa-1b has no class names"):
        require_names("sa-1b", ())
