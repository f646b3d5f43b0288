/* A line whose delay changes in mid-speech: the caller's playout broke off, or left something out.
 * What was played from there on counts as playback that began anew. */
#include "echo.h"

#define MUCH 1.5f     /* times what came back: an echo that leaves more is just wrong */
#define SOFTEST 0.1f  /* of the mean power: what is weaker than that hardly counts */
#define SWITCH 6.0f   /* hops that a move has to explain to be tried: 30 ms */
#define SOONER 2.5f   /* times that, if it is heard earlier */
#define SURELY 16.0f  /* to be remembered */
#define MOST 1792.0f  /* samples that a delay may grow or shrink in all */
#define BADLY 0.3f    /* unexplained, of a segment: somewhere in it the echo may have moved */
#define BETTER 0.85f  /* of that: a shift that leaves no less explains nothing */
enum { PART = 100, PARTS = 4, VAIN = 3 }; /* 25 ms; 100 ms are searched at a time */
enum { SETTLED = 240 }; /* samples after a start: 60 ms */
enum { MOVES = VOICED_ECHO_MOVES, SHIFTS = VOICED_ECHO_SHIFTS };

/* What the known path makes of w->far: y[MOVES + k] belongs to w->near[PAST + k]. */
static void expected(const voiced_echo *e, const voiced_echo_work *w, int64_t base, size_t n,
                     float *y) {
    memset(y, 0, (n + 2 * MOVES) * sizeof *y);
    for (size_t run = 0; run < e->known.runs; run++) {
        int64_t first = e->known.shift[run] - base - MOVES, skip = TAPS - first;
        skip = skip < 0 ? 0 : skip;
        if (first > PAST + LAGS - MOVES || skip > (int64_t)n) {
            continue;
        }
        echo_add_run(e->known.taps[run], w->far + first + skip, y + skip,
                     n + 2 * MOVES - (size_t)skip);
    }
}

/* The shift that explains most of near[from, to), if any explains much more than none. */
static int shift_of(const float *near, const float *y, size_t from, size_t to) {
    size_t length = to - from;
    float all = dot(near + from, near + from, length), least = all, none = all, own = 0;
    int best = 0;
    for (int d = -MOVES / 2; d <= MOVES; d++) {
        const float *at = y + MOVES + (int64_t)from - d;
        if (d == -MOVES / 2) {
            own = dot(at, at, length);
        } else {
            own += at[0] * at[0] - at[length] * at[length];
        }
        float left = all - 2 * dot(near + from, at, length) + own;
        none = d ? none : left;
        if (left < least) {
            least = left, best = d;
        }
    }
    none = none < all ? none : all;
    return least < BETTER * none ? best : 0;
}

/* How badly the echo, shifted, explains each hop; and how badly none at all does. */
static void judge(voiced_echo_work *w, const float *y, size_t hops) {
    const float *near = w->near + PAST;
    float soft = SOFTEST * power(near, hops * HOP) + 1.0f;
    for (size_t h = 0; h < hops; h++) {
        const float *here = near + h * HOP;
        float came = power(here, HOP);
        w->silent[h] = came / (came + soft);
        for (size_t s = 0; s < w->shifts; s++) {
            const float *at = y + MOVES + (int64_t)(h * HOP) - w->shift[s];
            float left = 0;
            for (size_t i = 0; i < HOP; i++) {
                left += (here[i] - at[i]) * (here[i] - at[i]);
            }
            left /= HOP * (came + soft);
            w->left[s][h] = left < MUCH ? left : MUCH;
        }
    }
}

/* The likeliest shift of each hop into w->state; a change has to be worth it. */
static void follow(voiced_echo_work *w, size_t hops) {
    float cost[SHIFTS], next[SHIFTS] = {0};
    for (size_t s = 0; s < w->shifts; s++) {
        cost[s] = s ? SWITCH : 0; /* the window may begin after the change */
    }
    for (size_t h = 0; h < hops; h++) {
        size_t least = 0;
        for (size_t s = 1; s < w->shifts; s++) {
            least = cost[s] < cost[least] ? s : least;
        }
        for (size_t s = 0; s < w->shifts; s++) {
            int sooner = w->shift[s] < w->shift[least]; /* playout seldom leaves something out */
            float other = cost[least] + (sooner ? SOONER * SWITCH : SWITCH);
            w->before[s][h] = (uint8_t)(other < cost[s] ? least : s);
            next[s] = (other < cost[s] ? other : cost[s]) + w->left[s][h];
        }
        memcpy(cost, next, sizeof next);
    }
    size_t at = 0;
    for (size_t s = 1; s < w->shifts; s++) {
        at = cost[s] < cost[at] ? s : at;
    }
    for (size_t h = hops; h-- > 0;) {
        w->state[h] = (uint8_t)at;
        at = w->before[at][h];
    }
}

/* From hop `h` on, up to `until`, the shift is another: where exactly, silence between. `worth`:
 * how many hops more it explains. */
