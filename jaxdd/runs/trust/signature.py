"""Ed25519 signatures of published sets.

A signature covers the line "jaxdd root ROOT" and is stored as 64 bytes in manifest.sig, next to the
manifest with that root. Keys are PEM files as OpenSSL writes them:

    openssl genpkey -algorithm ed25519 -out jaxdd.key
    openssl pkey -in jaxdd.key -pubout -out jaxdd.pub

A signature proves that the holder of the key has signed exactly these files. It does not prove that
the set is harmless (its maker may be malicious) or the newest (state the root if that matters). It
is as trustworthy as the source of the public key: a key from the same place as the set proves
nothing.
"""

import os
import pathlib
from typing import Any

from jaxdd.data import files
from jaxdd.runs.folder import manifest


def sign(folder: str | os.PathLike, private: str | os.PathLike) -> str:
    """Verify a set, sign its root, write manifest.sig and return the root.

    Args:
        folder: folder of a run or of an exported set.
        private: PEM file of an Ed25519 key without a password.

    Raises:
        FileNotFoundError: there is no manifest or no key.
        ValueError: the set does not agree with its manifest, or the file holds no such key.
        ImportError: cryptography is not installed.
    """
    key = _read_key(private, is_private=True)
    root = manifest.check(folder).manifest["root"]
    with files.atomic_path(pathlib.Path(folder) / manifest.SIGNATURE) as temporary:
        temporary.write_bytes(key.sign(_message(root)))
    return root


def verify(
    folder: str | os.PathLike, public: str | os.PathLike, *, expect: str | None = None
) -> manifest.Verified:
    """Verify the signature of a root, then all files of the set.

    Args:
        folder: folder of a run or of an exported set.
        public: PEM file of the publisher's Ed25519 key.
        expect: the root that the set must have.

    Raises:
        FileNotFoundError: there is no manifest, no signature or no key.
        ValueError: the signature does not belong to this root and key, the file holds no such key,
            or the set does not agree with its manifest.
        ImportError: cryptography is not installed.
    """
    key, path = _read_key(public, is_private=False), pathlib.Path(folder) / manifest.SIGNATURE
    root = manifest.read(folder, expect=expect)["root"]
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not signed: there is no {manifest.SIGNATURE}")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(path.read_bytes(), _message(root))
    except InvalidSignature:
        raise ValueError(f"{path} is not a signature of the root {root} by {public}") from None
    return manifest.check(folder, expect=root)


def _message(root):
    return f"jaxdd root {root}\n".encode()


def _read_key(path, *, is_private: bool) -> Any:
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
            key = serialization.load_pem_private_key(content, password=None)
        else:
            key = serialization.load_pem_public_key(content)
    except TypeError:
        raise ValueError(f"{path} has a password; expected {what} without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} does not hold {what}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey if is_private else ed25519.Ed25519PublicKey):
        raise ValueError(f"{path} holds another kind of key; expected {what}")
    return key
