#!/usr/bin/env python3
"""`grafp evaluate` as a file, for `ray job submit --working-dir . -- python jobs/evaluate.py`."""

import sys

from pipelines.common import cli
from pipelines.jobs.evaluate import main, options

if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
