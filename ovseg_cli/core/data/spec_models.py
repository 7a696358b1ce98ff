"""What stands in a data set's spec: the typed nouns of `data_specs/NAME.toml`. Imports neither torch nor numpy.

These models know types and forms of values; rules between values are in `spec_checks.py`, reading is in `specs.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ovseg_cli.core.files import digest_of


def _below(path: str) -> str:
    """Refuse paths that leave the data set's folder: no way out of a folder."""
    if path.startswith("/") or "\\" in path or ":" in path or ".." in path.split("/") or not path.isprintable():
        raise ValueError("a path below the data set's folder is needed: relative, forward slashes, no '..'")
    return path


# Names that become folders or stand after a colon on the command line; no way out of a folder.
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._+-]*$", max_length=64)]
# Names that stand in tables and prompts: no control characters, no blanks at the ends.
Name = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$", max_length=200)]
# Texts that papers feed to the text encoder, exactly as in their files (one has a blank at its end).
Prompt = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$", max_length=400)]
# Paths below the data set's folder: relative, no parent folder, forward slashes.
RelativePath = Annotated[str, Field(min_length=1, max_length=400), AfterValidator(_below)]
RawId = Annotated[int, Field(ge=0, lt=1 << 24)]


class Part(BaseModel):
    """Base of all parts of a spec: unknown keys are refused, values are not converted, nothing is changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


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
    color: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] | None = None
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
    entries: dict[str, Annotated[list[Prompt], Field(min_length=1)]] = {}
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


class Encoding(Part):
    """How a label file stores classes, and what becomes of values that are no class.

    Attributes:
        kind: Form of the file.
        bits: Bits of a raw value: 8, 16 or 24; None for files that hold no label map.
        values: The meaning in words.
        rgb_rule: For "rgb-png": how red, green and blue (0 to 255) make the raw value; "color" compares with
            `classes[].color` instead.
        variable: For "mat": name of the matrix.
        records: For "rle-json": key of the list of records.
        ignore_raw: Raw values that become `ignore_label`.
        background_raw: Raw values besides its `raw_id` that become the background class.
        elsewhere: What a raw value becomes that neither a class nor a list above holds: "refuse" is an error that
            names the file, "ignore" is `ignore_label`, "background" the background class.
        raw_ids: Raw values in train-id order where they differ from `classes[].raw_id`; "train-ids" where the file is
            converted already (then `ignore_label` means ignore).
    """

    kind: Literal[
        "label-png",
        "label-tiff",
        "palette-png",
        "rgb-png",
        "mat",
        "rle-json",
        "coco-panoptic",
        "coco-instances",
    ]
    bits: Literal[8, 16, 24] | None = None
    values: str | None = None
    rgb_rule: Literal["r//10*256+g", "r+256*g+65536*b", "color"] | None = None
    variable: str | None = None
    records: str | None = None
    ignore_raw: list[RawId] = []
    background_raw: list[RawId] = []
    elsewhere: Literal["refuse", "ignore", "background"] = "refuse"
    raw_ids: Literal["train-ids"] | list[RawId] | None = None
    note: str | None = None


class SubsetLayout(Part):
    """Where the files of one subset lie below the source folder.

    In the patterns `{stem}` stands for what image and label have in common (no slash), `*` for any text without a
    slash and `**` for any number of folders.

    Attributes:
        images: Pattern of the images.
        labels: Pattern of the labels, or one file that holds all of them; None where labels are not public.
        list: File that lists the subset; None: every file that fits a pattern.
        list_columns: With a list: "stem" (one a line), "paths" (image and label separated by blanks; only the last
            two parts of each path count), or "json-phase" (records `images[]` whose `phase` is the subset's name).
            Without one: "labels" where the label files say which images belong to the subset, else the images do.
    """

    images: RelativePath
    labels: RelativePath | None = None
    list: RelativePath | None = None
    list_columns: Literal["stem", "paths", "json-phase", "labels"] = "stem"


class Layout(Part):
    """One arrangement of folders in which the data set is found.

    Attributes:
        source: Who uses it; "official" for the unpacked download.
        roots: Folders below the user's source folder that the patterns may start from, tried in order.
        subsets: Subset name → patterns.
        encoding: How labels are stored here, where it differs from the spec's `encoding`.
        examples: Paths of some files as they really are.
    """

    id: Slug
    source: str
    roots: Annotated[list[RelativePath], Field(min_length=1)] = ["."]
    subsets: dict[Slug, SubsetLayout]
    encoding: Encoding | None = None
    examples: list[str] = []
    note: str | None = None


class Subset(Part):
    """One part of the data; `images` is the expected count, None where unknown."""

    images: Annotated[int, Field(ge=0)] | None = None
    note: str | None = None


class License(Part):
    """What may be done with the data, in words, and what was read to say so."""

    annotations: str
    images: str
    redistribution: str
    verified_from: str


class Download(Part):
    """What to fetch, from which page, which file; `login` where an account or a form stands before it."""

    what: str
    page: str
    file: str | None = None
    login: bool = False


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
        methods: Method name → its own settings.
    """

    clip: str | None = None
    templates: Annotated[list[Prompt], Field(min_length=1)] | None = None
    resize: Literal["square", "short-side", "none"] | None = None
    side: Annotated[int, Field(ge=0)] | None = None
    max_long_side: Annotated[int, Field(ge=1)] | None = None
    window: Annotated[int, Field(ge=0)] | None = None
    stride: Annotated[int, Field(ge=0)] | None = None
    methods: dict[str, dict[str, Any]] = {}

    def settings(self, method: str) -> dict[str, Any]:
        """Settings for a method's config: the shared ones that are set, then the method's own."""
        shared = {k: getattr(self, k) for k in ("resize", "side", "max_long_side", "window", "stride")}
        return {k: v for k, v in shared.items() if v is not None} | self.methods.get(method, {})
