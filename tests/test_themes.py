"""What a poem is about: titles that are themes, and words that stand out (minipoet/text/themes.py)."""

from collections import Counter

import pytest

from minipoet.text import Poem, read_corpus
from minipoet.text.themes import Themes, nominative

# Enough forms of nouns to tell their nominatives; the last two have adjectives and verbs, some in forms like a noun's.
CORPUS = [
    Poem("Над морем тишь. У моря я стою.\nСиний парус на море плывёт,\nи море у паруса поёт, и с парусом плывёт."),
    Poem("О, осень! За осенью иду,\nпро осени пою в саду, без сада осени не жду; за садом, в саду сад."),
    Poem(
        "Рука в руке, с рукой рука. У реки стою, а за рекой — река, и у реки\nтечёт Нева. На Неву, к Неве, над Невой."
    ),
    Poem("Он плывёт и стоит, и поёт. Синее, синий, о синем, за синим, у синего."),
    Poem("Стой! Стоя, стою. Молода, молодой, с молодой, под молодою, молодую, молодая, к молодой."),
]


@pytest.fixture(scope="module")
def themes() -> Themes:
    return Themes.of(CORPUS)


def titled(title: str, text: str = "Парус на море.", **fields) -> Poem:
    return Poem(text, title, **fields)


@pytest.mark.parametrize(
    ("title", "theme"),
    [
        ("Осень", "осень"),
        ("ОСЕНЬ", "осень"),
        ("«Осень».", "осень"),
        ("Осень (Отрывок)", "осень"),
        ("Осень!", "осень"),
        ("Моря и реки", "моря и реки"),
        ("У моря", "у моря"),
        ("Нева", "Нева"),  # the corpus writes it with a capital
        ('Сад "Рука"', "сад Рука"),
        ("Сад д'Арк", "сад дАрк"),
    ],
)
def test_title_is_the_theme_without_its_marks(themes, title, theme):
    assert themes.title_theme(titled(title)) == theme
    assert themes.theme(titled(title)) == theme


@pytest.mark.parametrize(
    "title",
    ["", "***", "К ***", "К N.", "К Наталье", "К морю", "Ко мне", "Стихи", "Песня", "Отрывок", "Экспромт", "Элегия",
     "Без названия", "XIV", "5", "19 октября", "1831-го января", "Глава 1", "Глава первая", "Лесная быль. Глава вторая",
     "А. А. Олениной", "В. Г. БЕЛИНСКИЙ", "Друзьям", "Поэту", "Любимому", "Катенину", "Ответ Катенину",
     "Из письма к Вяземскому", "Из Гейне", "На Каченовского", "В альбом", "В альбом Сушковой", "Ответ на письмо",
     "Екатерине Павловне Пешковой", "Князю Суворову", "Memento", "Итальянская villa", "Вот они...", "Русская песня",
     "О том, как сад и парус на море", "Одиссея. Песнь I"],
)  # fmt: skip
def test_title_that_names_a_form_a_person_or_a_number_is_none(themes, title):
    assert themes.title_theme(titled(title)) == ""
    assert themes.theme(titled(title)) == themes.salient("Парус на море.")


def test_title_that_is_the_first_line_is_none(themes):
    assert themes.title_theme(titled("Парус плыл на море", "Парус плыл на море,\nрука в руке.")) == ""
    assert themes.title_theme(titled("Осень", "Осень над морем.")) == "осень"  # one word of it may be


def test_title_of_the_whole_is_no_theme_of_a_part(themes):
    assert themes.title_theme(titled("Осень", work="Осень")) == ""


def test_word_that_is_often_here_and_rare_elsewhere_stands_out(themes):
    # Of five poems one has осень and one has рука: ln 5 each. (1 + ln 2) · ln 5 = 2.73, and 1.61 is 0.59 of it.
    assert themes.salient("Осень и рука,\nосенью иду") == "осень"
    assert themes.salient("Рука и осень") == "рука, осень"  # equal: the earlier first
    assert themes.salient("Осень и рука") == "осень, рука"


