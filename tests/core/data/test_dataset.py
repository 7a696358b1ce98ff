import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from ovseg_cli.core.data.dataset import PreparedData, SegmentationData, describe
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import parse_data
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.runtime import Folders
from tests.core.data import handmade
from tests.core.data.handmade import TRAIN_IDS, WITHOUT_DOG, folders_of, make_source, make_spec


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return make_spec(tmp_path)


@pytest.fixture
def folders(tmp_path: Path, spec: Spec) -> Folders:
    prepare(spec, folders_of(tmp_path), make_source(tmp_path / "source"))
    return folders_of(tmp_path)


def test_samples_are_the_pictures_and_their_train_ids(spec: Spec, folders: Folders) -> None:
    data = PreparedData.open(spec, folders).subset("train")
    assert len(data) == 2 and data.names == ["a", "b"] and data.sizes == [(2, 3), (2, 3)]
    assert data.has_labels and data.captions == [None, None]
    for sample in data:
        assert sample.image.dtype == torch.uint8 and sample.label.dtype == torch.int64
        assert sample.image.permute(1, 2, 0).tolist() == handmade.picture(f"train/{sample.name}").tolist()
        assert sample.label.tolist() == TRAIN_IDS[f"train/{sample.name}"]


def test_training_labels_hold_no_unseen_class(spec: Spec, folders: Folders) -> None:
    data = PreparedData.open(spec, folders).subset("train", spec.split("no-dog"))
    assert data.folder == "labels-no-dog"
    assert [sample.label.tolist() for sample in data] == [WITHOUT_DOG["train/a"], WITHOUT_DOG["train/b"]]


def test_split_of_the_users_own_is_masked_when_read(tmp_path: Path, spec: Spec, folders: Folders) -> None:
    choice = parse_data(str(tmp_path / "mini.toml"), unseen="cat")
    data = PreparedData.open(spec, folders).subset("train", choice.split)
    assert data.folder == "labels"
    assert data[0].label.tolist() == [[0, 0, 255], [0, 255, 255]]


def test_stale_seen_only_labels_are_never_used(tmp_path: Path, folders: Folders) -> None:
    """The same split id with another set of unseen classes must not read the old files."""
    changed = make_spec(tmp_path / "new", handmade.SPEC.replace('["dog"]', '["cat"]'))
    data = PreparedData.open(changed, folders).subset("train", changed.split("no-dog"))
    assert data.folder == "labels"
    assert data[0].label.tolist() == [[0, 0, 255], [0, 255, 255]]


def test_selection_keeps_order_and_has_its_own_fingerprint(spec: Spec, folders: Folders) -> None:
    data = PreparedData.open(spec, folders).subset("train")
    chosen = data.select([1, 0])
    assert chosen.names == ["b", "a"] and chosen.fingerprint != data.fingerprint
    assert data.select(range(2)).fingerprint == data.fingerprint
    with pytest.raises(UsageError, match="has 2 pictures"):
        data.select([2])


def test_loader_and_pickle_work(spec: Spec, folders: Folders) -> None:
    data = PreparedData.open(spec, folders).subset("train")
    loaded = list(DataLoader(data, batch_size=None))
    assert [sample.name for sample in loaded] == ["a", "b"]
    copy: SegmentationData = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[1].image, data[1].image)


def test_unprepared_data_says_how_to_prepare(tmp_path: Path, spec: Spec) -> None:
    with pytest.raises(DataError) as caught:
        PreparedData.open(spec, folders_of(tmp_path))
    assert "'mini': it is not prepared" in str(caught.value) and "mini.toml --source DIR" in str(caught.value)


def test_unknown_subset_offers_the_nearest(spec: Spec, folders: Folders) -> None:
    with pytest.raises(UsageError, match="unknown subset of mini 'trian'. Did you mean 'train'?"):
        PreparedData.open(spec, folders).subset("trian")


