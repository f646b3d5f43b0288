/* The path that explains most of what came back, by least squares. */
#include "echo.h"

#define RIDGE 3e-4   /* of the far signal's power: keeps the path's gain sane */
#define LOUDEST 0.3f /* of the loudest frame played: what is louder is no echo */
#define LOUDER 2.0f  /* nor is what is so many times as loud as the known path has ever made it */
#define MUCH 2.0f    /* times a frame's power: an echo that leaves more is just wrong */
#define SHIFTED 0.3f /* of a frame and its neighbours is left by a shift that may be believed */

float echo_loudest(const float *x, size_t n) {
    float loudest = 0;
    for (size_t at = PAST; at + FRAME <= PAST + n; at += FRAME) {
        float one = power(x + at, FRAME);
        loudest = one > loudest ? one : loudest;
    }
    return loudest;
}

void echo_choose_frames(const voiced_echo *e, voiced_echo_work *w, size_t n) {
    float played = echo_loudest(w->far, n + LAGS), loudest = LOUDEST * played;
    if (e->known.runs) {
        float known = echo_loudest(w->kept, n), gain = e->known_gain * played;
        known = LOUDER * (known > gain ? known : gain);
        loudest = known < loudest ? known : loudest;
    }
    w->pieces = 0;
    int open = 0;
    for (size_t at = 0; at < n; at += FRAME) {
        int chosen = power(w->near + PAST + at, FRAME) < loudest;
        if (chosen && !open) {
            w->piece_from[w->pieces] = (uint32_t)at;
        }
        w->pieces += (uint32_t)(chosen && !open);
        open = chosen;
        if (open) {
            w->piece_to[w->pieces - 1] = (uint32_t)(at + FRAME);
        }
    }
}

static double dot_chosen(const voiced_echo_work *w, const float *a, const float *b) {
    double sum = 0;
    for (size_t p = 0; p < w->pieces; p++) {
        size_t from = w->piece_from[p];
        sum += dot(a + from, b + from, w->piece_to[p] - from);
    }
    return sum;
}

float echo_chosen_power(const voiced_echo_work *w, const float *a) {
    return (float)dot_chosen(w, a, a);
}

/* Tap i's column begins at w->far[first - i]: later delays lie further back. */
static void normal_equations(voiced_echo_work *w, size_t first) {
    const float *rest = w->rest + PAST, *far = w->far;
    for (size_t i = 0; i < TAPS; i++) {
        w->rhs[i] = dot_chosen(w, far + first - i, rest);
        w->matrix[i][0] = dot_chosen(w, far + first - i, far + first);
        for (size_t j = 1; j <= i; j++) { /* both one sample further back than the pair before */
            const float *a = far + first - i, *b = far + first - j;
            double sum = w->matrix[i - 1][j - 1];
            for (size_t p = 0; p < w->pieces; p++) {
                size_t from = w->piece_from[p], to = w->piece_to[p];
                sum += (double)a[from] * b[from] - (double)a[to] * b[to];
            }
            w->matrix[i][j] = sum;
        }
    }
}

