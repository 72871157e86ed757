"""Tests of the page about a bias: verdicts, candidates, images, checks of files, unusual data."""

import re

import numpy as np
import pytest

from jaxdd import weights
from jaxdd.data import datasets, duplicates
from jaxdd.runs import bias
from jaxdd.runs.reports import bias_page
from jaxdd.weights import probes

SHORTCUT = probes.Shortcut((0, 1, 2), 0.1, 0.2, 5.0)


def make_data(n=60, k=3, *, channels=3, **fields):
    """Return images of brightness i whose attribute is the class, except for every tenth sample."""
    labels = np.arange(n) % k
    attributes = np.where(np.arange(n) % 10 == 0, (labels + 1) % k, labels)
    pixels = (np.arange(n) % 256).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(pixels, (n, 6, 5, channels)).copy()
    data = datasets.from_arrays(images, labels, attributes, test=(255 - images, labels, attributes))
    return data._replace(**fields)


def make_candidate(data, name="tone", **fields):
    """Return a candidate whose conflict score is the darkness, with one clear conflict per class.

    That is the darkest image of a class k, image k, which resembles class k + 1.
    """
    n, k = len(data.train.labels), data.num_classes
    groups = data.train.labels.copy()
    groups[:k] = (groups[:k] + 1) % k
    multiple = np.where(np.arange(n) < k, 5.0, 0.5)
    values = dict(
        name=name, weights=multiple / np.bincount(data.train.labels)[data.train.labels],
        conflict_score=np.linspace(1, 0, n), groups=groups, blocks=tuple(range(k)), bimodality=0.2,
        confident_share=0.1, effective_sample_size=7.0,
    )  # fmt: skip
    return weights.Candidate(**values | fields)


def make_finding(data, candidates, verdict="none", chosen=(), **fields):
    n = len(data.train.labels)
    choice = weights.Choice(np.full(n, 1.0), verdict, chosen, tuple(candidates))
    values = dict(
        choice=choice, samples=np.arange(n), auc=None, to_label=np.arange(4), file_checks=(),
        copies=duplicates.exact(data).counts(), near_copies=None,
        dataset="some/folder --resize 32",
        commands={x.name: f"jaxdd run some/folder --debias {x.name}" for x in candidates},
    )  # fmt: skip
    return bias.Finding(**values | fields)


@pytest.fixture
def write(tmp_path):
    """Return `write(finding, data)`, which returns the text of the page on lines of any length."""

    def write(finding, data):
        bias_page.write(tmp_path / "page.html", finding, data)
        return " ".join((tmp_path / "page.html").read_text(encoding="utf-8").split())

    return write


def trials(conflicting):
    uniform = weights.Trial(0.8, 0.9, 0.25, 40)
    weighted = weights.Trial(0.8, 0.85, conflicting, 40)
    return {"uniform": uniform, "weighted": weighted}


def headline(page):
    return re.search("<h1>(.*?)</h1>", page)[1]


def open_parts(page):
    """Return the titles of the candidates that are shown unfolded."""
    return re.findall(r'<details class="card candidate \w+" open> <summary><h3>(.*?)</h3>', page)


def commands(page):
    lines = re.findall('<pre class="command"><code>(.*?)</code></pre>', page)
    return [re.sub("<.*?>", "", line) for line in lines]


def evidence(page):
    """Return the cells of the first table of evidence, without small print."""
    table = re.search('<table aria-label="Evidence of .*?</table>', page)[0]
    rows = re.findall("<tr>(.*?)</tr>", re.sub("<small>.*?</small>", "", table))[1:]
    return [re.findall(r"<t[hd].*?>(?:<b.*?>)?(.*?)<", row) for row in rows]


