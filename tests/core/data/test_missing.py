"""Fewer pictures than the official release: refused, accepted on purpose, and said by every result."""

from pathlib import Path

import pytest

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.prepare import accepted_missing, missing_pictures, prepare
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.errors import DataError
from tests.core.data.handmade import SPEC, folders_of, make_source, make_spec


def spec_of(tmp_path: Path, train: int) -> Spec:
    return make_spec(tmp_path, SPEC.replace("train = { images = 2 }", f"train = {{ images = {train} }}"))


def test_missing_pictures_are_counted_by_subset(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, train=5)
    assert missing_pictures(spec, {"train": 2, "val": 1}) == {"train": (2, 5)}
    assert missing_pictures(spec, {"train": 7, "val": 1}) == {}


@pytest.mark.parametrize("check_only", [False, True], ids=["prepare", "check"])
def test_missing_pictures_need_to_be_allowed(tmp_path: Path, check_only: bool) -> None:
    spec, source = spec_of(tmp_path, train=5), make_source(tmp_path / "source")
    with pytest.raises(DataError, match="3 pictures of the official mini are not there") as caught:
        prepare(spec, folders_of(tmp_path), source, check_only=check_only, allow_missing=2)
    assert "--allow-missing 3" in str(caught.value.mend) and "train 2 of 5" in caught.value.message
    assert not (folders_of(tmp_path).data / "mini").exists(), "nothing is made before it is allowed"


def test_allowed_missing_pictures_are_remembered(tmp_path: Path) -> None:
    spec, folders = spec_of(tmp_path, train=5), folders_of(tmp_path)
    assert accepted_missing(folders, "mini") == 0
    prepare(spec, folders, make_source(tmp_path / "source"), allow_missing=3)
    assert accepted_missing(folders, "mini") == 3
    assert PreparedData.open(spec, folders).shortfall == {"train": (2, 5)}
    assert prepare(spec, folders, allow_missing=accepted_missing(folders, "mini")).made == 0
