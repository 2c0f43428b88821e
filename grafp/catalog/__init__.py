"""A catalog on disk or in a bucket: what is stored, in which files, and what has to be done.

In the order of an index run: `changes` (what is new, changed or gone), `embeddings` (fingerprints),
`shard_files` (the index), `tracks` and `manifest` (a snapshot), `catalog` (publish and read).
"""

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest

__all__ = ["Catalog", "Manifest"]
