"""Files that are whole or not there, whoever writes them."""

import threading

import pytest

from ortho_kernels.trainer.report.atomic_writing import write_atomically


def test_of_many_that_write_at_once_one_stays(tmp_path):
    path, texts, errors = tmp_path / "knn.json", [str(i) * 200_000 for i in range(8)], []

    def write(text):
        try:
            for _ in range(20):
                write_atomically(path, text)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_text() in texts
    assert [*tmp_path.iterdir()] == [path]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    path = tmp_path / "knn.json"
    write_atomically(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]
