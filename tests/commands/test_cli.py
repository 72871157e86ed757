"""The command line: whole commands, their errors on one line, and interruptions."""

import errno
import functools
import inspect
import io
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdd
from jaxdd import weights
from jaxdd.commands import cli, reference, runs, sources
from jaxdd.data import duplicates, files
from jaxdd.runs import bias, options, pipeline, processes, results
from jaxdd.runs.folder import checkpoint, manifest, store

TINY = (
    "--ipc 2 --batch-size 8 --network mlp --depth 2 --epochs 1 --seeds 1 --chunk 2 "
    "--encoder-steps 2 --encoder-width 4 --save-every 0 --steps 2 --strategy"
).split()
PLAIN = ["run", "cdigits", *TINY, "--debias", "plain"]


def replaced(command, option, value):
    """Return a command with another value of an option that it has."""
    at = command.index(option) + 1
    return [*command[:at], value, *command[at + 1 :]]


def fails(arguments, capsys):
    """Return the only line of output of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(map(str, arguments)))
    assert stopped.value.code == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1 and error.startswith("jaxdd: ") and out[:1] != "\n"
    return error


def start(command):
    """Start a command in another process."""
    code = f"from jaxdd.commands import cli; cli.main({list(map(str, command))})"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "-c", code], **pipes)


def wait_for_steps(process, folder, lines):
    """Wait until the run in a folder has logged a number of chunks."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "progress.jsonl").exists() and len(store.progress(folder)) >= lines:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run did not reach chunk {lines}: {process.communicate()}")


