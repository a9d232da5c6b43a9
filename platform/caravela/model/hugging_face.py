"""A model and its tokenizer as a folder for ``AutoModelForCausalLM`` and ``AutoTokenizer``, with proof that it loads.

In: a Decoder, a SentencePiece file or a tokenizer.json of others. Out: ``FILES``.

``verify_folder`` loads the folder back without a network and compares logits and token ids with our own; it is part of
every export, because a tokenizer that splits a little differently costs a model dearly and shows nowhere else. Ids are
those of SentencePiece for every text, save one that spells out a control token (``<s>``, a chat symbol): Hugging Face
reads the token.

Written for transformers 5; what version 4 names otherwise (``rope_theta``, ``torch_dtype``) is there under both names.
Which of its classes a model is, families.py says; conversion.py folds multipliers in and renames weights.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import sentencepiece
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from caravela.data import tokenizer as tokenizers_of_runs
from caravela.data.tokenizer_json import CONFIG_FILE, IDS_FILE, JsonTokenizer
from caravela.errors import UserError
from caravela.model import weights
from caravela.model.conversion import folded, to_transformers
from caravela.model.families import family_of, to_config_json
from caravela.model.transformer import Decoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LOGIT_TOLERANCE = 1e-4
TOKENIZER = "tokenizer.model"
BLANK = "\u2581"
FILES = (
    "config.json",
    "generation_config.json",
    weights.WEIGHTS,
    TOKENIZER,
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What ``write_folder`` writes; without ``TOKENIZER`` for a run whose tokenizer is a tokenizer.json."""
TEXTS = (
    "",
    "Uma frase curta.",
    " começa com um espaço",
    "dois  espaços,   três, e um no fim ",
    "linha um\nlinha dois\n\n\tcom tabulação\r\n",
    "coração, órgão, pingüim, às vezes, e\u0301 decomposto",
    "emoji \U0001f680\U0001f469\U0001f3fd\u200d\U0001f52c, 中文, кот, ﬁ, ½, \u00a0fixo",
    "Em 2026 custava R$ 1.234,56 (ou 12345678901234567890).",
    "    def soma(a, b):\n        return a + b\n",
    "https://exemplo.pt/caminho?q=ação&x=1#fim",
)


class ExportError(UserError):
    """What was written does not load as the model that it was written from."""


def write_folder(model: Decoder, tokenizer_path: str, dtype: str, folder: str) -> None:
    """Writes ``FILES`` to a local folder that exists.

    Args:
        model: the weights; written in ``dtype``, which is one of ``DTYPES``.
        tokenizer_path: the SentencePiece file (byte fallback, identity normalisation, no dummy prefix), or a
            tokenizer.json, in a folder as ``data.tokenizer.fetch`` makes it.
        dtype: of the weights on disk.
        folder: where to write.

    Raises:
        UserError: transformers has no class for the model.
    """
    processor = tokenizers_of_runs.load(os.path.dirname(tokenizer_path))
    bos_id, eos_id = processor.bos_id(), processor.eos_id()
    write_model(model, dtype, {"bos_token_id": bos_id, "eos_token_id": eos_id}, folder)
    generation = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": eos_id}
    _write_json(folder, "generation_config.json", generation)
    shutil.copyfile(tokenizer_path, os.path.join(folder, os.path.basename(tokenizer_path)))
    if isinstance(processor, JsonTokenizer):
        _write_json(folder, CONFIG_FILE, _given_config(tokenizer_path, model.config.max_positions))
        return
    unigram = is_unigram(tokenizer_path)
    settings = _tokenizer_config(processor, model.config.max_positions, unigram)
    _write_json(folder, "tokenizer_config.json", settings)
    fast = _unigram(processor) if unigram else _converted(folder)
    fast.save(os.path.join(folder, "tokenizer.json"))
    if control := symbols(processor)[0]:
        # After the conversion, which would take these for all the symbols that there are.
        _write_json(folder, "tokenizer_config.json", {**settings, "additional_special_tokens": control})


