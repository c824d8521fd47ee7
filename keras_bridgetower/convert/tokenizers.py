"""Reads tokenizers: of `transformers` folders, and of KerasHub's presets.

The files of a folder are read as transformers 5 does.
"""

import base64
import json
import pathlib
import tempfile

import keras_hub.models as hub
import numpy as np
import tokenizers
from tokenizers import normalizers

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import tokenizer_rules as rules
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.encoders import registry as encoders
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most
from keras_bridgetower.preprocessing import tokenizer as classes
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting
from keras_bridgetower.presets.registry import write_json
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

# Tokens in a text: `max_text_len` of the published models and the authors.
TEXT_LENGTH = 50
CONFIG = "tokenizer_config.json"
SENTENCES = "sentence_bert_config.json"
# Classes that use the rules in tokenizer.json.
WHOLE = ("PreTrainedTokenizer", "TokenizersBackend")
# Special tokens, in the order in which transformers adds missing ones.
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Switches of added tokens.
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
UNIGRAM = 1
# Types of pieces: `<unk>`, and those that never occur in a text.
SPECIAL = (2, 3)
# Both tokenizers must give it the same ids.
PROBE = "The 2 quick Foxes' red-brown fur, isn't it?"


def open_folder(folder, sequence_length=None):
    """Open the tokenizer of a folder with a text encoder.

    `unimodal.tokenizer` documents its arguments, result and errors.
    """
    name, config = configurations.read_encoder(folder, "text")
    cls, files = encoders.files_by_type("text")[name]
    path = folder / "config.json"
    with converting("A configuration must be readable", path):
        most = _most_tokens(config, files)
        usual = _usual_length(folder, most, cls, files.tokens)
    length = usual if sequence_length is None else sequence_length
    check_at_most("sequence_length", length, most, "positions")
    found = read(folder, name, length)
    if found is None:
        raise ConversionError(
            f"A folder of {name} must hold the files of its tokenizer, such as "
            "tokenizer.json. Fetch them.",
            folder,
        )
    _check_encoder(found, files.tokens.ids, config, path)
    return found


def _most_tokens(config, files):
    """Return the number of tokens that an encoder reads at most."""
    rows = config.get("max_position_embeddings")
    positions = rows - files.before(config) if rows else files.tokens.positions
    return positions + files.tokens.adds_start


def _usual_length(folder, most, cls, tokens):
    """Return the default number of tokens in a text."""
    files = (CONFIG, SENTENCES)
    config, sentences = (read_if_there(folder / name) for name in files)
    given = (config.get("model_max_length"), sentences.get("max_seq_length"))
    given = [int(n) + tokens.adds_start for n in given if n]
    if encoders.entries("text")[cls].fixed_length:
        return most
    return min(TEXT_LENGTH, most, *given)


def _check_encoder(tokenizer, keys, config, path):
    """Check that a tokenizer is that of the encoder in `config.json`.

    Args:
        tokenizer: `PackedTokenizer`.
        keys: tuple of str, as `Tokens.ids`.
        config: dict, the values of the file `path`.
    """
    size = tokenizer.vocabulary_size()
    rows = config.get("vocab_size", size)
    wrong = []
    if type(rows) is not int or rows < size:
        wrong.append(f"{size} tokens, vocab_size={rows!r:.50}")
    start, pad, end, *_ = tokenizer.special_token_ids
    ids = {"bos_token_id": start, "pad_token_id": pad, "eos_token_id": end}
    wrong += [
        f"{key}={config[key]!r:.50}, but {ids[key]} in the tokenizer"
        for key in keys
        if config.get(key) is not None and config[key] != ids[key]
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer must be the encoder's, with at most as many tokens "
            "and the same special ones.",
            path,
            wrong,
        )


def read(folder, kind, sequence_length):
    """Read the tokenizer of a folder.

    Args:
        folder: path of the folder.
        kind: str, the model type of the text encoder.
        sequence_length: int, number of tokens in a text.

    Returns:
        A tokenizer, or None if the folder has no tokenizer files.

    Raises:
        ConversionError: files are damaged, contradict each other, or have
            unsupported settings.
    """
    _, files = encoders.files_by_type("text")[kind]
    return read_tokens(pathlib.Path(folder), files.tokens, sequence_length)


