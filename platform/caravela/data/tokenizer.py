"""SentencePiece trained on a run's own documents; or a tokenizer of another run or model, taken as it is.

In: the kept documents of a stage. Out: ``tokenizer.model``, with ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2, then chat symbols,
user symbols and the 256 bytes, so that any text can be encoded and comes back as it was: no normalisation, no dummy
prefix, white space kept, digits split. Those are also the settings under which Hugging Face's tokenizer gives equal
ids. ``sample.json`` says what each stratum has and gave.

User symbols are text: wherever one is spelt out, it is one token. Chat symbols are control tokens: no text becomes one,
so a crawled page cannot open a turn of a dialogue; who writes dialogues puts them in by their id, and the exported
tokenizer.json does it for a text that spells them out.

The sample (sampling.py) and the order in which SentencePiece sees it depend on the documents and their ids, not on how
they are sharded. A share of the documents, by another hash of the id, is never learnt from: tokenizer_report.py
measures on them. Memory: what SentencePiece needs, which grows with ``sample_mb`` and not with the documents.
"""

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import sentencepiece
import xxhash

from caravela import storage
from caravela.config import ConfigError, to_dict
from caravela.data import peer_tokenizers, sampling, tokenizer_json
from caravela.data.sampling import Sample, SampleOf
from caravela.data.tokenizer_json import JsonTokenizer
from caravela.errors import MissingInputError, UserError
from caravela.manifest import Input, Manifest, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished

