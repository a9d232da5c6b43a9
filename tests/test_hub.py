"""Data sets of the Hugging Face Hub, against a stand-in on loopback that huggingface_hub's own client understands."""

import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from caravela import hub, storage
from caravela.storage import StorageError
from tests.conftest import Web

FILES = ("README.md", "data/train-0.parquet", "data/train-1.parquet", "data/a b/x.jsonl", "data/test.jsonl.gz")


@pytest.fixture
def dataset(web: Web, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data set ``owner/name`` on a Hub of our own."""
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setenv("HF_TOKEN", "secret")
    folder = web.folder / "datasets" / "owner" / "name"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"content of {name}".encode())
    return folder


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("hf://datasets/o/n/a.parquet", ("o/n", "main", "a.parquet")),
        ("hf://datasets/o/n@v1.0/data/*.parquet", ("o/n", "v1.0", "data/*.parquet")),
        ("hf://datasets/o/n@refs/convert/parquet/d/0.parquet", ("o/n", "refs/convert/parquet", "d/0.parquet")),
        ("hf://datasets/o/n@refs%2Fpr%2F1/a.parquet", ("o/n", "refs/pr/1", "a.parquet")),
    ],
)
def test_uri_parts(uri: str, parts: tuple[str, str, str]) -> None:
    found = hub.parse(uri)
    assert (found.repository, found.revision, found.path) == parts
    assert found.prefix + found.path == uri


@pytest.mark.parametrize(
    "uri", ["hf://owner/name/a", "hf://datasets/name/", "hf://datasets/o/n", "hf://datasets/o/n@v/"]
)
def test_uri_of_another_form_is_one_line(uri: str) -> None:
    with pytest.raises(StorageError, match=r"expected hf://datasets/<owner>/<name>\[@<revision>\]/<path>$"):
        storage.glob(uri)


def test_url_quotes_revision_and_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    url = hub.parse("hf://datasets/o/n@refs/pr/1/a b#.parquet").url
    assert url == "https://huggingface.co/datasets/o/n/resolve/refs%2Fpr%2F1/a%20b%23.parquet"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("data/*.parquet", ["data/train-0.parquet", "data/train-1.parquet"]),
        ("data/train-?.parquet", ["data/train-0.parquet", "data/train-1.parquet"]),
        ("data/train-[1-9].parquet", ["data/train-1.parquet"]),
        ("**/*.jsonl", ["data/a b/x.jsonl"]),
        ("**", sorted(FILES)),
        ("*", ["README.md"]),
        ("README.md", ["README.md"]),
        ("absent.md", []),
        ("absent/*", []),
        ("data", []),
    ],
)
def test_glob_names_files_and_no_folders(dataset: Path, pattern: str, found: list[str]) -> None:
    base = "hf://datasets/owner/name/"
    assert storage.glob(base + pattern) == [base + name for name in found]


def test_stand_in_lists_for_the_hubs_own_client_what_it_lists_for_us(dataset: Path, web: Web) -> None:
    theirs = HfApi(endpoint=web.url, token="secret").list_repo_tree("owner/name", repo_type="dataset", recursive=True)
    expected = {entry.path: entry for entry in theirs if hasattr(entry, "blob_id")}
    uris = storage.glob("hf://datasets/owner/name/**")
    assert [uri.removeprefix("hf://datasets/owner/name/") for uri in uris] == sorted(expected)
    for uri in uris:
        entry = expected[uri.removeprefix("hf://datasets/owner/name/")]
        version = entry.lfs.sha256 if entry.lfs else entry.blob_id
        assert storage.stat(uri) == {"size": entry.size, "version": version}


def test_read_range_and_stat(dataset: Path, web: Web) -> None:
    uri = "hf://datasets/owner/name/data/a b/x.jsonl"
    assert storage.read_bytes(uri) == b"content of data/a b/x.jsonl"
    web.requests()
    assert storage.read_range(uri, 3, 7) == b"tent"
    assert [(request["status"], request["bytes"]) for request in web.requests()] == [(206, 4)]
    content = (dataset / "data/train-0.parquet").read_bytes()
    found = storage.stat("hf://datasets/owner/name@main/data/train-0.parquet")
    assert found == {"size": len(content), "version": hashlib.sha256(content).hexdigest()}


def test_private_data_set_opens_for_the_token_alone(web: Web, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = web.folder / "datasets" / "private" / "name"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text(json.dumps({"text": "x"}))
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert storage.glob("hf://datasets/private/name/*.jsonl") == []
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert storage.glob("hf://datasets/private/name/*.jsonl") == ["hf://datasets/private/name/a.jsonl"]


def test_missing_data_set_is_file_not_found(dataset: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("hf://datasets/owner/absent/a.jsonl")
