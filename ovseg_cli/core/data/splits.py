"""A label space together with the choice of unseen classes: the spec's split, none, or one of the user's own."""

from dataclasses import dataclass

from ovseg_cli.core.data.spec import Spec, no_class
from ovseg_cli.core.data.spec_checks import NO_SPLIT
from ovseg_cli.core.data.spec_models import ClassSplit
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import digest_of


@dataclass(frozen=True)
class DataChoice:
    """What `--data` and `--unseen` mean: a spec and a class split, None where every class is seen."""

    spec: Spec
    split: ClassSplit | None = None

    @property
    def label(self) -> str:
        """The choice as it is typed and printed: "toy:combo", "cityscapes"; "toy:none" where there are splits."""
        if self.split is None:
            return f"{self.spec.name}:{NO_SPLIT}" if self.spec.class_splits else self.spec.name
        return f"{self.spec.name}:{self.split.id}"

    @property
    def default(self) -> "DataChoice":
        """The same spec with its default split."""
        split = self.spec.split(self.spec.default_split) if self.spec.default_split else None
        return DataChoice(self.spec, split)


def own_split(spec: Spec, unseen: str) -> ClassSplit:
    """Make a class split from typed names.

    Args:
        spec: The label space.
        unseen: Class names separated by commas; where a semicolon stands in the text, by semicolons, so that names
            with a comma ("building, edifice") can be given. A text that is one class name as a whole is that class.

    Returns:
        A split whose id, "custom-" and a short digest, depends on the set of names only.

    Raises:
        UsageError: No name, an unknown name, or no class left to be seen.
    """
    known = spec.class_names
    if not known:
        raise UsageError(f"--unseen: {spec.name} holds class-agnostic masks and has no classes.", "Leave --unseen out.")
    names = list(dict.fromkeys(_names(unseen, known)))
    if not names:
        raise UsageError("--unseen: no class is named.", f'Name some, for instance --unseen "{known[-1]}".')
    for name in names:
        if name not in known:
            raise _unknown(spec, name)
    if len(names) == len(known):
        raise UsageError(f"--unseen: all {len(known)} classes are named, so none is seen.", "Leave some out.")
    ordered = [known[i] for i in spec.ids(names)]
    split_id = f"custom-{digest_of(['own-split-1', *ordered])[:8]}"
    return ClassSplit(id=split_id, unseen=ordered, sources=["given with --unseen"])


def _names(text: str, known: list[str]) -> list[str]:
    if text.strip() in known:
        return [text.strip()]
    separator = ";" if ";" in text else ","
    return [_canonical(part.strip(), known) for part in text.split(separator) if part.strip()]


def _canonical(name: str, known: list[str]) -> str:
    """Accept another case where it can mean one class only."""
    same = [k for k in known if k.lower() == name.lower()]
    return same[0] if len(same) == 1 and name not in known else name


def _unknown(spec: Spec, name: str) -> UsageError:
    error = no_class(f"--unseen: {spec.name}: class", name, spec.class_names)
    with_comma = [k for k in spec.class_names if "," in k and name in [part.strip() for part in k.split(",")]]
    if with_comma:
        return UsageError(error.message, f'Separate names by semicolons: --unseen "{with_comma[0]};".')
    return error
