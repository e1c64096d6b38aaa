"""Beam searches of transformers: the best texts of padded batches with their scores, of a GPT-2 and of a T5."""

import copy
from itertools import product
from pathlib import Path

import torch
from record_common import fresh_folder, random_ids, randomise, write_json
from record_decoding import late_token, left_padded
from record_gpt2 import plain_model
from transformers import T5Config, T5ForConditionalGeneration

T5 = dict(
    vocab_size=47, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
    tie_word_embeddings=False, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
)  # fmt: skip
NEW_TOKENS = 10
BEAMS = 3
CASES = [
    {"length_penalty": length_penalty, "early_stopping": early_stopping, "repetition_penalty": penalty, "ends": ends}
    for length_penalty, early_stopping, (penalty, ends) in product(
        (0.0, 1.0, 2.0, -1.0), (False, True), ((1.0, 0), (1.0, 1), (1.3, 3))
    )
]


def search(model: torch.nn.Module, prompts: list[list[int]], case: dict, eos: list[int]) -> tuple[list, list]:
    """BEAMS texts of each prompt, best first, with the token that ended them, and their scores."""
    if model.config.is_encoder_decoder:  # a source is padded at the right, as T5's tokenizer does
        width = max(map(len, prompts))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in prompts])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in prompts])
    else:
        ids, mask = left_padded(prompts)
    model.generation_config.eos_token_id = eos or None
    options = {name: value for name, value in case.items() if name != "ends"}
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
        output_scores=True,
        output_logits=True,  # or there are no beam_indices
        return_dict_in_generate=True,
        **options,
    )
    first = 1 if model.config.is_encoder_decoder else ids.shape[1]
    lengths = (out.beam_indices >= 0).sum(1).tolist()
    texts = [row[:length] for row, length in zip(out.sequences[:, first:].tolist(), lengths, strict=True)]
    return texts, out.sequences_scores.tolist()


def searches(model: torch.nn.Module, prompts: list[list[int]]) -> list[dict]:
    """Every case, once more in double precision: where that finds other texts, rounding has decided."""
    exact = copy.deepcopy(model).double()
    free, _ = search(model, prompts, CASES[0], [])
    common = sorted({id for row in free for id in row[:-2]})
    found = []
    for case in CASES:
        eos = [late_token(free), *common[:2]][: case["ends"]]
        texts, scores = search(model, prompts, case, eos)
        same, exact_scores = search(exact, prompts, case, eos)
        assert texts == same, f"two texts are too close to call: {case}"
        assert torch.allclose(torch.tensor(scores), torch.tensor(exact_scores), rtol=1e-5)
        rows = [f"{score:.5f}: {' '.join(map(str, ids))}" for score, ids in zip(scores, texts, strict=True)]
        found.append(case | {"eos_ids": eos, "found": rows})
    return found


def record(root: Path) -> None:
    folder = root / "decoding" / "t5"
    t5 = randomise(T5ForConditionalGeneration(T5Config(**T5)), seed=41, std=0.5)
    t5.save_pretrained(fresh_folder(folder))
    (folder / "generation_config.json").unlink()
    lengths = (3, 8, 1, 5)
    decoder = [random_ids(97, 1, length, seed=60 + length)[0].tolist() for length in lengths]
    sources = [[*random_ids(47, 1, length, seed=70 + length)[0].add(1).clamp(max=46).tolist(), 1] for length in lengths]
    models = [
        {"model": "gpt2/plain", "prompts": decoder, "cases": searches(plain_model(), decoder)},
        {"model": "decoding/t5", "prompts": sources, "cases": searches(t5, sources)},
    ]
    settings = {"beams": BEAMS, "max_new_tokens": NEW_TOKENS}
    write_json(root / "decoding" / "beams.json", settings | {"models": models})
