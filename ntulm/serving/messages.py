"""Requests and answers of the server, as its OpenAPI page shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

MOST_SIMILAR = 1000


class Post(BaseModel):
    """A post. What is not given is read from the text; an author cannot be."""

    model_config = ConfigDict(extra="forbid")

    text: str
    author: str | None = None
    hashtags: list[str] | None = None
    mentions: list[str] | None = None
    urls: list[str] | None = None
    places: list[str] | None = None


POST = {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Post"}]}
# Read by `ntulm/inference/reading.py`, whose errors say more than those of a union of types.
Input = Annotated[
    Any, WithJsonSchema({"anyOf": [*POST["anyOf"], {"type": "array", "items": POST}], "examples": [["a post #tag"]]})
]


class Request(BaseModel):
    """What all requests about posts have."""

    model_config = ConfigDict(extra="forbid")

    input: Input
    model: str | None = Field(None, description="Name or version of the model in use; null: whichever that is.")


class EmbeddingsRequest(Request):
    """As OpenAI's, with posts in place of texts where their authors are known."""

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="The model's own or null; vectors are not cut.")
    user: str | None = Field(None, description="Not looked at.")


class ClassifyRequest(Request):
    """Labels for posts."""

    task: str | None = Field(None, description="One of the model's; may be left out where it has one.")
    top: int | None = Field(None, ge=1, description="How many classes to give probabilities of; null: all.")


class SimilarRequest(BaseModel):
    """The NTUs nearest to one."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="Of the NTU: user, hashtag, … as the model has them.", examples=["hashtag"])
    key: str = Field(description="The NTU, as people write it.", examples=["#tag"], max_length=1000)
    types: list[str] | None = Field(None, description="Of the answer; null: that of the NTU.")
    top: int = Field(10, ge=1, le=MOST_SIMILAR)
    model: str | None = None


class Embedding(BaseModel):
    """The vector of a post."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="base64: float32, little-endian.")


class Usage(BaseModel):
    """Tokens read, after texts were cut to the model's length."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """Vectors, in the order of the posts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Label(BaseModel):
    """What a classifier says of a post."""

    index: int
    labels: list[str] = Field(description="The likeliest class; of several labels all from the threshold on.")
    probabilities: dict[str, float]
    known: bool = Field(description="Whether the table knows an NTU of the post that the model looks at.")


class Labels(BaseModel):
    """Labels, in the order of the posts."""

    data: list[Label]
    task: str
    model: str
    usage: Usage


class SimilarNtu(BaseModel):
    """An NTU of the embedding table."""

    type: str
    key: str
    cosine: float


class Similar(BaseModel):
    """NTUs, the nearest first."""

    data: list[SimilarNtu]
    model: str
