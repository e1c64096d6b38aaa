"""Few-shot prompts (minipoet/text/few_shot.py) and likeness (minipoet/text/likeness.py), with numbers by hand."""

from math import log, sqrt

import pytest

import minipoet
from minipoet.generation import StopStrings
from minipoet.text.few_shot import ChatForm, PlainForm, Shot, Shots
from minipoet.text.likeness import Likeness
from minipoet.tokenization import chat_template

SHOTS = [
    Shot("зима", "Снега легли\nСнега белы"),
    Shot("лето", "Трава густа\nЖара стоит"),
    Shot("река", "Вода бежит\nВода поёт"),
    Shot("сад", "Цветут сады\nИ снег, и пух"),
]


def letters(prompts):
    """A count without surprises: a letter is a token; of a conversation those of its messages."""
    return [len(p) if isinstance(p, str) else sum(len(message["content"]) for message in p) for p in prompts]


def pool(shots=SHOTS, form=None, count=letters, **more):
    return Shots(shots, form or PlainForm(), count, **more)


# likeness


def test_likeness_is_the_cosine_by_hand():
    # снег and лес are in two texts of four, ln(4/2) = ln 2; луг is in one, ln 4 = 2 ln 2
    alike = Likeness(["снег луг", "Снег!", "лес", "леса, леса"])
    assert alike.scores("снега") == pytest.approx([1 / sqrt(1 + 4), 1, 0, 0])
    both = alike.scores("снег и лес")
    assert both == pytest.approx([1 / sqrt(5) / sqrt(2), 1 / sqrt(2), 1 / sqrt(2), 1 / sqrt(2)])


def test_word_said_again_weighs_more_but_not_twice():
    twice = (1 + log(2)) / sqrt((1 + log(2)) ** 2 + 1)
    assert Likeness(["снег снег луг", "луг", "снег лес", "лес"]).scores("снег") == pytest.approx(
        [twice, 0, 1 / sqrt(2), 0]
    )


def test_words_of_all_texts_and_words_that_say_nothing_do_not_count():
    alike = Likeness(["Напиши о море, о нём", "Напиши о лесе, о нём"])
    assert alike.scores("напиши о нём") == [0, 0]
    assert alike.scores("напиши о лесе") == pytest.approx([0, 1])
    assert Likeness(["если море", "лес"]).scores("если") == [0, 0]


def test_unknown_words_do_not_count_and_nothing_is_like_nothing():
    alike = Likeness(["море", "лес", "..."])
    assert alike.scores("лес и пароход") == pytest.approx([0, 1, 0])
    assert alike.scores("") == [0, 0, 0]
    assert Likeness([]).scores("лес") == []


# forms


def test_plain_form_is_labelled_poems_and_the_request():
    assert PlainForm().prompt(SHOTS[:1], "осень") == "Тема: зима\nСнега легли\nСнега белы\n\nТема: осень\n"
    form = PlainForm("О чём: ", "\n\n***\n\n")
    assert form.prompt(SHOTS[:1], "осень") == "О чём: зима\nСнега легли\nСнега белы\n\n***\n\nО чём: осень\n"
    assert PlainForm().prompt([], "осень") == "Тема: осень\n"
    assert PlainForm().prompt([Shot("лес", "\n  Лес\n")], "сад") == "Тема: лес\n  Лес\n\nТема: сад\n"


def test_chat_form_is_turns():
    user, assistant = "user", "assistant"
    assert [(m["role"], m["content"]) for m in ChatForm("Ты поэт").prompt(SHOTS[:1], "осень")] == [
        ("system", "Ты поэт"),
        (user, "зима"),
        (assistant, "Снега легли\nСнега белы"),
        (user, "осень"),
    ]
    assert ChatForm().prompt([], "осень") == [{"role": user, "content": "осень"}]
    assert ChatForm().stops == () and ChatForm().parse("\nЛес\n\nТема: дом \n") == "Лес\n\nТема: дом"


@pytest.mark.parametrize(
    ("form", "stops"),
    [
        (PlainForm(), ("\nТема:",)),
        (PlainForm("> ", "\n"), ("\n>",)),
        (PlainForm(between="\n***\n"), ("\nТема:", "\n***")),
    ],
)
def test_next_label_or_divider_ends_a_poem(form, stops):
    assert form.stops == stops
    for stop in stops:
        reader = StopStrings(form.stops)
        told = "".join(map(reader.push, f"Лес шумит\n\nИ ветер{stop} дом\nКрыша")) + reader.finish()
        assert reader.found and form.parse(told) == "Лес шумит\n\nИ ветер"