def open_preset(preset, encoder, sequence_length=None):
    """Open the tokenizer of a KerasHub preset, as a `PackedTokenizer`.

    KerasHub's vocabulary is read by the rules of `transformers`, as from the
    encoder's own files. They differ in rare characters; the ids of a plain text
    are compared.

    Args:
        preset: str, the name or path of the preset.
        encoder: its text encoder.
        sequence_length: int, or None.

    Raises:
        ConversionError: there is no tokenizer, it is of another kind, or it is
            not the encoder's.
    """
    entry, most = encoders.get_entry(encoder), encoders.text_length(encoder)
    length = sequence_length
    if length is None:
        length = most if entry.fixed_length else min(TEXT_LENGTH, most)
    check_at_most("sequence_length", length, most, "positions")
    wrong = []
    try:
        theirs = hub.Tokenizer.from_preset(preset)
        found = _converted(theirs, entry.files[0].tokens, length)
        wrong = _differences(found, theirs, encoder)
    except Exception as error:  # KerasHub may raise any.
        wrong.append(f"{error!s:.300}")
    if wrong:
        raise ConversionError(
            f"A preset with a {type(encoder).__name__} must hold the tokenizer "
            "with which it was trained. For another one pass `preprocessor`.",
            preset,
            wrong,
        )
    return found


def _converted(theirs, tokens, length):
    """Return a tokenizer of KerasHub as one of this library."""
    known = rules.FAMILIES[tokens.kind].files
    pieces = next((name for name in known if name.endswith(".model")), "")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        theirs.save_assets(folder)
        for name in theirs.file_assets:
            # `transformers` has `vocab.json`, `vocab.txt` or one of `pieces`.
            new = name.replace("vocabulary.spm", pieces)
            (folder / name).rename(folder / new.replace("vocabulary", "vocab"))
        if tokens.kind == "wordpiece":
            values = {"do_lower_case": theirs.lowercase}
            write_json(folder, CONFIG, values)
        return read_tokens(folder, tokens, length)


def _differences(ours, theirs, encoder):
    """List the differences of a tokenizer from one of KerasHub."""
    size = ours.vocabulary_size()
    # ELECTRA has the other name.
    rows = getattr(encoder, "vocabulary_size", None) or encoder.vocab_size
    wrong = [] if size <= rows else [f"{size} tokens, {rows} in the encoder"]
    (made,), expected = ours.token_lists([PROBE]), theirs(PROBE)
    expected = np.asarray(expected).tolist()
    if made != expected:
        wrong.append(f"{PROBE!r}: {made}, but {expected} of KerasHub")
    return wrong


def read_tokens(folder, tokens, sequence_length):
    """Read the tokenizer that `tokens`, a `Tokens`, describes; as `read`."""
    with converting("A tokenizer must be readable", folder):
        return _read(folder, tokens, sequence_length)


def _read(folder, tokens, sequence_length):
    config = read_if_there(folder / CONFIG)
    if "added_tokens_decoder" not in config:
        config |= read_if_there(folder / "special_tokens_map.json")
    family, whole = _family(folder, tokens.kind, config)
    paths = [folder / name for name in family.files]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    saved = read_if_there(folder / rules.JSON)
    _check_sides(folder, config, saved, family)
    # transformers has no rules of SigLIP for this file.
    whole |= path.name == rules.JSON and family.rules is rules.siglip
    usual = [pair.split("=") for pair in family.special.split()]
    roles = dict(usual)
    if whole and saved.get("padding"):
        roles["pad"] = saved["padding"].get("pad_token", roles["pad"])
    given = {name: _content(config.get(f"{name}_token")) for name in ROLES}
    roles |= {name: token for name, token in given.items() if token}
    special = [roles[name] for name, _ in usual]
    words = _words(path, saved, special)
    values = saved if whole else family.rules(words, special[3], config)
    kinds = {found["model"].get("type") for found in (saved, values) if found}
    # The first versions of the file do not name the type.
    if not whole and len(kinds - {None}) > 1:
        kind = values["model"]["type"]
        raise ConversionError(f"A tokenizer must be of type {kind}.", path)
    added = _added(folder, config, saved, words, roles, family, whole)
    before = values.get("normalizer")
    if read_if_there(folder / SENTENCES).get("do_lower_case"):
        # sentence-transformers lowers texts before it calls the tokenizer.
        before = rules.after_lower(before)
    # The two classes of tokenizers that need no file of an engine.
    if not whole and all(token["special"] for token in added):
        prefix = config.get("add_prefix_space")
        if family.rules is rules.roberta and not (before or prefix):
            if special == list(classes.SPECIAL_TOKENS):
                lists = words.vocab, words.merges
                return classes.BridgeTowerTokenizer(*lists, sequence_length)
        if special == list(classes.BERT_SPECIAL_TOKENS) and _is_plain(before):
            names = classes.in_order(words.vocab)
            values = before["lowercase"], sequence_length, tokens.has_segments
            return classes.BridgeTowerBertTokenizer(names, *values)
    tokenizer = classes.BridgeTowerJsonTokenizer(
        special_tokens=special,
        between=special[2:3] * family.ends_twice,
        adds_start=tokens.adds_start,
        has_segments=tokens.has_segments,
        sequence_length=sequence_length,
    )
    values = {**values, "normalizer": before, "added_tokens": added}
    tokenizer.set_vocabulary(values)
    # Other classes have their own packing.
    if whole or family.rules is rules.gemma:
        _check_packing(saved.get("post_processor"), tokenizer, path)
    # A damaged table of characters raises an error only when it is used.
    tokenizer.token_lists(["A ｆéw 漢字, 12 кот ñ ﬁ\u0301 😀"])
    return tokenizer


