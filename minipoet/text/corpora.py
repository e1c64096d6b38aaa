"""Corpora by name: "embedded…" (written for this package), "pushkin" (downloaded), or the path of one's own.

    read_corpus        poems by name or path
    read_prose_corpus  prose by name ("embedded", "pushkin-prose") or path
    corpus_sha256      one number for a corpus, to write beside a result

Pushkin comes from public repositories at fixed commits; the readers in `minipoet.text.sources` make poems of them. The
dramas of the same repository are not among them: see `read_poems` for why. Chapter: docs/text.md.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from minipoet.checks import as_path, each
from minipoet.text.dedup import drop_duplicates
from minipoet.text.download import OpenUrl, Pin, fetch, github
from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem, parse_poems, read_poems
from minipoet.text.prose import parse_book, parse_prose, read_prose
from minipoet.text.records import read_text
from minipoet.text.sources import read_collected_verse, read_long_poem

EMBEDDED = {  # verse in the manner of these poets
    "embedded": "assets/pushkin_manner.txt",
    "embedded-lermontov": "assets/lermontov_manner.txt",
    "embedded-esenin": "assets/esenin_manner.txt",
}
EMBEDDED_PROSE = "assets/pushkin_prose_manner.txt"
PUSHKIN = "Александр Сергеевич Пушкин"

_PUBLIC = "public domain (the author died in 1837)"
_LYRICS = Pin(
    github("pavlov200912/LSTMS", "1d243a864b2a33122e2855b35f95bd24259091d7", "pushkin.txt"),
    "ae2134a7b8d871c937a81156605997c3522277547ab9cdb72a9d24cc429ea9d5",
    1184269,
    _PUBLIC,
)
_RUSLIT = ("d0rj/RusLit", "4509680428729da225a73a22008133660f92bb7e")
_LONG_POEMS = (  # the name of the file, which is that of the work; SHA-256; bytes
    ("Евгений Онегин", "c78228fc6aaebb2a3cfe84d9ab08473192a02bfa6cb635f5e5927a2b759ae5cb", 288485),
    ("Руслан и Людмила", "02608e58db9d15cd51b02d4d56eb407a32f3f8c33e59525f572652b4d5078a30", 109202),
    ("Медный всадник", "7daabcd6394b1e4953dc0951b13dbd59d24f93e6e5fc5ed0b703090d1b8f8a48", 41288),
    ("Сказка о золотом петушке", "a704be7563bfdbb2f9b84003ef50e2f001540e752c149908eade8ac2a2dfe21e", 9836),
    ("Сказка о медведихе", "0f46d11e577cbe26422a1c74a22779e8d68907b18488a222f0ad3bd143c17949", 4319),
    ("Сказка о мёртвой царевне", "35474c4062624cfcefaa7b00d386da138f2528248886e71d7a9c1da2ba7827de", 23252),
    ("Сказка о попе и работнике его Балде", "6e0038b644cf88f664c7a47ca9965c4de8c86caaf30ee3d1434dd576dc2b0fee", 9902),
    ("Сказка о рыбаке и рыбке", "92fe63b02cedaa7b05e565c2286eb8f529ca73123128e3a34af8c2ce7a41f91f", 10983),
    ("Сказка о царе Салтане", "73973ce33ddd2046a3d6d158b7e9c7dc9efc877f00e638489d9b894a4a5e7923", 42529),
)
_PROSE = (
    ("Арап Петра Великого", "8ae9c187bfc1c8e023ead0407bc2e74531719e471629efef1f7d72092ff18e94", 111973),
    ("Дубровский", "d8e71528cf0c7813db7878160e5c6b20199f20f41b73f7a8e6e59502be7cf371", 248088),
    ("Египетские ночи", "ae849e84d80c9816dc0a5ee09a33c71e67ee20dbd163174bef9b70fa896e7d3c", 40088),
    ("История Пугачёва", "9cf98ad69bdc15f1016aaab9a0313bcbec019f49eb87f2555e5fdcdfe1088264", 475732),
    ("История села Горюхина", "42f84c5d182cc2764334f5875dba0da3b3e4ee17cfcdddf60598251581408ac0", 56344),
    ("Капитанская дочка", "515adac7fc6d756fc941820ce9071c5e7a2a3f1417d4cfadc0b89cdd35a83f0f", 382749),
    ("Кирджали", "10fb22885bb9549bb5877d84b2654f4c38663f68b7cb3f3e0cfd58cd85ee701d", 20704),
    ("Пиковая дама", "cbe14b989c4799fe99af572a3986937bac70f283d218499aa1ab75d0c4c6ecdb", 84237),
    ("Повести Белкина", "540d5d7b11936a435d31596d0963f972aed63ab324ba97728d86a93d03c5bce2", 225315),
    ("Рославлев", "d502bb648bb080dea51b037177f7f3a7ea44b30ad998c03d3d1de7d28de59d97", 38469),
)
_LAST_WORDS = {  # of these works; what follows in the files is editors' notes, and documents
    "Арап Петра Великого": "тобрий повес, погофорим",
    "Дубровский": "скрылся за границу",
    "Египетские ночи": "Глава счастливцев отпадет",
    "История Пугачёва": "прозвал он пугачевщиною",
    "История села Горюхина": "печали и поминания горестного",
    "Капитанская дочка": "чувство омрачало мою радость",
    "Кирджали": "Каков Кирджали?",
    "Пиковая дама": "женится на княжне Полине",
    "Повести Белкина": "Конец повестям Белкина",
    "Рославлев": "упала без чувств",
}


def pushkin_pins() -> dict[str, Pin]:
    """The files of the corpus "pushkin": name of the work ("" for the collected lyrics) -> what to fetch."""
    repository, commit = _RUSLIT
    return {"": _LYRICS} | {
        work: Pin(github(repository, commit, f"poems/Pushkin/{work}.txt"), sha256, size, _PUBLIC)
        for work, sha256, size in _LONG_POEMS
    }


def pushkin_prose_pins() -> dict[str, Pin]:
    """The files of the corpus "pushkin-prose": name of the work -> what to fetch."""
    repository, commit = _RUSLIT
    return {
        work: Pin(github(repository, commit, f"prose/Pushkin/{work}.txt"), sha256, size, _PUBLIC)
        for work, sha256, size in _PROSE
    }


def read_corpus(
    name_or_path: str | Path,
    author: str | None = None,
    cache: str | Path | None = None,
    open_url: OpenUrl | None = None,
) -> list[Poem]:
    """The poems of a corpus.

    "embedded" is verse in Pushkin's manner that comes with the package, "embedded-lermontov" and "embedded-esenin" the
    same for these two; "pushkin" is Pushkin's verse, no dramas, downloaded once (2 MB; `cache` and `open_url` are those
    of `fetch`); anything else is a path for `read_poems`, of which the poems of `author` are kept. A folder that
    happens to be called so is given as "./pushkin".

    Raises:
        CorpusError: no such name or path, a download that fails, a file that cannot be read, or an author to be chosen
            where there is only one.
    """
    name = name_or_path if isinstance(name_or_path, str) else ""
    if name in (*EMBEDDED, "pushkin") and author is not None:
        raise CorpusError(f"the corpus {name} has one author: leave the choice of {author!r} out")
    if asset := EMBEDDED.get(name):
        return parse_poems(_read_asset(asset), source=f"minipoet/{asset}")
    if name == "pushkin":
        return _read_pushkin(cache, open_url)
    if not as_path(name_or_path, "The corpus").exists():
        raise CorpusError(
            f"{name_or_path}: neither a file or folder nor the name of a corpus; the names are "
            f"{', '.join((*EMBEDDED, 'pushkin'))}"
        )
    return read_poems(name_or_path, author)


def _read_asset(name: str) -> str:
    """The text of a file of the package."""
    file = resources.files("minipoet").joinpath(name)
    if not file.is_file():
        raise CorpusError(f"minipoet/{name} is missing from this installation: install minipoet again")
    return file.read_text(encoding="utf-8")


def _read_pushkin(cache: str | Path | None, open_url: OpenUrl | None) -> list[Poem]:
    """Pushkin's lyrics, tales and three long poems; all files are fetched before the first is read."""
    paths = {work: fetch(pin, cache, open_url) for work, pin in pushkin_pins().items()}
    poems = []
    for work, path in paths.items():
        text = read_text(path)
        if work:
            poems += read_long_poem(text, work, PUSHKIN, source=f"{work}.txt")
        else:
            poems += read_collected_verse(text, PUSHKIN, source="pushkin.txt")
    return drop_duplicates(poems)[0]


