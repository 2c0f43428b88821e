"""What an index run has to do, and how its results join the track table."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from grafp.catalog import changes
from grafp.catalog.changes import (
    find_changes,
    is_known,
    join,
    known_hashes,
    listing_of,
    seconds_a_byte,
)
from grafp.catalog.tracks import TRACK_SCHEMA, Row, as_table, live_refs
from grafp.storage import FileInfo
from grafp.storage.sources import Item


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def row(uri: str, **values: Any) -> Row:
    """Of a track table: a recording of 10 s that is stored, unless told otherwise."""
    return {
        **dict.fromkeys(TRACK_SCHEMA.names),
        "track_id": f"id of {uri}", "stored_as": f"id of {uri}", "uri": uri, "source": "music",
        "size": 5, "etag": f"tag of {uri}", "content_sha256": digest(uri), "status": "ok",
        "duration_s": 10.0, "attempts": 1, "n_segments": 7, "embedding_file": "e.parquet",
        "embeddings_at": 0, **values,
    }  # fmt: skip


def result(uri: str, status: str = "ok", **values: Any) -> Row:
    """What a run made of a recording: a row without what `join` gives it."""
    made = row(uri, status=status, **values)
    return {name: made[name] for name in made if name not in ("source", "ordinal", "stored_as")}


def listed(uri: str, size: int = 5, etag: str | None = None) -> Item:
    info = FileInfo(f"/there/{uri}", size, etag or f"tag of {uri}", 1.0)
    return Item(uri, f"/there/{uri}", info, {})


def lost(uri: str) -> Item:
    """A recording that a table names and that was not found."""
    return Item(uri, uri, None, {})


def changes_of(items: list[Item], published: list[Row]) -> changes.Changes:
    return find_changes(listing_of(items), as_table(published), "music")


def uris(items: list[Item]) -> list[str]:
    return [item.uri for item in items]


def test_a_listing_is_compared_by_uri_size_and_etag() -> None:
    published = [
        row("as it was"), row("etag"), row("gone"), row("not found"), row("of another source",
        source="other"), row("of a list", source=None), row("size"), row("size unknown", size=None),
    ]  # fmt: skip
    items = [
        listed("new"), listed("size unknown"), listed("etag", etag="another"), listed("as it was"),
        listed("size", size=6), lost("not found"), lost("new and not found"),
    ]  # fmt: skip
    found = changes_of(items, published)
    assert uris(found.added) == ["new", "new and not found"]
    assert uris(found.changed) == ["size unknown", "etag", "size"]
    assert found.added == [items[0], items[-1]]
    assert found.counts() == {"added": 2, "changed": 3, "withdrawn": 1, "retried": 0}
    kept = found.published.filter(found.kept_N)["uri"].to_pylist()
    assert kept == ["as it was", "not found", "of another source", "of a list"]


def test_failures_are_tried_again_until_they_are_hopeless() -> None:
    most = changes.MAX_ATTEMPTS
    published = [
        row("changed", status="failed", attempts=1, size=4),
        row("hopeless", status="failed", attempts=most),
        row("hopeless but changed", status="failed", attempts=most, size=4),
        row("removed", status="removed", attempts=1, size=4),
        row("twice", status="failed", attempts=most - 1),
    ]
    found = changes_of([listed(one["uri"]) for one in published], published)
    assert uris(found.changed) == ["changed", "hopeless but changed"]
    assert uris(found.retried) == ["twice"]
    assert found.attempts == {"twice": most - 1}
    assert found.published.filter(found.kept_N)["uri"].to_pylist() == ["hopeless", "removed"]
    gone = changes_of([], published)
    assert (gone.removed, gone.kept_N.any()) == (5, False)


def test_an_empty_catalog_gets_everything() -> None:
    found = changes_of([listed("b"), listed("a")], [])
    table, following = join(found, [result("b"), result("a", "failed")], "music", 0)
    assert (uris(found.work), following) == (["b", "a"], 1)
    assert table.schema.equals(TRACK_SCHEMA)
    assert table.select(["uri", "source", "ordinal", "stored_as"]).to_pylist() == [
        {"uri": "a", "source": "music", "ordinal": None, "stored_as": None},
        {"uri": "b", "source": "music", "ordinal": 0, "stored_as": "id of b"},
    ]


def test_copies_share_ordinal_and_fingerprints() -> None:
    old = row("old", ordinal=3, embedding_file="old.parquet", embeddings_at=99)
    unfit = row("removed", ordinal=4, status="removed")
    found = changes_of([listed(uri) for uri in "abcd"], [old, unfit])
    rows = [
        result("a", "skipped", content_sha256=old["content_sha256"], n_segments=0),
        result("b", content_sha256=digest("twins"), n_segments=5),
        result("c", content_sha256=digest("twins"), n_segments=5, embedding_file="c.parquet"),
        result("d", content_sha256=unfit["content_sha256"]),
    ]
    table, following = join(found, rows, "music", 5)
    shown = {one["uri"]: one for one in table.to_pylist()}
    assert following == 7
    assert {uri: shown[uri]["ordinal"] for uri in "abcd"} == {"a": 3, "b": 5, "c": 5, "d": 6}
    assert {uri: shown[uri]["status"] for uri in "abcd"} == dict.fromkeys("abcd", "ok")
    same = ("stored_as", "embedding_file", "embeddings_at", "n_segments")
    assert [shown["a"][name] for name in same] == [old[name] for name in same]
    assert [shown["b"][name] for name in same] == [shown["c"][name] for name in same]
    assert shown["a"]["track_id"] == "id of a"


def test_a_hash_that_begins_like_another_costs_one_night() -> None:
    stored = row("stored", ordinal=0)
    alike = stored["content_sha256"][:20] + digest("something else")[20:]
    assert is_known(known_hashes(as_table([stored])), alike)
    found = changes_of([listed("stored"), listed("alike")], [stored])
    table, following = join(found, [result("alike", "skipped", content_sha256=alike)], "music", 1)
    [first, _] = table.to_pylist()
    assert (first["status"], first["error_kind"], following) == ("failed", "hash", 1)
    assert live_refs(table).ordinal_T.tolist() == [0]
    again = find_changes(listing_of([listed("stored"), listed("alike")]), table, "music")
    assert uris(again.retried) == ["alike"]
    assert not is_known(known_hashes(table), alike)
    table, following = join(again, [result("alike", content_sha256=alike)], "music", 1)
    assert (table["status"].to_pylist(), following) == (["ok", "ok"], 2)


def test_known_hashes_are_those_of_tracks_with_fingerprints() -> None:
    rows = [row(str(n), status="ok" if n % 3 else "removed") for n in range(300)]
    rows.append(row("never read", status="failed", content_sha256=None))
    parts = [as_table(rows[:100]), as_table(rows[100:])]
    known_H = known_hashes(pa.concat_tables(parts))
    assert (known_H.dtype, known_H.nbytes) == (np.uint64, 8 * 200)
    assert [is_known(known_H, one["content_sha256"]) for one in rows[:300]] == [
        bool(n % 3) for n in range(300)
    ]
    assert not is_known(known_hashes(as_table([])), digest("a"))


def test_the_estimate_knows_the_catalogs_own_rate() -> None:
    published = [
        row("a.MP3", size=1000, duration_s=10.0),
        row("b.mp3", size=3000, duration_s=10.0),
        row("c.mp3", status="failed", size=10**9, duration_s=0.0, attempts=9),
    ]
    items = [listed(one["uri"], one["size"]) for one in published]
    found = changes_of([*items, listed("d.mp3", 720_000)], published)
    assert 720_000 * seconds_a_byte(found, ".mp3") == pytest.approx(3600)
    assert seconds_a_byte(found, ".flac") == 1 / 100_000


def test_live_tracks_are_by_ordinal_and_copies_are_one() -> None:
    rows = [
        row("a", ordinal=9, n_segments=4), row("b", ordinal=2), row("c", ordinal=9, n_segments=4),
        row("d", ordinal=5, status="removed"), row("e", status="failed", ordinal=None),
    ]  # fmt: skip
    live = live_refs(rows)
    assert list(live) == live.ordinal_T.tolist() == [2, 9]
    assert (len(live), live.fingerprints) == (2, 11)
    assert live.table(["ordinal", "n_segments"]).to_pylist() == [
        {"ordinal": 2, "n_segments": 7},
        {"ordinal": 9, "n_segments": 4},
    ]
    assert [(ref.ordinal, ref.n_segments) for ref in live.values()] == [(2, 7), (9, 4)]
    assert [ref.ordinal for ref in live.of(np.array([9, 5]))] == [9]
    assert not live_refs([])
