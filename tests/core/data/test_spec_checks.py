"""Invalid specs are refused with file, key and mend: one row a rule."""

from pathlib import Path

import numpy as np
import pytest

from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import UsageError

GOOD = """
schema = 1
name = "mine"
title = "Mine"
ignore_label = 255
label_dtype = "uint8"
default_split = "one"
classes = [
    { name = "grass", raw_id = 1 },
    { name = "sky", raw_id = 2 },
    { name = "red ball", raw_id = 3 },
]
[encoding]
kind = "label-png"
bits = 8
ignore_raw = [0]
[subsets]
train = { images = 10 }
[[layouts]]
id = "official"
source = "official"
[layouts.subsets.train]
images = "images/{stem}.jpg"
labels = "labels/{stem}.png"
[[class_splits]]
id = "one"
unseen = ["red ball"]
[[class_splits]]
id = "two"
unseen = ["grass"]
val = ["sky"]
[[name_variants]]
id = "paper"
source = "a paper"
kind = "names"
entries = { sky = ["the sky"] }
[preset]
templates = ["a {}"]
"""

# what is replaced, by what, the key, parts of the answer
ROWS = {
    "unknown key": ("title =", "titel =", "titel", ["unknown key 'titel'", "Did you mean 'title'?"]),
    "unknown key of a class": ("raw_id = 2", "rawid = 2", "classes[1].rawid", ["'rawid'", "Did you mean 'raw_id'?"]),
    "unknown key of a split": ("val =", "vall =", "class_splits[1].vall", ["'vall'", "Did you mean 'val'?"]),
    "unknown key in a subset's layout": (
        'labels = "l',
        'label = "l',
        "layouts[0].subsets.train.label",
        ["'label'", "Did you mean 'labels'?"],
    ),
    "unknown key far from all": ("[preset]", "[preset]\nqqq = 1", "preset.qqq", ["'qqq'", "Known: clip, templates"]),
    "missing key": ('name = "mine"\n', "", "name", ["'name' is missing"]),
    "missing raw_id": (", raw_id = 2", "", "classes[1].raw_id", ["class 'sky' has no raw_id"]),
    "wrong type": ("ignore_label = 255", 'ignore_label = "255"', "ignore_label", ["valid integer", "but got '255'"]),
    "number as a flag": ("raw_id = 2", "raw_id = true", "classes[1].raw_id", ["valid integer", "True"]),
    "colour out of range": ("raw_id = 2", "raw_id = 2, color = [0, 0, 256]", "classes[1].color[2]", ["255", "256"]),
    "wrong schema": ("schema = 1", "schema = 2", "schema", ["schema = 2 is not one of: 1"]),
    "wrong word": ('"label-png"', '"label-pgn"', "encoding.kind", ["'label-pgn'", "Did you mean 'label-png'?"]),
    "bad name": ('name = "mine"', 'name = "../mine"', "name", ["'../mine' cannot stand here", "small letters"]),
    "control character": ('"sky", raw', '"s\\u001bky", raw', "classes[1].name", ["cannot stand here", "control"]),
    "blank class name": ('"sky", raw', '"sky ", raw', "classes[1].name", ["'sky ' cannot stand here"]),
    "unseen class that is none": (
        '["grass"]',
        '["gras"]',
        "class_splits[1].unseen[0]",
        ["mine.toml: unseen class 'gras' is not one of the 3 classes. Did you mean 'grass'?"],
    ),
    "unseen class like no other": ('["grass"]', '["zzz"]', "class_splits[1].unseen[0]", ["Known: grass, sky, red"]),
    "duplicate name": ('"sky", raw', '"grass", raw', "classes[1].name", ["class 'grass' stands twice", "classes[0]"]),
    "duplicate raw id": ("raw_id = 2", "raw_id = 1", "classes[1].raw_id", ["raw_id 1 is used by 'grass' and by 'sky'"]),
    "duplicate synonym": ("raw_id = 2", 'raw_id = 2, synonyms = ["a", "a"]', "classes[1].synonyms[1]", ["'a'"]),
    "duplicate split": ('id = "two"', 'id = "one"', "class_splits[1].id", ["id 'one' stands twice"]),
    "duplicate unseen": ('["grass"]', '["grass", "grass"]', "class_splits[1].unseen[1]", ["stands twice in split"]),
    "ignore label is a class": (
        "label = 255",
        "label = 2",
        "ignore_label",
        ["the train id of class 'red ball'", "255"],
    ),
    "dtype too small": ("label = 255", "label = 65535", "label_dtype", ["'uint8' ends at 255", "uint16"]),
    "empty split": ('["grass"]', "[]", "class_splits[1].unseen", ["class split 'two' is empty"]),
    "no class seen": ('["grass"]', '["grass", "red ball"]', "class_splits[1].unseen", ["leaves no class seen"]),
    "unseen and val": ('["grass"]', '["grass", "sky"]', "class_splits[1].val[0]", ["not a partition: 'sky'"]),
    "seen is not the rest": ('val = ["sky"]', 'seen = ["sky"]', "class_splits[1].seen", ["'red ball' is neither"]),
    "seen and unseen": (
        'val = ["sky"]',
        'seen = ["sky", "red ball", "grass"]',
        "class_splits[1].seen[2]",
        ["not a partition: 'grass'"],
    ),
    "split called none": ('id = "two"', 'id = "none"', "class_splits[1].id", ["the word for no split"]),
    "default split": ('split = "one"', 'split = "onne"', "default_split", ["'onne'", "Did you mean 'one'?"]),
    "default variant": ('split = "one"', 'variant = "x"', "default_variant", ["unknown name variant 'x'"]),
    "variant of no class": ("{ sky =", "{ sk =", "name_variants[0].entries.sk", ["'sk' is not one", "'sky'?"]),
    "variant called canonical": ('"paper"', '"canonical"', "name_variants[0].id", ["class names themselves"]),
    "variant without text": ('["the sky"]', "[]", "name_variants[0].entries.sky", ["at least 1 item"]),
    "value ignored and a class": ("[0]", "[0, 3]", "encoding.ignore_raw[1]", ["also class 'red ball'"]),
    "value beyond the bits": ("raw_id = 2", "raw_id = 256", "classes[1].raw_id", ["256 does not fit into 8 bits"]),
    "background without class": ("[0]", '[0]\nelsewhere = "background"', "encoding.elsewhere", ["no background"]),
    "matrix without name": ('kind = "label-png"', 'kind = "mat"', "encoding.variable", ["kind 'mat' needs 'variable'"]),
    "key of another kind": ("bits = 8", 'bits = 8\nrgb_rule = "color"', "encoding.rgb_rule", ["means nothing for"]),
    "ignored colours without colours": (
        "bits = 8",
        "bits = 8\nignore_colors = [[0, 0, 0]]",
        "encoding.ignore_colors",
        ['means nothing without rgb_rule = "color"'],
    ),
    "one JSON for all with a stem": (
        'kind = "label-png"',
        'kind = "coco-instances"',
        "layouts[0].subsets.train.labels",
        ["one file for all pictures, but 'labels/{stem}.png' has {stem}"],
    ),
    "labels without a stem": (
        "labels/{stem}.png",
        "labels.png",
        "layouts[0].subsets.train.labels",
        ["a file a picture"],
    ),
    "panoptic without segments": (
        'kind = "label-png"',
        'kind = "coco-panoptic"',
        "layouts[0].subsets.train.segments",
        ["needs 'segments'"],
    ),
    "segments of another kind": (
        'labels = "l',
        'segments = "s.json"\nlabels = "l',
        "layouts[0].subsets.train.segments",
        ["'segments' means nothing for kind 'label-png'"],
    ),
    "more labels without a stem": (
        'labels = "l',
        'labels_else = ["more"]\nlabels = "l',
        "layouts[0].subsets.train.labels_else[0]",
        ["pattern 'more'"],
    ),
    "a list besides none": (
        'labels = "l',
        'list_also = ["b.txt"]\nlabels = "l',
        "layouts[0].subsets.train.list",
        ["go with a 'list'"],
    ),
    "phases of no list": (
        'labels = "l',
        'list_columns = "json-phase"\nlabels = "l',
        "layouts[0].subsets.train.list",
        ["'json-phase' needs a 'list'"],
    ),
    "raw ids of a layout": (
        '[[class_splits]]\nid = "one"',
        '[layouts.encoding]\nkind = "label-png"\nraw_ids = [1]\n[[class_splits]]\nid = "one"',
        "layouts[0].encoding.raw_ids",
        ["1 raw_ids for 3 classes"],
    ),
    "background beyond classes": (
        "[encoding]",
        '[background]\ntrain_id = 3\nmeaning = "x"\n[encoding]',
        "background.train_id",
        ["3 is not a train id", "0 to 2"],
    ),
    "layout of no subset": ("subsets.train]", "subsets.trian]", "layouts[0].subsets.trian", ["'train'?"]),
    "pattern without stem": ("images/{stem}.jpg", "images/", "layouts[0].subsets.train.images", ["no {stem}"]),
    "path to the outside": ("labels/{stem}", "../{stem}", "layouts[0].subsets.train.labels", ["below the data set"]),
    "absolute path": ("labels/{stem}", "/etc/{stem}", "layouts[0].subsets.train.labels", ["below the data set"]),
    "template without place": ('["a {}"]', '["a"]', "preset.templates[0]", ["needs exactly one {}"]),
    "preset of no method": ("[preset]", "[preset.methods.mskclip]\n[preset]", "preset.methods.mskclip", ["maskclip"]),
    "settings that are no table": (
        "[preset]",
        "[preset.methods.maft]\nby_setting = 3\n[preset]",
        "preset.methods.maft.by_setting",
        ["a table for each setting", "by_setting.SETTING]"],
    ),
    "setting that is no table": (
        "[preset]",
        "[preset.methods.maft]\nby_setting.fast = 3\n[preset]",
        "preset.methods.maft.by_setting.fast",
        ["no table of settings"],
    ),
    "setting that chooses itself": (
        "[preset]",
        '[preset.methods.maft.by_setting.fast]\nsetting = "slow"\n[preset]',
        "preset.methods.maft.by_setting.fast.setting",
        ["chosen by this very value"],
    ),
    "unknown generator": ("schema = 1", 'schema = 1\ngenerator = "toysg"', "generator", ["'toyseg'?"]),
    "masks with classes": ("schema = 1", 'schema = 1\ntask = "class-agnostic-masks"', "classes", ["have no classes"]),
    "no classes": (GOOD[GOOD.index("classes =") : GOOD.index("[encoding]")], "", "classes", ["is empty"]),
}


