"""A data set of the user's own, from the shortest spec to its bare name; and what shipped specs say without files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ovseg_cli.core.data.commands import prepare_command
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.find import find_data, own_names
from ovseg_cli.core.data.prepare import plan, prepare
from ovseg_cli.core.data.specs import load_spec, spec_folder, spec_names
from ovseg_cli.core.errors import DataError, OvsegError, UsageError
from ovseg_cli.core.reporter import Silent
from tests.core.data.handmade import SPEC, folders_of, make_source, make_spec, picture, write_png

SHORTEST = """
name = "mine"
classes = ["grass", "cat", "dog"]

[[layouts]]
[layouts.subsets]
train = { images = "images/train/{stem}.png", labels = "labels/train/{stem}.png" }
val = { images = "images/val/{stem}.png", labels = "labels/val/{stem}.png" }
"""
IDS = {"train/a": [[0, 0, 1], [0, 255, 1]], "train/b": [[2, 2, 2], [0, 0, 0]], "val/c": [[1, 2, 0], [255, 255, 255]]}


class Listener(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `mine.toml` and `photos`, and the process in it."""
    (tmp_path / "mine.toml").write_text(SHORTEST)
    for key, ids in IDS.items():
        write_png(tmp_path / "photos/images" / f"{key}.png", picture(key))
        write_png(tmp_path / "photos/labels" / f"{key}.png", ids)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_shortest_spec_is_prepared_and_known_by_its_name(own: Path) -> None:
    folders = folders_of(own)
    with pytest.raises(UsageError, match="unknown data set 'mine'"):
        find_data("mine", None, folders)
    prepare(load_spec("mine.toml"), folders, Path("photos"))
    choice = find_data("mine", None, folders)
    assert (choice.label, choice.spec.typed, own_names(folders)) == ("mine", "mine", ["mine"])
    data = PreparedData.open(choice.spec, folders)
    for subset in ("train", "val"):
        part = data.subset(subset)
        labels = {f"{subset}/{name}": part.label(i).tolist() for i, name in enumerate(part.names)}
        assert labels == {key: ids for key, ids in IDS.items() if key.startswith(subset)}
    assert prepare(choice.spec, folders).made == 0
    assert prepare(choice.spec, folders, check_only=True).fingerprint == data.fingerprint


def test_name_begun_but_not_finished_is_known(own: Path) -> None:
    class Stop(Silent):
        def track(self, items, what, total=None):
            yield next(iter(items))
            raise KeyboardInterrupt

    folders = folders_of(own)
    with pytest.raises(KeyboardInterrupt):
        prepare(load_spec("mine.toml"), folders, Path("photos"), Stop())
    spec = find_data("mine", None, folders).spec
    with pytest.raises(DataError, match="not finished.*ovseg prepare mine --source DIR"):
        PreparedData.open(spec, folders)
    assert prepare(spec, folders, Path("photos")).made == 2


def test_near_names_of_own_data_are_offered(own: Path) -> None:
    folders = folders_of(own)
    prepare(load_spec("mine.toml"), folders, Path("photos"))
    with pytest.raises(UsageError, match="unknown data set 'mien'. Did you mean 'mine'"):
        find_data("mien", None, folders)
    with pytest.raises(UsageError, match="Did you mean 'coco-stuff'"):
        find_data("coco-stuf", None, folders)


def test_source_may_be_typed_relative_or_absolute(own: Path) -> None:
    folders, spec = folders_of(own), load_spec("mine.toml")
    assert prepare(spec, folders, Path("photos")).made == 3
    assert prepare(spec, folders).made == 0
    assert prepare(spec, folders, own / "photos").made == 0


def test_spec_without_layout_says_what_to_add(own: Path) -> None:
    (own / "mine.toml").write_text(SHORTEST[: SHORTEST.index("[[layouts]]")])
    with pytest.raises(UsageError, match=r"mine.toml: the spec does not say where the files lie. Add \[\[layouts\]\]"):
        prepare(load_spec("mine.toml"), folders_of(own), Path("photos"))


def test_another_spec_of_the_same_name_is_said(own: Path) -> None:
    folders, reporter = folders_of(own), Listener()
    prepare(load_spec("mine.toml"), folders, Path("photos"), reporter)
    assert not any("another 'mine'" in line for line in reporter.said)
    (own / "mine.toml").write_text(SHORTEST.replace('"cat"', '"lion"'))
    with pytest.raises(DataError, match=r"the spec of 'mine' has changed.*ovseg prepare mine\.toml$"):
        PreparedData.open(load_spec("mine.toml"), folders)
    assert prepare(load_spec("mine.toml"), folders, reporter=reporter).made == 3
    assert any("prepared with another 'mine'" in line for line in reporter.said)


@pytest.mark.parametrize("name", ["camvid", "toy", "voc"])
def test_own_spec_may_not_take_the_name_of_a_shipped_one(tmp_path: Path, name: str) -> None:
    own = make_spec(tmp_path, SPEC.replace('name = "mini"', f'name = "{name}"').replace("LIST", ""))
    with pytest.raises(UsageError, match=rf"'{name}' is the name of a shipped data set.*name = \"{name}-mine\""):
        prepare(own, folders_of(tmp_path), make_source(tmp_path / "source"))
    assert not (tmp_path / "datasets").exists()


def test_copy_of_a_shipped_spec_is_that_data_set(tmp_path: Path) -> None:
    copy = tmp_path / "mine.toml"
    copy.write_bytes((spec_folder() / "toy.toml").read_bytes())
    assert plan(load_spec(copy), folders_of(tmp_path)).name == "toy"


SHIPPED = [name for name in spec_names() if load_spec(name).generator is None]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("place", [None, "empty"])
def test_shipped_spec_says_what_to_fetch(tmp_path: Path, name: str, place: str | None) -> None:
    spec = load_spec(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OvsegError) as caught:
        prepare(spec, folders_of(tmp_path), tmp_path / place if place else None)
    said = str(caught.value)
    for page in {d.page for d in spec.downloads}:
        assert len(said.split(page)) <= 2, "the same page twice"
    assert caught.value.exit_code == 3 and "--source DIR" in said and spec.downloads[0].page in said


def test_command_is_what_the_user_would_type(tmp_path: Path) -> None:
    own = make_spec(tmp_path / "my specs")
    assert prepare_command(load_spec("toy")) == "ovseg prepare toy"
    assert prepare_command(load_spec("voc")) == "ovseg prepare voc-20 --source DIR"
    assert prepare_command(load_spec("voc"), known=True) == "ovseg prepare voc-20"
    assert prepare_command(own, "a b") == f"ovseg prepare '{tmp_path}/my specs/mini.toml' --source 'a b'"


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"")], ids=["gone", "empty"])
def test_broken_file_of_own_data_is_named_with_the_command(own: Path, damage: Callable[[Path], object]) -> None:
    damage(own / "photos/labels/train/a.png")
    with pytest.raises(DataError, match=r"labels/train/a\.png.*ovseg prepare mine\.toml --source .*photos$"):
        prepare(load_spec("mine.toml"), folders_of(own), Path("photos"))