def test_a_run_that_is_killed_and_interrupted_resumes_bit_for_bit(tmp_path, monkeypatch, capsys):
    """A run is ended by SIGKILL, then by Ctrl-C, then completed."""
    command = ["run", "cdigits", *replaced(TINY, "--steps", "40"), "crop", "--debias", "plain"]
    killed = start([*command, "--out", tmp_path / "cut"])
    wait_for_steps(killed, tmp_path / "cut", 3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (tmp_path / "cut" / "checkpoint").exists()
    assert not (tmp_path / "cut" / "synthetic.npz").exists()
    resume = [*command, "--out", str(tmp_path / "cut"), "--resume"]
    save, saved = checkpoint.save, []

    def save_and_interrupt(*args):
        save(*args)
        saved.append(args)
        if len(saved) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr(checkpoint, "save", save_and_interrupt)
        cli.main(resume)
    error = capsys.readouterr().err
    assert stopped.value.code == 130 and len(store.progress(tmp_path / "cut")) < 20
    assert "of 40; the state is saved" in error and "--resume" in error
    cli.main(resume)
    cli.main([*command, "--out", str(tmp_path / "whole")])
    whole, cut = (store.read_synthetic(tmp_path / x / "synthetic.npz") for x in ("whole", "cut"))
    np.testing.assert_array_equal(whole.images, cut.images)
    steps = [record["step"] for record in store.progress(tmp_path / "cut")]
    assert steps == list(range(2, 41, 2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    cli.main([*PLAIN, "--out", str(folder)])
    return folder


def test_rounded_images_are_scored_like_the_run(finished, tmp_path, capsys):
    cli.main(["export", str(finished), str(tmp_path / "out"), "--format", "png", "--score"])
    assert "rounded to 8 bits" in capsys.readouterr().out
    measured = manifest.read(tmp_path / "out")["rounding"]["scores"]["accuracy"]
    accuracy = store.read_result(finished).accuracy
    assert measured["n"] == accuracy.n
    assert measured["mean"] == pytest.approx(accuracy.mean, abs=0.05)
    again = ["export", finished, tmp_path / "out", "--score", "--format"]
    assert "out" in fails([*again, "png"], capsys)
    assert "npz" in fails([*again, "npz"], capsys)


def test_sets_are_merged(make_run, tmp_path, capsys):
    images = np.zeros((2, 1, 4, 5, 3))
    for name, classes in (("a", "01"), ("b", "23"), ("c", "34")):
        make_run(tmp_path / name, images, names=tuple(classes))
    merge = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "ab")]
    cli.main(merge)
    printed = capsys.readouterr().out
    assert "4 classes with 1 images each, 4 × 5 × 3: 0, 1, 2, 3\n" in printed
    assert "not all sets have hashes of their training samples" in printed
    root = manifest.read(tmp_path / "ab")["root"]
    assert f"wrote {tmp_path / 'ab'}\nroot {root}\n" in printed
    cli.main(["verify", str(tmp_path / "ab"), "--expect", root])
    assert "ab is not an empty folder" in fails(merge, capsys)
    other = ["merge", tmp_path / "ab", tmp_path / "c", "--out", tmp_path / "abc"]
    assert "got 1 for 0, 1, 2, 4; 2 for 3" in fails(other, capsys)
    assert "got 1" in fails(["merge", tmp_path / "a", "--out", tmp_path / "x"], capsys)


def test_a_folder_with_other_files_is_rejected_before_any_work(finished, tmp_path, capsys):
    assert "--resume" in fails([*PLAIN, "--out", finished], capsys)
    other = [*replaced(PLAIN, "--ipc", "3"), "--out", finished]
    assert "ipc" in fails(other, capsys)
    error = fails([*other, "--resume"], capsys)
    assert "ipc" in error and "2" in error and "3" in error
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt" in fails([*PLAIN, "--out", tmp_path], capsys)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["cdigit"], ["unknown data set 'cdigit'", "cdigits"]),
        (["cdigits", "--conflict", "1.5"], ["conflict", "1.5", "[0, 1]"]),
        (["cdigits", "--conflict", "10"], ["--conflict", "10 % is 0.1"]),
        (["cdigits", "--conflict", "nan"], ["conflict", "nan"]),
        (["cdigits", "--severity", "9"], ["severity", "9"]),
        (["digits", "--conflict", "0.1"], ["digits", "conflict"]),
        (["cdigits", "--temperature", "-1"], ["temperature", "-1"]),
        (["cdigits", "--bandwidth", "inf"], ["bandwidth", "inf"]),
        (["cdigits", "--ipc", "0"], ["ipc", "got 0"]),
        (["cdigits", "--ipc", "99999999999"], ["ipc", "99999999999"]),
        (["cdigits", "--save-every", "nan"], ["--save-every", "nan"]),
        (["digits", "--debias", "oracle"], ["oracle", "digits"]),
        (["digits", "--test", "conflicting"], ["digits is unbiased", "conflicting"]),
        (["digits", "--resize", "8"], ["digits", "resize", "8"]),
        (["no/such/folder"], ["no/such/folder does not exist"]),
        ([".", "--conflict", "0.1"], ["conflict, severity and test are options of benchmarks"]),
        ([".", "--data-dir", "."], ["data-dir is for benchmarks and tfds:NAME, . is a folder"]),
        (["tfds:nonsense_set"], ["unknown tensorflow-datasets set 'nonsense_set'"]),
    ],
    ids=str,
)
def test_bad_values(arguments, parts, tmp_path, capsys):
    error = fails(["run", *arguments, "--out", tmp_path / "out"], capsys)
    assert all(part in error for part in parts), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["run"], "requires DATASET"),
        (["run", "cdigits", "--debias", "magic"], "magic"),
        (["run", "cdigits", "--ipc", "two"], "two"),
        (["train"], "unknown command 'train'"),
        (["comparee"], "did you mean compare?"),
        (["--tyro-write-completion", "bash"], "SHELL FILE"),
        (["run", "cdigits", "--epoch", "3"], "--epochs"),
        (["run", "cdigits", "--ipc", "1", "--ipc", "2"], "--ipc"),
        (["run", "cdigits", "--save-every", "1", "--save_every=2"], "--save-every"),
        (["run", "cdigits", "--method", "dm", "--method=dsa"], "--method"),
        (["compare", "cdigits", "--rows", "plain", "--steps", "9", "--rows", "auto"], "--rows"),
        (["run", "cdigits", "-o", "a", "--out", "b"], "--out must be passed once"),
        (["run", "cdigits", "--lr", "3"], "--learning-rate"),
        (["run", "cdigits", "--ipc"], "--ipc INT"),
        (["run", "cdigits", "--conflict", "ten"], "--conflict must be a number, got 'ten'"),
        (["run", "cdigits", "--init", "magic"], "weighted, real, noise, got 'magic'"),
        (["run", "cdigits", "more"], "unexpected argument more"),
        (["run", "cdigits", "--debias", "custom"], "--debias custom requires --weights"),
        (["run", "bffhq"], "--data-dir"),
        (["run", "cdigits", "--out", "absent", "--resume"], "absent has no run to resume"),
        (["sign", "absent"], "--key FILE"),
        (["report", "absent"], "absent does not exist; expected RUN"),
        (["cite", "cdigits-plain-ipc10"], "did you mean cdigits-10-plain-ipc10?"),
        (["datasets", "buld", "cdigits"], "datasets build"),
        (["datasets", "build", "foo"], "unknown data set 'foo'"),
        (["sets", "show", "cdigits"], "unknown set 'cdigits'"),
        (["datasets", "build", "digits"], "cdigits"),
        (["evaluate", "out", "--seeds", "2", "--seeds", "2"], "--seeds"),
        (["datasets", "show", "cdigits", "--seed=1", "--seed=2"], "--seed"),
    ],
    ids=str,
)
def test_arguments_that_do_not_parse_are_reported_on_one_line(arguments, part, capsys):
    assert part in fails(arguments, capsys)


