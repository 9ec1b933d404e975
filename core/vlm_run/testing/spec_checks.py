"""Checks of a plugin as a package: its specs, its contract version and its import."""

from __future__ import annotations

import subprocess
import sys

from vlm_run.hookspecs import CONTRACT_VERSION
from vlm_run.testing.subject import CheckFailed, CheckSkipped, PluginSubject

_HEAVY = ("torch", "transformers", "vllm", "torchvision", "tensorflow", "jax")
_IMPORT = """
import importlib, sys
sys.path[:] = {path!r}
importlib.import_module({module!r})
print(*[name for name in {heavy!r} if name in sys.modules])
"""


def specs_are_valid_and_unique(subject: PluginSubject) -> str:
    """All its model types are valid, and no other plugin serves them."""
    name, specs = subject.plugin.name, subject.plugin.specs
    faults = [broken.cause for broken in subject.plugins.broken if broken.name == name]
    if faults:
        raise CheckFailed("; ".join(faults))
    if not specs and subject.plugins.implements("spec_from_checkpoint", subject.plugin):
        return "derives specs from checkpoints"
    if not specs:
        raise CheckFailed("`model_specs` returns no model type")
    return f"{len(specs)} model type{'s' if len(specs) > 1 else ''}"


def contract_is_stated(subject: PluginSubject) -> str:
    """It states the versions of the contract for which it was written."""
    stated = getattr(subject.plugin.module, "vlm_run_contract", None)
    if stated is None:
        major = CONTRACT_VERSION.partition(".")[0]
        raise CheckSkipped(
            "the module does not state the contract version it was written for",
            hint=f'Add vlm_run_contract = ">={major},<{int(major) + 1}".',
        )
    return str(stated)


def import_is_light(subject: PluginSubject) -> None:
    """Importing it imports no model library, since every command imports all plugins."""
    module = subject.plugin.module.__name__
    program = _IMPORT.format(path=sys.path, module=module, heavy=_HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CheckFailed(f"{module} cannot be imported on its own: {done.stderr.strip().splitlines()[-1]}")
    if heavy := done.stdout.split():
        raise CheckFailed(
            f"importing {module} imports {', '.join(heavy)}", hint="Import it inside the hook that needs it."
        )