BY_COLOR = GOOD.replace("raw_id = 1", "color = [1, 1, 1]").replace("raw_id = 2", "color = [2, 2, 2]")
BY_COLOR = BY_COLOR.replace("raw_id = 3", "color = [3, 3, 3]").replace(
    '"label-png"\nbits = 8', '"rgb-png"\nrgb_rule = "color"'
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[2, 2, 2]", "[1, 1, 1]", r"'grass' and 'sky' have one colour.*\(key classes\[1\].color\)"),
        ("ignore_raw = [0]", "ignore_colors = [[3, 3, 3]]", r"colour \(3, 3, 3\) is also class 'red ball'"),
        ("color = [2, 2, 2]", "raw_id = 2", r"class 'sky' has no color.*\(key classes\[1\].color\)"),
    ],
)
def test_colours_mean_one_thing_each(tmp_path, old, new, words):
    assert load_spec(_write(tmp_path, BY_COLOR)).raw_table().lookup(np.array([[65793 * 2]])).tolist() == [[1]]
    with pytest.raises(UsageError, match=words):
        load_spec(_write(tmp_path, BY_COLOR.replace(old, new, 1)))


def _write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_spec_that_the_rows_break_is_valid(tmp_path):
    assert load_spec(_write(tmp_path, GOOD)).class_names == ["grass", "sky", "red ball"]


