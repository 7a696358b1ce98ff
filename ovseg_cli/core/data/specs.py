"""Where specs lie, how one is read, and what a user who typed `NAME[:CLASS_SPLIT]` means by it.

Neither torch nor numpy is imported: a wrong name or a broken spec is answered at once.
"""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ovseg_cli.core.data.spec import CANONICAL, Spec
from ovseg_cli.core.data.spec_checks import NO_SPLIT, problems
from ovseg_cli.core.data.spec_defaults import complete
from ovseg_cli.core.data.spec_files import Encoding, Layout, Subset, SubsetLayout
from ovseg_cli.core.data.spec_models import Background, ClassSpec, ClassSplit, NameVariant, Preset
from ovseg_cli.core.data.spec_refusals import refuse, refuse_types
from ovseg_cli.core.data.splits import DataChoice, own_split
from ovseg_cli.core.errors import UsageError, nearest, unknown_name

__all__ = [
    "CANONICAL",
    "NO_SPLIT",
    "Background",
    "ClassSpec",
    "ClassSplit",
    "DataChoice",
    "Encoding",
    "Layout",
    "NameVariant",
    "Preset",
    "Spec",
    "Subset",
    "SubsetLayout",
    "aliases",
    "load_spec",
    "parse_data",
    "spec_folder",
    "spec_names",
]

MAX_BYTES = 8 << 20


def spec_folder() -> Path:
    """Return the folder of the shipped specs: in the package (wheel), else beside it (checkout)."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "data_specs"
    return inside if inside.is_dir() else package.parent / "data_specs"


def spec_names() -> list[str]:
    """Return the names of the shipped specs, sorted."""
    return sorted(path.stem for path in spec_folder().glob("*.toml"))


def aliases() -> dict[str, str]:
    """Return alias → name of the shipped specs; only the head of each file is parsed."""
    found: dict[str, str] = {}
    for name in spec_names():
        for alias in _head(spec_folder() / f"{name}.toml").get("aliases", []):
            found[alias] = name
    return found


def _head(path: Path) -> dict[str, Any]:
    """Parse the keys that stand before the classes and before the first table (a line that starts with a bracket)."""
    lines: list[str] = []
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            if line.startswith(("[", "classes")):
                break
            lines.append(line)
    return tomllib.loads("".join(lines))


def load_spec(name: str | Path) -> Spec:
    """Read and check a spec.

    Args:
        name: Name or alias of a shipped spec, or the path of a user's own `.toml`.

    Raises:
        UsageError: There is no such spec, or it breaks a rule; the message holds file, key and mend.
    """
    text = str(name)
    if _is_path(text):
        return _read(Path(text).expanduser(), shown=text).typed_as(text)
    names = spec_names()
    if text not in names:
        also = aliases()
        if text not in also:
            raise _unknown_data(text, [*names, *also])
        text = also[text]
    return _read(spec_folder() / f"{text}.toml", shown=f"data_specs/{text}.toml")


def _is_path(text: str) -> bool:
    return text.endswith(".toml") or "/" in text or "\\" in text


def _unknown_data(text: str, known: list[str]) -> UsageError:
    error = unknown_name("data set", text, known)
    return UsageError(
        error.message, f"{error.mend} `ovseg list datasets` shows all; your own is a path that ends in .toml."
    )


def _read(path: Path, shown: str) -> Spec:
    document = complete(_parse(path, shown))
    try:
        spec = Spec.model_validate(document)
    except ValidationError as error:
        raise refuse_types(error, document, shown) from None
    if found := list(problems(spec)):
        raise refuse(shown, found)
    return spec


def _parse(path: Path, shown: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{shown}: larger than {MAX_BYTES >> 20} MB, so this is no spec.", "Give a spec's .toml.")
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{shown}: there is no such spec.", _similar_file(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown}: not valid TOML: {_sentence(str(error))}", "Correct that line.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{shown}: line {line} is not UTF-8.", "Save the file as UTF-8.") from None
    except RecursionError:
        raise UsageError(f"{shown}: lists are nested too deeply.", "A spec needs no more than three levels.") from None
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read ({error.strerror}).", "Give the path of a spec's .toml.") from None


def _similar_file(path: Path) -> str:
    others = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    hit = nearest(path.name, others)
    return f"Did you mean '{path.parent / hit}'?" if hit else "`ovseg list datasets` shows the shipped ones."


def _sentence(text: str) -> str:
    return text if text.endswith(".") else text + "."


def parse_data(text: str, unseen: str | None = None) -> DataChoice:
    """Understand `--data NAME[:CLASS_SPLIT]` and `--unseen "a, b"`.

    Args:
        text: Name, alias or path of a spec; after a colon the id of a class split, or "none" for no split at all.
            Without a colon the spec's default split is taken.
        unseen: Names of unseen classes for a split of the user's own, separated by commas, or by semicolons where a
            name holds a comma.

    Raises:
        UsageError: The spec, the split or a class is unknown, or both a split and `unseen` are given.
    """
    name, colon, split_id = text.partition(".toml:") if ".toml:" in text else text.partition(":")
    name += ".toml" if colon == ".toml:" else ""
    if colon and not split_id:
        raise UsageError(
            f"--data {text}: the class split after the colon is missing.", f"Use --data {name}, or name one."
        )
    spec = load_spec(name)
    if unseen is not None and split_id:
        raise UsageError(f"--data {text}: a class split and --unseen were both given.", "Give one of the two.")
    if unseen is not None:
        return DataChoice(spec, own_split(spec, unseen))
    if split_id == NO_SPLIT or not (split_id or spec.default_split):
        return DataChoice(spec, None)
    return DataChoice(spec, spec.split(split_id or str(spec.default_split)))
