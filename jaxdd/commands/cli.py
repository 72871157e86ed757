"""The command line: `jaxdd demo`, `run`, `compare`, `export` and what else `COMMANDS` lists.

Bad input ends with one line on stderr and exit code 2, Ctrl-C with the state saved and exit code
130.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
import logging
import pathlib
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import tyro

from jaxdd import __version__
from jaxdd.commands import citing, data_sets, grouping, rederivation, scoring, screen, sources
from jaxdd.data import benchmarks, datasets, files
from jaxdd.devices import parallel
from jaxdd.runs import options, parts, pipeline, processes
from jaxdd.runs import results as typed_results
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.programs import prepare
from jaxdd.runs.reports import pages, report
from jaxdd.runs.scoring import finished_run
from jaxdd.runs.trust import inspection, publication, signature

Options = Annotated[options.Options, tyro.conf.arg(name="")]

DEMO = options.DM(ipc=10, conflict=0.1)

_KEY = tyro.conf.arg(name="key")

Debias = Literal["none", "kde", "auto", "tone", "texture", "layout", "border", "oracle", "fairdd"]
Row = Literal["random", "random-kde", Debias]
DEMO_ROWS: tuple[Row, ...] = ("random", "random-kde", "none", "kde", "oracle")
"""All but auto, whose search would take as long as the others together."""
Network = Literal["convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18"]


@contextlib.contextmanager
def _prepared(dataset, options, data_dir, weights=None):
    """What a run and a comparison are called with, under progress bars; no folder is touched."""
    start, progress = time.perf_counter(), screen.Progress()
    with progress.bar:
        options = options.resolved()
        data = sources.load(dataset, options, data_dir)
        if weights is not None:
            weights = store.read_weights(weights, count=len(data.train.labels))
        spent = {"data": time.perf_counter() - start}
        given: dict[str, Any] = dict(data=data, options=options, weights=weights)
        given |= dict(report=progress, spent=spent)
        yield given


def _folder(out, *parts):
    return out or pathlib.Path("runs") / "-".join(map(str, parts))


def run(
    dataset: tyro.conf.Positional[str],
    *,
    options: Options,
    debias: Debias = "auto",
    weights: pathlib.Path | None = None,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    resume: bool = False,
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    split_from: int = pipeline.SPLIT_FROM,
) -> None:
    """Distil one synthetic set, and score it beside a random subset.

    Args:
        dataset: name of a benchmark (see `jaxdd datasets list`), a folder of images, or tfds:NAME.
        options: of the run.
        debias: weights that are chosen without bias labels (auto), from density (kde), by tone,
            texture, layout or border of the images, or from bias labels (oracle), or the
            groups' losses (fairdd).
        weights: instead of these, .npy, .npz or .csv with a weight for each training sample.
        data_dir: folder with the original files (of tfds:NAME, where it is prepared).
        out: run folder; by default runs/DATASET-METHOD-DEBIAS-ipcIPC-seedSEED.
        resume: continue the run that the folder holds.
        distributed: use all devices of all processes. Start the same command once in each process,
            with the options below where the cluster does not tell; all must see the run folder.
        coordinator: HOST:PORT of process 0; by default $JAX_COORDINATOR_ADDRESS.
        num_processes: number of processes; 1 for all devices of this process alone.
        process_id: number of this process, from 0 on.
        split_from: bytes of training images from which on the devices of a distributed run share
            them; of less each has a copy.
    """
    joining = (coordinator, num_processes, process_id)
    if not distributed and joining != (None, None, None):
        raise ValueError("coordinator, num-processes and process-id are for --distributed")
    how = debias if weights is None else "given"
    ipc, seed = f"ipc{options.ipc}", f"seed{options.seed}"
    out = _folder(out, sources.short(dataset), options.method, how, ipc, seed)
    with processes.joined(*joining) if distributed else contextlib.nullcontext():
        everywhere = dict(mesh=parallel.mesh(), split_from=split_from) if distributed else None
        told = {"debias": how, "resume": resume, "split_from": split_from}
        processes.agree(told | dataclasses.asdict(options))
        with processes.own_folder(out) as folder:
            with _prepared(dataset, options, data_dir, weights) as given:
                _agree_on_data(**given)
                result = pipeline.run(
                    folder=folder, debias=debias, resume=resume,
                    **(everywhere or parts.cores(options)), **given,
                )  # fmt: skip
        if processes.is_first():
            screen.show(_typed({"random": result["random"], how: result}), out)


def _typed(rows):
    return {name: typed_results.Result.from_dict(files.to_json(x)) for name, x in rows.items()}


def _agree_on_data(data, weights, **_):
    """Refuses data and weights that differ between the processes, which hashes them."""
    if jax.distributed.is_initialized():
        told = {"dataset": data.name, "data": datasets.digest(data)}
        processes.agree(told | {"weights": None if weights is None else files.digest(weights)})


def compare(
    dataset: tyro.conf.Positional[str],
    *,
    options: Options,
    rows: tuple[Row, ...] = pipeline.ROWS,
    weights: pathlib.Path | None = None,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    resume: bool = False,
) -> None:
    """Make the table: random subsets, plain distillation, and weights by density, auto and oracle.

    Args:
        dataset: name of a benchmark (see `jaxdd datasets list`), a folder of images, or tfds:NAME.
        options: of every row.
        rows: of the table; auto chooses how to weigh, tone, texture, layout and border are weights by
            these, fairdd is the loss over the bias groups.
        weights: .npy, .npz or .csv with a weight for each training sample, for a row "given".
        data_dir: folder with the original files (of tfds:NAME, where it is prepared).
        out: folder of the comparison; by default runs/compare-DATASET-METHOD-ipcIPC-seedSEED.
        resume: continue the comparison that the folder holds.
    """
    ipc, seed = f"ipc{options.ipc}", f"seed{options.seed}"
    out = _folder(out, "compare", sources.short(dataset), options.method, ipc, seed)
    with _prepared(dataset, options, data_dir, weights) as given:
        shared = parts.cores(options)
        table = pipeline.compare(folder=out, rows=rows, resume=resume, **shared, **given)["rows"]
    screen.show(_typed(table), out)
    if absent := [name for name in rows if name not in table]:
        print(f"jaxdd: left out {', '.join(absent)}: they need bias attributes", file=sys.stderr)


def demo(*, out: pathlib.Path = pathlib.Path("demo"), resume: bool = False) -> None:
    """Compare sets on coloured handwritten digits that come with scikit-learn.

    Args:
        out: folder of the comparison.
        resume: continue the comparison that the folder holds.
    """
    compare("cdigits", options=DEMO, rows=DEMO_ROWS, out=out, resume=resume)


def write_report(
    source: tyro.conf.Positional[pathlib.Path],
    *,
    out: pathlib.Path | None = None,
    figures: bool = False,
    csv: bool = False,
    latex: bool = False,
) -> None:
    """Write one HTML page about a finished run or comparison, with its pictures inside.

    Args:
        source: folder of a run or a comparison, or a result of one in JSON.
        out: the HTML file; by default report.html in the folder, or the result's name with .html.
        figures: also write each figure as SVG and as PDF, into a folder named as the page.
        csv: also write each table as CSV, likewise.
        latex: also write each table as LaTeX (for booktabs), likewise.
    """
    if out is None:
        out = source / "report.html" if source.is_dir() else source.with_suffix(".html")
    pages.check_path(out)
    found, beside = report.read(source), out.with_suffix("")
    if beside.exists() and not beside.is_dir() and (figures or csv or latex):
        raise ValueError(f"{beside} is a file, expected a folder for figures and tables")
    report.write(out, found)
    suffixes = [".csv"] * csv + [".tex"] * latex
    written = report.write_tables(beside, found, suffixes=suffixes)
    written += report.write_figures(beside, found) if figures else []
    print(f"wrote {out}" + (f" and {len(written)} files in {beside}" if written else ""))


def export_set(
    source: tyro.conf.Positional[pathlib.Path],
    folder: tyro.conf.Positional[pathlib.Path],
    *,
    format: Literal["npz", "png", "pt"] = "npz",
    score: bool = False,
    dataset: str | None = None,
    data_dir: pathlib.Path | None = None,
) -> None:
    """Write the set of a run for others: its files, a data set card, a manifest of its own.

    PNG files hold eight bits: pixels are rounded to multiples of 1/255 and cut to [0, 1].

    Args:
        source: folder of a finished run; without --score also of an exported set.
        folder: to write to; absent or empty.
        format: npz is the file of the run, png a folder of images with metadata.csv; pt has the
            file of the run and the list that PyTorch scripts load.
        score: evaluate what the PNG files hold, as the run did its images.
        dataset: for --score, the folder of images or tfds:NAME that the run was made from.
        data_dir: for --score, folder with the original files.
    """
    measure = lambda images: finished_run.score(
        source, scoring.load_run_data(source, dataset, data_dir), images
    )
    made = publication.export(source, folder, format=format, measure=measure if score else None)
    if lost := made.get("rounding"):
        cut, by = f"{100 * lost['cut']:.1f} %", f"{lost['furthest']:.3f}"
        print(f"rounded to eight bits, and {cut} cut to [0, 1], from outside by {by} at most")
    print(f"wrote {folder}\nroot {made['root']}")


def sign_set(
    source: tyro.conf.Positional[pathlib.Path], *, private: Annotated[pathlib.Path, _KEY]
) -> None:
    """Sign the root of a set, with a key from: openssl genpkey -algorithm ed25519 -out FILE.

    It proves who signed these very files, to whoever has the public key from elsewhere than the
    set; not that a malicious distiller did not make them, nor that they are the newest.

    Args:
        source: folder of a finished run, or of an exported set.
        private: PEM file of the private key.
    """
    print(f"signed the root {signature.sign(source, private)}")


def verify_set(
    source: tyro.conf.Positional[pathlib.Path],
    *,
    public: Annotated[pathlib.Path | None, _KEY] = None,
    expect: str | None = None,
) -> None:
    """Verify a set by the hashes in its manifest, its signature and its root.

    A signature proves who signed these very files; not that a malicious distiller did not make
    them, nor that they are the newest (give the root for that). Key and root must come from
    elsewhere than the set, or they prove nothing.

    Args:
        source: folder of a finished run, or of an exported set.
        public: PEM file of the public key (openssl pkey -in FILE -pubout) of who vouches for it.
        expect: the root that it must have.
    """
    if public is None:
        checked = manifest.check(source, expect=expect)
    else:
        checked = signature.verify(source, public, expect=expect)
    root = checked.manifest["root"]
    publication.load(source, expect=root)
    print(f"{source} holds the set and the {len(checked.contents)} files of its manifest")
    if checked.uncovered:
        print(f"not covered: {', '.join(checked.uncovered)}")
    print(f"root {root}")
    if public is not None:
        print(f"signed by the key {public}")
    elif expect is None:
        print("nobody vouches for this root: compare it, or give --expect or --key")


def audit_set(
    source: tyro.conf.Positional[pathlib.Path],
    *,
    trusted: tuple[pathlib.Path, ...] = (),
    data: str | None = None,
    data_dir: pathlib.Path | None = None,
    again: bool = False,
    expect: str | None = None,
    preset: Literal["quick", "paper"] = "quick",
    seed: int = 0,
    out: pathlib.Path | None = None,
) -> None:
    """Look for traces of tampering in a set; that none is found does not mean that it is clean.

    Writes a page, and JSON beside it. Exit code 1 where there is evidence of tampering.

    Args:
        source: folder of a finished run or of an exported set, or a synthetic.npz.
        trusted: sets of the same kind that are known to be sound, such as some that were made again
            from other seeds; with three or more, statistics have a null distribution of sets.
        data: the data set that it was made from: name of a benchmark, folder of images, or
            tfds:NAME.
        data_dir: folder with the original files.
        again: distil it again from its configuration and seed, and compare; needs the data.
        expect: the root that it must have, or the SHA-256 of a bare file.
        preset: quick fits two CPU cores, paper one GPU.
        seed: of the networks that are trained on it, and of the real images.
        out: the HTML file; by default audit.html in the working directory.
    """
    out = pathlib.Path("audit.html") if out is None else out
    pages.check_path(out)
    publication.check_outside(out)
    published = publication.read(source, expect=expect)
    own, told = published.synthetic, published.manifest
    sets = [publication.load(path) for path in trusted]
    config = rederivation.configuration(published)
    asked = (options.read(config) if config else options.DM()).resolved()
    real = None
    if data is not None or (again and config.get("dataset") in benchmarks.NAMES):
        real = sources.load(str(config["dataset"]) if data is None else data, asked, data_dir)
    progress = screen.Progress()
    with progress.bar:
        checks = inspection.inspect(
            own,
            trusted=sets,
            data=real,
            effort=inspection.EFFORTS[preset],
            seed=seed,
            tiles=asked.formation,
            progress=functools.partial(progress, "networks"),
        )
        if again:
            checks.append(rederivation.distil_again(published, real, report=progress))
    about = {
        "root": told["root"] if told else "none: the set has no manifest, and nobody's word",
        "images": f"{own.images.shape[0]} classes of {own.images.shape[1]}",
        "trusted sets": len(sets),
        "real images": "none" if real is None else real.name,
        "preset": preset,
        "seed": seed,
    }
    inspection.write(out, source.name or str(source), checks, about=about)
    for check in checks:
        print(f"{check.name}: {check.verdict}; {check.why}")
    print(f"{source}: {inspection.headline(checks)}\nwrote {out} and {out.with_suffix('.json')}")
    if any(check.verdict == inspection.EVIDENCE for check in checks):
        sys.exit(1)


_SCORING = (["demo"], ["run"], ["compare"], ["evaluate"], ["bias"])

COMMANDS = {
    "demo": demo,
    "run": run,
    "compare": compare,
    "evaluate": scoring.evaluate_set,
    "profile": scoring.profile_set,
    "report": write_report,
    "bias": data_sets.find_bias,
    "export": export_set,
    "sign": sign_set,
    "verify": verify_set,
    "audit": audit_set,
    "cite": citing.cite,
    "datasets": {
        "list": data_sets.list_datasets,
        "show": data_sets.show_dataset,
        "build": data_sets.build_dataset,
    },
}


def _app(commands, method):
    """The commands as tyro wants them, those with options having the options of a method."""
    app = tyro.extras.SubcommandApp()
    for name, command in commands.items():
        if isinstance(command, dict):
            app.command(_app(command, method), name=name, help=f"{', '.join(command)}.")
        else:
            app.command(_later(command, options.METHODS[method]), name=name)
    return app


def _later(command: Callable[..., None], kind: type) -> Any:
    """A command that tyro may call while it parses: what comes back runs it."""
    collect: Any = functools.wraps(command)(
        lambda *arguments, **options: functools.partial(command, *arguments, **options)
    )
    if "options" in command.__annotations__:
        collect = functools.wraps(command)(
            lambda *arguments, options, **given: functools.partial(
                command, *arguments, options=grouping.joined(kind, options), **given
            )
        )
        collect.__annotations__ = command.__annotations__ | {
            "options": Annotated[grouping.grouped(kind), tyro.conf.arg(name="")]
        }
        parameters = inspect.signature(command).parameters
        named = [p.replace(annotation=collect.__annotations__[n]) for n, p in parameters.items()]
        collect.__signature__ = inspect.Signature(named)
        del collect.__wrapped__  # whose options are those of any method
        return tyro.conf.configure(tyro.conf.OmitArgPrefixes)(collect)
    return collect


def _parse(arguments):
    """The command to run. tyro explains a mistake in a box; here it becomes one line."""
    method = _method(arguments)
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            return _app(COMMANDS, method).cli(prog="jaxdd", args=arguments)
    except SystemExit as stopped:
        if stopped.code:
            words = re.sub(r"[─│╭╮╰╯]|-{3,}|\x1b\[[0-9;]*m", " ", explanation.getvalue()).split()
            raise ValueError(" ".join(words)) from None
        raise


def _method(arguments):
    """The method that is asked for, which decides what options there are."""
    if not {"run", "compare"} & set(arguments[:1]):
        return "dm"
    words = [word for argument in arguments for word in argument.split("=", 1)]
    places = [i for i, word in enumerate(words[:-1]) if word == "--method"]
    method = words[places[-1] + 1] if places else "dm"
    if method not in options.METHODS:
        raise ValueError(f"method must be one of {', '.join(options.METHODS)}, found {method!r}")
    every = {field.name for kind in options.METHODS.values() for field in dataclasses.fields(kind)}
    named = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
    options.check_known(method, every & set(named))
    return method


def _check_for_nan(arguments):
    if getattr(jax.config, "jax_debug_nans") and arguments[:1] in _SCORING:  # noqa: B009
        raise ValueError(
            "JAX_DEBUG_NANS cannot be on: the score of a bias group without samples is NaN"
        )


@contextlib.contextmanager
def _quiet_interrupts():
    """Has Ctrl-C silence the threads that it tears from their work, where it would stop them."""

    def stop(*_):
        threading.excepthook = sys.unraisablehook = lambda _: None
        logging.disable(logging.CRITICAL)
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _without_device():
    """The platforms in JAX_PLATFORMS, if there is no device of theirs here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        return getattr(jax.config, "jax_platforms") or "any"  # noqa: B009
    return None


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` default to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8
    expected = (
        ValueError,
        TypeError,
        ImportError,
        OSError,
        OverflowError,
        MemoryError,
        jax.errors.JaxRuntimeError,
    )
    if arguments == ["--version"]:
        print(f"jaxdd {__version__}")
        return
    try:
        command = _parse(arguments)
        _check_for_nan(arguments)
        prepare()
        with _quiet_interrupts():
            command()
    except (pipeline.Interrupted, KeyboardInterrupt) as stopped:
        print(f"jaxdd: {str(stopped) or 'stopped'}", file=sys.stderr)
        if arguments[:1] in (["run"], ["compare"], ["demo"]):
            again = arguments if "--resume" in arguments else [*arguments, "--resume"]
            print(f"continue with: jaxdd {shlex.join(again)}", file=sys.stderr)
        processes.leave(130)
    except expected as error:
        print(f"jaxdd: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        processes.leave(2)
    except (RuntimeError, AssertionError):
        if (platforms := _without_device()) is None:
            raise
        print(f"jaxdd: found no device of JAX_PLATFORMS={platforms}", file=sys.stderr)
        sys.exit(2)
