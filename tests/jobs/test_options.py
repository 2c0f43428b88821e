"""The options of each job, which scripts outside rely on, and how wrong ones are refused."""

import importlib
import io
import logging
import re
import sys
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

import pytest

from grafp.errors import OptionError, StorageError
from grafp.model.bundle import read_card
from grafp.option_values import (
    Count,
    Kind,
    Uri,
    number,
    numbers,
)
from grafp.options import build_parser, parse, parse_given
from grafp.plan import Case
from pipelines.common import cli
from pipelines.jobs import train

REQUIRED = "required"
ENCODERS = {"--workers": None, "--gpu --no-gpu": None}
CONTRACT: dict[str, dict[str, Any]] = {
    "train": {
        "--music": None, "--out": REQUIRED, "--noise": None, "--rir": None, "--data": None,
        "--memory-gb": None, "--recipe": "grafp", "--preset": "small", "--start-from": None,
        "--minutes": None, "--steps": None, "--epochs": None, "--pairs": 128, "--per-track": 2,
        "--accumulate": 1, "--compile": False, "--optimizer": "adamw", "--learning-rate": 1e-3,
        "--final-learning-rate": 0.0, "--warm-up": 0.02, "--weight-decay": 0.01, "--clip": 1.0,
        "--temperature": 0.05, "--held-out": 0.1, "--offset-ms": 50.0, "--augment": [], "--seed": 0,
        "--num-workers": 1, "--gpu --no-gpu": None, "--resume": False,
    },
    "index_catalog": {
        "--audio": REQUIRED, "--catalog": REQUIRED, "--model": None, "--hop": None,
        "--codec": None, "--lists": None, "--probes": None, "--neighbors": None,
        "--candidates": None, "--max-failures": "1%", "--min-recall": 0.0,
        "--metrics": None, "--max-seconds": 10_800.0, "--near-duplicates": None,
        "--allow-empty": False, "--dry-run": False, "--price-node-hour": None,
        "--price-gb-month": None, **ENCODERS,
    },
    "merge_index": {
        "--catalog": REQUIRED, "--remove": None, "--compact": False, "--retrain": False,
        "--rollback": None, "--verify": False, "--clean": False, "--workers": None,
        "--upgrade": False, "--keep": 14,
        "--grace-hours": 336.0, "--metrics": None, "--dry-run": False,
    },
    "query_batch": {
        "--catalog": REQUIRED, "--queries": REQUIRED, "--out": REQUIRED, "--top-k": 1,
        "--fpr": None, "--min-score": None, "--max-speed-change": 0.05, "--rerank": "exact",
        "--search-actors": None, "--search-memory": None,
        "--timeline": False, "--report": False, "--truth": None, "--max-failures": "100%",
        "--max-seconds": 0.0, **ENCODERS,
    },
    "evaluate": {
        "--catalog": None, "--audio": None, "--noise": None, "--rir": None,
        "--out": REQUIRED, "--seconds": [1.0, 2.0, 3.0, 5.0],
        "--snr": [0.0, 5.0, 10.0, 15.0, 20.0], "--queries": 2000, "--protocol": "field",
        "--search": "index", "--query-hop": "fine", "--seed": 0, "--unknown": None,
        "--distractors": [], "--embeddings": None, **ENCODERS,
    },
    "reproduce": {
        "--fma": REQUIRED, "--musan": REQUIRED, "--air": REQUIRED, "--out": REQUIRED,
        "--table": [], "--figure": [], "--scale": "medium", "--model": [],
        "--num-workers": None, "--dry-run": False, **ENCODERS,
    },
    "demo": {
        "--audio": None, "--out": "demo-out", "--tracks": 48, "--clips": 60, "--seconds": 5.0,
        "--snr": 5.0, "--seed": 0,
    },
    "plan": {
        "--tracks": REQUIRED, "--minutes": 3.5, "--hop": 0.1, "--codec": None, "--lists": None,
        "--probes": None, "--rerank": "exact",
        "--new-per-night": 0.0, "--queries-per-day": 0.0, "--query-seconds": 5.0,
        "--decided": 0.88, "--encoder-rate": 842.0, "--decode-rate": 435.0, "--fill-rate": None,
        "--search-rate": None, "--encoders": 48,
        "--node-memory-gb": 64.0, "--node-disk-gb": 200.0, "--node-processors": 8.0,
        "--price-node-hour": None, "--price-gpu-hour": None, "--price-memory-node-hour": None,
        "--price-gb-month": None,
    },
    "datasets": {
        "--folder": REQUIRED, "--out": REQUIRED, "--kind": "music", "--subset": None,
    },
}  # fmt: skip
CHOICES = {
    ("train", "--recipe"): "{grafp,paper}",
    ("train", "--preset"): "{small,grafprint,grafprint-readout,grafprint-s,grafprint-m,"
    "grafprint-b,nafp,ast,ast-published,ast-small}",
    ("train", "--optimizer"): "{adamw,adam}",
    ("index_catalog", "--codec"): "{PQ64x4fs,PQ64,SQfp16}",
    ("query_batch", "--rerank"): "{exact,pq}",
    ("evaluate", "--protocol"): "{field,paper}",
    ("evaluate", "--search"): "{index,lsh}",
    ("evaluate", "--query-hop"): "{fine,catalog}",
    ("reproduce", "--table"): "{2,3}",
    ("reproduce", "--figure"): "{2}",
    ("reproduce", "--scale"): "{tiny,medium,large}",
    ("plan", "--codec"): "{PQ64x4fs,PQ64,SQfp16}",
    ("plan", "--rerank"): "{exact,pq}",
    ("datasets", "--kind"): "{music,noise,rir}",
    ("datasets", "--subset"): "{small,medium,large,full}",
}


