"""Check the checkpoint and the training code against transformers, and transformers against vLLM.

For a slice of the validation examples: the template and tokenizer give the tokens that training saw,
the image processor gives the tiles, the forward pass gives the logits, every weight is loaded, and
greedy decoding in transformers and in vLLM gives the same answers. Padding and resizing leave at most
a level or two of 255 between Pillow's pixels and torchvision's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from anyres import PINPOINTS, layout
from batches import VALIDATION_SEED, Encoder, prompt_segments
from model import answer_logits, load_weights, new_model, tile_features
from tokenizers import Tokenizer
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from vlm_run import Conversation, Registry
from vlm_run_demo import CHECKPOINT
from vlm_run_demo.dialogues import Dialogue, Example, example, scored_dialogue
from vlm_run_demo.drawing import Scene
from vlm_run_demo.evaluate import ask, request
from vlm_run_demo.questions import Turn

ODD_SIZES = [(64, 64), (97, 64), (64, 97), (300, 77), (77, 300), (129, 200), (33, 500), (640, 480), (1, 1)]


def prompt_of(question: Example) -> str:
    """The prompt that vlm-run renders for a question."""
    conversation = Conversation.from_messages(request(question)["messages"])
    return Registry.load("demo-llava").render(conversation).text


def processed(processor: Any, question: Example, prompt: str) -> dict[str, torch.Tensor]:
    """What transformers' processor makes of a prompt and its pictures."""
    inputs = processor(text=prompt, images=question.images or None, return_tensors="pt")
    return dict(inputs)


def check_inputs_and_logits(
    processor: Any, model: LlavaNextForConditionalGeneration, talk: Dialogue
) -> float:
    """Compare tokens and logits of one dialogue; returns the largest difference of a logit."""
    encoder = Encoder(Tokenizer.from_file(str(Path(processor.tokenizer.name_or_path) / "tokenizer.json")))
    batch = encoder.batch([talk])
    whole = "".join(segment.text for segment in prompt_segments(talk))
    question = example("", talk)
    prompt = prompt_of(question)
    assert whole == f"{prompt} {question.answer}</s>", (whole, prompt)
    inputs = processed(processor, question, whole)
    length = inputs["input_ids"].shape[1]
    assert inputs["input_ids"][0].tolist() == batch.tokens[0, :length].tolist()
    with torch.no_grad():
        theirs = model(**inputs).logits[0, batch.places]
        ours = answer_logits(model, batch, tile_features(model, batch.tiles))
    return float((theirs - ours).abs().max())


def check_loading(checkpoint: Path) -> None:
    """Every weight of the file is read, and the file holds every weight."""
    _, info = LlavaNextForConditionalGeneration.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(info.values()), info


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--examples", type=int, default=60)
    arguments = parser.parse_args()
    checkpoint: Path = arguments.checkpoint

    check_loading(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert processor.image_processor.image_grid_pinpoints == PINPOINTS
    model = new_model(checkpoint).eval()
    load_weights(model, checkpoint / "model.safetensors")
    talks = [scored_dialogue(VALIDATION_SEED + i)[1] for i in range(arguments.examples)]
    odd = [
        Dialogue((Scene(*size, (90, 120, 60), 1.0, (0, 0), ()),), (Turn("How many shapes are there?", "2"),))
        for size in ODD_SIZES
    ]
    assert all(len(layout(*talk.pictures[0].size[::-1])) for talk in odd)
    differences = [check_inputs_and_logits(processor, model, talk) for talk in [*talks, *odd]]
    print(f"{len(differences)} dialogues: same tokens, logits within {max(differences):.3f}")

    questions = [example(*scored_dialogue(VALIDATION_SEED + i)) for i in range(arguments.examples)]
    prompts = [prompt_of(question) for question in questions]
    theirs = []
    model = model.to(torch.bfloat16)
    for question, prompt in zip(questions, prompts, strict=True):
        inputs = {
            name: value.to(torch.bfloat16) if value.is_floating_point() else value
            for name, value in processed(processor, question, prompt).items()
        }
        out = model.generate(**inputs, do_sample=False, max_new_tokens=32)
        text = processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        theirs.append(text.strip())
    with Registry.load("demo-llava", checkpoint=checkpoint).engine() as engine:
        ours = ask(engine, questions)
    same = sum(a == b for a, b in zip(theirs, ours, strict=True))
    print(f"{same} of {len(questions)} greedy answers are the same in transformers and vLLM")


if __name__ == "__main__":
    main()
