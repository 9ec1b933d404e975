"""Checks of a plugin as a package, its specs, its contract version and its import, and of each spec."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from vlm_run.hookspecs import CONTRACT_VERSION
from vlm_run.plugins.matching import best_fits
from vlm_run.testing.subject import CheckFailed, CheckSkipped, ModelSubject, PluginSubject

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


def checkpoint_tells_its_model_type(subject: ModelSubject) -> None:
    """`config_match` and `template_match` fit its checkpoints only, among the model types of the plugin."""
    spec = subject.spec
    if spec.replaced_by is not None:
        raise CheckSkipped("no vLLM version that vlm-run supports serves it")
    config: Mapping[str, Any] = {"architectures": [spec.architecture]}
    for key, value in spec.config_match.items():
        config = _with_entry(config, key, value)
    # Not those of other plugins: a plugin may serve fine-tuned weights of a model type of another one.
    models = [(each, subject.plugin) for each in subject.plugin.specs]
    found = [fit.model_type for fit, _ in best_fits(config, lambda: spec.template_match or "", models)]
    if found == [spec.model_type]:
        return
    if spec.model_type not in found:
        raise CheckFailed("no `config.json` fits it: entries of `config_match` contradict each other")
    outcome = CheckFailed if spec.config_match or spec.template_match else CheckSkipped
    raise outcome(
        f"a checkpoint directory could be of several model types: {', '.join(found)}",
        hint="State in `config_match` or `template_match` what only its checkpoints have.",
    )


def _with_entry(config: Mapping[str, Any], key: str, value: Any) -> Mapping[str, Any]:
    """A config with a value at a dotted key."""
    first, _, rest = key.partition(".")
    return {**config, first: _with_entry(config.get(first, {}), rest, value) if rest else value}