def test_a_bias_is_shown_with_its_evidence_and_commands(write):
    data = make_data()
    tone = make_candidate(data, bimodality=0.56, shortcut=SHORTCUT, trials=trials(conflicting=0.75))
    candidates = tone, make_candidate(data, "layout")
    finding = make_finding(data, candidates, "biased", ("tone",), auc={"tone": 0.94, "layout": 0.5})
    page = write(finding, data)
    assert headline(page) == "arrays: a bias in colours and brightness (tone)"
    assert open_parts(page) == ["Tone: colours and brightness"]
    # The errors differ by 10 points, five standard errors, of which three are required. √(2 / 40),
    # two standard errors of the networks, is more than the gap between 75 and 85 % that remains.
    assert evidence(page) == [
        ["Shortcut test", "10.0 %", "below 14.0 %", "evidence of a bias"],
        ["Clear conflicts", "56.0 %", "at least 40 %", "evidence of a bias"],
        ["Small networks", "+50.0 points", "more than +22.4 points", "evidence of a bias"],
    ]
    assert "10.0 % of all images conflict" in page and "from 25 % to 75 %, on 40" in page
    assert "shortcut test detects a bias, so weights" in page
    tone = "jaxdd run some/folder --debias tone"
    layout = "jaxdd run some/folder --debias layout"
    plain = "jaxdd run some/folder --resize 32 --debias plain"
    accept = "jaxdd run some/folder --resize 32 --bias-labels labels.csv"
    assert commands(page) == [tone, tone, layout, accept, plain]
    assert page.count("count only as much as 7 ") == 3


def test_evidence_that_the_probe_networks_reject_is_undecided(write):
    data = make_data()
    fields = dict(bimodality=0.5, trials=trials(conflicting=0.26), rejection="too small a gain")
    candidates = [make_candidate(data, "layout", **fields), make_candidate(data)]
    page = write(make_finding(data, candidates, "undecided"), data)
    assert headline(page).startswith("arrays: undecided")
    assert open_parts(page) == ["Layout: where things are, for example shifted or rotated"]
    gap = 85 - 26
    row = ["Small networks", "+1.0 points", f"more than +{gap}.0 points", "no evidence"]
    assert evidence(page)[1] == row and f"remain {gap}.0 points harder" in page
    assert "the small networks do not confirm it" in page
    assert commands(page)[0].endswith("--bias-labels labels.csv")
    assert commands(page)[1:3] == [
        f"jaxdd run some/folder --debias {x}" for x in ("layout", "tone")
    ]
    assert commands(page)[3] == "jaxdd run some/folder --resize 32 --debias plain"


@pytest.mark.parametrize(
    "bimodality, reason", [(0.5, "networks confirm it"), (0.2, "weights help")]
)
def test_candidates_that_the_probe_networks_accept_are_chosen(bimodality, reason, write):
    data = make_data()
    tone = make_candidate(data, bimodality=bimodality, trials=trials(conflicting=0.75))
    page = write(make_finding(data, [tone], "biased", ("tone",)), data)
    assert reason in page and "were not chosen" not in page


def test_without_evidence_the_strongest_candidate_is_open_and_the_others_are_folded(write):
    data = make_data()
    names = "texture", "tone", "my embedding", "density"
    page = write(make_finding(data, [make_candidate(data, name) for name in names]), data)
    assert headline(page) == "arrays: no evidence of a bias"
    assert open_parts(page) == ["Texture: fine structure, noise, sharpness, compression"]
    assert page.count("<details class=") == 4 and "Your embedding my embedding" in page


def test_too_few_confident_conflicts_and_no_ambiguous_ones_are_explained(write):
    data = make_data()
    few = make_candidate(data, bimodality=0.0, confident_share=0.0)
    page = write(make_finding(data, [few]), data)
    assert evidence(page) == [["Clear conflicts", "–", "at least 40 %", "no evidence"]]
    assert "too few clear conflicts" in page and "No test detects a bias." in page
    density = make_candidate(data, "density", bimodality=np.nan, confident_share=np.nan)
    helpful = density._replace(trials=trials(conflicting=0.75))
    assert "this candidate was excluded" in write(make_finding(data, [helpful]), data)
    page = write(make_finding(data, [density]), data)
    assert "<table" not in page and "This candidate was not tested." in page


