"""`python -m infrec.jobs …`, and from the source tree `python -m jobs …`: the command line without its command."""

import sys

from infrec.jobs.cli import main

sys.exit(main())
