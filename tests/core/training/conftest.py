"""Nine small pictures, prepared once a file, and their proposals."""

from pathlib import Path

import pytest

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.proposals.store import ProposalStore
from tests.core.training.pictures import make_data, make_proposals


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nine")


@pytest.fixture(scope="module")
def pictures(folder: Path) -> SegmentationData:
    return make_data(folder)


@pytest.fixture(scope="module")
def store(folder: Path, pictures: SegmentationData) -> ProposalStore:
    return make_proposals(folder / "masks", pictures)
