"""Stage export: what transformers loads from it equals what was trained."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import export_hf
from caravela import storage
from caravela.config import ConfigError, build, load
from caravela.errors import UserError
from caravela.export import ExportConfig, export_stage, model_card
from caravela.manifest import Manifest
from caravela.model import hugging_face, weights
from caravela.model.transformer import Decoder
from road import RoadConfig, road
from tests.road_without_ray import finish
from tests.running import REPOSITORY
from tests.toy_run import TOY, pretrain_input, sample_texts, sentencepiece_model, tokenizer_input

LEARNT = sample_texts()[:4]
TEXTS = [
    *sample_texts("pt-BR/encyclopedia"),
    *sample_texts("es/howto"),
    *hugging_face.TEXTS,
    "  dois espaços  ",
    "\n",
    "\t",
    "   ",
    "a\tb\r\nc\n\n\nd",
    "ÀÉÎÕÜ ç ñ ß",
    "\U0001f1e7\U0001f1f7 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "0123456789 3,14 1e-5",
    "zero\u200bwidth\u00a0nbsp\u3000ideographic",
]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer_bytes(request: pytest.FixtureRequest) -> bytes:
    return sentencepiece_model(LEARNT, model_type=request.param)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def scatter(model: Decoder) -> None:
    """Biases and norms away from 0 and 1, so that one that is lost shows."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter += torch.randn(parameter.shape, generator=generator) * 0.3


def exported(root: str, tokenizer: bytes, config: ExportConfig, **changes: Any) -> Manifest:
    summary = {"steps": 12, "final_loss": 3.25}
    pretrain = pretrain_input(root, dataclasses.replace(TOY, **changes), summary, scatter)
    return finish(export_stage(root, config, pretrain, tokenizer_input(root, tokenizer)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied_embeddings": True},
        {"attention_bias": True, "mlp_bias": True, "rope_theta": 500.0},
        {"norm": "layer", "norm_bias": True, "feed_forward": "gelu", "attention_bias": True, "mlp_bias": True},
    ],
    ids=str,
)
def test_transformers_gives_equal_logits(tmp_path: pathlib.Path, dtype: Any, changes: dict[str, Any]) -> None:
    root = str(tmp_path)
    done = exported(root, sentencepiece_model(LEARNT), ExportConfig(dtype=dtype), **changes)
    theirs = AutoModelForCausalLM.from_pretrained(done.uri)
    assert theirs.dtype == getattr(torch, dtype)
    ours = weights.load_model(done.inputs[0].uri)
    ours = ours.to(theirs.dtype).float()
    tokens_BT = torch.randint(640, (3, 48), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        difference = (ours(tokens_BT) - theirs.float()(tokens_BT).logits).abs().max().item()
    assert difference <= 1e-5
    assert done.counters == {"parameters": sum(parameter.numel() for parameter in theirs.parameters())}


def test_multipliers_are_folded_into_the_weights(tmp_path: pathlib.Path) -> None:
    """Into bfloat16 too, where the folded weights are rounded and not the trained ones."""
    changes = {"mup_base_hidden_size": 8, "embedding_multiplier": 3.0, "attention_scale": "full"}
    for dtype, most in (("float32", 1e-5), ("bfloat16", 0.02)):
        root = str(tmp_path / dtype)
        done = exported(root, sentencepiece_model(LEARNT), build(ExportConfig, {"dtype": dtype}, ""), **changes)
        theirs = AutoModelForCausalLM.from_pretrained(done.uri, dtype=torch.float32)
        ours = weights.load_model(done.inputs[0].uri)
        tokens_BT = torch.randint(640, (3, 48), generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            ours_BTV = ours(tokens_BT)
            difference = (ours_BTV - theirs(tokens_BT).logits).abs().max() / ours_BTV.abs().max()
        assert difference.item() <= most, dtype


def test_a_model_without_a_class_in_transformers_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"transformers has no class for this model; .* positions = rotary"):
        exported(str(tmp_path), sentencepiece_model(LEARNT), ExportConfig(), positions="alibi")
    assert not storage.list_files(str(tmp_path / "export"))


def test_the_road_says_before_training_that_a_model_has_no_class(tmp_path: pathlib.Path) -> None:
    demo = str(REPOSITORY / "jobs/configs/demo.toml")
    alibi = [f"root={tmp_path}", "model.positions=alibi"]
    with pytest.raises(
        ConfigError, match=r"export\.enabled = true: transformers has no class .* needs positions = rot"
    ):
        road(load(RoadConfig, demo, alibi))
    stages = road(load(RoadConfig, demo, [*alibi, "export.enabled=false"]))
    assert "export" not in stages
    assert list(stages)[-2:] == ["evaluate", "report"]
    with pytest.raises(ConfigError, match=r"export\.enabled = false: expected true for this job"):
        export_hf._choose(load(RoadConfig, demo, ["export.enabled=false"]))


def test_transformers_gives_equal_ids_and_the_text_back(tmp_path: pathlib.Path, tokenizer_bytes: bytes) -> None:
    done = exported(str(tmp_path), tokenizer_bytes, ExportConfig())
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_bytes)
    tokenizer = AutoTokenizer.from_pretrained(done.uri)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    for text in TEXTS:
        assert tokenizer(text).input_ids == [1, *processor.encode(text)], text
        assert tokenizer.encode(text, add_special_tokens=False) == processor.encode(text), text
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_the_same_ids_come_from_tokenizer_json_alone(tmp_path: pathlib.Path, tokenizer_bytes: bytes) -> None:
    """For programs that read nothing but this file (text-generation servers, Rust)."""
    done = exported(str(tmp_path / "run"), tokenizer_bytes, ExportConfig())
    alone = hugging_face.Tokenizer.from_file(os.path.join(done.uri, "tokenizer.json"))
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_bytes)
    for text in TEXTS:
        assert alone.encode(text).ids == [1, *processor.encode(text)], text


