"""How much the server takes at a time. Options of `ntulm serve`; none of them changes a vector beyond rounding."""

from dataclasses import dataclass

from ntulm.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What is more is refused: with 413 or 422 where a request is too large, with 503 where there are too many."""

    body: int  # bytes of a request
    posts: int  # of a request
    characters: int  # of a text
    batch: int  # posts that are encoded together, of however many requests
    waiting: int  # posts that wait for their turn
    requests: int  # that are being answered
    searches: int  # of neighbours that wait for their turn
    upload_seconds: float  # for a request to arrive
    stop_seconds: int  # for what is being answered, once the server is told to stop

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise UserError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
        if self.waiting < self.posts:
            raise UserError(f"--waiting {self.waiting}: expected {self.posts} at least, the posts of a request")


USUAL = Limits(
    body=2**20,
    posts=256,
    characters=10_000,
    batch=64,
    waiting=1024,
    requests=256,
    searches=8,
    upload_seconds=30.0,
    stop_seconds=30,
)