static size_t where(const voiced_echo_work *w, size_t h, size_t until, size_t was, size_t is,
                    float *worth) {
    int hole = (w->shift[is] - w->shift[was]) / HOP;
    size_t gap = hole > 0 ? (size_t)hole : 0, from = h > gap + 8 ? h - gap - 8 : 0;
    size_t to = h + gap + 8 < until ? h + gap + 8 : until, best = h;
    float least = 1e9f;
    for (size_t b = from; b <= to; b++) {
        float cost = 0;
        for (size_t k = from > gap ? from - gap : 0; k < to; k++) {
            cost += k >= b ? w->left[is][k] : k + gap >= b ? w->silent[k] : w->left[was][k];
        }
        if (cost < least) {
            least = cost, best = b;
        }
    }
    *worth = 0;
    for (size_t k = best; k < until; k++) {
        *worth += w->left[was][k] - w->left[is][k];
    }
    return best;
}

/* What came back as sample `at`, and since, is heard `later` than was believed. Returns whether
 * that may be: where playback itself began is for echo_place.c to say. */
static int move(voiced_echo *e, int64_t at, int32_t later) {
    int64_t heard = at + e->known.shift[0] - BEFORE;
    size_t s = e->starts;
    while (s && (float)(e->start[s - 1].at - heard) + e->start[s - 1].late > 0) {
        s--;
    }
    if (!s) {
        return 0;
    }
    float late = e->start[s - 1].late + (float)later;
    int64_t since = heard - (int64_t)late;
    if (since < e->start[s - 1].at + SETTLED || late > MOST || late < -MOST ||
        (s < e->starts && since >= e->start[s].at)) {
        return 0;
    }
    for (size_t k = s; k < e->starts; k++) {
        e->start[k].late += (float)later;
    }
    if (e->starts == VOICED_ECHO_STARTS) {
        memmove(e->start, e->start + 1, (VOICED_ECHO_STARTS - 1) * sizeof *e->start);
        e->starts--, s--;
    }
    memmove(e->start + s + 1, e->start + s, (e->starts - s) * sizeof *e->start);
    e->start[s] = (voiced_echo_start){since, late, 1, later > 0 ? later : 1};
    e->starts++;
    return 1;
}

/* The shifts that explain more than none where the echo explains least, into w->shift. */
static void look_for_shifts(voiced_echo *e, voiced_echo_work *w, const float *y, size_t n) {
    const float *near = w->near + PAST;
    size_t parts = n / PART;
    float bad[VOICED_ECHO_SPAN / PART], soft = SOFTEST * dot(near, near, n) / (float)parts + PART;
    w->shift[0] = 0;
    w->shifts = 1;
    if (e->tried) { /* by the look before */
        w->shift[w->shifts++] = e->tried;
        e->tried = 0;
    }
    for (size_t p = 0; p < parts; p++) {
        const float *came = near + p * PART, *echo = y + MOVES + p * PART;
        float all = dot(came, came, PART), left = 0;
        for (size_t k = 0; k < PART; k++) {
            left += (came[k] - echo[k]) * (came[k] - echo[k]);
        }
        left = left < all ? left : all;
        bad[p] = left > BADLY * all ? left / (all + soft) : 0;
    }
    bad[parts - 1] *= 2; /* what came last may be all that there is of a move */
    for (int vain = 0; w->shifts < SHIFTS && vain < VAIN;) {
        size_t worst = 0;
        float most = 0;
        for (size_t p = 0; p + PARTS <= parts; p++) {
            float sum = bad[p] + bad[p + 1] + bad[p + 2] + bad[p + 3];
            if (sum > most) {
                most = sum, worst = p;
            }
        }
        if (most < 1.0f) {
            break;
        }
        memset(bad + worst, 0, PARTS * sizeof *bad);
        int d = shift_of(near, y, worst * PART, (worst + PARTS) * PART), known = 0;
        for (size_t s = 0; s < w->shifts; s++) {
            known |= d == w->shift[s];
        }
        vain += known;
        w->shift[w->shifts] = d;
        w->shifts += !known;
    }
}

int echo_move(voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n, int64_t base) {
    size_t hops = n / HOP;
    float *y = w->re;
    if (n < PART * PARTS) {
        return 0;
    }
    expected(e, w, base, n, y);
    look_for_shifts(e, w, y, n);
    if (w->shifts == 1) {
        return 0;
    }
    echo_explain_by_shifts(w, y, n);
    judge(w, y, hops);
    follow(w, hops);
    int moved = 0;
    for (size_t h = 0; h < hops; h++) {
        size_t was = h ? w->state[h - 1] : 0, is = w->state[h];
        if (was == is) {
            continue;
        }
        size_t until = h;
        while (until < hops && w->state[until] == is) {
            until++;
        }
        float worth;
        size_t b = where(w, h, until, was, is, &worth);
        int sooner = w->shift[is] < w->shift[was];
        worth /= sooner ? SOONER : 1.0f;
        int32_t later = w->shift[is] - w->shift[was];
        if (!move(e, from + (int64_t)(b * HOP), later)) {
            break;
        }
        e->tried = worth > SURELY || later > MOVES || later < -MOVES ? 0 : later;
        moved = worth > SURELY && moved != 1 ? 2 : 1;
    }
    return moved;
}
