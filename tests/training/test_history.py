"""What is left of a training run to look at: events for TensorBoard, and a picture."""

import io
import math
from collections.abc import Iterator

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from grafp import storage
from grafp.training.history import Events, Point, curves_png


def history(steps: int) -> list[Point]:
    """A point every 10 steps, every third validated."""
    return [
        Point(
            step=step,
            seconds=step / 2,
            time=1e9 + step,
            loss=5 / step,
            learning_rate=1e-3,
            pairs_per_second=70.0,
            hit_rate=step / 1000 if step % 30 == 0 else math.nan,
        )
        for step in range(10, steps + 1, 10)
    ]


def records(data: bytes) -> Iterator[Event]:
    """The events of a file: length, its checksum, event, its checksum."""
    while data:
        size = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]


def told(uri: str, tag: str) -> list[tuple[int, float]]:
    """Step and value of all events in the order in which TensorBoard reads the files."""
    found = []
    for info in storage.list_files(uri):
        for event in records(storage.read(info.uri)):
            values = [value.simple_value for value in event.summary.value if value.tag == tag]
            found += [(event.step, value) for value in values]
    return found


def test_events_follow_the_run(store: str) -> None:
    events = Events(store, 0)
    events.write(history(50))
    assert told(store, "loss") == [(s, pytest.approx(5 / s)) for s in range(10, 51, 10)]
    before = {info.uri: info.etag for info in storage.list_files(store)}
    events.write(history(90))
    assert [step for step, _ in told(store, "loss")] == list(range(10, 91, 10))
    assert told(store, "hit_rate") == [(s, pytest.approx(s / 1000)) for s in (30, 60, 90)]
    assert {step for step, _ in told(store, "learning_rate")} == set(range(10, 91, 10))
    after = {info.uri: info.etag for info in storage.list_files(store)}
    assert before.items() < after.items()  # what TensorBoard has read stays as it is


def test_no_point_is_there_twice_after_a_resume(store: str) -> None:
    """The last events were written, but not the checkpoint that belongs to them."""
    stopped = Events(store, 0)
    stopped.write(history(50))
    stopped.write(history(70))
    resumed = Events(store, 50)
    assert [step for step, _ in told(store, "loss")] == list(range(10, 51, 10))
    resumed.write(history(100))
    assert [step for step, _ in told(store, "loss")] == list(range(10, 101, 10))


def test_files_that_are_not_ours_stay(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    Events(str(tmp_path), 0)
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize(("steps", "best_step"), [(200, 90), (20, None), (10, None)])
def test_the_curves_are_a_picture(steps: int, best_step: int | None) -> None:
    png = curves_png(history(steps), "small", best_step)
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.size) == ("PNG", (1080, 780))
        assert len(image.getcolors(1 << 20)) > 50  # it is not blank
    if best_step:
        assert png != curves_png(history(steps), "small", 150)
