"""Class lists and rows of text features out of order: which class is where, shifted, permuted, or something else."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.conversion.class_order import check_rows, difference, shift_of

OWN = ["sky", "dining table", "cat", "dog", "grass", "road"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (["sky", "diningtable", "Cat", "dog", "grass", "road"], None),
        (["background", *OWN], "shifted by 1, it begins with 'background' instead of 'sky'"),
        (OWN[1:], "shifted by -1, it begins with 'dining table' instead of 'sky'"),
        ([OWN[-1], *OWN[:-1]], "shifted by 1, it begins with 'road' instead of 'sky'"),
        (
            ["sky", "cat", "dining table", "dog", "grass", "road"],
            "permuted, class 1 is 'cat' instead of 'dining table'",
        ),
        (["dog", "cat"], "another list of 2 instead of 6 classes, it lacks 'sky'"),
        ([*OWN[:5], "car"], "another list of 6 instead of 6 classes, it has 'car' and lacks 'road'"),
        ([*OWN, "cat"], "another list of 7 instead of 6 classes, it names a class twice"),
    ],
)
def test_lists_by_hand(found, said):
    assert difference(found, OWN) == said


@given(st.permutations(OWN))
def test_a_permuted_list_is_never_taken_for_the_own(found):
    said = difference(found, OWN)
    assert (said is None) == (found == OWN)
    assert said is None or said.startswith(("shifted", "permuted"))


@given(st.integers(4, 40), st.integers(-5, 5))
def test_shift_is_found_as_it_was_made(count, shift):
    """Place i of a list that was pushed back by n holds the class of i - n, or nothing."""
    places = [i - shift if 0 <= i - shift < count else None for i in range(count)]
    found = shift_of(places)
    if 2 * abs(shift) <= count and count - abs(shift) >= 2:
        assert found == shift
    else:
        assert found == 0


def test_places_that_agree_on_nothing_are_no_shift():
    assert shift_of([1, 0]) == shift_of([None, None]) == shift_of([]) == shift_of([3, 1, 0, 2]) == 0


@pytest.fixture(scope="module")
def real(parity):
    """ViT-B/16's features of VOC's 20 names in one sentence and COCO-Stuff's 171 in 15, as shipped with ZegCLIP."""
    folder = parity / "tagclip"
    if not (folder / "clip_vitb16_text_reference.npz").is_file():
        pytest.skip("no recorded text features")
    names = json.loads((folder / "class_splits.json").read_text())
    with np.load(folder / "clip_vitb16_text_reference.npz") as found:
        rows = {key: torch.from_numpy(found[key]) for key in found.files}
    return rows["voc12_single"], names["voc20"]["classes"], rows["coco_multi"], names["coco_stuff171"]["classes"]


def test_real_features_in_order_pass(real):
    voc, names, coco, coco_names = real
    assert check_rows(voc, voc.float(), names) is None
    assert check_rows(coco, coco.float(), coco_names) is None


def test_other_sentences_are_no_other_order(real):
    """What VOC and COCO-Stuff share, in one sentence and in 15: every row is still nearest to its own name."""
    voc, names, coco, coco_names = real
    shared = [name for name in names if name in coco_names]
    assert len(shared) > 10
    one = voc[[names.index(name) for name in shared]]
    many = coco[[coco_names.index(name) for name in shared]]
    assert check_rows(one, many.float(), shared) is None
    assert "shifted by 1" in check_rows(one.roll(1, 0), many.float(), shared)


def test_real_features_out_of_order_are_named(real):
    voc, names, coco, _ = real
    own = voc.float()
    said = check_rows(voc.roll(1, 0), own, names)
    first, last = names[0], names[-1]
    assert said == f"row 0 is nearest to class 19 ('{last}'), not to 0 ('{first}'): the rows are shifted by 1"
    swapped = voc.clone()
    swapped[[3, 4]] = swapped[[4, 3]]
    said = check_rows(swapped, own, names)
    assert said.startswith(f"row 3 is nearest to class 4 ('{names[4]}'), not to 3 ('{names[3]}')")
    assert said.endswith("the rows are permuted, 2 of 20 stand elsewhere")
    background = torch.cat([coco[-1:], voc])
    assert "there are 21 rows for 20 classes" in check_rows(background, own, names)
    assert "shifted by 1" in check_rows(background, own, names)
    assert check_rows(voc[:15], own, names) == "there are 15 rows for 20 classes"
    assert "no features of these names" in check_rows(coco[:20], own, names)


def test_noise_is_no_permutation(real):
    _, _, coco, names = real
    noise = torch.randn(coco.shape, generator=torch.Generator().manual_seed(0))
    assert "no features of these names" in check_rows(noise, coco.float(), names)


def test_one_class_is_in_order():
    assert check_rows(torch.ones(1, 4), torch.ones(1, 4), ["cat"]) is None
