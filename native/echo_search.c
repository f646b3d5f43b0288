/* Where the echo lies: the lag at which what came back is most like what was played. */
#include "echo.h"

#define FLOOR 0.1f /* of the mean power of a spectrum: weaker frequencies are not whitened */

enum { HALF = POINTS / 2, QUARTER = HALF / 4 };

void voiced_echo_work_init(voiced_echo_work *w) {
    memset(w, 0, sizeof *w);
    /* exp(-2 pi i k / POINTS) by rotation. */
    const double turn_re = 0.99999970586288221916, turn_im = -0.00076699031874270452694;
    double re = 1, im = 0;
    for (size_t k = 0; k < HALF; k++) {
        w->turn_re[k] = (float)re;
        w->turn_im[k] = (float)im;
        double next = re * turn_re - im * turn_im;
        im = re * turn_im + im * turn_re;
        re = next;
    }
}

/* ---- Fourier transform of HALF complex numbers, radix 4, in the order of Stockham, which needs no
 * other: each pass writes where the next reads on. ---- */

typedef struct {
    float re, im;
} turn;

/* exp(-2 pi i k / HALF), k below HALF. */
static inline turn turn_by(const voiced_echo_work *w, size_t k) {
    k *= 2;
    float sign = k < HALF ? 1.0f : -1.0f;
    k = k < HALF ? k : k - HALF;
    return (turn){sign * w->turn_re[k], sign * w->turn_im[k]};
}

typedef struct {
    turn one, two, three;
} turns;

/* One butterfly: of four numbers QUARTER apart, to four `step` apart. */
static inline void butterfly(const float *xr, const float *xi, float *yr, float *yi, size_t step,
                             turns by) {
    float ar = xr[0] + xr[2 * QUARTER], ai = xi[0] + xi[2 * QUARTER];
    float br = xr[0] - xr[2 * QUARTER], bi = xi[0] - xi[2 * QUARTER];
    float cr = xr[QUARTER] + xr[3 * QUARTER], ci = xi[QUARTER] + xi[3 * QUARTER];
    float dr = xr[QUARTER] - xr[3 * QUARTER], di = xi[QUARTER] - xi[3 * QUARTER];
    float er = br + di, ei = bi - dr, fr = ar - cr, fi = ai - ci, gr = br - di, gi = bi + dr;
    yr[0] = ar + cr, yi[0] = ai + ci;
    yr[step] = er * by.one.re - ei * by.one.im;
    yi[step] = er * by.one.im + ei * by.one.re;
    yr[2 * step] = fr * by.two.re - fi * by.two.im;
    yi[2 * step] = fr * by.two.im + fi * by.two.re;
    yr[3 * step] = gr * by.three.re - gi * by.three.im;
    yi[3 * step] = gr * by.three.im + gi * by.three.re;
}

static void first_pass(const voiced_echo_work *w, const float *restrict xr,
                       const float *restrict xi, float *restrict yr, float *restrict yi) {
    for (size_t p = 0; p < QUARTER; p++) {
        turn one = {w->turn_re[2 * p], w->turn_im[2 * p]};
        turn two = {one.re * one.re - one.im * one.im, 2 * one.re * one.im};
        turn three = {one.re * two.re - one.im * two.im, one.re * two.im + one.im * two.re};
        butterfly(xr + p, xi + p, yr + 4 * p, yi + 4 * p, 1, (turns){one, two, three});
    }
}

/* `run`: numbers that are turned alike. To be called with constants, which compilers unroll by. */
static inline void pass(const voiced_echo_work *w, const float *restrict xr,
                        const float *restrict xi, float *restrict yr, float *restrict yi,
                        size_t run) {
    for (size_t p = 0; p < QUARTER / run; p++) {
        turns by = {turn_by(w, p * run), turn_by(w, 2 * p * run), turn_by(w, 3 * p * run)};
        for (size_t q = 0; q < run; q++) {
            butterfly(xr + p * run + q, xi + p * run + q, yr + 4 * p * run + q,
                      yi + 4 * p * run + q, run, by);
        }
    }
}

static void transform(voiced_echo_work *w, float *restrict re, float *restrict im) {
    float *restrict to_re = w->other_re, *restrict to_im = w->other_im;
    first_pass(w, re, im, to_re, to_im);
    pass(w, to_re, to_im, re, im, 4);
    pass(w, re, im, to_re, to_im, 16);
    pass(w, to_re, to_im, re, im, 64);
    pass(w, re, im, to_re, to_im, 256);
    pass(w, to_re, to_im, re, im, 1024);
}

