"""A ``tokenizer.json`` of the kind that Llama 3 has, trained here: byte-level BPE behind a regular expression."""

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

BEGIN, END, TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(texts: Sequence[str], pieces: int = 600, fillers: int = 0, prefix: bool = False) -> str:
    """The file's content. ``fillers`` pieces that no text becomes stand before those that were learnt."""
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=pieces, initial_alphabet=alphabet, show_progress=False)
    )
    content = json.loads(made.to_str())
    content["model"]["vocab"] = {
        **{f"filler {i}": i for i in range(fillers)},
        **{piece: number + fillers for piece, number in content["model"]["vocab"].items()},
    }
    made = tokenizers.Tokenizer.from_str(json.dumps(content))
    made.add_special_tokens([BEGIN, END, TURN])
    made.add_tokens(["<nome>"])
    made.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN}:1 $B:1", special_tokens=[(BEGIN, made.token_to_id(BEGIN))]
    )
    made.enable_truncation(20)  # as some are published; packing must not cut
    return made.to_str()


def write(folder: Path, content: str, **config: object) -> str:
    """The file and, if anything is to be in it, ``tokenizer_config.json`` beside it; gives the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(content, "utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return str(folder / "tokenizer.json")