def test_blank_lines_and_the_word_inside_a_line_end_nothing():
    written = "Лес\n\nЭто Тема: лес\nТемань"
    assert PlainForm().parse(written) == written


def test_parse_finds_the_end_where_no_stop_string_was_asked_for():
    assert PlainForm().parse("Лес\n  Тема: дом\nКрыша\nТема: сад") == "Лес"
    assert PlainForm().parse("Тема: дом\nКрыша") == ""  # the next label at once: no poem


# choosing


def test_most_alike_example_stands_next_to_the_request():
    found = pool().prompt("белые снега", 2, 1000, 10)
    assert [shot.request for shot in found.shots] == ["сад", "зима"]
    assert found.given == PlainForm().prompt(found.shots, "белые снега")


def test_request_of_an_example_counts_as_its_poem_does():
    assert pool().prompt("о лете", 1, 1000, 10).shots == (SHOTS[1],)


def test_chance_is_that_of_seed_and_request_whatever_was_asked_before():
    many = [Shot("зима", f"Снег {n}") for n in range(30)]
    first, again, other = (pool(many, seed=seed) for seed in (1, 1, 2))
    again.ranked("лето", "chance")
    order = first.ranked("осень", "chance")
    assert order == again.ranked("осень", "chance") and sorted(order) == list(range(30))
    assert order != other.ranked("осень", "chance") and order != first.ranked("лето", "chance")
    assert first.ranked("осень") == order  # none is alike: chance decides
    assert set(first.likeness("осень")) == {0}


def test_one_example_of_chance_is_among_the_five():
    one, three = (pool().prompt("осень", shots, 1000, 1, "chance").shots for shots in (1, 3))
    assert one == three[-1:] and len(three) == 3


# room


def test_whole_examples_are_left_out_the_least_alike_first():
    # "Тема: зима\nСнега легли\nСнега белы\n\n" is 35 letters, with «сад» 37, with the request 11
    shots = pool([SHOTS[0], SHOTS[3]])
    assert [shots._length(number) for number in (0, 1)] == [35, 37]
    best = shots.prompt("зима", 2, 1000, 1).shots
    assert best == (SHOTS[3], SHOTS[0])
    for context, fitting in ((11 + 72 + 4, 2), (11 + 72 + 3, 1), (11 + 35 + 4, 1), (11 + 35 + 3, 0)):
        found = shots.prompt("зима", 2, context, 5)
        assert (len(found.shots), found.shots) == (fitting, best[2 - fitting :])
        assert found.tokens == len(found.given) <= context - 5 + 1 and found.asked == 2


def test_example_that_is_too_long_even_alone_makes_place_for_another():
    long = Shot("снег", "Снег, снег, снег\n" * 20 + "Снег")
    found = pool([*SHOTS, long]).prompt("снег", 2, 200, 50)
    assert {shot.request for shot in found.shots} == {"зима", "сад"}


def test_prompt_that_is_longer_than_its_parts_loses_one_more():
    def count(prompts):
        return [len(text) + 9 * (text.count("\n\n") > 1) for text in prompts]

    assert len(pool(count=count).prompt("снег", 2, 11 + 72, 1).shots) == 1
    assert len(pool(count=count).prompt("снег", 2, 11 + 72 + 9, 1).shots) == 2


def test_each_example_is_counted_once():
    counted = []

    def count(prompts):
        counted.extend(prompts)
        return letters(prompts)

    shots = pool(count=count)
    for request in ("снег", "вода", "сады", "снег и вода"):
        shots.prompt(request, 3, 1000, 10)
    alone = [text for text in counted if text.count("Тема:") == 2]
    assert len(alone) == len(set(alone)) == 4


