"""A model becomes counts: against counting by hand, with several protocols, stopped and continued."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.evaluation.evaluate import STAGES, describe_readout, evaluate, read_readout
from ovseg_cli.core.evaluation.result_files import to_document
from ovseg_cli.core.evaluation.results import Facts, Result
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import DensePrediction, Readout, Sample, TextFeatures, Vocabulary

VOCABULARY = Vocabulary(
    ("sky", "road", "cat", "dog"), (("sky",), ("road",), ("cat",), ("dog",)), unseen=(False, False, True, True),
    is_thing=(False, False, True, True),
)  # fmt: skip
TEXT = TextFeatures.of_classes(torch.eye(4))
FACTS = Facts(method="oracle", data="toy:combo", subset="val", protocol={"side": 8}, fingerprints={"data": "d"})
READOUTS = {
    "all": Readout(),
    "unseen": Readout(candidates=(2, 3)),
    "penalty": Readout(seen_penalty=5.0, seen_ids=(0, 1)),
}


class Pictures:
    """Pictures whose red channel holds the label, so that a model can read it."""

    ignore_label = 255

    def __init__(self, number=25, shift=0):
        self.names = [f"p{i:02d}" for i in range(number)]
        self.shift = shift
        self.read = []

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        height, width = 6 + index % 3, 9
        image = torch.randint(0, 4, (3, height, width), generator=generator, dtype=torch.uint8)
        label = (image[0].long() + self.shift) % 4
        label[0, 0] = 255
        self.read.append(self.names[index])
        return Sample(self.names[index], image, label)


class Reader:
    """Says what the red channel says on two pixels of three, else what green says; fails after some pictures."""

    def __init__(self, fail_after=None):
        self.seen, self.fail_after = 0, fail_after

    def predict(self, images, text):
        assert text is TEXT
        found = []
        for image in images:
            if self.seen == self.fail_after:
                raise KeyboardInterrupt
            self.seen += 1
            height, width = image.shape[1:]
            ids = torch.where(torch.arange(width) % 3 < 2, image[0], image[1]).long()
            found.append(DensePrediction(F.one_hot(ids, 4).permute(2, 0, 1) * 8.0, (height, width)))
        return found


def run(model=None, data=None, readouts=READOUTS, reporter=None, **options):
    return evaluate(
        model or Reader(),
        Pictures() if data is None else data,
        VOCABULARY,
        TEXT,
        readouts,
        FACTS,
        reporter or Silent(),
        **options,
    )


def test_counts_equal_counting_by_hand():
    data = Pictures()
    results = run(data=data)
    expected = torch.zeros(4, 4, dtype=torch.long)
    for sample in (data[i] for i in range(len(data))):
        ids = Reader().predict([sample.image], TEXT)[0].logits.argmax(0)
        for truth, predicted in zip(sample.label.flatten().tolist(), ids.flatten().tolist(), strict=True):
            if truth != 255:
                expected[truth, predicted] += 1
    assert results["all"].matrix.tolist() == expected.tolist()
    assert results["all"].images == tuple(data.names)


def test_readouts_of_one_forward_pass_are_results_of_their_own():
    model = Reader()
    results = run(model)
    assert model.seen == 25 and set(results) == set(READOUTS)
    assert results["unseen"].matrix[:, :2].sum() == 0
    assert results["penalty"].protocol["seen_penalty"] == 5.0 and results["penalty"].protocol["side"] == 8
    prints = {result.fingerprints["protocol"] for result in results.values()}
    assert len(prints) == 3 and all(r.fingerprints["data"] == "d" for r in results.values())


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_change_nothing(batch_size):
    documents = [to_document(run(batch_size=n)["all"])["counts"] for n in (4, batch_size)]
    assert documents[0] == documents[1]


def test_limit_takes_the_first_pictures():
    data = Pictures()
    assert run(data=data, limit=7)["all"].images == tuple(data.names[:7])
    assert set(data.read) <= set(data.names[:8])


def test_result_says_how_it_came_about(tmp_path):
    result = run()["all"]
    assert set(result.timing) == set(STAGES) and all(seconds >= 0 for seconds in result.timing.values())
    assert result.version and result.created.startswith("20") and result.ignore_label == 255
    assert result.protocol["candidates"] == "all" and result.unseen == VOCABULARY.unseen
    result.save(tmp_path / "r.json")
    assert Result.load(tmp_path / "r.json").metrics() == result.metrics()


def test_candidates_are_described_by_their_set():
    found = [describe_readout(Readout(candidates=c), VOCABULARY)["candidates"] for c in (None, (3, 2), (0, 1), (1, 2))]
    assert found == ["all", "unseen", "seen", [1, 2]]
    assert describe_readout(Readout(candidates=(0, 1, 2, 3)), VOCABULARY)["candidates"] == "all"


@pytest.mark.parametrize(
    "readout",
    [
        Readout(),
        Readout(candidates=tuple(VOCABULARY.unseen_ids)),
        Readout(candidates=(0, 1, 2)),
        Readout(seen_penalty=0.2, seen_ids=tuple(VOCABULARY.seen_ids)),
        Readout(softmax_scale=40.0, threshold=0.3, background=VOCABULARY.background),
    ],
)
def test_a_stored_protocol_is_read_back(readout):
    assert read_readout(describe_readout(readout, VOCABULARY), VOCABULARY) == readout


def test_below_chance_stops_with_the_likely_causes():
    data = Pictures(shift=1)
    with pytest.raises(
        DataError, match="oracle on toy:combo: pixel accuracy .* below chance .25.00 % with 4 names"
    ) as e:
        run(data=data, batch_size=5)
    assert "labels shifted by one" in str(e.value) and "--force" in str(e.value)
    assert len(set(data.read)) <= 25  # the rest was never scored
    assert run(data=Pictures(shift=1), force=True)["all"].metrics()["pAcc"] < 0.25


def test_too_few_pictures_below_chance_are_a_warning():
    reporter = Silent()
    run(data=Pictures(5, shift=1), reporter=reporter)
    assert len(reporter.warnings) == 1 and "on the first 5 pictures is below chance" in reporter.warnings[0]


def test_chance_counts_only_pixels_that_could_be_found():
    # unseen candidates alone: on unseen pixels two thirds are right, over all pixels only a third would be
    run(readouts={"unseen": Readout(candidates=(2, 3))})


def test_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    journal, whole = tmp_path / "results" / ".part.jsonl", run()
    with pytest.raises(KeyboardInterrupt):
        run(Reader(fail_after=12), batch_size=4, journal=journal)
    with open(journal, "a") as stream:
        stream.write('{"image": "p23", "coun\n{"image": "p24", "counts": {"al')  # killed while writing, twice
    model = Reader()
    continued = run(model, batch_size=4, journal=journal)
    assert model.seen == 25 - 12
    for name in READOUTS:
        assert to_document(continued[name])["counts"] == to_document(whole[name])["counts"]


def test_finished_journal_needs_no_model(tmp_path):
    run(journal=tmp_path / "j")
    model = Reader()
    assert run(model, journal=tmp_path / "j")["all"].matrix.sum() > 0 and model.seen == 0


def test_another_command_for_the_same_scores_continues_them(tmp_path):
    run(journal=tmp_path / "j")
    model, facts = Reader(), replace(FACTS, command="ovseg eval --json", notes=("again",))
    evaluate(model, Pictures(), VOCABULARY, TEXT, READOUTS, facts, Silent(), journal=tmp_path / "j")
    assert model.seen == 0
    other = replace(FACTS, fingerprints={"data": "changed"})
    evaluate(model, Pictures(), VOCABULARY, TEXT, READOUTS, other, Silent(), journal=tmp_path / "j")
    assert model.seen == 25


def test_journal_of_another_evaluation_is_begun_anew(tmp_path):
    run(journal=tmp_path / "j", readouts={"all": Readout()})
    model = Reader()
    run(model, journal=tmp_path / "j", readouts={"all": Readout(candidates=(0, 1, 2))})
    assert model.seen == 25
    (tmp_path / "j").write_bytes(b"\xff\x00 not a journal")
    model = Reader()
    run(model, journal=tmp_path / "j")
    assert model.seen == 25 and json.loads((tmp_path / "j").read_text().splitlines()[1])["image"] == "p00"


def test_label_of_another_size_decides_the_size():
    class Larger(Pictures):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            label = sample.label.repeat_interleave(2, 0).repeat_interleave(2, 1)
            return replace(sample, label=label)

    result = run(data=Larger())["all"]
    assert result.matrix.sum() == 4 * run()["all"].matrix.sum()


def test_picture_without_label_is_named():
    class Unlabelled(Pictures):
        def __getitem__(self, index):
            return replace(super().__getitem__(index), label=None)

    with pytest.raises(DataError, match="p00: this picture has no label"):
        run(data=Unlabelled())


def test_no_picture_is_an_error():
    with pytest.raises(UsageError, match="subset val has no picture"):
        run(data=Pictures(0))


def test_picture_that_cannot_be_read_stops_the_evaluation_with_its_own_message():
    class Broken(Pictures):
        def __getitem__(self, index):
            if index == 6:
                raise DataError("p06.png: truncated")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="p06.png: truncated"):
        run(data=Broken())
