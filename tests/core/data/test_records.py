"""Records stay in their file; what memory holds of each picture is where its record begins."""

import tracemalloc
from pathlib import Path

import pytest

from ovseg_cli.core.data.index import Entry, index_path, read_index
from ovseg_cli.core.data.records import read_records, write_records
from ovseg_cli.core.errors import DataError


def entry(stem: str, height: int = 3) -> Entry:
    return Entry(stem, f"images/train/{stem}.png", None, height, 4, image_sha="0" * 32, pixels=[[0, 5], [255, 7]])


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    records = write_records(index_path(tmp_path, "train"), map(entry, "bca"), "key")
    assert list(records) == [entry("b"), entry("c"), entry("a")] and len(records) == 3
    assert list(read_records(tmp_path, "train", "key")) == list(records)
    assert read_index(tmp_path, "train") == {stem: entry(stem) for stem in "bca"}
    assert len(read_records(tmp_path, "train", "another")) == 0 and len(read_records(tmp_path, "val")) == 0


def test_chosen_records_are_written_over_the_file_that_they_come_from(tmp_path: Path) -> None:
    path = index_path(tmp_path, "train")
    records = write_records(path, map(entry, "bca"), "key")
    assert list(write_records(path, records.only(["ä", "a", "b"]), "key")) == [entry("a"), entry("b")]
    assert list(read_records(tmp_path, "train")) == [entry("a"), entry("b")]


def test_added_records_replace_earlier_ones_and_a_cut_off_line_is_none(tmp_path: Path) -> None:
    path = index_path(tmp_path, "train")
    records = write_records(path, map(entry, "aü"), "key")
    with records.adding() as add:
        add(entry("a", height=9))
        add(entry("z"))
    assert [(e.stem, e.height) for e in records] == [("a", 9), ("ü", 3), ("z", 3)]
    path.write_bytes(path.read_bytes()[:-1])  # killed while the last line was written
    assert [(e.stem, e.height) for e in read_records(tmp_path, "train")] == [("a", 9), ("ü", 3)]


def test_damaged_records_are_an_error_of_the_data(tmp_path: Path) -> None:
    path = index_path(tmp_path, "train")
    records = write_records(path, map(entry, "ab"), "key")
    path.write_bytes(path.read_bytes()[:60] + b"#" * 20)
    with pytest.raises(DataError, match="index is damaged"):
        list(records)


@pytest.mark.parametrize("line", ["{}", "7", "[1]", '"a"'])
def test_line_that_is_no_record_is_an_error_of_the_data(tmp_path: Path, line: str) -> None:
    path = index_path(tmp_path, "train")
    write_records(path, map(entry, "ab"), "key")
    path.write_text(path.read_text() + f"{line}\n")
    with pytest.raises(DataError, match="index is damaged"):
        read_records(tmp_path, "train")


def test_memory_of_many_records_is_small(tmp_path: Path) -> None:
    """Two thousand records take some 1500 bytes each as objects; where each begins takes about 150."""
    records = write_records(index_path(tmp_path, "train"), (entry(f"{i:012d}") for i in range(2000)), "key")
    tracemalloc.start()
    places = read_records(tmp_path, "train")
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(places) == len(records) and held / 2000 < 400
