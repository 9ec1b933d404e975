"""InternVL3 for vlm-run, as OpenGVLab publishes it in transformers' format."""

from math import prod

from vlm_run import ModelSpec, hookimpl

vlm_run_contract = ">=1,<2"
GRIDS = [(x, y) for x in range(1, 13) for y in range(1, 13) if x * y <= 12]  # max_patches
SPEC = ModelSpec(
    model_type="example-internvl3-1b",
    hf_id="OpenGVLab/InternVL3-1B-hf",
    architecture="InternVLForConditionalGeneration",
    chat_template="internvl.jinja",
    image_placeholder="<IMG_CONTEXT>",
    control_tokens=("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<video>"),
    stop=("<|im_end|>",),
    engine_kwargs={"max_model_len": 8192, "limit_mm_per_prompt": {"video": 0}},
)


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [SPEC]


@hookimpl
def count_image_tokens(width: int, height: int) -> int:
    # As in transformers' get_optimal_tiled_canvas: of the grids of 448-pixel tiles whose aspect ratio is
    # closest to the image's, the largest that has at most twice its area.
    def rank(grid: tuple[int, int]) -> tuple[float, int]:
        fits = prod(grid) * 448 * 448 < 2 * width * height
        return abs(width / height - grid[0] / grid[1]), -prod(grid) if fits else prod(grid)

    grid = min(GRIDS, key=rank)
    return 256 * (prod(grid) + (grid != (1, 1))) + 2  # several tiles get a thumbnail; <img> and </img>
