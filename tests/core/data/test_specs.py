"""Specs: a hand-worked one, then every shipped one against the collected facts and the real samples."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.core.data.specs import aliases, load_spec, parse_data, spec_folder, spec_names
from ovseg_cli.core.errors import UsageError

TINY = """
schema = 1
name = "tiny"
title = "Three classes and a background"
ignore_label = 255
label_dtype = "uint8"
default_split = "ball"
background = { train_id = 0, meaning = "raw 0, and raw 9, an empty lot" }
classes = [
    { name = "background", raw_id = 0, is_thing = false },
    { name = "red ball, toy", raw_id = 7, is_thing = true, synonyms = ["red ball", "ball"] },
    { name = "grass", raw_id = 3, is_thing = false },
    { name = "sky", raw_id = 4, is_thing = false },
]
[encoding]
kind = "label-png"
bits = 8
ignore_raw = [200]
background_raw = [9]
[subsets]
train = { images = 2 }
[[layouts]]
id = "official"
source = "official"
[layouts.subsets.train]
images = "images/{stem}.jpg"
labels = "labels/{stem}.png"
[[layouts]]
id = "other"
source = "another order: grass, sky, ball, background"
[layouts.subsets.train]
images = "jpg/{stem}.jpg"
labels = "png/{stem}.png"
[layouts.encoding]
kind = "label-png"
bits = 8
raw_ids = [3, 2, 0, 1]
elsewhere = "ignore"
[[class_splits]]
id = "ball"
unseen = ["red ball, toy"]
val = ["sky"]
extra_seen_background = ["background"]
[[name_variants]]
id = "paper"
source = "a paper"
kind = "synonyms"
synonym_rule = "max"
entries = { grass = ["lawn", "meadow "] }
[[name_variants]]
id = "parts"
source = "another paper"
kind = "comma-parts"
[preset]
clip = "toy-clip"
templates = ["a {}", "the {}"]
resize = "square"
[preset.methods.maskclip]
side = 96
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


# --- a hand-worked spec --------------------------------------------------------------------------------------------


def test_lookup_table_tells_class_ignored_and_foreign_values_apart(tiny):
    table = load_spec(tiny).raw_to_train()
    assert table.shape == (256,)
    expected = {0: 0, 7: 1, 3: 2, 4: 3, 9: 0, 200: 255}  # raw 0 and 9 are background, 200 is ignored
    assert {raw: int(table[raw]) for raw in expected} == expected
    foreign = [raw for raw in range(256) if raw not in expected]
    assert (table[foreign] == -1).all()


def test_lookup_table_of_a_layout_follows_its_own_encoding(tiny):
    spec = load_spec(tiny)
    table = spec.raw_to_train(spec.layouts[1])
    # background is stored as 3, the ball as 2, grass as 0, sky as 1; anything else is ignored
    assert [int(table[raw]) for raw in (3, 2, 0, 1)] == [0, 1, 2, 3]
    assert set(table[4:].tolist()) == {255}


def test_split_divides_classes_into_seen_unseen_and_val(tiny):
    spec = load_spec(tiny)
    split = spec.split("ball")
    assert (spec.seen_ids(split), spec.unseen_ids(split), spec.hidden_ids(split)) == ([0, 2], [1], [1, 3])
    assert (spec.seen_ids(None), spec.unseen_ids(None), spec.hidden_ids(None)) == ([0, 1, 2, 3], [], [])


def test_vocabulary_holds_texts_flags_and_templates(tiny):
    spec = load_spec(tiny)
    vocabulary = spec.vocabulary(spec.split("ball"))
    assert vocabulary.class_names == ("background", "red ball, toy", "grass", "sky")
    assert vocabulary.synonyms == (("background",), ("red ball", "ball"), ("grass",), ("sky",))
    assert vocabulary.unseen == (False, True, False, False)
    assert vocabulary.is_thing == (False, True, False, False)
    assert (vocabulary.background, vocabulary.templates) == (0, ("a {}", "the {}"))
    assert spec.vocabulary(templates=["x {}"]).templates == ("x {}",)
    assert spec.vocabulary().unseen == (False,) * 4


