"""Pictures of features keep what the features show, and diagrams fit their canvas."""

import numpy as np

from experiments.tools import diagrams, illustrations

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def test_shuffled_blocks_are_those_of_the_image():
    shuffled = illustrations.shuffle_blocks(IMAGE, 4)
    blocks = lambda x: x.reshape(4, 4, 4, 4, 3).swapaxes(1, 2).reshape(16, -1)
    assert not (shuffled == IMAGE).all()
    assert sorted(map(bytes, blocks(shuffled))) == sorted(map(bytes, blocks(IMAGE)))


def test_the_border_is_kept():
    """The border of 16 pixels is three wide."""
    kept = illustrations.keep_border(IMAGE)
    assert (kept[3:13, 3:13] == 255).all()
    assert (kept[:3] == IMAGE[:3]).all() and (kept[:, 13:] == IMAGE[:, 13:]).all()


def test_tiles_have_white_gaps():
    picture = illustrations.tile(np.zeros((6, 4, 5, 3), np.uint8), columns=3)
    assert picture.shape == (9, 17, 3)
    assert (picture[4] == 255).all() and (picture[:, [5, 11]] == 255).all()
    assert picture.sum() == 3 * 255 * (17 + 2 * 8)


def test_texts_of_the_decision_fit_the_canvas(tmp_path, drawn):
    diagrams.auto(tmp_path / "a.png", diagrams.auto_data())
    (axes,) = drawn[0].axes
    places = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(places) > 20
    for i, place in enumerate(places):
        assert drawn[0].bbox.x0 < place.x0 and place.x1 < drawn[0].bbox.x1
        assert not any(place.overlaps(other) for other in places[:i])