MODULES = {"plan": "grafp.plan", "datasets": "grafp.datasets.__main__"}


def module_of(job: str) -> Any:
    return importlib.import_module(MODULES.get(job, f"pipelines.jobs.{job}"))


def options_of(job: str) -> type:
    return Case if job == "plan" else module_of(job).Options


@pytest.mark.parametrize("job", CONTRACT)
def test_a_job_has_the_options_that_scripts_rely_on(job: str) -> None:
    defaults = {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for one in fields(options_of(job))
    }
    found, choices = {}, {}
    for action in build_parser(options_of(job), "")._actions[1:]:  # after --help
        name = " ".join(action.option_strings)
        found[name] = REQUIRED if action.required else defaults[action.dest]
        if str(action.metavar).startswith("{"):
            choices[job, name] = action.metavar
    assert found == CONTRACT[job]
    assert choices == {key: value for key, value in CHOICES.items() if key[0] == job}


@pytest.mark.parametrize("job", CONTRACT)
def test_help_shows_real_defaults_and_marks_what_is_required(job: str) -> None:
    module = module_of(job)
    shown = build_parser(options_of(job), module.__doc__).format_help()
    assert shown.startswith(module.__doc__.strip())
    assert "Exit code: 0 done" in shown
    assert "None" not in shown
    entries = re.split(r"\n  (?=--)", shown.partition("options:\n")[2])[1:]
    for entry, (name, default) in zip(entries, CONTRACT[job].items(), strict=True):
        text = " ".join(entry.split())
        assert text.startswith(name.replace(" ", ", "))
        assert ("(required)" in text) == (default == REQUIRED)
        if isinstance(default, int | float) and not isinstance(default, bool) and default:
            assert f"(default: {default:g})" in text


def test_the_index_job_tells_the_defaults_of_a_search() -> None:
    from grafp.index.alignment import CANDIDATES, NEIGHBORS

    shown = build_parser(options_of("index_catalog"), "").format_help()
    assert f"for each of theirs (default: {NEIGHBORS})" in " ".join(shown.split())
    assert f"for each query (default: {CANDIDATES})" in " ".join(shown.split())


def test_presets_have_the_names_that_training_offers() -> None:
    from grafp.model.presets import PRESETS
    from grafp.training.config import PRESET_NAMES

    assert {"small", "grafprint", "nafp", "ast", "ast-small"} < set(PRESET_NAMES)
    assert sorted(PRESET_NAMES) == sorted(PRESETS)


@dataclass(frozen=True)
class Settings:
    pairs: int = 128
    """Pairs in a batch."""


@dataclass(kw_only=True)
class Common:
    gpu: bool | None = None
    """Encode on GPUs (default: if there)."""


@dataclass(kw_only=True)
class Example(Common):
    exclusive: ClassVar = (("fpr", "min_score"),)
    help_from: ClassVar = Settings

    catalog: Uri
    """The catalog."""
    fpr: Annotated[float, Kind("RATE", number(0.0001, 0.1))] | None = None
    """Rate, 100% of which is too much."""
    min_score: Annotated[float, Kind("X", number())] | None = None
    """Score."""
    pairs: Count = Settings.pairs
    seconds: Annotated[list[float], Kind("S,..", numbers(1, 60))] | None = None
    """Lengths."""
    mode: Literal["one", "two"] = "one"
    """What to do."""
    setting: Annotated[list[str], Kind("NAME=VALUE", repeatable=True)] | None = None
    """Repeatable."""
    quick: bool = False
    """Be quick."""

    def __post_init__(self) -> None:
        if self.quick and self.mode == "two":
            raise OptionError("--quick: not with --mode two")


