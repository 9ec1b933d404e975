"""Downloads a checkpoint from the Hugging Face hub or from ModelScope, with a progress bar.

The hubs' own libraries do it, with their caches and their variables in the environment: `HF_HOME`, `HF_TOKEN`
and `HF_ENDPOINT`; `MODELSCOPE_CACHE`, `MODELSCOPE_API_TOKEN` and `MODELSCOPE_ENDPOINT`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vlm_run.checkpoints.hub_cache import Hub
from vlm_run.errors import DownloadError, printable

_LONGEST_REASON = 300  # characters
# Weights in formats that vLLM does not load if the repository has safetensors.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ckpt", "*.ot", "*.tflite")
# Files that vLLM never loads.
_UNUSED = ("*.onnx", "*.onnx_data", "*.mlmodel", "onnx/*", "openvino/*", "original/*")


def download(repository: str, hub: Hub = "huggingface") -> Path:
    """Download what vLLM needs of a repository, unless the cache has it.

    Args:
        repository: The repository's name, such as `Qwen/Qwen2-VL-7B-Instruct`.
        hub: The hub.

    Returns:
        The directory of the checkpoint in the hub's cache.

    Raises:
        DownloadError: The hub cannot be reached or refuses, or its library is not installed.
    """
    return _from_modelscope(repository) if hub == "modelscope" else _from_huggingface(repository)


def _unused(files: Sequence[str]) -> list[str]:
    """Patterns of the files that are not downloaded."""
    safetensors = any(file.endswith(".safetensors") for file in files)
    return [*_UNUSED, *(_OTHER_WEIGHTS if safetensors else ())]


def _from_huggingface(repository: str) -> Path:
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    except ImportError:
        raise DownloadError(
            "downloads from the Hugging Face hub need huggingface_hub, which is not installed",
            hint="pip install huggingface_hub",
        ) from None
    try:
        # Asked first: without a network, `snapshot_download` takes what the cache has, complete or not.
        info = HfApi().model_info(repository)
        files = [file.rfilename for file in info.siblings or ()]
        return Path(snapshot_download(repository, revision=info.sha, ignore_patterns=_unused(files)))
    except GatedRepoError:
        raise DownloadError(
            f"access to {repository} on the Hugging Face hub is restricted",
            hint="Accept its terms on the page of the model, and log in with `hf auth login`.",
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise DownloadError(
            f"the Hugging Face hub has no repository {printable(repository)} that you can access",
            hint="Check its name; for a private one log in with `hf auth login`.",
        ) from None
    except Exception as error:  # the errors of its HTTP library, of the disk, and its own
        hint = "Check the network; HF_ENDPOINT names a mirror, and --hub modelscope another hub."
        raise _failed(repository, "the Hugging Face hub", error, hint) from None


def _from_modelscope(repository: str) -> Path:
    # Its client alone: the library `modelscope`, which downloads with it, imports torch.
    try:
        from modelscope_hub import HubApi
    except ImportError:
        raise DownloadError(
            "downloads from ModelScope need its client, modelscope-hub, which is not installed",
            hint="pip install 'vlm-run[modelscope]'",
        ) from None
    try:
        hub = HubApi()
        files = [file.path for file in hub.list_repo_files(repository, "model")]
        return Path(hub.download_repo(repository, "model", ignore_patterns=_unused(files)))
    except Exception as error:
        hint = "Check the network and the repository's name; MODELSCOPE_ENDPOINT names another address."
        raise _failed(repository, "ModelScope", error, hint) from None


def _failed(repository: str, hub: str, error: Exception, hint: str) -> DownloadError:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON") and hub != "ModelScope":
        return DownloadError(
            f"{repository} cannot be downloaded: HF_HUB_OFFLINE is set", hint="Unset it to download."
        )
    reason = printable(" ".join(str(error).split()), _LONGEST_REASON) or type(error).__name__
    return DownloadError(f"{repository} cannot be downloaded from {hub}: {reason}", hint=hint)
