#!/usr/bin/env python3
"""`grafp demo` as a file, for `ray job submit --working-dir . -- python jobs/demo.py`."""

import sys

from pipelines.common import cli
from pipelines.jobs.demo import main, options

if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