def test_damaged_data_are_reported_with_their_checksum(tmp_path, capsys):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"not these bytes")
    arguments = ["run", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "out"]
    error = fails(arguments, capsys)
    assert "train-images-idx3-ubyte.gz" in error and "f68b3c2dcbeaaa9fbdd348bbdeb94873" in error


def test_a_run_resumes_after_a_full_disk(tmp_path, monkeypatch, capsys):
    command = [*replaced(PLAIN, "--steps", "4"), "--out", str(tmp_path / "out")]
    original, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert "No space left on device" in fails(command, capsys)
    cli.main([*command, "--resume"])
    assert (tmp_path / "out" / "result.json").exists()


def test_networks_that_learned_nothing_are_reported(tmp_path, capsys):
    command = ["run", "cdigits", *TINY, "--debias", "density"]
    cli.main([*command, "--out", str(tmp_path / "out")])
    assert (
        "density: networks show no sign of learning" in capsys.readouterr().err
    )  # after one epoch
    assert store.read_result(tmp_path / "out").learned is False
    (tmp_path / "out/result.json").unlink()
    (tmp_path / "out/synthetic.npz").unlink()
    (tmp_path / "out/progress.jsonl").write_text('{"step": "x"}\n')
    assert "progress.jsonl" in fails([*command, "--resume", "--out", tmp_path / "out"], capsys)


