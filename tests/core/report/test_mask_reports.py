"""Files of named masks and of oracles are reported again, without a model."""

import pytest

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.oracle import RUNGS
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.report.mask_reports import mask_tables
from ovseg_cli.core.report.oracle_tables import oracle_table
from tests.core.report.results import random_result


def ladder_of(path, unseen=(False, False, True)):
    facts = {"method": "clip", "data": "toy:combo", "subset": "val", "class_names": ("a", "b", "c"), "unseen": unseen}
    counts = {rung: random_result(i, classes=4).counts for i, rung in enumerate(RUNGS)}
    result = OracleResult(**facts, masks={"source": "own"}, counts=counts)
    result.save(path)
    return result


@pytest.mark.parametrize("split", ["all", "unseen"])
def test_ladder_is_the_table_of_eval_with_its_verdict(tmp_path, split):
    path = tmp_path / "a.json"
    result = ladder_of(path)
    (table,) = mask_tables([str(path)], split, "present")
    wanted = oracle_table([result.document()], split, "present")
    assert (table.rows, table.notes[:-1]) == (wanted.rows, wanted.notes)
    assert table.notes[-1] == f"toy:combo: {result.verdict(split, 'present')}"


def test_runs_and_other_results_are_left_to_others(tmp_path):
    random_result(1).save(tmp_path / "r.json")
    assert mask_tables([str(tmp_path / "r.json"), "latest"], "all", "union") == []


def test_what_does_not_go_together_is_said(tmp_path):
    ladder_of(tmp_path / "a.json", unseen=(False,) * 3)
    with pytest.raises(UsageError, match="latest: files of named masks or of an oracle stand beside"):
        mask_tables([str(tmp_path / "a.json"), "latest"], "all", "union")
    with pytest.raises(UsageError, match="--split seen: .*a.json is of data without a class split"):
        mask_tables([str(tmp_path / "a.json")], "seen", "union")
