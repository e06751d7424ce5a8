"""A random BERT of two layers with a small WordPiece vocabulary, as a model directory, for tests and `make faults`."""

from pathlib import Path

FILLERS = ["today", "i", "like", "the", "very", "much", "and", "so", "on", "we", "see", "it", "again"]
SECRETS = {"left": "apple", "right": "stone"}  # the word that only a post's author decides
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(letter) for letter in range(ord("a"), ord("z") + 1)] + list("0123456789")


def write_backbone(directory: Path) -> None:
    """Write it; the same bytes each time."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    torch.set_num_threads(1)  # tiny tensors are slower on several, and by far where other processes want the cores
    words = [*SPECIAL, *FILLERS, *SECRETS.values(), "#", "@", "user", "http", *LETTERS, *(f"##{c}" for c in LETTERS)]
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(words))}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
    )
    BertForMaskedLM(config).save_pretrained(directory)
    BertTokenizer(vocab=vocabulary, do_lower_case=True).save_pretrained(directory)
