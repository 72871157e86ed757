"""Signing and verifying sets with keys that were made as the documentation says."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxdd.commands import cli
from jaxdd.data import files
from jaxdd.runs.folder import manifest
from jaxdd.runs.trust import publication, signature

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "guides" / "publishing.md"

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402


def commands():
    """Return the commands of the page, from the creation of a key on."""
    text = PAGE.read_text(encoding="utf-8").split("\n## Making")[0]
    lines = [
        line
        for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
        for line in block.splitlines()
    ]
    shown = [line for line in lines if line.startswith(("openssl", "jaxdd", "python"))]
    return shown[next(i for i, line in enumerate(shown) if line.startswith("openssl")) :]


def write_keys(folder, name, private):
    """Write the PEM files of a key, NAME.key and NAME.pub."""
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(private.private_bytes(pem, form, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / f"{name}.pub").write_bytes(private.public_key().public_bytes(pem, form))


@pytest.fixture(scope="module")
def signed(make_run, tmp_path_factory):
    """A folder with keys, a signed run, and signed sets in both formats."""
    folder = tmp_path_factory.mktemp("signed")
    for name in ("mine", "other"):
        write_keys(folder, name, ed25519.Ed25519PrivateKey.generate())
    make_run(folder / "run")
    for form in publication.FORMATS:
        publication.export(folder / "run", folder / form, format=form)
    for name in ("run", *publication.FORMATS):
        signature.sign(folder / name, folder / "mine.key")
    return folder


@pytest.fixture
def copy(signed, tmp_path):
    return shutil.copytree(signed, tmp_path / "copy")


def fail(arguments, capsys):
    """Return the error line of a command that must exit with code 2."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(map(str, arguments)))
    output = capsys.readouterr()
    assert stopped.value.code == 2 and output.err.count("\n") == 1 and not output.out
    return output.err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_documented_commands_sign_and_verify(make_run, tmp_path, monkeypatch, capsys):
    """Run the commands from creating a key to verifying without jaxdd; then change the set."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    cli.main(["export", "run", "SET", "--format", "png"])
    root = re.search(r"^root (\w{64})$", capsys.readouterr().out, re.M)[1]
    *lines, verify, plain, openssl = commands()
    for line in lines:
        line = line.partition("#")[0]
        if line.startswith("jaxdd"):
            cli.main(shlex.split(line)[1:])
        else:
            subprocess.run(shlex.split(line), check=True, capture_output=True)
    assert f"signed the root {root}" in capsys.readouterr().out
    verify = shlex.split(verify.replace("ROOT", root), comments=True)[1:]
    cli.main(verify)
    output = capsys.readouterr().out
    assert f"root {root}\n" in output and "signed by the key jaxdd.pub" in output
    code = shlex.split(plain.partition(" > ")[0])[2]
    with open("root.txt", "wb") as file:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=file)
    done = subprocess.run(shlex.split(openssl), check=True, capture_output=True, text=True)
    assert "Signature Verified Successfully" in done.stdout
    (tmp_path / "SET" / "metadata.csv").write_text("file_name,label,class\n")
    assert "got 22" in fail(verify, capsys)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 1


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def reseal(folder):
    """Change a set and its manifest as an attacker without the key would."""
    content = files.read_json(folder / "manifest.json")
    files.write_arrays(folder / "weights.npz", {"weights": np.ones(7)})
    manifest.record(folder, ["weights.npz"])
    manifest.seal(folder, content)


TAMPERED = {
    "changed": (lambda f: change(f / "synthetic.npz"), "synthetic.npz was changed"),
    "changed manifest": (lambda f: change(f / "manifest.json"), "manifest.json"),
    "changed both": (reseal, "manifest.sig is not a signature of the root"),
    "changed signature": (lambda f: change(f / "manifest.sig"), "is not a signature of the root"),
    "cut signature": (lambda f: (f / "manifest.sig").write_bytes(b""), "is not a signature of"),
    "unsigned": (lambda f: (f / "manifest.sig").unlink(), "is not signed: there is no"),
    "added": (lambda f: (f / "extra.npz").touch(), "extra.npz is not listed"),
    "removed": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "renamed": (lambda f: (f / "weights.npz").rename(f / "w.npz"), "weights.npz is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json"),
    "signature of another": (
        lambda f: shutil.copy(f.parent / "npz" / "manifest.sig", f), "is not a signature of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("tampering", TAMPERED)
def test_tampered_sets_are_not_verified(copy, capsys, tampering):
    damage, match = TAMPERED[tampering]
    damage(copy / "run")
    command = ["verify", copy / "run", "--key", copy / "mine.pub"]
    assert match in fail(command, capsys)


@pytest.mark.parametrize("name", ["run", *publication.FORMATS])
def test_only_the_right_key_and_root_verify_a_set(signed, capsys, name):
    root = manifest.read(signed / name)["root"]
    command = ["verify", str(signed / name)]
    cli.main(command)
    output = capsys.readouterr().out
    assert f"root {root}\n" in output and "the root itself is not verified" in output
    cli.main([*command, "--key", str(signed / "mine.pub"), "--expect", root])
    assert "not verified" not in capsys.readouterr().out
    line = fail([*command, "--key", signed / "other.pub"], capsys)
    assert f"is not a signature of the root {root} by {signed / 'other.pub'}" in line
    other = "0" * 64
    for key in ([], ["--key", signed / "mine.pub"]):  # an older set that the same key has signed
        line = fail([*command, *key, "--expect", other], capsys)
        assert f"has the root {root}, expected {other}" in line


def test_a_changed_set_is_not_signed(copy, capsys):
    before = (copy / "run" / "manifest.sig").read_bytes()
    change(copy / "run" / "weights.npz")
    assert "weights.npz was changed" in fail(
        ["sign", copy / "run", "--key", copy / "mine.key"], capsys
    )
    assert (copy / "run" / "manifest.sig").read_bytes() == before


def test_invalid_key_files(copy, capsys):
    write_keys(copy, "ec", ec.generate_private_key(ec.SECP256R1()))
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    (copy / "locked.key").write_bytes(locked)
    (copy / "text.key").write_text("text")
    for command, name, match in (
        ("sign", "mine.pub", "mine.pub does not hold an Ed25519 private key in PEM"),
        ("sign", "ec.key", "ec.key holds another kind of key; expected an Ed25519 private key"),
        ("sign", "locked.key", "locked.key has a password"),
        ("sign", "text.key", "text.key does not hold an Ed25519 private key"),
        ("sign", "absent.key", "absent.key"),
        ("verify", "mine.key", "mine.key does not hold an Ed25519 public key in PEM"),
        ("verify", "ec.pub", "ec.pub holds another kind of key; expected an Ed25519 public key"),
    ):
        assert match in fail([command, copy / "run", "--key", copy / name], capsys)


def test_a_missing_cryptography_package_is_reported(signed, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    line = fail(["sign", signed / "run", "--key", signed / "mine.key"], capsys)
    assert "signatures need cryptography: pip install 'jaxdd[sign]'" in line


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_help_says_what_a_signature_does_not_prove(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    output = " ".join(capsys.readouterr().out.split())
    assert "harmless" in output and "newest" in output
