"""What the user can mend: raised with one clear sentence, reported without a traceback."""

from __future__ import annotations

from typing import ClassVar


class InputError(Exception):
    """Bad input or settings. The message is one sentence that names the file, column or count at fault.

    The sentence speaks of the domain ("the budget must lie in 1 … 500"). `settings` are the fields of configs that
    would have to change, such as `budget`: a command line adds the names of its options.
    """

    exit_code: ClassVar[int] = 2
    """Of the job that it ends."""

    def __init__(self, sentence: str, *settings: str) -> None:
        super().__init__(sentence)
        self.settings = settings


class DoesNotFit(InputError):
    """The plan needs more memory than the limit allows, or more disk than there is. The message gives both."""


class Diverged(InputError):
    """An iteration went out of the finite numbers. What it had reached is kept, for the same command to go on from."""


class Kept(InputError):
    """The new summary is worse than the old one, which stays. The message has the figures."""

    exit_code = 3


class Busy(InputError):
    """Another run is at work on the same state. Nothing is wrong: it does what this one would have done."""

    exit_code = 4
