"""A reader of HTML for tests."""

import html.parser


class Reader(html.parser.HTMLParser):
    """Reads a page as a browser would, and refuses tags that are not closed in order."""

    def __init__(self, page_text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.titled_images = 0
        self.feed(page_text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "title" and self.open[-1] == "svg":
            self.titled_images += 1
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
