"""What an evaluation is made of: recordings, noises, impulse responses, and the clips cut of them.

Only recordings of the split `test` are used, see grafp.datasets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from grafp import storage
from grafp.audio import MAX_SECONDS, SAMPLE_RATE, decode
from grafp.catalog.catalog import Catalog
from grafp.datasets import Kind, list_part, waveforms
from grafp.datasets.parts import in_part
from grafp.errors import AudioError, OptionError, StorageError
from grafp.evaluation.protocol import Clip, draw_clips, make_clip
from grafp.storage.sources import Item
from pipelines.common.work import Pending, Rows, dataset, share

if TYPE_CHECKING:
    import ray.data


@dataclass(frozen=True)
class Material:
    """The recordings that clips are cut of, and what degrades the clips."""

    known: list[Item]
    """Recordings of the catalog, long enough for every clip."""
    unknown: list[Item]
    """Recordings that are not in the catalog."""
    noises: list[np.ndarray]
    """int16 waveforms (samples,), 16 kHz."""
    rirs: list[np.ndarray]
    """int16 impulse responses, 16 kHz; may be empty if no clip is reverberant."""

    @classmethod
    def collect(
        cls,
        catalog: Catalog,
        recordings: Sequence[Item],
        noise: str,
        rir: str,
        unknown: str | None,
        longest: float,
    ) -> "Material":
        """List the recordings and decode noises and impulse responses.

        Args:
            recordings: of the catalog, of all splits.
            noise, rir, unknown: folders or tables.
            longest: length of the longest clip, s.

        Raises OptionError when the recordings do not fit the catalog, or an option has none for
        evaluation.
        """
        noises, rirs = _of_test("noise", noise, "--noise"), _of_test("rir", rir, "--rir")
        durations = {
            row["uri"]: row["duration_s"]
            for row in catalog.tracks(["uri", "duration_s", "status"]).to_pylist()
            if row["status"] == "ok"
        }
        known = [item for item in in_part(recordings, "test") if item.uri in durations]
        if not known:
            raise OptionError("--audio: none of it is in the catalog")
        others = _of_test("music", unknown, "--unknown") if unknown else []
        if both := [item.uri for item in others if item.uri in durations]:
            raise OptionError(f"--unknown {unknown}: {both[0]} is in the catalog")
        usable = [item for item in known if durations[item.uri] >= longest + 1]
        if not usable:
            raise OptionError(f"--seconds: no recording is longer than {longest:g} s")
        return cls(usable, others, waveforms(noises), waveforms(rirs))

    def draw(self, queries: int, seed: int, **options: Any) -> list[Clip]:
        """Draw clips: `queries` cuts of known recordings, and a quarter as many of unknown ones.

        `options` are those of `draw_clips`.
        """
        clips: list[Clip] = []
        for items, count in ((self.known, queries), (self.unknown, max(1, queries // 4))):
            if items:
                uris = [item.uri for item in items]
                drawn = draw_clips(uris, queries=count, seed=seed + len(clips), **options)
                clips += [replace(clip, number=len(clips) + clip.number) for clip in drawn]
        return clips

    def cut(self, clips: Sequence[Clip]) -> "ray.data.Dataset | Rows":
        """The clips as rows with `pcm`, each recording decoded once.

        Raises OptionError when there is nothing to degrade the clips with.
        """
        if not self.noises or (not self.rirs and any(clip.reverb for clip in clips)):
            raise OptionError(
                "the evaluation needs noises, and impulse responses for reverberant clips"
            )
        by_track: dict[str, list[dict[str, Any]]] = {}
        for clip in clips:
            by_track.setdefault(clip.track, []).append(asdict(clip))
        rows = [
            {"location": item.location, "clips": by_track[item.uri]}
            for item in [*self.known, *self.unknown]
            if item.uri in by_track
        ]
        return dataset(rows, blocks=len(rows)).flat_map(
            _cut_track,
            fn_kwargs={"noises": share(self.noises), "rirs": share(self.rirs)},
            num_cpus=0.25,
        )


def _of_test(kind: Kind, uri: str, option: str) -> list[Item]:
    """The recordings for evaluation; an error names the option."""
    try:
        return list_part(kind, uri, "test")
    except (OptionError, StorageError) as error:
        raise type(error)(f"{option} {error}") from error.__cause__


def self_repeating(items: Sequence[Item]) -> set[str]:
    """URIs of recordings with a `self_repeat` above 0.45: the same music at several offsets."""
    return {item.uri for item in items if float(item.row.get("self_repeat") or 0) > 0.45}


def _cut_track(
    row: dict[str, Any], noises: Pending[list[np.ndarray]], rirs: Pending[list[np.ndarray]]
) -> Iterator[dict[str, Any]]:
    """All clips of one track."""
    noise_list, rir_list = noises.result(), rirs.result()
    clips = [Clip(**values) for values in row["clips"]]
    # Not None, which Arrow takes for a string when a block has nothing else.
    empty = {"status": "failed", "duration_s": 0.0, "cut_at_s": np.nan, "pcm": b""}
    try:
        data = storage.read(row["location"])
        longest = max(clip.longest for clip in clips)
        track_S = decode(data, min_seconds=longest, max_seconds=MAX_SECONDS)
    except (AudioError, StorageError) as error:
        for clip in clips:
            yield {**empty, "number": clip.number, "error": str(error)}
        return
    for clip in clips:
        start, clip_S = make_clip(clip, track_S, noise_list, rir_list)
        yield {
            "number": clip.number,
            "status": "ok",
            "error": None,
            "duration_s": clip.seconds,
            "cut_at_s": start / SAMPLE_RATE,
            "pcm": clip_S.tobytes(),
        }
