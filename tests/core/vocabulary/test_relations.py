"""Which names of two lists are one name, what is odd about a name, and what shipped lists know of words."""

import pytest

from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.vocabulary.class_list import names_in
from ovseg_cli.core.vocabulary.names import general_findings, list_findings, name_findings
from ovseg_cli.core.vocabulary.relations import relations, relations_within
from ovseg_cli.core.vocabulary.thesaurus import OURS, make_thesaurus, shipped
from ovseg_cli.core.vocabulary.training import Training, overlaps

NOTHING = make_thesaurus([])


def kinds(*rows, thesaurus=NOTHING):
    return {pair: relation.kind for pair, relation in relations_within(rows, thesaurus).items()}


def test_each_relation_by_hand():
    assert kinds(["sofa"], ["Sofa"]) == {(0, 1): "same"}
    assert kinds(["sky"], ["sky-other"]) == {(0, 1): "same"}  # nobody says "sky-other"
    assert kinds(["sofa", "couch"], ["couch"]) == {(0, 1): "synonym-shared"}
    assert kinds(["hot dog"], ["hotdog"]) == {(0, 1): "spelling"}
    assert kinds(["cups"], ["grass"], ["cup"]) == {(0, 2): "plural"}
    assert kinds(["paper towel"], ["towel paper"]) == {(0, 1): "order"}
    assert kinds(["grass"], ["glass"], ["cloth"], ["clothes"]) == {}


def test_synonyms_meet_in_their_own_names_only():
    """Two lists of synonyms often share a plural by accident (`card` and `cards` of ADE20K)."""
    assert kinds(["poster", "card"], ["card game", "cards"]) == {}
    assert kinds(["poster", "card"], ["cards"]) == {(0, 1): "plural"}


def test_thesaurus_takes_common_words_with_one_meaning():
    known = make_thesaurus(
        [
            ("a", ["rug", "carpet", "carpeting"]),
            ("a", ["bag"]),
            ("a", ["bag", "handbag"]),
            (OURS, ["tv", "television", "tv monitor"]),
        ]
    )
    assert kinds(["rug"], ["carpet"], thesaurus=known) == {(0, 1): "synonym"}
    assert kinds(["rug"], ["carpeting"], thesaurus=known) == {}  # the third word of a list
    assert kinds(["bag"], ["handbag"], thesaurus=known) == {}  # the source has two kinds of bags
    assert kinds(["tvmonitor"], ["television"], thesaurus=known) == {(0, 1): "synonym"}


def test_names_that_were_run_together():
    known = make_thesaurus([("a", ["dishwasher", "dish washer"])], ["potted plant", "pottedplant"])
    assert known.apart("pottedplant") == "potted plant"
    assert known.apart("dishwasher") is None, "a list of English synonyms has it"
    assert known.apart("potted plant") is None and known.apart("unheard") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a cup", "article"),
        ("straße", "letters"),
        ("3", "no-word"),
        ("x", "no-word"),
        ("thing", "catch-all"),
        ("floor-other", "label"),
        ("tv_monitor", "signs"),
        ("SignSymbol", "signs"),
        ("pottedplant", "joined"),
        ("mouse", "homonym"),
    ],
)
def test_odd_names(name, kind):
    assert [finding.kind for finding in name_findings([name], [[name]], shipped())] == [kind]


@pytest.mark.parametrize("name", ["hot-air balloon", "t-shirt", "traffic light", "lord's table", "tv", "grass"])
def test_names_with_nothing_odd(name):
    assert name_findings([name], [[name]], shipped()) == []


def test_a_variant_of_the_data_set_with_a_better_name_is_named():
    variants = {"worse": {"sky-other": "sky_other"}, "better": {"sky-other": "sky"}}
    (finding,) = name_findings(["sky-other"], [["sky-other"]], NOTHING, variants)
    assert finding.evidence == "'other' is read as a word: write 'sky' (--names better)"


def test_general_names_are_the_heads_of_others():
    names = ["table", "dining table", "pool table", "floor-other", "floor-wood", "wood", "tables"]
    rows = [[name] for name in names]
    found = general_findings(names, rows, relations_within(rows, NOTHING))
    assert {finding.name: finding.number for finding in found} == {"table": 2, "floor-other": 1}


def test_lists_in_one_sentence_are_counted():
    (finding,) = list_findings(["sofa, couch", "sky", "car, auto"], [["sofa, couch"], ["sky"], ["car", "auto, van"]])
    assert finding.number == 2 and finding.ids == (0, 2)


def test_overlap_with_training_takes_the_strongest_reason():
    training = Training((("cups",), ("cup", "mug"), ("couch",)), "training")
    found = overlaps([["cup"], ["sofa"], ["sky"]], training, shipped())
    assert {place: (o.name, o.how) for place, o in found.items()} == {0: ("cup", "same"), 1: ("couch", "synonym")}
    assert found[0].is_same and not found[1].is_same


@pytest.mark.parametrize("data", spec_names())
def test_every_shipped_list_goes_through(data):
    spec = load_spec(data)
    for variant in [None, *(v.id for v in spec.name_variants)]:
        texts = spec.texts(variant)
        rows = [names_in(row) for row in texts]
        related = relations_within(rows, shipped())
        assert all(0 <= i < j < len(rows) for i, j in related)
        name_findings(spec.class_names, rows, shipped())
        general_findings(spec.class_names, rows, related)
        if len(set(map(str, rows))) == len(rows):
            same = relations(rows, rows, shipped())
            assert all((i, i) in same for i in range(len(rows))), "each name is itself"


def test_what_is_known_of_the_real_lists():
    def pairs(data):
        names = load_spec(data).class_names
        rows = [names_in([name]) for name in names]
        return {(names[i], names[j]): r.kind for (i, j), r in relations_within(rows, shipped()).items()}

    assert pairs("coco-stuff") == {("carpet", "rug"): "synonym", ("rock", "stone"): "synonym"}
    assert pairs("cityscapes") == {} and pairs("voc-20") == {}
    ade = pairs("ade20k-847")
    assert ade["cup", "cups"] == "plural" and ade["table tennis", "tennis table"] == "order"
    assert ade["racket", "racquet"] == "synonym" and ade["pier, wharf, wharfage, dock", "pier"] == "same"
