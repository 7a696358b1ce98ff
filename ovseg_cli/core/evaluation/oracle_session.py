"""What `ovseg eval --task oracle` does: four label maps of each picture, and what holds the method back."""

from ovseg_cli.core.evaluation import mask_session
from ovseg_cli.core.evaluation import request as requests
from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.journal import Journal
from ovseg_cli.core.evaluation.mask_cache import cached_masks
from ovseg_cli.core.evaluation.mask_job import MaskJob, Scored
from ovseg_cli.core.evaluation.mask_sources import MaskSource, TruthMasks
from ovseg_cli.core.evaluation.names import readout_of
from ovseg_cli.core.evaluation.oracle import RUNGS, climb, maps_of_masks, maps_of_method
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.evaluation.session import Job
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import Sample


class OwnMasks(TruthMasks):
    """Stands for the masks that a method makes itself."""

    name = "own"

    @property
    def digest(self) -> str:
        """Always the same: the method's settings and weights tell the rest."""
        return digest_of(["own-masks-1"])


def resolve(
    request: requests.EvalRequest, proposals: str | None, folders: Folders, reporter: Reporter
) -> mask_session.MaskPlan:
    """Check every name of a request; raises what `mask_session.resolve` raises."""
    given = proposals is not None
    plan = mask_session.resolve(request, proposals, folders, reporter, given)
    sources = plan.sources if given else tuple(OwnMasks(0) for _ in plan.sources)
    return mask_session.MaskPlan(plan.models, sources, OracleResult.folder)


def score(plan: mask_session.MaskPlan, folders: Folders, reporter: Reporter) -> list[Scored[OracleResult]]:
    """Climb the ladder on each data set; as `mask_session.score`, in `results/oracle`."""
    return plan.run(_score_one, folders, reporter)


def _score_one(job: Job, source: MaskSource) -> Scored[OracleResult]:
    is_own = isinstance(source, OwnMasks)
    own = MaskJob.open(job, source, OracleResult.folder, keep_source=is_own)
    ignored, size = own.data.ignore_label, own.vocabulary.num_classes + 1
    truth = TruthMasks(ignored)
    of_method = maps_of_method(job.method, own.text, readout_of(job.request, own.vocabulary, job.method))

    def act(sample: Sample) -> dict[str, Counts]:
        found = of_method if is_own else maps_of_masks(source.masks(sample), own.namer)
        return climb(sample, truth.masks(sample), own.namer, found, ignored)

    remembered = Journal(own.journal, own.key, size, job.group.rank)
    with cached_masks(job.method if is_own else None, own.data, job.folders, job.reporter):
        found, timing = own.go_through(remembered, act, "oracle")
    counts = {rung: CountTable.of(list(found), [one[rung] for one in found.values()], size) for rung in RUNGS}
    return own.keep(OracleResult.of(own.facts, own.vocabulary, source.facts(), timing, counts=counts))
