"""Queries with as few fingerprints as the catalog: the coarse identification of the paper's Fig. 2.

Other queries have a fingerprint every 0.1 s or oftener, whatever the catalog's hop.
"""

from typing import TYPE_CHECKING

from grafp.catalog.catalog import Catalog
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE
from grafp.index.background import BackgroundSearch
from grafp.index.search import IndexSearch
from pipelines.common.encode import encoded
from pipelines.common.opening import search_for_queries
from pipelines.common.work import Encoders, Rows
from pipelines.querying.flow import MatchBatch

if TYPE_CHECKING:
    import ray.data


def answered_at_catalog_hop(
    recordings: "ray.data.Dataset | Rows",
    catalog: Catalog,
    encoders: Encoders,
    acceptance: Acceptance,
    *,
    top_k: int,
    method: type[IndexSearch],
) -> "ray.data.Dataset | Rows":
    """Like `pipelines.querying.flow.answered`, with a fingerprint of a query every catalog's hop.

    The catalog's thresholds were measured with finer queries; hit rates do not depend on them.
    """
    assert catalog.manifest is not None
    hop_s = catalog.manifest.hop_s
    search = search_for_queries(catalog, stride=1, method=method)
    background = catalog.background()
    beside = BackgroundSearch.of(background, hop_s) if background else None
    return encoded(recordings, catalog.model_uri(), hop_s, encoders).map_batches(
        MatchBatch(search, beside, acceptance, hop_s, top_k, MAX_SPEED_CHANGE),
        batch_size=32,
        batch_format="pyarrow",
        num_cpus=0.3,
    )
