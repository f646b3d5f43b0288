/* What the parts of the echo's analysis share; of no concern to Python. */
#ifndef VOICED_ECHO_H
#define VOICED_ECHO_H

#include "voiced_native.h"

#include <string.h>

#define FRAME VOICED_ECHO_FRAME
#define SPAN VOICED_ECHO_SPAN
#define LAGS VOICED_ECHO_LAGS
#define TAPS VOICED_ECHO_TAPS
#define POINTS VOICED_ECHO_POINTS
#define PAST VOICED_ECHO_PAST
#define REACH VOICED_ECHO_REACH
#define HOP VOICED_ECHO_HOP
#define PERIODS VOICED_ECHO_PERIODS

enum { BEFORE = 12 }; /* taps before the correlation's peak: 3 ms */
#define EMPHASIS 0.8f /* flattens speech, so that all of the band counts */

/* ---- sums, in eight lanes so that compilers may vectorise them ---- */

static inline float dot(const float *a, const float *b, size_t n) {
    float lanes[8] = {0}, sum = 0;
    size_t whole = n / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            lanes[k] += a[i + k] * b[i + k];
        }
    }
    for (size_t i = whole; i < n; i++) {
        sum += a[i] * b[i];
    }
    for (size_t k = 0; k < 8; k++) {
        sum += lanes[k];
    }
    return sum;
}

static inline float power(const float *a, size_t n) { return n ? dot(a, a, n) / (float)n : 0; }

static inline float inverse_root(float x) { /* of a positive number; two steps of Newton's */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5F3759DFu - (bits >> 1);
    float y;
    memcpy(&y, &bits, sizeof y);
    y *= 1.5f - 0.5f * x * y * y;
    return y * (1.5f - 0.5f * x * y * y);
}


/* ---- echo_signals.c: what was played and what came back ---- */

/* w->near, emphasised: PAST samples before near[from] and n from there on. */
void echo_load_near(const voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n);

/* w->far, emphasised, from the start numbered `since` on. Its first sample is that at `first`. */
void echo_load_far(const voiced_echo *e, voiced_echo_work *w, size_t since, int64_t first,
                   size_t n);

/* Lagrange's weights for the value `part` of a sample (0 to 1) after the fourth of eight. */
void echo_between(float part, float weights[8]);

/* The integer not above x. */
int64_t echo_whole(float x, float *part);

/* ---- echo_place.c: where playback that began anew was heard ---- */

/* Both signals, and where the last start's audio was heard if that is not sure. */
void echo_load(voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n, int64_t offset,
               int32_t earliest);

/* What was played, as late as is believed by now, and nothing explained of what came back. */
void echo_reload(const voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n, int64_t base);

/* ---- echo_move.c: delays that change in mid-speech ---- */

/* Looks for changes by the known path, and makes starts of them. 0: none; 1: some that may be due
 * to chance; 2: they are sure. `base` is that of echo_explain. w->near and w->far are loaded. */
int echo_move(voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n, int64_t base);

/* ---- echo_search.c: where the echo lies ---- */

/* What was played, made ready for correlations. */
void echo_know_far(voiced_echo_work *w, size_t n);

/* The half-whitened cross-correlation at all lags: afterwards w->real[k] is that of LAGS - k. */
void echo_correlate(voiced_echo_work *w, const float *near);

/* The index of the highest correlation, and how far it stands out. */
size_t echo_highest(const float *c, float *peak);

/* ---- echo_fit.c: the path that explains most ---- */

/* Adds to y[0, n) what a run of taps makes of far: y[k] is tap 0 times far[k], and so on back. */
void echo_add_run(const float *taps, const float *far, float *y, size_t n);

/* Frames louder than any echo are the caller's. They would decide the fit: it leaves them out. */
void echo_choose_frames(const voiced_echo *e, voiced_echo_work *w, size_t n);

/* The loudest frame of x[PAST, PAST + n), a mean square. */
float echo_loudest(const float *x, size_t n);
float echo_chosen_power(const voiced_echo_work *w, const float *a);

/* Fits TAPS taps around index `peak` of the correlation to what is left; takes them off it.
 * `base`: the far sample at w->far[0] less the near one at w->near[PAST]. */
void echo_explain(voiced_echo_work *w, size_t peak, int64_t base, size_t n);

/* w->echo is none, or that of a path; w->rest is what it leaves. */
void echo_forget(voiced_echo_work *w, size_t n);
void echo_use(voiced_echo_work *w, const voiced_echo_taps *path, int64_t base, size_t n);

/* How badly an echo explains the frames, by a number from 0 to 2 for each: no loud one decides, and
 * one in which nothing came back speaks against an echo there. */
float echo_unexplained(const voiced_echo_work *w, const float *echo, size_t n);

/* What the known path, `y` as in echo_move.c, makes of each frame by the one of w->shift that explains
 * most of it and of the frames beside it, nothing where none does, into w->shifted. */
void echo_explain_by_shifts(voiced_echo_work *w, const float *y, size_t n);

/* Another idea of the echo, by an earlier path, a new one, or another delay: where it leaves less of a
 * frame, no more than that is the caller's, if the frame is not louder than any echo of this line. */
void echo_combine(const voiced_echo *e, voiced_echo_work *w, const float *other, int64_t base,
                  size_t n);

/* Where the path makes things worse it is not that of this moment: nothing is taken off. */
void echo_spare(voiced_echo_work *w, size_t n);

/* ---- echo_voice.c: what a piece of sound is like ---- */

/* w->voice, w->alike and the frames' figures, of n samples of w->rest and w->echo. */
void echo_listen(voiced_echo_work *w, size_t n, voiced_echo_frame *frames);

/* The loudest 20 ms of what was played, in the band of pitch. */
float echo_low_played(voiced_echo_work *w, size_t n);

#endif