def test_rarer_word_stands_out_to_a_limit(themes):
    more = Themes.of([*CORPUS, *CORPUS[:1]])  # море twice of six
    assert more.salient("море и осень") == "осень"  # ln 6 = 1.79 to ln 3 = 1.10
    many = Themes.of([*CORPUS, *CORPUS[:1], *[Poem("о")] * 194])  # 2 of 200 and 1 of 200: both less than 2 %
    assert many.salient("море и осень") == "море, осень"


def test_word_that_every_poem_has_does_not_stand_out():
    poems = [Poem(poem.text + " Море! Морем, у моря.") for poem in CORPUS]
    assert Themes.of(CORPUS).salient("Море, море, море, сад") == "море"
    assert Themes.of(poems).salient("Море, море, море, сад") == "сад"  # ln 1 = 0, however often


def test_verbs_adjectives_and_pronouns_are_no_themes(themes):
    assert themes.nouns.keys() & {"син", "плывет", "поет", "сто", "молод", "мор"} == {"мор"}
    assert nominative("сто", Counter(["стой", "стоя", "стою"])) == "стой"  # but never behind a preposition
    assert nominative("молод", Counter(["молода", "молодую", "молодою"])) == "молода"  # but declined as an adjective
    assert themes.salient("Синий, синее, плывёт и поёт, и стой, и стоя молода молодой у моря") == "море"


def test_theme_is_in_the_nominative(themes):
    assert themes.salient("за осенью") == "осень"
    assert themes.salient("над рекой") == "река"
    assert themes.salient("с парусом") == "парус"
    assert themes.salient("на Неве") == "Нева"


def test_text_without_a_known_noun_gives_its_first_word_of_weight(themes):
    assert themes.salient("Я и не ты: бурлит") == "бурлит"
    assert themes.salient("...") == "жизнь"


@pytest.mark.parametrize(
    ("stem", "forms", "expected"),
    [
        ("осен", "осень осени осенью", "осень"),
        ("рук", "рука руки руку рукой рукою рук", "рука"),
        ("земл", "земля земли землю землей землею", "земля"),
        ("садов", "садовник", ""),
        ("город", "город города городу городом", "город"),
        ("кра", "край края краю краем", "край"),
        ("кон", "конь коня коню конем", "конь"),
        ("окн", "окно окна окну окном", "окно"),
        ("мор", "море моря морю морем морей", "море"),
        ("сердц", "сердце сердца сердцу сердцем", "сердце"),
        ("желан", "желанье желанья желаньем желаний", "желанье"),
        ("спокойств", "спокойствие спокойствия спокойствием", "спокойствие"),
        ("лин", "линия линии линию линией", "линия"),
        ("колдун", "колдунья колдуньи колдунью колдуньей", "колдунья"),
        ("камн", "камня камню камнем камней", ""),
        ("туч", "туча тучи тучу туч тучею", "туча"),
        ("недел", "неделя недели неделю недель неделей", "неделя"),
        ("бой", "бой", "бой"),
        ("вчер", "вчера", ""),
    ],
)
def test_nominative_is_told_from_the_other_forms(stem, forms, expected):
    assert nominative(stem, Counter(forms.split())) == expected


def test_rare_form_is_no_nominative():
    # 1 of 40 is less than 3 %: "морей" (of seas) brings no "морь"
    assert nominative("отц", Counter({"отца": 30, "отцом": 20, "отце": 1})) == ""


def test_themes_do_not_depend_on_the_order_of_the_corpus(themes):
    assert Themes.of(CORPUS[::-1]) == themes


def test_embedded_poems_have_themes_of_their_own():
    poems = read_corpus("embedded")
    themes = Themes.of(poems)
    found = [themes.theme(poem) for poem in poems]
    assert all(theme and theme == theme.strip() and "\n" not in theme for theme in found)
    assert len(set(found)) > len(poems) / 2


def test_careless_calls_are_told(themes):
    with pytest.raises(ValueError, match="there is no poem in this one"):
        Themes.of([])
    with pytest.raises(ValueError, match="The poems must be a list of"):
        Themes.of("Осень")
    with pytest.raises(ValueError, match=r"The poem must be a Poem\(text\)"):
        themes.theme("Осень")
