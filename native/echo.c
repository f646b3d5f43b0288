/* The line's echo of what was played, in what came back: where it lies, what of it a linear path
 * explains, and what the rest is like. At 4 kHz, which holds the voice's pitch and first formants
 * and the digit tones, and takes an eighth of the work of 8 kHz. No memory of its own. */
#include "echo.h"

#define LEAST_PEAK 5.0f  /* of the correlation, below which nothing is tried */
#define SURE_PEAK 9.5f   /* speech against other speech does not reach it */
#define LEAST_SHARE 0.5f /* of the power, explained: the path may be believed all the same */
#define KEEP_PEAK 15.0f  /* a path so plain, and that explains so much, is remembered */
#define KEEP_SHARE 0.7f
#define FIRST_SHARE 0.58f /* or for want of any, until one explains more */
#define KEPT 0.95f       /* it has to be better than a new one by so much */
#define LOUDER 2.0f      /* than the kept path's: such an echo is made of the caller's voice ... */
#define SURELY 0.9f      /* ... unless it explains so much */
#define SIDE_PEAK 4.0f   /* of what the first path leaves: a reflection, or the room */
#define CLEARLY 0.8f     /* of the frames is left unexplained: a better path, whoever speaks */
#define PLAIN 0.97f      /* of the power explained by the known path: none is looked for */
#define CROWDED 1.5f     /* times the kept path's echo came back: there is a caller in it ... */
#define MOST_DOUBT 0.1   /* ... and the least squares are to doubt what they see, up to that */
#define WORSE 0.05f      /* a path that explains so much less replaces no other ... */
#define FORGET 0.01f     /* ... until that was the worse one in so many looks as it takes, and never
                          * if it explains less than a first one has to */
enum { SAME = 8 };       /* samples: delays nearer to each other are the same */
enum { MOVED_FRESH = 400 }; /* samples since an echo's delay changed: 100 ms */

/* How far the fit is to be held back, as a share of the far signal's power: what came back on top of
 * an echo is noise to it, and spread over TAPS taps. */
static double doubt_of(const voiced_echo_work *w, size_t n) {
    double came = echo_chosen_power(w, w->near + PAST), echo = echo_chosen_power(w, w->kept + PAST);
    double more = came / (echo + 1) - 1, doubt = more > 0 ? more * TAPS / (double)n : 0;
    return doubt < MOST_DOUBT ? doubt : MOST_DOUBT;
}

/* The share that a run of taps explains by chance of what is no echo: a tap a sample, of those that
 * are loud. */
static float chance_of(const voiced_echo_work *w) {
    float sum = 0, squares = 1e-3f;
    for (size_t p = 0; p < w->pieces; p++) {
        for (size_t at = w->piece_from[p]; at < w->piece_to[p]; at += FRAME) {
            float one = power(w->near + PAST + at, FRAME);
            sum += one, squares += one * one;
        }
    }
    float chance = TAPS * squares / (sum * sum * FRAME + 1e-3f);
    return chance < 1 ? chance : 1;
}

static void find_path(const voiced_echo *e, voiced_echo_work *w, size_t n, int64_t offset,
                      int64_t base, voiced_echo_path *path) {
    w->found.runs = 0;
    echo_choose_frames(e, w, n);
    w->doubt = e->known.runs ? doubt_of(w, n) : 0;
    echo_know_far(w, n);
    echo_correlate(w, w->near + PAST);
    size_t peak = echo_highest(w->real, &path->peak);
    if (path->peak < LEAST_PEAK) {
        return;
    }
    echo_explain(w, peak, base, n);
    float all = echo_chosen_power(w, w->near + PAST) + 1e-3f;
    path->share = 1 - echo_chosen_power(w, w->rest + PAST) / all;
    if (path->peak < SURE_PEAK && path->share - chance_of(w) < LEAST_SHARE) {
        echo_forget(w, n);
        w->found.runs = 0;
        path->share = 0;
        return;
    }
    path->lag = (int32_t)(offset - base - PAST - (int64_t)peak);
    float before = echo_unexplained(w, w->echo, n), now;
    for (; w->found.runs < VOICED_ECHO_RUNS; before = now) {
        float found;
        echo_correlate(w, w->rest + PAST);
        peak = echo_highest(w->real, &found);
        if (found < SIDE_PEAK) {
            break;
        }
        echo_explain(w, peak, base, n);
        now = echo_unexplained(w, w->echo, n);
        if (now >= before) { /* some loud frames alone were explained: it has learnt the caller */
            w->found.runs--;
            echo_use(w, &w->found, base, n);
            break;
        }
    }
    path->share = 1 - echo_chosen_power(w, w->rest + PAST) / all;
}

/* Whether the known path explains what came back so well that none else need be looked for. */
static int plain(const voiced_echo *e, voiced_echo_work *w, size_t n, int64_t offset, int64_t base,
                 voiced_echo_path *path) {
    if (!e->known.runs) {
        return 0;
    }
    echo_use(w, &e->known, base, n);
    path->share = 1 - power(w->rest + PAST, n) / (power(w->near + PAST, n) + 1e-3f);
    if (path->share > PLAIN) {
        path->runs = (int32_t)e->known.runs;
        path->kept = 1;
        path->lag = (int32_t)(offset - e->known.shift[0] + BEFORE);
        return 1;
    }
    memcpy(w->kept, w->echo, (PAST + n) * sizeof *w->kept);
    echo_forget(w, n);
    return 0;
}

/* Takes the path that was found, or the one of before if that explains more: a path seldom changes,
 * and what begins or is spoken over does not show it well. Only what is `firm` is remembered, and
 * nothing while a caller speaks, whose voice so many taps would learn. The other is in w->kept. */
