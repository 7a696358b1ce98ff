"""A finished run, opened for a measurement: its model, the names of a data set as it reads them, and pictures."""

from dataclasses import dataclass
from typing import Any

from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.methods.build import build_method, choose_model
from ovseg_cli.core.methods.texts import default_templates, method_text
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import TextFeatures, Vocabulary


@dataclass(frozen=True)
class Finished:
    """A run's model, and what it is measured on."""

    method: Any
    vocabulary: Vocabulary
    text: TextFeatures
    pictures: SegmentationData


def open_finished(run: str, data: str, subset: str, places: Folders) -> Finished:
    """Open a run and a subset of a data set (`NAME[:CLASS_SPLIT]`)."""
    choice = find_data(data, None, places)
    method = build_method(choose_model(run, places.runs, choice.spec))
    vocabulary = choice.spec.vocabulary(
        choice.split, default_templates(type(method), choice.spec.preset.templates, choice.spec.name)
    )
    pictures = PreparedData.open(choice.spec, places).subset(subset, None)
    return Finished(method, vocabulary, method_text(method, vocabulary), pictures)
