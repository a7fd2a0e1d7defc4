"""Files, passages and windows: nothing is read twice, nothing is scored that was learned from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domains.language.data_config import LanguageDataConfig, TextSplits
from domains.language.samples import Windows
from domains.language.schema import LanguageStatistics, count_pairs
from domains.language.text import Passage, cut, find_files
from sciml.core.errors import ConfigError, DataError

SPLITS = TextSplits(train=6, valid=1, test=3)


@pytest.fixture
def files(tmp_path):
    """Two files whose bytes count from 0 and from 100."""
    for name, first, count in (("a.txt", 0, 100), ("b.txt", 100, 51)):
        (tmp_path / name).write_bytes(bytes(range(first, first + count)))
    return tmp_path


def test_every_byte_of_every_file_is_in_one_split(files):
    passages = cut(find_files([str(files / "*.txt")]), SPLITS)
    text = [byte for found in passages.values() for passage in found for byte in passage.read()]
    assert sorted(text) == list(range(151))
    assert [byte for passage in passages["test"] for byte in passage.read()] == [*range(70, 100), *range(136, 151)]


def test_patterns_lists_and_files_are_found_once_and_in_order(files):
    names = [str(files / "b.txt"), str(files / "*.txt")]
    assert [file.name for file in find_files(names)] == ["b.txt", "a.txt"]
    assert LanguageDataConfig(path=names).patterns == names
    assert LanguageDataConfig(path=names[0]).patterns == names[:1]


def test_scored_windows_predict_every_byte_once(files):
    windows = Windows([Passage(files / "a.txt", 10, 41), Passage(files / "b.txt", 0, 21)], "test", 10)
    generator = np.random.default_rng(0)
    batch = windows.collate([windows.sample(n, generator) for n in range(len(windows))])
    assert batch.tokens[:, 0].tolist() == [10, 20, 30, 100, 110]
    assert batch.targets.flatten().tolist() == [*range(11, 41), *range(101, 121)]
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert generator.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_random_windows_stay_in_their_passage_and_begin_everywhere(files):
    windows = Windows([Passage(files / "a.txt", 20, 60), Passage(files / "b.txt", 5, 20)], "train", 8, random=True)
    generator = np.random.default_rng(0)
    samples = [windows.sample(n, generator) for n in range(len(windows)) for _ in range(60)]
    assert {int(sample[0]) for sample in samples} == {*range(20, 52), *range(105, 112)}
    assert all(torch.equal(sample, sample[0] + torch.arange(9, dtype=torch.uint8)) for sample in samples)


def test_a_part_without_a_window_is_refused_unless_nothing_is_learned_from_it(files):
    short = [Passage(files / "a.txt", 0, 8)]
    with pytest.raises(DataError, match=r"a\.txt: its part for valid has 8 bytes, 9 are needed for a window"):
        Windows(short, "valid", 8)
    assert len(Windows(short, "valid", 8, required=False)) == 0
    assert len(Windows(short, "valid", 7)) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("c.txt", "c.txt does not exist"), ("*.md", r"\*\.md fits no file"), ("", r"is a folder; e\.g\. data\.path='")],
)
def test_what_names_no_file_is_refused(files, name, message):
    with pytest.raises(ConfigError, match=message):
        find_files([str(files / name)])


def test_an_empty_file_is_refused(files):
    (files / "c.txt").touch()
    with pytest.raises(DataError, match=r"c\.txt is empty"):
        find_files([str(files / "*.txt")])


def test_pairs_are_counted_within_passages(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abcabcab")
    passages = [Passage(tmp_path / "a", 0, 5), Passage(tmp_path / "a", 5, 8)]
    counts = count_pairs(passages).pairs
    pairs = {"ab": 3, "bc": 1, "ca": 2}
    assert {a + b: int(counts[ord(a), ord(b)]) for a, b in pairs} == pairs
    assert counts.sum() == 6
    monkeypatch.setattr("domains.language.schema.BLOCK", 2)
    assert torch.equal(count_pairs(passages).pairs, counts)


def test_probabilities_add_up_and_nothing_is_impossible():
    pairs = torch.zeros(256, 256, dtype=torch.int64)
    pairs[65, 66] = 9
    found = LanguageStatistics(pairs)
    assert found.unigram.sum().item() == pytest.approx(1)
    torch.testing.assert_close(found.bigram.sum(1), torch.ones(256, dtype=torch.float64))
    assert found.unigram.min() > 0
    assert found.bigram[65, 66].item() == pytest.approx((9 + 10 / 265) / 10)
    torch.testing.assert_close(found.bigram[7], found.unigram)