def test_a_shortcut_test_without_a_difference_and_few_conflicting_images(write):
    data = make_data()
    equal = probes.Shortcut((0, 0, 1), 0.2, 0.2, 0.0)
    few = weights.Trial(0.8, 0.9, 0.25, 7)
    fields = dict(shortcut=equal, trials={"uniform": few, "weighted": few}, rejection="only 7")
    page = write(make_finding(data, [make_candidate(data, **fields)]), data)
    assert evidence(page)[0] == ["Shortcut test", "20.0 %", "below 19.0 %", "no evidence"]
    assert "a wrong group of classes" in page
    assert evidence(page)[2] == [
        "Small networks",
        "7 conflicting images",
        "at least 20",
        "no evidence",
    ]


def test_known_bias_labels_are_reported_once(write):
    """Every tenth image conflicts."""
    data = make_data()
    candidates = make_candidate(data, "layout"), make_candidate(data)
    page = write(make_finding(data, candidates, auc={"layout": np.nan, "tone": 0.94}), data)
    assert page.count("Known bias labels") == 1 and "10.0 % of the analysed images" in page
    assert "tone shows them best" in page and "94 % of all pairs" in page
    assert "Known bias labels" not in write(make_finding(data, candidates), data)


def test_without_candidates_the_page_says_that_nothing_was_compared(write):
    data = make_data(6)
    page = write(make_finding(data, []), data)
    assert "Nothing could be compared" in page and open_parts(page) == []


def test_images_are_typical_conflicting_heavy_and_light(write):
    """Image k is the darkest of class k, so it conflicts; the last ten of a class are typical."""
    data = make_data(class_names=("cat", "dog", "owl"))
    page = write(make_finding(data, [make_candidate(data)], "biased", ("tone",)), data)
    descriptions = re.findall('role="img" aria-label="(.*?)"', page)
    conflicting = [text for text in descriptions if ", like" in text]
    assert conflicting == [
        "training image 0 of cat, like dog", "training image 1 of dog, like owl",
        "training image 2 of owl, like cat",
    ]  # fmt: skip
    typical = [text for text in descriptions if text.endswith("of cat, typical")]
    assert len({*typical}) == 5
    assert all(int(re.search(r"\d+", text)[0]) >= 30 for text in typical)
    assert page.count("<figcaption>×5</figcaption>") == 3 and "<figcaption>×0.5<" in page
    assert "(clearly: 5.0 % of the class)" in page


def test_random_images_of_each_class_come_first_unless_a_bias_was_detected(write):
    data = make_data(class_names=("cat", "dog", "owl"))
    finding = make_finding(data, [make_candidate(data)])
    page = write(finding, data)
    shown = page.partition('<div class="random">')[2].partition("<ul>")[0]
    for name in data.class_names:
        assert len({*re.findall(f'aria-label="training image [0-9]+ of {name}"', shown)}) == 12
    assert page.index("share apart from the object?") < page.index("Label 4 images")
    assert page.index("Label 4 images") < page.index('<details class="card')
    assert write(finding, data) == page
    page = write(make_finding(data, [make_candidate(data)], "biased", ("tone",)), data)
    assert page.index('<details class="card') < page.index('<div class="random">')


def test_groups_of_several_classes_are_named_by_their_classes(write):
    data = make_data(60, 6, class_names=tuple("abcdef"))
    blocks = np.array([0, 0, 0, 0, 1, 1])
    groups = blocks[data.train.labels]
    groups[[0, 4]] = 1, 0
    page = write(make_finding(data, [make_candidate(data, blocks=blocks, groups=groups)]), data)
    assert "<figcaption>like e or f</figcaption>" in page
    assert "<figcaption>like a or b or 2 more</figcaption>" in page


