/* Streaming conversion between formats: decode, resample, encode, in one call and without memory of
 * its own. All state that passes from call to call is in voiced_converter: the last samples, the
 * position of the next output, half a PCM sample. So it does not matter where a stream is cut. */
#include "voiced_native.h"

#include "phases.h"

#include <string.h>

/* Samples decoded, and resampled, at a time; on the stack. 20 ms at 48 kHz go in one turn. */
enum { BLOCK = 960 };
enum { Q14 = 14, Q15 = 15, ONE = 1 << Q15 }; /* coefficients are Q14, weights of `linear` Q15 */
enum { MIN_RATE = 4000, MAX_RATE = 192000 };
enum { NO_SUCH, NO_FILTER, LINEAR, BY_PHASES }; /* the last: and which of RATIOS, added to it */

/* tables: begin, by design_filters.py */
static const int16_t UP_2[1][16] = {
    {
        -66, 163, -326, 586, -1000, 1711, -3244, 10367, 10369, -3244, 1711, -1000,
        586, -326, 163, -66,
    },
};
static const int16_t DOWN_2[2][16] = {
    {
        -33, 81, -163, 292, -499, 855, -1621, 5179, 5179, -1621, 855, -499,
        292, -163, 81, -33,
    },
    {
        0, 0, 0, 0, 0, 0, 0, 8202, 0, 0, 0, 0,
        0, 0, 0, 0,
    },
};
static const int16_t UP_3[2][16] = {
    {
        -68, 160, -313, 555, -945, 1629, -3208, 13526, 6692, -2486, 1350, -793,
        462, -254, 124, -47,
    },
    {
        -47, 124, -254, 462, -793, 1350, -2486, 6692, 13526, -3208, 1629, -945,
        555, -313, 160, -68,
    },
};
static const int16_t DOWN_3[3][16] = {
    {
        -16, 41, -84, 154, -264, 450, -828, 2229, 4506, -1069, 543, -315,
        185, -104, 53, -23,
    },
    {
        -23, 53, -104, 185, -315, 543, -1069, 4506, 2229, -828, 450, -264,
        154, -84, 41, -16,
    },
    {
        0, 0, 0, 0, 0, 0, 0, 5468, 0, 0, 0, 0,
        0, 0, 0, 0,
    },
};
static const int16_t UP_6[5][16] = {
    {
        -46, 104, -200, 351, -595, 1037, -2143, 15647, 3065, -1280, 711, -419,
        243, -131, 62, -22,
    },
    {
        -68, 160, -313, 555, -945, 1629, -3208, 13526, 6692, -2486, 1350, -793,
        462, -254, 124, -47,
    },
    {
        -66, 163, -326, 586, -1000, 1711, -3244, 10367, 10369, -3244, 1711, -1000,
        586, -326, 163, -66,
    },
    {
        -47, 124, -254, 462, -793, 1350, -2486, 6692, 13526, -3208, 1629, -945,
        555, -313, 160, -68,
    },
    {
        -22, 62, -131, 243, -419, 711, -1280, 3065, 15647, -2143, 1037, -595,
        351, -200, 104, -46,
    },
};
static const int16_t DOWN_6[6][16] = {
    {
        -4, 10, -22, 40, -70, 119, -213, 511, 2608, -357, 173, -99,
        58, -33, 17, -8,
    },
    {
        -8, 21, -42, 77, -132, 225, -414, 1115, 2253, -534, 271, -157,
        93, -52, 27, -11,
    },
    {
        -11, 27, -54, 98, -166, 285, -540, 1727, 1727, -540, 285, -166,
        98, -54, 27, -11,
    },
    {
        -11, 27, -52, 93, -157, 271, -534, 2253, 1115, -414, 225, -132,
        77, -42, 21, -8,
    },
    {
        -8, 17, -33, 58, -99, 173, -357, 2608, 511, -213, 119, -70,
        40, -22, 10, -4,
    },
    {
        0, 0, 0, 0, 0, 0, 0, 2728, 0, 0, 0, 0,
        0, 0, 0, 0,
    },
};
static const int16_t UP_3_DOWN_2[4][8] = {
    {
        -68, -313, -945, -3208, 6692, 1350, 462, 124,
    },
    {
        160, 555, 1629, 13526, -2486, -793, -254, -47,
    },
    {
        -47, -254, -793, -2486, 13526, 1629, 555, 160,
    },
    {
        124, 462, 1350, 6692, -3208, -945, -313, -68,
    },
};
static const int16_t UP_2_DOWN_3[6][8] = {
    {
        -45, -208, -629, -2137, 4457, 899, 308, 82,
    },
    {
        82, 308, 899, 4457, -2137, -629, -208, -45,
    },
    {
        0, 0, 0, 10930, 0, 0, 0, 0,
    },
    {
        -32, -169, -529, -1657, 9015, 1086, 370, 107,
    },
    {
        0, 0, 0, 0, 0, 0, 0, 0,
    },
    {
        107, 370, 1086, 9017, -1657, -529, -169, -32,
    },
};
/* tables: end */

