"""ovseg: prepare, train, score and compare open-vocabulary segmentation methods on one shared core.

Example:
    >>> from ovseg_cli import load
    >>> model = load("maskclip", clip="toy-clip")
    >>> result = model.predict(image, ["grass", "a red striped toy"])  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from ovseg_cli.core.prediction.segmenter import load


def __getattr__(name: str) -> Any:
    """Import `load` only when it is asked for: the command line must start without torch."""
    if name == "load":
        from ovseg_cli.core.prediction.segmenter import load

        return load
    raise AttributeError(f"module 'ovseg_cli' has no attribute {name!r}")
