"""The state directory is one daemon's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voiced.config.types import Config, Daemon
from voiced.starting import LOCK_NAME, StartError, only_daemon


def config(folder: Path) -> Config:
    return Config(daemon=Daemon(state_dir=folder))


def test_a_second_daemon_is_told_whose_folder_it_is(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("4194305 and more of an earlier one")
    for _ in range(2):  # the lock ends with its owner
        with only_daemon(config(tmp_path)):
            told = rf"\(process {os.getpid()}\); stop it, or name"
            with pytest.raises(StartError, match=told), only_daemon(config(tmp_path)):
                raise AssertionError("two at a time")
            assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_a_disk_without_room_for_the_name_locks_all_the_same(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).symlink_to("/dev/full")
    with only_daemon(config(tmp_path)):
        pass


def test_a_folder_that_cannot_be_used_is_the_journals_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with only_daemon(config(tmp_path / "file" / "state")):
        pass