def write_model(model: Decoder, dtype: str, control_tokens: Mapping[str, int], folder: str) -> None:
    """Config and weights alone, without multipliers and under the names of the model's class.

    Raises:
        UserError: transformers has no class for the model.
    """
    state, config = folded(model.state_dict(), model.config)
    content = {**to_config_json(config), **control_tokens, "dtype": dtype, "torch_dtype": dtype}
    _write_json(folder, "config.json", content)
    if config.tied_embeddings:
        del state[weights.OUTPUT_MATRIX]
    theirs = to_transformers(state, config, family_of(config))
    weights.write_tensors(theirs, os.path.join(folder, weights.WEIGHTS), DTYPES[dtype])


def is_unigram(tokenizer_path: str) -> bool:
    """Whether a SentencePiece model is of the unigram kind; the other is BPE."""
    messages: Any = sentencepiece_model_pb2  # generated code, whose names only exist at run time
    model = messages.ModelProto()
    with open(tokenizer_path, "rb") as file:
        model.ParseFromString(file.read())
    return bool(model.trainer_spec.model_type == messages.TrainerSpec.UNIGRAM)


def _converted(folder: str) -> Tokenizer:
    """Transformers' own conversion of a BPE ``tokenizer.model``.

    From a folder, not by LlamaTokenizer(vocab_file): that gives a vocabulary of three tokens and no error.
    """
    converted: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    return converted


def _unigram(processor: sentencepiece.SentencePieceProcessor) -> Tokenizer:
    """A unigram vocabulary as it is: transformers' LlamaTokenizer would take it for BPE."""
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.vocab_size())]
    fast = Tokenizer(models.Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement=BLANK, prepend_scheme="never", split=False)
    fast.decoder = decoders.Sequence([decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [processor.id_to_piece(i) for i in (processor.unk_id(), processor.bos_id(), processor.eos_id())]
    control, user = symbols(processor)
    fast.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in [*special, *control]])
    fast.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in user])
    begin = special[1]
    fast.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, processor.bos_id())]
    )
    return fast


def symbols(processor: sentencepiece.SentencePieceProcessor) -> tuple[list[str], list[str]]:
    """Control symbols other than ``<s>`` and ``</s>``, which SentencePiece finds in no text, and user symbols."""
    messages: Any = sentencepiece_model_pb2
    pieces = messages.ModelProto.FromString(processor.serialized_model_proto()).pieces
    known = (processor.id_to_piece(processor.bos_id()), processor.id_to_piece(processor.eos_id()))
    kinds = messages.ModelProto.SentencePiece
    control = [each.piece for each in pieces if each.type == kinds.CONTROL and each.piece not in known]
    return control, [each.piece for each in pieces if each.type == kinds.USER_DEFINED]


