"""What a model adds to a lint, with a text tower made by hand: each name has the feature that the test gives it."""

from types import SimpleNamespace

import numpy as np
import pytest

from ovseg_cli.core.vocabulary.class_list import ClassList
from ovseg_cli.core.vocabulary.job import Job, LintRequest
from ovseg_cli.core.vocabulary.model_findings import ask
from ovseg_cli.core.vocabulary.reader import Reader
from ovseg_cli.core.vocabulary.relations import relations_within
from ovseg_cli.core.vocabulary.thesaurus import make_thesaurus
from ovseg_cli.core.vocabulary.training import Training


class HandMade(Reader):
    """Reads names whose features are written down; others it was never trained on."""

    def __init__(self, features, tokens=None):
        tokenizer = SimpleNamespace(context_length=4)
        super().__init__(SimpleNamespace(name="hand", tokenizer=tokenizer), ("{}",))
        self.__dict__.update(features=features, ids=tokens or {})

    def read(self, texts):
        rows = np.array([np.mean([self.features[t] for t in row], axis=0) for row in texts], dtype=float)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if len(rows) else np.zeros((0, 3))

    def unknown(self, text):
        return [] if text in self.features else [text]

    def is_cut(self, text):
        return len(text.split()) > 2

    def tokens(self, texts):
        return [self.ids.get(text, (text,)) for text in texts]


def asked(rows, reader, alike=0.95, training=None, background=None):
    classes = ClassList("hand", tuple(row[0] for row in rows), tuple(map(tuple, rows)), background)
    related = relations_within(classes.rows, make_thesaurus([]))
    return ask(Job(LintRequest("hand", alike=alike), classes, training, related), reader)


X, Y, Z, NEAR_X = [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0.1, 0]


def found(model):
    return {(f.kind, f.name, f.other) for f in model.findings}


def test_twins_by_features_and_cosines_of_twins_by_name():
    model = asked([["road"], ["path"], ["cup"], ["cups"]], HandMade({"road": X, "path": NEAR_X, "cup": Y, "cups": Z}))
    assert found(model) == {("alike", "road", "path")}
    assert model.cosines == {(2, 3): 0.0}, "the spelling says that they are one, the model that they are not"
    assert model.yardstick.cosine == 0.95


def test_unknown_words_are_named_and_left_out():
    model = asked([["road"], ["zebra"], ["path"]], HandMade({"road": X, "path": NEAR_X}))
    assert found(model) == {("unknown", "zebra", ""), ("alike", "road", "path")}
    assert {f.kind: f.ids for f in model.findings} == {"unknown": (1,), "alike": (0, 2)}
    assert "1 class with unknown words is left out" in model.facts["features"]


def test_ids_count_the_background():
    model = asked([["background"], ["road"], ["path"]], HandMade({"road": X, "path": NEAR_X}), background=0)
    (twins,) = model.findings
    assert twins.ids == (1, 2)


def test_names_that_are_cut_or_become_the_same_tokens():
    reader = HandMade({"road": X, "ro ad": Y, "a b c": Z, "way": [1, 1, 1]}, {"road": (7,), "way": (7,)})
    assert found(asked([["road"], ["way"], ["a b c"]], reader)) == {("tokens", "road", "way"), ("cut", "a b c", "")}


def test_synonym_astray():
    reader = HandMade({"person": X, "soul": Y, "music": Y, "man": X})
    (stray,) = asked([["person", "man", "soul"], ["music"]], reader, alike=1.1).findings
    assert (stray.kind, stray.name) == ("astray", "person") and "'soul' is nearer to 'music'" in stray.evidence


def test_overlap_with_training_by_features_alone():
    training = Training((("magma",), ("sky",), ("zebra",)), "training")
    reader = HandMade({"lava": X, "sky": Y, "cup": Z, "magma": NEAR_X})
    model = asked([["lava"], ["sky"], ["cup"]], reader, training=training)
    assert {place: (o.name, o.how) for place, o in model.overlaps.items()} == {0: ("magma", "alike")}
    assert model.overlaps[0].number == pytest.approx(1 / np.sqrt(1.01))


def test_yardstick_reads_the_plurals_of_the_list():
    names = ["road", "path", "cup", "hat", "tree", "box"]
    plurals = {"roads": X, "paths": X, "cups": X, "hats": Y, "trees": X}  # "boxes" was never read
    reader = HandMade(
        {**dict.fromkeys(names, X), **plurals, **{f"{n} {p}": X for n, p in zip(names, plurals, strict=False)}}
    )
    model = asked([[name] for name in names], reader, alike=None)
    assert model.yardstick.cosine == 1.0 and "5 names" in model.yardstick.meaning
    assert "the median of 5 names" in model.facts["alike"]