@pytest.mark.parametrize("name", ["poet-tiny", "poet-chat"])
def test_prompt_leaves_a_model_its_room(name):
    model, tokenizer = minipoet.load(name)
    talks = name == "poet-chat"

    def count(prompts):
        if talks:
            template = chat_template(tokenizer)
            return [len(template.encode(tokenizer, messages, generation_prompt=True)) for messages in prompts]
        return [1 + len(tokenizer.encode(text)) for text in prompts]

    many = [Shot(f"снег {n}", shot.text + "\n" + SHOTS[n % 4].text) for n in range(40) for shot in SHOTS]
    shots = pool(many, ChatForm() if talks else None, count)
    found = shots.prompt("снег", 100, model.context, 64)
    assert 3 < len(found.shots) < 100
    assert count([found.given]) == [found.tokens]
    assert model.context - 64 + 1 - 40 < found.tokens <= model.context - 64 + 1  # no room is wasted on caution
    if talks:
        settings = {"max_new_tokens": 64, "until_end": False}
        ((answer,),) = minipoet.generation.chat_many(model, tokenizer, [found.given], **settings)
    else:
        ((answer,),) = minipoet.generation.generate_many(
            model, tokenizer, [found.given], max_new_tokens=64, until_end=False
        )
    assert (len(answer.ids), answer.finish) == (64, "length")


# leaks


def test_held_out_poem_and_its_variants_are_never_examples():
    poem = "Над тихой речкой вечер поздний\nЗажёг далёкую звезду\nИ воздух ясный и морозный\nПрозрачен стал на льду"
    variant = poem.replace("Зажёг далёкую", "Зажег, далекую").upper()
    longer = f"Другое начало у этих стихов\n\n{poem}\n\nИ другой у них конец, длиннее на строку"
    half = "\n".join([*poem.split("\n")[:2], "Но дальше всё не так у нас", "И строки здесь совсем другие"])
    one_line = "\n".join([poem.split("\n")[0], *SHOTS[0].text.split("\n")])
    texts = [poem, variant, longer, half, one_line]
    shots = pool([Shot("вечер", text) for text in texts], held_out=["Что-то ещё", poem])
    assert (shots.leaks, [shot.text for shot in shots.shots]) == (4, [one_line])
    assert pool([Shot("вечер", text) for text in texts]).leaks == 0


# mistakes


def test_all_wrong_examples_are_told_at_once():
    misleading = Shot("лес", "Лес\n Тема: дом\nДом")
    wrong = [SHOTS[0], Shot("две\nстроки", "Лес"), Shot("лес", " \n"), misleading, Shot(" ", "Лес")]
    with pytest.raises(ValueError, match="4 of 5 examples cannot be used") as error:
        pool(wrong)
    for number, why in enumerate(["one line", "no text, got ' ", "begins with 'Тема:'", "one line"], start=1):
        assert f"number {number}: " in str(error.value) and why in str(error.value)
    assert len(pool([misleading], ChatForm()).shots) == 1  # in a conversation nobody is misled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": ""}, "words on one line, got ''"),
        ({"request": "а\nб"}, "words on one line"),
        ({"request": None}, "words on one line, got None"),
        ({"shots": 5}, "There are 4 examples to choose from: 0 to so many, got 5"),
        ({"shots": -1}, "got -1"),
        ({"shots": True}, "got True"),
        ({"by": "beauty"}, "'likeness' or 'chance', got 'beauty'"),
        ({"new_tokens": 0}, "at least 1, got new_tokens=0"),
        ({"context": 20}, "takes 12 tokens, and 10 new ones leave 11 of a context of 20"),
        ({"context": 5}, "leave 0 of a context of 5"),
    ],
)
def test_mistakes_in_a_prompt_are_told(change, message):
    given = {"request": "осень", "shots": 2, "context": 1000, "new_tokens": 10} | change
    with pytest.raises(ValueError, match=message):
        pool().prompt(**given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlainForm(" "), "label of one line"),
        (lambda: PlainForm("а\nб"), "label of one line"),
        (lambda: PlainForm(between="***"), "a line break to begin what"),
        (lambda: PlainForm(None), "The label must be a string"),
        (lambda: PlainForm(between=3), "must be a string, got 3"),
        (lambda: ChatForm(3), "string or None, got 3"),
        (lambda: PlainForm().parse(None), "must be a string, got None"),
        (lambda: ChatForm().parse(None), "must be a string, got None"),
        (lambda: pool("Лес"), "list of Shot"),
        (lambda: pool([("лес", "Лес")]), "number 0 of it is tuple"),
        (lambda: pool(form="plain"), "PlainForm.. or a ChatForm.., got 'plain'"),
        (lambda: pool(held_out="Лес"), "held-out poems must be a list"),
        (lambda: pool(seed=-1), "seed=-1"),
        (lambda: Likeness("лес"), "The texts must be a list"),
        (lambda: Likeness(["лес"]).scores(None), "must be a string, got None"),
    ],
)
def test_other_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
