"""Prepare the current virtual environment for vLLM without a GPU: python tools/cpu_env/install.py"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

NOT_FOR_CPU = ("torchaudio", "torchcodec")
MODULE = Path(__file__).with_name("torchvision_beside_cpu_torch.py")


def main() -> None:
    if sys.prefix == sys.base_prefix:
        sys.exit("Run this with the Python of a virtual environment.")
    site_packages = Path(sysconfig.get_path("purelib"))
    shutil.copy(MODULE, site_packages)
    (site_packages / f"{MODULE.stem}.pth").write_text(f"import {MODULE.stem}\n", encoding="utf-8")
    # vLLM installs these, built for CUDA, and transformers imports them if they are installed.
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", *NOT_FOR_CPU], check=True)


if __name__ == "__main__":
    main()
