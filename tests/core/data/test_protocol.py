"""`ovseg show DATASET` says what is ignored, what background is, how papers predict it, and where papers disagree."""

from pathlib import Path

import pytest

from ovseg_cli.core.data.protocol import label_facts, split_facts
from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.explanation import explain
from tests.core.data.handmade import folders_of


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("voc-20", "255; from raw 0, 255"),
        ("voc-21", "255; from raw 255"),
        ("coco-object", "255; no pixel has it"),
        ("ade20k-847", "65535; from every raw value that is no class"),
        ("pascal-context-59", "255; from every raw value that is no class"),
        ("sa-1b", "none"),
    ],
)
def test_ignored_labels_are_said(name: str, ignored: str) -> None:
    assert dict(label_facts(load_spec(name)))["ignore label"] == ignored


@pytest.mark.parametrize("name", spec_names())
def test_protocol_of_every_data_set_is_shown(name: str, tmp_path: Path) -> None:
    spec, facts = load_spec(name), explain(name, folders_of(tmp_path)).facts
    shown = {label for label, _ in facts}
    texts = [text for _, text in facts]
    assert {"ignore label", "background", "labels"} <= shown
    assert {f"subset {subset}" for subset in spec.subsets} <= shown
    assert all(text in texts for text in (*spec.disagreements, *spec.notes))
    assert ("background, in papers" in shown) == (spec.background is not None)
    assert (spec.encoding is None or spec.encoding.note is None) or any(spec.encoding.note in text for text in texts)


def test_remark_on_several_splits_is_said_once() -> None:
    facts = [text for _, text in split_facts(load_spec("voc-21"))]
    assert sum("is counted as seen when a paper keeps it" in text for text in facts) == 2
    assert any(text.startswith("spnet-12-3-5, zs3-18-2") for text in facts)