/* The spectrum of w->real, POINTS numbers: those of even and of odd index go as real and imaginary
 * parts through one transform of half the length. Writes HALF + 1. */
static void spectrum(voiced_echo_work *w, float *restrict re, float *restrict im) {
    for (size_t k = 0; k < HALF; k++) {
        re[k] = w->real[2 * k], im[k] = w->real[2 * k + 1];
    }
    transform(w, re, im);
    re[HALF] = re[0] - im[0], im[HALF] = 0;
    re[0] += im[0], im[0] = 0;
    for (size_t k = 1; k <= HALF / 2; k++) {
        size_t m = HALF - k;
        float even_re = (re[k] + re[m]) / 2, even_im = (im[k] - im[m]) / 2;
        float odd_re = (im[k] + im[m]) / 2, odd_im = (re[m] - re[k]) / 2;
        float turned_re = odd_re * w->turn_re[k] - odd_im * w->turn_im[k];
        float turned_im = odd_re * w->turn_im[k] + odd_im * w->turn_re[k];
        re[k] = even_re + turned_re, im[k] = even_im + turned_im;
        re[m] = even_re - turned_re, im[m] = turned_im - even_im;
    }
}

/* The other way, HALF times as large, into w->real; the spectrum is used up. */
static void signal_of(voiced_echo_work *w, float *restrict re, float *restrict im) {
    float first = (re[0] + re[HALF]) / 2, last = (re[0] - re[HALF]) / 2;
    for (size_t k = 1; k <= HALF / 2; k++) {
        size_t m = HALF - k;
        float even_re = (re[k] + re[m]) / 2, even_im = (im[k] - im[m]) / 2;
        float turned_re = (re[k] - re[m]) / 2, turned_im = (im[k] + im[m]) / 2;
        float odd_re = turned_re * w->turn_re[k] + turned_im * w->turn_im[k];
        float odd_im = turned_im * w->turn_re[k] - turned_re * w->turn_im[k];
        /* Conjugates, for the inverse is the conjugate of the conjugate's transform. */
        re[k] = even_re - odd_im, im[k] = -(even_im + odd_re);
        re[m] = even_re + odd_im, im[m] = even_im - odd_re;
    }
    re[0] = first, im[0] = -last;
    transform(w, re, im);
    for (size_t k = 0; k < HALF; k++) {
        w->real[2 * k] = re[k], w->real[2 * k + 1] = -im[k];
    }
}

/* Divides a spectrum by the root of its size. `mean`: of its power. */
static void whiten(float *restrict re, float *restrict im, float mean) {
    for (size_t k = 0; k <= HALF; k++) {
        float weight = inverse_root(re[k] * re[k] + im[k] * im[k] + FLOOR * mean);
        re[k] *= weight, im[k] *= weight;
    }
}

void echo_know_far(voiced_echo_work *w, size_t n) {
    memset(w->real, 0, sizeof w->real);
    memcpy(w->real, w->far + PAST, (n + LAGS) * sizeof *w->real);
    float mean = dot(w->real, w->real, POINTS) + 1e-3f;
    spectrum(w, w->far_re, w->far_im);
    whiten(w->far_re, w->far_im, mean);
}

void echo_correlate(voiced_echo_work *w, const float *near) {
    memset(w->real, 0, sizeof w->real);
    for (size_t p = 0; p < w->pieces; p++) {
        size_t from = w->piece_from[p];
        memcpy(w->real + from, near + from, (w->piece_to[p] - from) * sizeof *near);
    }
    float *re = w->re, *im = w->im;
    float mean = dot(w->real, w->real, POINTS) + 1e-3f;
    spectrum(w, re, im);
    whiten(re, im, mean);
    for (size_t k = 0; k <= HALF; k++) { /* far times the conjugate of near */
        float near_re = re[k], near_im = im[k];
        re[k] = w->far_re[k] * near_re + w->far_im[k] * near_im;
        im[k] = w->far_im[k] * near_re - w->far_re[k] * near_im;
    }
    signal_of(w, re, im);
}

size_t echo_highest(const float *c, float *peak) {
    size_t best = 0;
    float most = -1;
    for (size_t k = 0; k <= LAGS; k++) {
        float size = c[k] < 0 ? -c[k] : c[k];
        if (size > most) {
            most = size, best = k;
        }
    }
    *peak = most * inverse_root(power(c, LAGS + 1) + 1e-12f);
    return best;
}