static void choose_path(voiced_echo *e, voiced_echo_work *w, size_t n, int firm,
                        voiced_echo_path *path) {
    int kept = 0, crowded = 0;
    if (e->known.runs) {
        float before = echo_unexplained(w, w->kept, n), now = echo_unexplained(w, w->echo, n);
        float was = power(w->kept + PAST, n);
        int louder = power(w->echo + PAST, n) > LOUDER * was;
        int64_t apart = w->found.runs ? w->found.shift[0] - e->known.shift[0] : 0;
        int same = apart > -SAME && apart < SAME;
        crowded = path->share < SURELY && power(w->near + PAST, n) > CROWDED * was;
        kept = before < KEPT * now || (crowded && same && now > CLEARLY * before) ||
               (louder && path->share < SURELY && path->peak < KEEP_PEAK);
    }
    if (kept) {
        for (size_t i = 0; i < PAST + n; i++) {
            float other = w->echo[i];
            w->echo[i] = w->kept[i], w->kept[i] = other;
            w->rest[i] = w->near[i] - w->echo[i];
        }
    } else if (firm && !crowded) {
        int is_plain = path->peak > KEEP_PEAK && path->share > KEEP_SHARE;
        float least = e->known.runs ? e->known_share : FIRST_SHARE;
        if ((is_plain && path->share > e->known_share - WORSE) ||
            (e->known_share < KEEP_SHARE && path->share > least)) {
            e->known = w->found; /* for want of a plain one, the best that will do */
            e->known_share = path->share;
            e->known_gain = echo_loudest(w->echo, n) / (echo_loudest(w->far, n + LAGS) + 1);
        } else if (e->known_share > FIRST_SHARE) {
            e->known_share -= FORGET;
        }
    }
    path->runs = (int32_t)(kept ? e->known.runs : w->found.runs);
    path->kept = kept;
}

/* The echo's power beside that of what was played, both without the emphasis. */
static float gain_of(const voiced_echo_work *w, const float *far, size_t n) {
    float echo = 0, played = 0, echo_sum = 0, played_sum = 1.0f;
    for (size_t i = 0; i < n; i++) {
        echo = EMPHASIS * echo + w->echo[PAST + i];
        played = EMPHASIS * played + far[i];
        echo_sum += echo * echo;
        played_sum += played * played;
    }
    return echo_sum / played_sum;
}

/* Marks the frames in which what began anew is first heard, by the path that was chosen. */
static void mark_fresh(const voiced_echo *e, int64_t from, int64_t offset,
                       const voiced_echo_path *path, voiced_echo_frame *frames, size_t count) {
    for (size_t i = 0; i < count; i++) {
        frames[i].fresh = 0;
    }
    if (!path->runs) {
        return;
    }
    int64_t lag = path->kept ? offset - e->known.shift[0] + BEFORE : path->lag;
    for (size_t s = 0; s < e->starts; s++) {
        int64_t since = e->start[s].at + (int64_t)e->start[s].late + lag - offset - from;
        int64_t moved = e->start[s].moved;
        for (size_t i = 0; i < count; i++) {
            int64_t at = (int64_t)(i * FRAME);
            frames[i].fresh |= at > since - FRAME && at < since + VOICED_ECHO_FRESH;
            if (moved && at > since - moved - 2 * FRAME && at < since + MOVED_FRESH) {
                frames[i].fresh = 2;
            }
        }
    }
}

size_t voiced_echo_analyse(voiced_echo *e, voiced_echo_work *w, int64_t from, size_t samples,
                           int64_t offset, int32_t earliest, voiced_echo_path *path,
                           voiced_echo_frame *frames) {
    size_t count = samples / FRAME, n = count * FRAME;
    voiced_echo_start start[VOICED_ECHO_STARTS];
    uint32_t starts = e->starts;
    int moved = 0, other = 0; /* is in w->kept: the path known before */
    int64_t base = offset - earliest - LAGS - PAST;
    w->is_shifted = 0;
    memset(path, 0, sizeof *path);
    if (n > SPAN) {
        count = SPAN / FRAME, n = count * FRAME;
    }
    echo_load(e, w, from, n, offset, earliest);
    float far_power = power(w->far + PAST, n + LAGS);
    if (n && far_power > 1.0f) {
        path->played = echo_loudest(w->far, n + LAGS);
        path->low_played = echo_low_played(w, n);
        int known = plain(e, w, n, offset, base, path);
        if (!known && e->known.runs) {
            memcpy(start, e->start, sizeof start);
            moved = echo_move(e, w, from, n, base);
            if (moved) {
                memcpy(w->unmoved, w->kept, (PAST + n) * sizeof *w->kept);
                echo_reload(e, w, from, n, base);
                known = plain(e, w, n, offset, base, path);
            }
        }
        if (!known) {
            find_path(e, w, n, offset, base, path);
            other = e->known.runs != 0;
            choose_path(e, w, n, moved != 1, path);
            other = other && w->found.runs;
        }
    }
    if (path->runs) {
        int64_t shift = path->kept ? e->known.shift[0] : w->found.shift[0];
        int64_t first = shift - base - BEFORE;
        first = first < 0 ? 0 : first > PAST + LAGS ? PAST + LAGS : first;
        path->gain = gain_of(w, w->far + first, n);
    }
    if (other) {
        echo_combine(e, w, w->kept, base, n);
    }
    if (w->is_shifted) {
        echo_combine(e, w, w->shifted, base, n);
    }
    if (moved) {
        echo_combine(e, w, w->unmoved, base, n);
    }
    echo_spare(w, n);
    echo_listen(w, n, frames);
    mark_fresh(e, from, offset, path, frames, count);
    if (moved == 1) { /* tried in this look alone */
        memcpy(e->start, start, sizeof start);
        e->starts = starts;
    }
    return count;
}
