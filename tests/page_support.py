"""A comparison for the tests of the page and of the terminal: verse made up for it, and what else a model may write."""

from __future__ import annotations

import io
from functools import cache

from minipoet.plots.comparison import Comparison, Pair, Picture, Sample

QUATRAINS = """Стоит октябрь у калитки,
И гаснет свет в пустом саду,
И дождь прядёт косые нитки,
И я домой один иду.

А там, за старою рекою,
Где тонет в сумерках паром,
Живут молчанье с тишиною
И ждут, когда мы к ним придём."""
HOSTILE = """<script>document.title = "украдено"</script> & "кавычки" 'и' &amp; ещё
</p></div></section><h1 id="top">взлом</h1>
<img src="http://example.org/x.png" onerror="alert(1)">
\x00\x07\x1b[31mкрасное\x7f\x9b \ufffd \u202eвспять \ud83d"""
LONG = "и снег, и снег, и снег, " * 40 + "без" * 200 + "конца"
POETS = ("Пушкин", "Лермонтов", "Бродский")
THEMES = ("осень", "грусть & <радость>", "дружба")


@cache
def png(color: str = "white", width: int = 60, height: int = 40) -> bytes:
    """A picture of one colour."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, "PNG")
    return file.getvalue()


def pair(poet: str = "Пушкин", theme: str = "осень", base: str = QUATRAINS, adapted: str = QUATRAINS) -> Pair:
    request = f"Напиши стихотворение из 2 четверостиший на тему '{theme}' в стиле поэта {poet}"
    return Pair(request, Sample(base, "length", 3, 60), Sample(adapted, "end", 3, 52))


def comparison(poets=POETS, themes=THEMES, **changes) -> Comparison:
    """Everything that a page may hold: hostile, long and empty texts, several samples, tables, pictures, notes."""
    poems = {poet: [pair(poet, theme) for theme in themes] for poet in poets}
    first = poems[poets[0]]
    first[0] = pair(poets[0], themes[0], base=HOSTILE, adapted=LONG)
    first[-1] = Pair(themes[-1], [Sample("", "end", 1, 1), Sample(QUATRAINS)], Sample(QUATRAINS, "context"))
    content = dict(
        title="Три поэта <и> «base»",
        base="poet-chat",
        poets=poets,
        prompts=themes,
        poems=poems,
        metrics=[
            {"author": poet, "loss": 2.1337, "grad_norm": 0.84, "entropy": 1.52, "num_tokens": 123456,
             "mean_token_accuracy": 0.6512, "held-out loss before": 3.21, "held-out loss after": 2.3,
             "trainable parameters": 14966784} for poet in poets
        ],
        style=[{"asked": poet, "base": (0.2, 0.08, 0.42), "adapted": (0.7, 0.48, 0.86), "quatrains": "3 of 4"}
               for poet in poets],
        figures=[Picture(png(), "Кривая потерь \"<&\"", "Loss", png("black")), Picture(png("gray"), "Одна на всех")],
        notes=["The verse was made up for this test.", "python examples/qwen_lora_poets.py --out <folder>"],
    )  # fmt: skip
    return Comparison(**{**content, **changes})