def test_variant_replaces_the_names_it_lists(tiny):
    spec = load_spec(tiny)
    paper = spec.vocabulary(variant="paper")
    assert paper.synonyms == (("background",), ("red ball, toy",), ("lawn", "meadow "), ("sky",))
    assert (paper.synonym_rule, spec.vocabulary().synonym_rule) == ("max", "mean")
    assert spec.vocabulary(variant="parts").synonyms[1] == ("red ball", "toy")
    assert spec.vocabulary(variant="canonical").synonyms[1] == ("red ball, toy",)
    assert paper.class_names == spec.vocabulary().class_names
    with pytest.raises(UsageError, match="unknown name variant 'papr'.*Did you mean 'paper'"):
        spec.vocabulary(variant="papr")


def test_preset_gives_shared_settings_and_those_of_one_method(tiny):
    preset = load_spec(tiny).preset
    assert preset.clip == "toy-clip"
    assert preset.shared == {"resize": "square"} and preset.recipe("clip") == {}
    assert preset.recipe("maskclip") == {"side": 96} and preset.by_setting("maskclip") == {}


def test_digest_changes_with_what_changes_labels_only(tiny):
    def digest(old: str, new: str) -> str:
        tiny.write_text(TINY.replace(old, new), encoding="utf-8")
        return load_spec(tiny).digest()

    before = digest("", "")
    assert digest("Three classes", "3 classes") == before
    assert digest("a paper", "some paper") == before
    for old, new in (
        ("raw_id = 7", "raw_id = 8"),
        ('name = "sky"', 'name = "cloud"'),
        ("[200]", "[201]"),
        ("[3, 2, 0, 1]", "[3, 2, 1, 0]"),
        ("background_raw = [9]", "background_raw = []"),
    ):
        changed = TINY.replace(old, new).replace('val = ["sky"]', "")
        tiny.write_text(changed, encoding="utf-8")
        assert load_spec(tiny).digest() != before, new


def test_digest_of_a_split_depends_on_hidden_classes_only(tiny):
    split = load_spec(tiny).split("ball")
    same = split.model_copy(update={"id": "x", "unseen": ["sky"], "val": ["red ball, toy"], "note": "n"})
    assert same.digest() == split.digest()
    assert split.model_copy(update={"val": []}).digest() != split.digest()


def test_colours_are_raw_values_where_labels_are_coded_by_colour(tmp_path):
    path = tmp_path / "rgb.toml"
    path.write_text(
        'schema = 1\nname = "rgb"\ntitle = "t"\nignore_label = 255\nlabel_dtype = "uint8"\n'
        'classes = [{ name = "a", color = [1, 2, 3] }, { name = "b", color = [0, 0, 0] }]\n'
        '[encoding]\nkind = "rgb-png"\nrgb_rule = "color"\nbits = 24\n',
        encoding="utf-8",
    )
    table = load_spec(path).raw_to_train()
    assert table.shape == (1 << 24,)
    assert (table[1 + 2 * 256 + 3 * 65536], table[0], table[1]) == (0, 1, -1)


# --- what the user types -------------------------------------------------------------------------------------------


def test_data_choice_takes_the_default_split_and_labels_it(tiny):
    choice = parse_data(str(tiny))
    assert (choice.label, choice.split.id) == ("tiny:ball", "ball")
    assert parse_data(f"{tiny}:ball").label == "tiny:ball"
    assert parse_data(f"{tiny}:none").split is None
    assert parse_data("cityscapes").label == "cityscapes"
    assert parse_data("voc:zs3-18-2").label == "voc-20:zs3-18-2"


def test_own_split_depends_on_the_set_of_names_only(tiny):
    first, second = (parse_data(str(tiny), unseen=text) for text in ("sky, grass", " grass ,sky,sky"))
    assert first.split == second.split
    assert first.split.id.startswith("custom-")
    assert first.split.unseen == ["grass", "sky"]
    assert first.split.id != parse_data(str(tiny), unseen="grass").split.id


