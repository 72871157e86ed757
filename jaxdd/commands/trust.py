"""Commands about published sets: export, sign, verify and audit."""

import functools
import pathlib
import sys
from typing import Annotated, Literal

from jaxdd.commands import scoring, screen, sources
from jaxdd.commands.arguments import DataSet, File, Folder, Run, Set
from jaxdd.data import benchmarks
from jaxdd.runs import options
from jaxdd.runs.folder import manifest, samples
from jaxdd.runs.reports import pages
from jaxdd.runs.scoring import finished_run
from jaxdd.runs.trust import inspection, merging, publication, rederivation, shipped, signature


def export_set(
    source: Run,
    folder: Folder,
    *,
    format: Literal["npz", "png", "pt", "safetensors", "hub"] = "npz",
    score: bool = False,
    dataset: DataSet | None = None,
    data_dir: Folder | None = None,
) -> None:
    """Export the set of a run with a data set card and a manifest.

    Args:
        source: Folder of a finished run or, without --score, of an exported set.
        folder: Folder to write to; absent or empty.
        format: npz: the file of the run; png: a folder of 8-bit images with metadata.csv, rounded
            and clipped to [0, 1]; pt: the file of the run and a list that PyTorch scripts load;
            safetensors: the file of the run, and its arrays as a .safetensors file; hub: a Hugging
            Face data set repository, with the file of the run and train.parquet.
        score: Evaluate the rounded images of the PNG files as the run evaluated its own.
        dataset: Folder of images or tfds:NAME that the run was made from, for --score. Defaults to
            the benchmark of the run.
        data_dir: Folder with the original files of a benchmark, for --score. Defaults to
            ~/.cache/jaxdd.
    """

    def measure(images):
        config, _ = options.read_config(source / "config.json")
        data = scoring.load_run_data(config, dataset, data_dir)
        return finished_run.score(source, data, images)

    content = publication.export(source, folder, format=format, measure=measure if score else None)
    if rounding := content.get("rounding"):
        clipped, furthest = f"{100 * rounding['cut']:.1f} %", f"{rounding['furthest']:.3f}"
        print(f"rounded to 8 bits; {clipped} of the values clipped, by {furthest} at most")
    print(f"wrote {folder}\nroot {content['root']}")


def merge_sets(sources: Annotated[tuple[pathlib.Path, ...], "SET ..."], *, out: Folder) -> None:
    """Join sets that were distilled apart, for example of classes that were added later.

    Classes are matched by name. Sets of disjoint classes need equally many images per class; sets
    of the same classes give a set with the images of both. Images are joined as pixels.

    Args:
        sources: Folders of finished runs, of exported or of merged sets, or bare files.
        out: Folder to write to; absent or empty.
    """
    content = merging.merge(sources, out)
    k, ipc, h, w, c = content["arrays"]["images"]["shape"]
    print(f"{k} classes with {ipc} images each, {h} × {w} × {c}: {', '.join(content['classes'])}")
    if samples.NAME not in content["files"]:
        print("not all sets have hashes of their training samples, so scores on these are possible")
    print(f"wrote {out}\nroot {content['root']}")


def sign_set(source: Set, *, private: Annotated[pathlib.Path, "FILE", "key"]) -> None:
    """Sign the root hash of a set with a private key.

    `openssl genpkey -algorithm ed25519 -out FILE` makes a key. A signature proves who signed
    exactly these files, to anyone who has the public key from another source. It does not prove
    that the set is harmless or the newest one.

    Args:
        source: Folder of a finished run or of an exported set.
        private: PEM file of the private key.
    """
    print(f"signed the root {signature.sign(source, private)}")


