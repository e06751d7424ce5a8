"""The usual names of columns in tables of posts, per key of the mapping. Library of `ntulm inspect`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Names as `plain_name` writes them, the likelier first: of Twitter's interfaces, TAGS, twint, rtweet, twarc, snscrape,
# Brandwatch, Meltwater, Sprinklr, CrowdTangle, Mastodon, Bluesky and Reddit, of research tables, and German ones.
NAMES = {
    "post_id": (
        "postid", "tweetid", "tweetidstr", "idstr", "id", "statusid", "statusidstr", "messageid", "documentid",
        "resourceid", "uri", "tweetlink", "beitragsid",
    ),
    "created_at": (
        "createdat", "createdatutc", "record.createdat", "tweetcreatedat", "tweettime", "createdtime", "postcreated",
        "indexedat", "publishdate", "publishedat", "published", "createdutc", "created", "timestamp", "datetime",
        "datetimeutc", "date", "dateutc", "tweetdate", "time", "datum", "zeitpunkt", "zeitstempel", "erstelltam",
        "veröffentlichtam", "uhrzeit",
    ),
    "text": (
        "text", "record.text", "fulltext", "tweettext", "tweetfulltext", "extendedtweet.fulltext", "content",
        "rawcontent", "tweetcontent", "tweet", "body", "selftext", "message", "hitsentence", "openingtext", "posttext",
        "statustext", "snippet", "title", "inhalt", "nachricht", "beitrag", "beitragstext",
    ),
    "author": (
        "author", "authorid", "author.handle", "author.username", "authorusername", "authorhandle",
        "userid", "useridstr", "screenname", "userscreenname", "username", "userusername", "user", "fromuser",
        "fromuserid", "fromuseridstr", "user.screenname", "user.username", "twitterscreenname", "senderscreenname",
        "senderuserid", "influencer", "account.acct", "accountacct", "acct", "handle", "account", "accountname",
        "author.did", "did", "authorname", "pagename", "autor", "autorin", "verfasser", "benutzername", "benutzer",
        "nutzername", "nutzer",
    ),
    "lang": (
        "lang", "language", "tweetlanguage", "tweetlang", "record.langs", "langs", "languagecode", "langcode",
        "sprache",
    ),
    "repost_flag": (
        "retweet", "isretweet", "isrepost", "repost", "isrt", "rt", "isreblog", "tweettype", "sourcetweettype",
        "threadentrytype", "posttype", "statustype",
    ),
    "reposted_id": (
        "retweetedid", "retweettweetid", "retweetedstatusid", "retweetedstatusidstr", "repostedid", "retweetstatusid",
        "retweetid", "retweetedtweetid", "referencedtweets.retweeted.id", "reblog.id", "retweetedstatus.idstr",
        "retweetedstatus.id", "retweetedtweet.idstr", "retweetedtweet.id", "reblog.uri", "twitterretweetof",
        "retweetorquoteid", "sourcetweetid",
    ),
    "reposted_author": (
        "retweeteduserid", "retweetuserid", "retweetedscreenname", "retweetscreenname", "retweetedusername",
        "retweeteduserscreenname", "repostedauthor", "userrt", "reblog.account.acct", "retweetedstatus.user.screenname",
        "retweetedstatus.user.idstr", "retweetedtweet.user.username", "retweetedtweet.user.id",
        "retweetorquotescreenname", "retweetorquoteuserid", "sourcetweetauthorid",
    ),
    "reply_to": (
        "inreplytousername", "inreplytoscreenname", "inreplytouserid", "inreplytouseridstr", "inreplytouser.username",
        "inreplytoaccountid", "replytousername", "replytoscreenname", "replytouserid", "replytouser", "inreplytouser",
    ),
    "reply_to_post": (
        "inreplytostatusid", "inreplytostatusidstr", "inreplytotweetid", "inreplytoid", "replytostatusid",
        "replytotweetid", "replytostatusidstr", "inreplytotweetidstr", "referencedtweets.repliedto.id",
        "record.reply.parent.uri", "replyid", "replyto",
    ),
    "quoted": (
        "quotedusername", "quotedscreenname", "quoteduserid", "quotedstatus.user.screenname",
        "quotedstatus.user.idstr", "quotedtweet.user.username", "quotedtweet.user.id",
    ),
    "quoted_post": (
        "quotedstatusidstr", "quotedstatusid", "quotedtweetid", "quotedtweetidstr", "quotedstatus.idstr",
        "quotedstatus.id", "quotedtweet.idstr", "quotedtweet.id", "referencedtweets.quoted.id",
    ),
    "places": ("placefullname", "place.fullname", "placename", "geo.fullname", "place"),
    "favorited_by": ("favoritedby", "favouritedby", "likedby", "likers"),
    "hashtags": (
        "hashtags", "hashtag", "entities.hashtags.tag", "entities.hashtags.text", "tags.name", "tags", "schlagworte",
    ),
    "mentions": (
        "mentions.acct", "mentions", "mentionsscreenname", "usermentions", "entities.mentions.username",
        "entities.usermentions.screenname", "mentionedusers", "mentionedauthors", "mentionednames", "mentionsuserid",
        "erwähnungen", "mentionedusers.username", "mentionedusers.screenname",
    ),
    "urls": ("urls", "expandedurls", "urlsexpandedurl", "entities.urls.expandedurl"),
    "community": ("subreddit",),
    "visibility": (
        "visibility", "statusvisibility", "postvisibility", "protected", "user.protected", "author.protected",
        "account.protected", "userprotected", "authorprotected", "isprotected",
    ),
    "cashtags": ("cashtags",),
}  # fmt: skip
WHOLE_TEXTS = ("fulltext", "tweetfulltext", "extendedtweet.fulltext")  # of which a text beside them may be cut
OF_ANY_SOURCE = ("retweetorquote", "sourcetweet")  # a repost or a quote: only beside a flag that says which


def plain_name(column: str) -> str:
    """A name without case, white space, underscores, hyphens and brackets: `Created_at (UTC)` is `createdatutc`."""
    return re.sub(r"[\s_\-()\[\]#:]+", "", unicodedata.normalize("NFKC", column).strip().casefold())


def candidates(columns: Sequence[str], wanted: str) -> list[str]:
    """The columns that may be what a key of the mapping wants, the likelier first."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(plain_name(column), column)
    return [by_name[name] for name in NAMES[wanted] if name in by_name]
