"""Progress is reported to TensorBoard, which is imported on demand."""

import dataclasses
import struct
import subprocess
import sys
import types

import numpy as np
import pytest

from jaxdd.runs import pipeline, processes, progress
from jaxdd.runs.folder import store


class Writer:
    """Imitates `tensorboardX.SummaryWriter`."""

    def __init__(self, folder):
        self.folder, self.scalars, self.is_open = folder, [], True

    def add_scalar(self, *scalar):
        assert self.is_open
        self.scalars.append(scalar)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_open = False


@pytest.fixture
def writers(monkeypatch):
    created = []
    create = lambda folder: created.append(Writer(folder)) or created[-1]
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=create))
    return created


def test_fields_are_written_by_task_and_step(writers, tmp_path):
    with progress.tensorboard(tmp_path) as report:
        report("plain", 0, 4)
        report("plain", 2, 4, loss=0.5, speed=3.0)
        report("plain", 4, 4, loss=0.25, speed=3.0, accuracy=0.75)
    (writer,) = writers
    assert writer.folder == str(tmp_path) and not writer.is_open
    assert writer.scalars == [
        ("plain/loss", 0.5, 2), ("plain/speed", 3.0, 2), ("plain/loss", 0.25, 4),
        ("plain/speed", 3.0, 4), ("plain/accuracy", 0.75, 4),
    ]  # fmt: skip


def test_the_writer_is_closed_after_an_exception(writers, tmp_path):
    with pytest.raises(KeyboardInterrupt), progress.tensorboard(tmp_path):
        raise KeyboardInterrupt
    assert not writers[0].is_open


def test_only_the_first_process_writes(writers, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    with progress.tensorboard(tmp_path) as report:
        report("plain", 1, 1, loss=0.5)
    assert not writers


def test_a_missing_package_is_reported_before_the_run(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        with progress.tensorboard(tmp_path):
            pytest.fail("the block ran")


def test_importing_progress_imports_no_tracker():
    code = "import sys, jaxdd.runs.progress; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorboardX", "clu", "tensorboard", "torch"} & set(run.stdout.split())


def read_scalars(folder):
    """Yield tag, step and value of the records in event files, which are TFRecord files."""
    from tensorboardX.proto.event_pb2 import Event

    for path in folder.iterdir():
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])  # between two checksums of 4 bytes
            yield from ((x.tag, event.step, x.simple_value) for x in event.summary.value)
            content = content[16 + size :]


def test_a_run_reports_its_losses_and_accuracies(fake, tmp_path):
    """TINY has six steps in chunks of two; it is scored after steps 2 and 4. The fields are those
    in progress.jsonl, and event files hold the same.
    """
    pytest.importorskip("tensorboardX")
    reported = []

    def report(task, done, total, **fields):
        tensorboard(task, done, total, **fields)
        reported.extend((f"plain/{name}", done, value) for name, value in fields.items())

    chosen = dataclasses.replace(fake.TINY, score_every=2)
    setup = dict(debias="plain", report=report, network=fake.NETWORK)
    with progress.tensorboard(tmp_path / "logs") as tensorboard:
        pipeline.run(fake.shades(), tmp_path / "out", chosen, **setup)
    records = store.progress(tmp_path / "out")
    assert [record["step"] for record in records] == [2, 4, 6]
    names = {"loss": "loss", "speed": "steps_per_second"}
    names |= {name: name for name in ("accuracy", "conflicting")}
    expected = {
        (f"plain/{name}", record["step"], record[key])
        for record in records for name, key in names.items() if key in record
    }  # fmt: skip
    assert len(expected) == 3 + 3 + 2 + 2 and set(reported) == expected
    rounded = {(tag, step, float(np.float32(value))) for tag, step, value in reported}
    assert {*read_scalars(tmp_path / "logs")} == rounded
