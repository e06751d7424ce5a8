"""text.py: one meaning of hashtags, mentions, links and users, whoever reads a text."""

import csv
import html
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ntulm.corpus.config import TableMapping
from ntulm.corpus.records import read_export
from ntulm.corpus.sources import formats
from ntulm.corpus.sources.table_values import MACROS
from ntulm.language_model.config import Batches
from ntulm.language_model.tokens import tokenise
from ntulm.text import (
    SPACES,
    SQL_PATTERNS,
    Fields,
    Reading,
    bare,
    cashtags,
    extract,
    fields_of,
    hashtag_spans,
    links,
    mask_links,
    mask_mentions,
    masked,
    mentions,
    normalise,
    plain_text,
    readable,
    remove,
    user_key,
    without_cashtags,
)

TAGS = st.text(st.characters(categories=["L", "N", "M"]) | st.just("_"), min_size=1, max_size=8)


@given(st.text(max_size=20))
def test_normalise_is_idempotent(tag):
    assert normalise(normalise(tag)) == normalise(tag)


def test_a_hashtag_of_many_signs_is_read():
    assert normalise("# " * 3000 + "Tag") == "tag"
    assert normalise("＃\u3000" * 3000) == ""


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("#One, #two! #ONE", ["one", "two"]),
        ("#Cafe\u0301 ＃ｗｉｄｅ #Straße #STRASSE", ["café", "wide", "strasse"]),
        ("#हिन्दी #日本 #heart\ufe0f", ["हिन्दी", "日本", "heart"]),
        ("a#no &#39; http://x.y/#no #123 # #_", []),
        ("##twice #a#b #c_d2", ["twice", "a", "c_d2"]),
    ],
)
def test_extract(text, tags):
    assert extract(text) == tags


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("see #Tag! and #tagger", "see ! and #tagger"),
        ("＃ｔａｇ ##TAG a#tag", "a"),
        ("keep  two  spaces #other", "keep  two  spaces #other"),
        ("#tag", ""),
        ("tag stays, #tag goes", "tag stays, goes"),
    ],
)
def test_remove(text, without):
    assert remove(text, "tag") == without


@given(TAGS, st.text(max_size=10), st.text(max_size=10), st.sampled_from(["#", "＃", "##"]), st.booleans())
def test_a_removed_hashtag_is_not_found_again(tag, before, after, sign, upper):
    text = f"{before}{sign}{tag.upper() if upper else tag}{after} {sign}{tag}"
    left = remove(text, tag)
    assert normalise(tag) not in extract(left)
    assert remove(left, tag) == left


def test_remove_finds_a_tag_that_a_source_spells_with_other_characters():
    assert remove("about #l·l today", "l·l") == "about today"


# Each of these was cut or missed by the tokeniser's view, or told differently by two readers.
PIECES = [
    "#हिन्दी",
    "#বাংলা",
    "#สวัสดี",
    "#العربية",
    "#日本語",
    "＃ｗｉｄｅ",
    "#Café",
    "#Cafe\u0301",
    "#می\u200cخواهم",
    "#Łódź_1",
    "#️⃣",
    "1️⃣",
    "#\u20e3",
    "#heart\ufe0f",
    "👩\u200d👧",
    "❤️",
    "☺",
    "#",
    "@",
    "＠",
    "/",
    "&",
    ".",
    ",",
    ":",
    " ",
    "\n",
    "\xa0",
    "\u3000",
    "a",
    "ا",
    "ह",
    "\u0301",
    "\u200d",
    "7",
    "_",
    "-",
    "http://",
    "https://t.co/x",
    "HTTP://A.B/#c",
    "www.",
    "www.a.b",
    "@bob",
    "@Sim0004",
    "@eve.bsky.social",
    "@bob@b.example",
    "@josé",
    "@王さん",
    "@al.",
    ".@cnn",
    "w/@amy",
    "me@mail.org",
    "medium.com/@dan",
    "$AAPL",
    "＄MSFT",
    "ſ",
    "İ",
    "ß",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone):
    return AutoTokenizer.from_pretrained(tiny_backbone)


TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("#हिन्दी में", ["हिन्दी"]),
        ("#বাংলা ভাষা", ["বাংলা"]),
        ("#สวัสดี", ["สวัสดี"]),
        ("#العربية، #مرحبا", ["العربية", "مرحبا"]),
        ("#می\u200cخواهم #ශ්\u200dරී", ["می\u200cخواهم", "ශ්\u200dරී"]),
        ("#️⃣ 1️⃣#one #⃣keycap #love👩\u200d👧", ["one", "love"]),
        ("https://t.co/x\u3000#タグ https://t.co/y\xa0#tag", ["タグ", "tag"]),
        ("https://t.co/-#no #https://t.co #taghttps://t.co www.a.b/-#no", ["tag"]),
        ("#a/#b &#x27;", ["a"]),
    ],
)
def test_hashtags_of_all_scripts_for_corpus_and_tokeniser(tokenizer, text, tags):
    assert extract(text) == tags
    for masking in (True, False):
        settings = Batches(max_length=24, mask_urls=masking, mask_mentions=masking)
        assert tokenise([text], tokenizer, settings).hashtags == tags


@given(TEXTS)
def test_a_hashtag_stands_where_it_is_said_to_stand(text):
    for links_too, mentions_too in ((False, False), (True, False), (False, True), (True, True)):
        found, spans = masked(text, links_too, mentions_too)
        assert [tag for _, _, tag in spans] == [tag for _, _, tag in hashtag_spans(text)]
        for start, end, tag in spans:
            assert found[start] in "#＃"
            assert normalise(found[start:end]) == tag


@pytest.mark.parametrize(
    ("text", "hosts", "names"),
    [
        ("hi @bob@b.example. @eve.bsky.social! @al. me@mail.org", True, ["bob@b.example", "eve.bsky.social", "al"]),
        ("hi @bob@b.example. @eve.bsky.social! @al. me@mail.org", False, ["bob", "eve", "al"]),
        (".@cnn “@fox w/@amy ＠wide x@no medium.com/@no @@twice", False, ["cnn", "fox", "amy", "wide", "twice"]),
        ("@bobさん @josé https://a.b/@no @foo-bar", False, ["bob", "foo"]),
        ("@foo-bar @foo.bar- @bob.@al", True, ["foo-bar", "foo.bar", "bob", "al"]),
        ("@" + "x" * 40, False, ["x" * 40]),
    ],
)
def test_mentions(text, hosts, names):
    assert mentions(text, hosts) == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@eve.bsky.social, @bob@b.example. @al.", "@user, @user. @user."),
        ("@foo.bar@b.example! @nytimes.com", "@user! @user"),
        ("@bob.Thanks @bob... @3.3$ @Coca-Cola me@mail.org", "@user.Thanks @user... @user.3$ @user-Cola me@mail.org"),
        ("@eve.bsky.social/@amy/@bob a.example/@bob", "@user/@user/@user a.example/@bob"),
        ("@bobの本 https://a.b/@eve medium.com/@eve w/@eve", "@userの本 https://a.b/@eve medium.com/@eve w/@user"),
    ],
)
def test_a_mention_is_masked_with_its_host(text, expected):
    assert mask_mentions(text) == expected


@given(TEXTS)
def test_no_mention_is_left_in_a_masked_text(text):
    assert set(mentions(mask_mentions(text), hosts=False)) <= {"user"}


@pytest.mark.parametrize(
    ("text", "found", "hidden"),
    [
        ("(https://a.b/c?d#e), www.a.b! HTTP://A", ["https://a.b/c?d#e", "www.a.b", "HTTP://A"], "(http http http"),
        ("awww... so www.. xhttp://a.b", ["http://a.b"], "awww... so www.. xhttp"),
        ("http://a.b\u3000c httpſ://a", ["http://a.b"], "http\u3000c httpſ://a"),
    ],
)  # fmt: skip
def test_links(text, found, hidden):
    assert links(text) == found
    assert mask_links(text) == hidden