@pytest.mark.parametrize("row", ROWS)
def test_invalid_spec_is_refused_with_file_key_and_mend(tmp_path, row):
    old, new, key, parts = ROWS[row]
    assert old in GOOD
    path = _write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        load_spec(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(f"(key {key})") or f"\n  {key}: " in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"schema = 1\nname = = 2\n", ["not valid TOML", "line 2", "Correct that line."]),
        (b"schema = 1\nschema = 1\n", ["not valid TOML", "line 2"]),
        (b'schema = 1\nname = "\xff"\n', ["line 2 is not UTF-8"]),
        (b"a = " + b"[" * 5000 + b"]" * 5000, ["nested too deeply"]),
        (b"", ["'name' is missing"]),
        (b"# " + b"x" * (9 << 20), ["larger than 8 MB"]),
    ],
)
def test_unreadable_file_is_refused(tmp_path, content, parts):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        load_spec(path)
    assert error.value.exit_code == 2
    for part in [str(path), *parts]:
        assert part in str(error.value)


def test_missing_file_offers_the_one_beside_it(tmp_path):
    _write(tmp_path, GOOD)
    with pytest.raises(UsageError, match=r"there is no such spec\. Did you mean '.*mine\.toml'"):
        load_spec(tmp_path / "mien.toml")


