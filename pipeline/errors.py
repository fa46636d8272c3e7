"""What the user can mend: raised with one clear sentence, reported without a traceback, exit code 2."""

from __future__ import annotations


class InputError(Exception):
    """Bad input or options. The message is one sentence that names the file, column, count or option at fault."""


class DoesNotFit(InputError):
    """The plan needs more memory than `--memory-limit` allows, or more disk than there is. The message gives both."""


class Diverged(InputError):
    """An iteration went out of the finite numbers. What it had reached is kept, for the same command to go on from."""
