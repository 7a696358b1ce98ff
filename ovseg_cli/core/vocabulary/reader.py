"""Which model reads the names, and what are its text features? The CLIP of a run, of a method, or one by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovseg_cli.core.vocabulary.class_list import ClassList
from ovseg_cli.core.vocabulary.features import Features, Yardstick, yardstick
from ovseg_cli.core.vocabulary.words import plural

if TYPE_CHECKING:
    from ovseg_cli.core.clip.model import ClipModel
    from ovseg_cli.core.reporter import Reporter
    from ovseg_cli.core.runtime import Folders

PLAIN = "clip"
"""The method whose sentences are taken where only a CLIP is named."""


@dataclass(frozen=True)
class Reader:
    """A text tower and the sentences that it reads names in.

    Attributes:
        clip: Encodes.
        templates: Sentences with one `{}` each.
        cache: Folder of the disk cache, or None.
    """

    clip: "ClipModel"
    templates: tuple[str, ...]
    cache: Path | None = None

    def read(self, texts: Sequence[Sequence[str]]) -> Features:
        """Return (K, D) float64 features, unit length; synonyms are averaged, as methods do."""
        from ovseg_cli.core.clip.text import text_features
        from ovseg_cli.core.types import Vocabulary

        if not texts:
            return np.zeros((0, self.clip.embed_dim))
        rows = tuple(tuple(row) for row in texts)
        vocabulary = Vocabulary(tuple(row[0] for row in rows), rows, self.templates)
        features = text_features(self.clip, vocabulary, self.cache).features.double().cpu().numpy()
        return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))

    def sentences(self, text: str) -> list[str]:
        """Return what the tower reads for a text."""
        return [template.format(text) for template in self.templates]

    def unknown(self, text: str) -> list[str]:
        """Return words that the tower was never trained on."""
        return self.clip.tokenizer.unknown([text])

    def is_cut(self, text: str) -> bool:
        """Whether the end of a sentence does not fit."""
        return bool(self.clip.tokenizer.too_long(self.sentences(text)))

    def tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text by itself."""
        return [tuple(row) for row in self.clip.tokenize(list(texts)).tolist()]

    def yardstick(self, texts: Sequence[Sequence[str]], features: Features) -> Yardstick | None:
        """Return from which cosine on names are alike; see `features.yardstick`.

        Plurals that the tower cannot read, and those that are a class of the list themselves, are left out.
        """
        names = {text for row in texts for text in row}
        singles = [(i, row[0], plural(row[0])) for i, row in enumerate(texts) if len(row) == 1 and "," not in row[0]]
        known = [(i, many) for i, one, many in singles if many not in names and not self.unknown(f"{one} {many}")]
        return yardstick(features, self.read([[many] for _, many in known]), [i for i, _ in known])


def find_reader(
    classes: ClassList,
    model: str | None,
    clip: str | None,
    pretrained: str | None,
    folders: "Folders",
    reporter: "Reporter",
) -> Reader | None:
    """Load the CLIP that is named, else that of the list's run, else the one of its data set.

    Args:
        classes: The list.
        model: `--model`: a method or a run.
        clip: `--clip`.
        pretrained: `--pretrained`.
        folders: Where runs and the cache lie.
        reporter: Told which weights are used.

    Returns:
        None where nothing says which.

    Raises:
        UsageError: There is no such model.
        MachineError: Its weights are missing.
    """
    spec = classes.choice.spec if classes.choice else None
    if not any((model, clip, pretrained, classes.run, spec and spec.preset.clip)):
        return None

    from ovseg_cli.core import registry  # what follows imports torch
    from ovseg_cli.core.clip.model import load_clip
    from ovseg_cli.core.methods.build import choose_model
    from ovseg_cli.core.methods.texts import default_templates

    named = model or (_as_model(classes) if clip is None and pretrained is None else PLAIN)
    choice = choose_model(named, folders.runs, spec, clip, pretrained)
    method = registry.METHODS[choice.method].load()
    kept = choice.run.config.get("vocabulary", {}).get("templates") if choice.run else None
    templates = tuple(kept or default_templates(method, spec.preset.templates if spec else None))
    return Reader(load_clip(choice.clip, choice.pretrained, reporter=reporter), templates, folders.cache)


def _as_model(classes: ClassList) -> str:
    return classes.run.as_model if classes.run else PLAIN