def _tokenizer_config(
    processor: sentencepiece.SentencePieceProcessor, max_positions: int, unigram: bool
) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast" if unigram else "LlamaTokenizer",
        "bos_token": processor.id_to_piece(processor.bos_id()),
        "eos_token": processor.id_to_piece(processor.eos_id()),
        "unk_token": processor.id_to_piece(processor.unk_id()),
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _given_config(tokenizer_path: str, max_positions: int) -> dict[str, Any]:
    """That of a tokenizer.json of others, whose class is the one that takes the file as it is."""
    folder = os.path.dirname(tokenizer_path)
    with open(os.path.join(folder, CONFIG_FILE), encoding="utf-8") as file:
        found = json.load(file)
    with open(os.path.join(folder, IDS_FILE), encoding="utf-8") as file:
        ids = json.load(file)
    pieces = Tokenizer.from_file(tokenizer_path)
    return {
        **found,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": pieces.id_to_token(ids["begin"]),
        "eos_token": pieces.id_to_token(ids["end"]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
    }


def _write_json(folder: str, name: str, content: Mapping[str, Any]) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")


def verify_folder(folder: str, model: Decoder, tokenizer_path: str, dtype: str, texts: Sequence[str] = TEXTS) -> float:
    """Loads a folder as a user would and compares it with what it was written from; gives the largest logit difference.

    Logits are compared in float32 over the weights as they were rounded to ``dtype``, so that the comparison is sharp.
    Where multipliers were folded in before rounding, the folded model is compared with the trained one as well.

    Raises:
        ExportError: with what differs, and by how much.
    """
    processor = tokenizers_of_runs.load(os.path.dirname(tokenizer_path))
    if isinstance(processor, JsonTokenizer):
        verify_given_tokenizer(folder, processor, tokenizer_path, texts)
    else:
        verify_tokenizer(folder, processor, texts)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    theirs, report = loaded
    if left := {kind: sorted(names) for kind, names in report.items() if names}:
        raise ExportError(f"{folder}: transformers {transformers.__version__} does not take all weights: {left}")
    length = min(64, model.config.max_positions)
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(model.config.vocabulary_size, (2, length), generator=generator)
    plain = weights.decoder_of(*folded(model.state_dict(), model.config))
    with torch.inference_mode():
        if plain.config != model.config:
            _compare(plain(tokens_BT), model(tokens_BT), f"{folder}: logits with multipliers folded into weights")
        return _compare(
            theirs.eval()(tokens_BT).logits,
            rounded(plain, dtype)(tokens_BT),
            f"{folder}: logits of transformers {transformers.__version__}",
        )


def _compare(found_BTV: torch.Tensor, expected_BTV: torch.Tensor, what: str) -> float:
    difference = float((found_BTV - expected_BTV).abs().max())
    allowed = LOGIT_TOLERANCE * max(1.0, float(expected_BTV.abs().max()))
    if not difference <= allowed:
        raise ExportError(
            f"{what} differ by {difference:.2e} from those of the trained model; expected at most {allowed:.2e}"
        )
    return difference


def rounded(model: Decoder, dtype: str) -> Decoder:
    """A copy of the model in float32 whose weights went through ``dtype``."""
    copy = Decoder(model.config)
    copy.load_state_dict({name: tensor.to(DTYPES[dtype]).float() for name, tensor in model.state_dict().items()})
    return copy.eval()


def verify_tokenizer(folder: str, processor: sentencepiece.SentencePieceProcessor, texts: Sequence[str]) -> None:
    """Compares ids, with ``<s>`` in front, and the way back to text; symbols are one token each.

    Raises:
        ExportError: naming the first text that differs, and where.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != processor.vocab_size():
        raise ExportError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, SentencePiece has {processor.vocab_size()}"
        )
    control, user = symbols(processor)
    for symbol in control:
        if (ids := tokenizer(symbol).input_ids) != [processor.bos_id(), processor.piece_to_id(symbol)]:
            raise ExportError(f"{folder}: {symbol!r} gives {ids}, expected token {processor.piece_to_id(symbol)} alone")
    for text in [*texts, *(f"antes{symbol}depois {symbol}, {symbol}" for symbol in user)]:
        expected = [processor.bos_id(), *processor.encode(text)]
        found = tokenizer(text).input_ids
        if found != expected:
            first = next(
                (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
                min(len(found), len(expected)),
            )
            raise ExportError(
                f"{folder}: {text!r} is split differently from token {first} on: {found[first : first + 8]} in "
                f"transformers, {expected[first : first + 8]} in SentencePiece; expected a tokenizer trained with "
                "byte fallback, identity normalisation, no dummy prefix and all blanks kept"
            )
        if (back := tokenizer.decode(found, skip_special_tokens=True)) != text:
            raise ExportError(f"{folder}: {text!r} comes back from its tokens as {back!r}")


def verify_given_tokenizer(folder: str, processor: JsonTokenizer, tokenizer_path: str, texts: Sequence[str]) -> None:
    """Compares ids with the package tokenizers' own for the file that was given, and with those of training.

    Raises:
        ExportError: naming the first text that differs.
    """
    tokenizer, given = AutoTokenizer.from_pretrained(folder, local_files_only=True), Tokenizer.from_file(tokenizer_path)
    given.no_truncation()
    given.no_padding()
    for text in texts:
        found, expected = tokenizer(text).input_ids, given.encode(text).ids
        inner = tokenizer(text, add_special_tokens=False).input_ids
        if found != expected or inner != processor.encode(text):
            raise ExportError(
                f"{folder}: {text!r} is {found[:12]} in transformers, {expected[:12]} in {tokenizer_path}, and was "
                f"{processor.encode(text)[:12]} in training"
            )