/* The weights of the sample before and the one after, `part` / `up` of the way between them. */
#define AFTER(part, up) (((part) * ONE + (up) / 2) / (up))
#define LINE(part, up) ONE - AFTER(part, up), AFTER(part, up)
#define LINE_APART(part, up) {ONE - AFTER(part, up), 0}, {AFTER(part, up), 0}
static const int16_t LINE_2[1][2] = {{LINE(1, 2)}};
static const int16_t LINE_3[2][2] = {{LINE(1, 3)}, {LINE(2, 3)}};
static const int16_t LINE_6[5][2] = {
    {LINE(1, 6)}, {LINE(2, 6)}, {LINE(3, 6)}, {LINE(4, 6)}, {LINE(5, 6)},
};
static const int16_t LINE_2_DOWN_3[2][2] = {LINE_APART(1, 2)};
static const int16_t LINE_3_DOWN_2[4][2] = {LINE_APART(1, 3), LINE_APART(2, 3)};

/* What `by_phases` does for one ratio; `shift` tells whether that is `fir` or `linear`. Outputs of
 * the phase `copied` are samples of the input, `from` after where a filter would begin. `rows` has
 * the taps of all other phases: `runs` rows of `taps` each, the s-th of which goes over every
 * down-th sample from the s-th on. */
struct ratio {
    const int16_t *rows;
    uint8_t up, down, runs, taps, shift, copied, from;
};
enum { NONE = 255 };
static const struct ratio RATIOS[] = {
    {UP_2[0], 2, 1, 1, 16, Q14, 0, 7},
    {UP_3[0], 3, 1, 1, 16, Q14, 0, 7},
    {UP_6[0], 6, 1, 1, 16, Q14, 0, 7},
    {DOWN_2[0], 1, 2, 2, 16, Q14, NONE, 0},
    {DOWN_3[0], 1, 3, 3, 16, Q14, NONE, 0},
    {DOWN_6[0], 1, 6, 6, 16, Q14, NONE, 0},
    {UP_3_DOWN_2[0], 3, 2, 2, 8, Q14, 0, 7},
    {UP_2_DOWN_3[0], 2, 3, 3, 8, Q14, NONE, 0},
    {LINE_2[0], 2, 1, 1, 2, Q15, 1, 1},
    {LINE_3[0], 3, 1, 1, 2, Q15, 2, 1},
    {LINE_6[0], 6, 1, 1, 2, Q15, 5, 1},
    {LINE_3_DOWN_2[0], 3, 2, 2, 2, Q15, 2, 1},
    {LINE_2_DOWN_3[0], 2, 3, 2, 2, Q15, 1, 1},
};

/* Outputs that n more samples make: every multiple of `down` below n * up, from position on. */
static inline size_t outputs(const voiced_converter *c, size_t n, size_t up, size_t down) {
    size_t end = n * up;
    return end > c->position ? (end - c->position + down - 1) / down : 0;
}

static inline void advance(voiced_converter *c, size_t n, size_t count, size_t up, size_t down) {
    c->position = (uint32_t)(c->position + count * down - n * up);
}

/* By r->up / r->down; x holds c->past samples of history, then n fresh ones. Every up-th output has
 * the same phase and lies `down` samples after the one before: with the input split by `down` a
 * phase is a filter over neighbours, and the phases in turn are the output. */