def test_folder_is_no_spec(tmp_path):
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        load_spec(tmp_path / "x.toml")


SHORTEST = """
name = "mine"
classes = ["grass", "sky", "red ball"]

[[layouts]]
[layouts.subsets]
train = { images = "images/train/{stem}.jpg", labels = "labels/train/{stem}.png" }
val = { images = "images/val/{stem}.jpg", labels = "labels/val/{stem}.png" }
"""


def test_shortest_spec_means_train_ids_and_255_for_unlabelled(tmp_path):
    spec = load_spec(_write(tmp_path, SHORTEST))
    assert spec.class_names == ["grass", "sky", "red ball"] and spec.title == "mine"
    assert (spec.ignore_label, spec.label_dtype) == (255, "uint8")
    assert list(spec.subsets) == ["train", "val"]
    table = spec.raw_to_train(spec.layouts[0])
    assert table[[0, 1, 2, 3, 254, 255, 256, 65535]].tolist() == [0, 1, 2, -1, -1, 255, -1, -1]


def test_raw_ids_alone_are_an_encoding(tmp_path):
    classes = '[{ name = "grass", raw_id = 7 }, { name = "sky", raw_id = 300 }]'
    spec = load_spec(_write(tmp_path, SHORTEST.replace('["grass", "sky", "red ball"]', classes)))
    assert spec.raw_to_train()[[0, 7, 255, 300]].tolist() == [-1, 0, 255, 1]


def test_a_raw_value_that_is_a_class_is_not_taken_for_unlabelled(tmp_path):
    classes = '[{ name = "grass", raw_id = 0 }, { name = "sky", raw_id = 255 }]'
    spec = load_spec(_write(tmp_path, SHORTEST.replace('["grass", "sky", "red ball"]', classes)))
    assert spec.raw_to_train()[[0, 255, 1]].tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("count", "given", "ignore", "dtype"),
    [
        (1, "", 255, "uint8"),
        (255, "", 255, "uint8"),  # train ids 0 to 254
        (256, "", 65535, "uint16"),
        (300, "ignore_label = 400", 400, "uint16"),
        (3, "ignore_label = 3", 3, "uint8"),
        (3, "ignore_label = 1000", 1000, "uint16"),
        (3, 'label_dtype = "uint16"', 255, "uint16"),
        (3, "ignore_label = 65535\nencoding = { bits = 8 }", 65535, "uint16"),
    ],
)
def test_ignore_label_and_depth_follow_from_the_number_of_classes(tmp_path, count, given, ignore, dtype):
    names = ", ".join(f'"c{i}"' for i in range(count))
    spec = load_spec(_write(tmp_path, f'name = "mine"\nclasses = [{names}]\n{given}\n'))
    assert (spec.ignore_label, spec.label_dtype) == (ignore, dtype)
    table = spec.raw_to_train()
    assert table[:count].tolist() == list(range(count))
    assert ignore >= len(table) or table[ignore] == ignore


def test_all_mistakes_are_told_at_once(tmp_path):
    text = GOOD.replace('name = "mine"\n', "").replace("title =", "titel =").replace("rawid", "raw_id")
    text = text.replace("raw_id = 2", "rawid = 2").replace("label_dtype", "lable_dtype").replace('"label-png"', '"png"')
    with pytest.raises(UsageError) as error:
        load_spec(_write(tmp_path, text))
    said = str(error.value)
    assert "5 mistakes" in said and said.count("\n") == 5
    for line in (
        "  titel: unknown key 'titel'. Did you mean 'title'?",
        "  lable_dtype: unknown key 'lable_dtype'. Did you mean 'label_dtype'?",
        "  classes[1].rawid: unknown key 'rawid'. Did you mean 'raw_id'?",
        "  name: 'name' is missing. Add name = \"mine\".",
        "  encoding.kind: kind = 'png' is not one of",
    ):
        assert line in said


def test_many_mistakes_are_counted(tmp_path):
    text = "\n".join(f"zz{i} = 1" for i in range(20)) + '\nname = "mine"\nclasses = ["a"]\n'
    with pytest.raises(UsageError, match=r"(?s)20 mistakes:(\n  zz\d: [^\n]*){6}\n  and 14 more$"):
        load_spec(_write(tmp_path, text))
