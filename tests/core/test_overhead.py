"""What `ovseg show tagclip` says of costs and of vocabularies, against numbers by hand and the specification's."""

import json

import pytest
import torch

from ovseg_cli.core import overhead, registry
from ovseg_cli.core.explanation import explain
from ovseg_cli.core.overhead import PAIR, PUBLISHED, Cost, Task, compare, cost_rows, empty_clip, seconds
from ovseg_cli.core.runtime import folders
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import tiny_clip

D, FFN, LAYERS, N, WIDTH, BLOCKS = 512, 2048, 3, 1024, 768, 12  # N patches of 512 x 512 pixels
ATTENTION = 4 * (D * D + D)  # weights of an attention: query, key, value, output
NORM = 2 * D


@pytest.fixture(scope="module")
def vit():
    return empty_clip(overhead.ARCHITECTURE)


@pytest.fixture(autouse=True)
def no_stopwatch(monkeypatch):
    """Times are not what is tested here."""
    monkeypatch.setattr(overhead, "seconds", lambda calls: ([0.001 * (i + 1) for i in range(len(calls))], 3))


def dead_weights() -> int:
    """End of the last layer: value and output of its attention, feed-forward part, two norms."""
    return ATTENTION // 2 + (2 * D * FFN + D + FFN) + 2 * NORM


def dead_macs(rows: int) -> int:
    """Values of the patches, their mix, its projection and the feed-forward part, for `rows` queries."""
    return N * D * D + rows * N * D + rows * D * D + 2 * rows * D * FFN


@pytest.mark.parametrize(
    ("task", "weights", "encoder", "heads"),
    [
        (Task(20, 10), (13_821_184, 11_720_448), 108.7, (1.84, 1.88)),
        (Task(171, 100), (14_650_624, 12_549_888), 120.6, (3.58, 3.81)),
    ],
)
def test_counts_are_those_of_the_published_code_without_what_has_no_effect(vit, task, weights, encoder, heads):
    costs, _ = compare(vit, task, 512)
    unused = (dead_weights() + LAYERS * (ATTENTION + NORM), dead_weights() + (LAYERS - 1) * NORM)
    assert tuple(c.parameters + rest for c, rest in zip(costs, unused, strict=True)) == weights
    rows = (task.classes, task.classes + 1)  # the token is a query too
    measured = [c.head_macs + dead_macs(n) for c, n in zip(costs, rows, strict=True)]
    assert [round(macs / 1e9, 2) for macs in measured] == list(heads)
    tokens = N + 1 + task.prompts
    skipped = BLOCKS * task.prompts * (10 * WIDTH * WIDTH + 2 * tokens * WIDTH)  # of prompts, all but key and value
    assert round((costs[0].encoder_macs + skipped) / 1e9, 1) == encoder
    assert costs[0].encoder_macs == costs[1].encoder_macs
    for number in (*(f"{w / 1e6:.2f} M" for w in weights), *(f"{g:.2f}" for g in heads), f"{encoder} "):
        assert number in PUBLISHED


def test_macs_of_heads_by_hand(vit):
    zeg, tag = compare(vit, Task(20, 10), 512)[0]

    def head(rows: int) -> int:
        descriptor = 2 * rows * D * D
        cross = 2 * rows * D * D + 2 * N * D * D + 2 * rows * N * D  # q, output; k, v; two products
        last = rows * D * D + N * D * D + rows * N * D
        return descriptor + (LAYERS - 1) * (cross + 2 * rows * D * FFN) + last

    assert zeg.head_macs == head(20)
    assert tag.head_macs == head(21) + 4 * 21 * D * D + 2 * 21 * 21 * D  # and the queries' attention to each other


def test_rows_hold_sums_and_differences_in_percent():
    rows = cost_rows(
        "t", [Cost(2_000_000, 8 * 10**9, 2 * 10**9, 0.3, 0.1), Cost(1_000_000, 8 * 10**9, 3 * 10**9, 0.3, 0.2)]
    )
    found = {str(row[1].value): [round(float(cell.value or 0), 6) for cell in row[2:]] for row in rows}
    assert found["trained weights, M"] == [2, 1, -50] and found["encoder, G"] == [8, 8, 0]
    assert (
        found["both, G"] == [10, 11, 10]
        and found["head, ms"] == [100, 200, 100]
        and found["both, ms"] == [400, 500, 25]
    )


def test_times_are_medians_of_rounds_after_the_first(monkeypatch):
    monkeypatch.undo()
    clock, steps = [0.0], iter([9, 1, 3, 2] + [5] * 20)  # seconds of each round; the first does not count

    def call():
        clock[0] += next(steps)

    monkeypatch.setattr(overhead.time, "perf_counter", lambda: clock[0])
    assert seconds([call]) == ([2.0], 3), "1, 3 and 2; the budget is spent, the least number of rounds is not given up"


@pytest.mark.parametrize("name", PAIR)
def test_names_depend_on_each_other_exactly_where_it_is_said(name):
    torch.manual_seed(0)
    made = registry.METHODS[name].load()
    method = made(tiny_clip(), made.Config(prompts=2, decoder_heads=4, window=0, stride=0))
    text = torch.nn.functional.normalize(torch.randn(7, 24), dim=-1)
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        few, many = (method.mask_logits(image, TextFeatures.of_classes(rows))[0] for rows in (text[:4], text))
    assert torch.allclose(few, many[:, :4], atol=1e-5) == ("do not depend" in overhead.MEETING[name])
    assert ("chunks" in overhead.MEETING[name]) and ("never" in overhead.MEETING[name]) == (name == "tagclip")


@pytest.mark.parametrize("name", PAIR)
def test_both_show_the_comparison_and_json_has_it(name, monkeypatch, vit):
    monkeypatch.setattr(overhead, "empty_clip", lambda architecture: vit)
    record = json.loads(json.dumps(explain(name, folders()).record(), default=str))
    (table,) = (table for table in record["tables"] if "costs" in table["title"])
    assert {fact["label"]: fact["text"] for fact in record["facts"]}["vocabulary"] == overhead.MEETING[name]
    assert len(table["rows"]) == 7 * len(overhead.TASKS)
    row = next(row for row in table["rows"] if row["quantity"] == "head, ms")
    assert (row["zegclip"], row["tagclip"], row["difference"]) == pytest.approx((1, 2, 100))
    assert any("measured here, now" in note and "median of 3 rounds" in note for note in table["notes"])
    assert PUBLISHED in table["notes"]


def test_other_methods_measure_nothing(monkeypatch):
    monkeypatch.setattr(overhead, "overhead_table", None)
    assert not any("costs" in table.title for table in explain("maskclip", folders()).tables)
