"""The command line without the `infrec` command.

It is `python -m infrec.jobs …` or, from the source tree, `python -m jobs …`.
"""

import sys

from infrec.jobs.cli import main

sys.exit(main())