static double dot_double(const double *a, const double *b, size_t n) {
    double lanes[4] = {0}, sum = 0;
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        for (size_t i = 0; i < 4; i++) {
            lanes[i] += a[k + i] * b[k + i];
        }
    }
    for (; k < n; k++) {
        sum += a[k] * b[k];
    }
    return sum + (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

/* By L D L'; the matrix's lower half becomes L, its diagonal D, rhs the solution. */
static void solve(voiced_echo_work *w, double ridge) {
    for (size_t i = 0; i < TAPS; i++) {
        double *row = w->matrix[i];
        row[i] += ridge;
        for (size_t j = 0; j < i; j++) {
            const double *other = w->matrix[j];
            row[j] -= dot_double(row, other, j); /* L times D yet */
        }
        for (size_t j = 0; j < i; j++) {
            double scaled = row[j] / w->matrix[j][j];
            row[i] -= scaled * row[j];
            row[j] = scaled;
        }
        if (row[i] < ridge) {
            row[i] = ridge;
        }
    }
    for (size_t i = 0; i < TAPS; i++) {
        w->rhs[i] -= dot_double(w->matrix[i], w->rhs, i);
    }
    for (size_t i = 0; i < TAPS; i++) {
        w->rhs[i] /= w->matrix[i][i];
    }
    for (size_t i = TAPS; i-- > 0;) {
        for (size_t k = i + 1; k < TAPS; k++) {
            w->rhs[i] -= w->matrix[k][i] * w->rhs[k];
        }
    }
}

void echo_add_run(const float *taps, const float *far, float *y, size_t n) {
    enum { BLOCK = 32 };
    size_t k = 0;
    for (; k + BLOCK <= n; k += BLOCK) {
        float sums[BLOCK];
        memcpy(sums, y + k, sizeof sums);
        for (size_t i = 0; i < TAPS; i++) {
            const float *x = far + k - i;
            for (size_t b = 0; b < BLOCK; b++) {
                sums[b] += taps[i] * x[b];
            }
        }
        memcpy(y + k, sums, sizeof sums);
    }
    for (; k < n; k++) {
        for (size_t i = 0; i < TAPS; i++) {
            y[k] += taps[i] * far[(int64_t)k - (int64_t)i];
        }
    }
}

/* Takes a run of taps, the first of which stands at w->far[first], off what is left. */
static void take_off(voiced_echo_work *w, const float *taps, size_t first, size_t n) {
    echo_add_run(taps, w->far + first, w->echo + PAST, n);
    for (size_t k = PAST; k < PAST + n; k++) {
        w->rest[k] = w->near[k] - w->echo[k];
    }
}

void echo_explain(voiced_echo_work *w, size_t peak, int64_t base, size_t n) {
    size_t first = PAST + (peak + BEFORE < LAGS ? peak + BEFORE : LAGS);
    normal_equations(w, first);
    solve(w, (RIDGE + w->doubt) * w->matrix[0][0] + 1e-2 * (double)n);
    voiced_echo_taps *found = &w->found;
    float *taps = found->taps[found->runs];
    for (size_t i = 0; i < TAPS; i++) {
        taps[i] = (float)w->rhs[i];
    }
    found->shift[found->runs++] = base + (int64_t)first;
    take_off(w, taps, first, n);
}

void echo_forget(voiced_echo_work *w, size_t n) {
    memcpy(w->rest, w->near, (PAST + n) * sizeof *w->rest);
    memset(w->echo, 0, (PAST + n) * sizeof *w->echo);
}

void echo_use(voiced_echo_work *w, const voiced_echo_taps *path, int64_t base, size_t n) {
    echo_forget(w, n);
    for (size_t run = 0; run < path->runs; run++) {
        int64_t first = path->shift[run] - base;
        if (first >= TAPS && first <= PAST + LAGS) {
            take_off(w, path->taps[run], (size_t)first, n);
        }
    }
}

float echo_unexplained(const voiced_echo_work *w, const float *echo, size_t n) {
    float sum = 0;
    for (size_t at = PAST; at < PAST + n; at += FRAME) {
        float rest[FRAME];
        for (size_t i = 0; i < FRAME; i++) {
            rest[i] = w->near[at + i] - echo[at + i];
        }
        float near = power(w->near + at, FRAME) + 1.0f, left = power(rest, FRAME);
        sum += left < MUCH * near ? left / near : MUCH;
    }
    return sum;
}

void echo_spare(voiced_echo_work *w, size_t n) {
    for (size_t at = PAST; at < PAST + n; at += FRAME) {
        if (power(w->rest + at, FRAME) > power(w->near + at, FRAME)) {
            memcpy(w->rest + at, w->near + at, FRAME * sizeof *w->rest);
        }
    }
}

void echo_explain_by_shifts(voiced_echo_work *w, const float *y, size_t n) {
    const float *near = w->near + PAST;
    memset(w->shifted, 0, (PAST + n) * sizeof *w->shifted);
    for (size_t at = 0; at + FRAME <= n; at += FRAME) {
        size_t from = at < FRAME ? 0 : at - FRAME, to = at + 2 * FRAME < n ? at + 2 * FRAME : n;
        float least = SHIFTED * power(near + from, to - from);
        for (size_t s = 1; s < w->shifts; s++) {
            const float *echo = y + VOICED_ECHO_MOVES - w->shift[s];
            float left = 0;
            for (size_t k = from; k < to; k++) {
                left += (near[k] - echo[k]) * (near[k] - echo[k]);
            }
            left /= (float)(to - from);
            if (left < least) {
                least = left;
                memcpy(w->shifted + PAST + at, echo + at, FRAME * sizeof *echo);
            }
        }
    }
    w->is_shifted = 1;
}

/* The loudest of what was played and may be heard in the frame at w->near[at]: some 40 ms sooner or
 * 60 ms later than the known path says, which takes far sample `first` for w->near[PAST]. */
static float loudest_near(const voiced_echo_work *w, int64_t first, size_t at, size_t n) {
    float loudest = 0;
    for (int64_t frame = -2; frame <= 3; frame++) {
        int64_t from = first + (int64_t)(at - PAST) + frame * FRAME;
        if (from >= 0 && from + FRAME <= (int64_t)(PAST + n + LAGS)) {
            float one = power(w->far + from, FRAME);
            loudest = one > loudest ? one : loudest;
        }
    }
    return loudest;
}

void echo_combine(const voiced_echo *e, voiced_echo_work *w, const float *other, int64_t base,
                  size_t n) {
    for (size_t at = PAST; at < PAST + n; at += FRAME) {
        float rest[FRAME];
        for (size_t i = 0; i < FRAME; i++) {
            rest[i] = w->near[at + i] - other[at + i];
        }
        if (power(rest, FRAME) >= power(w->rest + at, FRAME)) {
            continue;
        }
        float most = LOUDER * e->known_gain * loudest_near(w, e->known.shift[0] - base, at, n);
        if (power(w->near + at, FRAME) >= most) {
            continue;
        }
        memcpy(w->rest + at, rest, sizeof rest);
        if (power(other + at, FRAME) > power(w->echo + at, FRAME)) {
            memcpy(w->echo + at, other + at, sizeof rest);
        }
    }
}
