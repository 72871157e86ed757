"""The file beside a set that says what networks see it through."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd.data import files
from jaxdd.methods import zca
from jaxdd.runs.folder import store, whitenings

WHITENING = {"mean": np.ones((2, 1, 1), np.float32), "matrix": np.eye(2, dtype=np.float32)}


def test_a_whitening_comes_back_and_a_folder_without_one_has_none(tmp_path):
    assert whitenings.of(tmp_path) is None
    made = zca.Whitening(*map(jnp.asarray, WHITENING.values()))
    whitenings.write(tmp_path / store.WHITENING, made)
    for one, other in zip(whitenings.of(tmp_path), made, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "changes, match",
    [
        (dict(matrix=np.eye(3, dtype=np.float32)), "found matrix of shape .3, 3."),
        (dict(mean=np.ones(2, np.float32)), "found mean of shape .2,."),
        (dict(mean=np.ones((0, 1, 1), np.float32)), "found mean of shape .0, 1, 1."),
        (dict(mean=np.ones((2, 1, 1))), "mean must be float32 and finite, found float64"),
        (dict(matrix=np.full((2, 2), np.nan, np.float32)), "matrix must be float32 and finite"),
    ],
)
def test_what_is_no_whitening_is_refused(tmp_path, changes, match):
    files.write_arrays(tmp_path / store.WHITENING, files.sealed(WHITENING | changes))
    with pytest.raises(ValueError, match=match):
        whitenings.of(tmp_path)


def test_a_whitening_without_a_digest_is_refused(tmp_path):
    files.write_arrays(tmp_path / store.WHITENING, WHITENING)
    with pytest.raises(ValueError, match="whitening.npz"):
        whitenings.of(tmp_path)
