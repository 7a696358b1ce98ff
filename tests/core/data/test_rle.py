"""COCO run lengths: by hand, against pycocotools, and everything that must be refused before it is decoded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from ovseg_cli.core.data import rle
from ovseg_cli.core.data.rle import RleError

# 3 x 3, read down the columns: 0 1 1 | 1 0 0 | 0 0 1: runs of 1 zero, 3 ones, 4 zeros, 1 one.
# From the fourth run on the difference to the run two before is written: 1, 3, 4, 1 - 3 = -2.
# In groups of 5 bits plus 48: chr(49), chr(51), chr(52), and -2 = 11110 with its sign bit set: chr(30 + 48) = N.
BY_HAND = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 1]], bool)
CODE = b"134N"


def test_three_by_three_mask_is_coded_as_worked_out_by_hand() -> None:
    assert rle.encode(BY_HAND[None]) == [CODE]
    assert (rle.decode([CODE], (3, 3))[0] == BY_HAND).all()
    assert rle.areas([CODE], (3, 3)).tolist() == [4]


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))))
def test_any_masks_come_back_as_pycocotools_reads_them(masks: np.ndarray) -> None:
    codes = rle.encode(masks)
    size = masks.shape[1:]
    decoded = rle.decode(codes, size)
    theirs = coco.decode([{"size": list(size), "counts": code} for code in codes]).transpose(2, 0, 1)
    assert (decoded == masks).all() and (theirs == masks).all()
    assert decoded.dtype == bool and decoded.flags.c_contiguous
    assert rle.areas(codes, size).tolist() == masks.sum((1, 2)).tolist()


def test_long_runs_need_several_groups_of_bits() -> None:
    mask = np.zeros((1, 300, 400), bool)
    mask[0, 7:280, 3:390] = True
    assert (rle.decode(rle.encode(mask), (300, 400)) == mask).all()


def test_no_masks_at_all() -> None:
    assert rle.encode(np.zeros((0, 4, 5), bool)) == []
    assert rle.decode([], (4, 5)).shape == (0, 4, 5)
    assert rle.areas([], (4, 5)).shape == (0,)


def test_written_out_run_lengths_become_the_same_code() -> None:
    assert rle.encode_runs([1, 3, 4, 1], (3, 3)) == CODE


GOOD = rle.encode(np.ones((1, 3, 3), bool))[0]
BROKEN = {
    "runs that overrun": ([rle.encode(np.ones((1, 4, 4), bool))[0]], 0, "overrun the picture: 16 pixels, 3 x 3 has 9"),
    "runs that do not fill": ([GOOD, rle.encode(np.ones((1, 2, 2), bool))[0]], 1, "do not fill the picture: 4 pixels"),
    "a number cut off": ([GOOD, b"P"], 1, "ends within a number"),
    "a foreign character": ([GOOD, b"1 34N"], 1, "no COCO code has"),
    "a character above the range": ([b"1\xff"], 0, "no COCO code has"),
    "nothing": ([GOOD, b""], 1, "empty"),
    "a negative run": ([b"13N9", GOOD], 0, "negative"),
    "a number without end": ([b"o" * 12 + b"0"], 0, "too long"),
    "an overrun beyond 64 bits": ([b"ooooooo0" * 3], 0, "too long"),
}


@pytest.mark.parametrize(("codes", "number", "reason"), BROKEN.values(), ids=BROKEN)
def test_broken_codes_are_refused_and_named(codes: list[bytes], number: int, reason: str) -> None:
    for call in (rle.decode, rle.check, rle.areas):
        with pytest.raises(RleError, match=reason) as caught:
            call(codes, (3, 3))
        assert caught.value.number == number and f"mask {number + 1} " in str(caught.value)


@pytest.mark.parametrize("counts", [[1, 3, 4], [1, 3, 4, 2], [-1, 10], [1.5, 7.5], [True, 8], ["9"]])
def test_written_out_run_lengths_are_checked(counts: list[int]) -> None:
    with pytest.raises(RleError):
        rle.encode_runs(counts, (3, 3))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_arbitrary_bytes_are_refused_or_a_mask(codes: list[bytes]) -> None:
    try:
        masks = rle.decode(codes, (5, 7))
    except RleError:
        return
    assert masks.shape == (len(codes), 5, 7)
