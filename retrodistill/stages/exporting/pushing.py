"""Pushes an exported folder to a hub."""

from pathlib import Path

from retrodistill.base.errors import ConfigError

LOCAL = ["manifest.json", "lineage/*"]
"""Files that stay here: they name paths of this computer and hashes of its texts."""


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a model's folder with its card, and return the address of the commit.

    The token is that of `hf auth login` or $HF_TOKEN. A repository that exists keeps its
    visibility.

    Raises:
        ConfigError: the hub cannot be reached, or refuses.

    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Export with retrodistill",
            ignore_patterns=LOCAL,
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"{folder} is written, but cannot be pushed to {repository}: {reason}. Check the name "
            "and the token (hf auth login), and upload it with: "
            f"hf upload {repository} {folder} --exclude {' '.join(LOCAL)}"
        ) from error
    return str(commit.commit_url)