def test_changed_spec_asks_for_preparing_again(tmp_path: Path, folders: Folders) -> None:
    changed = make_spec(tmp_path / "new", handmade.SPEC.replace("raw_id = 30", "raw_id = 31"))
    with pytest.raises(DataError, match=r"spec of 'mini' has changed.*ovseg prepare \S*mini\.toml$"):
        PreparedData.open(changed, folders)


@pytest.mark.parametrize("name", ["images/train/a.png", "labels/train/b.png", "labels-no-dog/train/a.png"])
def test_missing_file_is_named_when_the_subset_is_opened(spec: Spec, folders: Folders, name: str) -> None:
    (folders.data / "mini" / name).unlink()
    with pytest.raises(DataError, match=f"{name}: this .* is missing.*ovseg prepare mini"):
        PreparedData.open(spec, folders).subset("train", spec.split("no-dog") if "no-dog" in name else None)


def test_moved_source_is_named(tmp_path: Path, spec: Spec, folders: Folders) -> None:
    shutil.move(tmp_path / "source", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"a link to .*source/images/train/a\.png, which is gone"):
        PreparedData.open(spec, folders).subset("train")


def test_label_of_another_length_is_noticed(spec: Spec, folders: Folders) -> None:
    path = folders.data / "mini/labels/train/a.png"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="a.png: this label has changed"):
        PreparedData.open(spec, folders).subset("train")


def test_picture_of_another_size_is_noticed_when_read(tmp_path: Path, spec: Spec, folders: Folders) -> None:
    data = PreparedData.open(spec, folders).subset("train")
    handmade.write_png(tmp_path / "source/images/train/a.png", handmade.picture("a", 5, 4))
    with pytest.raises(DataError, match="4 x 5 pixels, but 3 x 2 when it was prepared"):
        data[0]


def change(path: Path, **values: object) -> None:
    document = json.loads(path.read_text()) | values
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"schema": 99}, "not a manifest of version 1"),
        ({"fingerprint": "x"}, "contradicts itself"),
        ({"subsets": 3}, "not a manifest"),
    ],
)
def test_foreign_manifest_is_refused(spec: Spec, folders: Folders, values: dict, words: str) -> None:
    change(folders.data / "mini" / "manifest.json", **values)
    with pytest.raises(DataError, match=words) as caught:
        PreparedData.open(spec, folders)
    assert "ovseg prepare " in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\x00"])
def test_damaged_manifest_is_refused_and_listed_as_broken(spec: Spec, folders: Folders, text: str) -> None:
    (folders.data / "mini" / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        PreparedData.open(spec, folders)
    assert describe(folders, "mini").state == "broken"


def test_index_that_does_not_belong_is_refused(spec: Spec, folders: Folders) -> None:
    index = folders.data / "mini/index/train.jsonl"
    index.write_text(index.read_text().replace('"stem":"a"', '"stem":"z"'))
    with pytest.raises(DataError, match="index of subset 'train' does not belong"):
        PreparedData.open(spec, folders).subset("train")


def test_damaged_index_is_refused_and_mended_by_preparing(spec: Spec, folders: Folders) -> None:
    (folders.data / "mini/index/train.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match="index is damaged"):
        PreparedData.open(spec, folders).subset("train")
    assert prepare(spec, folders).made == 2
    assert len(PreparedData.open(spec, folders).subset("train")) == 2


def test_data_of_a_users_own_spec_opens_by_name(spec: Spec, folders: Folders) -> None:
    data = PreparedData.open_name("mini", folders)
    assert data.spec == spec.typed_as("mini") and data.fingerprint == PreparedData.open(spec, folders).fingerprint


def test_description_counts_without_reading_pictures(tmp_path: Path, folders: Folders) -> None:
    shutil.rmtree(tmp_path / "source")
    summary = describe(folders, "mini")
    assert (summary.state, summary.images, summary.expected) == (
        "prepared",
        {"train": 2, "val": 1},
        {"train": 2, "val": 1},
    )
    assert describe(folders, "nothing").state == "missing"


def test_preparing_and_listing_import_no_torch() -> None:
    code = "import sys; from ovseg_cli.core.data import dataset, prepare, palette; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
