"""A snapshot opened for search: in this process, or spread over Ray's actors."""

from typing import TYPE_CHECKING, TypeAlias

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.opened import open_search
from grafp.index.search import IndexSearch
from pipelines.common.work import is_here

if TYPE_CHECKING:
    from pipelines.common.search import SpreadSearch

AnySearch: TypeAlias = "IndexSearch | SpreadSearch"


def search_of(
    root: str,
    manifest: Manifest,
    *,
    actors: int | None = None,
    memory: float | None = None,
    decode: bool = False,
    stride: int | None = None,
    offset_correction: float = 0.0,
    method: type[IndexSearch] = IndexSearch,
) -> AnySearch:
    """Open a snapshot, which need not be published; for the arguments see `SpreadSearch`.

    Raises CatalogError or ClusterError.
    """
    if is_here():
        search = open_search(root, manifest, stride=stride, decode=decode, method=method)
        search.offset_correction = offset_correction
        return search
    from pipelines.common.search import SpreadSearch

    return SpreadSearch(
        root,
        manifest,
        actors=actors,
        memory=memory,
        decode=decode,
        stride=stride,
        offset_correction=offset_correction,
        method=method,
    )


def search_for_queries(
    catalog: Catalog,
    *,
    actors: int | None = None,
    memory: float | None = None,
    decode: bool = False,
    stride: int | None = None,
    method: type[IndexSearch] = IndexSearch,
) -> AnySearch:
    """A search of the published snapshot with the offset correction of its model.

    `stride` is that of the queries. Raises ClusterError, and CatalogError when the model is not
    the catalog's.
    """
    manifest = catalog.manifest
    assert manifest is not None
    query_hop_s = manifest.hop_s / (stride or manifest.stride)
    return search_of(
        catalog.root,
        manifest,
        actors=actors,
        memory=memory,
        decode=decode,
        stride=stride,
        offset_correction=catalog.model().offset_correction_s / query_hop_s,
        method=method,
    )


def is_streamed(search: AnySearch) -> bool:
    """Whether parts of the index are read anew for each batch of queries."""
    return not isinstance(search, IndexSearch) and search.streamed
