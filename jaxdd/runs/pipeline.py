"""Distill a data set into a run folder and score the result.

`run` makes one set, `compare` a table of several. Both can be killed at any time, and resume bit
for bit: the randomness of step i depends only on the seed and on i, every product is recorded in
the manifest of the folder, and the state of the distillation is saved every few seconds.
"""

import contextlib
import functools
import itertools
import multiprocessing
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Unpack

from jaxdd.data import datasets, files
from jaxdd.devices import parallel
from jaxdd.runs import batches, components, processes, programs, results, stages, timing, weightings
from jaxdd.runs.context import SPLIT_FROM, Context, Interrupted, Run, Setup, Source, build_context
from jaxdd.runs.folder import manifest, samples, store
from jaxdd.runs.options import DM

__all__ = ["SPLIT_FROM", "Interrupted", "Setup", "compare", "run"]

_IMPLIED = {"weights": "custom", "bias_labels": "labels"}  # Weightings that arguments imply.


@programs.fixed_settings()
def run(
    data: datasets.Benchmark,
    folder: pathlib.Path | str,
    options: DM,
    *,
    debias: str = "auto",
    resume: bool = False,
    spent: Mapping[str, float] = {},
    **setup: Unpack[Setup],
) -> results.Result:
    """Distill one set into a folder and score it next to a random subset.

    Args:
        data: training and test set, from `jaxdd.data`.
        folder: run folder; absent, empty, or with `resume` the folder of this run.
        options: options of the method, such as `options.DM(ipc=10)`.
        debias: key of `weightings.WEIGHTINGS`.
        resume: continue the run in the folder. Missing or damaged products are computed again.
        spent: seconds of earlier stages, by stage.
        **setup: weights, embedding, bias labels, network or method of your own, devices, progress:
            see `Setup`.

    Raises:
        ValueError: options, data or folder do not fit together; raised before anything is written.
        Interrupted: after Ctrl-C, once the state is saved.
    """
    for name, implied in _IMPLIED.items():
        if setup.get(name) is not None:
            if debias not in ("auto", implied):
                raise ValueError(f"{name}= and debias={debias!r} are mutually exclusive")
            debias = implied
    weightings.check_embedding([debias], setup.get("embedding"))
    context = build_context(data, options, **setup)
    weightings.check(context, debias)
    folder = store.create(folder, context.config("run", debias=debias), resume=resume)
    with store.lock(folder):
        store.sweep(folder)
        with _started(context, folder, debias, spent) as this_run:
            return _finish(this_run, stages.weigh(this_run, debias))


@contextlib.contextmanager
def _started(context, folder, name, spent, *, earlier=None) -> Iterator[Run]:
    """Yield a run that adds to the wall times of earlier attempts, including compilation."""
    before = results.read_timing(folder if earlier is None else earlier).get("seconds", {})
    seconds = {**spent, **before}
    with timing.compilation_counted(seconds):
        yield Run(context, folder, name, seconds)


def _finish(run, source, *, distilled=True, baseline=None) -> results.Result:
    """Run the stages that follow the weights: whitening, set, scores, figures, manifest."""
    source = stages.whiten(run, source)
    is_missing = distilled and not manifest.is_intact(run.folder, store.SYNTHETIC)
    if is_missing and batches.can_compute_ahead(run.context, source):
        workers = run.context.threads or multiprocessing.cpu_count()
        batches.distil(run.context, [run], {run.name: source}, workers=workers)
    synthetic = stages.synthesize(run, source, distilled=distilled)
    result = stages.evaluate_run(run, source, synthetic, stored=distilled, baseline=baseline)
    stages.draw(run, synthetic, result)
    write_samples = lambda: samples.write(run.folder, run.context.data.train.images)
    stages.ensure(run.folder, write_samples, products=(samples.NAME,))
    if not manifest.is_sealed(run.folder):
        manifest.record(run.folder, ("config.json",))
        manifest.seal(run.folder, manifest.describe(synthetic))
    return result


