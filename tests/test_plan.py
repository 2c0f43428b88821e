"""python -m grafp.plan: units, proportions, refusals, and that its copies of constants are true."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grafp import plan as calculator
from grafp import rates
from grafp.model.fingerprint import DIMENSION
from grafp.plan import Case, limits, plan

CASE = Case(tracks=1e6, new_per_night=1_000, queries_per_day=1e5)


def summary(capsys: pytest.CaptureFixture, *arguments: str) -> dict:
    """What a run prints last."""
    assert calculator.main(["--tracks", "1e5", *arguments]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    "count", [1, 500, 9_999, 10_000, 10**6, 10**7, 10**8, 10**9, 10**10, 10**12]
)
def test_the_index_looks_as_the_jobs_make_it(count: int) -> None:
    from grafp.index.size import IndexParameters

    case = Case(tracks=count, minutes=1 / 60)  # a fingerprint each
    assert plan(case).index == IndexParameters.for_size(count)


@pytest.mark.parametrize("hop", [0.05, 0.1, 0.15, 0.25, 0.5, 1.0])
def test_queries_come_at_the_manifests_hop(hop: float) -> None:
    from grafp.catalog.manifest import Manifest, StoredFile

    file = StoredFile("", 0, "")
    manifest = Manifest("", None, "", "", "", hop, None, None, None, [], file, file, file, 0, {})
    expected = math.floor((5.0 - 1.0) / manifest.query_hop_s + 1e-9) + 1
    assert Case(1, hop=hop).query_segments() == expected


def test_a_real_index_is_as_large_as_planned(tmp_path: Path) -> None:
    import faiss

    from grafp.catalog.catalog import Catalog
    from grafp.catalog.embeddings import EMBEDDING_SCHEMA, write_embeddings
    from grafp.catalog.shard_files import write_shard
    from grafp.index.ids import fingerprint_ids
    from grafp.index.ivfpq import encode, parse_index, train_index
    from grafp.index.lists import Lists

    tracks, segments = 12, 1_000
    planned = plan(Case(tracks, minutes=100.9 / 60))
    count, index, catalog = tracks * segments, planned.index, Catalog(str(tmp_path))
    assert planned.fingerprints == count
    rng = np.random.default_rng(0)
    vectors_ND = rng.standard_normal((count, DIMENSION)).astype(np.float16)
    segment_N = np.arange(count) % segments
    ids_N = fingerprint_ids(np.arange(count) // segments, segment_N)
    row = dict.fromkeys(set(EMBEDDING_SCHEMA.names) - {"embeddings"}) | {"uri": "a/track.mp3"}
    key, _ = write_embeddings(
        catalog.root,
        "embeddings",
        [{**row, "embeddings": part} for part in np.split(vectors_ND, tracks)],
    )
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # threads that wait for each other are slow on a busy machine
    trained = train_index(vectors_ND[:5_000].astype(np.float32), index)
    codes = encode(trained, vectors_ND, ids_N)
    faiss.omp_set_num_threads(threads)
    shard = write_shard(catalog, "index/i/s", codes, range(index.nlist), 1.0)
    stored = {
        "embeddings": (tmp_path / key).stat().st_size,
        "codes": shard.codes.bytes,
        "trained index": len(trained),
    }
    for name, size in stored.items():
        assert planned.storage_gb[name] * 1e9 == pytest.approx(size, rel=0.1), name
    assert planned.bytes_a_fingerprint["stored"] == pytest.approx(
        sum(stored.values()) / count, rel=0.02
    )
    lists = Lists.filled(parse_index(trained), codes, range(index.nlist))
    held = len(faiss.serialize_index(lists.index)) / count
    assert held == pytest.approx(rates.memory_bytes(index, count), rel=0.05)


def test_units() -> None:
    """A track of 101 s has 1,001 fingerprints, 256 bytes each as float16."""
    found = plan(
        Case(1_000, minutes=101 / 60, encoder_rate=1_001, decode_rate=101, fill_rate=1_001)
    )
    assert found.fingerprints == 1_001_000
    assert found.shards == 2  # of a million fingerprints
    assert found.storage_gb["embeddings"] == pytest.approx(1_001_000 * 256 / 1e9, rel=0.04)
    assert found.query_memory_gb["vectors"] == pytest.approx(1_001_000 * 256 / 1e9)
    for step in ("decode", "encode", "lists and codes"):  # a second a track each
        assert found.build_hours[step] == pytest.approx(1_000 / 3600)
    assert found.node_hours["build"] == pytest.approx(sum(found.build_hours.values()) / 8)
    assert found.query_processor_s["encode"] == pytest.approx(41 / 1_001)


def test_twice_as_many_tracks_take_twice_as_much() -> None:
    """Where there are as many lists; every part is read for every range of lists."""
    one, two = plan(replace(CASE, tracks=5e7)), plan(replace(CASE, tracks=1e8))
    assert one.index.nlist == two.index.nlist
    assert two.fingerprints == 2 * one.fingerprints
    assert two.shards == pytest.approx(2 * one.shards, rel=1e-4)
    for name in ("storage_gb", "query_memory_gb", "index_gb_by_codec"):
        for part, value in getattr(one, name).items():
            times = 1 if part in ("trained index", "model") else 2
            assert getattr(two, name)[part] == pytest.approx(times * value, rel=1e-3), part
    for step in ("decode", "encode", "lists and codes"):
        assert two.build_hours[step] == pytest.approx(2 * one.build_hours[step], rel=1e-3)
    assert two.build_hours["merge by list"] == pytest.approx(
        4 * one.build_hours["merge by list"], rel=0.02
    )
    assert two.query_processor_s["scan"] == pytest.approx(
        2 * one.query_processor_s["scan"], rel=0.02
    )
    for same in ("choose lists", "score", "encode"):
        assert two.query_processor_s[same] == one.query_processor_s[same]


def test_near_duplicates_take_a_tenth_of_encoding_at_most() -> None:
    small, large = (plan(replace(CASE, tracks=tracks)).build_hours for tracks in (1e3, 1e10))
    assert small["near duplicates"] < 0.05 * small["encode"]
    assert large["near duplicates"] == pytest.approx(0.1 * large["encode"])


def test_codes_grow_with_the_root_of_the_catalog() -> None:
    """While lists grow with it: sixteen times the tracks in four times the lists."""
    one, more = plan(replace(CASE, tracks=5e4)), plan(replace(CASE, tracks=16 * 5e4))
    assert more.index.nlist == 4 * one.index.nlist
    assert more.codes_a_fingerprint == pytest.approx(4 * one.codes_a_fingerprint, rel=0.05)


def test_codes_a_fingerprint_by_hand() -> None:
    """Of a query with 41 fingerprints: 6 in 16 lists for all, 16 in 64 for the rest."""
    found = plan(replace(CASE, decided=0.75))
    in_list = found.fingerprints / found.index.nlist
    expected = 1.15 * in_list * (6 * 16 + 0.25 * 16 * 64) / 41
    assert found.codes_a_fingerprint == pytest.approx(expected, rel=0.01)


def test_quick_searches_save_what_they_decide() -> None:
    none, some, every = (plan(replace(CASE, decided=share)) for share in (0.0, 0.5, 1.0))
    for part in ("choose lists", "scan", "score"):
        first, last = (p.query_processor_s[part] for p in (none, every))
        assert first > last
        assert some.query_processor_s[part] == pytest.approx((first + last) / 2)
    short = [plan(replace(CASE, query_seconds=1.0, decided=share)) for share in (0.0, 1.0)]
    assert short[0] == short[1]  # a query of one fingerprint is searched at once


def test_what_was_asked_of_the_index_is_planned() -> None:
    asked = plan(replace(CASE, lists=4_096, codec="PQ64", probes=8))
    assert (asked.index.nlist, asked.index.codec) == (4_096, "PQ64")
    assert asked.storage_gb["codes"] == asked.index_gb_by_codec["PQ64"]
    more = plan(replace(CASE, lists=4_096, codec="PQ64", probes=16))
    assert more.codes_a_fingerprint == pytest.approx(2 * asked.codes_a_fingerprint)
    in_list = asked.fingerprints / 4_096
    assert asked.codes_a_fingerprint == pytest.approx(8 * 1.15 * in_list, rel=0.01)


def test_a_hop_of_half_a_second_needs_a_fifth() -> None:
    every, fifth = plan(CASE), plan(replace(CASE, hop=0.5))
    assert fifth.fingerprints == pytest.approx(every.fingerprints / 5, rel=0.01)
    assert fifth.storage_gb["embeddings"] == pytest.approx(
        every.storage_gb["embeddings"] / 5, rel=0.02
    )
    assert fifth.shards == pytest.approx(every.shards / 5, rel=0.01)
    assert fifth.query_processor_s["encode"] == every.query_processor_s["encode"]


def test_codes_alone_need_less_memory_than_exact_vectors() -> None:
    small = replace(CASE, tracks=1_000)
    exact, codes = plan(small), plan(replace(small, rerank="pq"))
    assert sum(codes.query_memory_gb.values()) < sum(exact.query_memory_gb.values()) / 2
    assert codes.storage_gb == exact.storage_gb


def test_hours_by_the_clock_and_what_limits_them() -> None:
    """A tenth of the encoders take ten times as long, but for the training, which is one task."""
    many, few = (plan(replace(CASE, encoders=count)) for count in (40, 4))
    fixed = many.build_hours["train"] + rates.START_S / 3600
    eight = many.build_hours["calibrate"]
    assert few.elapsed_hours["build"] - fixed - eight / 4 == pytest.approx(
        10 * (many.elapsed_hours["build"] - fixed - eight / 8)
    )
    assert many.limited_by["build"] == "encode"
    assert plan(replace(CASE, decode_rate=1.0)).limited_by["build"] == "decode"
    assert plan(replace(CASE, fill_rate=10.0)).limited_by["build"] == "lists and codes"
    assert "night" not in plan(replace(CASE, new_per_night=0)).limited_by


def test_gpus_encode_while_others_decode() -> None:
    """A GPU a node of 8 CPUs, which decode as fast as one GPU encodes if it is 150 times a CPU."""
    case = replace(CASE, price_gpu_hour=1.0, encoders=2)
    slow = plan(replace(case, encoder_rate=1e3))
    assert slow.limited_by["build"] == "encode"
    fast = plan(replace(case, encoder_rate=1e6))
    assert fast.limited_by["build"] == "decode"
    decoding = fast.build_hours["decode"] / 16
    assert decoding < fast.elapsed_hours["build"] < 1.5 * decoding


def test_disks_hold_what_search_copies() -> None:
    """On as few nodes as can hold the lists; each copies the embedding files of its tracks."""
    one = plan(replace(CASE, tracks=1e5))
    assert one.query_nodes["with vectors on disk"] == 1
    disk = one.query_disk_gb
    assert disk["exact fingerprints"] == pytest.approx(one.storage_gb["embeddings"])
    assert disk["of each node"] * 0.9 == pytest.approx(disk["exact fingerprints"] + 30)
    large = plan(replace(CASE, tracks=1e7))
    nodes = large.query_nodes["with vectors on disk"]
    share = large.query_disk_gb["exact fingerprints"] / large.storage_gb["embeddings"]
    assert 1 / nodes <= share < 1.1 / nodes
    assert plan(replace(CASE, rerank="pq")).query_disk_gb["exact fingerprints"] == 0


def test_nodes_for_memory_and_for_the_load() -> None:
    found = plan(replace(CASE, queries_per_day=0))
    assert found.query_nodes["for the load"] == 0
    assert found.query_nodes["for memory"] > found.query_nodes["with vectors on disk"] > 0
    half = plan(replace(CASE, node_memory_gb=32))
    assert half.query_nodes["for memory"] == pytest.approx(
        2 * found.query_nodes["for memory"], abs=1
    )
    seconds = sum(found.query_processor_s.values())
    busy = plan(replace(CASE, queries_per_day=86_400 * 8 * 3 / seconds - 1))
    assert busy.query_nodes["for the load"] == 3


def test_a_night_without_new_tracks_is_nothing() -> None:
    assert sum(plan(replace(CASE, new_per_night=0)).night_hours.values()) == 0
    assert plan(CASE).night_hours["encode"] == pytest.approx(
        plan(CASE).build_hours["encode"] / 1_000
    )


def test_no_price_no_cost(capsys: pytest.CaptureFixture) -> None:
    assert summary(capsys)["cost"] == {}
    assert calculator.main(["--tracks", "1e5"]) == 0
    assert "cost" not in "".join(capsys.readouterr().out.splitlines()[:-1])


@pytest.mark.parametrize(
    ("price", "items"),
    [
        ("price_node_hour", {"build", "night"}),
        ("price_gpu_hour", {"build, GPUs", "night, GPUs"}),
        ("price_memory_node_hour", {"query nodes a day"}),
        ("price_gb_month", {"storage a month"}),
    ],
)
def test_a_price_costs_what_it_is_for(price: str, items: set[str]) -> None:
    one, ten = (plan(replace(CASE, **{price: value})).cost for value in (0.3, 3.0))
    assert set(one) == items
    for name in items:
        assert one[name] > 0
        assert ten[name] == pytest.approx(10 * one[name])


def test_encoding_on_gpus_is_not_paid_twice() -> None:
    processors = plan(replace(CASE, price_node_hour=1.0))
    gpus = plan(replace(CASE, price_node_hour=1.0, price_gpu_hour=1.0))
    for found in (processors, gpus):  # the head is there all the time
        nodes = found.node_hours["build"] + found.elapsed_hours["build"]
        assert found.cost["build"] == pytest.approx(nodes)
    saved = processors.node_hours["build"] - gpus.node_hours["build"]
    assert 8 * saved == pytest.approx(gpus.cost["build, GPUs"]) == gpus.build_hours["encode"]


def test_storage_costs_its_gigabytes() -> None:
    found = plan(replace(CASE, price_gb_month=0.5))
    assert found.cost == {"storage a month": pytest.approx(sum(found.storage_gb.values()) / 2)}


def test_what_breaks_first_comes_first() -> None:
    found = limits(replace(CASE, tracks=1e8))
    shares = [values["need"] / values["have"] for values in found.values()]
    assert shares == sorted(shares, reverse=True)
    for what, values in found.items():
        size = values["breaks_at_tracks"]
        assert (size is not None and size <= 1e8) == (values["need"] > values["have"]), what
        if size is not None:
            before, after = (limits(replace(CASE, tracks=size * f))[what] for f in (0.8, 1.25))
            assert before["need"] <= before["have"]
            assert after["need"] > after["have"]


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--tracks", "0", "a number above 0"),
        ("--tracks", "many", "a number above 0"),
        ("--tracks", "nan", "a number above 0"),
        ("--minutes", "-3", "a number above 0"),
        ("--hop", "0.07", "a multiple of 0.05 s to 1 s"),
        ("--hop", "1.5", "a multiple of 0.05 s to 1 s"),
        ("--rerank", "best", "exact"),
        ("--codec", "best", "PQ64x4fs"),
        ("--lists", "0", "1 or more"),
        ("--probes", "some", "1 or more"),
        ("--decided", "1.5", "between 0 and 1"),
        ("--new-per-night", "-1", "-1 is not 0 or more"),
        ("--queries-per-day", "inf", "is not a number"),
        ("--encoder-rate", "0", "a number above 0"),
        ("--price-gb-month", "-0.1", "-0.1 is not 0 or more"),
        ("--price-gpu-hour", "2", "--encoder-rate"),
    ],
)
def test_a_wrong_option_is_named(
    capsys: pytest.CaptureFixture, option: str, value: str, wanted: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        summary(capsys, option, value)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {option}: " in line
    assert wanted in line


def test_more_probes_than_lists_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        summary(capsys, "--lists", "8", "--probes", "9")
    assert stopped.value.code == 2
    assert "--probes 9: more than the 8 lists" in capsys.readouterr().err


def test_options_reach_the_plan(capsys: pytest.CaptureFixture) -> None:
    plain = summary(capsys)
    assert summary(capsys, "--hop", "0.5")["fingerprints"] < plain["fingerprints"] / 4
    assert summary(capsys, "--minutes", "7")["fingerprints"] > 2 * plain["fingerprints"]
    for option, step in (
        ("--decode-rate", "decode"),
        ("--encoder-rate", "encode"),
        ("--fill-rate", "lists and codes"),
    ):
        assert summary(capsys, option, "1")["build_hours"][step] > 100 * plain["build_hours"][step]
    chosen = summary(capsys, "--lists", "512", "--codec", "SQfp16", "--probes", "4")
    assert (chosen["index"]["nlist"], chosen["index"]["codec"]) == (512, "SQfp16")
    assert chosen["codes_a_fingerprint"] > plain["codes_a_fingerprint"]
    decided = summary(capsys, "--decided", "0")["query_processor_s"]["scan"]
    assert decided > plain["query_processor_s"]["scan"]
    slow = summary(capsys, "--search-rate", "1e5")["query_processor_s"]["scan"]
    assert slow > 100 * plain["query_processor_s"]["scan"]
    longer = summary(capsys, "--query-seconds", "10")["query_processor_s"]["encode"]
    assert longer == pytest.approx(91 / 41 * plain["query_processor_s"]["encode"])


def test_it_needs_neither_ray_nor_pytorch_nor_faiss() -> None:
    code = (
        "import sys; from grafp.plan import main; main(['--tracks', '1e5']);"
        "assert not {'ray', 'torch', 'faiss'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["shards"] > 0


def test_the_documents_quote_the_plan() -> None:
    plans = [
        plan(replace(CASE, tracks=n, new_per_night=n / 100, queries_per_day=0, price_gb_month=0.023,
                     price_node_hour=0.46, price_memory_node_hour=0.61))
        for n in (1e4, 5e5, 1e7)
    ]  # fmt: skip
    stored = [sum(p.storage_gb.values()) for p in plans]
    hours = [sum(p.build_hours.values()) for p in plans]
    elapsed = [p.elapsed_hours["build"] for p in plans]
    nodes = [p.query_nodes["with vectors on disk"] for p in plans]
    quoted = {
        "README.md": {
            "storage": stored,
            "CPU hours to build": hours,
            "hours with 48 encoders": elapsed,
            "machines of 64 GB for queries, disk of each": nodes,
        },
        "docs/results/scale.md": {
            "storage, GB": stored,
            "building, CPU hours": hours,
            "of these, encoding": [p.build_hours["encode"] for p in plans],
            "building, hours of nodes with 8 CPUs": [p.node_hours["build"] for p in plans],
            "building, hours with 48 encoders": elapsed,
            "memory of the head in the first run, GB": [
                p.memory_gb["head, first run"] for p in plans
            ],
            "query nodes of 64 GB, exact fingerprints on disk": nodes,
            "disk of each of these, GB": [p.query_disk_gb["of each node"] for p in plans],
            "cost: building": [p.cost["build"] for p in plans],
            "cost: storage, a month": [p.cost["storage a month"] for p in plans],
            "cost: query nodes, a day, all in memory": [p.cost["query nodes a day"] for p in plans],
        },
    }
    for name, rows in quoted.items():
        lines = (Path(__file__).parents[1] / name).read_text().splitlines()
        tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        for label, expected in rows.items():
            [cells] = [row[1:] for row in tables if row[0] == label]
            numbers = [float(cell.split()[0].strip(",").replace(",", "")) for cell in cells]
            assert numbers == pytest.approx(expected, rel=0.06), label
