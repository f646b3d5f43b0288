/* Streaming conversion between formats: decode, resample, encode, in one call and without memory of
 * its own. All state that passes from call to call is in voiced_converter: the last samples, the
 * position of the next output, half a PCM sample. So it does not matter where a stream is cut. */
#include "voiced_native.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include <string.h>

/* Samples decoded, and resampled, at a time; on the stack. 20 ms at 24 kHz go in one turn. */
enum { BLOCK = 480, OUT_BLOCK = 6 * BLOCK };
enum { Q14 = 14, Q15 = 15, ONE = 1 << Q15 }; /* coefficients are Q14, weights of `linear` Q15 */
enum { MIN_RATE = 4000, MAX_RATE = 192000 };
enum { NO_FILTER, LINEAR, FIR };

/* tables: begin, by design_filters.py */
static const int16_t UP_2[1][16] = {
    {
        -66, 163, -326, 586, -1000, 1711, -3244, 10367, 10369, -3244, 1711, -1000,
        586, -326, 163, -66,
    },
};
static const int16_t DOWN_2[1][32] = {
    {
        -33, 0, 81, 0, -163, 0, 292, 0, -499, 0, 855, 0,
        -1621, 0, 5179, 8202, 5179, 0, -1621, 0, 855, 0, -499, 0,
        292, 0, -163, 0, 81, 0, -33, 0,
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
static const int16_t DOWN_3[1][48] = {
    {
        -16, -23, 0, 41, 53, 0, -84, -104, 0, 154, 185, 0,
        -264, -315, 0, 450, 543, 0, -828, -1069, 0, 2229, 4506, 5468,
        4506, 2229, 0, -1069, -828, 0, 543, 450, 0, -315, -264, 0,
        185, 154, 0, -104, -84, 0, 53, 41, 0, -23, -16, 0,
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
static const int16_t DOWN_6[1][96] = {
    {
        -4, -8, -11, -11, -8, 0, 10, 21, 27, 27, 17, 0,
        -22, -42, -54, -52, -33, 0, 40, 77, 98, 93, 58, 0,
        -70, -132, -166, -157, -99, 0, 119, 225, 285, 271, 173, 0,
        -213, -414, -540, -534, -357, 0, 511, 1115, 1727, 2253, 2608, 2728,
        2608, 2253, 1727, 1115, 511, 0, -357, -534, -540, -414, -213, 0,
        173, 271, 285, 225, 119, 0, -99, -157, -166, -132, -70, 0,
        58, 93, 98, 77, 40, 0, -33, -52, -54, -42, -22, 0,
        17, 27, 27, 21, 10, 0, -8, -11, -11, -8, -4, 0,
    },
};
static const int16_t UP_2_DOWN_3[2][24] = {
    {
        -45, 82, 0, -208, 308, 0, -629, 899, 0, -2137, 4457, 10930,
        4457, -2137, 0, 899, -629, 0, 308, -208, 0, 82, -45, 0,
    },
    {
        -32, 0, 107, -169, 0, 370, -529, 0, 1086, -1657, 0, 9017,
        9015, 0, -1657, 1086, 0, -529, 370, 0, -169, 107, 0, -32,
    },
};
/* tables: end */

static inline int16_t rounded(int32_t q14) {
    int32_t value = (q14 + (1 << (Q14 - 1))) >> Q14;
    return (int16_t)(value > 32767 ? 32767 : value < -32768 ? -32768 : value);
}

/* The sum cannot overflow: design_filters.py sees to it. */
static inline int16_t dot(const int16_t *x, const int16_t *coefficients, size_t taps) {
    int32_t sum = 0;
    for (size_t k = 0; k < taps; k++) {
        sum += x[k] * coefficients[k];
    }
    return rounded(sum);
}

/* The same for four outputs whose inputs begin `step` apart. Compilers vectorise one sum well, but
 * then add, round and limit its parts for each output alone, which takes longer than the sum. */
static inline void four_dots(const int16_t *x, size_t step, const int16_t *coefficients,
                             size_t taps, int16_t out[4]) {
#ifdef __SSE2__
    __m128i sums[4] = {0};
    for (size_t k = 0; k < taps; k += 8) { /* every filter has a multiple of eight taps */
        __m128i factors = _mm_loadu_si128((const void *)(coefficients + k));
        for (size_t o = 0; o < 4; o++) {
            __m128i samples = _mm_loadu_si128((const void *)(x + o * step + k));
            sums[o] = _mm_add_epi32(sums[o], _mm_madd_epi16(samples, factors));
        }
    }
    __m128i a = _mm_add_epi32(_mm_unpacklo_epi32(sums[0], sums[1]),
                              _mm_unpackhi_epi32(sums[0], sums[1]));
    __m128i b = _mm_add_epi32(_mm_unpacklo_epi32(sums[2], sums[3]),
                              _mm_unpackhi_epi32(sums[2], sums[3]));
    __m128i all = _mm_add_epi32(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b));
    all = _mm_srai_epi32(_mm_add_epi32(all, _mm_set1_epi32(1 << (Q14 - 1))), Q14);
    _mm_storel_epi64((void *)out, _mm_packs_epi32(all, all)); /* limits to 16 bits */
#else
    for (size_t o = 0; o < 4; o++) {
        out[o] = dot(x + o * step, coefficients, taps);
    }
#endif
}

/* Outputs that n more samples make: every multiple of `down` below n * up, from position on. */
static inline size_t outputs(const voiced_converter *c, size_t n, size_t up, size_t down) {
    size_t end = n * up;
    return end > c->position ? (end - c->position + down - 1) / down : 0;
}

static inline void advance(voiced_converter *c, size_t n, size_t count, size_t up, size_t down) {
    c->position = (uint32_t)(c->position + count * down - n * up);
}

/* By up/down; x holds taps - 1 samples of history, then n fresh ones. Compiled once per ratio, with
 * all sizes constant. Every up-th output has the same phase: one phase at a time keeps its
 * coefficients in registers. The table leaves out the phases before `first`, which are the input
 * itself, eight samples late. */
static inline __attribute__((always_inline)) size_t
polyphase(voiced_converter *c, const int16_t *restrict x, size_t n, int16_t *restrict out,
          size_t up, size_t down, const int16_t *table, size_t taps, size_t first) {
    size_t count = outputs(c, n, up, down);
    for (size_t turn = 0; turn < up; turn++) {
        size_t at = c->position + turn * down, i = at / up, phase = at % up;
        if (phase < first) {
            for (size_t o = turn; o < count; o += up, i += down) {
                out[o] = x[i + taps / 2 - 1];
            }
        } else {
            const int16_t *row = table + (phase - first) * taps;
            size_t o = turn;
            for (; o + 3 * up < count; o += 4 * up, i += 4 * down) {
                int16_t four[4];
                four_dots(x + i, down, row, taps, four);
                for (size_t k = 0; k < 4; k++) {
                    out[o + k * up] = four[k];
                }
            }
            for (; o < count; o += up, i += down) {
                out[o] = dot(x + i, row, taps);
            }
        }
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
        if (down == 1) { /* inputs side by side: worth computing so, and spreading afterwards */
            int16_t side_by_side[BLOCK];
            size_t many = (count - turn + up - 1) / up;
            for (size_t k = 0; k < many; k++) {
                side_by_side[k] = between(x[i + k], x[i + k + 1], weight);
            }
            for (size_t k = 0; k < many; k++) {
                out[turn + k * up] = side_by_side[k];
            }
        } else {
            for (size_t o = turn; o < count; o += up, i += down) {
                out[o] = between(x[i], x[i + 1], weight);
            }
        }
    }
    advance(c, n, count, up, down);
    return count;
}

static size_t resample(voiced_converter *c, const int16_t *x, size_t n, int16_t *out) {
    if (c->filter == LINEAR) {
        return interpolate(c, x, n, out);
    }
    switch (c->up * 8 + c->down) {
        case 2 * 8 + 1: return polyphase(c, x, n, out, 2, 1, UP_2[0], 16, 1);
        case 3 * 8 + 1: return polyphase(c, x, n, out, 3, 1, UP_3[0], 16, 1);
        case 6 * 8 + 1: return polyphase(c, x, n, out, 6, 1, UP_6[0], 16, 1);
        case 1 * 8 + 2: return polyphase(c, x, n, out, 1, 2, DOWN_2[0], 32, 0);
        case 1 * 8 + 3: return polyphase(c, x, n, out, 1, 3, DOWN_3[0], 48, 0);
        case 1 * 8 + 6: return polyphase(c, x, n, out, 1, 6, DOWN_6[0], 96, 0);
        case 3 * 8 + 2: return polyphase(c, x, n, out, 3, 2, UP_3[0], 16, 1);
        default: return polyphase(c, x, n, out, 2, 3, UP_2_DOWN_3[0], 24, 0);
    }
}

/* Coefficients per output of the filter for up/down; 0 where there is none. */
static uint32_t taps_of(uint32_t up, uint32_t down) {
    switch (up * 8 + down) {
        case 2 * 8 + 1:
        case 3 * 8 + 1:
        case 6 * 8 + 1:
        case 3 * 8 + 2: return 16;
        case 1 * 8 + 2: return 32;
        case 1 * 8 + 3: return 48;
        case 1 * 8 + 6: return 96;
        case 2 * 8 + 3: return 24;
        default: return 0;
    }
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
    if (c->up == c->down) {
        c->filter = NO_FILTER;
    } else if (fir) {
        uint32_t taps = c->up < 8 && c->down < 8 ? taps_of(c->up, c->down) : 0;
        if (!taps) {
            return 0;
        }
        c->filter = FIR;
        c->past = (uint8_t)(taps - 1);
        c->tail = (uint8_t)(taps / 2);
    } else {
        c->filter = LINEAR;
        c->past = 1;
    }
    uint64_t most = (uint64_t)OUT_BLOCK * c->down / c->up;
    c->block = most < BLOCK ? (uint32_t)most : BLOCK;
    voiced_converter_reset(c);
    return 1;
}

void voiced_converter_reset(voiced_converter *c) {
    memset(c->history, 0, sizeof c->history);
    c->position = c->filter == LINEAR ? c->down - 1 : 0;
    c->halved = 0;
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
    int16_t resampled[OUT_BLOCK];
    memcpy(x, c->history, c->past * sizeof *x);
    size_t count = resample(c, x, n, resampled);
    memcpy(c->history, x + n, c->past * sizeof *x);
    encode(c, resampled, count, out);
    return count * bytes_of(c->target);
}

ptrdiff_t voiced_convert(voiced_converter *c, const uint8_t *in, size_t size, uint8_t *out,
                         size_t room) {
    int16_t x[VOICED_HISTORY + BLOCK];
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
    int16_t x[VOICED_HISTORY + VOICED_HISTORY] = {0};
    if (outputs(c, c->tail, c->up, c->down) > room / bytes_of(c->target)) {
        return -1;
    }
    size_t written = c->tail ? convert_block(c, x, c->tail, out) : 0;
    voiced_converter_reset(c);
    return (ptrdiff_t)written;
}