@programs.fixed_settings()
def compare(
    data: datasets.Benchmark,
    folder: pathlib.Path | str,
    options: DM,
    *,
    rows: Sequence[str] = weightings.DEFAULT_ROWS,
    separate: bool = False,
    resume: bool = False,
    spent: Mapping[str, float] = {},
    **setup: Unpack[Setup],
) -> dict[str, results.Result]:
    """Make several sets under one protocol: compare.json, figures, and one run folder per row.

    Rows that need bias labels are left out if the data have none. On a CPU, rows of dm, dc and dsa
    run at the same time unless they are whitened (`components.rows_at_once`). Weighted rows of dm
    are distilled from the same batches (`runs.batches`), unless batches are whitened, selected from
    `candidates`, or weighted by themselves (options.weighting other than "draw"). A row of its own
    then equals that of `run` up to the noise of the batches.

    Args:
        data: training and test set, from `jaxdd.data`.
        folder: folder of the comparison; absent, empty, or with `resume` the same as before.
        options: options of every row.
        rows: names from `weightings.rows()`; "random" is always included, "custom" if there are
            weights, and "labels" if there are bias labels.
        separate: distil every row from batches of its own, as `run` does.
        resume: continue the comparison in the folder; rows can be added. Added rows do not share
            the batches of earlier ones.
        spent: seconds of earlier stages, by stage.
        **setup: weights, embedding, bias labels, network or method of your own, devices, progress:
            see `Setup`.

    Returns:
        Results by row.

    Raises:
        ValueError: as for `run`, or for an unknown row.
        Interrupted: after Ctrl-C; finished rows are kept.
    """
    names = ["random", *rows, *(_IMPLIED[x] for x in _IMPLIED if setup.get(x) is not None)]
    names = _existing_rows(names, data)
    at_once = components.rows_at_once(options, method=setup.get("method"), mesh=setup.get("mesh"))
    # Rows that run at once share the cores; one thread each unless there are more cores than rows.
    threads = max(1, at_once // len(weightings.DEFAULT_ROWS)) if at_once > 1 else None
    kinds = dict.fromkeys(weightings.rows()[name].weighting for name in names)
    weightings.check_embedding(kinds, setup.get("embedding"))
    context = build_context(data, options, threads=threads, **setup)
    for name in kinds:
        weightings.check(context, name)
    config = context.config("compare", **{"separate": True} if separate else {})
    folder = store.create(folder, config, resume=resume)
    with store.lock(folder):
        store.sweep(folder)
        names = [n for n in weightings.rows() if n in {*names, *_finished_rows(folder)}]
        batch_rows = batches.batch_rows(context, folder, names, separate=separate)
        table = _all_rows(context, folder, names, batch_rows, at_once, spent)
        _write_table(folder, table)
        paths = {name: folder / "rows" / name / store.SYNTHETIC for name in names}
        sets = {name: store.read_synthetic(path) for name, path in paths.items()}
        stages.draw_comparison(context, folder, table, sets)
        return table


def _existing_rows(names, data):
    known = weightings.rows()
    if unknown := {*names} - known.keys():
        raise ValueError(f"rows must be any of {', '.join(known)}, got {min(unknown)!r}")
    has_labels = data.train.attributes is not None
    needs_labels = lambda name: weightings.WEIGHTINGS[known[name].weighting].needs_bias_labels
    return [name for name in dict.fromkeys(names) if has_labels or not needs_labels(name)]


def _finished_rows(folder):
    """Return the rows of a comparison that are complete now or were so in an earlier attempt."""
    rows = {path.parent.name for path in folder.glob(f"rows/*/{store.RESULT}")}
    try:
        return rows | results.read(folder / "compare.json").keys()
    except (OSError, ValueError):
        return rows


def _write_table(folder, table):
    """Write compare.json last: its presence means that all of its rows are complete."""
    path, content = folder / "compare.json", {"rows": {n: r.to_dict() for n, r in table.items()}}
    with contextlib.suppress(OSError, ValueError):
        if files.read_json(path) == content:
            return
    manifest.forget(folder, ("accuracy.png", "synthetic.png"))  # drawn from other rows
    files.write_json(path, content)


def _all_rows(
    context: Context, folder, names, batch_rows, at_once, spent
) -> dict[str, results.Result]:
    """Return the results of rows, which run at the same time on several cores.

    Weights are computed first, one weighting at a time, because each uses all cores.
    """
    rows, folders = weightings.rows(), {name: folder / "rows" / name for name in names}
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        if name in batch_rows and not manifest.is_intact(folders[name], store.SYNTHETIC):
            groups.setdefault(batch_rows[name], []).append(name)
    kinds = dict.fromkeys(rows[name].weighting for name in (*names, *itertools.chain(*groups)))
    for kind in kinds:
        weightings.check(context, kind)
    sources = {kind: _shared_source(context, folder, kind, spent) for kind in kinds}
    # Before the weights are known, other rows may be chosen when the comparison is resumed.
    for name in names:
        fields = {"batch_rows": batch_rows[name]} if name in batch_rows else {}
        config = context.config("compare", row=name, **fields)
        store.create(folders[name], config, resume=True)
    for group, missing in groups.items():
        with contextlib.ExitStack() as stack:
            runs = []
            for name in missing:
                _, seconds = sources[rows[name].weighting]
                run = _started(context, folders[name], name, seconds)
                runs.append(stack.enter_context(run))
            by_row = {name: sources[rows[name].weighting][0] for name in group}
            batches.distil(context, runs, by_row, workers=at_once)
    make = parallel.with_settings(functools.partial(_row, context, folders, sources))
    if at_once == 1:
        table: dict[str, results.Result] = {}
        for name in names:
            table[name] = make(name, lambda: table["random"])
        return table
    # The first exception of any row stops the others, which save their states after the current
    # chunk. It is raised only after that, so that every row can be resumed.
    started: dict[str, futures.Future] = {}
    pool = futures.ThreadPoolExecutor(at_once, thread_name_prefix=processes.ROW_THREADS)
    try:
        with context.interruption.deferred():
            # Real images sampled by density weights come last: they take least time, and no row
            # needs them.
            for name in sorted(names, key=lambda name: name == "random-density"):
                started[name] = pool.submit(make, name, lambda: started["random"].result())
            for row in futures.as_completed(started.values()):
                row.result()
    except BaseException:
        context.interruption.requested.set()
        pool.shutdown(wait=False, cancel_futures=True)
        while context.interruption.active:  # rows save their states first
            time.sleep(0.02)
        raise
    pool.shutdown()
    return {name: started[name].result() for name in names}


def _shared_source(context, folder, kind, spent) -> tuple[Source, dict[str, float]]:
    """Return the source that rows with the same weighting share, and the seconds it took."""
    prefix = f"weights/{kind}/"
    with _started(context, folder, kind, spent, earlier=folder / prefix) as this_run:
        return stages.weigh(this_run, kind, prefix=prefix), this_run.seconds


def _row(context, folders, sources, name, baseline) -> results.Result:
    """Make one row in its own folder; `baseline` returns the result of the row "random"."""
    row = weightings.rows()[name]
    source, spent = sources[row.weighting]
    scores = None if name == "random" else lambda: baseline().random
    with _started(context, folders[name], name, spent) as this_run:
        return _finish(this_run, source, distilled=row.distilled, baseline=scores)
