"""How are pictures read while the one before is being scored?"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from ovseg_cli.core.types import Sample


class ScoredData(Protocol):
    """Pictures with labels, by number."""

    @property
    def names(self) -> list[str]:
        """Name of each picture, in order."""

    @property
    def ignore_label(self) -> int:
        """Label of pixels that do not count."""

    def __len__(self) -> int:
        """Return how many pictures there are."""

    def __getitem__(self, index: int) -> Sample:
        """Read one."""


@contextmanager
def reading(data: ScoredData, groups: Sequence[Sequence[int]]) -> Iterator[Iterator[tuple[list[Sample], float]]]:
    """Read groups of pictures one ahead in a thread; gives each with the seconds that it had to be waited for."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:

        def read(group: Sequence[int]) -> list[Sample]:
            return [data[i] for i in group]

        def batches() -> Iterator[tuple[list[Sample], float]]:
            coming = pool.submit(read, groups[0]) if groups else None
            for following in [*groups[1:], None]:
                if coming is None:
                    return
                start = time.perf_counter()
                batch = coming.result()
                coming = pool.submit(read, following) if following is not None else None
                yield batch, time.perf_counter() - start

        try:
            yield batches()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
