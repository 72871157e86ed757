import errno
import inspect
import io
import os
import platform
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
from jaxdd.commands import cli, sources
from jaxdd.data import files
from jaxdd.runs import options, pipeline, processes
from jaxdd.runs.folder import store
from jaxdd.runs.reports import bias_page

TINY = (
    "--ipc 2 --batch-size 8 --network mlp --depth 2 --epochs 1 --eval-seeds 1 --chunk 2 "
    "--encoder-steps 2 --encoder-width 4 --save-every 0 --strategy"
).split()


def fails(arguments, capsys):
    """The single line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(map(str, arguments)))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("jaxdd: ")
    return error


def start(command):
    """A command in a process of its own, with the programs of this one."""
    code = f"from jaxdd.commands import cli; cli.main({list(map(str, command))})"
    given = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "-c", code], **given)


def wait_for_steps(process, folder, lines):
    """Returns once the run in `folder` has logged that many chunks."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "progress.jsonl").exists() and len(store.progress(folder)) >= lines:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run did not get to chunk {lines}: {process.communicate()}")


def test_experts_of_a_killed_run_are_used_and_the_others_trained(tmp_path):
    """SIGKILL once the first expert is on disk; all files end with the bits of another run's."""
    command = ["run", "cdigits", *TINY, "--method", "mtt", "--num-experts", "3"]
    command += ["--train-epochs", "2", "--expert-updates", "2", "--expert-epochs", "1"]
    command += ["--max-start-epoch", "1", "--steps", "2", "--syn-steps", "2", "--debias", "none"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    killed, deadline = start([*command, "--out", cut]), time.monotonic() + 240
    while not (cut / "experts" / "expert-000.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    first = (cut / "experts" / "expert-000.npz").stat().st_mtime_ns
    cli.main([*map(str, command), "--out", str(cut), "--resume"])
    cli.main([*map(str, command), "--out", str(whole)])
    assert (cut / "experts" / "expert-000.npz").stat().st_mtime_ns == first
    for name in ("experts/expert-000.npz", "experts/expert-002.npz", "synthetic.npz"):
        one, other = (files.read_arrays(folder / name) for folder in (cut, whole))
        for array in one:
            np.testing.assert_array_equal(one[array], other[array])


def test_gradient_matching_killed_and_resumed_has_the_bits_of_an_undisturbed_run(tmp_path):
    """SIGKILL in mid-distillation."""
    command = ["run", "cdigits", *TINY, "--steps", "20", "--method", "dsa", "--debias", "none"]
    command += ["--inner", "1"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    killed = start([*command, "--out", cut])
    wait_for_steps(killed, cut, 2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (cut / "checkpoint").exists() and not (cut / "synthetic.npz").exists()
    cli.main([*command, "--out", str(cut), "--resume"])
    cli.main([*command, "--out", str(whole)])
    one, other = (store.read_synthetic(folder / "synthetic.npz") for folder in (whole, cut))
    np.testing.assert_array_equal(one.images, other.images)


def test_run_killed_and_interrupted_resumes_to_the_bits_of_an_undisturbed_one(tmp_path):
    """SIGKILL in mid-distillation, then Ctrl-C, then to the end."""
    command = ["run", "cdigits", *TINY, "crop", "--steps", "40", "--debias", "none"]
    killed = start([*command, "--out", tmp_path / "cut"])
    wait_for_steps(killed, tmp_path / "cut", 3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (tmp_path / "cut" / "checkpoint").exists()
    assert not (tmp_path / "cut" / "synthetic.npz").exists()
    before = len(store.progress(tmp_path / "cut"))
    stopped = start([*command, "--out", tmp_path / "cut", "--resume"])
    wait_for_steps(stopped, tmp_path / "cut", before + 3)
    stopped.send_signal(signal.SIGINT)
    _, error = stopped.communicate()
    assert stopped.returncode == 130, error
    assert "of 40; the state is saved" in error and "--resume" in error
    cli.main([*command, "--out", str(tmp_path / "cut"), "--resume"])
    cli.main([*command, "--out", str(tmp_path / "whole")])
    one, other = (store.read_synthetic(tmp_path / x / "synthetic.npz") for x in ("whole", "cut"))
    np.testing.assert_array_equal(one.images, other.images)
    steps = [record["step"] for record in store.progress(tmp_path / "cut")]
    assert steps == list(range(2, 41, 2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    cli.main(["run", "cdigits", *TINY, "--steps", "2", "--debias", "none", "--out", str(folder)])
    return folder


def test_result(finished):
    result = files.read_json(finished / "result.json")
    for part in (result, result["random"]):
        for name in ("accuracy", "aligned", "conflicting", "worst_group"):
            assert set(part[name]) == {"mean", "std", "n", "each"}
    assert set(result["seconds"]) >= {"data", "compile", "distill", "evaluate"}
    assert result["weights"]["conflict_weight_share"] == pytest.approx(0.1, abs=0.01)
    assert result["config"]["dataset"] == "cdigits" and result["seed"] == 0
    assert result["device"] and result["versions"]["jax"]


def test_the_synthetic_set_is_published_without_pickle(finished):
    with np.load(finished / "synthetic.npz", allow_pickle=False) as stored:
        assert stored["images"].shape == (10, 2, 16, 16, 3)
        assert stored["images"].dtype == np.float32 and stored["labels"].dtype == np.int32


def test_what_rounding_costs_is_measured_as_the_run_was(finished, tmp_path, capsys):
    cli.main(["export", str(finished), str(tmp_path / "out"), "--format", "png", "--score"])
    assert "rounded to eight bits, and " in capsys.readouterr().out
    told = jaxdd.load(tmp_path / "out").manifest
    measured, result = told["rounding"]["scores"], files.read_json(finished / "result.json")
    assert measured["accuracy"]["n"] == result["accuracy"]["n"]
    assert measured["accuracy"]["mean"] == pytest.approx(result["accuracy"]["mean"], abs=0.05)
    again = ["export", finished, tmp_path / "out", "--score", "--format"]
    assert "out is not an empty folder; choose another" in fails([*again, "png"], capsys)
    assert "npz is not rounded, and has the scores of the run" in fails([*again, "npz"], capsys)


def test_an_occupied_folder_is_refused_before_any_work(finished, tmp_path, capsys):
    again = ["run", "cdigits", *TINY, "--steps", "2", "--debias", "none"]
    assert "this very run; pass --resume" in fails([*again, "--out", finished], capsys)
    assert "another run (ipc" in fails([*again, "--ipc", "3", "--out", finished], capsys)
    other = fails([*again, "--ipc", "3", "--out", finished, "--resume"], capsys)
    assert "ipc" in other and "2" in other and "3" in other
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt" in fails([*again, "--out", tmp_path], capsys)


def test_a_finished_run_is_read_back(finished, monkeypatch, capsys):
    monkeypatch.setattr(pipeline._Attempt, "source", None)
    cli.main(
        [
            "run",
            "cdigits",
            *TINY,
            "--steps",
            "2",
            "--debias",
            "none",
            "--out",
            str(finished),
            "--resume",
        ]
    )
    assert "random" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["cdigit"], ["unknown data set 'cdigit'", "cdigits"]),
        (["cdigits", "--conflict", "1.5"], ["conflict", "1.5", "[0, 1]"]),
        (["cdigits", "--conflict", "nan"], ["conflict", "nan"]),
        (["cdigits", "--severity", "9"], ["severity", "9"]),
        (["digits", "--conflict", "0.1"], ["digits", "conflict"]),
        (["cdigits", "--temperature", "-1"], ["temperature must be positive and finite, found -1"]),
        (["cdigits", "--bandwidth", "inf"], ["bandwidth must be positive and finite, found inf"]),
        (["cdigits", "--ipc", "0"], ["ipc must be at least 1", "found 0"]),
        (["cdigits", "--ipc", "99999999999"], ["ipc must", "found 99999999999"]),
        (["cdigits", "--save-every", "nan"], ["save_every must be at least 0", "found nan"]),
        (["digits", "--debias", "oracle"], ["oracle needs bias attributes"]),
        (["digits", "--test", "conflicting"], ["digits is unbiased", "conflicting"]),
        (["digits", "--resize", "8"], ["digits", "resize=8"]),
        (["no/such/folder"], ["no/such/folder does not exist"]),
        ([".", "--conflict", "0.1"], ["conflict, severity and test are for benchmarks"]),
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
        (["run"], "required"),
        (["run", "cdigits", "--debias", "magic"], "magic"),
        (["run", "cdigits", "--ipc", "two"], "two"),
        (["train"], "train"),
        (["run", "cdigits", "--epoch", "3"], "--epochs"),
    ],
    ids=str,
)
def test_words_that_do_not_parse_are_one_line(arguments, part, capsys):
    assert part in fails(arguments, capsys)


def test_corrupt_data_is_named_with_its_checksum(tmp_path, capsys):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"not these bytes")
    arguments = ["run", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "out"]
    error = fails(arguments, capsys)
    assert "train-images-idx3-ubyte.gz" in error and "f68b3c2dcbeaaa9fbdd348bbdeb94873" in error


def test_a_full_disk_is_one_line_and_the_run_can_go_on(tmp_path, monkeypatch, capsys):
    command = [
        "run",
        "cdigits",
        *TINY,
        "--steps",
        "4",
        "--debias",
        "none",
        "--out",
        str(tmp_path / "out"),
    ]
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


@pytest.mark.parametrize(
    "name, content", [("result.json", b"{}"), ("result.json", b"[]"), ("config.json", b"{")]
)
def test_damaged_files_are_named_when_a_finished_run_is_resumed(
    finished, tmp_path, name, content, capsys
):
    folder = shutil.copytree(finished, tmp_path / "copy")
    command = ["run", "cdigits", *TINY, "--steps", "2", "--debias", "none", "--resume"]
    (folder / name).write_bytes(content)
    assert name in fails([*command, "--out", folder], capsys)


def test_damaged_weights_and_progress_are_named(tmp_path, capsys):
    command = [
        "run",
        "cdigits",
        *TINY,
        "--steps",
        "2",
        "--debias",
        "kde",
        "--out",
        str(tmp_path / "out"),
    ]
    cli.main(command)
    assert (
        "kde: its networks show no sign of learning in " in capsys.readouterr().err
    )  # in one epoch
    assert files.read_json(tmp_path / "out" / "result.json")["learnt"] is False
    (tmp_path / "out" / "result.json").unlink()
    np.savez(tmp_path / "out" / "weights.npz", weights=np.zeros(3))
    assert "weights.npz does not hold the weights of 1437" in fails([*command, "--resume"], capsys)
    (tmp_path / "out" / "weights.npz").unlink()
    (tmp_path / "out" / "progress.jsonl").write_text('{"step": "x"}\n')
    assert "progress.jsonl: step must be a number" in fails([*command, "--resume"], capsys)


def test_the_demo_prints_the_table(tmp_path, capsys, monkeypatch):
    """At a tiny size; a comparison has auto besides, unless it is told its rows."""
    small = dict(ipc=2, steps=2, batch_size=8, network="mlp", depth=2, epochs=1, eval_seeds=1)
    demo = options.DM(**small, encoder_steps=2, encoder_width=4, strategy=())
    monkeypatch.setattr(cli, "DEMO", demo)
    cli.main(["demo", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.DEMO_ROWS)
    assert {*inspect.signature(cli.compare).parameters["rows"].default} == {*cli.DEMO_ROWS, "auto"}
    left = [each.name for each in threading.enumerate()]
    assert not [name for name in left if name.startswith(processes.ROW_THREADS)]  # or errors end Python


def test_compiled_programs_are_kept_for_the_next_command(tmp_path):
    """Where the user has not said where: under XDG_CACHE_HOME, by the name of the machine."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    code = (
        "import jax; from jaxdd.runs import programs; programs.keep_programs(); "
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0); "
        "jax.jit(lambda x: x @ x)(jax.numpy.eye(3))"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        kept = list((tmp_path / "jaxdd" / "programs" / platform.node()).glob("jit__lambda*-cache"))
        assert len(kept) == 1


def test_a_stream_that_is_not_utf8_gets_other_characters(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    cli.main(["datasets", "list"])
    stream.flush()
    assert b"16?16" in stream.buffer.getvalue()


def test_environments_that_cannot_be_used_are_one_line(tmp_path, monkeypatch, capsys):
    command = ["run", "cdigits", *TINY, "--out", tmp_path / "out"]
    with monkeypatch.context() as patched, jax.debug_nans(True):
        patched.setattr(cli, "prepare", None)
        assert "JAX_DEBUG_NANS cannot be on" in fails(command, capsys)

    def absent(*_, **__):
        raise AssertionError

    monkeypatch.setattr(jax, "devices", absent)
    monkeypatch.setattr(sources, "load", absent)  # which is the first to need a device
    assert "found no device of JAX_PLATFORMS=" in fails(command, capsys)


def test_an_interrupt_while_the_command_line_is_imported_is_quiet():
    """Ctrl-C once jax is looked for; what is begun in the background may ignore it."""
    code = (
        "import os, signal, sys, types; stop = lambda name, *_: "
        "os.kill(os.getpid(), signal.SIGINT) if name == 'jax' else None; "
        "sys.meta_path.insert(0, types.SimpleNamespace(find_spec=stop)); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from jaxdd import __main__; __main__.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_mistake_of_the_program_is_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "run", lambda **_: {}["gone"])
    with pytest.raises(KeyError):
        cli.main(["run", "cdigits", *TINY, "--out", str(tmp_path / "out")])
    monkeypatch.setattr(pipeline, "run", lambda **_: np.testing.assert_array_equal(0, 1))
    with pytest.raises(AssertionError):
        cli.main(["run", "cdigits", *TINY, "--out", str(tmp_path / "out")])


def test_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"jaxdd {jaxdd.__version__}\n"


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("demo", "run", "compare", "datasets"))


@pytest.fixture
def photographs(tmp_path):
    """Forty images of mixed sizes and modes in two classes, a table, and one file cut short."""
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
    """It ends with a result and pictures, and does not go on with other images."""
    small = [*TINY, "--steps", "2", "--debias", "none", "--resize", "16"]
    command = ["run", str(photographs), *small, "--out", str(tmp_path / "out")]
    cli.main(command)
    assert "no bias attributes: what concerns groups was skipped" in capsys.readouterr().out
    result = files.read_json(tmp_path / "out" / "result.json")
    assert result["accuracy"]["n"] == 1 and result["weights"]["conflict_weight_share"] is None
    synthetic = store.read_synthetic(tmp_path / "out" / "synthetic.npz")
    assert synthetic.images.shape == (2, 2, 16, 16, 3)
    assert synthetic.provenance["class_names"] == ["day", "night"]
    assert (tmp_path / "out" / "synthetic.png").exists()
    (photographs / "1.png").write_bytes((photographs / "0.png").read_bytes())
    assert "data" in fails([*command, "--resume"], capsys)


def test_without_attributes(photographs, tmp_path, capsys, monkeypatch):
    """Rows that need bias labels are named; evaluating a run on a folder needs the images."""
    out = tmp_path / "out"
    small = [*TINY, "--steps", "2", "--resize", "16", "--out", str(out)]
    cli.main(["compare", str(photographs), *small, "--rows", "random", "oracle", "fairdd"])
    assert "left out oracle, fairdd: they need bias attributes" in capsys.readouterr().err
    assert "fairdd needs bias attributes" in fails(
        ["run", photographs, *TINY, "--debias", "fairdd", "--out", tmp_path / "b"], capsys
    )
    cli.main(["report", str(out)])
    assert "--rows random</code>" in (out / "report.html").read_text()
    assert f"are in {out / 'rows'}" in fails(["evaluate", out], capsys)
    monkeypatch.chdir(tmp_path / "out")
    run = out / "rows" / "random"
    assert "which is not a folder here" in fails(["evaluate", run], capsys)
    cli.main(["evaluate", str(run), "--networks", "mlp", "--dataset", str(photographs)])
    assert "–" in capsys.readouterr().out


def test_weights_and_a_network_of_ones_own(tmp_path, capsys, monkeypatch):
    """From a file and from a module in the working directory; both are in the record."""
    np.save(tmp_path / "w.npy", 1 + np.arange(1437) % 7)
    (tmp_path / "little.py").write_text(
        "from jaxdd import networks\ndef small(classes): return networks.MLP(classes, width=3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["run", "cdigits", *TINY, "--steps", "2", "--weights", "w.npy", "--out", "out"]
    cli.main([*command, "--network", "little:small"])
    result = files.read_json(tmp_path / "out" / "result.json")
    assert result["config"]["debias"] == "given" and result["config"]["network"] == "little:small"
    assert result["config"]["augmentation"] == [] == result["config"]["strategy"]
    assert "given" in capsys.readouterr().out
    np.save(tmp_path / "w.npy", np.ones(3))
    assert "does not hold the weights of 1437 samples" in fails([*command, "--resume"], capsys)


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--inner", "3"], "inner is an option of dc and dsa, found it with dm"),
        (
            ["--method", "cfm", "--beta", "0.0001"],
            "beta must be at least its beta_floor of 0.001, found 0.0001",
        ),
        (
            ["--method", "dsa", "--num-experts", "3"],
            "num_experts is an option of mtt, found it with",
        ),
        (["--method=mtt", "--outer=3"], "outer is an option of dc and dsa, found it with mtt"),
        (["--method", "magic"], "method must be one of dm, dc, dsa, mtt, cfm, found 'magic'"),
        (["--strategy", "crop", "flop"], "found 'flop'; did you mean 'flip'"),
        (["--network", "lenet5"], "or MODULE:ATTRIBUTE, found 'lenet5'"),
        (["--network", "nowhere:net"], "network nowhere:net cannot be imported"),
        (["--weights", "absent.npy"], "absent.npy"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_the_method(arguments, part, tmp_path, capsys):
    error = fails(["run", "cdigits", *arguments, "--out", tmp_path / "out"], capsys)
    assert part in error and not (tmp_path / "out").exists()


def test_each_method_has_a_help_page_of_its_own(capsys):
    for method, has, lacks in (
        ("dm", "--candidates", "--outer"),
        ("mtt", "--syn-steps", "--outer"),
        ("cfm", "--beta-floor", "--syn-steps"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["run", "--method", method, "--help"])
        printed = capsys.readouterr().out
        assert stopped.value.code == 0 and has in printed and lacks not in printed


def test_a_conflicting_test_set_has_groups(tmp_path, capsys):
    command = [
        "run",
        "cdigits",
        *TINY,
        "--steps",
        "2",
        "--conflict",
        "0.5",
        "--test",
        "conflicting",
    ]
    cli.main([*command, "--debias", "none", "--out", str(tmp_path / "out")])
    assert "no bias attributes" not in capsys.readouterr().out


def test_images_too_small_for_the_network_are_refused(photographs, tmp_path, capsys):
    command = [
        "run",
        photographs,
        *TINY,
        "--network",
        "convnet",
        "--resize",
        "3",
        "--out",
        tmp_path / "out",
    ]
    assert "sides of 4 pixels or more for a ConvNet of depth 2, found 3" in fails(command, capsys)


def test_bad_images_in_a_folder_are_named_or_counted(photographs, tmp_path, capsys):
    path = photographs / "7.png"
    path.write_bytes(path.read_bytes()[:40])
    command = ["run", photographs, *TINY, "--steps", "2", "--out", tmp_path / "out"]
    assert f"{path} does not decode" in fails(command, capsys)
    assert not (tmp_path / "out").exists()
    cli.main(["datasets", "show", str(photographs), "--skip-bad", "--out", str(tmp_path / "a.png")])
    assert "left out 1 image that does not decode: 7.png" in capsys.readouterr().err


def test_datasets_are_listed_shown_and_built(tmp_path, capsys):
    cli.main(["datasets", "list"])
    assert all(name in capsys.readouterr().out for name in ("cmnist-dd",))
    cli.main(["datasets", "show", "cdigits", "--out", str(tmp_path / "sheet.png")])
    shown = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["train"] == "1437" and float(shown["conflict"]) == pytest.approx(0.1, abs=0.01)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
    assert "got digits" in fails(["datasets", "build", "digits"], capsys)
    assert "the folder" in fails(["datasets", "show", "cdigits", "--out", tmp_path], capsys)
    assert "cdigit" in fails(["datasets", "show", "cdigit"], capsys)
    assert "invent" in fails(["datasets", "invent"], capsys)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["datasets", "--help"])
    assert stopped.value.code == 0 and "contact" not in capsys.readouterr().err


def test_bias_of_a_data_set_is_told(tmp_path, monkeypatch, capsys):
    """What is found is faked; the data set is the one that was asked for."""
    asked = []

    def find(data, *, seed, mesh, progress):
        asked.append((data.name, data.num_attributes, seed))
        uniform = weights.Trial(0.9, 0.9, 0.5, 0)
        trials = {"uniform": uniform, "best": uniform}
        values = dict(encoder_steps=30, bandwidth=0.2, temperature=1.0, evenness=0.9)
        choice = weights.Choice(None, None, [values], 0, trials, "none disagrees")
        return bias_page.Finding(choice, np.arange(3), None, None)

    monkeypatch.setattr(bias_page, "find", find)
    monkeypatch.chdir(tmp_path)
    cli.main(["bias", "cdigits", "--conflict", "0.2", "--seed", "3"])
    assert asked == [("cdigits", 10, 3)]
    found = "cdigits: no bias detected, but the shortcut test was not possible"
    assert capsys.readouterr().out.endswith(f"{found}\nwrote bias-cdigits.html\n")
    assert "3 of 1,437 training samples" in (tmp_path / "bias-cdigits.html").read_text()
    assert "out must end in .html" in fails(["bias", "digits", "--out", "page.txt"], capsys)
    assert "the folder" in fails(["bias", "digits", "--out", tmp_path], capsys)
    assert len(asked) == 1
