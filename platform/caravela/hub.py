"""Data sets on the Hugging Face Hub: what ``hf://`` URIs name, and where their bytes are.

In: ``hf://datasets/<owner>/<name>[@<revision>]/<path>``, where the path may be a glob. Out: files with size and version
(the SHA-256 or git id of the content), and for each the URL that ``caravela.web`` reads by ranges.

``HF_ENDPOINT`` names another Hub; ``HF_TOKEN``, or the token that ``hf auth login`` stores, opens what is not public.
Why not huggingface_hub's file system: the Hub is asked for its listings without any time-out there (version 2.4).
"""

import functools
import json
import os
import re
from dataclasses import dataclass
from urllib.parse import quote

import huggingface_hub

from caravela import web
from caravela.web import WebFile

FORM = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@((?:refs/(?:convert|pr)/)?[^/]+))?/(.+)")
EXPECTED = "expected hf://datasets/<owner>/<name>[@<revision>]/<path>"
NEXT_PAGE = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


@dataclass(frozen=True)
class HubPath:
    """A parsed ``hf://`` URI."""

    repository: str
    revision: str
    path: str
    prefix: str
    """The URI up to the path."""

    @property
    def url(self) -> str:
        revision = quote(self.revision, safe="")
        return f"{_endpoint()}/datasets/{self.repository}/resolve/{revision}/{quote(self.path)}"


def parse(uri: str) -> HubPath:
    """The parts of a URI; a branch or a path below ``refs/`` may be given as ``@refs%2Fconvert%2Fparquet`` too.

    Raises:
        OSError: it is not of the expected form.
    """
    match = FORM.fullmatch(uri)
    if match is None:
        raise OSError(EXPECTED)
    revision = (match[2] or "main").replace("%2F", "/").replace("%2f", "/")
    return HubPath(match[1], revision, match[3], uri[: match.start(3)])


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def headers() -> dict[str, str]:
    """What opens a data set that is not public. On a redirect to another host it is left out."""
    token = huggingface_hub.get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def stat(uri: str) -> WebFile:
    """Size and version of one file.

    Raises:
        FileNotFoundError: the data set has no such file.
        OSError: the Hub cannot be reached or refuses.
    """
    where = parse(uri)
    folder = where.path.rpartition("/")[0]
    found = _listing(_endpoint(), where.repository, where.revision, folder, False, os.getpid())
    if where.path not in found:
        raise FileNotFoundError(f"{uri}: no such file in the data set")
    return found[where.path]


def find(uri: str, folder: str) -> list[str]:
    """The URIs of all files in a folder of the data set that ``uri`` names, and below; an absent folder is empty."""
    where = parse(uri)
    try:
        found = _listing(_endpoint(), where.repository, where.revision, folder, True, os.getpid())
    except FileNotFoundError:
        return []
    return sorted(where.prefix + path for path in found)


@functools.lru_cache(maxsize=64)
def _listing(
    endpoint: str, repository: str, revision: str, folder: str, recursive: bool, process_id: int
) -> dict[str, WebFile]:
    """Kept for the life of the process: a data set of a thousand files is asked for once, not a thousand times."""
    below = f"/{quote(folder)}" if folder else ""
    url = f"{endpoint}/api/datasets/{repository}/tree/{quote(revision, safe='')}{below}"
    url += "?recursive=true" if recursive else ""
    files: dict[str, WebFile] = {}
    while url:
        body, answer = web.read_all(url, headers())
        try:
            for entry in json.loads(body):
                if entry["type"] == "file":
                    version = (entry.get("lfs") or {}).get("oid") or entry["oid"]
                    files[entry["path"]] = WebFile(int(entry["size"]), version)
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"the Hub answers with what is no listing: {error!r}") from error
        match = NEXT_PAGE.search(answer.get("Link", ""))
        url = match[1] if match else ""
        if url and not url.startswith(f"{endpoint}/"):
            raise OSError(f"the Hub's listing goes on at {web.shown(url)}: not followed, the token is not for others")
    return files
