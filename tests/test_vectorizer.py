"""ntulm/vectorizer.py: scikit-learn's habits, and weights that are held once."""

import pickle

import numpy as np
import pandas as pd
import pytest
import tiny_model
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

import ntulm
from ntulm import vectorizer as vectorizer_module
from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.vectorizer import NtulmVectorizer

POSTS = ["we like it #so", {"text": "see it again", "author": "right0"}, {"text": "today", "hashtags": ["so"]}]
# Checks of scikit-learn that do not make sense here, with the reason; every other one has to pass.
SPARSE = "a sparse matrix is no list of posts; its error says what posts are"
NOT_SENSIBLE = {
    "check_estimator_sparse_array": SPARSE,
    "check_estimator_sparse_matrix": SPARSE,
    "check_estimator_sparse_tag": SPARSE,
    "check_methods_subset_invariance": "another batch rounds otherwise, by more than the check's 1e-7",
}


@pytest.fixture
def directory(lm_project, tiny_backbone):
    """A model directory."""
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    return layout.model


@pytest.fixture(autouse=True)
def nothing_loaded():
    vectorizer_module._load.cache_clear()


def test_vectors_are_those_of_encode_in_any_form_of_posts(directory):
    expected = ntulm.load(directory).encode(POSTS)
    vectorizer = ntulm.NtulmVectorizer(str(directory))
    vectors = vectorizer.fit(POSTS).transform(POSTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, 32))
    np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(vectorizer.fit_transform(POSTS, [0, 1, 2]), expected)
    np.testing.assert_allclose(NtulmVectorizer(directory, batch_size=1).transform(POSTS), expected, atol=1e-5)
    texts = ["we like it", "so on"]
    plain = vectorizer.transform(texts)
    np.testing.assert_array_equal(vectorizer.transform(np.array(texts)), plain)
    np.testing.assert_array_equal(vectorizer.transform(pd.Series(texts)), plain)
    np.testing.assert_array_equal(vectorizer.transform(pd.DataFrame({"text": texts})), plain)
    assert vectorizer.transform([]).shape == (0, 32)


def test_features_have_names_and_frames_get_them(directory):
    vectorizer = NtulmVectorizer(directory)
    names = vectorizer.get_feature_names_out()
    assert [names[0], names[-1], len(names)] == ["ntulmvectorizer0", "ntulmvectorizer31", 32]
    frame = vectorizer.set_output(transform="pandas").fit_transform(POSTS)
    assert list(frame.columns) == list(names)


def test_a_pipeline_learns_what_only_the_author_tells_and_is_searched(directory):
    layout = Layout()
    posts = tiny_model.corpus_posts(layout, 0, 120)
    posts = [post for post in posts if post["author"]]
    sides = [post["author"][:4] for post in posts]
    pipeline = Pipeline([("embed", NtulmVectorizer(directory)), ("classify", LogisticRegression(max_iter=1000))])
    grid = {"embed__batch_size": [None, 8], "classify__C": [1.0, 100.0]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(posts, sides)
    assert search.best_score_ > 0.9
    assert list(search.predict([{"text": "we like it", "author": "left1"}])) == ["left"]
    assert vectorizer_module._load.cache_info().misses == 1  # clones share the weights


def test_columns_of_a_frame_are_one_input_among_others(directory):
    frame = pd.DataFrame({"text": ["we like it", "so on"], "author": ["right0", None], "likes": [3, 4]})
    both = ColumnTransformer(
        [("post", NtulmVectorizer(directory), ["text", "author"]), ("n", "passthrough", ["likes"])]
    )
    assert both.fit_transform(frame).shape == (2, 33)
    only = ColumnTransformer([("post", NtulmVectorizer(directory), "text")])
    np.testing.assert_array_equal(only.fit_transform(frame), NtulmVectorizer(directory).transform(list(frame["text"])))


def test_a_clone_and_a_pickle_hold_a_name_and_no_weights(directory):
    vectorizer = NtulmVectorizer(str(directory), batch_size=8).fit(POSTS)
    packed = pickle.dumps(vectorizer)
    assert len(packed) < 1000
    again = pickle.loads(packed)
    assert again.get_params() == clone(vectorizer).get_params() == vectorizer.get_params()
    np.testing.assert_array_equal(again.transform(POSTS), vectorizer.transform(POSTS))
    assert vectorizer_module._load.cache_info().misses == 1


def test_a_loaded_model_is_shared_by_clones_and_pickled_as_the_name_of_its_directory(directory):
    model = ntulm.load(directory)
    vectorizer = NtulmVectorizer(model)
    assert clone(vectorizer).model is model
    assert repr(vectorizer) == f"NtulmVectorizer(model=ntulm.load({str(directory)!r}))"
    packed = pickle.dumps(vectorizer)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).transform(POSTS), vectorizer.transform(POSTS))


def test_a_directory_with_a_new_model_is_read_again(directory, tmp_path):
    vectorizer = NtulmVectorizer(directory)
    before = vectorizer.transform(POSTS)
    (directory / "reading.json").rename(tmp_path / "kept.json")
    (directory / "reading.json").write_bytes((tmp_path / "kept.json").read_bytes())
    np.testing.assert_array_equal(vectorizer.transform(POSTS), before)
    assert vectorizer_module._load.cache_info().misses == 2


@pytest.mark.parametrize(
    ("settings", "posts", "message"),
    [
        ({"batch_size": 0}, POSTS, "batch_size: 0; expected a whole number from 1 on"),
        ({"batch_size": True}, POSTS, "batch_size: True"),
        ({"model": "nowhere"}, POSTS, "nowhere: no such directory"),
        ({}, ["a", 3], r"posts\[1\]: int; expected a text, or a dict"),
        ({}, "a post", "posts: one str; expected a list"),
        ({}, np.zeros((2, 3)), r"posts\[0\]: ndarray; expected a text"),
    ],
)
def test_fit_says_what_is_wrong(directory, settings, posts, message):
    with pytest.raises(UserError, match=message):
        NtulmVectorizer(**{"model": directory, **settings}).fit(posts)


class OfNumbers(NtulmVectorizer):
    """Takes a matrix, each row of it as a text of its numbers, so that scikit-learn can try all of its checks."""

    def _read(self, posts):
        rows = [" ".join(f"{value:.3f}" for value in row) for row in np.atleast_2d(np.asarray(posts, float))]
        return super()._read(rows)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = False
        return tags


@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn_pass_where_they_make_sense(directory):
    results = check_estimator(OfNumbers(directory), expected_failed_checks=NOT_SENSIBLE, on_skip=None, on_fail=None)
    by_status: dict[str, set[str]] = {}
    for result in results:
        by_status.setdefault(result["status"], set()).add(result["check_name"])
    assert by_status.get("failed", set()) == set()
    assert by_status["xfail"] <= set(NOT_SENSIBLE)
    assert len(by_status["passed"]) >= 25


class BertopicEmbedder:
    """How BERTopic asks a scikit-learn pipeline for embeddings (its documentation, "Embedding models")."""

    def __init__(self, pipe):
        self.pipe = pipe

    def embed(self, documents, verbose=False):
        try:
            check_is_fitted(self.pipe)
        except NotFittedError:
            return self.pipe.fit_transform(documents)
        return self.pipe.transform(documents)


def test_bertopic_gets_its_embeddings_from_a_pipeline(directory):
    texts = ["we like it #so", "see it again"]
    embedder = BertopicEmbedder(make_pipeline(NtulmVectorizer(directory)))
    vectors = embedder.embed(texts, verbose=True)
    np.testing.assert_array_equal(vectors, ntulm.load(directory).encode(texts))
