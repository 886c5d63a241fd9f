"""Models on the Hugging Face hub: downloads by name, and uploads with a card."""

from pathlib import Path

from xmask3d.checkpoints.export import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from xmask3d.checkpoints.published_models import print_plan
from xmask3d.errors import UserError, first_line

FILES = (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE)


def fetch_from_hub(repo: str) -> Path:
    """Return a folder with the files of a model; files fetched before are used without a network.

    Args:
        repo: "org/name".

    Raises:
        UserError: the model does not exist or is not of this package, permission is missing, or there is no connection
            and nothing was fetched before.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    try:
        info = HfApi().model_info(repo, files_metadata=True)
    except Exception as error:
        reason, is_offline = first_line(error), True
    else:
        reason, is_offline = "", False
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        absent = sorted({WEIGHTS_FILE, CONFIG_FILE} - sizes.keys())
        if absent:
            raise UserError(f"{repo}: no model of xmask3d, the hub has no {absent[0]} in it")
        if not isinstance(try_to_load_from_cache(repo, WEIGHTS_FILE, revision=info.sha), str):
            licence = str(info.card_data.license if info.card_data else "not stated")
            parts = {name: (size, licence) for name, size in sizes.items() if name in FILES}
            print_plan(repo, parts, Path(constants.HF_HUB_CACHE))
    try:
        folder = HfApi().snapshot_download(repo, allow_patterns=list(FILES), local_files_only=is_offline)
    except Exception as error:
        raise UserError(f"{repo}: cannot be fetched from the hub ({reason or first_line(error)})") from error
    return Path(folder)


def push_folder(folder: Path, repo: str, private: bool, token: str | None) -> str:
    """Upload a folder of `write_model` in one commit, and return the address of the model.

    Raises:
        UserError: there is no connection or no permission.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a model of xmask3d")
    except Exception as error:
        raise UserError(f"{repo}: cannot be uploaded to the hub ({first_line(error)})") from error
    return str(address)
