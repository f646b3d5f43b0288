"""Every fuzz target holds for its seeds and for simple mutations of them, without a fuzzer."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    target = TARGETS[name]
    assert target.seeds
    for seed in target.seeds:
        assert len(seed) <= target.longest
        target.run(seed)
    target.run(b"")


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(name)
    for _ in range(150):
        data = bytearray(chance.choice(target.seeds))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data) + 1)
            match chance.randrange(3):
                case 0:
                    data[place : place + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[place : place + chance.randint(1, 16)]
                case _:
                    words = target.words or ["\0"]
                    data[place:place] = chance.choice(words).encode()
        target.run(bytes(data))
