/* The arithmetic of resampling between rates that have a small ratio, on many samples at a time:
 * `split` sorts a signal into every n-th sample, `filter` then has to do with neighbours only, and
 * `weave` puts the phases of its results in turn. Included by resample.c alone.
 *
 * SSE2, which every x86-64 has, offers just what this takes: products of 16 bits added in pairs.
 * The filters, where most of the time goes, take half of it with AVX2, if the processor has that.
 * The C beside them is for other processors; compilers vectorise it where they can. All of it is
 * exact, so that the results are the same.
 *
 * Counts are rounded up to whole vectors: what is read has SLACK samples behind it, whose values do
 * not matter, and what is written has room for as many. */
#ifndef VOICED_PHASES_H
#define VOICED_PHASES_H

#ifdef __SSE2__
#include <emmintrin.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define VOICED_AVX2
#endif
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef VOICED_AVX2
#define HAS_AVX2 (__builtin_cpu_supports("avx2") != 0)
#else
#define HAS_AVX2 0
#endif

enum { SLACK = 64 };
enum { LONGEST = 528 + SLACK }; /* of every second sample: history, 20 ms at 48 kHz */

/* Neighbouring coefficients for neighbouring samples; `count` of them, an even number. */
struct run {
    const int16_t *x, *taps;
    size_t count;
};

static inline int32_t pair_at(const int16_t *taps) {
    int32_t pair;
    memcpy(&pair, taps, sizeof pair);
    return pair;
}

/* out[i]: the sum over all runs of taps[k] * x[i + k], as a fixed-point number of `shift` bits
 * rounded and limited. The sum must fit into 32 bits.
 *
 * Pairs of taps go with pairs of samples: those at even places make the outputs at even places,
 * those at odd places the others. Packing limits to 16 bits. */
#ifdef VOICED_AVX2
__attribute__((target("avx2"))) static void filter_avx2(const struct run *runs, size_t many,
                                                        int shift, size_t n, int16_t *out) {
    const __m256i half = _mm256_set1_epi32(1 << (shift - 1));
    const __m128i by = _mm_cvtsi32_si128(shift);
    for (size_t i = 0; i < n; i += 32) {
        __m256i even[2] = {half, half}, odd[2] = {half, half};
        for (size_t r = 0; r < many; r++) {
            const int16_t *x = runs[r].x + i, *taps = runs[r].taps;
            for (const int16_t *end = taps + runs[r].count; taps != end; taps += 2, x += 2) {
                const __m256i factors = _mm256_set1_epi32(pair_at(taps));
                for (size_t h = 0; h < 2; h++) {
                    __m256i a = _mm256_loadu_si256((const void *)(x + 16 * h));
                    __m256i b = _mm256_loadu_si256((const void *)(x + 16 * h + 1));
                    even[h] = _mm256_add_epi32(even[h], _mm256_madd_epi16(a, factors));
                    odd[h] = _mm256_add_epi32(odd[h], _mm256_madd_epi16(b, factors));
                }
            }
        }
        for (size_t h = 0; h < 2; h++) {
            __m256i all = _mm256_packs_epi32(_mm256_sra_epi32(even[h], by),
                                             _mm256_sra_epi32(odd[h], by));
            all = _mm256_unpacklo_epi16(all, _mm256_unpackhi_epi64(all, all));
            _mm256_storeu_si256((void *)(out + i + 16 * h), all);
        }
    }
}
#endif

static void filter_any(const struct run *runs, size_t many, int shift, size_t n, int16_t *out) {
#ifdef __SSE2__
    const __m128i half = _mm_set1_epi32(1 << (shift - 1)), by = _mm_cvtsi32_si128(shift);
    for (size_t i = 0; i < n; i += 16) {
        __m128i even[2] = {half, half}, odd[2] = {half, half};
        for (size_t r = 0; r < many; r++) {
            const int16_t *x = runs[r].x + i, *taps = runs[r].taps;
            for (const int16_t *end = taps + runs[r].count; taps != end; taps += 2, x += 2) {
                const __m128i factors = _mm_set1_epi32(pair_at(taps));
                for (size_t h = 0; h < 2; h++) {
                    __m128i a = _mm_loadu_si128((const void *)(x + 8 * h));
                    __m128i b = _mm_loadu_si128((const void *)(x + 8 * h + 1));
                    even[h] = _mm_add_epi32(even[h], _mm_madd_epi16(a, factors));
                    odd[h] = _mm_add_epi32(odd[h], _mm_madd_epi16(b, factors));
                }
            }
        }
        for (size_t h = 0; h < 2; h++) {
            __m128i all = _mm_packs_epi32(_mm_sra_epi32(even[h], by), _mm_sra_epi32(odd[h], by));
            all = _mm_unpacklo_epi16(all, _mm_unpackhi_epi64(all, all));
            _mm_storeu_si128((void *)(out + i + 8 * h), all);
        }
    }
#else
    for (size_t i = 0; i < n; i += 16) {
        int32_t sums[16];
        for (size_t o = 0; o < 16; o++) {
            sums[o] = 1 << (shift - 1);
        }
        for (size_t r = 0; r < many; r++) {
            for (size_t k = 0; k < runs[r].count; k++) {
                const int16_t *x = runs[r].x + i + k;
                for (size_t o = 0; o < 16; o++) {
                    sums[o] += x[o] * runs[r].taps[k];
                }
            }
        }
        for (size_t o = 0; o < 16; o++) {
            int32_t value = sums[o] >> shift;
            out[i + o] = (int16_t)(value > 32767 ? 32767 : value < -32768 ? -32768 : value);
        }
    }
#endif
}

