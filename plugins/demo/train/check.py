"""Check a checkpoint and the training code against transformers, and transformers against vLLM.

For a slice of the validation examples: the template and tokenizer give the tokens that training saw, the
image processor gives the tiles or patches, the forward pass gives the logits, every weight is loaded, and
greedy decoding in transformers and in vLLM gives the same answers. Padding and resizing leave at most
a level or two of 255 between Pillow's pixels and torchvision's.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch
from anyres import PINPOINTS
from batches import VALIDATION_SEED, Encoder
from families import CHECKPOINTS, FAMILIES
from qwen import VISION, sampled_frames
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, AutoProcessor
from weights import load_weights

from vlm_run import Conversation
from vlm_run_demo.boxes import scored_box_dialogue
from vlm_run_demo.clip_questions import scored_clip_dialogue
from vlm_run_demo.dialogues import Dialogue, Example, example, scored_dialogue
from vlm_run_demo.drawing import Scene
from vlm_run_demo.evaluate import MODEL_TYPES, ask, load, request
from vlm_run_demo.questions import Turn

ODD_SIZES = [(64, 64), (97, 64), (64, 97), (300, 77), (77, 300), (129, 200), (33, 500), (640, 480), (1, 1)]


class Checked:
    """A model type as training has it, `ours`, and as transformers has it, `theirs`."""

    def __init__(self, model_type: str, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.adapter = load(model_type, checkpoint)
        self.family = FAMILIES[model_type]
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.encoder = Encoder(self.family.FORMAT, Tokenizer.from_file(str(checkpoint / "tokenizer.json")))
        self.ours = self.family.new_model(checkpoint).eval()
        load_weights(self.ours, self.family.hub_name, checkpoint / "model.safetensors")
        theirs, info = AutoModelForImageTextToText.from_pretrained(
            checkpoint, output_loading_info=True, dtype=torch.float32, attn_implementation="sdpa"
        )
        # Every weight of the file is read, and the file holds every weight.
        assert not any(info.values()), info
        self.theirs = theirs.eval()

    def prompt_of(self, question: Example) -> str:
        """The prompt that vlm-run renders for a question."""
        return self.adapter.render_prompt(Conversation.from_messages(request(question)["messages"])).text

    def processed(self, question: Example, prompt: str) -> dict[str, torch.Tensor]:
        """What transformers' processor makes of a prompt, its images and the frames of its video."""
        videos = [sampled_frames(video).frames for video in question.videos]
        frames = {"videos": videos, "do_sample_frames": False} if videos else {}
        return dict(
            self.processor(text=prompt, images=question.images or None, **frames, return_tensors="pt")
        )

    def compare(self, talk: Dialogue) -> float:
        """Compare the tokens of a dialogue; returns the largest difference of a logit."""
        batch = self.encoder.batch([talk])
        pieces = [segment.text for segment in self.family.FORMAT.segments(talk)]
        question = example("", talk)
        prompt = self.prompt_of(question)
        assert "".join(pieces[:-1]) == prompt, (pieces, prompt)
        inputs = self.processed(question, "".join(pieces))
        length = inputs["input_ids"].shape[1]
        assert inputs["input_ids"][0].tolist() == batch.tokens[0, :length].tolist()
        with torch.no_grad():
            theirs = self.theirs(**inputs).logits[0, batch.places]
            ours = self.family.answer_logits(self.ours, batch, self.family.features(self.ours, batch))
        return float((theirs - ours).abs().max())

    def generated(self, question: Example) -> str:
        """The greedy answer of transformers."""
        inputs = self.processed(question, self.prompt_of(question))
        out = self.theirs.generate(**inputs, do_sample=False, max_new_tokens=32)
        answer = out[0, inputs["input_ids"].shape[1] :]
        text: str = self.processor.tokenizer.decode(answer, skip_special_tokens=True)
        return text.strip()


def check_sizes(processor: Any) -> None:
    """Training brings images to the sizes that the image processor does."""
    if (pinpoints := getattr(processor, "image_grid_pinpoints", None)) is not None:
        assert pinpoints == PINPOINTS
    else:
        facts = (processor.patch_size, processor.merge_size, *dict(processor.size).values())
        assert set(facts) >= {VISION.patch_size, VISION.merge_size, VISION.min_pixels, VISION.max_pixels}


def short_clips(count: int) -> list[Dialogue]:
    """Dialogues about clips of up to four seconds, which become as many rows of four by four tokens or more.

    Behind a video of more time steps than rows and columns, transformers 5.19 goes on with positions that the
    video has had; vLLM does not, nor did transformers 4, nor do we.
    """
    talks = (scored_clip_dialogue(VALIDATION_SEED + i)[1] for i in itertools.count())
    return list(itertools.islice((t for t in talks if t.clip is not None and t.clip.seconds <= 4), count))


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-type", choices=MODEL_TYPES, default=MODEL_TYPES[0])
    parser.add_argument("--checkpoint", type=Path, help="weights other than those of the plugin")
    parser.add_argument("--examples", type=int, default=60)
    arguments = parser.parse_args()
    checked = Checked(arguments.model_type, arguments.checkpoint or CHECKPOINTS[arguments.model_type])

    check_sizes(checked.processor.image_processor)
    talks = [scored_dialogue(VALIDATION_SEED + i)[1] for i in range(arguments.examples)]
    odd = [
        Dialogue((Scene(*size, (90, 120, 60), 1.0, (0, 0), ()),), (Turn("How many shapes are there?", "2"),))
        for size in ODD_SIZES
    ]
    compared = {"dialogues": [*talks, *odd]}
    questions = [example(*scored_dialogue(VALIDATION_SEED + i)) for i in range(arguments.examples)]
    if checked.adapter.spec.video:
        boxes = [scored_box_dialogue(VALIDATION_SEED + i)[1] for i in range(arguments.examples // 2)]
        clips = short_clips(arguments.examples // 2)
        compared |= {"boxes": boxes, "videos": clips}
        questions += [example("", talk) for talk in (*boxes, *clips)]
    for name, those in compared.items():
        differences = [checked.compare(talk) for talk in those]
        print(f"{len(those)} {name}: same tokens, logits within {max(differences):.3f}", flush=True)
    theirs = [checked.generated(question) for question in questions]
    # In bfloat16 a coordinate of a box depends on the order in which sums are taken.
    with checked.adapter.engine(dtype="float32") as engine:
        ours = ask(engine, questions)
    same = sum(a == b for a, b in zip(theirs, ours, strict=True))
    print(f"{same} of {len(questions)} greedy answers are the same in transformers and vLLM")


if __name__ == "__main__":
    main()
