"""The contract documents itself: each hook has an example that runs, and defaults agree with it."""

from __future__ import annotations

import doctest
import inspect
from types import FunctionType

import pytest

from vlm_run import hookspecs
from vlm_run.plugins import defaults

HOOKS: dict[str, FunctionType] = {
    name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "vlm_run_spec")
}
ARGUMENTS = {
    "model_specs": [],
    "spec_from_checkpoint": ["config", "folder"],
    "render_prompt": ["model", "conversation"],
    "preprocess_image": ["model", "image"],
    "placeholder": ["model", "index"],
    "count_image_tokens": ["model", "width", "height"],
    "count_video_tokens": ["model", "width", "height", "frames", "fps", "times"],
    "engine_kwargs": ["model", "limits"],
    "register_with_vllm": [],
}
WITHOUT_DEFAULT = {"model_specs", "spec_from_checkpoint", "register_with_vllm"}
DEFAULTS = {name: hook for name, hook in vars(defaults).items() if hasattr(hook, "vlm_run_impl")}


def test_these_are_the_hooks() -> None:
    assert {name: list(inspect.signature(hook).parameters) for name, hook in HOOKS.items()} == ARGUMENTS


@pytest.mark.parametrize("name", HOOKS)
def test_example_of_the_hook_runs(name: str) -> None:
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(HOOKS[name], name, globs={})
    docstring = HOOKS[name].__doc__ or ""
    assert "@hookimpl" in docstring
    assert f"... def {name}(" in docstring
    outcome = doctest.DocTestRunner().run(example)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_begins_with_what_it_is_for(name: str) -> None:
    first = inspect.cleandoc(HOOKS[name].__doc__ or "").splitlines()[0]
    assert first[0].isupper()
    assert first[-1] in ".,"


def test_a_hook_that_asks_for_one_answer_stops_at_the_first() -> None:
    first_result = {name for name, hook in HOOKS.items() if vars(hook)["vlm_run_spec"]["firstresult"]}
    assert first_result == set(HOOKS) - {"model_specs", "register_with_vllm"}


def test_every_other_hook_has_a_default() -> None:
    assert set(DEFAULTS) == set(HOOKS) - WITHOUT_DEFAULT


@pytest.mark.parametrize("name", DEFAULTS)
def test_default_takes_arguments_of_the_hook_alone(name: str) -> None:
    assert set(inspect.signature(DEFAULTS[name]).parameters) <= set(ARGUMENTS[name])


def test_the_example_of_the_module_names_the_group_that_is_searched() -> None:
    from vlm_run.plugins.discovery import GROUP

    assert f'[project.entry-points."{GROUP}"]' in (hookspecs.__doc__ or "")
