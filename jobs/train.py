#!/usr/bin/env python3
"""`grafp train` as a file, for `ray job submit --working-dir . -- python jobs/train.py`."""

import sys

from pipelines.common import cli
from pipelines.jobs.train import main, options

if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
