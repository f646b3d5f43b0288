"""Computes the filter tables of `resample.c` and writes them between its markers.

    python native/design_filters.py          rewrite the tables
    python native/design_filters.py --check  exit 1 if they are not what this script computes

Every filter is a windowed sinc with its 6 dB point at half the lower of the two rates. It reaches
over 16 samples of that rate and is symmetric about the eighth, hence a delay of exactly 8 of them:
1 ms at 8 kHz. A sinc with that cutoff is zero at every other sample of the lower rate, so when
upsampling, phase 0 is the input itself and is left out of the table. When downsampling, what is one
phase there is every second, third or sixth tap, of which only the middle one is not zero.

The Kaiser window's beta trades the width of the transition for its depth. From 3.25 to 4.75 kHz
(of 8 kHz; in proportion for 16 kHz) 47 taps at 24 kHz reach 50 dB: 10 dB better than is asked for.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "resample.c"
BEGIN: Final = "/* tables: begin, by design_filters.py */\n"
END: Final = "/* tables: end */\n"

REACH: Final = 16  # samples of the lower rate
BETA: Final = 4.55
ONE: Final = 1 << 14  # coefficients are Q14


def bessel_i0(x: float) -> float:
    """The modified Bessel function of order zero, by its power series."""
    total = term = 1.0
    k = 1
    while term > total * 1e-17:
        term *= (x / (2 * k)) ** 2
        total += term
        k += 1
    return total


def prototype(factor: int) -> list[float]:
    """REACH * factor taps at `factor` times the lower rate, of sum `factor`; tap 0 is zero."""
    half = REACH // 2 * factor
    taps = []
    for n in range(-half, half):
        sinc = 1.0 if n == 0 else math.sin(math.pi * n / factor) / (math.pi * n / factor)
        window = bessel_i0(BETA * math.sqrt(1 - (n / half) ** 2)) / bessel_i0(BETA)
        taps.append(sinc * window if n > -half else 0.0)
    return taps


def quantise(taps: Sequence[float]) -> list[int]:
    """Taps of sum 1 in Q14, their sum exactly 1: a constant passes unchanged in every phase."""
    scale = ONE / math.fsum(taps)
    fixed = [round(tap * scale) for tap in taps]
    fixed[max(range(len(fixed)), key=fixed.__getitem__)] += ONE - sum(fixed)
    # Full-scale samples of the worst signs, and the rounding, must not leave 32 bits.
    if (sum(map(abs, fixed)) << 15) + ONE >= 1 << 31:
        raise ArithmeticError("a filter does not fit into Q14")
    return fixed


def phases(taps: Sequence[float], up: int) -> list[list[int]]:
    """One row per phase, the oldest sample's coefficient first."""
    return [quantise(taps[phase::up][::-1]) for phase in range(up)]


def split(rows: list[list[int]], down: int) -> list[list[int]]:
    """Each row as `down` rows: the taps of every `down`-th sample, from each of the first on."""
    return [row[start::down] for row in rows for start in range(down)]


def tables() -> dict[str, list[list[int]]]:
    """Every table of `resample.c` by its name."""
    found = {}
    for factor in (2, 3, 6):
        taps = prototype(factor)
        found[f"UP_{factor}"] = phases(taps, factor)[1:]
        found[f"DOWN_{factor}"] = split(phases(taps, 1), factor)
    found["UP_3_DOWN_2"] = split(found["UP_3"], 2)
    found["UP_2_DOWN_3"] = split(phases(prototype(3), 2), 3)  # the multiple is 3 times the lower
    # `by_phases` in resample.c goes by that.
    for row in itertools.chain.from_iterable(found.values()):
        if not row[0] and any(tap for k, tap in enumerate(row) if k != len(row) // 2 - 1):
            raise ArithmeticError("a row that begins with zero has more than its middle")
    return found


def render() -> str:
    """The tables as C."""
    lines = []
    for name, rows in tables().items():
        lines.append(f"static const int16_t {name}[{len(rows)}][{len(rows[0])}] = {{")
        for row in rows:
            lines.append("    {")
            lines.extend(
                "        " + ", ".join(map(str, row[start : start + 12])) + ","
                for start in range(0, len(row), 12)
            )
            lines.append("    },")
        lines.append("};")
    return "\n".join(lines) + "\n"


def rewritten(source: str) -> str:
    """`source` with the tables as this script computes them."""
    head, rest = source.split(BEGIN)
    _, tail = rest.split(END)
    return head + BEGIN + render() + END + tail


def main() -> int:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description="write the filter tables of resample.c")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if different")
    check = parser.parse_args().check
    source = SOURCE.read_text("utf-8")
    wanted = rewritten(source)
    if check and wanted != source:
        print(f"{SOURCE.name} does not hold the tables that this script computes", file=sys.stderr)
        return 1
    if not check:
        SOURCE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