def _is_plain(normalizer):
    """Return True for a normalizer of `BridgeTowerBertTokenizer`."""
    found = normalizer or {}
    usual = found.get("strip_accents") in (None, found.get("lowercase"))
    return usual and bool(found.get("handle_chinese_chars"))


def _family(folder, kind, config):
    """Return the class of a tokenizer, and whether it uses tokenizer.json."""
    file, family = CONFIG, rules.FAMILIES[kind]
    name = config.get("tokenizer_class")
    if not name:
        file = "config.json"
        name = read_if_there(folder / file).get("tokenizer_class")
    # transformers ignores the class in files of SigLIP 2.
    name = None if kind == "gemma" else name and name.removesuffix("Fast")
    if name in WHOLE and (folder / rules.JSON).is_file():
        return family, True
    if not name or name in rules.CLASSES:
        return rules.CLASSES.get(name, family), False
    raise ConversionError(
        f"The class of a tokenizer must be one of {list(rules.CLASSES)}, or "
        "PreTrainedTokenizerFast with a tokenizer.json.",
        folder / file,
        [f"tokenizer_class={name!r:.60}"],
    )


def _check_sides(folder, config, saved, family):
    """Check that texts are cut and padded at their ends."""
    for key, side in ("truncation", "right"), ("padding", family.padding_side):
        file, name = CONFIG, f"{key}_side"
        given = (saved.get(key) or {}).get("direction")
        if given and not config.get(name):
            file, name, side = rules.JSON, f"{key}.direction", given.lower()
        side = config.get(name) or side
        if side != "right":
            raise ConversionError(
                "A tokenizer must cut and pad texts at their ends. Set "
                f'"{key}_side": "right" in {CONFIG} if its encoder was trained '
                "so.",
                folder / file,
                [f"{name}={side!r:.60}"],
            )


def _words(path, saved, special):
    """Return the `Words` in a file."""
    if path.name == rules.JSON:
        model, steps = saved["model"], saved.get("normalizer") or {}
        table = [
            normalizers.Precompiled(base64.b64decode(s["precompiled_charsmap"]))
            for s in steps.get("normalizers", [steps])
            if s.get("type") == "Precompiled"
        ][:1]
        return rules.Words(model["vocab"], model.get("merges"), table)
    if path.suffix == ".model":
        return _pieces(path, special)
    if path.name == "vocab.txt":
        return rules.Words(
            {word: i for i, word in enumerate(classes.read_lines(path))}
        )
    folder = path.parent
    merges = classes.read_merges(folder / "merges.txt")
    return rules.Words(read_json(folder / "vocab.json"), merges)


