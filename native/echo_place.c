/* Where playback that began anew was heard, beside where it was told to be. */
#include "echo.h"

#define PLACED 0.8f        /* of the power left: playback began where that is least ... */
#define MOVED 0.05f        /* ... if that is so much less than where it was believed to */
#define SURELY_PLACED 0.3f
#define FRACTIONS 8        /* of a sample, in which that place is told */
enum { PLACED_BY = 1600 }; /* samples of echo after which it is not doubted: 400 ms */

/* What the known path makes of w->far, from REACH samples before the window to as many after it. */
static void expected(const voiced_echo *e, voiced_echo_work *w, int64_t base, size_t n, float *y) {
    memset(y, 0, (n + 2 * REACH) * sizeof *y);
    for (size_t run = 0; run < e->known.runs; run++) {
        int64_t first = e->known.shift[run] - base;
        if (first < TAPS + REACH || first > PAST + LAGS) {
            continue;
        }
        echo_add_run(e->known.taps[run], w->far + first - REACH, y, n + 2 * REACH);
    }
}

/* How late the last start's audio was heard: at which the known path explains most of what came
 * since. w->far holds it alone, as late as is believed by now. */
static void place(voiced_echo *e, voiced_echo_work *w, int64_t base, size_t n) {
    voiced_echo_start *start = &e->start[e->starts - 1];
    float *y = w->re, *shifted = w->im, *near = w->near + PAST;
    expected(e, w, base, n, y);
    size_t from = 0; /* of the window, where that echo may begin */
    while (from < n && y[from + 2 * REACH] == 0) {
        from++;
    }
    size_t length = n - from;
    if (length < FRAME / 2) {
        return;
    }
    float all = dot(near + from, near + from, length);
    float least = all, own = 0, believed = all;
    int best = 0;
    for (int d = -REACH; d <= REACH; d++) { /* echo sample k at near sample k + d */
        const float *at = y + REACH + (int64_t)from - d;
        if (d == -REACH) {
            own = dot(at, at, length);
        } else {
            own += at[0] * at[0] - at[length] * at[length];
        }
        float left = all - 2 * dot(near + from, at, length) + own;
        believed = d ? believed : left;
        if (left < least) {
            least = left, best = d;
        }
    }
    if (least > PLACED * all || least > believed - MOVED * all) {
        start->sure = length >= PLACED_BY && believed < SURELY_PLACED * all;
        return;
    }
    float late = (float)best;
    for (int q = 1 - FRACTIONS; q < FRACTIONS; q++) {
        float weights[8], part;
        int64_t d = echo_whole((float)best + (float)q / FRACTIONS, &part);
        if (d < 5 - REACH || d > REACH - 5) {
            continue;
        }
        echo_between(1 - part, weights);
        const float *at = y + REACH + (int64_t)from - d - 4;
        float left = 0;
        for (size_t k = 0; k < length; k++) {
            float sum = 0;
            for (size_t i = 0; i < 8; i++) {
                sum += weights[i] * at[k + i];
            }
            shifted[k] = near[from + k] - sum;
        }
        left = dot(shifted, shifted, length);
        if (left < least) {
            least = left, late = (float)best + (float)q / FRACTIONS;
        }
    }
    start->late += late;
    start->sure = length >= PLACED_BY && least < SURELY_PLACED * all;
}

void echo_load(voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n, int64_t offset,
                 int32_t earliest) {
    int64_t base = offset - earliest - LAGS - PAST, first = from + base;
    echo_load_near(e, w, from, n);
    if (e->known.runs && e->starts && !e->start[e->starts - 1].sure) {
        echo_load_far(e, w, e->starts - 1, first, PAST + n + LAGS + REACH);
        place(e, w, base, n);
    }
    echo_reload(e, w, from, n, base);
}

void echo_reload(const voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n, int64_t base) {
    echo_load_far(e, w, 0, from + base, PAST + n + LAGS + VOICED_ECHO_MOVES);
    echo_forget(w, n);
}

