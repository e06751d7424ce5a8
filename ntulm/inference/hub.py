"""A model directory to the Hugging Face hub: what `Model.push_to_hub` does. `ntulm.load("hf://owner/name")` reads it.

The token is that of `hf auth login` or of HF_TOKEN. The hub's address is HF_ENDPOINT, if that is set.
"""

from __future__ import annotations

import re
from pathlib import Path

from ntulm.errors import UserError
from ntulm.inference.directory import CARD, HUB_FILES, MODELING

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
MESSAGE = "Model directory of ntulm"
SHOWN = 300  # characters of the hub's answer


def push(directory: Path, name: str, private: bool) -> str:
    """Upload a model directory as one commit; what an earlier one left there and this one lacks is deleted.

    Args:
        directory: the model directory.
        name: `owner/name`; made if there is none.
        private: whether only its owner may see it. Never lowered: a repository that is public is then refused.

    Returns:
        The address of the commit.

    Raises:
        UserError: the name is none, the hub refuses or cannot be reached, or the repository is public and must not be.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    name = name.removeprefix("hf://")
    if not NAME.fullmatch(name):
        raise UserError(f"{name}: no name on the Hugging Face hub; expected `owner/name`")
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if private and not api.model_info(name).private:  # `create_repo` leaves one that exists as it is
            raise UserError(
                f"hf://{name}: is public already, and the embedding table may hold personal data; expected a private "
                "repository, or push_to_hub(…, private=False)"
            )
        commit = api.upload_folder(
            repo_id=name,
            folder_path=directory,
            commit_message=MESSAGE,
            allow_patterns=[*HUB_FILES, MODELING, CARD],
            delete_patterns=[*HUB_FILES, MODELING],
        )
    except (OSError, ValueError, HTTPError) as error:
        raise UserError(f"hf://{name}: the Hugging Face hub took nothing ({_reason(error)})") from error
    return str(commit.commit_url)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:SHOWN] or type(error).__name__
