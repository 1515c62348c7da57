"""The miniature's tokenizer: byte-level BPE, with GLM-4.1V's special tokens under their real names.

python -m training.tokenizer tokenizer.json
"""

import argparse
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from . import batches, fonts

# In the order of the released model (ids 151329 to 151348 there), after the BPE pieces here.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<|begin_of_box|>",
    "<|end_of_box|>",
)
# The released model ends its turn on any of these four.
EOS_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>", "</answer>")
VOCAB_SIZE = 1536
CORPUS_GROUPS = 1500  # of ten or so exercises each
MAX_PIECE = 8  # characters; longer pieces are hard to read off a picture letter by letter


def build(corpus: Iterable[str]) -> Tokenizer:
    """Train the BPE on `corpus`; the vocabulary has exactly `VOCAB_SIZE` entries.

    Special tokens in the corpus only part its pieces.

    Raises:
        ValueError: The corpus holds too few different pieces.
    """
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    pieces = (piece for text in corpus for piece in special.split(text) if piece.strip())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=MAX_PIECE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    missing = VOCAB_SIZE - tokenizer.get_vocab_size()
    if missing:
        msg = f"the corpus is too small: {missing} of {VOCAB_SIZE} vocabulary entries are missing"
        raise ValueError(msg)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers and vLLM load them."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=8192,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)


def eos_ids(tokenizer: Tokenizer) -> Iterator[int]:
    """Ids of the tokens that end a turn."""
    return (batches.token_id(tokenizer, token) for token in EOS_TOKENS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    texts = batches.corpus(random.Random("tokenizer"), CORPUS_GROUPS, fonts.paths())
    build(texts).save(str(parser.parse_args().file))


if __name__ == "__main__":
    main()
