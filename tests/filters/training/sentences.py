"""Sentences of the sample texts, by language: what the tests of training learn from."""

import functools
import re
from pathlib import Path

SAMPLE_TEXTS = Path(__file__).parents[3] / "platform/caravela/sample/texts"


@functools.cache
def sentences(language: str) -> tuple[str, ...]:
    """Different sentences of five words or more, in a fixed order; ``pt`` is both variants."""
    folders = ("pt-BR", "pt-PT") if language == "pt" else (language,)
    paths = sorted(path for folder in folders for path in (SAMPLE_TEXTS / folder).rglob("*.txt"))
    texts = (path.read_text(encoding="utf-8") for path in paths)
    found = (" ".join(part.split()) for text in texts for part in re.split(r"(?<=[.!?])\s+|\n+", text))
    return tuple(dict.fromkeys(sentence for sentence in found if len(sentence.split()) >= 5))