def test_group_evenness_is_shown_if_the_bias_labels_are_known(write):
    data = make_data()
    finding = make_finding(data, [make_candidate(data)])
    assert re.search(r"evenness of [0-9]+ %", write(finding, data))
    unknown = data._replace(train=data.train._replace(attributes=None), aligned=None)
    assert "evenness of" not in write(finding, unknown)


def test_bias_labels_of_some_images_are_mentioned_with_their_command(write):
    data = make_data(20)
    finding = make_finding(data, [make_candidate(data)])
    assert "have a bias label" not in write(finding, data)
    known = np.where(np.arange(20) < 7, data.train.attributes, -1).astype(np.int32)
    train = data.train._replace(attributes=None)
    page = write(finding, data._replace(train=train, aligned=None, bias_labels=known))
    assert "7 training images have a bias label" in page
    assert any(command.endswith("--debias labels") for command in commands(page))


def test_checks_of_files_and_duplicates(write):
    data = make_data(class_names=("cat", "dog", "owl"))
    check = dict(name="size", accuracy=0.9, chance=0.4, significant=True, typical={1: "30×20"})
    other = dict(name="format", accuracy=0.41, chance=0.4, significant=False, typical={})
    test = data.test._replace(images=np.concatenate([data.train.images[:2], data.test.images[2:]]))
    data = data._replace(test=test)
    near = dict(train=0, test=0, between=7, contradictory=5)
    page = write(make_finding(data, [], file_checks=[check, other], near_copies=near), data)
    assert "7 test images nearly equal a training image; 0 training images nearly equal" in page
    assert "5 training images nearly equal one of another class" in page
    assert "too many images" in write(make_finding(data, []), data)
    assert "90.0 % of files" in page and "<small>dog: 30×20</small>" in page
    assert page.count("differs between the classes") == 1 and "2 test images are also" in page


def test_images_are_named_by_file_or_by_index(write):
    data = make_data()
    page = write(make_finding(data, [], to_label=np.array([7, 3])), data)
    assert re.findall('data-id="(.*?)"', page) == ["7", "3"] and 'data-column="index"' in page
    names = tuple(f"a/{i},<b>.png" for i in range(60))
    page = write(make_finding(data, [], to_label=np.array([7])), data._replace(train_files=names))
    assert 'data-id="a/7,&lt;b&gt;.png"' in page and 'data-column="file"' in page
    assert '"a/7,&lt;b&gt;.png",man' in page.replace("&#34;", '"')
    assert 'id="labelling"' not in write(make_finding(data, [], to_label=np.array([])), data)


def test_many_classes_are_shown_in_part(write, tmp_path):
    data = make_data(2000, 1000)
    page = write(make_finding(data, [make_candidate(data)], to_label=np.arange(20)), data)
    assert "990 more classes" in page and page.count("<h4>class ") == 10
    assert "10 of 1,000 classes are shown" in page
    assert page.count('<span class="tile"') < 400 and (tmp_path / "page.html").stat().st_size < 1e6


@pytest.mark.parametrize("channels, n", [(1, 60), (3, 6), (4, 60)])
def test_grey_images_and_two_images_per_class(channels, n, write):
    data = make_data(n, 3, channels=channels)
    page = write(make_finding(data, [make_candidate(data)]), data)
    assert open_parts(page) == ["Tone: colours and brightness"]


def test_the_page_loads_nothing(write):
    data = make_data()
    page = write(make_finding(data, [make_candidate(data)]), data)
    assert not re.search(r"https?:|src=|@import", page)
    assert set(re.findall(r"url\((.{10})", page)) == {"data:image"}


def test_a_preview_reloads_and_has_no_verdict(write):
    data = make_data()
    finding = make_finding(data, [make_candidate(data)], to_label=np.zeros(0, int))
    page = write(finding._replace(is_preview=True), data)
    assert 'http-equiv="refresh"' in page and "no evidence" not in headline(page)
    assert "so these weights" not in page.lower() and "Tone: colours and brightness" in page
    assert "share apart from the object?" in page and len(commands(page)) == 1
    assert 'http-equiv="refresh"' not in write(finding, data)
