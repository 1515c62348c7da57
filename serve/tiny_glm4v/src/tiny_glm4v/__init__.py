"""A trained miniature of GLM-4.1V-Thinking: 11 M parameters that read small pictures.

The checkpoint is an ordinary `Glm4vForConditionalGeneration` folder; its model card is the
distribution's README.
"""

from pathlib import Path

__all__ = ["checkpoint_path"]


def checkpoint_path() -> Path:
    """Folder of the checkpoint: weights, configurations, tokenizer, processor, chat template."""
    return Path(__file__).parent / "checkpoint"
