"""A snapshot opened for search: in this process, or spread over Ray's actors."""

from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.opened import open_search
from grafp.index.search import IndexSearch
from pipelines.common.work import is_here

if TYPE_CHECKING:
    from pipelines.common.search import SpreadSearch

AnySearch: TypeAlias = "IndexSearch | SpreadSearch"


class Asked(TypedDict, total=False):
    """How a snapshot is searched, see `open_search`."""

    decode: bool
    stride: int | None
    method: type[IndexSearch]


def search_of(
    root: str,
    manifest: Manifest,
    *,
    offset_correction: float = 0.0,
    actors: int | None = None,
    memory: float | None = None,
    **asked: Unpack[Asked],
) -> AnySearch:
    """Open a snapshot, which need not be published; for `actors` and `memory` see `SpreadSearch`.

    Raises CatalogError or ClusterError.
    """
    if is_here():
        return open_search(root, manifest, offset_correction=offset_correction, **asked)
    from pipelines.common.search import SpreadSearch

    return SpreadSearch(
        root,
        manifest,
        actors=actors,
        memory=memory,
        offset_correction=offset_correction,
        **asked,
    )


def search_for_queries(
    catalog: Catalog,
    *,
    actors: int | None = None,
    memory: float | None = None,
    **asked: Unpack[Asked],
) -> AnySearch:
    """A search of the published snapshot with the offset correction of its model.

    `stride` is that of the queries. Raises ClusterError, and CatalogError when the model is not
    the catalog's.
    """
    manifest = catalog.manifest
    assert manifest is not None
    query_hop_s = manifest.hop_s / (asked.get("stride") or manifest.stride)
    correction = catalog.model().offset_correction_s / query_hop_s
    return search_of(
        catalog.root, manifest, offset_correction=correction, actors=actors, memory=memory, **asked
    )


def is_streamed(search: AnySearch) -> bool:
    """Whether parts of the index are read anew for each batch of queries."""
    return not isinstance(search, IndexSearch) and search.streamed