def test_words_are_what_is_left():
    assert bare("See #tag, @bob@b.example and https://a.b/c me@x.org").split() == ["See", ",", "and", "me@x.org"]


def test_cashtags():
    assert cashtags("$AAPL $brk.b $5 $TOOLONGNAME US$X") == ["aapl", "brk.b"]
    assert without_cashtags("buy $AAPL, ＄MSFT-x $5").split() == ["buy", ",", "$5"]


# Whoever reads a text

AT = "2015-01-01 00:00:00"


def corpus_fields(path: Path, name: str, mapping: TableMapping | None) -> list[tuple[str, Fields]]:
    with read_export(path, name, mapping, [], "id", path.parent / "spill") as export:
        query = "SELECT text, hashtags, mentions, urls, cashtags FROM record WHERE reject IS NULL ORDER BY ordinal"
        return [(text, Fields(*fields)) for text, *fields in export.connection.execute(query).fetchall()]


def mapping_of(**changes) -> TableMapping:
    fields = dict.fromkeys(TableMapping.model_fields)
    fields |= {"created_at": "time", "text": "text", "author": "author", "casefold_users": True, "html": False}
    return TableMapping.model_validate({**fields, "mention_hosts": False, **changes})


def write_csv(path: Path, texts: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["author", "time", "text"], *(["ann", AT, text] for text in texts)])


def write_json(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"author": "ann", "time": AT, "text": text}) + "\n" for text in texts))


def write_parquet(path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"author": ["ann"] * len(texts), "time": [AT] * len(texts), "text": texts}), path)


def write_tweets(path: Path, texts: list[str]) -> None:
    fields = {"created_at": "Thu Jan 01 00:00:00 +0000 2015", "user": {"id_str": "7"}}
    lines = (json.dumps({"id_str": str(at), "text": text, **fields}) for at, text in enumerate(texts))
    path.write_text("\n".join(lines))


SOURCES: list[tuple[str, Callable[[Path, list[str]], None]]] = [
    ("table", write_csv), ("table", write_json), ("table", write_parquet), ("twitter_v1", write_tweets),
]  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=8),
    source=st.sampled_from(SOURCES),
    hosts=st.booleans(),
    casefold=st.booleans(),
)
def test_every_reader_and_the_tokeniser_agree(tmp_path, tokenizer, texts, source, hosts, casefold):
    name, write = source
    mapping = mapping_of(mention_hosts=hosts, casefold_users=casefold) if name == "table" else None
    write(tmp_path / "export", [f"so {text}".replace("\0", "").replace("\r", "\n") for text in texts])
    read = corpus_fields(tmp_path / "export", name, mapping)
    reading = formats.source(name).facts(mapping)
    assert len(read) == len(texts)
    for text, fields in read:
        assert fields == fields_of(text, reading)
        view = tokenise([text], tokenizer, Batches(max_length=24, mask_urls=True, mask_mentions=True))
        assert list(dict.fromkeys(view.hashtags)) == fields.hashtags


def test_the_world_and_the_text_of_its_posts_agree():
    world = Path(__file__).parents[1] / "worlds" / "quickstart.yaml"
    from ntulm.corpus.sources.synthetic import records
    from ntulm.corpus.sources.world import load_world

    reading = formats.source("synthetic").facts(None)
    for record in records(load_world(world).model_copy(update={"posts": 200, "authors": 60, "periods": 6})):
        if not record["is_repost"]:
            fields = fields_of(readable(record["text"], reading), reading)
            assert fields.hashtags == list(dict.fromkeys(normalise(tag) for tag in record["hashtags"]))
            assert (fields.mentions, fields.urls) == (record["mentions"], record["urls"])
            assert user_key(record["author"].upper(), reading.casefold_users) == record["author"]