def test_values_have_the_types_of_their_fields() -> None:
    words = "--catalog x --fpr 0.01 --seconds 5,1 --mode two --setting a=1 --setting b --no-gpu"
    chosen, given = parse_given(Example, "", words.split())
    assert chosen == Example(
        catalog="x", fpr=0.01, seconds=[1.0, 5.0], mode="two", setting=["a=1", "b"], gpu=False
    )
    assert given == {"catalog", "fpr", "seconds", "mode", "setting", "gpu"}
    assert parse(Example, "", ["--catalog=x"]) == Example(catalog="x", pairs=128, gpu=None)


def test_the_last_of_two_values_counts() -> None:
    """Scripts end with "$@"."""
    assert parse(Example, "", ["--catalog=x", "--mode=two", "--catalog=y"]).catalog == "y"


def test_help_takes_texts_from_fields_and_puts_common_options_last() -> None:
    shown = build_parser(Example, "Head,\n    as written.").format_help()
    assert shown.startswith("Head,\n    as written.\n\nusage: ")
    assert "[--fpr RATE | --min-score X]" in " ".join(shown.split())
    entries = [" ".join(line.split()) for line in shown.splitlines()]
    assert "--pairs N Pairs in a batch (default: 128)" in entries
    assert "--fpr RATE Rate, 100% of which is too much" in entries
    assert entries[-1] == "--gpu, --no-gpu Encode on GPUs (default: if there)"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "--catalog: required"),
        ("--catalog", "--catalog: needs a value"),
        ("--catalog x --fpr 2", "--fpr: 2 is not between 0.0001 and 0.1"),
        ("--catalog x --fpr nan", "--fpr: 'nan' is not a number"),
        ("--catalog x --fpr 0.1 --min-score 1", "--min-score: not allowed with --fpr"),
        ("--catalog x --pairs 0", "--pairs: '0' is not a whole number of 1 or more"),
        ("--catalog x --mode on", "--mode: 'on' is not one of one, two"),
        ("--catalog x --seconds 1,,2", "--seconds: '1,,2' is not a list of numbers of 1 to 60, "
         "such as 1,2,5"),
        ("--catalog x --min 1", "--min: no such option; did you mean --min-score?"),
        ("--catolog x", "--catolog: no such option; did you mean --catalog?"),
        ("--catalog x --pears=2", "--pears: no such option; did you mean --pairs?"),
        ("--catalog x -p 1", "-p 1: no such option; see --help"),
        ("--catalog x y", "y: no such option; see --help"),
        ("--catalog x --quick --mode two", "--quick: not with --mode two"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_that_says_what_would_be_right(
    words: str, line: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Example, "", words.split())
    assert stopped.value.code == cli.BAD_ARGUMENTS
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"error: {line}\n")