def test_the_demo_prints_the_table(tmp_path, capsys, monkeypatch):
    """The demo is tiny. Default rows of a comparison are those of the demo, plus auto."""
    small = dict(ipc=2, steps=2, batch_size=8, network="mlp", depth=2, epochs=1, eval_seeds=1)
    demo = options.DM(**small, encoder_steps=2, encoder_width=4, strategy=())
    monkeypatch.setattr(runs, "_DEMO", demo)
    cli.main(["demo", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert all(name in printed for name in runs._DEMO_ROWS)
    default_rows = inspect.signature(runs.compare).parameters["rows"].default
    assert {*default_rows} == {*runs._DEMO_ROWS, "auto"}
    # Threads that outlive the command would make Python end with an error.
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(processes.ROW_THREADS)]


def test_compiled_programs_are_kept_for_the_next_command(tmp_path):
    """The default folder is under XDG_CACHE_HOME and has the name of the machine."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    code = (
        "import jax; from jaxdd.runs import programs; programs.keep_programs(); "
        "jax.jit(lambda x: x @ x)(jax.numpy.eye(3))"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        programs = tmp_path / "jaxdd" / "programs" / platform.node()
        assert len(list(programs.glob("jit__lambda*-cache"))) == 1


def test_a_terminal_without_utf8_shows_other_characters(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    cli.main(["datasets", "list"])
    stream.flush()
    assert b"16?16" in stream.buffer.getvalue()


def test_unusable_environments_are_reported_on_one_line(tmp_path, monkeypatch, capsys):
    command = ["run", "cdigits", *TINY, "--out", tmp_path / "out"]

    def absent(*_, **__):
        raise AssertionError

    monkeypatch.setattr(jax, "devices", absent)
    monkeypatch.setattr(sources, "load", absent)  # the first call that needs a device
    assert "JAX_PLATFORMS=" in fails(command, capsys)


def test_ctrl_c_during_the_import_prints_nothing():
    """Ctrl-C is sent once jax is imported; SIGINT is enabled, also for tests in the background."""
    code = (
        "import os, signal, sys, types; stop = lambda name, *_: "
        "os.kill(os.getpid(), signal.SIGINT) if name == 'jax' else None; "
        "sys.meta_path.insert(0, types.SimpleNamespace(find_spec=stop)); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from jaxdd import __main__; __main__.main()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "")


def test_errors_of_the_program_keep_their_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "run", lambda **_: {}["gone"])
    with pytest.raises(KeyError):
        cli.main(["run", "cdigits", *TINY, "--out", str(tmp_path / "out")])
    monkeypatch.setattr(pipeline, "run", lambda **_: np.testing.assert_array_equal(0, 1))
    with pytest.raises(AssertionError):
        cli.main(["run", "cdigits", *TINY, "--out", str(tmp_path / "out")])


def test_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"jaxdd {jaxdd.__version__}\n"


@pytest.fixture
def photographs(tmp_path):
    """Return a folder of forty images of mixed sizes and modes, with a table of two classes."""
    folder, rng = tmp_path / "photographs", np.random.default_rng(0)
    folder.mkdir()
    lines = ["file,label"]
    for i in range(40):
        size, mode = rng.integers(12, 40, 2).tolist(), ("RGB", "L", "RGBA", "P", "1")[i % 5]
        level = 60 if i % 2 else 200
        Image.new("RGB", size, (level, 100, 255 - level)).convert(mode).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'night' if i % 2 else 'day'}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def test_run_on_a_folder_of_images(photographs, tmp_path, capsys):
    """The run has a result and pictures, and is not resumed with other images."""
    small = [*TINY, "--debias", "plain", "--resize", "16"]
    command = ["run", str(photographs), *small, "--out", str(tmp_path / "out")]
    cli.main(command)
    assert "no bias" in capsys.readouterr().out
    result = store.read_result(tmp_path / "out")
    assert result.accuracy.n == 1 and result.weights["conflict_weight_share"] is None
    synthetic = store.read_synthetic(tmp_path / "out" / "synthetic.npz")
    assert synthetic.images.shape == (2, 2, 16, 16, 3)
    assert synthetic.provenance["class_names"] == ["day", "night"]
    assert (tmp_path / "out" / "synthetic.png").exists()
    (photographs / "1.png").write_bytes((photographs / "0.png").read_bytes())
    assert "data" in fails([*command, "--resume"], capsys)


def test_a_comparison_without_attributes(photographs, tmp_path, capsys, monkeypatch):
    """Rows that need bias labels are named; evaluating a run on a folder needs the images."""
    out = tmp_path / "out"
    small = [*TINY, "--resize", "16", "--out", str(out)]
    cli.main(["compare", str(photographs), *small, "--rows", "random", "oracle", "fairdd"])
    assert "left out oracle, fairdd" in capsys.readouterr().err
    command = ["run", photographs, *TINY, "--debias", "fairdd", "--out", tmp_path / "b"]
    assert "fairdd" in fails(command, capsys)
    cli.main(["report", str(out)])
    assert "--rows random</code>" in (out / "report.html").read_text()
    assert f"are in {out / 'rows'}" in fails(["evaluate", out], capsys)
    monkeypatch.chdir(tmp_path / "out")
    run = out / "rows" / "random"
    assert "which is not a folder here" in fails(["evaluate", run], capsys)
    cli.main(["evaluate", str(run), "--networks", "mlp", "--dataset", str(photographs)])
    assert "–" in capsys.readouterr().out


def test_bias_labels_from_a_file(tmp_path, capsys):
    """The colours of 60 digits balance all; random labels of 40 are rejected."""
    data = sources.load("cdigits", options.DM(), None)
    table, out = tmp_path / "labels.csv", tmp_path / "out"
    colours = data.train.attributes[:60]
    table.write_text("index,colour\n" + "".join(f"{i},c{a}\n" for i, a in enumerate(colours)))
    cli.main(["run", "cdigits", *TINY, "--bias-labels", str(table), "--out", str(out)])
    assert "60 bias labels" in capsys.readouterr().out
    result = store.read_result(out)
    assert result.config["debias"] == "labels" and len(result.config["bias_labels"]) == 32
    assert result.weights["group_evenness"] > 0.9
    random = np.random.default_rng(0).integers(0, 10, 40)
    table.write_text("index,colour\n" + "".join(f"{i},{a}\n" for i, a in enumerate(random)))
    command = ["run", "cdigits", *TINY, "--bias-labels", table, "--out", tmp_path / "random"]
    assert "40 labels" in fails(command, capsys)
    assert "--debias plain" in fails([*command, "--debias", "plain"], capsys)


def test_custom_weights_and_a_custom_network(tmp_path, capsys, monkeypatch):
    """Weights come from a file, the network from a module in the working directory."""
    np.save(tmp_path / "w.npy", 1 + np.arange(1437) % 7)
    (tmp_path / "little.py").write_text(
        "from jaxdd import networks\ndef small(classes): return networks.MLP(classes, width=3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    tiny = replaced(TINY, "--network", "little:small")
    command = ["run", "cdigits", *tiny, "--weights", "w.npy", "--out", "out"]
    cli.main(command)
    config = store.read_result(tmp_path / "out").config
    assert config["debias"] == "custom" and config["network"] == "little:small"
    assert config["augmentation"] == [] == config["strategy"]
    assert "custom" in capsys.readouterr().out
    np.save(tmp_path / "w.npy", np.ones(3))
    assert "1437" in fails([*command, "--resume"], capsys)


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--inner", "3"], "dc and dsa"),
        (["--method", "cfm", "--beta", "0.0001"], "0.0001"),
        (["--method", "dsa", "--num-experts", "3"], "mtt"),
        (["--method=mtt", "--outer=3"], "dc and dsa"),
        (["--method", "magic"], "'magic'"),
        (["--strategy", "crop", "flop"], "flip"),
        (["--network", "lenet5"], "'lenet5'"),
        (["--network", "nowhere:net"], "nowhere:net"),
        (["--weights", "absent.npy"], "--weights: absent.npy does not exist"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_the_method(arguments, part, tmp_path, capsys):
    error = fails(["run", "cdigits", *arguments, "--out", tmp_path / "out"], capsys)
    assert part in error and not (tmp_path / "out").exists()


def test_each_method_has_its_own_help_page(capsys):
    for method, has, lacks in (
        ("dm", "--candidates", "--outer"),
        ("mtt", "--syn-steps", "--outer"),
        ("cfm", "--beta-floor", "--syn-steps"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["run", "--method", method, "--help"])
        printed = capsys.readouterr().out
        assert stopped.value.code == 0 and has in printed and lacks not in printed


@pytest.mark.parametrize("words", ([], ["--help"], ["datasets", "-h"], ["sets"]))
def test_commands_are_listed_in_groups(words, capsys):
    cli.main(words)
    printed = capsys.readouterr().out
    first = "".join(words).removesuffix("-h").removesuffix("--help")
    names = [name for name in reference.COMMANDS if name.startswith(first)]
    assert all(f"\n  {name} " in printed for name in names)
    assert ("\npublish\n" in printed) == ("--version" in printed) == (not first)


def test_options_are_completed_in_a_shell(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--tyro-write-completion", "bash", str(tmp_path / "jaxdd")])
    script = (tmp_path / "jaxdd").read_text()
    assert not stopped.value.code
    assert all(x in script for x in ("datasets", "--syn-steps", "--beta-floor", "--trusted"))


def test_quiet_and_verbose_commands(tmp_path, capsys):
    """A verbose command prints a line per record and no bar, a quiet one nothing."""
    command = [*PLAIN, "--out", str(tmp_path / "out")]
    cli.main([*command, "-v"])
    printed = capsys.readouterr().out
    assert re.search(r"^\S+ 2/2  loss \d", printed, re.M) and "wrote" in printed
    cli.main([*command, "--resume", "-q"])
    assert capsys.readouterr().out == ""


def test_a_conflicting_test_set_has_groups(tmp_path, capsys):
    command = [*PLAIN, "--conflict", "0.5", "--test", "conflicting"]
    cli.main([*command, "--out", str(tmp_path / "out")])
    assert "no bias" not in capsys.readouterr().out


def test_images_too_small_for_the_network_are_rejected(photographs, tmp_path, capsys):
    tiny = replaced(TINY, "--network", "convnet")
    command = ["run", photographs, *tiny, "--resize", "3"]
    assert "got 3" in fails([*command, "--out", tmp_path / "out"], capsys)


def test_bad_images_in_a_folder_are_reported_or_counted(photographs, tmp_path, capsys):
    path = photographs / "7.png"
    path.write_bytes(path.read_bytes()[:40])
    command = ["run", photographs, *TINY, "--out", tmp_path / "out"]
    assert f"{path} does not decode" in fails(command, capsys)
    assert not (tmp_path / "out").exists()
    cli.main(["datasets", "show", str(photographs), "--skip-bad", "--out", str(tmp_path / "a.png")])
    assert "left out 1 image that does not decode: 7.png" in capsys.readouterr().out


def test_the_reading_of_a_folder_is_printed(photographs, tmp_path, capsys):
    """Copies of training images in the test set are counted; images 0 and 2 are the same colour."""
    folder = tmp_path / "digits"
    for i in range(4):
        for split in ("Training", "Testing"):
            (folder / split / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            shutil.copy(photographs / f"{i}.png", folder / split / "ab"[i % 2] / f"{i}.png")
    (folder / "Testing" / "b" / "notes.txt").write_text("")
    cli.main(["datasets", "show", str(folder), "--resize", "8"])
    printed = capsys.readouterr().out
    for part in ("train images are in Training", "a 4, b 4", "1 .txt", "resized 8 of 8"):
        assert part in printed
    assert "4 test images have the same pixels as a training image" in printed
    assert "\nduplicates      1 in training, 1 in test, 4 between them" in printed
    assert "\nnear-duplicates " in printed
    cli.main(["datasets", "show", str(folder), "--layout", "classes"])
    assert "Testing 4, Training 4" in capsys.readouterr().out


def test_groups_of_crossed_columns_are_shown(photographs, tmp_path, capsys):
    """Thirteen of 24 training images have both columns; the two of a dog in the snow are few."""
    folder = tmp_path / "crossed"
    rows = ["file,label,weather,place,split"]
    for i in range(26):
        split = "test" if i > 23 else "train"
        kind, place = ("dog", "in") if i in (1, 2) else ("cat", "out")
        rows.append(f"{i}.png,{kind},{'snow' if i < 13 else ''},{place},{split}")
        folder.mkdir(exist_ok=True)
        shutil.copy(photographs / f"{i % 4}.png", folder / f"{i}.png")
    (folder / "metadata.csv").write_text("\n".join(rows))
    cli.main(["datasets", "show", str(folder), "--attribute", "weather+place"])
    printed = capsys.readouterr().out
    assert "attribute known for 13 of 24 training images and 0 of 2 test images" in printed
    assert "fewer than 10 training images: 1 of 2 (dog × snow, in 2)" in printed
    assert "21 training images have the same pixels as an earlier one" in printed
    command = ["run", folder, *TINY, "--attribute", "weather+place", "--debias", "oracle"]
    assert "got 13 of 24" in fails([*command, "--out", tmp_path / "out"], capsys)


def test_results_inside_of_the_images_are_rejected(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(photographs)
    for command in (["run", "."], ["compare", "."], ["run", "../photographs", "--out", "x/y"]):
        assert "out must be outside" in fails([*command, *TINY], capsys)
    assert "sheet.png" in fails(["datasets", "show", ".", "--out", "sheet.png"], capsys)
    assert {path.suffix for path in photographs.iterdir()} == {".png", ".csv"}


def test_a_folder_named_like_a_benchmark(photographs, tmp_path, capsys, monkeypatch):
    """The bare name is ambiguous; the path is not, and the set is not called by the benchmark."""
    monkeypatch.chdir(tmp_path)
    photographs.rename("digits")
    assert "./digits" in fails(["datasets", "show", "digits"], capsys)
    load = functools.partial(sources.load, options=options.DM())
    assert load("./digits", data_dir=None).name == "./digits"
    assert load("digits", data_dir=tmp_path).num_classes == 10
    assert "layout" in fails(["datasets", "show", "cdigits", "--layout", "classes"], capsys)


def test_datasets_are_listed_shown_and_built(tmp_path, capsys):
    cli.main(["datasets", "list"])
    assert "cmnist-dd" in capsys.readouterr().out
    cli.main(["datasets", "show", "cdigits", "--out", str(tmp_path / "sheet.png")])
    shown = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["train"] == "1437" and float(shown["conflict"]) == pytest.approx(0.1, abs=0.01)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
    assert "the folder" in fails(["datasets", "show", "cdigits", "--out", tmp_path], capsys)
    assert "cdigit" in fails(["datasets", "show", "cdigit"], capsys)
    assert "invent" in fails(["datasets", "invent"], capsys)


@pytest.fixture
def find(monkeypatch, tmp_path):
    """Replace the search for a bias by a fixed result; `find.calls` holds its arguments."""
    monkeypatch.chdir(tmp_path)

    def find(data, chosen, **fields):
        find.calls.append((data, chosen, fields))
        candidate = weights.Candidate(
            "layout", np.full(3, 1.0), np.zeros(3), np.zeros(3, int), (*range(data.num_classes),),
            0.6, 0.1, rejection="too small a gain",
        )  # fmt: skip
        choice = weights.Choice(None, find.verdict, (), (candidate,))
        commands = {"layout": f"jaxdd run {fields['dataset']} --debias layout"}
        empty = np.zeros(0, int)
        copies = duplicates.exact(data).counts()
        finding = bias.Finding(
            choice, np.arange(3), None, empty, (), copies, copies, fields["dataset"], commands
        )
        fields["preview"](finding._replace(is_preview=True))
        return finding

    find.calls, find.verdict = [], "none"
    monkeypatch.setattr(bias, "find", find)
    return find


def run_bias(*words):
    """Return the exit code of `jaxdd bias`."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bias", *map(str, words)])
    return stopped.value.code


