"""Corpora by name: "embedded" (written for this package), "pushkin" (downloaded), or the path of one's own.

    read_corpus    poems by name or path
    corpus_sha256  one number for a corpus, to write beside a result

Pushkin comes from public repositories at fixed commits; the readers in `minipoet.text.sources` make poems of them. The
dramas of the same repository are not among them: see `read_poems` for why. Chapter: docs/text.md.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from minipoet.text.dedup import drop_duplicates
from minipoet.text.download import OpenUrl, Pin, fetch, github
from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem, parse_poems, read_poems
from minipoet.text.records import read_text
from minipoet.text.sources import read_collected_verse, read_long_poem

EMBEDDED = "assets/pushkin_manner.txt"
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


def pushkin_pins() -> dict[str, Pin]:
    """The files of the corpus "pushkin": name of the work ("" for the collected lyrics) -> what to fetch."""
    repository, commit = _RUSLIT
    return {"": _LYRICS} | {
        work: Pin(github(repository, commit, f"poems/Pushkin/{work}.txt"), sha256, size, _PUBLIC)
        for work, sha256, size in _LONG_POEMS
    }


def read_corpus(
    name_or_path: str | Path, cache: str | Path | None = None, open_url: OpenUrl | None = None
) -> list[Poem]:
    """The poems of a corpus.

    "embedded" is verse in Pushkin's manner that comes with the package; "pushkin" is Pushkin's verse, no dramas,
    downloaded once (2 MB; `cache` and `open_url` are those of `fetch`); anything else is a path for `read_poems`.
    A folder that happens to be called so is given as "./pushkin".

    Raises:
        CorpusError: no such name or path, a download that fails, or a file that cannot be read.
    """
    if name_or_path == "embedded":
        return _read_embedded()
    if name_or_path == "pushkin":
        return _read_pushkin(cache, open_url)
    if not Path(name_or_path).exists():
        raise CorpusError(
            f"{name_or_path}: neither a file or folder nor the name of a corpus; the names are embedded and pushkin"
        )
    return read_poems(name_or_path)


def _read_embedded() -> list[Poem]:
    """The corpus that comes with the package."""
    file = resources.files("minipoet").joinpath(EMBEDDED)
    if not file.is_file():
        raise CorpusError(f"minipoet/{EMBEDDED} is missing from this installation: install minipoet again")
    return parse_poems(file.read_text(encoding="utf-8"), source=f"minipoet/{EMBEDDED}")


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
        for poem in poems
    )
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
