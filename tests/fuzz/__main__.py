"""`python -m tests.fuzz TARGET [--runs N] [--corpus FOLDER]`: run one target under atheris."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fuzz until the runs are done or something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", help="a name in targets.py")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs to try")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's randomness")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps inputs between runs")
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("fuzzing needs atheris: pip install 'voiced[fuzz]'")
    with atheris.instrument_imports(include=["voiced"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS.get(options.target)
    if target is None:
        sys.exit(f"no target {options.target!r}; there are {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or Path(scratch, "corpus")
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        arguments = [
            sys.argv[0],
            f"-runs={options.runs}",
            f"-seed={options.seed}",
            f"-max_len={target.longest}",
            "-print_final_stats=1",
            str(corpus),
        ]
        if target.words:
            words = Path(scratch, "words")
            words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
            arguments.insert(1, f"-dict={words}")
        atheris.Setup(arguments, target.run)
        atheris.Fuzz()


def _escaped(word: str) -> str:
    """A word as a libFuzzer dictionary writes it."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in word.encode()
    )


if __name__ == "__main__":
    main()