def verify_set(
    source: Set,
    *,
    public: Annotated[pathlib.Path, "FILE", "key"] | None = None,
    expect: Annotated[str, "HASH"] | None = None,
) -> None:
    """Verify the files of a set by its manifest, and its signature or root hash.

    Key and root prove something only if they come from another source than the set. A signature
    does not prove that the set is harmless or the newest one.

    Args:
        source: Folder of a finished run or of an exported set.
        public: PEM file of the signer's public key (openssl pkey -in FILE -pubout).
        expect: Root hash that the set must have.
    """
    expect = shipped.root_of(source) if expect is None else expect
    if public is None:
        verified = manifest.check(source, expect=expect)
    else:
        verified = signature.verify(source, public, expect=expect)
    root = verified.manifest["root"]
    publication.load(source, expect=root)
    print(f"{source}: all {len(verified.contents)} files agree with the manifest")
    if verified.uncovered:
        print(f"not covered by the root: {', '.join(verified.uncovered)}")
    print(f"root {root}")
    if public is not None:
        print(f"signed by the key {public}")
    elif expect is None:
        print("the root itself is not verified: compare it, or pass --expect or --key")


def audit_set(
    source: Set,
    *,
    trusted: Annotated[tuple[pathlib.Path, ...], "SET ..."] = (),
    dataset: DataSet | None = None,
    data_dir: Folder | None = None,
    again: bool = False,
    expect: Annotated[str, "HASH"] | None = None,
    preset: Literal["quick", "paper"] = "quick",
    seed: int = 0,
    output: screen.Output = screen.Output(),
    out: File | None = None,
) -> None:
    """Search a set for traces of tampering.

    Writes an HTML page and JSON next to it. The exit code is 1 if there is evidence of tampering. A
    set without traces is not proven to be clean.

    Args:
        source: Folder of a finished run or of an exported set, or a synthetic.npz.
        trusted: Sets of the same kind that are known to be sound, such as your own from other
            seeds. Use five; with two or fewer, hardly any difference is evidence.
        dataset: Data set that the set was made from: a benchmark, a folder of images, or tfds:NAME.
        data_dir: Folder with the original files of a benchmark. Defaults to ~/.cache/jaxdd.
        again: Also distill the set again from its configuration and seed; needs the data.
        expect: Root hash that the set must have, or the SHA-256 of a single file.
        preset: Networks and real images: quick fits two CPU cores, paper one GPU.
        seed: Random seed of the networks and of the sampled real images.
        output: How much is printed.
        out: HTML file. Defaults to audit.html.
    """
    out = pathlib.Path("audit.html") if out is None else out
    pages.check_path(out)
    publication.check_outside(out)
    published = publication.read(source, expect=expect)
    trusted_sets = [publication.load(path) for path in trusted]
    config = published.config
    run_options = options.from_config(config) if config else options.DM()
    real = None
    if dataset is not None or (again and config.get("dataset") in benchmarks.NAMES):
        real = sources.load(
            str(config["dataset"]) if dataset is None else dataset, run_options, data_dir
        )
    with output.progress() as progress:
        checks = inspection.inspect(
            published.synthetic, trusted=trusted_sets, data=real,
            effort=inspection.EFFORTS[preset], seed=seed, tiles=publication.formation_of(config),
            progress=functools.partial(progress, "networks"),
        )  # fmt: skip
        if again:
            checks.append(rederivation.distil_again(published, real, report=progress))
    k, ipc = published.synthetic.images.shape[:2]
    root = published.manifest["root"] if published.manifest else "none: no manifest"
    about = {
        "root": root, "images": f"{k} classes of {ipc}", "trusted sets": len(trusted_sets),
        "real images": "none" if real is None else real.name, "preset": preset, "seed": seed,
    }  # fmt: skip
    inspection.write(out, source.name or str(source), checks, about=about)
    for check in checks:
        print(f"{check.name}: {check.verdict}; {check.why}")
    print(f"{source}: {inspection.headline(checks)}\nwrote {out} and {out.with_suffix('.json')}")
    if any(check.verdict == inspection.EVIDENCE for check in checks):
        sys.exit(1)
