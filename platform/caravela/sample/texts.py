"""The original texts of the sample: one file each, ``texts/<language>/<register>/<slug>.txt``.

A file holds the title, a blank line, and paragraphs with blank lines between them. ``<language>`` is ``pt-BR``,
``pt-PT`` or an ISO 639-1 code.
"""

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, kw_only=True)
class Text:
    """One original text. ``key`` is its path without the ending, and the name of the cluster of its copies."""

    key: str
    locale: str
    """``pt-BR``, ``pt-PT`` or a language code; the section of furniture.toml that its pages use."""
    register: str
    slug: str
    title: str
    paragraphs: tuple[str, ...]

    @property
    def language(self) -> str:
        return self.locale.partition("-")[0]

    @property
    def body(self) -> str:
        """What perfect extraction gives: the paragraphs, one a line, without the title."""
        return "\n".join(self.paragraphs)


@functools.cache
def load_texts() -> tuple[Text, ...]:
    """All texts, sorted by key."""
    found = []
    for locale in (resources.files(__package__) / "texts").iterdir():
        for register in locale.iterdir():
            for file in register.iterdir():
                if file.name.endswith(".txt"):
                    found.append(_parse(file.read_text(encoding="utf-8"), locale.name, register.name, file.name[:-4]))
    return tuple(sorted(found, key=lambda text: text.key))


def _parse(content: str, locale: str, register: str, slug: str) -> Text:
    title, *paragraphs = (block.strip() for block in content.strip().split("\n\n"))
    assert paragraphs, f"{locale}/{register}/{slug}: expected a title, a blank line and paragraphs"
    return Text(
        key=f"{locale}/{register}/{slug}",
        locale=locale,
        register=register,
        slug=slug,
        title=title,
        paragraphs=tuple(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph),
    )


def fingerprint_of_texts() -> str:
    """Sixteen hexadecimal digits that change with any text, so that a finished crawl of older texts is not reused."""
    digest = hashlib.sha256()
    for text in load_texts():
        digest.update("\0".join([text.key, text.title, text.body, ""]).encode("utf-8"))
    return digest.hexdigest()[:16]
