"""`--task masks` and `--task oracle` on a small data set: files, interruptions, sources of masks."""

import json

import numpy as np
import pytest

from ovseg_cli.core.errors import DataError, MachineError, OvsegError
from ovseg_cli.core.evaluation import mask_session, oracle_session
from ovseg_cli.core.evaluation.mask_results import MaskResult
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.evaluation.request import EvalRequest, resolve
from ovseg_cli.core.evaluation.session import score
from ovseg_cli.core.proposals.request import ProposeRequest
from ovseg_cli.core.proposals.request import resolve as resolve_proposals
from ovseg_cli.core.proposals.session import propose
from ovseg_cli.core.reporter import Silent
from tests.core.data import handmade
from tests.core.evaluation.drawn import Listening, Stopping

SESSIONS = {"masks": mask_session, "oracle": oracle_session}


def scored(place, reporter=None, task="masks", proposals=None, **options):
    folders = handmade.folders_of(place)
    asked = EvalRequest(**{"model": "clip", "data": ("./mini.toml",), "gpus": 0, **options})
    session = SESSIONS[task]
    plan = session.resolve(asked, proposals, folders, reporter or Silent())
    return session.score(plan, folders, reporter or Silent())[0]


@pytest.mark.parametrize("task", SESSIONS)
def test_interrupted_task_goes_on_and_ends_where_it_would_have(place, task):
    with pytest.raises(KeyboardInterrupt):
        scored(place, Stopping(), task)
    (run,) = (place / "runs").iterdir()
    (journal,) = run.glob(f"results/{task}/*.unfinished.jsonl")
    assert len(journal.read_text().splitlines()) > 3
    said = Listening()
    done = scored(place, said, task)
    assert any("scored before" in line for line in said.messages)
    assert done.path.parent == run / "results" / task and [p.name for p in done.path.parent.iterdir()] == [
        done.path.name
    ]
    again = scored(place, None, task)
    drop = ("timing", "created", "command")
    documents = [{k: v for k, v in item.result.document().items() if k not in drop} for item in (done, again)]
    assert documents[0] == documents[1] and again.path == done.path


def test_files_hold_all_that_scores_are_made_of(place):
    done = scored(place, task="masks")
    again = MaskResult.load(done.path)
    assert again.document() == done.result.document() and len(again.records) == 8
    assert {"data", "weights", "vocabulary", "protocol", "masks"} <= set(again.fingerprints)
    ladder = scored(place, task="oracle")
    assert OracleResult.load(ladder.path).document() == ladder.result.document()
    assert ladder.result.scores("both")["mIoU"] == 100


@pytest.mark.parametrize(
    "breakage",
    [
        lambda d: d.update(kind="other"),
        lambda d: d.update(schema=9),
        lambda d: d.pop("records"),
        lambda d: d["images"].pop(),
        lambda d: d["class_names"].pop(),
        lambda d: d["records"].update(areas=d["records"]["classes"]),
        lambda d: d["records"]["tops"]["values"].update(data="x"),
    ],
)
def test_broken_file_is_refused_by_name(place, breakage):
    path = scored(place, limit=2).path
    document = json.loads(path.read_text())
    breakage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=path.name):
        MaskResult.load(path)


def test_results_of_a_training_free_method_lie_in_its_run_and_are_none_of_its_label_maps(place):
    folders = handmade.folders_of(place)
    plain = EvalRequest(model="clip", data=("./mini.toml",), gpus=0, force=True)
    (first,) = score(resolve(plain, folders, Silent()), folders, Silent())
    run = first.path.parent.parent
    assert scored(place).path.parent.parent.parent == run
    assert scored(place, settings={"side": 40}).path.parent.parent.parent != run
    assert scored(place, unseen="grass").path.parent.parent.parent != run
    assert [path.name for path in (run / "results").glob("*.json")] == [first.path.name]


def test_own_rung_is_the_score_of_the_label_map(place):
    folders = handmade.folders_of(place)
    plain = EvalRequest(model="clip", data=("./mini.toml",), gpus=0, force=True)
    (first,) = score(resolve(plain, folders, Silent()), folders, Silent())
    rung = scored(place, task="oracle").result.scores("predicted")
    assert rung["mIoU"] == pytest.approx(100 * first.result.metrics()["mIoU"], abs=1e-4)
    assert rung["pAcc"] == pytest.approx(100 * first.result.metrics()["pAcc"], abs=1e-4)


def test_masks_of_a_generator_are_the_same_from_its_cache_and_without_one(place):
    folders = handmade.folders_of(place)
    said = Listening()
    live = scored(place, said, proposals="superpixels", limit=2)
    assert any("ovseg propose superpixels" in line for line in said.messages)
    request = ProposeRequest("superpixels", "mini", "val", workers=1, limit=2)
    store = propose(resolve_proposals(request, folders, Silent()), folders, Silent()).store
    for named in ("superpixels", str(store.folder)):
        cached = scored(place, proposals=named, limit=2)
        assert cached.result.document()["scores"] == live.result.document()["scores"]
        assert cached.result.masks["cache"] == str(store.folder)
    with pytest.raises(DataError, match="superpixels|entry|proposals"):
        scored(place, proposals="superpixels", limit=3)
    assert scored(place, task="oracle", proposals="superpixels", limit=2).result.masks["source"] == "superpixels"


def test_masks_that_cannot_be_made_leave_no_run(place, monkeypatch):
    def fail(*_):
        raise MachineError("no weights")

    monkeypatch.setattr("ovseg_cli.core.evaluation.mask_sources.MadeMasks.prepare", fail)
    with pytest.raises(MachineError):
        scored(place, proposals="superpixels")
    assert not (place / "runs").exists()


def test_masks_of_a_method_without_masks_and_unknown_ones_are_refused(place):
    run = scored(place, limit=1).path.parent.parent.parent
    for named, said in ((str(run), "makes no masks"), ("superpixel", "superpixel"), ("no/where", "no such cache")):
        with pytest.raises(OvsegError, match=said):
            scored(place, proposals=named)


def test_every_score_but_the_harmonic_one_is_there_without_a_class_split(place):
    result = scored(place, data=("./mini.toml:none",), limit=2).result
    scores = result.scores()
    assert (
        scores["hTop1"] is None and scores["top1"] is not None and set(result.document()["scores"]["union"]) == {"all"}
    )
    assert np.isclose(scores["top1"], 100 * result.named.is_right.mean(), atol=1e-4)
