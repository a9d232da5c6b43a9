"""Text from an exported model: what it writes after a prompt. The model is a folder or s3:// prefix of stage export."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from caravela import storage
from caravela.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, metavar="URI", help="directory of the export stage")
    parser.add_argument("--prompt", action="append", required=True, help="may be given several times")
    parser.add_argument("--max-new-tokens", type=int, default=60)
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the most probable token")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            local = fetched(options.model, folder)
            tokenizer = AutoTokenizer.from_pretrained(local, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(local, local_files_only=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sampling = {"do_sample": options.temperature > 0, "temperature": options.temperature or None}
    set_seed(options.seed)
    for prompt in options.prompt:
        inputs = tokenizer(prompt, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=options.max_new_tokens, **sampling)
        print(tokenizer.decode(tokens[0], skip_special_tokens=True), end="\n\n")
    return 0


def fetched(uri: str, folder: str) -> str:
    """A local folder with the model's files."""
    files = storage.list_files(uri)
    if not any(storage.name_of(file) == "config.json" for file in files):
        raise UserError(
            f"{uri}: no exported model here (config.json is missing); see the table that the pipeline prints"
        )
    if not storage.is_remote(uri):
        return uri
    for file in files:
        storage.fetch(file, os.path.join(folder, storage.name_of(file)))
    return folder


if __name__ == "__main__":
    sys.exit(main())