def test_the_bias_of_a_data_set_is_reported(find, tmp_path, capsys):
    """Options reach the search, and each verdict has its own exit code."""
    np.save("rows.npy", np.ones((1437, 2)))
    words = "cdigits --conflict 0.2 --seed 3 --suspect border --exclude tone texture --ask 5"
    words += " --embedding rows.npy --max-samples 99 --json a.json --csv a.csv"
    assert run_bias(*words.split()) == 0
    ((data, chosen, fields),) = find.calls
    assert (data.name, data.num_attributes, chosen.seed) == ("cdigits", 10, 3)
    assert chosen.suspect == ("border",) and chosen.exclude == ("tone", "texture")
    assert (fields["ask"], fields["max_samples"]) == (5, 99)
    assert fields["embedding"].shape == (1437, 2) and str(fields["embedding_path"]) == "rows.npy"
    assert fields["dataset"] == "cdigits --conflict 0.2 --seed 3" and fields["folder"] is None
    printed = capsys.readouterr().out
    assert "wrote bias-cdigits.html with candidates that are not tested yet" in printed
    assert "cdigits: no evidence of a bias\nwrote bias-cdigits.html and a.json" in printed
    assert (tmp_path / "bias-cdigits.html").read_text().startswith("<!doctype html>")
    assert files.read_json(tmp_path / "a.json")["candidates"][0]["name"] == "layout"
    assert (tmp_path / "a.csv").read_text().startswith("index,class,layout_score")
    find.verdict = "undecided"
    assert run_bias("cdigits") == 3
    assert "jaxdd run cdigits --debias layout" in capsys.readouterr().out
    find.verdict = "biased"
    assert run_bias("cdigits") == 1