def test_own_split_reaches_names_with_a_comma(tiny):
    assert parse_data(str(tiny), unseen="red ball, toy").split.unseen == ["red ball, toy"]
    assert parse_data(str(tiny), unseen="sky; red ball, toy").split.unseen == ["red ball, toy", "sky"]
    with pytest.raises(UsageError, match="semicolons.*red ball, toy;"):
        parse_data(str(tiny), unseen="red ball, sky")


def test_own_split_accepts_another_case_where_it_is_clear():
    assert parse_data("camvid", unseen="car, ROAD").split.unseen == ["Road", "Car"]


@pytest.mark.parametrize(
    ("text", "unseen", "parts"),
    [
        ("coco-stuf", None, ["unknown data set 'coco-stuf'", "Did you mean 'coco-stuff'?"]),
        ("xyzzy", None, ["unknown data set 'xyzzy'", "Known:", "ovseg list datasets"]),
        ("toy:", None, ["class split after the colon is missing"]),
        ("toy:nvel", None, ["no class split 'nvel'", "Did you mean 'novel'?", '--unseen "a, b"']),
        ("cityscapes:15-5", None, ["no class split '15-5'", '--data cityscapes --unseen "a, b"']),
        ("pascal-context:49-10", None, ["Did you mean 'zs3-49-10'?"]),
        ("toy:novel", "grass", ["a class split and --unseen were both given"]),
        ("toy", "gras", ["--unseen", "'gras' is not one of the 32 classes", "Did you mean 'grass'?"]),
        ("toy", " , ", ["no class is named"]),
        ("voc-20", ", ".join(f"{n}" for n in "ab"), ["'a' is not one of the 20 classes", "Known: aeroplane"]),
        ("sa-1b", "dog", ["has no classes"]),
        ("no/such.toml", None, ["no/such.toml: there is no such spec"]),
    ],
)
def test_wrong_choice_of_data_is_a_usage_error(text, unseen, parts):
    with pytest.raises(UsageError) as error:
        parse_data(text, unseen)
    assert error.value.exit_code == 2
    for part in parts:
        assert part in str(error.value)


def test_own_split_must_leave_a_class_seen():
    with pytest.raises(UsageError, match="none is seen"):
        parse_data("camvid", unseen=",".join(load_spec("camvid").class_names))


def test_masks_without_classes_have_no_vocabulary():
    spec = load_spec("sa-1b")
    assert (spec.num_classes, spec.ignore_label, spec.task) == (0, None, "class-agnostic-masks")
    with pytest.raises(UsageError, match="no classes"):
        spec.vocabulary()


# --- the shipped specs ---------------------------------------------------------------------------------------------


def test_every_shipped_spec_is_valid_and_named_like_its_file():
    names = spec_names()
    assert len(names) >= 13
    for name in names:
        assert load_spec(name).name == name


def test_aliases_are_those_of_whole_files_and_unique():
    found = [
        (a, n)
        for n in spec_names()
        for a in tomllib.loads((spec_folder() / f"{n}.toml").read_text("utf-8")).get("aliases", [])
    ]
    assert dict(found) == aliases()
    assert len(dict(found)) == len(found)
    assert not set(aliases()) & set(spec_names())
    wanted = {"voc": "voc-20", "pascal-context": "pascal-context-59", "ade20k": "ade20k-150"}
    assert wanted.items() <= aliases().items()
    assert (load_spec("coco-stuff").num_classes, load_spec("camvid").num_classes) == (171, 11)


@pytest.mark.parametrize(
    ("name", "split"),
    [("coco-stuff", "156-15"), ("voc", "15-5"), ("voc-21", "15-5"), ("ade20k", "135-15"), ("camvid", "9-2")]
    + [("pascal-context", "zs3-49-10"), ("cityscapes", None), ("coco-object", None)],
)
def test_default_splits(name, split):
    assert load_spec(name).default_split == split


