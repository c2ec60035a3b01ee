"""Sentence pairs from CSV files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.data.sentence_pairs import SentencePairs
from ldm.util import UserError


def csv(folder: Path, text: str, encoding: str = "utf-8") -> str:
    path = folder / "pairs.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_three_layouts(tmp_path: Path) -> None:
    pairs = SentencePairs(csv(tmp_path, "ko,en\n빨간 별,a red star\n", "utf-8-sig"))
    assert pairs[0] == {"source": "빨간 별", "target": "a red star", "language": "ko"} and len(pairs) == 1
    assert SentencePairs(csv(tmp_path, "en,zh\na red star,红色星星"))[0]["language"] == "zh"
    both = SentencePairs(csv(tmp_path, 'ko,zh,en\n빨간 별,红色星星,a red star\n\n,绿色,"green, or so"\n'))
    assert [pair["language"] for pair in both.pairs] == ["ko", "zh", "zh"]
    assert both[2]["target"] == "green, or so"
    long = csv(tmp_path, "lang,source,en\nmixed,red 별,a red star\nen,red star,a red star\nko,별,a star\n")
    assert [pair["language"] for pair in SentencePairs(long).pairs] == ["mixed", "en", "ko"]
    assert len(SentencePairs(long, languages=["ko"])) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ko,english\n별,star\n", "needs the columns ko,en or zh,en or lang,source,en.*it has: ko,english"),
        ("en\nstar\n", "needs the columns"),
        ("", "needs the columns.*it has: none"),
        ("ko,en\n", "has no pairs"),
        ("lang,source,en\nxx,별,star\n", "line 2 of .*unknown language 'xx'; known: en, ko, zh, mixed"),
        ("ko,en\n별,\n", "line 2 of .*nothing in column 'en'"),
        ("ko,en\n별,star\níŒŒëž€,blue\n", "line 3 of .*'íŒŒëž€' in column 'ko' is garbled.*UTF-8"),
        ("ko,en\nstar,star\n", "line 2 of .*no Hangul"),
        ("ko,en\n별,별\n", "line 2 of .*column 'en' is not English"),
    ],
)
def test_bad_files_end_with_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SentencePairs(csv(tmp_path, text))


def test_other_encodings_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the table of sentence pairs '.*' is not in UTF-8 \(line 2\)"):
        SentencePairs(csv(tmp_path, "ko,en\n별,star\n", "cp949"))
    with pytest.raises(UserError, match=r"cannot read the table of sentence pairs .*none\.csv"):
        SentencePairs(str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="unknown language 'fr'"):
        SentencePairs(csv(tmp_path, "ko,en\n별,star\n"), languages=["fr"])
