#!/usr/bin/env python3
"""`grafp index` as a file, for `ray job submit --working-dir . -- python jobs/index_catalog.py`."""

import sys

from pipelines.common import cli
from pipelines.jobs.index_catalog import main, options

if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
