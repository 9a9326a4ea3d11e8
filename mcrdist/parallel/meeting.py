"""How ranks find those that were started with them, and nobody else; and how they find out who is gone.

A launcher that starts ranks again after one has died keeps what the earlier ones told one another: torchrun's store
outlives its attempts. Ranks that read an address of an earlier attempt there call processes that are gone. So they
first agree on a name that no other attempt has, and keep everything else under it.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Protocol

_LEADER = "mcrdist/leader"
_SOON, _LATER = 0.02, 0.5  # seconds between two looks


class Store(Protocol):
    """Texts by name that all ranks see, those of earlier attempts too."""

    def set(self, key: str, value: str) -> None:
        """Keep a text."""

    def get(self, key: str) -> bytes:
        """Return a text, as soon as there is one."""

    def check(self, keys: list[str]) -> bool:
        """Return whether there are texts of all these names."""


def meet(store: Store, rank: int, size: int, timeout: float) -> str:
    """Return a name that the ranks of this attempt have in common, and those of no other.

    The first rank invents it. Another one takes what it finds for that name, says that it is here, with a word of its
    own, and looks for another name until that word is repeated to it: a rank that is gone repeats nothing.

    Raises
    ------
    TimeoutError
        This rank has not met the first one in `timeout` seconds; the first rank waits as long as the store does.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set(_LEADER, own)
        for other in range(1, size):
            store.set(f"{own}/welcome/{other}", store.get(f"{own}/here/{other}").decode())
        return own
    until, pause, found = time.monotonic() + timeout, _SOON, ""
    while time.monotonic() < until:
        name = store.get(_LEADER).decode()
        if name != found:
            found, pause = name, _SOON
            store.set(f"{name}/here/{rank}", own)
        welcome = f"{name}/welcome/{rank}"
        if store.check([welcome]) and store.get(welcome).decode() == own:
            return name
        time.sleep(pause)
        pause = min(1.5 * pause, _LATER)
    raise TimeoutError(f"the first process was not met within {timeout:g} s")


def absent(store: Store, name: str, rank: int, size: int, patience: float) -> list[int] | None:
    """Say that this rank waits in vain, and return who does not say so within `patience` seconds, by rank.

    Returns
    -------
    list of int or None
        None where a lower rank says so too, and has the word.
    """
    store.set(f"{name}/waits/{rank}", "")
    until, pause = time.monotonic() + patience, _SOON
    silent = [other for other in range(size) if other != rank]
    while silent and time.monotonic() < until:
        time.sleep(pause)
        pause = min(1.5 * pause, _LATER)
        silent = [other for other in silent if not store.check([f"{name}/waits/{other}"])]
        if not all(other in silent for other in range(rank)):
            return None  # at once: the first rank may be about to leave, and the store with it
    return silent


def has_the_word(board: Path, name: str) -> bool:
    """Return whether this rank is the first of its attempt to say that another is lost.

    Who notices later may find the store gone with the process that had it: word is left in a directory that all see.
    """
    try:
        os.close(os.open(board / f".{name}.lost.tmp", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError:  # rather twice than not at all
        pass
    return True
