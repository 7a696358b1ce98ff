"""What `ovseg eval` makes of a request: readout, vocabulary, runs that go on, notes, seeds."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ovseg_cli.core.clip.prompts import IMAGENET_SELECT, PHOTO
from ovseg_cli.core.data.specs import parse_data
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.evaluation import session
from ovseg_cli.core.evaluation.facts import _clip_of
from ovseg_cli.core.evaluation.names import readout_of, vocabulary_of
from ovseg_cli.core.evaluation.request import EvalRequest, resolve, result_name
from ovseg_cli.core.evaluation.session import score
from ovseg_cli.core.methods.clip import Clip
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runs import create_run
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.types import Readout, Vocabulary
from tests.core.data import handmade
from tests.core.evaluation.drawn import Stopping

VOCABULARY = Vocabulary(
    ("sky", "cat", "dog"), (("sky",), ("cat",), ("dog",)), unseen=(False, True, False), background=0
)
METHOD = SimpleNamespace(probability_scale=50.0, seen_penalty=0.0, background_threshold=None)


def test_a_method_s_own_penalty_is_taken_where_the_user_gives_none_and_where_classes_are_unseen():
    calibrated = SimpleNamespace(probability_scale=1.0, seen_penalty=0.1, background_threshold=None)
    assert readout_of(EvalRequest(), VOCABULARY, calibrated).seen_penalty == 0.1
    assert readout_of(EvalRequest(seen_penalty=0.0), VOCABULARY, calibrated) == Readout()
    no_split = Vocabulary(("sky", "cat"), (("sky",), ("cat",)))
    assert readout_of(EvalRequest(), no_split, calibrated) == Readout()


def test_readout_of_a_plain_request_lets_all_compete():
    assert readout_of(EvalRequest(), VOCABULARY, METHOD) == Readout()


def test_penalty_applies_to_seen_ids():
    readout = readout_of(EvalRequest(seen_penalty=0.5), VOCABULARY, METHOD)
    assert (readout.seen_penalty, readout.seen_ids, readout.candidates) == (0.5, (0, 2), None)


@pytest.mark.parametrize(("candidates", "ids"), [("all", None), ("seen", (0, 2)), ("unseen", (1,))])
def test_candidates_are_the_ids_of_their_set(candidates, ids):
    assert readout_of(EvalRequest(candidates=candidates), VOCABULARY, METHOD).candidates == ids


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_threshold_comes_with_the_method_s_scale_and_the_background(threshold):
    readout = readout_of(EvalRequest(background_threshold=threshold), VOCABULARY, METHOD)
    assert (readout.threshold, readout.softmax_scale, readout.background) == (threshold, 50.0, 0)


def test_templates_are_the_request_s_else_the_spec_s_else_the_photo():
    toy, camvid = parse_data("toy"), parse_data("camvid")
    assert list(vocabulary_of(toy, EvalRequest(), Clip).templates) == toy.spec.preset.templates
    assert camvid.spec.preset.templates is None and vocabulary_of(camvid, EvalRequest(), Clip).templates == PHOTO
    for choice in (toy, camvid):
        assert vocabulary_of(choice, EvalRequest(templates="imagenet-select"), Clip).templates == IMAGENET_SELECT
        assert vocabulary_of(choice, EvalRequest(templates="a {}!"), Clip).templates == ("a {}!",)


def test_names_are_the_variant_s():
    choice = parse_data("ade20k-150")
    found = {
        variant.id: vocabulary_of(choice, EvalRequest(names=variant.id), Clip) for variant in choice.spec.name_variants
    }
    for name, vocabulary in found.items():
        assert vocabulary.synonyms == tuple(tuple(texts) for texts in choice.spec.texts(name))
    assert any(v.synonyms != vocabulary_of(choice, EvalRequest(), Clip).synonyms for v in found.values())


def test_unseen_flags_are_the_class_split_s():
    flags = {
        label: vocabulary_of(parse_data(label), EvalRequest(), Clip).unseen for label in ("toy:combo", "toy:novel")
    }
    assert flags["toy:combo"] != flags["toy:novel"]
    assert sum(vocabulary_of(parse_data("toy", "grass, snow"), EvalRequest(), Clip).unseen) == 2


@pytest.mark.parametrize(
    ("change", "stem"),
    [
        ({}, "toy-combo-val-all"),
        ({"candidates": "unseen"}, "toy-combo-val-unseen"),
        ({"seen_penalty": 0.25}, "toy-combo-val-all-gamma0.25"),
        ({"background_threshold": 0.0}, "toy-combo-val-all-thr0"),
        ({"limit": 7}, "toy-combo-val-all-first7"),
    ],
)
def test_result_is_named_after_what_makes_its_protocol(change, stem):
    assert result_name(parse_data("toy"), "val", EvalRequest(**change), "") == stem
    changed = result_name(parse_data("toy"), "tune", EvalRequest(**change), "ab12")
    assert changed == f"{stem}-ab12".replace("val", "tune")


# --- with prepared data -------------------------------------------------------------------------------------------


def scored(place, reporter=None, **options):
    folders = handmade.folders_of(place)
    asked = {"model": "clip", "data": ("./mini.toml",), "gpus": 0, "force": True, "settings": {"windows_per_batch": 1}}
    plan = resolve(EvalRequest(**{**asked, **options}), folders, reporter or Silent())
    return score(plan, folders, reporter or Silent())[0]


def test_interrupted_evaluation_goes_on_in_its_own_run(place):
    with pytest.raises(KeyboardInterrupt):
        scored(place, Stopping())
    (run,) = (place / "runs").iterdir()
    assert not (run / "finished").exists() and list(run.glob("results/*.unfinished.jsonl"))
    done = scored(place)
    assert done.path.parent.parent == run and (run / "finished").exists()
    assert [file.name for file in run.glob("results/*")] == [done.path.name]
    assert scored(place).path.parent.parent != run, "a finished one is left alone"


@pytest.mark.parametrize(
    "other", [{"settings": {"windows_per_batch": 1, "side": 40}}, {"clip": "copy"}, {"model": "maskclip"}, {"argv": 1}]
)
def test_interrupted_evaluation_of_another_kind_is_left_alone(place, monkeypatch, other):
    with pytest.raises(KeyboardInterrupt):
        scored(place, Stopping())
    (run,) = (place / "runs").iterdir()
    if other.pop("argv", None):
        monkeypatch.setattr("sys.argv", ["ovseg", "eval", "--limit", "4"])
    if "clip" in other:
        (place / "copy.safetensors").write_bytes(registry_asset().read_bytes())
        other["clip"] = "./copy.safetensors"
    assert scored(place, **other).path.parent.parent != run


def registry_asset() -> Path:
    import ovseg_cli

    return Path(ovseg_cli.__file__).parent / "assets" / "toy_clip.safetensors"


def test_named_run_is_not_called_finished_by_being_scored(place):
    first = scored(place).path.parent.parent
    (first / "finished").unlink()
    scored(place, model=str(first), settings={})
    assert not (first / "finished").exists()


def test_result_says_what_is_missing_and_what_was_left_out(place):
    result = scored(place, limit=4).result
    assert len(result.images) == 4 and len(result.notes) == 2
    assert "only 8 of the official 9 pictures" in result.notes[0] and "first 4 pictures" in result.notes[1]
    assert len(scored(place).result.images) == 8 and len(scored(place).result.notes) == 1


def test_result_names_split_seed_and_everything_that_makes_its_protocol(place):
    result = scored(place, seed=7).result
    assert (result.class_split, result.seed, result.protocol["clip"]) == ("no-dog", 7, "toy-clip")
    assert result.protocol["names"] is None and result.protocol["limit"] is None
    assert result.protocol["synonym_rule"] == "mean" and result.protocol["method"]["side"] == 32
    assert {"data", "weights", "vocabulary", "protocol"} <= set(result.fingerprints)
    assert result.environment["device"] == "cpu"


def test_own_class_split_of_a_run_holds_when_it_is_scored_again(place):
    first = scored(place, unseen="grass")
    assert [n for n, flag in zip(first.result.class_names, first.result.unseen, strict=True) if flag] == ["grass"]
    run = str(first.path.parent.parent)
    again = scored(place, model=run, data=(), settings={}, limit=5).result
    assert again.unseen == first.result.unseen
    other = scored(place, model=run, data=(), settings={}, unseen="cat", limit=6).result
    assert [n for n, flag in zip(other.class_names, other.unseen, strict=True) if flag] == ["cat"]


def test_seed_of_a_result_is_that_of_the_clip_that_was_trained_here(tmp_path):
    run = create_run(tmp_path, "toy-clip", "toy-clip", "toy", {}, seed=5)
    assert _clip_of(str(run.path), 1) == ("toy-clip", 5)
    assert _clip_of("toy-clip", 1) == ("toy-clip", 1)
    assert _clip_of(str(tmp_path / "weights.safetensors"), 1) == (str(tmp_path / "weights.safetensors"), 1)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"subset": "vale"}, "subset of"),
        ({"background_threshold": 0.5}, "no background class"),
        ({"data": ("sa-1b",)}, "masks without classes"),
        ({"data": ("./mini.toml", "camvid")}, "camvid"),
    ],
)
def test_senseless_request_is_refused_before_a_run_is_made(place, option, said):
    with pytest.raises(OvsegError, match=said):
        scored(place, **option)
    assert not (place / "runs").exists()


def test_plan_says_how_many_pictures_will_be_scored(place):
    folders = handmade.folders_of(place)
    for limit, images in ((None, 8), (3, 3), (100, 8)):
        plan = resolve(EvalRequest(model="clip", data=("./mini.toml",), limit=limit), folders, Silent())
        assert (plan.images, plan.subsets) == ((images,), ("val",))
        assert plan.models[0].settings == {"resize": "none", "side": 32}


def test_without_data_the_one_prepared_last_is_taken(place):
    plan = resolve(EvalRequest(model="clip"), handmade.folders_of(place), Silent())
    assert plan.data[0].spec.name == "mini"
    with pytest.raises(OvsegError, match="ovseg prepare toy"):
        resolve(EvalRequest(model="clip"), handmade.folders_of(place / "elsewhere"), Silent())


@pytest.mark.parametrize("is_finished", [False, True])
def test_processes_make_the_same_calls_whether_or_not_another_has_finished_the_run(monkeypatch, is_finished):
    """What the disk says may change between two processes' looks; only the main one may ask, inside the call."""
    calls, finished = [], []
    run = SimpleNamespace(is_finished=is_finished, finish=lambda: finished.append(True))

    class Counted(Group):
        def on_main(self, act):
            calls.append(True)
            return act()

    monkeypatch.setattr(session, "_Methods", lambda *_: SimpleNamespace(get=lambda model: None))
    monkeypatch.setattr(session, "_run_of", lambda *_: run)
    plan = SimpleNamespace(data=[None], models=[SimpleNamespace(run=None)], subsets=["val"], request=None)
    runtime = SimpleNamespace(notes=(), devices=("cpu",))
    session._for_each_data(plan, None, Silent(), runtime, Counted(), lambda job: None, False, None)
    assert len(calls) == 2 and len(finished) == (not is_finished)