static size_t by_phases(voiced_converter *c, const struct ratio *r, const int16_t *x, size_t n,
                        int16_t *out) {
    const uint32_t up = r->up, down = r->down;
    const size_t count = outputs(c, n, up, down), each = (count + up - 1) / up;
    int16_t streams[6][LONGEST], results[6][LONGEST];
    const int16_t *sorted[6] = {x}, *phases[6];
    if (down > 1) {
        split(x, (c->past + n + down - 1) / down, down, streams);
        for (size_t s = 0; s < down; s++) {
            sorted[s] = streams[s];
        }
    }
    uint32_t at = c->position;
    for (uint32_t turn = 0; turn < up; turn++, at += down) {
        const uint32_t i = at / up, phase = at % up;
        if (phase == r->copied) {
            const uint32_t k = i + r->from;
            phases[turn] = sorted[k % down] + k / down;
            continue;
        }
        const int16_t *taps = r->rows + (phase - (phase > r->copied)) * r->runs * r->taps;
        struct run runs[6];
        for (uint32_t s = 0; s < r->runs; s++, taps += r->taps) {
            /* A row that begins with zero has no other tap than its middle. */
            const uint32_t k = i + s, middle = taps[0] ? 0 : r->taps / 2 - 1;
            runs[s].x = sorted[k % down] + k / down + middle;
            runs[s].taps = taps + middle;
            runs[s].count = taps[0] ? r->taps : 2;
        }
        int16_t *result = up > 1 ? results[turn] : out;
        filter(c->avx2, runs, r->runs, r->shift, each, result);
        phases[turn] = result;
    }
    if (up > 1) {
        weave(phases, each, up, out);
    }
    advance(c, n, count, up, down);
    return count;
}

static inline int16_t between(int32_t a, int32_t b, int32_t weight) {
    return (int16_t)((a * (ONE - weight) + b * weight + ONE / 2) >> Q15);
}

/* x[0] is the sample before the fresh ones. An output lies at (phase + 1) / up of the way from x[i]
 * to x[i + 1], so the last of a block needs nothing of the next one: equal frames in make equal
 * frames out. */
static size_t interpolate(voiced_converter *c, const int16_t *restrict x, size_t n,
                          int16_t *restrict out) {
    const size_t up = c->up, down = c->down, count = outputs(c, n, up, down);
    for (size_t turn = 0; turn < up && turn < count; turn++) {
        size_t at = c->position + turn * down, i = at / up, phase = at % up;
        int32_t weight = (int32_t)((((uint64_t)phase + 1) * ONE + up / 2) / up);
        if (weight == ONE) { /* all there is where `up` is 1 */
            for (size_t o = turn; o < count; o += up, i += down) {
                out[o] = x[i + 1];
            }
            continue;
        }
        for (size_t o = turn; o < count; o += up, i += down) {
            out[o] = between(x[i], x[i + 1], weight);
        }
    }
    advance(c, n, count, up, down);
    return count;
}

static uint8_t filter_for(uint32_t up, uint32_t down, int fir) {
    if (up == down) {
        return NO_FILTER;
    }
    for (size_t k = 0; k < sizeof RATIOS / sizeof *RATIOS; k++) {
        const struct ratio *r = RATIOS + k;
        if (r->up == up && r->down == down && r->shift == (fir ? Q14 : Q15)) {
            return (uint8_t)(BY_PHASES + k);
        }
    }
    return fir ? NO_SUCH : LINEAR;
}

