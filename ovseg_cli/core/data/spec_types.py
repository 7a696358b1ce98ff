"""The forms of values that specs are made of: names that become folders, names in tables, paths, raw values."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


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
Paths = list[RelativePath]
# Names of downloaded files: one name with a suffix, no folder, not hidden.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)+$", max_length=120)]
# Addresses that files are fetched from: http or https, no user name, no fragment.
WebAddress = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[^\s#@]*)?$", max_length=1000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
# Red, green and blue, 0 to 255 each.
Color = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
RawId = Annotated[int, Field(ge=0, lt=1 << 24)]


class Part(BaseModel):
    """Base of all parts of a spec: unknown keys are refused, values are not converted, nothing is changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
