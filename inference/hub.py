"""Checkpoints on the Hub."""

from __future__ import annotations

from pathlib import Path

from model.familiarity import FAMILIARITY_FILE


class HubError(RuntimeError):
    """The Hub did not take something; says why and what to do."""


def upload(directory: Path, repo_id: str, *, private: bool | None, token: str | bool | None, commit_message: str) -> str:
    """Upload a directory as a model; its address.

    Raises:
        HubError: no such name, no right to it, or no network.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        former = [FAMILIARITY_FILE]  # of a model that was there before, where this one has none
        done = api.upload_folder(repo_id=repo.repo_id, folder_path=directory, commit_message=commit_message, delete_patterns=former)
    except Exception as error:  # the library's errors share no base with its HTTP client's
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(f"{repo_id} could not be uploaded ({first}). Log in once with: hf auth login") from error
    return str(done)
