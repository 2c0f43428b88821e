#!/usr/bin/env python3
"""`grafp merge` as a file, for `ray job submit --working-dir . -- python jobs/merge_index.py`."""

import sys

from pipelines.common import cli
from pipelines.jobs.merge_index import main, options

if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