@pytest.mark.parametrize(
    ("job", "words", "line"),
    [
        ("index_catalog", "--audio a --catalog c --price-gb-month 0.02",
         "--price-gb-month: only with --dry-run"),
        ("index_catalog", "--audio a --catalog c --codec PQ32",
         "--codec: 'PQ32' is not one of PQ64x4fs, PQ64, SQfp16"),
        ("index_catalog", "--audio a --catalog c --lists 0",
         "--lists: '0' is not a whole number of 1 or more"),
        ("index_catalog", "--audio a --catalog c --lists 8 --probes 9",
         "--probes 9: more than the 8 lists"),
        ("index_catalog", "--audio a --catalog c --near-duplicates some",
         "--near-duplicates: 'some' is not a whole number of 1 or more; auto and off are possible "
         "too"),
        ("index_catalog", "--audio a --catalog c --workers 8:4",
         "--workers: '8:4' is neither a number such as 8 nor a range such as 4:32"),
        ("index_catalog", "--audio a --catalog c --workers 0:4",
         "--workers: '0:4' is neither a number such as 8 nor a range such as 4:32"),
        ("index_catalog", "--audio a --catalog c --workers many",
         "--workers: 'many' is neither a number such as 8 nor a range such as 4:32"),
        ("merge_index", "--catalog c --verify --clean", "--clean: not allowed with --verify"),
        ("merge_index", "--catalog c --clean --compact",
         "--clean: not with --remove, --compact or --retrain"),
        ("merge_index", "--catalog c --dry-run", "--dry-run: only with --clean"),
        ("query_batch", "--catalog c --queries q --out o --timeline --top-k 2",
         "--timeline: not with --truth or --top-k"),
        ("query_batch", "--catalog c --queries q --out o --max-speed-change 0.2",
         "--max-speed-change: 0.2 is not between 0 and 0.15"),
        ("query_batch", "--catalog c --queries q --out o --max-speed-change -1",
         "--max-speed-change: -1 is not between 0 and 0.15"),
        ("query_batch", "--catalog c --queries q --out o --max-speed-change x",
         "--max-speed-change: 'x' is not a number"),
        ("query_batch", "--catalog c --queries q --out o --fpr 0.5",
         "--fpr: 0.5 is not between 0.0001 and 0.1"),
        ("query_batch", "--catalog c --queries q --out o --fpr 0.01 --min-score 0.5",
         "--min-score: not allowed with --fpr"),
        ("train", "--out o --music m --steps 1 --minutes 1",
         "--minutes: not allowed with --steps"),
        ("train", "--out o --num-workers -1",
         "--num-workers: '-1' is not a whole number of 0 or more"),
        ("train", "--out o", "--music: required"),
        ("evaluate", "--catalog c --audio a --noise n --rir r --out o --distractors 1.5",
         "--distractors: '1.5' has a number that is not whole"),
        ("evaluate", "--catalog c --noise n --out o", "--audio, --rir: required"),
        ("evaluate", "--embeddings e --audio a --out o", "--audio: not with --embeddings"),
        ("evaluate", "--embeddings e --snr 5 --out o", "--snr: not with --embeddings"),
        ("evaluate", "--embeddings e --query-hop catalog --out o",
         "--query-hop: not with --embeddings"),
        ("reproduce", "--fma f --musan m --out o", "--air: required"),
        ("reproduce", "--fma f --musan m --air a --out o --table 1",
         "--table: '1' is not one of 2, 3"),
        ("reproduce", "--fma f --musan m --air a --out o --model small",
         "--model: 'small' is not NAME=URI, such as nafp=models/nafp"),
        ("reproduce", "--fma f --musan m --air a --out o --model ast=a --model ast=b",
         "--model ast: given twice"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(
    job: str, words: str, line: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"pipelines.jobs.{job}").options(words.split())
    assert stopped.value.code == cli.BAD_ARGUMENTS
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_resumed_run_has_its_own_options_where_none_are_given() -> None:
    started = {
        "music": "/music", "steps": 7, "minutes": None, "pairs": 8, "num_workers": 0,
        "weight_decay": 0.5, "augment": {"codec": 0.2, "snr_db": [0.0, 9.0], "order": "room-noise"},
    }  # fmt: skip
    chosen = train.options(["--out", "o", "--resume", "--minutes", "5", "--pairs", "4"])
    resumed = train._as_started(chosen, started)
    assert (resumed.music, resumed.num_workers, resumed.pairs) == ("/music", 0, 4)
    assert (resumed.steps, resumed.minutes) == (None, 5.0)
    assert resumed.augment == ["codec=0.2", "snr_db=0.0:9.0", "order=room-noise"]


def test_a_job_shows_its_log_and_then_its_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), line_buffering=False)
    monkeypatch.setattr(sys, "stdout", stdout)
    raw = stdout.buffer

    def main(options: Example) -> tuple[dict[str, Any], int]:
        print("half done")
        assert b"half done" in raw.getvalue()  # line by line, though it is no terminal
        logging.getLogger("grafp.something").info("done")
        return {"catalog": options.catalog}, cli.TOO_MANY_FAILURES

    assert cli.run(main, Example(catalog="x")) == cli.TOO_MANY_FAILURES
    assert raw.getvalue() == b'half done\ndone\n{"catalog": "x"}\n'


@pytest.mark.parametrize(
    ("error", "code"),
    [(StorageError("s3://b: gone"), cli.FAILED), (OptionError("--x: bad"), cli.BAD_ARGUMENTS)],
)
def test_a_known_error_is_one_line(
    error: Exception, code: int, capsys: pytest.CaptureFixture
) -> None:
    def main(_: Example) -> tuple[dict[str, Any], int]:
        raise RuntimeError("of Ray") from error

    assert cli.run(main, Example(catalog="x")) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_the_error_that_says_most_is_told(capsys: pytest.CaptureFixture) -> None:
    def main(_: Example) -> tuple[dict[str, Any], int]:
        read_card("nowhere")
        raise AssertionError

    assert cli.run(main, Example(catalog="x")) == cli.FAILED
    assert capsys.readouterr().err.startswith("error: nowhere: not a model bundle (nowhere/card")