def test_own_split_of_camvid_is_marked_as_ours():
    split = load_spec("camvid").split("9-2")
    assert split.sources == ["ovseg, our own; no paper"]
    assert len(split.unseen) == 2
    assert load_spec("camvid").vocabulary(split).synonyms[6] == ("traffic sign",)


def test_specs_are_read_without_torch_and_numpy():
    code = (
        "import sys; from ovseg_cli.core.data import specs; specs.parse_data('coco-stuff:156-15');"
        "specs.aliases(); print([m for m in ('torch', 'numpy', 'open_clip') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- against the collected facts -----------------------------------------------------------------------------------


@pytest.fixture
def facts(samples: Path) -> list[dict]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((samples / "specs").glob("*.json"))]
    if not found:
        pytest.skip(f"{samples / 'specs'} holds no facts")
    return found


def test_facts_about_classes(facts):
    for fact in facts:
        spec = load_spec(fact["id"])
        assert [c.name for c in spec.classes] == [c["name"] for c in fact["classes"]], fact["id"]
        assert [c.raw_id for c in spec.classes] == [c["raw_id"] for c in fact["classes"]], fact["id"]
        for mine, theirs in (
            ("is_thing", "isthing"),
            ("color", "color"),
            ("coco_id", "coco_id"),
            ("supercategory", "supercategory"),
            ("train_images", "train_images"),
            ("pixel_ratio", "pixel_ratio"),
            ("frequency", "frequency"),
        ):
            for c, f in zip(spec.classes, fact["classes"], strict=True):
                if theirs in f:
                    assert getattr(c, mine) == f[theirs], (fact["id"], c.name, mine)


def test_facts_about_the_whole(facts):
    for fact in facts:
        spec = load_spec(fact["id"])
        assert (spec.num_classes, spec.title, spec.task) == (fact["num_classes"], fact["title"], fact["task"])
        assert (spec.ignore_label, spec.label_dtype) == (fact["ignore_value"], fact["train_id_dtype"]), fact["id"]
        assert spec.encoding.kind == fact["annotation_encoding"]["kind"], fact["id"]
        mine = spec.background and {"train_id": spec.background.train_id, "meaning": spec.background.meaning}
        assert mine == fact["background"], fact["id"]
        assert {n: s.images for n, s in spec.subsets.items()} == {n: s["images"] for n, s in fact["splits"].items()}
        assert {n: s.note for n, s in spec.subsets.items()} == {n: s.get("note") for n, s in fact["splits"].items()}
        assert spec.disagreements == fact.get("disagreements", []), fact["id"]
        assert spec.license.model_dump() == fact["license"], fact["id"]
        assert {d.page for d in spec.downloads} == {d["url"] for d in fact["download_pages"]}, fact["id"]
        assert spec.layouts[0].examples == fact["layout"]["after_unzip"], fact["id"]


def test_facts_about_class_splits(facts):
    for fact in facts:
        spec = load_spec(fact["id"])
        for theirs in fact.get("class_splits", []):
            split = spec.split(theirs["id"])
            background = theirs.get("extra_seen_background", [])
            assert spec.unseen_ids(split) == sorted(theirs["unseen"]), (fact["id"], split.id)
            assert spec.ids(split.val) == sorted(theirs.get("val", [])), (fact["id"], split.id)
            assert spec.ids(split.extra_seen_background) == background, (fact["id"], split.id)
            assert spec.seen_ids(split) == sorted([*theirs["seen"], *background]), (fact["id"], split.id)
            assert split.sources == theirs["sources"], (fact["id"], split.id)


def test_facts_about_name_variants(facts):
    for fact in facts:
        spec = load_spec(fact["id"])
        by_source = {v.source: v for v in spec.name_variants}
        for theirs in fact["name_variants"]:
            variant = by_source[theirs["source"]]
            assert (variant.kind, variant.note) == (theirs["kind"], theirs.get("note")), (fact["id"], variant.id)
            assert spec.texts(variant.id) == theirs["entries"], (fact["id"], variant.id)


