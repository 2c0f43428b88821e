#!/usr/bin/env python3
"""`grafp reproduce` as a file, for `ray job submit --working-dir . -- python jobs/reproduce.py`."""

import sys

from pipelines.common import cli
from pipelines.jobs.reproduce import main, options

if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
