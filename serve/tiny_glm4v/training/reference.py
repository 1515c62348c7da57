"""The miniature in transformers, in this process: what vLLM's answers are compared with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from langchain_glm4v.server.entrypoint import declare_torchvision_operators

from .sample import Sample
from .videos import FRAMES

# Before the first class of transformers is asked for: only then does it import torchvision.
declare_torchvision_operators()


def media(sample: Sample) -> dict[str, Any]:
    """What the processor takes beside the text: pictures, or frames and when they are."""
    if not sample.clip:
        return {"images": [Image.fromarray(p.pixels) for p in sample.pictures] or None}
    frames = np.concatenate([step.pixels for step in sample.clip.steps])
    # at FRAMES frames a second: the two of a step, then those of the next one's second
    numbers = [FRAMES * second + k for second in sample.clip.seconds for k in range(FRAMES)]
    metadata = {
        "total_num_frames": numbers[-1] + 1,
        "fps": FRAMES,
        "frames_indices": numbers,
    }
    return {"videos": [frames], "video_metadata": [metadata], "do_sample_frames": False}


class Reference:
    """Greedy answers of a checkpoint folder, one sample at a time, in float32."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)  # threads wait longer for each other than they compute
        self.processor = transformers.AutoProcessor.from_pretrained(checkpoint)
        self.model = transformers.Glm4vForConditionalGeneration.from_pretrained(
            checkpoint, dtype=torch.float32
        ).eval()

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> str:
        """The raw output for one exercise, special tokens and all."""
        prompt = self.processor.apply_chat_template(
            sample.messages, add_generation_prompt=True, tokenize=False
        )
        inputs = self.processor(text=[prompt], **media(sample), return_tensors="pt")
        made = self.model.generate(**inputs, max_new_tokens=600, do_sample=False)
        output: str = self.processor.decode(
            made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=False
        )
        return output