def test_facts_about_conversion(facts):
    for fact in facts:
        if not fact["classes"]:
            continue
        spec = load_spec(fact["id"])
        table = spec.raw_to_train()
        for c in fact["classes"]:
            if c["raw_id"] is not None:
                assert table[c["raw_id"]] == c["train_id"], (fact["id"], c["name"])
        for raw, train in fact["conversion"].get("id_to_train_id", []):
            assert table[raw] == train, (fact["id"], raw)
        if not fact["background"]:
            assert (table[fact["conversion"].get("unused_raw_ids", [])] == fact["ignore_value"]).all(), fact["id"]
        assert set(table.tolist()) <= {-1, fact["ignore_value"], *range(fact["num_classes"])}


def test_background_swallows_stuff_and_unlabelled_pixels_of_coco_object(facts):
    stuff = next((f for f in facts if f["id"].startswith("coco-stuff")), None)
    if stuff is None:
        pytest.skip("the facts of coco-stuff are absent")
    table = load_spec("coco-object").raw_to_train()
    for c in stuff["classes"]:
        assert table[c["raw_id"]] == (c["train_id"] + 1 if c["isthing"] else 0), c["name"]
    assert table[255] == 0


def test_class_lists_and_splits_are_those_of_the_one_stage_papers(parity):
    path = parity / "tagclip" / "class_splits.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    recorded = json.loads(path.read_text(encoding="utf-8"))
    for key, name in (("voc20", "voc-20"), ("coco_stuff171", "coco-stuff"), ("context59", "pascal-context-59")):
        spec = load_spec(name)
        assert spec.class_names == recorded[key]["classes"], name
        known = [spec.unseen_ids(split) for split in spec.class_splits]
        for unseen in (ids for part, ids in recorded[key].items() if part.startswith("unseen")):
            assert sorted(unseen) in known, name


# --- against real label files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["voc-20", "voc-21"])
def test_lookup_table_reproduces_the_counts_of_real_voc_labels(samples, name):
    expected_file = samples / "voc-sample" / "expected.json"
    if not expected_file.is_file():
        pytest.skip(f"{expected_file} is absent")
    spec = load_spec(name)
    table = spec.raw_to_train()
    for stem, counts in json.loads(expected_file.read_text()).items():
        path = next((samples / "voc-sample").rglob(f"SegmentationClass/{stem}.png"))
        label = table[np.asarray(Image.open(path))]
        ids, pixels = np.unique(label, return_counts=True)
        assert list(label.shape) == counts["size_hw"]
        assert {str(i): int(n) for i, n in zip(ids, pixels, strict=True)} == counts[name]


def test_rgb_rule_reproduces_the_counts_of_real_ade_labels(samples):
    expected_file = samples / "ade20k-full-sample" / "expected.json"
    if not expected_file.is_file():
        pytest.skip(f"{expected_file} is absent")
    spec = load_spec("ade20k-847")
    assert spec.encoding.rgb_rule == "r//10*256+g"
    table = spec.raw_to_train()
    for stem, entry in json.loads(expected_file.read_text()).items():
        path = next((samples / "ade20k-full-sample").rglob(f"{stem}_seg.png"))
        rgb = np.asarray(Image.open(path)).astype(int)
        ids, pixels = np.unique(table[rgb[..., 0] // 10 * 256 + rgb[..., 1]], return_counts=True)
        counts = {str(i): int(n) for i, n in zip(ids, pixels, strict=True)}
        assert counts == entry["ade20k-847"]


def test_every_camvid_label_value_is_in_the_spec(samples):
    labels = sorted((samples / "camvid-mini").glob("*annot/*.png"))
    if not labels:
        pytest.skip(f"{samples / 'camvid-mini'} is absent")
    table = load_spec("camvid").raw_to_train()
    for path in labels:
        assert (table[np.unique(np.asarray(Image.open(path)))] >= 0).all(), path.name
