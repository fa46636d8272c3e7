"""`python -m jobs …`: what a submitted cluster job runs from its uploaded working directory."""

import sys

from jobs.cli import main

sys.exit(main())