@pytest.mark.parametrize(
    "words, value",
    [
        ("cdigits --out page.txt", "out must end in .html"),
        ("cdigits --out .", "the folder ."),
        ("cdigits --csv .", "the folder ."),
        ("cdigits --json a --csv a", "different"),
        ("cdigits --suspect hue", "hue"),
        ("cdigits --suspect tone --exclude tone border", "tone"),
        ("cdigits --embedding short.npy", r"short.npy"),
        ("cdigits --embedding missing.npy", "missing.npy"),
    ],
)
def test_bad_arguments_of_bias_are_reported_before_the_search(words, value, find, capsys):
    np.save("short.npy", np.ones((7, 2)))
    assert value in fails(["bias", *words.split()], capsys)
    assert not find.calls


def test_results_of_bias_are_not_written_among_the_images(photographs, find, capsys):
    for option in ("--csv", "--json", "--out"):
        path = photographs / f"metadata{'.html' if option == '--out' else '.csv'}"
        assert str(path) in fails(["bias", photographs, option, path], capsys)
    assert not find.calls
    assert run_bias(photographs, "--resize", 8) == 0
    assert find.calls[0][2]["folder"] == str(photographs)


def test_an_undecided_run_prints_how_to_go_on(monkeypatch, tmp_path, capsys):
    """The commands keep the options; the one that accepts the candidate keeps all of them."""
    candidate = {"name": "own-embedding", "rejection": "too small a gain"}
    choice = dict(verdict="undecided", uniform=True, chosen=[], candidates=[candidate], best=None)
    scores = {name: results.Score(0.5, 0.1, 2) for name in results.SCORES}
    result = results.Result(**scores, choice=choice)
    monkeypatch.setattr(pipeline, "run", lambda *args, **fields: result)
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.ones((1437, 2)))
    cli.main("run cdigits --conflict 0.2 --ipc 3 --embedding rows.npy".split())
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "jaxdd bias" in x]
    assert "jaxdd bias cdigits --conflict 0.2 --embedding rows.npy" in line
    accepted = "--ipc 3 --conflict 0.2 --debias embedding --embedding rows.npy"
    assert f"jaxdd run cdigits {accepted}" in line