SYMBOLS = {
    "user_defined_symbols": ["[NOME]", "<cpf>", "ção", "çãozinha", "R$"],
    "control_symbols": ["<|im_start|>", "<|im_end|>"],
}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_symbols_are_one_token_of_the_same_id_everywhere(tmp_path: pathlib.Path, kind: str) -> None:
    model = sentencepiece_model(LEARNT, model_type=kind, **SYMBOLS)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    done = exported(str(tmp_path), model, ExportConfig())
    loaded = AutoTokenizer.from_pretrained(done.uri)
    alone = hugging_face.Tokenizer.from_file(os.path.join(done.uri, "tokenizer.json"))
    assert len(loaded) == alone.get_vocab_size() == 640
    for symbol in [*SYMBOLS["user_defined_symbols"], *SYMBOLS["control_symbols"]]:
        number = processor.piece_to_id(symbol)
        assert loaded(symbol, add_special_tokens=False).input_ids == [number]
        assert alone.encode(symbol, add_special_tokens=False).ids == [number]
    for symbol in SYMBOLS["user_defined_symbols"]:
        assert processor.encode(symbol) == [processor.piece_to_id(symbol)]
    generator = random.Random(7)
    pieces = [*SYMBOLS["user_defined_symbols"], " ", "  ", "\n", "can", "ç", "ã", "o", "NOME]", "[", "R", "$ 12,5", "é"]
    for _ in range(500):
        text = "".join(generator.choices(pieces, k=generator.randrange(12)))
        assert loaded(text).input_ids == alone.encode(text).ids == [1, *processor.encode(text)], text
        assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_chat_symbols_are_control_tokens(tmp_path: pathlib.Path, kind: str) -> None:
    """Text that spells one out is text in training, is the token in the export, and is not shown when decoded."""
    model = sentencepiece_model(LEARNT, model_type=kind, **SYMBOLS)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    start, end = (processor.piece_to_id(symbol) for symbol in SYMBOLS["control_symbols"])
    assert not {start, end} & set(processor.encode("<|im_start|>user\nOlá<|im_end|>"))
    loaded = AutoTokenizer.from_pretrained(exported(str(tmp_path), model, ExportConfig()).uri)
    ids = loaded("<|im_start|>user\nOlá<|im_end|>").input_ids
    assert ids == [1, start, *processor.encode("user\nOlá"), end]
    assert loaded.decode(ids, skip_special_tokens=True) == "user\nOlá"
    assert {"<|im_start|>", "<|im_end|>"} <= set(loaded.all_special_tokens)


def test_generation_continues_a_prompt(tmp_path: pathlib.Path, tokenizer_bytes: bytes) -> None:
    done = exported(str(tmp_path), tokenizer_bytes, ExportConfig())
    tokenizer = AutoTokenizer.from_pretrained(done.uri)
    inputs = tokenizer("Era uma vez", return_tensors="pt")
    output = AutoModelForCausalLM.from_pretrained(done.uri).generate(**inputs, max_new_tokens=5)
    assert output.shape[1] <= inputs["input_ids"].shape[1] + 5
    assert tokenizer.decode(output[0], skip_special_tokens=True).startswith("Era uma vez")