def test_a_record_without_its_mentions_is_read_as_a_new_post_is(tmp_path):
    mapping = mapping_of(mentions="named")
    texts = ["hi @Bob #x", "hi @Eve"]
    posts: list[dict[str, Any]] = [{"author": "ann", "time": AT, "text": text} for text in texts]
    posts[1] |= {"named": ["Al"]}
    (tmp_path / "export").write_text("".join(json.dumps(post) + "\n" for post in posts))
    read = dict(corpus_fields(tmp_path / "export", "table", mapping))
    assert (
        read[texts[0]] == fields_of(texts[0], formats.source("table").facts(mapping)) == Fields(["x"], ["bob"], [], [])
    )
    assert read[texts[1]].mentions == ["al"]


def test_how_a_source_is_read():
    assert formats.source("twitter_v1").facts(None) == Reading(False, False, False, False)
    assert formats.source("synthetic").facts(None) == Reading(True, False, False, True)
    assert formats.source("table").facts(mapping_of(mention_hosts=True, html=True)) == Reading(True, True, True, True)
    raw = "<p>hi <a>@<span>Bob@b.example</span></a> &amp; #x</p>"
    reading = Reading(casefold_users=True, mention_hosts=True, html=True, mentions_in_text=True)
    assert readable(raw, reading) == "hi @Bob@b.example & #x"
    assert fields_of(readable(raw, reading), reading) == Fields(["x"], ["bob@b.example"], [], [])


MARKUP = [
    "<",
    ">",
    "<!--",
    "-->",
    "--",
    "!",
    "<a ",
    "</a>",
    "<br",
    "<br/>",
    "</p>",
    "<h1>",
    "<!-->",
    "a",
    "\n",
    "&lt;",
    "1",
]


@given(st.lists(st.sampled_from(MARKUP), max_size=14).map("".join))
def test_html_is_what_plain_patterns_say(markup):
    broken = re.sub(r"(?i)<(?:br|hr|/p|/div|/li|/blockquote|/pre|/h\d)\b[^>]*>", "\n", markup)
    assert plain_text(markup) == html.unescape(re.sub(r"(?s)</?[a-zA-Z][^>]*>|<!--.*?-->", "", broken)).strip()


@pytest.mark.parametrize("start", ["", ">", "-->"])
@pytest.mark.parametrize("hostile", ["<!--", "<a", "</p ", "<br ", "<h1\t"])
def test_hostile_html_is_read_in_time(start, hostile):
    markup = start + hostile * (800_000 // len(hostile))  # minutes, were each `<` to search the rest for its end
    assert plain_text(markup) == markup.strip()
    assert plain_text(f"x{markup}>y").endswith("y")


def test_a_number_too_long_for_a_character():
    assert plain_text(f"a&#{'1' * 5000};b") == "a\ufffdb"


# What SQL does for speed


@pytest.fixture(scope="module")
def macros():
    with duckdb.connect() as connection:
        connection.execute(MACROS)
        yield connection


NAMES = st.lists(
    st.sampled_from([*SPACES, *"@＠AßİΣς"]) | st.characters(codec="utf-8", exclude_characters="\0"), max_size=6
)


@given(name=NAMES.map("".join), casefold=st.booleans())
def test_a_user_key_is_the_same_in_sql(macros, name, casefold):
    found = macros.execute("SELECT user_key($name, $casefold)", {"name": name, "casefold": casefold}).fetchall()[0][0]
    assert (found or "") == user_key(name, casefold)


@pytest.mark.parametrize("name", ["@Sim0004", "SIM0004", "sim0004", " ＠sim0004\u3000"])
def test_one_author_however_written(name):
    assert user_key(name, casefold=True) == "sim0004"


@given(st.text(st.sampled_from([*SPACES, "\u200b", "a"]), max_size=4))
def test_an_empty_text_is_the_same_in_sql(macros, text):
    query = partial(macros.execute, "SELECT regexp_matches($text, $pattern)")
    found = query({"text": text, "pattern": SQL_PATTERNS["written_pattern"]}).fetchall()[0][0]
    assert found == bool(text.strip())


def test_white_space_is_that_of_python():
    assert set(SPACES) == {chr(code) for code in range(0x110000) if chr(code).isspace()}
