"""Results appear whole, under a name that nobody else has taken meanwhile."""

import threading

import pytest

from sciml.core.errors import ConfigError, UnwritableError
from sciml.core.outputs import new_output, numbered_folder

KINDS = (".zarr", ".nc")


def make(folder, out=None, text="made", suffixes=KINDS):
    with new_output(out, folder, "forecast", suffixes) as output:
        assert output.temporary.name.endswith(output.path.suffix)
        if output.temporary.suffix == ".zarr":
            output.temporary.mkdir()
            (output.temporary / "a").write_text(text)
        else:
            output.temporary.write_text(text)
    return output.path


@pytest.mark.parametrize("suffixes", [KINDS, KINDS[::-1], (".extxyz.xz",)])
def test_numbers_go_on_beyond_the_last(suffixes, tmp_path):
    folder = tmp_path / "forecasts"
    names = [make(folder, suffixes=suffixes).name for _ in range(3)]
    assert names == [f"forecast-00{number}{suffixes[0]}" for number in (1, 2, 3)]
    (folder / names[0]).rename(tmp_path / "moved")  # nothing that is there is overwritten
    (folder / "forecast-002_map.png").touch()
    assert make(folder, suffixes=suffixes).name == f"forecast-004{suffixes[0]}"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("suffix", KINDS)
def test_two_that_end_at_once_get_different_names(suffix, tmp_path):
    ready, paths = threading.Barrier(4), []

    def one(number):
        with new_output(None, tmp_path, "forecast", (suffix,)) as output:
            output.temporary.write_text(str(number)) if suffix == ".nc" else output.temporary.mkdir()
            ready.wait()
        paths.append(output.path)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 4
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("suffix", KINDS)
def test_a_name_that_is_taken_is_refused_also_when_it_is_taken_meanwhile(suffix, tmp_path):
    out = tmp_path / f"mine{suffix}"
    assert make(tmp_path, str(out)) == out
    with pytest.raises(ConfigError, match=r"out: .* is there already"):
        make(tmp_path, str(out))
    other = tmp_path / f"other{suffix}"

    def late():
        with new_output(str(other), tmp_path, "a", KINDS) as output:
            output.temporary.write_text("new") if suffix == ".nc" else output.temporary.mkdir()
            other.write_text("old")

    with pytest.raises(ConfigError, match="is there already"):
        late()
    assert other.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"out: 'a\.grib' does not end in \.zarr or \.nc; for example a\.zarr"):
        make(tmp_path, "a.grib")


def test_what_fails_leaves_nothing(tmp_path):
    def interrupted():
        with new_output(None, tmp_path, "forecast", KINDS) as output:
            output.temporary.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named_first(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UnwritableError, match=r"could not write .*file"),
        new_output(None, tmp_path / "file", "a", KINDS),
    ):
        pytest.fail("the work has begun")
    with pytest.raises(UnwritableError, match="could not write"):
        numbered_folder(tmp_path / "file")


def test_numbered_folders_are_each_ones_own(tmp_path):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "002").mkdir()  # the first was removed
    names = [numbered_folder(tmp_path / "evaluations").name for _ in range(2)]
    assert names == ["003", "004"]


def test_folders_that_were_made_for_a_result_that_failed_are_removed(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ConfigError), new_output(None, tmp_path / "runs" / "a" / "predictions", "p", KINDS):
        raise ConfigError("nothing to predict")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]
