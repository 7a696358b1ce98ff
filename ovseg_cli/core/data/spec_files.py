"""How a data set's files lie and how they store classes: encodings, layouts, counts, licence, downloads."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from ovseg_cli.core.data.spec_types import (
    Color,
    FileName,
    Md5,
    Part,
    Paths,
    RawId,
    RelativePath,
    Sha256,
    Slug,
    WebAddress,
)

ONE_FILE = ("rle-json", "coco-instances")
"""Kinds of labels that stand in one file for all pictures of a subset."""


def pack_color(color: Sequence[int]) -> int:
    """Return a colour as one number, red first: r + 256 g + 65536 b."""
    return color[0] + 256 * color[1] + 65536 * color[2]


class Encoding(Part):
    """How a label file stores classes, and what becomes of values that are no class.

    Attributes:
        kind: Form of the file. "label-png", "label-tiff" and "palette-png" hold a class id a pixel, "rgb-png" makes it
            of the channels, "mat" is a MATLAB matrix. "rle-json" and "coco-instances" are one JSON for all pictures,
            whose records (`category_id` is the raw value) are painted one over the other: in the order of the file,
            and for "coco-instances" larger ones first; what none covers is raw value 0. "coco-panoptic" are RGB
            pictures of segment ids beside a JSON that says the `category_id` of each; id 0 is raw value 0.
        bits: Bits of a raw value: 8, 16 or 24; None: as many as the kind can hold.
        values: The meaning in words.
        rgb_rule: For "rgb-png": how red, green and blue (0 to 255) make the raw value; "color" compares with
            `classes[].color` instead.
        variable: For "mat": name of the matrix; "GTcls.Segmentation" is a field of a structure.
        records: For "rle-json": key of the list of records.
        ignore_raw: Raw values that become `ignore_label`.
        ignore_colors: For the rule "color": colours that become `ignore_label`.
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
    ] = "label-png"
    bits: Literal[8, 16, 24] | None = None
    values: str | None = None
    rgb_rule: Literal["r//10*256+g", "r+256*g+65536*b", "color"] | None = None
    variable: str | None = None
    records: str | None = None
    ignore_raw: list[RawId] = []
    ignore_colors: list[Color] = []
    background_raw: list[RawId] = []
    elsewhere: Literal["refuse", "ignore", "background"] = "refuse"
    raw_ids: Literal["train-ids"] | list[RawId] | None = None
    note: str | None = None

    @property
    def limit(self) -> int:
        """Raw values are smaller than this."""
        whole = self.rgb_rule in ("r+256*g+65536*b", "color")
        return 1 << (self.bits or (24 if whole else 16))

    def facts(self) -> dict[str, Any]:
        """Return what changes labels; a later key of the schema counts where it is used."""
        facts = self.model_dump(exclude={"note", "values"})
        return {key: value for key, value in facts.items() if key != "ignore_colors" or value}


class SubsetLayout(Part):
    """Where the files of one subset lie below the source folder.

    In the patterns `{stem}` stands for what image and label have in common (no slash), `*` for any text without a
    slash and `**` for any number of folders.

    Attributes:
        images: Pattern of the images.
        labels: Pattern of the labels, or the one file that holds all of them; None where labels are not public.
        labels_else: Patterns of labels for the images that the first one has none for, tried in order.
        segments: For "coco-panoptic": the JSON that says what class a segment of a label is.
        list: File that lists the subset; None: every file that fits a pattern.
        list_also: More such files; the subset is what any of them lists.
        list_without: File that lists what does not belong to the subset after all.
        list_columns: With a list: "stem" (one a line), "paths" (image and label separated by blanks; only the last
            two parts of each path count), or "json-phase" (records `images[]` whose `phase` is the subset's name).
            Without one: "labels" where the label files say which images belong to the subset, else the images do.
        archives: Pattern of tar files that may lie there as downloaded; each counts as the folder of its name. Only for
            class-agnostic masks.
    """

    images: RelativePath
    labels: RelativePath | None = None
    labels_else: Paths = []
    segments: RelativePath | None = None
    list: RelativePath | None = None
    list_also: Paths = []
    list_without: RelativePath | None = None
    list_columns: Literal["stem", "paths", "json-phase", "labels"] = "stem"
    archives: RelativePath | None = None

    @property
    def has_label_files(self) -> bool:
        """Whether each picture has a label file of its own."""
        return self.labels is not None and "{stem}" in self.labels


class Layout(Part):
    """One arrangement of folders in which the data set is found.

    Attributes:
        source: Who uses it; "official" for the unpacked download.
        roots: Folders below the user's source folder that the patterns may start from, tried in order.
        subsets: Subset name → patterns.
        encoding: How labels are stored here, where it differs from the spec's `encoding`.
        examples: Paths of some files as they really are.
    """

    id: Slug = "own"
    source: str = "own"
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
    """What to fetch, from which page, which file.

    Attributes:
        what: What is in it, in words.
        page: Page for people, which offers it.
        file: Its name; None where it is no single file.
        login: An account or a form stands before it; it is never fetched by the program.
        url: Address of the file itself; None where only the page is known.
        tried: Day on which the address was last tried (2026-11-21); None: never.
        size: Its bytes, where published; `about` roughly, where only that is known.
        sha256, md5: Its checksums in hex, where published.
        into: Folder below the source folder that it is unpacked into (put into, where it is no archive).
        optional: The data set can be prepared without it.
        note: Where address and checksum were read.
    """

    what: str
    page: str
    file: FileName | None = None
    login: bool = False
    url: WebAddress | None = None
    tried: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    about: Annotated[int, Field(ge=1)] | None = None
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    into: RelativePath = "."
    optional: bool = False
    note: str | None = None

    @property
    def is_manual(self) -> bool:
        """Whether people have to fetch it: a login stands before it, or no address is known."""
        return self.login or self.url is None
