"""Errors that the user can mend. Each is raised with one clear sentence and reported without a traceback."""

from __future__ import annotations

from typing import ClassVar


class InputError(Exception):
    """Bad input or settings. The message is one sentence that names the file, column or count at fault.

    The sentence speaks of the domain ("the budget must lie in 1 … 500"). `settings` are the fields of configs that
    would have to change, such as `budget`. A command line adds the names of its options for them.
    """

    exit_code: ClassVar[int] = 2
    """The exit code of a job that ends with this error."""

    def __init__(self, sentence: str, *settings: str) -> None:
        super().__init__(sentence)
        self.settings = settings


class DoesNotFit(InputError):
    """The plan needs more memory than the limit allows, or more disk than there is. The message gives both numbers."""


class Diverged(InputError):
    """An iteration left the finite numbers. Its progress is kept, and the same command goes on from there."""


class Kept(InputError):
    """The new summary is worse than the old one, so the old one stays. The message gives the figures."""

    exit_code = 3


class Busy(InputError):
    """Another run is at work on the same state. Nothing is wrong: that run does what this one would have done."""

    exit_code = 4
