"""NTU schemes and slot settings that several test files share."""

from ntulm.language_model.config import Slot
from ntulm.ntus import NtuScheme, Role

# The paper's, and one that has two roles of one type, a type without a node in most tables, and an engagement.
SCHEME = NtuScheme(
    {"user": "user", "hashtag": "hashtag"}, {"author": Role("user", "author"), "hashtag": Role("hashtag", "hashtags")}
)
MORE = NtuScheme(
    {"user": "user", "hashtag": "hashtag", "stock": "cashtag", "host": "domain"},
    {
        "author": Role("user", "author"),
        "mention": Role("user", "mentions"),
        "hashtag": Role("hashtag", "hashtags"),
        "stock": Role("stock", "text"),
        "link": Role("host", "urls"),
        "favoriter": Role("user", engagement="favorited"),
    },
)
SLOT = {
    "layer_norm": False,
    "scale": 1.0,
    "learning_rate_factor": 2.0,
    "weight": None,
    "unknown": "mean",
    "dropout": 0.0,
    "hidden_posts": 0.0,
    "hide_masked": False,
}


def slot_settings(**changes):
    """The section `pretrain.slot`, with changes by keyword."""
    return Slot(**{**SLOT, **changes})