MODEL_FILE = "tokenizer.model"
SAMPLE_FILE = "sample.json"
UNKNOWN, BEGIN, END = 0, 1, 2
BYTE_PIECES = 256
MAX_SENTENCE_BYTES = 16384
MAX_SENTENCE_CHARACTERS = MAX_SENTENCE_BYTES // 4
SHOWN_STRATA = 50
Tokenizer = sentencepiece.SentencePieceProcessor | JsonTokenizer
TAKEN_SYMBOLS = re.compile(r"<unk>|<s>|</s>|<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How the vocabulary is learnt."""

    model: str = ""
    """A SentencePiece model of another run, or a model's ``tokenizer.json``, to be taken as it is: runs that are mixed
    in training need one tokenizer, and a model that is trained on keeps its own. Then nothing is learnt, and
    ``vocabulary_size`` must be its own, or for a ``tokenizer.json`` that of its model's embeddings."""
    begin: str = ""
    """For a ``tokenizer.json``: the token that begins a document; empty: what ``tokenizer_config.json`` beside it
    says."""
    end: str = ""
    """The same for the token that ends one."""
    vocabulary_size: int = 32_000
    """Pieces, with the 3 special ones, the symbols and 256 bytes among them."""
    algorithm: Literal["unigram", "bpe"] = "bpe"
    """SentencePiece's model type."""
    sample_mb: float = 200.0
    """Text to learn from; a corpus with more is sampled by document."""
    sample_by: tuple[str, ...] = ("variant",)
    """What makes the strata of the sample: columns of the documents, or fields of the metadata as
    ``metadata.register``; empty: one stratum. ``source`` is for collections; of a crawl it is the file."""
    sample_temper: float = 0.5
    """The share of a stratum of b bytes is in proportion to b to this power. 1: as in the documents; 0: all strata the
    same; between, the smaller get more than they have. A stratum with less text than its share gives all it has."""
    held_out_share: float = 0.05
    """Share of the documents that is not learnt from, and on which the report measures."""
    user_symbols: tuple[str, ...] = ()
    """Strings that are always one token, wherever they occur in a text."""
    chat_symbols: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    """Control tokens for dialogues, which no text becomes. They are there from the start, because to add them to a
    trained model changes the shape of its embeddings."""
    character_coverage: float = 0.9995
    """Share of characters that get a piece; the rest falls back to bytes."""
    seed: int = 1
    """Chooses the sample."""

    def __post_init__(self) -> None:
        least = BYTE_PIECES + 64 + len(self.user_symbols) + len(self.chat_symbols)
        if self.vocabulary_size < least:
            raise ConfigError(f"vocabulary_size = {self.vocabulary_size}: expected at least {least}")
        for name in ("begin", "end"):
            if getattr(self, name) and not self.model:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: expected a tokenizer.json in model beside it")
        if not self.sample_mb > 0:
            raise ConfigError(f"sample_mb = {self.sample_mb}: expected more than 0")
        if not 0 <= self.sample_temper <= 1:
            raise ConfigError(f"sample_temper = {self.sample_temper}: expected from 0 to 1")
        if not 0 <= self.held_out_share < 1:
            raise ConfigError(f"held_out_share = {self.held_out_share}: expected from 0 to below 1")
        if not 0 < self.character_coverage <= 1:
            raise ConfigError(f"character_coverage = {self.character_coverage}: expected more than 0, at most 1")
        for name in ("user_symbols", "chat_symbols"):
            for symbol in getattr(self, name):
                _check_symbol(name, symbol)
        symbols = [*self.chat_symbols, *self.user_symbols]
        for symbol in symbols:
            if symbols.count(symbol) > 1:
                raise ConfigError(f"user_symbols = {list(self.user_symbols)}: {symbol!r} is named twice")


def _check_symbol(name: str, symbol: str) -> None:
    if TAKEN_SYMBOLS.fullmatch(symbol):
        raise ConfigError(f"{name} = {symbol!r}: expected another name; every vocabulary holds this one")
    if not symbol or "\u2581" in symbol or symbol != "".join(symbol.split()) or not symbol.isprintable():
        raise ConfigError(f"{name} = {symbol!r}: expected printable characters without white space or U+2581")


def held_out(identifier: str, share: float) -> bool:
    """Whether a document is never learnt from. Another kind of hash than the sample's: they are independent."""
    return xxhash.xxh64_intdigest(identifier.encode("utf-8")) < int(share * (1 << 64))


def tokenizer_stage(root: str, config: TokenizerConfig, documents: Input) -> Stage:
    """The stage that trains a tokenizer on the table ``documents`` of another.

    Raises:
        UserError: ``config.model`` cannot be read.
    """
    settings = to_dict(config)
    del settings["begin"], settings["end"]
    if config.model:  # another model in the same place is another tokenizer
        data = _given(config)
        settings["model"] = hashlib.sha256(data).hexdigest()
        if tokenizer_json.is_json(data):
            found = tokenizer_json.given(data, config.model, config.begin, config.end)
            settings |= {"begin": found.begin, "end": found.end, "tokenizer_config": found.config}

    def plan() -> list[Shard]:
        return [Shard(index=0, name="tokenizer", spec={"uris": finished(documents).uris("documents")})]

    return Stage(
        name="tokenizer",
        version=2,
        root=root,
        config=settings,
        inputs=(documents,),
        plan=plan,
        make_worker=functools.partial(TokenizerWorker, config),
        finish=_figures,
    )


class TokenizerWorker:
    """Samples and trains, or takes the model that the config names."""

    def __init__(self, config: TokenizerConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        sample = Sample.nothing() if self.config.model else self._sample(shard, out)
        if self.config.model and tokenizer_json.is_json(data := _given(self.config)):
            files = _json_files(self.config, data)
        else:
            files = {MODEL_FILE: _checked(self.config) if self.config.model else _trained(self.config, sample)}
        for name, content in files.items():
            with open(out.local_path(name), "wb") as file:
                file.write(content)
        with open(out.local_path(SAMPLE_FILE), "w", encoding="utf-8") as text_file:
            json.dump(_strata(self.config, sample), text_file, ensure_ascii=False, indent=1)
        strata = sample.strata.values()
        return {
            "learnable_documents": sum(counts.documents for counts in strata),
            "learnable_bytes": sum(counts.bytes for counts in strata),
            "sampled_documents": len(sample),
            "sampled_bytes": sample.bytes,
            "pieces": self.config.vocabulary_size,
        }

    def _sample(self, shard: Shard, out: ShardOutput) -> Sample:
        what = SampleOf(
            uris=shard.spec["uris"],
            fields=self.config.sample_by,
            setting="tokenizer.sample_by",
            size=round(self.config.sample_mb * 1e6),
            temper=self.config.sample_temper,
            seed=self.config.seed,
            wanted=lambda identifier: not held_out(identifier, self.config.held_out_share),
        )
        return sampling.take(what, os.path.join(out.folder, "sample"), lambda batch: _post(out, batch))


def _post(out: ShardOutput, batch: pa.RecordBatch) -> None:
    out.progress.add(documents=batch.num_rows, bytes=batch["text"].nbytes)


def _given(config: TokenizerConfig) -> bytes:
    try:
        return storage.read_bytes(config.model)
    except FileNotFoundError:
        raise MissingInputError(f"tokenizer.model = {config.model}: no such file") from None


def _json_files(config: TokenizerConfig, data: bytes) -> dict[str, bytes]:
    """What the stage holds of a tokenizer.json, once that is found to be one that can be packed with."""
    found = tokenizer_json.given(data, config.model, config.begin, config.end)
    ids = tokenizer_json.checked(found, config.model, config.vocabulary_size)
    content = {tokenizer_json.IDS_FILE: ids, tokenizer_json.CONFIG_FILE: found.config}
    described = {name: json.dumps(each, ensure_ascii=False, indent=1).encode() for name, each in content.items()}
    return {tokenizer_json.JSON_FILE: data, **described}


def _checked(config: TokenizerConfig) -> bytes:
    """The model that the config names, if it encodes as the models do that are learnt here.

    Raises:
        UserError: it is none of SentencePiece's, or of another kind or size.
    """
    model = _given(config)
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UserError(f"tokenizer.model = {config.model}: no SentencePiece model ({error})") from error
    special = [processor.unk_id(), processor.bos_id(), processor.eos_id()]
    probe = " Ação,\n  2026 \u3042 ﬁ"
    blank_added = processor.id_to_piece(processor.encode("a")[0]).startswith("\u2581")
    if special != [UNKNOWN, BEGIN, END] or blank_added or processor.decode(processor.encode(probe)) != probe:
        raise UserError(
            f"tokenizer.model = {config.model}: expected one that gives every text back, adds no blank, with <unk>, "
            "<s>, </s> as 0, 1, 2, as jobs/train_tokenizer.py makes them"
        )
    if processor.get_piece_size() != config.vocabulary_size:
        raise UserError(
            f"tokenizer.vocabulary_size = {config.vocabulary_size}: expected {processor.get_piece_size()}, as "
            f"{config.model} has it"
        )
    return model


def _trained(config: TokenizerConfig, sample: Sample) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(piece for _, text in sample for piece in sentences(text)),
            model_writer=model,
            vocab_size=config.vocabulary_size,
            model_type=config.algorithm,
            character_coverage=config.character_coverage,
            control_symbols=list(config.chat_symbols),
            user_defined_symbols=list(config.user_symbols),
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=MAX_SENTENCE_BYTES,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"tokenizer.vocabulary_size = {config.vocabulary_size}: SentencePiece cannot learn it from "
            f"{sample.bytes:,} bytes of text: {str(error).splitlines()[0]}"
        ) from error
    return model.getvalue()


def sentences(text: str) -> Iterator[str]:
    """The lines of a text that hold more than blanks; SentencePiece leaves out long ones, so they are cut at blanks."""
    for line in text.split("\n"):
        while len(line) > MAX_SENTENCE_CHARACTERS:
            end = line.rfind(" ", 1, MAX_SENTENCE_CHARACTERS)
            end = MAX_SENTENCE_CHARACTERS if end < 0 else end
            yield line[:end]
            line = line[end:]
        if line.strip():
            yield line


def load(uri: str) -> Tokenizer:
    """The tokenizer in a finished tokenizer stage's directory."""
    path = storage.join(uri, file_name(uri))
    if path.endswith(MODEL_FILE):
        return sentencepiece.SentencePieceProcessor(model_proto=storage.read_bytes(path))
    ids = json.loads(storage.read_text(storage.join(uri, tokenizer_json.IDS_FILE)))
    return JsonTokenizer(storage.read_bytes(path), ids, path)


def file_name(uri: str) -> str:
    """Of the model in such a directory."""
    other = tokenizer_json.JSON_FILE
    return other if storage.exists(storage.join(uri, other)) else MODEL_FILE


def fetch(uri: str, folder: str) -> str:
    """Copies the files of such a directory that ``load`` and the export need to a local one; gives the model's path."""
    name = file_name(uri)
    more = () if name == MODEL_FILE else (tokenizer_json.IDS_FILE, tokenizer_json.CONFIG_FILE)
    for each in (name, *more):
        storage.fetch(storage.join(uri, each), os.path.join(folder, each))
    return os.path.join(folder, name)


def as_peer(uri: str) -> peer_tokenizers.Encoder:
    """The same, to be compared with those of others."""
    processor = load(uri)
    if isinstance(processor, JsonTokenizer):
        return peer_tokenizers.load(storage.join(uri, tokenizer_json.JSON_FILE), "tokenizer.model")
    return peer_tokenizers.of_sentencepiece(processor)


def tokenizer_sha256(stage: Manifest) -> str:
    """SHA-256 of the model file of a finished tokenizer stage: equal for tokenizers that encode alike."""
    return next(file.sha256 for file in stage.files("files") if file.path in (MODEL_FILE, tokenizer_json.JSON_FILE))


def _strata(config: TokenizerConfig, sample: Sample) -> list[dict[str, Any]]:
    """What each stratum has and gave, the largest first."""
    rows = [
        {
            "stratum": dict(zip(config.sample_by, name, strict=True)),
            "documents": counts.documents,
            "bytes": counts.bytes,
            "sampled_documents": counts.taken_documents,
            "sampled_bytes": counts.taken_bytes,
        }
        for name, counts in sample.strata.items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def _figures(records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    strata = json.loads(storage.read_text(storage.join(uri, SAMPLE_FILE)))
    counts = records[0].counters
    return {
        "vocabulary_size": counts["pieces"],
        **{name: counts[name] for name in counts if name != "pieces"},
        "strata": len(strata),
        "largest_strata": strata[:SHOWN_STRATA],
    }
