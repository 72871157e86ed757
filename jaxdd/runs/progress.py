"""Report the progress of a run: the protocol of `report=`, and a writer for TensorBoard."""

import contextlib
import os
from collections.abc import Iterator
from typing import Protocol

from jaxdd.runs import processes


class Report(Protocol):
    """A function that a run calls as it advances, by one thread at a time.

    An exception that it raises ends the run, which can be resumed.
    """

    def __call__(self, task: str, done: int, total: int, **fields: float) -> None:
        """Report that a task advanced.

        Args:
            task: the weighting or row, such as "density", while its set is distilled; otherwise
                the stage, such as "choosing weights" or "evaluate density".
            done: number of finished steps, or of finished parts of the stage.
            total: number of all steps or parts.
            **fields: while a set is distilled, `loss`, the mean since the last report, and `speed`,
                in steps per second; with the option `score_every`, also `accuracy` and
                `conflicting` at the steps that are evaluated. Accept further fields.
        """
        ...


def silent(task: str, done: int, total: int, **fields: float) -> None:
    """Report nothing."""


@contextlib.contextmanager
def tensorboard(folder: str | os.PathLike) -> Iterator[Report]:
    """Yield a report that writes fields to event files, as scalars `TASK/FIELD` by step.

    In a distributed run, only the first process writes.

    Args:
        folder: folder of the event files, outside of the run folder. Files of earlier runs stay.

    Raises:
        ImportError: tensorboardX is not installed.
    """
    try:
        import tensorboardX  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("TensorBoard needs tensorboardX: pip install tensorboardX") from error
    if not processes.is_first():
        yield silent
        return
    with tensorboardX.SummaryWriter(os.fspath(folder)) as writer:

        def report(task, done, total, **fields):
            for name, value in fields.items():
                writer.add_scalar(f"{task}/{name}", value, done)

        yield report
