#!/usr/bin/env python3
"""`grafp query` as a file, for `ray job submit --working-dir . -- python jobs/query_batch.py`."""

import sys

from pipelines.common import cli
from pipelines.jobs.query_batch import main, options

if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
