"""A whole spec: one label space with its classes, splits, encoding and layouts, and what can be asked of it.

Imports neither torch nor numpy until a vocabulary or a lookup table is asked for.
"""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from ovseg_cli.core.data.spec_files import Download, Encoding, Layout, License, Subset, pack_color
from ovseg_cli.core.data.spec_models import Background, ClassSpec, ClassSplit, NameVariant, OtherLabel, Preset
from ovseg_cli.core.data.spec_types import Name, Part, Slug
from ovseg_cli.core.errors import UsageError, nearest, unknown_name
from ovseg_cli.core.files import digest_of

if TYPE_CHECKING:
    import numpy as np

    from ovseg_cli.core.data.encodings.table import RawTable
    from ovseg_cli.core.types import Vocabulary

CANONICAL = "canonical"


class Spec(Part):
    """One label space, `data_specs/NAME.toml`; classes stand in train-id order.

    Attributes:
        schema_: Version of the schema (key `schema`).
        ignore_label: Value of unlabelled pixels in converted labels; None for class-agnostic masks.
        default_split: Class split that is taken where none is named; None: all classes are seen.
        default_variant: Name variant that vocabularies take where none is named; None: the canonical names.
        download_folder: Folder that data sets of the same files share for them; None: a folder of its own.
        generator: Name in `registry.GENERATORS` for data that is drawn instead of downloaded.
        extra: Further facts; read by people only.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    name: Slug
    title: Name
    task: Literal["semantic", "class-agnostic-masks"] = "semantic"
    aliases: list[Slug] = []
    homepage: str | None = None
    ignore_label: int | None = Field(None, ge=0, le=65535)
    label_dtype: Literal["uint8", "uint16"] | None = None
    default_split: Slug | None = None
    default_variant: Slug | None = None
    generator: Slug | None = None
    notes: list[str] = []
    disagreements: list[str] = []
    license: License | None = None
    download_folder: Slug | None = None
    downloads: list[Download] = []
    background: Background | None = None
    subsets: dict[Slug, Subset] = {}
    encoding: Encoding | None = None
    layouts: list[Layout] = []
    preset: Preset = Preset()
    classes: list[ClassSpec] = []
    other_raw_labels: list[OtherLabel] = []
    class_splits: list[ClassSplit] = []
    name_variants: list[NameVariant] = []
    extra: dict[str, Any] = {}
    _typed: str | None = PrivateAttr(None)

    @property
    def typed(self) -> str:
        """How a user names it on the command line: its name, or the path of a spec of the user's own."""
        return self._typed or self.name

    def typed_as(self, text: str) -> "Spec":
        """Return the same spec for a user who typed `text`."""
        copy = self.model_copy()
        copy._typed = text
        return copy

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def class_names(self) -> list[str]:
        """K canonical names in train-id order."""
        return [c.name for c in self.classes]

    def ids(self, names: Iterable[str]) -> list[int]:
        """Return the train ids of class names, ascending; an unknown name raises UsageError."""
        place = {c.name: i for i, c in enumerate(self.classes)}
        return sorted(place[name] if name in place else self._no_class(name) for name in names)

    def _no_class(self, name: str) -> int:
        raise no_class(f"{self.name}: class", name, self.class_names)

    def split(self, split_id: str) -> ClassSplit:
        """Return a class split by id.

        Raises:
            UsageError: There is none of that id; the message offers the nearest, or a split of the user's own.
        """
        by_id = {s.id: s for s in self.class_splits}
        if split_id in by_id:
            return by_id[split_id]
        what = f"data set '{self.name}' has no class split '{split_id}'."
        if not by_id:
            raise UsageError(what, f'It has none at all; make one of your own: --data {self.name} --unseen "a, b".')
        hit = nearest(split_id, by_id)
        near = f"Did you mean '{hit}'? " if hit else ""
        raise UsageError(what, f'{near}Known: {", ".join(by_id)}; or one of your own: --unseen "a, b".')

    def seen_ids(self, split: ClassSplit | None) -> list[int]:
        """Train ids that training sees; all without a split. A split's `val` classes are not among them."""
        hidden = set(split.hidden) if split else set()
        return [i for i, c in enumerate(self.classes) if c.name not in hidden]

    def unseen_ids(self, split: ClassSplit | None) -> list[int]:
        """Train ids of unseen classes; none without a split."""
        return self.ids(split.unseen) if split else []

    def hidden_ids(self, split: ClassSplit | None) -> list[int]:
        """Train ids that become `ignore_label` in training labels: unseen and val."""
        return self.ids(split.hidden) if split else []

    def variant(self, variant_id: str | None = None) -> NameVariant | None:
        """Return a name variant by id; None is the default one, "canonical" the names themselves (returns None)."""
        wanted = variant_id or self.default_variant
        by_id = {v.id: v for v in self.name_variants}
        if wanted is None or wanted == CANONICAL:
            return None
        if wanted not in by_id:
            raise unknown_name("name variant", wanted, [CANONICAL, *by_id], where=f"{self.name}: ")
        return by_id[wanted]

    def texts(self, variant_id: str | None = None) -> list[list[str]]:
        """For each class the texts that are encoded, at least one, as the name variant says."""
        variant = self.variant(variant_id)
        if variant is None:
            use_synonyms = variant_id != CANONICAL
            return [list(c.synonyms) if c.synonyms and use_synonyms else [c.name] for c in self.classes]
        if variant.kind == "comma-parts":
            return [[part.strip() for part in c.name.split(",")] for c in self.classes]
        return [list(variant.entries.get(c.name, [c.name])) for c in self.classes]

    def vocabulary(
        self, split: ClassSplit | None = None, templates: Sequence[str] | None = None, variant: str | None = None
    ) -> "Vocabulary":
        """Build the vocabulary of this label space.

        Args:
            split: Marks unseen classes; None marks none.
            templates: Sentences with one `{}` each; None: the spec's preset, else the default of `Vocabulary`.
            variant: Id of a name variant, "canonical", or None for the spec's default.

        Raises:
            UsageError: The variant is unknown, or the task has no classes.
        """
        from ovseg_cli.core.types import Vocabulary

        if not self.classes:
            raise UsageError(
                f"{self.name} holds class-agnostic masks and has no classes.", "Give --classes of your own."
            )
        chosen = self.variant(variant)
        things = tuple(bool(c.is_thing) for c in self.classes)
        unseen = set(self.unseen_ids(split))
        sentences = tuple(templates or self.preset.templates or ())
        return Vocabulary(
            class_names=tuple(self.class_names),
            synonyms=tuple(tuple(texts) for texts in self.texts(variant)),
            unseen=tuple(i in unseen for i in range(self.num_classes)),
            is_thing=things if all(c.is_thing is not None for c in self.classes) else None,
            background=self.background.train_id if self.background else None,
            synonym_rule=chosen.synonym_rule if chosen else "mean",
            **({"templates": sentences} if sentences else {}),
        )

    def encoding_of(self, layout: Layout | None = None) -> Encoding:
        """Return how labels are stored in a layout; drawn data is stored as train ids."""
        own = layout.encoding if layout else None
        return own or self.encoding or Encoding(kind="label-png", bits=8, raw_ids="train-ids")

    def raw_ids(self, layout: Layout | None = None) -> list[int | None]:
        """Return the raw value of each class in a layout's label files, in train-id order."""
        encoding = self.encoding_of(layout)
        if encoding.raw_ids == "train-ids":
            return list(range(self.num_classes))
        if encoding.rgb_rule == "color":
            return [None if c.color is None else pack_color(c.color) for c in self.classes]
        return list(encoding.raw_ids) if encoding.raw_ids is not None else [c.raw_id for c in self.classes]

    def raw_table(self, layout: Layout | None = None) -> "RawTable":
        """Return what each raw value in a layout's label files becomes."""
        from ovseg_cli.core.data.encodings.table import UNKNOWN, RawTable

        encoding = self.encoding_of(layout)
        ignore = UNKNOWN if self.ignore_label is None else self.ignore_label
        background = self.background.train_id if self.background else UNKNOWN
        fill = {"refuse": UNKNOWN, "ignore": ignore, "background": background}[encoding.elsewhere]
        pairs = dict.fromkeys([*encoding.ignore_raw, *map(pack_color, encoding.ignore_colors)], ignore)
        pairs |= dict.fromkeys(encoding.background_raw, background)
        if encoding.raw_ids == "train-ids" and 0 <= ignore < encoding.limit:
            pairs[ignore] = ignore
        classes = ((raw, train_id) for train_id, raw in enumerate(self.raw_ids(layout)) if raw is not None)
        return RawTable({**pairs, **dict(classes)}, fill, encoding.limit)

    def raw_to_train(self, layout: Layout | None = None) -> "np.ndarray[Any, Any]":
        """Return the lookup table from raw values to train ids.

        Returns:
            (`Encoding.limit`,) int32: the train id, `ignore_label` where the encoding says ignore, -1 where a value is
            outside the spec.
        """
        return self.raw_table(layout).dense()

    def digest(self) -> str:
        """Fingerprint of everything that changes converted labels: classes, raw values, ignore label, encodings."""
        by_color = any(e.rgb_rule == "color" for e in [self.encoding_of(), *self._own_encodings()])
        parts: dict[str, Any] = {
            "classes": [[c.name, c.raw_id, c.color if by_color else None] for c in self.classes],
            "ignore": [self.ignore_label, self.label_dtype],
            "background": self.background.train_id if self.background else None,
            "encodings": [e.facts() for e in [self.encoding_of(), *self._own_encodings()]],
            "generator": self.generator,
        }
        return digest_of(["spec-1", json.dumps(parts, sort_keys=True)])

    def _own_encodings(self) -> list[Encoding]:
        return [layout.encoding for layout in self.layouts if layout.encoding]


def no_class(what: str, name: str, known: Sequence[str]) -> UsageError:
    """Build the error for a name that is not a class, offering the nearest one.

    Args:
        what: Begin of the sentence, for instance "data_specs/toy.toml: unseen class".
        name: The name as written.
        known: All class names.
    """
    hit = nearest(name, known)
    mend = f"Did you mean '{hit}'?" if hit else f"Known: {', '.join(known[:12])}{' …' if len(known) > 12 else ''}."
    return UsageError(f"{what} '{name}' is not one of the {len(known)} classes.", mend)
