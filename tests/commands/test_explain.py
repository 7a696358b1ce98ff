"""`ovseg report RUN --explain`, on the scored run of the toy world."""

import json
import shutil

import pytest

from ovseg_cli.core.evaluation.result_files import load_result


@pytest.fixture
def run(world, tmp_path):
    """A copy of the scored run."""
    found = min((world / "runs").glob("maskclip-*"))
    return shutil.copytree(found, tmp_path / "runs" / found.name)


def rows_of(answer):
    assert answer.code == 0, answer.err
    return {row["key"]: row for table in json.loads(answer.out)["tables"] for row in table["rows"]}


def test_what_no_result_tells_is_scored_once_and_read_from_then_on(cli, run):
    first = cli("report", run, "--explain", "--bootstrap", "50", "--format", "json")
    before = rows_of(first)
    (stored,) = run.glob("results/*.json")
    union = load_result(stored).metrics()
    assert before["union"]["hIoU"] == 100 * union["hIoU"] and before["present"]["delta_hIoU_low"] is not None
    missing = {key for key, row in before.items() if row["command"]}
    assert missing == {"candidates-unseen", "candidates-seen", "penalty-0.1"}
    assert f"ovseg report {run} --explain --score-missing" in " ".join(first.err.split())

    scored = cli(
        "report", stored, "--explain", "--bootstrap", "0", "--format", "json", "--score-missing", "--gpus", "0"
    )
    after = rows_of(scored)
    assert not any(row["command"] for row in after.values()) and after["unseen-pixels"]["uIoU"] > union["uIoU"] * 100
    stem = stored.stem
    assert {path.stem.removeprefix(stem.removesuffix("all-first24")) for path in run.glob("results/*")} == {
        "all-first24", "all-gamma0.1-first24", "seen-first24", "unseen-first24",
    }  # fmt: skip
    again = cli("report", run, "--explain", "--bootstrap", "0", "--format", "json", "--score-missing")
    assert rows_of(again) == after and "scoring" not in again.err, "of a run the method's own readout is explained"

    command = before["candidates-unseen"]["command"].split()[1:]
    alone = cli(*command, "--gpus", "0", "--json")  # what the row said makes the same numbers
    assert alone.code == 0, alone.err
    assert rows_of(cli("report", run, "--explain", "--bootstrap", "0", "--format", "json")) == after


def test_model_that_has_changed_since_is_not_asked(cli, run):
    (stored,) = run.glob("results/*.json")
    document = json.loads(stored.read_text())
    document["fingerprints"]["weights"] = "another"
    stored.write_text(json.dumps(document))
    answer = cli("report", run, "--explain", "--score-missing", "--gpus", "0")
    assert answer.code == 3 and "weights are not those" in " ".join(answer.err.split())
    assert len(list(run.glob("results/*"))) == 1
    shutil.move(stored, run.parent / "alone.json")
    shutil.rmtree(run)
    (run.parent / "alone.json").write_text(json.dumps({**document, "run": "runs/gone"}))
    answer = cli("report", run.parent / "alone.json", "--explain", "--score-missing")
    assert answer.code == 2 and "is not here" in answer.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--explain", "--per-class"), "--per-class belongs to comparisons"),
        (("--explain", "--seeds"), "--seeds belongs to comparisons"),
        (("--explain", "--absent", "present"), "--absent belongs to comparisons"),
        (("--explain", "--figures", "compare"), "--figures belongs to comparisons"),
        (("--explain", "--limit", "3"), "--limit belongs to --figures"),
        (("--explain", "--gpus", "0"), "--gpus belongs to --explain --score-missing"),
        (("--score-missing",), "--score-missing belongs to --explain"),
    ],
)
def test_options_that_do_nothing_are_refused(cli, run, options, said):
    answer = cli("report", run, *options)
    assert answer.code == 2 and said in " ".join(answer.err.split())
