"""How what was found about masks is kept: one JSON file, readable without us, from which every score follows.

The base of `MaskResult` and `OracleResult`, which say what is readable and which arrays are packed (see
`result_files` for the packing). A line for each key; whole or not there at all.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.files import read_json, write_text
from ovseg_cli.core.types import Vocabulary

_TUPLES = ("notes", "class_names", "unseen")


@dataclass(frozen=True, kw_only=True, eq=False)
class MasksFile(Facts, ABC):
    """One evaluation of one model on the masks of one data set.

    Attributes:
        class_names: K names in train-id order.
        unseen: K flags.
        masks: Where the masks came from.
        timing: Seconds for each stage.
        created: When it ended, ISO 8601, UTC.
        version: Version of ovseg.
    """

    schema: ClassVar[int] = 1
    kind: ClassVar[str]
    folder: ClassVar[str]
    """In a run's `results`; what lies in there is no result of label maps."""
    what: ClassVar[str]
    mend: ClassVar[str]

    class_names: tuple[str, ...]
    unseen: tuple[bool, ...]
    masks: dict[str, Any]
    timing: dict[str, float] = field(default_factory=dict)
    created: str = ""
    version: str = ""

    @classmethod
    def of(
        cls, facts: Facts, vocabulary: Vocabulary, masks: dict[str, Any], timing: dict[str, float], **own: Any
    ) -> Self:
        """Put a result together when the last picture is done."""
        return cls(
            **{part.name: getattr(facts, part.name) for part in fields(Facts)},
            class_names=vocabulary.class_names,
            unseen=tuple(vocabulary.unseen),
            masks=masks,
            timing=timing,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            **own,
        )

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Return scores as JSON values."""

    @abstractmethod
    def packed(self) -> dict[str, Any]:
        """Return names of pictures and packed arrays as JSON values."""

    @classmethod
    @abstractmethod
    def unpacked(cls, document: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
        """Return the fields that `packed` holds; raises ValueError where they do not fit together."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Sets of classes that are scored: seen and unseen ones only where both exist."""
        return ("all", "seen", "unseen") if any(self.unseen) else ("all",)

    def document(self) -> dict[str, Any]:
        """Return all that is readable as JSON values."""
        plain = {part.name: getattr(self, part.name) for part in fields(MasksFile)}
        return {"schema": self.schema, "kind": self.kind, **plain, **self.summary()}

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all: one line for each key.

        Raises:
            MachineError: The file cannot be written.
        """
        whole = {**self.document(), **self.packed()}
        lines = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False, allow_nan=False)}" for k, v in whole.items())
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a result; its scores are computed anew.

        Raises:
            DataError: The file is missing, broken, of another schema or of another kind.
        """
        document = read_json(path, f"the result of {cls.what}", cls.mend)
        try:
            if document["kind"] != cls.kind or document["schema"] != cls.schema:
                raise DataError(f"{path}: is no result of {cls.what} of schema {cls.schema}.", cls.mend)
            plain = {part.name: document[part.name] for part in fields(MasksFile)}
            plain |= {name: tuple(plain[name]) for name in _TUPLES}
            return cls(**plain, **cls.unpacked(document, len(plain["class_names"])))
        except DataError as error:
            raise DataError(f"{path}: {error.message.removeprefix(f'{path}: ')}", error.mend) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: is broken ({type(error).__name__}: {error}).", cls.mend) from error
