"""What a level has settled so far, for a run that was cut short to find back to where it was.

The stages of a level ask the journal for whatever takes time or depends on a field that has changed since. What it has
already, it gives back, and so the stages come by themselves, with the same decisions, to the work that was under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mcrdist.optimize.minimizer import Memory

_Found = TypeVar("_Found")


class Journal:
    """What came of the works of a level, in their order.

    Parameters
    ----------
    settled : sequence
        From an earlier run: plain data that JSON has written and read.
    under_way : Memory, optional
        Of the work that the earlier run had begun after those.
    """

    def __init__(self, settled: Sequence[Any] = (), under_way: Memory | None = None) -> None:
        self.settled = list(settled)
        self._turn = 0
        self._under_way = under_way

    @property
    def recalls(self) -> bool:
        """Whether the next work is settled, or was under way."""
        return self._turn < len(self.settled) or self._under_way is not None

    def once(self, work: Callable[[Memory | None], _Found]) -> _Found:
        """Return what came of `work`, doing it unless it is settled.

        Parameters
        ----------
        work
            Gets what it had in mind when it was cut short, and returns plain data that JSON can write.
        """
        if self._turn == len(self.settled):
            memory, self._under_way = self._under_way, None
            self.settled.append(work(memory))
        self._turn += 1
        found: _Found = self.settled[self._turn - 1]
        return found
