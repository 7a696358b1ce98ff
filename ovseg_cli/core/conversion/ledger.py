"""What became of every entry of a checkpoint: loaded, ignored for a reason, or an error that names it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ovseg_cli.core.errors import UsageError

SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Row:
    """One line of the account.

    Attributes:
        prefix: What the names begin with, or one whole name.
        tensors: How many there are.
        action: "loaded", or "ignored".
        note: What they are, or why they are ignored.
    """

    prefix: str
    tensors: int
    action: str
    note: str


class Ledger:
    """The tensors of a checkpoint; each is handed out, or written off, once.

    Args:
        state: Tensors by name.
        where: The file, for messages.
    """

    def __init__(self, state: Mapping[str, Tensor], where: str):
        self.state = dict(state)
        self.where = where
        self.rows: list[Row] = []
        self._left = set(self.state)

    def has(self, prefix: str) -> bool:
        """Whether any name begins so."""
        return any(key.startswith(prefix) for key in self.state)

    def load(self, prefix: str, note: str) -> dict[str, Tensor]:
        """Hand out the tensors whose names begin so and that nobody has had, under their whole names.

        Raises:
            UsageError: One of them holds values that are no numbers.
        """
        names = self._take(prefix, "loaded", note)
        for name in names:
            if not bool(self.state[name].isfinite().all()):
                raise UsageError(
                    f"{self.where}: '{name}' holds values that are no numbers (NaN or infinite).",
                    "Such a model scores nothing; pass another checkpoint.",
                )
        return {name: self.state[name] for name in names}

    def ignore(self, prefix: str, why: str) -> None:
        """Write off the tensors whose names begin so."""
        self._take(prefix, "ignored", why)

    def ignore_each(self, names: Sequence[str], shown: str, why: str) -> None:
        """Write off tensors by their whole names; one line of the account stands for all."""
        taken = sorted(self._left.intersection(names))
        self._left.difference_update(taken)
        if taken:
            self.rows.append(Row(shown, len(taken), "ignored", why))

    def _take(self, prefix: str, action: str, note: str) -> list[str]:
        names = sorted(key for key in self._left if key.startswith(prefix))
        self._left.difference_update(names)
        if names:
            self.rows.append(Row(prefix, len(names), action, note))
        return names

    def close(self) -> None:
        """Make sure that nothing is left.

        Raises:
            UsageError: Names that nobody knows.
        """
        if self._left:
            raise UsageError(
                f"{self.where}: {_count(len(self._left), 'tensor')} that this layout does not have: "
                f"{_some(sorted(self._left))}.",
                "Check --method, and that the file is whole and of the published code.",
            )


def check_fit(own: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str, what: str) -> None:
    """Compare what a module needs with what a file holds, both under the file's names.

    Raises:
        UsageError: Names are missing or unknown, or shapes differ; the first few are named.
    """
    missing, unknown = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing:
        raise UsageError(
            f"{where}: lacks {_count(len(missing), 'tensor')} of {what}: {_some(missing)}.",
            "Pass the checkpoint of a whole model.",
        )
    if unknown:
        raise UsageError(
            f"{where}: {_count(len(unknown), 'tensor')} that {what} does not have: {_some(unknown)}.",
            "Check --method, and that the file is of the published code.",
        )
    differ = [f"{k} is {_shape(found[k])}, not {_shape(t)}" for k, t in own.items() if found[k].shape != t.shape]
    if differ:
        raise UsageError(
            f"{where}: shapes of {what} do not fit together: {_some(differ)}.",
            "Check the settings that no shape tells: `--config`.",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "×".join(str(n) for n in tensor.shape) or "a scalar"