static inline void filter(int avx2, const struct run *runs, size_t many, int shift, size_t n,
                          int16_t *out) {
#ifdef VOICED_AVX2
    if (avx2) {
        filter_avx2(runs, many, shift, n, out);
        return;
    }
#endif
    (void)avx2;
    filter_any(runs, many, shift, n, out);
}

static inline void split_2(const int16_t *restrict x, size_t n, int16_t *restrict a,
                           int16_t *restrict b) {
    for (size_t i = 0; i < n; i++) {
        a[i] = x[2 * i];
        b[i] = x[2 * i + 1];
    }
}

#ifdef __SSE2__
/* Puts the halves of 24 samples in turn. Place p then holds sample 12 p modulo 23; doing so three
 * times makes that 3 p modulo 23, which is every third, then every third after the first ... */
static inline void riffle(__m128i v[3]) {
    __m128i a = _mm_unpacklo_epi16(v[0], _mm_unpackhi_epi64(v[1], v[1]));
    __m128i b = _mm_unpacklo_epi16(_mm_unpackhi_epi64(v[0], v[0]), v[2]);
    __m128i c = _mm_unpacklo_epi16(v[1], _mm_unpackhi_epi64(v[2], v[2]));
    v[0] = a, v[1] = b, v[2] = c;
}
#endif

static inline void split_3(const int16_t *restrict x, size_t n, int16_t *restrict a,
                           int16_t *restrict b, int16_t *restrict c) {
    for (size_t i = 0; i < n; i += 8) {
#ifdef __SSE2__
        __m128i v[3];
        for (size_t k = 0; k < 3; k++) {
            v[k] = _mm_loadu_si128((const void *)(x + 3 * i + 8 * k));
        }
        riffle(v), riffle(v), riffle(v);
        _mm_storeu_si128((void *)(a + i), v[0]);
        _mm_storeu_si128((void *)(b + i), v[1]);
        _mm_storeu_si128((void *)(c + i), v[2]);
#else
        for (size_t o = i; o < i + 8; o++) {
            a[o] = x[3 * o];
            b[o] = x[3 * o + 1];
            c[o] = x[3 * o + 2];
        }
#endif
    }
}

/* out[s][i] = x[i * down + s] for i < n; down is 2, 3 or 6. */
static inline void split(const int16_t *x, size_t n, size_t down, int16_t (*out)[LONGEST]) {
    if (down == 2) {
        split_2(x, n, out[0], out[1]);
    } else if (down == 3) {
        split_3(x, n, out[0], out[1], out[2]);
    } else {
        int16_t thirds[3][LONGEST];
        split_3(x, 2 * n, thirds[0], thirds[1], thirds[2]);
        for (size_t s = 0; s < 3; s++) {
            split_2(thirds[s], n, out[s], out[s + 3]);
        }
    }
}

/* out[up * i + k] = a, b, c, d [i] for k = 0 to 3. Where `up` is 3 the last of them does not stay. */
static inline void weave_4(const int16_t *const x[4], size_t n, size_t up, int16_t *out) {
#ifdef __SSE2__
    for (size_t i = 0; i < n; i += 8, out += 8 * up) {
        __m128i v[4];
        for (size_t k = 0; k < 4; k++) {
            v[k] = _mm_loadu_si128((const void *)(x[k] + i));
        }
        __m128i ab[2] = {_mm_unpacklo_epi16(v[0], v[1]), _mm_unpackhi_epi16(v[0], v[1])};
        __m128i cd[2] = {_mm_unpacklo_epi16(v[2], v[3]), _mm_unpackhi_epi16(v[2], v[3])};
        for (size_t h = 0; h < 2; h++) {
            __m128i low = _mm_unpacklo_epi32(ab[h], cd[h]), high = _mm_unpackhi_epi32(ab[h], cd[h]);
            int16_t *to = out + 4 * h * up;
            _mm_storel_epi64((void *)to, low);
            _mm_storel_epi64((void *)(to + up), _mm_unpackhi_epi64(low, low));
            _mm_storel_epi64((void *)(to + 2 * up), high);
            _mm_storel_epi64((void *)(to + 3 * up), _mm_unpackhi_epi64(high, high));
        }
    }
#else
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < 4; k++) {
            out[up * i + k] = x[k][i];
        }
    }
#endif
}

/* out[up * i + k] = x[k][i] for i < n; up is 2, 3 or 6. */
static inline void weave(const int16_t *const x[6], size_t n, size_t up, int16_t *out) {
    if (up == 2) {
        for (size_t i = 0; i < n; i++) {
            out[2 * i] = x[0][i];
            out[2 * i + 1] = x[1][i];
        }
    } else if (up == 3) {
        weave_4((const int16_t *const[]){x[0], x[1], x[2], x[2]}, n, 3, out);
    } else {
        weave_4(x, n, 6, out);
        weave_4(x + 2, n, 6, out + 2);
    }
}

#endif