def _pieces(path, special):
    """Return the `Words` in a file of SentencePiece."""
    from sentencepiece import sentencepiece_model_pb2

    with open_regular(path) as file:
        data = read_most(file, LARGEST_ASSET)
    proto = sentencepiece_model_pb2.ModelProto.FromString(data)
    trained = proto.trainer_spec
    if trained.model_type != UNIGRAM or trained.byte_fallback:
        raise ValueError("it must hold a Unigram model without bytes as pieces")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    if path.name == rules.XLM_PIECES:
        # Ids are those of fairseq.
        start, padding, end, unknown, mask = special
        if [name for name, _ in pieces[:3]] != ["<unk>", "<s>", "</s>"]:
            raise ValueError("its pieces must begin <unk> <s> </s>")
        first = [(name, 0.0) for name in (start, padding, end, unknown)]
        pieces = [*first, *pieces[3:], (mask, 0.0)]
    table = proto.normalizer_spec.precompiled_charsmap
    table = [normalizers.Precompiled(table)] if table else []
    added = [
        {"content": p.piece, "special": True, "normalized": False}
        for p in proto.pieces
        if p.type in SPECIAL
    ]
    return rules.Words(pieces, (), table, added)


def _added(folder, config, saved, words, roles, family, whole):
    """Return the added tokens in the form of tokenizer.json.

    The special ones in it, which no text can contain, are those of `roles`.
    """
    listed = {t["id"]: t for t in saved.get("added_tokens") or ()}
    if "added_tokens_decoder" in config:
        decoder = config["added_tokens_decoder"].items()
        listed = (listed if whole else {}) | {int(i): t for i, t in decoder}
    else:
        names = read_if_there(folder / "added_tokens.json")
        listed = {i: {"content": name} for name, i in names.items()} | listed
    extra = config.get("extra_special_tokens")
    extra = extra or config.get("additional_special_tokens") or ()
    found = sorted(listed.items(), key=lambda item: item[0])
    more = [roles[name] for name in ROLES if name in roles]
    more += extra.values() if isinstance(extra, dict) else extra
    # Of other roles, such as `image_token`.
    named = (value for key, value in config.items() if key.endswith("_token"))
    more += [value for value in named if isinstance(value, str)]
    found += [(None, token) for token in (*more, *words.added)]
    ids = words.vocab
    if not isinstance(ids, dict):
        ids = {name: i for i, (name, _) in enumerate(ids)}
    ids, made, wrong = dict(ids), {}, []
    for i, token in found:
        if not isinstance(token, dict):
            token = {"content": token, "special": True}
        name, special = token["content"], bool(token.get("special"))
        if i not in (None, ids.setdefault(name, len(ids))):
            wrong.append(f"{name!r:.60}: {i}, {ids[name]} in the vocabulary")
        if ids[name] >= len(words.vocab) and family.rules is rules.siglip:
            wrong.append(f"{name!r:.60}, which SigLIP's text lacks")
        flags = dict.fromkeys(FLAGS, False) | {"normalized": not special}
        flags |= {flag: token[flag] for flag in FLAGS if flag in token}
        # SentencePiece itself, which SigLIP uses, finds no special pieces.
        special &= family.rules is rules.siglip
        flags["special"] = special or name in roles.values()
        made.setdefault(name, {"id": ids[name], "content": name, **flags})
    if wrong:
        raise ConversionError(
            "The ids of added tokens must be those of the vocabulary, or "
            "follow them.",
            folder,
            wrong,
        )
    return list(made.values())


def read_if_there(path):
    """Return the object in a JSON file, `{}` if the file is absent."""
    return read_json(path) if path.is_file() else {}


def _content(token):
    return token["content"] if isinstance(token, dict) else token


def _check_packing(processor, tokenizer, path):
    """Check that a file packs texts as the text encoder was trained."""
    start, _, end, *_ = tokenizer.special_tokens
    one = ["…", end] if tokenizer.adds_start else [start, "…", end]
    pair = [*one, *tokenizer.between, "…", end]
    model = {"type": "WordLevel", "vocab": {"…": 0}, "unk_token": "…"}
    values = {"model": model, "post_processor": processor}
    engine = tokenizers.Tokenizer.from_str(json.dumps(values))
    found = [engine.encode(*texts).tokens for texts in ("…", "……")]
    wrong = [" ".join(made) for made in found if made not in (one, pair)]
    if wrong:
        raise ConversionError(
            "A tokenizer must pack texts as its encoder was trained: "
            f"{' '.join(one)}.",
            path,
            wrong,
        )
