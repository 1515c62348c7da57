"""How the miniature is made: exercises, tokenizer, training, evaluation."""
