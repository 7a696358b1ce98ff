"""Masks of a whole cache with the very key are read; of any other they are made anew."""

import pytest

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.mask_cache import cached_masks
from ovseg_cli.core.methods.sources import GeneratorSource, StoreSource
from ovseg_cli.core.proposals.request import ProposeRequest, resolve
from ovseg_cli.core.proposals.session import propose
from ovseg_cli.core.reporter import Silent
from tests.core.data.handmade import folders_of, make_source, make_spec
from tests.core.methods.tiny_methods import tiny_method


@pytest.fixture
def place(tmp_path):
    from ovseg_cli.core.data.prepare import prepare

    folders, spec = folders_of(tmp_path), make_spec(tmp_path / "spec")
    prepare(spec, folders, source=make_source(tmp_path / "source"), workers=1)
    return folders, PreparedData.open(spec, folders)


def make(folders, spec_path, **settings):
    request = ProposeRequest(
        "superpixels", spec_path, "train", settings=settings, workers=1, limit=settings.pop("n", None)
    )
    return propose(resolve(request, folders, Silent()), folders, Silent()).store


def source_in(method, data, folders):
    with cached_masks(method, data, folders, Silent()):
        return method.source


def method_with(**settings):
    method = tiny_method("maft")
    method.set_source(GeneratorSource.make("superpixels", settings, "cpu", Silent()))
    return method


def test_whole_cache_is_read_while_the_block_runs_and_no_longer(place, tmp_path):
    folders, prepared = place
    store = make(folders, "mini")
    method = method_with()
    own = method.source
    with cached_masks(method, prepared.subset("train"), folders, Silent()):
        assert isinstance(method.source, StoreSource) and method.source.stores[0].folder == store.folder
    assert method.source is own


def test_other_settings_another_subset_or_an_unfinished_cache_are_not_read(place, tmp_path):
    folders, prepared = place
    make(folders, "mini")
    data = prepared.subset("train")
    assert isinstance(source_in(method_with(), data, folders), StoreSource)
    for method, pictures in ((method_with(max_masks=3), data), (method_with(), prepared.subset("val"))):
        assert isinstance(source_in(method, pictures, folders), GeneratorSource)
    make(folders, "mini", max_masks=5, n=1)
    assert isinstance(source_in(method_with(max_masks=5), data, folders), GeneratorSource)
    make(folders, "mini", max_masks=5)
    assert isinstance(source_in(method_with(max_masks=5), data, folders), StoreSource)


def test_methods_with_masks_of_their_own_are_left_alone(place, tmp_path):
    folders, prepared = place
    for name in ("freeseg", "maskclip"):
        with cached_masks(tiny_method(name), prepared.subset("train"), folders, Silent()):
            pass


def test_cache_beside_the_training_subset_s_is_read_and_a_missing_one_is_said_with_its_command(place):
    folders, prepared = place
    trained_on = make(folders, "mini")
    method = tiny_method("maft")
    method.set_source(StoreSource([trained_on]))
    with pytest.raises(DataError, match="masks of subset 'train', not of 'val'") as failure:
        source_in(method, prepared.subset("val"), folders)
    assert "--subset val" in str(failure.value.mend)
    request = ProposeRequest("superpixels", "mini", "val", workers=1)
    beside = propose(resolve(request, folders, Silent()), folders, Silent()).store
    assert source_in(method, prepared.subset("val"), folders).stores[0].folder == beside.folder
    assert source_in(method, prepared.subset("train"), folders).stores[0].folder == trained_on.folder
