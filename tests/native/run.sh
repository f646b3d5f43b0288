#!/usr/bin/env bash
# The native sources under AddressSanitizer and UndefinedBehaviorSanitizer: each driver runs random
# and extreme input through one part and exits with 1 on what it finds wrong itself; what it prints,
# if anything, must be the same in every build. To add a part: one line in `drivers`, a driver and
# the sources that it needs. CC names another compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."

drivers=(
    "tests/native/audio.c native/g711.c native/resample.c"
    "tests/native/echo.c $(echo native/echo*.c)"
    "tests/native/frames_driver.c native/frames.c"
)

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags=(-std=c11 -Wall -Wextra -Werror -Inative -g)
sanitize=(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
export UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=detect_stack_use_after_return=1

for driver in "${drivers[@]}"; do
    read -ra sources <<<"$driver"
    name=$(basename "${sources[0]}" .c)
    unset expected
    # -O1 keeps reports exact; -O3 is what is shipped; without SSE2, what other processors run.
    for build in '-O1' '-O3' '-O3 -U__SSE2__'; do
        read -ra options <<<"$build"
        "${CC:-cc}" "${flags[@]}" "${sanitize[@]}" "${options[@]}" "${sources[@]}" -o "$out/$name"
        printed=$("$out/$name")
        if [[ ${expected=$printed} != "$printed" ]]; then
            printf '%s %s: makes %s, not %s\n' "$name" "$build" "$printed" "$expected" >&2
            exit 1
        fi
        printf '%s %s: clean\n' "$name" "$build"
    done
done
