/* What a piece of sound is like: whether it is a voice's, of which pitch, or a digit's. */
#include "echo.h"

enum { SHORTEST = 10, LONGEST = SHORTEST + PERIODS - 1 }; /* pitch periods: 400 to 70 Hz */
enum { WINDOW = 32, TONE_WINDOW = 160 };
enum { MEAN = 64 };       /* of an envelope: 16 ms */
enum { ENVELOPE = 3 };    /* of counts: that is asked for, not the band of pitch */
#define WARMTH 0.6f  /* of what the emphasis took: more would make the least of errors hum */
#define OF_ECHO 0.5f /* an echo that periodic has a pitch */
#define ALIKE 0.8f   /* of its periodicity, kept at the echo's period: what is left of the echo */
#define CHANCE 0.6f  /* of periodicity; noise has as much */
#define PAUSE 0.3f   /* what 5 ms without a voice take from the evidence */
#define SILENT 100.0 /* mean square of an echo, below which nobody asks for its pitch */
#define QUIET 30.0f  /* beside the sums of squares: silence is not periodic */

/* Of from[0, n), four samples of which lie before it and after it. */
static void low_pass(const float *restrict from, float *restrict to, size_t n) {
    static const float HAMMING[5] = {0.21551f, 0.18648f, 0.11637f, 0.04627f, 0.01724f};
    for (size_t i = 0; i < n; i++) {
        const float *x = from + i;
        to[i] = HAMMING[0] * x[0] + HAMMING[1] * (x[-1] + x[1]) + HAMMING[2] * (x[-2] + x[2]) +
                HAMMING[3] * (x[-3] + x[3]) + HAMMING[4] * (x[-4] + x[4]);
    }
}

/* With less of the emphasis, and without most of what lies above 700 Hz: harmonics of a pitch that
 * glides fall out of step with it, the higher the sooner. */
static void smooth(const float *restrict from, float *restrict to, float *restrict room,
                   size_t n) {
    float level = 0;
    memset(room, 0, 8 * sizeof *room);
    for (size_t i = 0; i < n; i++) {
        room[8 + i] = level = WARMTH * level + from[i];
    }
    low_pass(room + 4, to, n);
}

/* The envelope of what lies above the band of pitch, less its mean of the 16 ms before: formants
 * swell with each of the voice's pulses, and stay in step however the pitch glides. */
static void envelope(const float *restrict from, float *restrict to, float *restrict room,
                     size_t n) {
    double sum = 0;
    memset(room, 0, (8 + MEAN) * sizeof *room);
    for (size_t i = 1; i < n; i++) {
        float high = from[i] - from[i - 1];
        room[8 + MEAN + i] = high < 0 ? -high : high;
    }
    room[8 + MEAN] = 0;
    low_pass(room + 4 + MEAN, to, n);
    memcpy(room + MEAN, to, n * sizeof *to);
    memset(room, 0, MEAN * sizeof *room);
    for (size_t i = 0; i < n; i++) {
        to[i] -= (float)(sum / MEAN);
        sum += (double)room[MEAN + i] - (double)room[i];
    }
}

/* How periodic the 8 ms that end at `end` are, with each period. So short a window bears a pitch
 * that glides; that it lasts tells it from noise. squares[i]: the sum of x * x before x[i]. */
static void periodicity(const float *x, const double *squares, size_t end, float out[PERIODS]) {
    float sums[PERIODS] = {0};
    const float *now = x + end - WINDOW, *past = now - LONGEST;
    for (size_t i = 0; i < WINDOW; i++) {
        for (size_t k = 0; k < PERIODS; k++) {
            sums[k] += now[i] * past[i + k];
        }
    }
    float own = inverse_root((float)(squares[end] - squares[end - WINDOW]) + QUIET);
    const double *low = squares + end - WINDOW - LONGEST;
    for (size_t k = 0; k < PERIODS; k++) {
        float other = (float)(low[k + WINDOW] - low[k]) + QUIET;
        out[PERIODS - 1 - k] = sums[k] * own * inverse_root(other);
    }
}

static float larger(float a, float b) { return a > b ? a : b; }

static size_t best_of(const float values[PERIODS]) {
    size_t best = 0;
    for (size_t k = 1; k < PERIODS; k++) {
        best = values[k] > values[best] ? k : best;
    }
    return best;
}

static void sum_squares(const float *x, double *squares, size_t n) {
    squares[0] = 0;
    for (size_t i = 0; i < n; i++) {
        squares[i + 1] = squares[i] + (double)x[i] * x[i];
    }
}

/* 2 cos(2 pi f / 4000) of ITU-T Q.23's frequencies: 697, 770, 852, 941, 1209, 1336, 1477, 1633. */
static const float TONES[8] = {
    0.91637f, 0.70695f, 0.46078f, 0.18509f, -0.64486f, -1.00725f, -1.36221f, -1.67677f,
};

