"""From coloured MNIST to a distilled set, jaxdd against PyTorch: seconds and accuracy.

    python -m experiments.speed.end_to_end --data-dir DIR --out end-to-end-cpu.json

Both train the encoder, embed the 60,000 images, estimate their density, weigh them and distil ten
images per class by as many steps of distribution matching, each with the random numbers of its own
library. `torch_peers` is straightforward code: eager, with the channels last, and by torch.compile.
jaxdd compiles as its command line does. It and torch.compile run twice: first with everything to be
compiled, then with what the first time left on disk, which jaxdd's command line keeps, too. With
JAX_NUM_CPU_DEVICES=2 jaxdd has the two devices of a CPU share the work. The sets are then judged by
the same networks, jaxdd's, whose time is not counted. About sixteen minutes on two cores.
"""

import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro

from experiments.speed import benchmark, torch_peers
from experiments.tools import grid
from jaxdd import evaluate, kde
from jaxdd.data import datasets, files
from jaxdd.runs import components, pipeline, programs, timing
from jaxdd.runs.options import Options, make

STAGES = ("embed", "density", "distill")


def with_jaxdd(data: datasets.Benchmark, options: Options) -> dict[str, Any]:
    """Distils with density weights; seconds of every stage and accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        where = components.cpu_devices(options)
        result = pipeline.run(data, pathlib.Path(folder) / "run", options, debias="kde", **where)
    return {
        "seconds": {name: result["seconds"][name] for name in (*STAGES, "compile")},
        "accuracy": result["accuracy"],
        "conflicting": result["conflicting"],
    }


def with_torch(
    data: datasets.Benchmark, options: Options, around: Callable[..., Any]
) -> dict[str, Any]:
    """Does the same by `torch_peers`, with one of its `AROUND` around the networks."""
    train, strategy = data.train, data.strategy
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    order = np.argsort(train.labels, kind="stable")
    images = torch.tensor(train.images[order].transpose(0, 3, 1, 2), device=device)
    counts = np.bincount(train.labels).tolist()
    pool = torch_peers.WeightedPool(
        images.split(counts), [torch.ones(n, device=device) / n for n in counts]
    )
    seconds = {}
    with timing.timed(seconds, "embed"):
        embeddings = torch_peers.embeddings(
            pool,
            width=options.encoder_width,
            batch=256,
            steps=options.encoder_steps,
            strategy=tuple(name for name in strategy if name != "color"),
            around=around,
        )
        _finished()
    with timing.timed(seconds, "density"):
        weights = [torch_peers.inverse_density(each, kde.FACTOR) for each in embeddings]
        pool = pool._replace(weights=weights)
        _finished()
    with timing.timed(seconds, "distill"):
        start = torch.stack([pool.subset(k, options.ipc) for k in range(len(counts))])
        synthetic = start.clone().requires_grad_()
        step = torch_peers.distribution_matching(
            pool,
            width=options.width,
            real=options.batch_size,
            ipc=options.ipc,
            images=synthetic,
            strategy=strategy,
            around=around,
        )
        for _ in range(options.steps):
            step()
        _finished()
    found = jnp.asarray(synthetic.detach().cpu().numpy().transpose(0, 1, 3, 4, 2))
    scores = evaluate.summary(components.build(data, options).score(found))
    return {"seconds": seconds, **{name: scores[name] for name in ("accuracy", "conflicting")}}


def _finished():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main(
    *,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    preset: Literal["quick", "paper"] = "quick",
    conflict: float = 0.05,
) -> None:
    """Runs all and prints what they took.

    Args:
        data_dir: folder with the original files.
        out: JSON file.
        preset: quick fits two CPU cores, paper one GPU.
        conflict: share of bias-conflicting samples.
    """
    programs.compile_quickly()
    programs.use_cores()
    options = make(preset=preset, conflict=conflict)
    data = grid.load("cmnist", options, data_dir=data_dir)
    sides: dict[str, Callable[..., dict[str, Any]]] = {
        name: functools.partial(with_torch, around=around)
        for name, around in torch_peers.AROUND.items()
    }
    sides = {"jaxdd": with_jaxdd} | sides
    sides |= {f"{name}, compiled before": sides[name] for name in ("jaxdd", "torch.compile")}
    rows = {}
    with tempfile.TemporaryDirectory() as kept:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = kept
        jax.config.update("jax_compilation_cache_dir", kept)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        for name, side in sides.items():
            jax.clear_caches()
            rows[name] = side(data, options)
    for name, row in rows.items():
        total = sum(row["seconds"][stage] for stage in STAGES)
        print(f"{name:24} {total:7.1f} s  accuracy {row['accuracy']['mean']:.3f}", row["seconds"])
    if out is not None:
        config = {"dataset": "cmnist", **dataclasses.asdict(options)}
        files.write_json(out, benchmark.circumstances() | {"config": config, "both": rows})


if __name__ == "__main__":
    tyro.cli(main)
