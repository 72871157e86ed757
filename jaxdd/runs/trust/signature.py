"""Disk: signatures of published sets. Who vouches for a root.

A signature is Ed25519 over the line "jaxdd root ROOT", 64 bytes in manifest.sig beside the manifest
whose root it is. Keys are PEM files as OpenSSL makes them:

    openssl genpkey -algorithm ed25519 -out jaxdd.key
    openssl pkey -in jaxdd.key -pubout -out jaxdd.pub

A signature says that the holder of the key has signed exactly these files. It does not say that the
set is harmless (a malicious distiller signs, too), nor that it is the newest (an older set of the
same key is as valid; say the root where that matters), and it is worth what the way is worth that
the public key came by: one from beside the set proves nothing.
"""

import os
import pathlib
from typing import Any

from jaxdd.data import files
from jaxdd.runs.folder import manifest


def sign(folder: str | os.PathLike, private: str | os.PathLike) -> str:
    """Signs the root of a set, once the set is verified, and writes manifest.sig.

    Args:
        folder: of a run or of an exported set.
        private: PEM file of an Ed25519 key, without a password.

    Returns:
        The root.

    Raises:
        FileNotFoundError: there is no manifest or no key.
        ValueError: the set is not what its manifest says, or the file holds no such key.
        ImportError: cryptography is not installed.
    """
    key = _key(private, is_private=True)
    root = manifest.check(folder).manifest["root"]
    with files.atomic_path(pathlib.Path(folder) / manifest.SIGNATURE) as temporary:
        temporary.write_bytes(key.sign(_message(root)))
    return root


def verify(
    folder: str | os.PathLike, public: str | os.PathLike, *, expect: str | None = None
) -> manifest.Checked:
    """Verifies a set and the signature of its root.

    Args:
        folder: of a run or of an exported set.
        public: PEM file of the Ed25519 key of who vouches for it.
        expect: the root that it must have.

    Returns:
        What was verified.

    Raises:
        FileNotFoundError: there is no manifest, no signature or no key.
        ValueError: the signature is not of this root by this key, the file holds no such key, or as
            in `manifest.check`.
        ImportError: cryptography is not installed.
    """
    key, path = _key(public, is_private=False), pathlib.Path(folder) / manifest.SIGNATURE
    root = manifest.read(folder, expect=expect)["root"]
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not signed: there is no {manifest.SIGNATURE}")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(path.read_bytes(), _message(root))
    except InvalidSignature:
        raise ValueError(f"{path} is no signature of the root {root} by the key {public}") from None
    return manifest.check(folder, expect=root)


def _message(root):
    return f"jaxdd root {root}\n".encode()


def _key(path, *, is_private: bool) -> Any:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ImportError("signatures need cryptography: pip install 'jaxdd[sign]'") from error
    what = f"an Ed25519 {'private' if is_private else 'public'} key in PEM"
    content = files.expand(path).read_bytes()
    try:
        if is_private:
            found = serialization.load_pem_private_key(content, password=None)
        else:
            found = serialization.load_pem_public_key(content)
    except TypeError:
        raise ValueError(f"{path} is locked by a password, expected {what} without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} does not hold {what}") from None
    kind = ed25519.Ed25519PrivateKey if is_private else ed25519.Ed25519PublicKey
    if not isinstance(found, kind):
        raise ValueError(f"{path} holds another kind of key, expected {what}")
    return found
