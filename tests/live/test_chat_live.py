"""Conversations against transformers and the templates as published (in trl), random messages (seeds: live_support)."""

import random
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("jinja2")

from live_support import SEEDS
from transformers import AutoTokenizer

from minipoet.tokenization import load_tokenizer, train_bpe
from minipoet.tokenization.chat import PLAIN, QWEN2, QWEN2_5, QWEN3, ChatTemplate, chat_template, recognise

QWEN = Path(__file__).resolve().parent.parent / "reference" / "qwen_chat"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The templates of trl that are ours in the text of plain messages; every other one must be refused.
KNOWN = {
    "qwen2_5": QWEN2_5,
    "qwen2_5_training": QWEN2_5,
    "qwen3": QWEN3,
    "qwen3_instruct_2507": PLAIN,
    "qwen3_instruct_2507_training": PLAIN,
}
BITS = [
    *"абвгдйёЖ яЯ",
    *" \n\t\r.,!?—«»'’_\"\\{}%",
    *"0189",
    "\n\n",
    "  ",
    "й",
    "\u0301",
    "½",
    "🦉",
    "👩‍👧",
    "река",
    "don't",
    "user\n",
]
NESTED = ["{{ 1 }}", "{% if %}", "<|im_sep|>", "< |im_end|>", "<|im_end"]


def trl_templates() -> dict[str, str]:
    """Every template that trl has, by name."""
    spec = find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("trl is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "chat_templates"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def random_text(rng: random.Random) -> str:
    return "".join(rng.choices(BITS + NESTED, k=rng.choice([0, 1, 3, 12, 40])))


def random_conversation(rng: random.Random) -> list[dict[str, str]]:
    """Any order of users and assistants, sometimes with a system message before."""
    roles = ["system"] * (rng.random() < 0.4) + rng.choices(["user", "assistant"], k=rng.randint(0, 5))
    return [{"role": role, "content": random_text(rng)} for role in roles or ["user"]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", KNOWN)
def test_random_conversations_get_the_text_and_the_ids_of_the_published_template(name: str, seed: int) -> None:
    theirs, ours, rng = AutoTokenizer.from_pretrained(QWEN), load_tokenizer(QWEN), random.Random(seed)
    published = trl_templates()[name]
    template = recognise(published)
    assert template == KNOWN[name]
    for _ in range(150):
        messages, prompt = random_conversation(rng), rng.random() < 0.5
        options = {"chat_template": published, "add_generation_prompt": prompt, "enable_thinking": False}
        assert template.text(messages, prompt) == theirs.apply_chat_template(messages, tokenize=False, **options)
        assert template.encode(ours, messages, prompt) == theirs.apply_chat_template(
            messages, return_dict=False, **options
        ), messages


def test_every_other_template_of_trl_is_refused() -> None:
    for name, text in trl_templates().items():
        if name not in KNOWN:
            with pytest.raises(ValueError, match="not one that minipoet knows"):
                recognise(text)


@pytest.mark.parametrize("seed", SEEDS)
def test_text_that_spells_a_marker_is_what_careful_transformers_make_of_it(seed: int) -> None:
    theirs, ours, rng = AutoTokenizer.from_pretrained(QWEN), load_tokenizer(QWEN), random.Random(seed)
    options = {"chat_template": trl_templates()["qwen2_5"], "return_dict": False, "sanitize_control_tokens": True}
    for _ in range(150):
        # Between letters: transformers cut the text at the marker, and we do not; so it must be a cut of words anyway.
        content = "".join(f"а{rng.choice(SPECIALS)}я" for _ in range(rng.randint(1, 3)))
        messages = [{"role": "user", "content": content}]
        assert QWEN2_5.encode(ours, messages) == theirs.apply_chat_template(messages, **options), content


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("system", [None, QWEN2.system, "Ты «поэт»: 'а' \"б\" \\ {{ 1 }}\nпиши 🦉"])
def test_transformers_render_what_we_save_as_we_do(system: str | None, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    tokenizer = train_bpe(["Лодки стоят у берега, а на берегу\nкот.\n\n" * 3], 400, SPECIALS)
    tokenizer.chat, tokenizer.more_eos = ChatTemplate(system), ["<|im_end|>"]
    tokenizer.save(tmp_path)
    theirs, back = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    assert chat_template(back) == ChatTemplate(system)
    for _ in range(100):
        messages, prompt = random_conversation(rng), rng.random() < 0.5
        options = {"add_generation_prompt": prompt}
        assert back.chat.text(messages, prompt) == theirs.apply_chat_template(messages, tokenize=False, **options)
        ids = theirs.apply_chat_template(messages, return_dict=False, **options)
        assert back.chat.encode(back, messages, prompt) == ids, messages


def test_a_published_folder_saved_by_us_has_their_template_and_their_ids(tmp_path: Path) -> None:
    published = trl_templates()["qwen2_5"]
    theirs = AutoTokenizer.from_pretrained(QWEN)
    theirs.chat_template = published
    theirs.save_pretrained(tmp_path / "published")
    load_tokenizer(tmp_path / "published").save(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.chat_template == published
    messages = [{"role": "user", "content": "Сколько лодок?"}]
    assert again.apply_chat_template(messages) == theirs.apply_chat_template(messages)
    assert chat_template(load_tokenizer(tmp_path / "saved")) == QWEN2_5