static uint32_t greatest_common_divisor(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int voiced_converter_init(voiced_converter *c, uint32_t source, uint32_t source_rate,
                          uint32_t target, uint32_t target_rate, int fir) {
    if (source > VOICED_PCMA || target > VOICED_PCMA || source_rate < MIN_RATE ||
        source_rate > MAX_RATE || target_rate < MIN_RATE || target_rate > MAX_RATE) {
        return 0;
    }
    uint32_t divisor = greatest_common_divisor(source_rate, target_rate);
    memset(c, 0, sizeof *c);
    c->source = (uint8_t)source;
    c->target = (uint8_t)target;
    c->up = target_rate / divisor;
    c->down = source_rate / divisor;
    c->filter = filter_for(c->up, c->down, fir);
    if (c->filter == NO_SUCH) {
        return 0;
    }
    if (c->filter != NO_FILTER && fir) {
        const struct ratio *r = RATIOS + (c->filter - BY_PHASES);
        c->past = (uint8_t)(r->runs * r->taps - 1);
        c->tail = (uint8_t)(r->runs * r->taps / 2);
    } else if (c->filter != NO_FILTER) {
        c->past = 1;
        c->first = c->down - 1;
    }
    c->avx2 = HAS_AVX2;
    uint64_t most = (uint64_t)BLOCK * c->down / c->up;
    c->block = most < BLOCK ? (uint32_t)most : BLOCK;
    voiced_converter_reset(c);
    return 1;
}

void voiced_converter_reset(voiced_converter *c) {
    memset(c->history, 0, sizeof c->history);
    c->position = c->first;
    c->halved = 0;
}

static size_t resample(voiced_converter *c, const int16_t *x, size_t n, int16_t *out) {
    if (c->filter == LINEAR) {
        return interpolate(c, x, n, out);
    }
    return by_phases(c, RATIOS + (c->filter - BY_PHASES), x, n, out);
}

static void decode(const voiced_converter *c, const uint8_t *in, size_t n, int16_t *out) {
    switch (c->source) {
        case VOICED_PCMU: voiced_ulaw_to_pcm(in, n, (uint8_t *)out); break;
        case VOICED_PCMA: voiced_alaw_to_pcm(in, n, (uint8_t *)out); break;
        default: memcpy(out, in, 2 * n);
    }
}

static void encode(const voiced_converter *c, const int16_t *in, size_t n, uint8_t *out) {
    switch (c->target) {
        case VOICED_PCMU: voiced_pcm_to_ulaw((const uint8_t *)in, n, out); break;
        case VOICED_PCMA: voiced_pcm_to_alaw((const uint8_t *)in, n, out); break;
        default: memcpy(out, in, 2 * n);
    }
}

static size_t bytes_of(uint8_t encoding) { return encoding == VOICED_PCM16 ? 2 : 1; }

/* x has room for the history, which this fills in, and then holds n fresh samples. */
static size_t convert_block(voiced_converter *c, int16_t *x, size_t n, uint8_t *out) {
    if (c->filter == NO_FILTER) {
        encode(c, x, n, out);
        return n * bytes_of(c->target);
    }
    int16_t resampled[BLOCK + SLACK];
    memcpy(x, c->history, c->past * sizeof *x);
    size_t count = resample(c, x, n, resampled);
    memcpy(c->history, x + n, c->past * sizeof *x);
    encode(c, resampled, count, out);
    return count * bytes_of(c->target);
}

ptrdiff_t voiced_convert(voiced_converter *c, const uint8_t *in, size_t size, uint8_t *out,
                         size_t room) {
    int16_t x[VOICED_HISTORY + BLOCK + SLACK];
    size_t width = bytes_of(c->source), held = c->halved, samples = (size + held) / width;
    if (outputs(c, samples, c->up, c->down) > room / bytes_of(c->target)) {
        return -1;
    }
    uint8_t *at = out;
    while (samples) {
        size_t n = samples < c->block ? samples : c->block;
        if (held) { /* the other half of the first sample came with the call before */
            uint8_t first[2] = {c->half, in[0]};
            memcpy(x + c->past, first, 2);
            decode(c, in + 1, n - 1, x + c->past + 1);
        } else {
            decode(c, in, n, x + c->past);
        }
        in += n * width - held;
        size -= n * width - held;
        samples -= n;
        held = 0;
        at += convert_block(c, x, n, at);
    }
    if (size) {
        c->half = in[0];
    }
    c->halved = held || size;
    return at - out;
}

ptrdiff_t voiced_converter_flush(voiced_converter *c, uint8_t *out, size_t room) {
    int16_t x[VOICED_HISTORY + VOICED_HISTORY + SLACK] = {0};
    if (outputs(c, c->tail, c->up, c->down) > room / bytes_of(c->target)) {
        return -1;
    }
    size_t written = c->tail ? convert_block(c, x, c->tail, out) : 0;
    voiced_converter_reset(c);
    return (ptrdiff_t)written;
}
