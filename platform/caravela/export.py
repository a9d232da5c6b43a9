"""Stage ``export``: the trained model as a Hugging Face folder, checked before it is put in place.

In: the pretrain stage (``model.safetensors``, ``model.json``) and the tokenizer; the evaluation, if there is one, for
the card. Out, at the top of the stage's directory, which is what ``from_pretrained`` takes: ``config.json``,
``generation_config.json``, ``model.safetensors``, ``tokenizer.model`` (where the run has one of SentencePiece),
``tokenizer.json``, ``tokenizer_config.json`` and the model card ``README.md``.

Nothing is committed unless transformers loads the folder with equal logits and equal token ids (model/hugging_face.py).
torch and transformers are loaded where the work is done and not in the driver, which only plans.
"""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from caravela.config import ConfigError, to_dict
from caravela.data import tokenizer as tokenizers
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.model.config import ModelConfig, num_parameters
from caravela.model.families import family_of
from caravela.stages import Shard, ShardOutput, Stage, finished

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How the model is handed on."""

    enabled: bool = True
    """Whether the road ends with an export; false is for a model that transformers has no class for."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the weights on disk; bfloat16 halves the file and is what most models are used in."""
    name: str = "caravela"
    """The model's name, for its card."""
    language: str = "pt"
    """Of the card: ISO 639-1."""
    license: str = "unknown"
    """Of the card: an identifier that the Hugging Face Hub knows, such as ``apache-2.0``."""
    description: str = ""
    """A paragraph for the card: what the model is for, what it was trained on."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError(f"name = {self.name!r}: expected a name for the model card")


def export_stage(
    root: str, config: ExportConfig, pretrain: Input, tokenizer: Input, evaluate: Input | None = None
) -> Stage:
    """The stage; its inputs need not be finished before it runs."""
    inputs = (pretrain, tokenizer) if evaluate is None else (pretrain, tokenizer, evaluate)
    return Stage(
        name="export",
        version=1,
        root=root,
        config={name: value for name, value in to_dict(config).items() if name != "enabled"},
        inputs=inputs,
        plan=lambda: [Shard(index=0, name="model", spec={})],
        make_worker=functools.partial(Export, config=config, pretrain=pretrain, tokenizer=tokenizer, evaluate=evaluate),
        finish=functools.partial(_summary, config),
    )


def require_class(model: ModelConfig) -> None:
    """Says before training, and not after it, that there can be no export.

    Raises:
        ConfigError: transformers has no class for the model.
    """
    try:
        family_of(model)
    except UserError as error:
        raise ConfigError(f"export.enabled = true: {error}; false trains the model without an export") from None


def _summary(config: ExportConfig, records: Sequence[ShardRecord], directory: str) -> Mapping[str, Any]:
    return {
        "dtype": config.dtype,
        "parameters": records[0].counters["parameters"],
        "bytes": sum(file.bytes for file in records[0].files),
    }


@dataclass(frozen=True, kw_only=True)
class Export:
    """The worker of the stage."""

    config: ExportConfig
    pretrain: Input
    tokenizer: Input
    evaluate: Input | None = None

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        # Here and not at the top: the driver imports this module and must not wait for torch and transformers.
        from caravela.model import hugging_face, weights

        training = finished(self.pretrain).summary
        evaluation = finished(self.evaluate).summary if self.evaluate else {}
        model = weights.load_model(self.pretrain.uri)
        folder = os.path.dirname(out.local_path(CARD))
        given = os.path.join(out.folder, "given-tokenizer")
        os.mkdir(given)
        tokenizer_path = tokenizers.fetch(finished(self.tokenizer).uri, given)
        hugging_face.write_folder(model, tokenizer_path, self.config.dtype, folder)
        with open(os.path.join(folder, CARD), "w", encoding="utf-8") as file:
            file.write(model_card(self.config, model.config, {"Training": training, "Held-out text": evaluation}))
        hugging_face.verify_folder(folder, model, tokenizer_path, self.config.dtype)
        for name in hugging_face.FILES:
            if os.path.exists(os.path.join(folder, name)):
                out.local_path(name)
        return {"parameters": num_parameters(model.config)}


def model_card(config: ExportConfig, model: ModelConfig, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The card in Markdown; ``figures`` are tables by heading, of which numbers and words are shown."""
    shape = {
        "parameters": num_parameters(model),
        "layers": model.num_layers,
        "hidden size": model.hidden_size,
        "feed-forward size": model.feed_forward_size,
        "heads (keys and values)": f"{model.num_heads} ({model.num_kv_heads})",
        "vocabulary": model.vocabulary_size,
        "context": model.max_positions,
        "tied embeddings": "yes" if model.tied_embeddings else "no",
        "weights": config.dtype,
    }
    head = {"language": config.language, "license": config.license, "library_name": "transformers"}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items())]
    lines += ["pipeline_tag: text-generation", "---", "", f"# {config.name}", ""]
    if config.description:
        lines += [config.description, ""]
    lines += ["A decoder, pretrained with Caravela.", "", "## Use", "", USE, ""]
    for heading, table in {"Shape": shape, **figures}.items():
        if rows := _table(table):
            lines += [f"## {heading}", "", "| | |", "|---|---:|", *rows, ""]
    return "\n".join([*lines, NOTES, ""])


def _table(figures: Mapping[str, Any]) -> list[str]:
    rows = []
    for key, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        shown = value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
        rows.append(f"| {key.replace('_', ' ')} | {shown} |")
    return rows


USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where these files are
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer("Era uma vez", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0], skip_special_tokens=True))
```"""

NOTES = """## Notes

A base model: it continues text and was not taught to follow instructions; it repeats what its training text holds,
errors and prejudices included. Each training document was encoded as `<s>`, its text, `</s>`. When this folder was
written, it was loaded with transformers and gave the logits of the trained model (with its weights rounded as stated
under Shape) and the token ids of training. One difference is meant: a text that spells out a control token, such as
`<s>`, is read as that token here, and was plain text in training."""
