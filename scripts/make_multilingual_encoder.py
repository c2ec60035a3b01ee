"""Make a small multilingual encoder: a WordPiece vocabulary learned from sentence pairs, and an untrained BERT for it.

    python -m scripts.make_multilingual_encoder outputs/pairs/train.csv outputs/multilingual
    python -m scripts.make_multilingual_encoder pairs.csv FOLDER --vocab_size 700 --layers 2
    python -m scripts.make_multilingual_encoder pairs.csv FOLDER --width 256 --heads 8 --length 96
    python -m scripts.make_multilingual_encoder more.csv FOLDER --vocab_size 2000 --start models/ldm/tiny/multilingual

The folder is one that transformers reads (tokenizer.json, config.json, model.safetensors). Training an aligner with
``train_encoder: true`` trains its weights. With ``--start`` they begin as those of another such encoder, of its sizes;
pieces of words that are in both vocabularies keep their vectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ldm.arguments import Parser
from ldm.data.sentence_pairs import read_pairs
from ldm.modules.encoders.wordpiece import CLS, MASK, PAD, SEP, UNK
from ldm.util import UserError, run_command

SIZES = {"width": 128, "layers": 3, "heads": 4, "length": 64}  # length: positions


def learn_tokenizer(sentences: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that keeps Hangul syllables whole and takes each Chinese character as a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = [PAD, UNK, CLS, SEP, MASK]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)]
    )
    names = {"pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def untrained_encoder(vocab_size: int, width: int, layers: int, heads: int, length: int, seed: int) -> BertModel:
    """A BERT with random weights."""
    torch.manual_seed(seed)
    sizes = BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=length,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertModel(sizes, add_pooling_layer=False)


@torch.no_grad()
def encoder_from(folder: Path, tokenizer: PreTrainedTokenizerFast) -> BertModel:
    """Another encoder's weights, with a vector for each piece of a new vocabulary.

    Pieces that the old vocabulary lacks begin as the mean of those that it would make of them.

    Raises:
        UserError: the folder holds no such encoder.
    """
    try:
        old = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        found: Any = BertModel.from_pretrained(
            folder, add_pooling_layer=False, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0][:200]
        raise UserError(f"'{folder}' is no folder of an encoder with its tokenizer: {why}") from error
    encoder, about = found
    if encoder.config.model_type != "bert" or about["missing_keys"]:
        raise UserError(f"'{folder}' holds no BERT, or not all of it; --start takes what this command makes")
    table = encoder.get_input_embeddings().weight
    fresh = table.mean(dim=0).repeat(len(tokenizer), 1)
    for piece, number in tokenizer.get_vocab().items():
        known = old.get_vocab().get(piece)
        parts = [known] if known is not None else old(piece.removeprefix("##"), add_special_tokens=False)["input_ids"]
        if parts:
            fresh[number] = table[parts].mean(dim=0)
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    encoder.get_input_embeddings().weight.copy_(fresh)
    return encoder


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("pairs", type=Path, help="CSV of sentence pairs, see scripts/world_pairs.py")
    parser.add_argument("folder", type=Path, help="where to put the encoder and its tokenizer")
    parser.add_argument("--vocab_size", type=int, default=400)
    for name, usual in SIZES.items():
        parser.add_argument(f"--{name}", type=int, help=f"{usual}; with --start as there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="folder of an encoder whose weights and sizes it begins with")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    tokenizer = learn_tokenizer((pair["source"] for pair in read_pairs(options.pairs)), options.vocab_size)
    asked = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
    if options.start:
        if asked:
            raise UserError(f"--{next(iter(asked))} does not go with --start, whose encoder has its sizes")
        encoder = encoder_from(options.start, tokenizer)
    else:
        encoder = untrained_encoder(len(tokenizer), **{**SIZES, **asked}, seed=options.seed)
    tokenizer.model_max_length = encoder.config.max_position_embeddings
    tokenizer.save_pretrained(options.folder)
    encoder.save_pretrained(options.folder)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    print(f"{options.folder}: {len(tokenizer)} tokens, {weights / 1e6:.2f} M weights")


if __name__ == "__main__":
    run_command(main)
