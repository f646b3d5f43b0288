/* G.711: one byte of mu-law or A-law and 16-bit PCM, both ways; and what is done sample by sample
 * with PCM. PCM is passed as bytes, little-endian, at any alignment.
 *
 * Encoding agrees with the reference code of ITU-T G.191 for all 65,536 samples: a negative sample
 * is complemented (not negated), then shifted down to the law's 14 or 12 bits. The segment and the
 * four bits below its leading one are what the exponent and the top of the mantissa of that number
 * are as a float, which lets the compiler work on four samples at once. */
#include "voiced_native.h"

#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "PCM16 is little-endian in every format that voiced speaks, and so must the machine be"
#endif

static inline int16_t sample_at(const uint8_t *pcm, size_t i) {
    int16_t sample;
    memcpy(&sample, pcm + 2 * i, 2);
    return sample;
}

static inline void put_sample(uint8_t *pcm, size_t i, int32_t value) {
    int16_t sample = (int16_t)(value > 32767 ? 32767 : value < -32768 ? -32768 : value);
    memcpy(pcm + 2 * i, &sample, 2);
}

/* The 256 levels, by the preprocessor. ULAW and ALAW take the code with the inversions of the line
 * undone (all bits in mu-law, the even ones in A-law); the sign bit is then 1 for negative in
 * mu-law, for positive in A-law. */
#define ULAW_LEVEL(c) (((((c) & 15) << 3) + 132) * (1 << ((c) >> 4 & 7)) - 132)
#define ULAW(c) (((c) & 0x80) ? -ULAW_LEVEL(c) : ULAW_LEVEL(c))
#define ALAW_LEVEL(c) \
    (((c) & 0x70) ? ((((c) & 15) << 4) + 264) * (1 << ((((c) >> 4) & 7) - (((c) & 0x70) != 0))) \
                  : (((c) & 15) << 4) + 8)
#define ALAW(c) (((c) & 0x80) ? ALAW_LEVEL(c) : -ALAW_LEVEL(c))
#define FROM_ULAW(c) ULAW((c) ^ 0xFF)
#define FROM_ALAW(c) ALAW((c) ^ 0x55)
#define FOUR(level, c) level(c), level((c) + 1), level((c) + 2), level((c) + 3)
#define SIXTEEN(level, c) \
    FOUR(level, c), FOUR(level, (c) + 4), FOUR(level, (c) + 8), FOUR(level, (c) + 12)
#define SIXTY_FOUR(level, c) \
    SIXTEEN(level, c), SIXTEEN(level, (c) + 16), SIXTEEN(level, (c) + 32), SIXTEEN(level, (c) + 48)
#define ALL_CODES(level) \
    SIXTY_FOUR(level, 0), SIXTY_FOUR(level, 64), SIXTY_FOUR(level, 128), SIXTY_FOUR(level, 192)

static const int16_t ULAW_LEVELS[256] = {ALL_CODES(FROM_ULAW)};
static const int16_t ALAW_LEVELS[256] = {ALL_CODES(FROM_ALAW)};

/* The exponent and the top four bits of the mantissa, `number` being 1 to 2^24. */
static inline int32_t exponent_and_four_bits(int32_t number) {
    float value = (float)number;
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits >> 19;
}

static inline uint8_t ulaw_of(int16_t sample) {
    int32_t sign = sample >> 15;                     /* 0 or -1 */
    int32_t magnitude = ((sample ^ sign) >> 2) + 33; /* 33: the bias between segments */
    magnitude = magnitude > 8191 ? 8191 : magnitude;
    int32_t code = exponent_and_four_bits(magnitude) - ((127 + 5) << 4);
    return (uint8_t)~(code | (sign & 0x80));
}

static inline uint8_t alaw_of(int16_t sample) {
    int32_t sign = sample >> 15;
    int32_t magnitude = (sample ^ sign) >> 4;
    /* The lowest two segments are one straight line, but a float's mantissa grows finer: numbers
     * below 16 are raised into the segment of 16 to 31 and lowered again. */
    int32_t raise = (magnitude - 16) >> 31 & 16;
    int32_t code = exponent_and_four_bits(magnitude + raise) - ((127 + 3) << 4) - raise;
    return (uint8_t)((code | (~sign & 0x80)) ^ 0x55);
}

void voiced_ulaw_to_pcm(const uint8_t *ulaw, size_t samples, uint8_t *pcm) {
    for (size_t i = 0; i < samples; i++) {
        memcpy(pcm + 2 * i, &ULAW_LEVELS[ulaw[i]], 2);
    }
}

void voiced_alaw_to_pcm(const uint8_t *alaw, size_t samples, uint8_t *pcm) {
    for (size_t i = 0; i < samples; i++) {
        memcpy(pcm + 2 * i, &ALAW_LEVELS[alaw[i]], 2);
    }
}

void voiced_pcm_to_ulaw(const uint8_t *restrict pcm, size_t samples, uint8_t *restrict ulaw) {
    for (size_t i = 0; i < samples; i++) {
        ulaw[i] = ulaw_of(sample_at(pcm, i));
    }
}

void voiced_pcm_to_alaw(const uint8_t *restrict pcm, size_t samples, uint8_t *restrict alaw) {
    for (size_t i = 0; i < samples; i++) {
        alaw[i] = alaw_of(sample_at(pcm, i));
    }
}

/* By way of PCM, in pieces: a compiler vectorises encoding, but not what reads from a table. */
enum { PIECE = 160 };

void voiced_ulaw_to_alaw(const uint8_t *ulaw, size_t samples, uint8_t *alaw) {
    uint8_t pcm[2 * PIECE];
    for (size_t at = 0, n; at < samples; at += n) {
        n = samples - at < PIECE ? samples - at : PIECE;
        voiced_ulaw_to_pcm(ulaw + at, n, pcm);
        voiced_pcm_to_alaw(pcm, n, alaw + at);
    }
}

void voiced_alaw_to_ulaw(const uint8_t *alaw, size_t samples, uint8_t *ulaw) {
    uint8_t pcm[2 * PIECE];
    for (size_t at = 0, n; at < samples; at += n) {
        n = samples - at < PIECE ? samples - at : PIECE;
        voiced_alaw_to_pcm(alaw + at, n, pcm);
        voiced_pcm_to_ulaw(pcm, n, ulaw + at);
    }
}

double voiced_mean_square(const uint8_t *pcm, size_t samples) {
    uint64_t sum = 0;
    for (size_t i = 0; i < samples; i++) {
        int32_t sample = sample_at(pcm, i);
        sum += (uint32_t)(sample * sample);
    }
    return samples ? (double)sum / (double)samples : 0;
}

void voiced_mean_squares(const uint8_t *pcm, size_t frames, size_t frame, double *out) {
    for (size_t i = 0; i < frames; i++) {
        out[i] = voiced_mean_square(pcm + 2 * i * frame, frame);
    }
}

void voiced_mix(const uint8_t *restrict a, const uint8_t *restrict b, size_t samples,
                uint8_t *restrict out) {
    for (size_t i = 0; i < samples; i++) {
        put_sample(out, i, sample_at(a, i) + sample_at(b, i));
    }
}

void voiced_interleave(const uint8_t *restrict left, const uint8_t *restrict right, size_t samples,
                       uint8_t *restrict out) {
    for (size_t i = 0; i < samples; i++) {
        put_sample(out, 2 * i, sample_at(left, i));
        put_sample(out, 2 * i + 1, sample_at(right, i));
    }
}
