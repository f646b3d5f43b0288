/* Random cuts and extreme input through g711.c and resample.c. Every buffer is allocated for each
 * call in exactly the size the interface promises to stay within, so that the sanitizers see a byte
 * too many; inputs stand at odd addresses too. */
#include "voiced_native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;
static uint64_t heard = 14695981039346656037u; /* FNV-1a of all that was made */

static uint32_t draw(uint32_t below) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

static void expect(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "audio: %s\n", what);
        exit(1);
    }
}

static void hear(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        heard = (heard ^ data[i]) * 1099511628211u;
    }
}

static uint8_t *room(size_t size) {
    uint8_t *data = malloc(size ? size : 1);
    expect(data != NULL, "out of memory");
    return data;
}

/* Kinds of input: noise, both extremes, a square wave between them, one constant byte. */
static void fill(uint8_t *data, size_t size, uint32_t kind) {
    uint8_t constant = (uint8_t)draw(256);
    for (size_t i = 0; i < size; i++) {
        int high = kind == 1 || (kind == 3 && i / 26 % 2);
        int extreme = kind >= 1 && kind <= 3;
        uint8_t bound = high ? (i % 2 ? 0x7F : 0xFF) : (i % 2 ? 0x80 : 0x00);
        data[i] = extreme ? bound : kind == 4 ? constant : (uint8_t)draw(256);
    }
}

/* `size` bytes at an odd or even address, their end at the end of the allocation. */
static uint8_t *input(size_t size, uint8_t **allocation) {
    size_t shift = draw(2);
    *allocation = room(size + shift);
    fill(*allocation + shift, size, draw(6));
    return *allocation + shift;
}

static void check_codecs(size_t samples) {
    uint8_t *of_pcm, *pcm = input(2 * samples, &of_pcm);
    uint8_t *of_codes, *codes = input(samples, &of_codes);
    uint8_t *narrow = room(samples), *wide = room(2 * samples), *stereo = room(4 * samples);
    voiced_ulaw_to_pcm(codes, samples, wide);
    voiced_pcm_to_ulaw(wide, samples, narrow);
    for (size_t i = 0; i < samples; i++) {
        expect(narrow[i] == codes[i] || codes[i] == 0x7F, "a mu-law code does not come back");
    }
    voiced_alaw_to_pcm(codes, samples, wide);
    voiced_pcm_to_alaw(wide, samples, narrow);
    expect(!memcmp(narrow, codes, samples), "an A-law code does not come back");
    voiced_ulaw_to_alaw(codes, samples, narrow);
    hear(narrow, samples);
    voiced_alaw_to_ulaw(codes, samples, narrow);
    hear(narrow, samples);
    voiced_pcm_to_ulaw(pcm, samples, narrow);
    hear(narrow, samples);
    voiced_pcm_to_alaw(pcm, samples, narrow);
    hear(narrow, samples);
    voiced_mix(pcm, wide, samples, stereo);
    hear(stereo, 2 * samples);
    voiced_interleave(pcm, wide, samples, stereo);
    hear(stereo, 4 * samples);
    size_t frame = 1 + draw(200), frames = samples / frame;
    double *powers = (double *)(void *)room(frames * sizeof *powers);
    voiced_mean_squares(pcm, frames, frame, powers);
    for (size_t i = 0; i < frames; i++) {
        expect(powers[i] >= 0 && powers[i] <= 32768.0 * 32768.0, "a power is out of range");
    }
    free(powers);
    free(of_pcm), free(of_codes), free(narrow), free(wide), free(stereo);
}

static size_t most_output(size_t size, uint32_t from, uint32_t to) {
    return (size_t)(((uint64_t)size + 1) * to / from + 2) * 2;
}

/* One stream whole and in pieces, some of those without the processor's wider vectors; both must
 * make the same bytes. */
static void check_stream(uint32_t source, uint32_t from, uint32_t target, uint32_t to, int fir) {
    voiced_converter whole, parts;
    expect(voiced_converter_init(&whole, source, from, target, to, fir), "no such converter");
    parts = whole;
    size_t size = draw(4) ? draw(3000) : draw(4), most = most_output(size, from, to) + 4096;
    uint8_t *allocation, *data = input(size, &allocation), *expected = room(most);
    ptrdiff_t count = voiced_convert(&whole, data, size, expected, most);
    expect(count >= 0, "too little room for the whole");
    ptrdiff_t tail = voiced_converter_flush(&whole, expected + count, most - (size_t)count);
    expect(tail >= 0, "too little room for the end");
    hear(expected, (size_t)(count + tail));

    size_t at = 0;
    ptrdiff_t done = 0;
    while (at < size) {
        size_t piece = draw(3) ? draw(8) : draw(700);
        piece = piece > size - at ? size - at : piece;
        uint8_t *exact = room(piece); /* so that reading past a piece is seen */
        memcpy(exact, data + at, piece);
        uint8_t *out = room(most_output(piece, from, to));
        parts.avx2 = draw(2) ? whole.avx2 : 0;
        voiced_converter before = parts;
        ptrdiff_t got = voiced_convert(&parts, exact, piece, out, most_output(piece, from, to));
        expect(got >= 0 && done + got <= count, "a piece makes too much");
        expect(!memcmp(out, expected + done, (size_t)got), "a piece differs from the whole");
        free(out);
        if (got > 0) { /* exactly enough room is enough, one byte less is refused unharmed */
            out = room((size_t)got);
            voiced_converter again = before;
            expect(voiced_convert(&again, exact, piece, out, (size_t)got - 1) == -1, "not refused");
            expect(!memcmp(&again, &before, sizeof again), "a refusal changes the state");
            expect(voiced_convert(&again, exact, piece, out, (size_t)got) == got, "refused");
            free(out);
        }
        done += got;
        at += piece;
        free(exact);
    }
    expect(done == count, "the pieces make too little");
    uint8_t *end = room((size_t)tail);
    expect(voiced_converter_flush(&parts, end, (size_t)tail) == tail, "another end");
    expect(!memcmp(end, expected + count, (size_t)tail), "the end differs");
    free(end), free(allocation), free(expected);
}

static void check_refusals(void) {
    voiced_converter c;
    expect(!voiced_converter_init(&c, 3, 8000, 0, 8000, 0), "an encoding that is none");
    expect(!voiced_converter_init(&c, 0, 0, 0, 8000, 0), "a rate of zero");
    expect(!voiced_converter_init(&c, 0, 8000, 0, UINT32_MAX, 0), "a rate beyond all");
    expect(!voiced_converter_init(&c, 0, 44100, 0, 8000, 1), "a filter that is none");
    expect(!voiced_converter_init(&c, 0, 8000, 0, 128000, 1), "a ratio beyond the filters");
}

int main(void) {
    static const uint32_t rates[] = {8000, 16000, 24000, 48000};
    static const uint32_t odd_rates[] = {4000, 7919, 11025, 44100, 192000};
    check_refusals();
    for (int round = 0; round < 300; round++) {
        check_codecs(round < 40 ? (size_t)round : draw(2000));
    }
    for (int round = 0; round < 4000; round++) {
        check_stream(draw(3), rates[draw(4)], draw(3), rates[draw(4)], 1);
        uint32_t from = draw(2) ? rates[draw(4)] : odd_rates[draw(5)];
        uint32_t to = draw(2) ? rates[draw(4)] : odd_rates[draw(5)];
        check_stream(draw(3), from, draw(3), to, 0);
    }
    printf("%016llx\n", (unsigned long long)heard);
    return 0;
}