def test_the_folder_holds_what_is_promised_and_comes_out_the_same_twice(tmp_path: pathlib.Path) -> None:
    model = sentencepiece_model(LEARNT)
    one, other = (exported(str(tmp_path / name), model, ExportConfig(), tied_embeddings=True) for name in "ab")
    files = {file.path: file.sha256 for file in one.files("files")}
    assert set(files) == {*hugging_face.FILES, "README.md"}
    assert files == {file.path: file.sha256 for file in other.files("files")}
    assert one.summary["bytes"] == sum(file.bytes for file in one.files("files"))
    with safe_open(os.path.join(one.uri, "model.safetensors"), "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - not a dict
    config = json.loads(storage.read_text(storage.join(one.uri, "config.json")))
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    for name in files:
        if name != "model.safetensors":
            assert str(tmp_path) not in storage.read_bytes(storage.join(one.uri, name)).decode("latin-1")


def test_the_card_holds_the_figures(tmp_path: pathlib.Path) -> None:
    config = ExportConfig(name="toy-1m", license="apache-2.0", description="Um modelo de brinquedo.")
    done = exported(str(tmp_path), sentencepiece_model(LEARNT), config)
    card = storage.read_text(storage.join(done.uri, "README.md"))
    head, body = card.split("---\n")[1:]
    assert head.splitlines() == [
        'language: "pt"',
        'license: "apache-2.0"',
        'library_name: "transformers"',
        "pipeline_tag: text-generation",
    ]
    assert "# toy-1m\n\nUm modelo de brinquedo.\n" in body
    for row in (
        "| final loss | 3.2500 |",
        "| steps | 12 |",
        "| vocabulary | 640 |",
        "| heads (keys and values) | 4 (2) |",
    ):
        assert row in body
    assert "Held-out text" not in body  # there was no evaluation


def test_the_card_shows_numbers_and_words_only() -> None:
    figures = {"loss": 2.5, "tokens": 12345, "note": "a", "samples": [{"prompt": "p"}], "flag": True, "none": None}
    card = model_card(ExportConfig(), TOY, {"Held-out text": figures})
    rows = card.split("## Held-out text")[1].split("## Notes")[0].split("|---|---:|\n")[1].strip().splitlines()
    assert rows == ["| loss | 2.5000 |", "| tokens | 12,345 |", "| note | a |"]


def test_a_tokenizer_that_transformers_splits_differently_is_refused(tmp_path: pathlib.Path) -> None:
    model = sentencepiece_model(LEARNT, remove_extra_whitespaces=True, add_dummy_prefix=True)
    with pytest.raises(hugging_face.ExportError, match="split differently from token"):
        exported(str(tmp_path), model, ExportConfig())
    assert not storage.list_files(str(tmp_path / "export"))


@pytest.fixture
def written(tmp_path: pathlib.Path) -> tuple[str, Any, str]:
    """A folder, the model it was written from, and its tokenizer."""
    model = weights.load_model(pretrain_input(str(tmp_path / "run"), TOY).uri)
    tokenizer = tmp_path / "tokenizer.model"
    tokenizer.write_bytes(sentencepiece_model(LEARNT))
    folder = tmp_path / "folder"
    folder.mkdir()
    hugging_face.write_folder(model, str(tokenizer), "float32", str(folder))
    assert hugging_face.verify_folder(str(folder), model, str(tokenizer), "float32") <= 1e-5
    return str(folder), model, str(tokenizer)


def test_a_folder_with_another_weight_is_refused(written: tuple[str, Any, str]) -> None:
    folder, model, tokenizer = written
    path = os.path.join(folder, "model.safetensors")
    state = load_file(path)
    state["model.layers.1.mlp.down_proj.weight"] = state["model.layers.1.mlp.down_proj.weight"] * 1.01
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(hugging_face.ExportError, match=r"logits of transformers .* differ by"):
        hugging_face.verify_folder(folder, model, tokenizer, "float32")


def test_a_folder_without_a_weight_is_refused(written: tuple[str, Any, str]) -> None:
    folder, model, tokenizer = written
    path = os.path.join(folder, "model.safetensors")
    state = load_file(path)
    del state["model.norm.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(hugging_face.ExportError, match=r"does not take all weights: .*model\.norm\.weight"):
        hugging_face.verify_folder(folder, model, tokenizer, "float32")


@pytest.mark.parametrize(("key", "value"), [("rope_theta", 5e5), ("rms_norm_eps", 0.1), ("num_attention_heads", 8)])
def test_a_folder_with_another_config_is_refused(written: tuple[str, Any, str], key: str, value: float) -> None:
    folder, model, tokenizer = written
    path = os.path.join(folder, "config.json")
    config = json.loads(storage.read_text(path))
    config[key] = value
    if key == "rope_theta":
        config["rope_parameters"]["rope_theta"] = value
    if key == "num_attention_heads":
        config |= {"head_dim": 4, "num_key_value_heads": 4}
    storage.write_text(path, json.dumps(config))
    with pytest.raises(hugging_face.ExportError, match=r"logits of transformers .* differ by"):
        hugging_face.verify_folder(folder, model, tokenizer, "float32")


def test_a_folder_that_adds_a_prefix_space_is_refused(written: tuple[str, Any, str]) -> None:
    folder, model, tokenizer = written
    os.remove(os.path.join(folder, "tokenizer.json"))
    path = os.path.join(folder, "tokenizer_config.json")
    storage.write_text(path, json.dumps({**json.loads(storage.read_text(path)), "add_prefix_space": True}))
    with pytest.raises(hugging_face.ExportError, match="split differently from token 1 on"):
        hugging_face.verify_folder(folder, model, tokenizer, "float32")


def test_a_copy_of_the_folder_elsewhere_loads(written: tuple[str, Any, str], tmp_path: pathlib.Path) -> None:
    folder, model, tokenizer = written
    shutil.move(folder, tmp_path / "moved")
    hugging_face.verify_folder(str(tmp_path / "moved"), model, tokenizer, "float32")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"dtype": "float16"}, "dtype = 'float16': expected one of float32, bfloat16"),
        ({"name": " "}, "name = ' ': expected a name"),
    ],
)
def test_config_names_the_value_that_is_wrong(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ExportConfig, table, "run.toml")