def read_prose_corpus(
    name_or_path: str | Path,
    author: str | None = None,
    cache: str | Path | None = None,
    open_url: OpenUrl | None = None,
) -> list[Poem]:
    """The works of a corpus of prose, a paragraph a line.

    "embedded" is prose in Pushkin's manner that comes with the package; "pushkin-prose" is ten works of Pushkin,
    downloaded once (1.7 MB; `cache` and `open_url` are those of `fetch`); anything else is a path for `read_prose`, of
    which the works of `author` are kept.

    Raises:
        CorpusError: no such name or path, a download that fails, or a file that cannot be read.
    """
    if name_or_path == "embedded":
        return parse_prose(_read_asset(EMBEDDED_PROSE), source=f"minipoet/{EMBEDDED_PROSE}")
    if name_or_path == "pushkin-prose":
        paths = {work: fetch(pin, cache, open_url) for work, pin in pushkin_prose_pins().items()}
        return [
            parse_book(read_text(path), work, _LAST_WORDS[work], PUSHKIN, source=f"{work}.txt")
            for work, path in paths.items()
        ]
    if not as_path(name_or_path, "The corpus").exists():
        raise CorpusError(
            f"{name_or_path}: neither a file or folder nor the name of a corpus of prose; the names are embedded and "
            "pushkin-prose"
        )
    return read_prose(name_or_path, author)


def corpus_sha256(poems: Sequence[Poem]) -> str:
    """A number that is equal for equal corpora: SHA-256, in hexadecimal, of the sorted hashes of the poems.

    A poem counts with its text, title, author and work, and as often as it occurs; `source` does not count, and the
    order of the poems does not, since neither changes what is learned (batches are shuffled, and splits go by the
    text). It is a hash of the cleaned text: a folder and a JSONL file with the same poems have the same one.
    """
    hashes = sorted(
        hashlib.sha256(
            json.dumps([poem.text, poem.title, poem.author, poem.work], ensure_ascii=False).encode()
        ).hexdigest()
        for poem in each(poems, Poem, "The poems", "Poem(text)")
    )
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
