"""The names of states in which runs end that are neither plainly done nor plainly failed.

A list of runs in the UI shows them, and `deploy/alerts.py` sends those of which somebody has to be told. Green: Quiet,
too little arrived to do anything with it; NoModel, nothing is in production yet. Red: Refused, `retrain` left the model
in production where it is, for a reason; Drifted, `monitor` found that arriving posts do not fit it any more.
"""

from typing import Any

from prefect import State
from prefect.states import Completed, Failed

QUIET, NO_MODEL, REFUSED, DRIFTED = "Quiet", "NoModel", "Refused", "Drifted"
NAMES = (QUIET, NO_MODEL, REFUSED, DRIFTED)


def quiet(reason: str) -> State[Any]:
    """Nothing to do, and nothing wrong."""
    return Completed(name=QUIET, message=reason)


def no_model() -> State[Any]:
    """There is no model that could be asked."""
    return Completed(name=NO_MODEL, message="nothing is in production yet; `retrain` promotes the first model")


def refused(reason: str) -> State[Any]:
    """A month that `retrain` did not take."""
    return Failed(name=REFUSED, message=reason)


def drifted(reason: str) -> State[Any]:
    """Arriving posts that do not fit the model in production."""
    return Failed(name=DRIFTED, message=reason)
