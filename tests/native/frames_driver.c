/* Drives native/frames.c under the sanitizers: every split of known frames, then random bytes and
 * random damage to sound frames. The buffers are exactly as large as what they hold, so that one
 * byte too far is found. */
#include "voiced_native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);          \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

static uint32_t seed = 2463534242u;

static uint32_t next_random(void) { /* xorshift: the same sequence on every machine */
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static voiced_frame_reader server(uint32_t max_message) {
    voiced_frame_reader reader;
    memset(&reader, 0, sizeof reader);
    reader.max_message = max_message;
    reader.expect_masked = 1;
    return reader;
}

/* Reads `size` bytes in pieces of at most `step`; returns the frames seen, the error in `error`. */
static unsigned read_in_steps(const uint8_t *data, uint32_t size, uint32_t step, uint32_t *error) {
    voiced_frame_reader reader = server(70000);
    voiced_frames found;
    uint32_t held = 0, at = 0;
    unsigned count = 0;
    uint8_t *tail = malloc(1);
    *error = 0;
    while (at < size && !*error) {
        uint32_t piece = size - at < step ? size - at : step;
        uint8_t *buffer = malloc(held + piece);
        memcpy(buffer, tail, held);
        memcpy(buffer + held, data + at, piece);
        at += piece;
        uint32_t total = held + piece, used = 0;
        int frames;
        do {
            frames = voiced_frames_read(&reader, buffer + used, total - used, &found);
            CHECK(frames >= 0 && frames <= VOICED_FRAMES && found.consumed <= total - used);
            for (int i = 0; i < frames; i++) {
                CHECK(found.frames[i].offset <= found.consumed);
                CHECK(found.frames[i].length <= found.consumed - found.frames[i].offset);
            }
            count += (unsigned)frames;
            used += found.consumed;
            *error = found.error;
        } while (frames == VOICED_FRAMES);
        held = total - used;
        free(tail);
        tail = malloc(held + 1);
        memcpy(tail, buffer + used, held);
        free(buffer);
    }
    free(tail);
    return count;
}

static uint32_t conversation(uint8_t *out, uint32_t room) {
    static const uint32_t sizes[] = {0, 1, 7, 8, 9, 125, 126, 127, 4000, 65535, 65536};
    static uint8_t payload[65536];
    memset(payload, 'a', sizeof payload);
    uint32_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t size = sizes[i];
        CHECK(voiced_frame_write(out + at, 5, payload, size, 0x81, 1, next_random()) == 0);
        at += voiced_frame_write(out + at, room - at, payload, size, 0x81, 1, next_random());
        at += voiced_frame_write(out + at, room - at, payload, size % 126, 0x89, 1, next_random());
    }
    return at;
}

int main(void) {
    uint32_t room = 400000, error, other;
    uint8_t *whole = malloc(room);
    uint32_t size = conversation(whole, room);
    for (uint32_t step = 1; step < size; step = step * 3 / 2 + 1) {
        uint32_t limit = step < 16 ? 12000 : size; /* single bytes of large frames prove no more */
        unsigned frames = read_in_steps(whole, limit, step, &error);
        CHECK(frames == read_in_steps(whole, limit, limit, &other));
        CHECK(error == 0 && other == 0);
    }
    CHECK(read_in_steps(whole, size, size, &error) == 22);

    for (int round = 0; round < 20000; round++) {
        uint8_t data[256];
        uint32_t length = 1 + next_random() % sizeof data;
        if (round & 1) { /* a sound beginning, then damage */
            memcpy(data, whole, length);
            for (int i = 0; i < 4; i++) {
                data[next_random() % length] ^= (uint8_t)(1u << next_random() % 8);
            }
        } else {
            for (uint32_t i = 0; i < length; i++) {
                data[i] = (uint8_t)next_random();
            }
            data[0] &= 0x8F; /* past the reserved bits more often */
        }
        unsigned frames = read_in_steps(data, length, length, &error);
        CHECK(frames == read_in_steps(data, length, 1 + next_random() % 9, &other));
        CHECK(error == other);
    }

    /* The writer fills its room to the last byte and no further. */
    uint8_t text[300];
    memset(text, 'x', sizeof text);
    for (uint32_t length = 0; length <= sizeof text; length++) {
        for (int masked = 0; masked <= 1; masked++) {
            uint32_t needed = length + (length < 126 ? 2u : 4u) + (masked ? 4u : 0u);
            uint8_t *exact = malloc(needed);
            CHECK(voiced_frame_write(exact, needed, text, length, 0x81, masked, 1) == needed);
            CHECK(voiced_frame_write(exact, needed - 1, text, length, 0x81, masked, 1) == 0);
            free(exact);
        }
    }
    free(whole);
    return 0;
}
