"""The map of the embedding table: where dots and labels stand."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ntulm.report.neighbours import Nodes
from ntulm.report.ntu_map import HEIGHT, PEOPLE_SHOWN, USUAL, WIDTH, ZOOMS, Dot, box, layers, place_labels

TYPES = {"hashtag": "hashtag", "user": "user"}
PLACES = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT), st.text(min_size=1, max_size=40))


def nodes(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    return Nodes([f"n{place}" for place in range(count)], list(range(count, 0, -1)), vectors)


def test_a_map_has_a_layer_per_type_and_people_have_no_names():
    hashtags, users = layers({"hashtag": nodes(200), "user": nodes(400, 1)}, TYPES)
    assert (hashtags.node_type, hashtags.shown, len(hashtags.dots)) == ("hashtag", True, USUAL)
    assert (users.node_type, users.shown, len(users.dots)) == ("user", False, PEOPLE_SHOWN)
    assert hashtags.dots[0].name == "#n0"
    assert {dot.name for dot in users.dots} == {None}
    assert users.labels == []
    assert hashtags.labels
    assert all(0 <= dot.x <= WIDTH and 0 <= dot.y <= HEIGHT for dot in hashtags.dots + users.dots)


def test_the_same_table_gives_the_same_map():
    assert layers({"hashtag": nodes(40)}, TYPES) == layers({"hashtag": nodes(40)}, TYPES)


def test_a_few_nodes_are_no_map():
    assert layers({"hashtag": nodes(9)}, TYPES) == []
    assert layers({}, TYPES) == []


@given(st.lists(PLACES, max_size=30))
@example([(244.0, 9.0, "0"), (251.0, 9.0, "0")])  # apart at zoom 1, but each other's way at zoom 4
def test_no_two_labels_overlap_at_any_zoom(places):
    labels = [label for label in place_labels([Dot(x, y, 5.0, 1, name) for x, y, name in places]) if label]
    for zoom in ZOOMS:
        boxes = [box(label, zoom) for label in labels if label.zoom <= zoom]
        for place, one in enumerate(boxes):
            assert min(one) >= -1e-6
            for other in boxes[:place]:
                apart = one[0] >= other[2] or one[2] <= other[0] or one[1] >= other[3] or one[3] <= other[1]
                assert apart


def test_the_node_with_most_edges_is_named_first_and_a_crowd_is_named_on_zooming():
    crowd = [Dot(500.0, 350.0 + 8 * place, 5.0, place, f"crowded{place}") for place in range(6)]
    labels = place_labels(crowd)
    assert labels[5] is not None
    assert labels[5].zoom == 1
    assert {label.zoom for label in labels if label} > {1}
