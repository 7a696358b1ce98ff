"""What a spec says about classes: names, splits, how papers name them, background, settings for methods.

These models know types and forms of values; rules between values are in `spec_checks.py`, reading is in `specs.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from ovseg_cli.core.data.spec_types import Color, Name, Part, Prompt, RawId, Slug
from ovseg_cli.core.files import digest_of

BY_SETTING = "by_setting"
"""Table among a method's own settings: what differs between the settings that it can be trained in."""


class ClassSpec(Part):
    """One class; its train id is its place in the list.

    Attributes:
        name: Canonical name, unique in the spec.
        synonyms: Texts that are encoded instead of the name; empty: the name alone.
        raw_id: Value in the original annotation; None where no single value means this class.
        is_thing: Countable object or not; None where the data set does not say.
        color: RGB, 0 to 255, for overlays, and the raw value of labels that are coded by colour.
        train_images, val_images, image_count: Images of the original data that show the class, where known.
        pixel_ratio: Share of the original data's pixels, 0 to 1.
        frequency: Group of the original frequency table ("rare", "common", "frequent").
    """

    name: Name
    synonyms: list[Prompt] = []
    raw_id: RawId | None = None
    is_thing: bool | None = None
    supercategory: str | None = None
    color: Color | None = None
    coco_id: int | None = None
    train_images: int | None = None
    val_images: int | None = None
    image_count: int | None = None
    pixel_ratio: float | None = None
    frequency: str | None = None


class ClassSplit(Part):
    """Which classes are unseen; the rest, without `val`, is seen.

    Attributes:
        unseen: Names that training never sees.
        val: Names set apart for tuning; training labels leave them out too, and they are not reported as unseen.
        seen: Optional; where given, it must be exactly the rest.
        extra_seen_background: Background class that counts as seen besides those that the split's id counts.
        sources: Papers, lists or code that the split was taken from.
    """

    id: Slug
    unseen: list[Name]
    val: list[Name] = []
    seen: list[Name] | None = None
    extra_seen_background: list[Name] = []
    sources: list[str] = []
    note: str | None = None

    @property
    def hidden(self) -> list[str]:
        """Names whose pixels become `ignore_label` in training labels: unseen and val."""
        return [*self.unseen, *self.val]

    def digest(self) -> str:
        """Fingerprint of what changes training labels."""
        return digest_of(["class-split-1", *sorted(self.hidden)])


class NameVariant(Part):
    """How a paper names the classes in its prompts.

    Attributes:
        kind: "names" (one text a class), "synonyms" (several), or "comma-parts" (the canonical names cut at ", ").
        entries: Class name → texts, exactly as in the source; classes that are not listed keep their canonical name.
        synonym_rule: How several texts become one score: "mean" of the features, or "max" of the scores.
    """

    id: Slug
    source: str
    kind: Literal["names", "synonyms", "comma-parts"]
    synonym_rule: Literal["mean", "max"] = "mean"
    entries: dict[Name, Annotated[list[Prompt], Field(min_length=1)]] = {}
    note: str | None = None


class Background(Part):
    """The class that means "none of the others".

    Attributes:
        train_id: Its place in `classes`.
        meaning: Which raw pixels it holds.
        prediction: How papers predict it: a word, a list of words, a threshold.
    """

    train_id: Annotated[int, Field(ge=0)]
    meaning: str
    prediction: str | None = None


class OtherLabel(Part):
    """A raw value of the original annotation that is no class here."""

    raw_id: int
    name: str
    category: str | None = None


class Preset(Part):
    """Settings that methods take for this data unless the user says otherwise.

    Attributes:
        clip: Name of the CLIP; None: the program's default.
        templates: Sentences with one `{}` each.
        resize, side, max_long_side, window, stride: As in `MethodConfig`.
        methods: Method name → its own settings. A table `by_setting.NAME` in them stands above the rest where the
            method is trained in that setting.
    """

    clip: Name | None = None
    templates: Annotated[list[Prompt], Field(min_length=1)] | None = None
    resize: Literal["square", "short-side", "none"] | None = None
    side: Annotated[int, Field(ge=0)] | None = None
    max_long_side: Annotated[int, Field(ge=1)] | None = None
    window: Annotated[int, Field(ge=0)] | None = None
    stride: Annotated[int, Field(ge=0)] | None = None
    methods: dict[Slug, dict[str, Any]] = {}

    @property
    def shared(self) -> dict[str, Any]:
        """Settings for all methods alike, those that are set."""
        of_pictures = {k: getattr(self, k) for k in ("resize", "side", "max_long_side", "window", "stride")}
        return {k: v for k, v in of_pictures.items() if v is not None}

    def recipe(self, method: str) -> dict[str, Any]:
        """Return a method's own settings, whatever setting it is trained in."""
        return {k: v for k, v in self.methods.get(method, {}).items() if k != BY_SETTING}

    def by_setting(self, method: str) -> dict[str, dict[str, Any]]:
        """Return what a method's own settings are besides, for each setting that it can be trained in."""
        return dict(self.methods.get(method, {}).get(BY_SETTING, {}))
