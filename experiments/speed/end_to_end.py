"""How long does jaxdd take from coloured MNIST to a distilled set, compared with PyTorch?

    python -m experiments.speed.end_to_end --data-dir DIR --out end-to-end-cpu.json

Both train the encoder, embed the 60,000 images, estimate their density, compute weights and distil
ten images per class with the same number of steps of distribution matching. Each uses the random
numbers of its own library. `torch_peers` is straightforward code: eager, channels last, and with
torch.compile. jaxdd compiles as on its command line. It and torch.compile run twice: first
compiling everything, then with the programs that the first run left on disk. With
JAX_NUM_CPU_DEVICES=2 jaxdd uses the two devices of a CPU. The same networks of jaxdd evaluate all
sets; that time is not counted.

Cost: sixteen minutes on two cores.
"""

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
from jaxdd.runs.options import DM, make

STAGES = ("embed", "density", "distill")
SCORES = ("accuracy", "conflicting")


def with_jaxdd(data: datasets.Benchmark, options: DM) -> dict[str, Any]:
    """Distil with density weights; return seconds of every stage and scores."""
    with tempfile.TemporaryDirectory() as folder:
        result = pipeline.run(
            data, pathlib.Path(folder) / "run", options, debias="density",
            **components.cpu_devices(options),
        )  # fmt: skip
    seconds = {name: result.seconds[name] for name in (*STAGES, "compile")}
    return {"seconds": seconds} | {name: result.to_dict()[name] for name in SCORES}


def with_torch(data: datasets.Benchmark, options: DM, wrap: Callable[..., Any]) -> dict[str, Any]:
    """Like `with_jaxdd`, with `torch_peers`; `wrap`, one of `WRAPPERS`, is applied to networks."""
    train, strategy = data.train, data.strategy
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    order = np.argsort(train.labels, kind="stable")
    images = torch.tensor(train.images[order].transpose(0, 3, 1, 2), device=device)
    counts = np.bincount(train.labels).tolist()
    uniform = [torch.ones(n, device=device) / n for n in counts]
    pool, seconds = torch_peers.WeightedPool(images.split(counts), uniform), {}
    with timing.timed(seconds, "embed"):
        embeddings = torch_peers.embeddings(
            pool,
            width=options.encoder_width,
            batch=256,
            steps=options.encoder_steps,
            strategy=tuple(name for name in strategy if name != "color"),
            wrap=wrap,
        )
        _synchronise()
    with timing.timed(seconds, "density"):
        weights = [torch_peers.inverse_density(x, kde.FACTOR) for x in embeddings]
        pool = pool._replace(weights=weights)
        _synchronise()
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
            wrap=wrap,
        )
        for _ in range(options.steps):
            step()
        _synchronise()
    distilled = jnp.asarray(synthetic.detach().cpu().numpy().transpose(0, 1, 3, 4, 2))
    scores = evaluate.summary(components.build(data, options).score(distilled))
    return {"seconds": seconds} | {name: scores[name] for name in SCORES}


def _synchronise():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main(
    *,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    preset: Literal["quick", "paper"] = "quick",
    conflict: float = 0.05,
) -> None:
    """Run everything and print the times.

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
    sides: dict[str, Callable[..., dict[str, Any]]] = {"jaxdd": with_jaxdd}
    for name, wrap in torch_peers.WRAPPERS.items():
        sides[name] = functools.partial(with_torch, wrap=wrap)
    sides |= {f"{name}, compiled before": sides[name] for name in ("jaxdd", "torch.compile")}
    rows = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        for name, side in sides.items():
            jax.clear_caches()
            rows[name] = side(data, options)
    for name, row in rows.items():
        total = sum(row["seconds"][stage] for stage in STAGES)
        print(f"{name:24} {total:7.1f} s  accuracy {row['accuracy']['mean']:.3f}", row["seconds"])
    if out is not None:
        config = grid.configuration(grid.Cell("cmnist", "density", options))
        files.write_json(out, benchmark.circumstances() | {"config": config, "measured": rows})


if __name__ == "__main__":
    tyro.cli(main)