/* The share of the power that the strongest tone of each group holds, of the last 40 ms. */
static float tones(const float *end, int32_t *digit) {
    const float *x = end - TONE_WINDOW;
    float a[8] = {0}, b[8] = {0}, best[2] = {0, 0}; /* by Goertzel's recursion */
    int32_t which[2] = {0, 0};
    for (size_t i = 0; i < TONE_WINDOW; i++) {
        for (size_t tone = 0; tone < 8; tone++) {
            float next = x[i] + TONES[tone] * a[tone] - b[tone];
            b[tone] = a[tone], a[tone] = next;
        }
    }
    for (int32_t tone = 0; tone < 8; tone++) {
        float found = a[tone] * a[tone] + b[tone] * b[tone] - TONES[tone] * a[tone] * b[tone];
        if (found > best[tone / 4]) {
            best[tone / 4] = found, which[tone / 4] = tone % 4;
        }
    }
    *digit = 4 * which[0] + which[1];
    float all = dot(x, x, TONE_WINDOW) + 1.0f;
    float weaker = best[0] < best[1] ? best[0] : best[1];
    /* A tone alone is none: of the two, the weaker has to hold its part, 4 % of the power. */
    float share = (best[0] + best[1]) * 2.0f / TONE_WINDOW / all;
    return weaker * 2.0f / TONE_WINDOW < 0.04f * all ? 0 : share;
}


/* Whether what is left in a hop is as periodic with the echo's period as with any. */
static uint8_t alike(const float voice[PERIODS], const float echo[PERIODS]) {
    size_t its = best_of(echo);
    float same = voice[its];
    same = its ? larger(same, voice[its - 1]) : same;
    same = its + 1 < PERIODS ? larger(same, voice[its + 1]) : same;
    return echo[its] > OF_ECHO && same > ALIKE * voice[best_of(voice)];
}

void echo_listen(voiced_echo_work *w, size_t n, voiced_echo_frame *frames) {
    smooth(w->near, w->smooth, w->re, PAST + n);
    for (size_t i = 0; i < n / FRAME; i++) {
        frames[i].low_near = power(w->smooth + PAST + i * FRAME, FRAME);
    }
    smooth(w->rest, w->smooth, w->re, PAST + n);
    smooth(w->echo, w->hum, w->re, PAST + n);
    sum_squares(w->smooth, w->squares, PAST + n);
    sum_squares(w->hum, w->hum_squares, PAST + n);
    for (size_t hop = 0; hop < n / HOP; hop++) {
        size_t end = PAST + (hop + 1) * HOP;
        periodicity(w->smooth, w->squares, end, w->voice[hop]);
        w->alike[hop] = 0;
        if (w->hum_squares[end] - w->hum_squares[end - WINDOW] > WINDOW * SILENT) {
            float echo[PERIODS];
            periodicity(w->hum, w->hum_squares, end, echo);
            w->alike[hop] = alike(w->voice[hop], echo);
        }
    }
    envelope(w->rest, w->high, w->re, PAST + n);
    sum_squares(w->high, w->high_squares, PAST + n);
    for (size_t i = 0; i < n / FRAME; i++) {
        size_t at = PAST + i * FRAME;
        voiced_echo_frame *f = &frames[i];
        f->near = power(w->near + at, FRAME);
        f->echo = power(w->echo + at, FRAME);
        f->rest = power(w->rest + at, FRAME);
        f->low_rest = (float)(w->squares[at + FRAME] - w->squares[at]) / FRAME;
        f->low_echo = (float)(w->hum_squares[at + FRAME] - w->hum_squares[at]) / FRAME;
        f->tone = tones(w->rest + at + FRAME, &f->digit);
    }
}

float echo_low_played(voiced_echo_work *w, size_t n) {
    smooth(w->far, w->im, w->re, PAST + n + LAGS);
    return echo_loudest(w->im, n + LAGS);
}

float voiced_echo_voice(const voiced_echo_work *w, const uint8_t *counts, size_t frames) {
    enum { EDGE = 3, GLIDES_TWO = 25, GLIDES_THREE = 42 }; /* a pitch moves by 6 % in 5 ms */
    float before[EDGE + PERIODS + EDGE] = {0}, best = 0;
    for (size_t hop = 0; hop < frames * (FRAME / HOP); hop++) {
        uint8_t count = counts[hop / (FRAME / HOP)];
        const float *voice = w->voice[hop];
        float high[PERIODS];
        if (count == ENVELOPE) { /* few frames ask for it, and those alone pay for it */
            periodicity(w->high, w->high_squares, PAST + (hop + 1) * HOP, high);
            voice = high;
        }
        int heard = count > 1 || (count && !w->alike[hop]);
        float after[PERIODS];
        for (size_t k = 0; k < PERIODS; k++) {
            const float *b = before + EDGE + k;
            float most = larger(b[0], larger(b[-1], b[1]));
            if (SHORTEST + k >= GLIDES_TWO) {
                most = larger(most, larger(b[-2], b[2]));
            }
            if (SHORTEST + k >= GLIDES_THREE) {
                most = larger(most, larger(b[-3], b[3]));
            }
            after[k] = larger(0, most + (heard ? voice[k] - CHANCE : -PAUSE));
            best = larger(best, after[k]);
        }
        memcpy(before + EDGE, after, sizeof after);
    }
    return best;
}
