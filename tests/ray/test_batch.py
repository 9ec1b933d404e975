"""`vlm-run infer --val_dataset --replicas` reports mistakes before anything loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))


def test_mistakes_are_told_before_anything_loads(cluster: Cluster, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"query": "What is this?"}) + "\n")
    command = [VLM_RUN, "infer", "demo-llava", "--val_dataset", data, "--result-path", tmp_path / "out.jsonl"]
    asked = [*command, "--replicas", "1000", "--ray", cluster.address]
    finished = subprocess.run(asked, capture_output=True, text=True, timeout=600, check=False)
    assert finished.returncode == 2
    assert (
        "1000 replicas need 1 CPUs, 0.3 GiB of memory each, and the cluster has room for" in finished.stderr
    )
    finished = subprocess.run(
        [*command, "--ray", "127.0.0.1:1"], capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 2
    assert "error: --ray 127.0.0.1:1 does not answer" in finished.stderr
