"""Groups of the options of `vlm-run serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vlm_run.cli.options import ENGINE
from vlm_run.cli.replicas import MaxReplicas, MinReplicas, RayAddress, Replicas

_SERVER = "Server"
_IMAGES = "Images in requests"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where the server listens, to whom it answers and what it serves beside the API.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        api_key: Keys of which clients must send one.
        shutdown_timeout: Seconds that running requests may take after SIGTERM.
        ui: Whether the chat page is served.
        open_browser: Whether the page is opened in a browser.
        max_request_mib: Maximum size of a request body in MiB.
    """

    host: Annotated[
        str,
        typer.Option(help="Address to listen on; 0.0.0.0 for all interfaces.", rich_help_panel=_SERVER),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="0 picks a free port.", rich_help_panel=_SERVER)] = 8000
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that clients must send; repeatable. Also read from VLLM_API_KEY.",
            rich_help_panel=_SERVER,
        ),
    ] = None
    shutdown_timeout: Annotated[
        float,
        typer.Option(help="Seconds that running requests may take after SIGTERM.", rich_help_panel=_SERVER),
    ] = 30.0
    ui: Annotated[
        bool, typer.Option("--ui", help="Serve a chat page at / as well.", rich_help_panel=_SERVER)
    ] = False
    open_browser: Annotated[
        bool, typer.Option("--open-browser", hidden=True, help="Open the chat page once it is served.")
    ] = False
    max_request_mib: Annotated[
        int, typer.Option(help="Maximum size of a request body in MiB.", rich_help_panel=_SERVER)
    ] = 256

    def vllm_options(self) -> dict[str, Any]:
        """Return those that vLLM's server has, under its names."""
        return {"host": self.host, "port": self.port, "api_key": self.api_key}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """How many engines serve, as replicas on Ray; one in this process if none is given.

    Attributes:
        replicas: Number of replicas.
        min_replicas: Minimum number under little load.
        max_replicas: Maximum number under much load.
        ray: Address of the Ray cluster.
    """

    replicas: Replicas = None
    min_replicas: MinReplicas = None
    max_replicas: MaxReplicas = None
    ray: RayAddress = None

    @property
    def on_ray(self) -> bool:
        """Whether any of them asks for Ray."""
        return any(given is not None for given in (self.replicas, self.max_replicas, self.ray))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlags:
    """Options of vLLM's engine that have a flag of their own, and its renderer processes.

    Attributes:
        max_num_seqs: Maximum number of requests processed concurrently.
        gpu_memory_utilization: Fraction of GPU memory to use.
        data_parallel_size: Number of copies of the model in one server.
        dtype: Data type of the weights.
        renderers: Number of processes that preprocess images.
    """

    max_num_seqs: Annotated[
        int | None,
        typer.Option(help="Maximum number of requests processed concurrently.", rich_help_panel=ENGINE),
    ] = None
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="Fraction of GPU memory to use.", rich_help_panel=ENGINE)
    ] = None
    data_parallel_size: Annotated[
        int | None,
        typer.Option(help="Number of replicas of the model, each on its own GPUs.", rich_help_panel=ENGINE),
    ] = None
    dtype: Annotated[str | None, typer.Option(help="Data type of the weights.", rich_help_panel=ENGINE)] = (
        None
    )
    renderers: Annotated[
        int | None,
        typer.Option(
            help="Processes that preprocess images; 0 for none. Defaults to a number that suits the cores.",
            rich_help_panel=ENGINE,
        ),
    ] = None

    def vllm_options(self) -> dict[str, Any]:
        """Return those that vLLM's engine has, under its names."""
        return {
            "max_num_seqs": self.max_num_seqs,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "data_parallel_size": self.data_parallel_size,
            "dtype": self.dtype,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMediaOptions:
    """Which images and videos requests may bring.

    Attributes:
        allowed_media_domains: The only hosts from which media are fetched; None for all.
        allow_private_media: Whether media are fetched from private addresses.
        allowed_local_media_path: The directory below which requests may name files.
        allow_documents: Whether PDFs, pages of TIFFs and HEIC images are accepted.
        media_timeout: Timeout of a fetch, in seconds.
        max_image_mib: Maximum size of an encoded image in MiB.
        max_image_pixels: Maximum area of an image in pixels.
    """

    allowed_media_domains: Annotated[
        list[str] | None,
        typer.Option(help="Fetch images only from this host; repeatable.", rich_help_panel=_IMAGES),
    ] = None
    allow_private_media: Annotated[
        bool, typer.Option(help="Fetch images from private addresses too.", rich_help_panel=_IMAGES)
    ] = False
    allowed_local_media_path: Annotated[
        Path | None,
        typer.Option(help="Let requests name files below this directory.", rich_help_panel=_IMAGES),
    ] = None
    allow_documents: Annotated[
        bool,
        typer.Option(
            "--allow-documents",
            help="Accept PDFs, pages of TIFFs (#page=2) and HEIC images.",
            rich_help_panel=_IMAGES,
        ),
    ] = False
    media_timeout: Annotated[
        float, typer.Option(help="Timeout for fetching one image, in seconds.", rich_help_panel=_IMAGES)
    ] = 20.0
    max_image_mib: Annotated[
        int, typer.Option(help="Maximum size of an encoded image in MiB.", rich_help_panel=_IMAGES)
    ] = 50
    max_image_pixels: Annotated[
        int, typer.Option(help="Maximum area of an image in pixels.", rich_help_panel=_IMAGES)
    ] = 100_000_000

    def vllm_options(self) -> dict[str, Any]:
        """Return those that vLLM's server has, under its names."""
        path = self.allowed_local_media_path
        return {
            "allowed_media_domains": self.allowed_media_domains,
            "allowed_local_media_path": None if path is None else str(path),
        }

    def policy_fields(self) -> dict[str, Any]:
        """Return the others as fields of a `MediaPolicy`."""
        from vlm_run.media.policy import MIB

        return {
            "allow_private_addresses": self.allow_private_media,
            "allow_documents": self.allow_documents,
            "timeout_s": self.media_timeout,
            "max_bytes": self.max_image_mib * MIB,
            "max_pixels": self.max_image_pixels,
        }
