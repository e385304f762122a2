"""A random BERT of 32 dimensions in sentence-transformers format, for tests without a download."""

from pathlib import Path

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = """
a about acid after all also an and animal are as asthma at be been between blood body bone both
brain breast but by can cancer cause cell child class clear clinical common control copy could data
day death default delay diet disease do document does dose drug each early effect egg energy error
exercise factor fat file find first flow food for from function gene give good group growth guide
has have health heart help high home hospital house how human if immune in increase index infection
insulin into is it its key large lead learn less level life light list liver local long low lung
make man mark mean measure method milk model more most mouse must muscle name new no normal not
number object of on one open or other out over part patient people plan plant point pressure print
protein query rate read reduce result return risk run salt sample search set short show sign simple
skin sleep small some space state stem stress string study sugar sun system tail test text that the
their this time tissue to token train treat tree trial two type under up use value vector virus
vitamin was water weight what when where which with without woman word work world write year
""".split()  # noqa: SIM905 - words read better without quotes
ENDINGS = ("s", "ed", "ing", "er", "est", "ly", "ion", "ment", "al", "ic", "ous", "ness", "able")


def vocabulary() -> list[str]:
    """Return the special tokens, a few hundred words, and every letter and ending as a piece."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [f"##{piece}" for piece in (*letters, *ENDINGS)]
    return list(dict.fromkeys([*SPECIAL, *letters, *".,;:?!()-'\"", *WORDS, *pieces]))


def save_tiny_model(
    folder: Path,
    *,
    layers: int = 6,
    dimension: int = 32,
    max_tokens: int = 128,
    normalise: bool = True,
    prompts: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Write a bi-encoder with random weights and a real WordPiece tokenizer; return its folder.

    The weights are drawn wider than BERT's own start, so that different texts get clearly
    different vectors; the same seed gives the same model.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    save_tiny_body(folder / "body", layers=layers, dimension=dimension, seed=seed)
    body = Transformer(str(folder / "body"), max_seq_length=max_tokens)
    modules: list[torch.nn.Module] = [body, Pooling(dimension, "mean")]
    if normalise:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def save_tiny_body(folder: Path, *, layers: int = 6, dimension: int = 32, seed: int = 0) -> Path:
    """Write the bare BERT and its tokenizer in transformers format; return its folder."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = save_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dimension,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * dimension,
        max_position_embeddings=256,
        initializer_range=0.2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


def save_tiny_cross_encoder(
    folder: Path, *, layers: int = 2, dimension: int = 32, labels: int = 1, seed: int = 0
) -> Path:
    """Write a cross-encoder with random weights in transformers format; return its folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = save_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dimension,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * dimension,
        max_position_embeddings=256,
        initializer_range=0.2,
        num_labels=labels,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path):
    """Write the WordPiece tokenizer into a folder, made if need be, and return it."""
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_file = folder / "vocab.txt"
    vocabulary_file.write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(
        vocab=str(vocabulary_file), do_lower_case=True, model_max_length=256
    )
    tokenizer.save_pretrained(str(folder))
    return tokenizer
