/* The line's echo of what was played, in what came back: where it lies, what of it a linear path
 * explains, and what the rest is like. At 4 kHz, which holds the voice's pitch and first formants
 * and the digit tones, and takes an eighth of the work of 8 kHz. No memory of its own. */
#include "voiced_native.h"

#include <string.h>

#define RATE VOICED_ECHO_RATE
#define FRAME VOICED_ECHO_FRAME
#define SPAN VOICED_ECHO_SPAN
#define LAGS VOICED_ECHO_LAGS
#define TAPS VOICED_ECHO_TAPS
#define POINTS VOICED_ECHO_POINTS
#define PAST VOICED_ECHO_PAST
#define REACH VOICED_ECHO_REACH

enum { NEAR_MASK = VOICED_ECHO_NEAR - 1, FAR_MASK = VOICED_ECHO_FAR - 1 };
enum { BEFORE = 12 };                 /* taps before the correlation's peak: 3 ms */
enum { SHORTEST = 10, LONGEST = 57 }; /* pitch periods: 400 to 70 Hz */
enum { VOICE_WINDOW = 80, TONE_WINDOW = 160 };
#define EMPHASIS 0.8f             /* flattens speech, so that all of the band counts */
#define RIDGE 1e-3                /* of the far signal's power: keeps the path's gain sane */
#define LEAST_PEAK 5.0f           /* of the correlation, below which nothing is tried */
#define SURE_PEAK 9.5f            /* speech against other speech does not reach it */
#define LEAST_SHARE 0.5f          /* of the power, explained: the path may be believed all the same */
#define KEEP_PEAK 15.0f           /* a path so plain, and that explains so much, is remembered */
#define KEEP_SHARE 0.7f
#define KEPT 0.95f                /* it has to be better than a new one by so much */
#define LOUDEST 0.3f              /* of the loudest frame played: what is louder is no echo */
#define SIDE_PEAK 4.0f            /* of what the first path leaves: a reflection, or the room */
#define PLAIN 0.97f               /* of the power explained by the known path: none is looked for */
#define PLACED 0.8f               /* of the power left: playback began where that is least ... */
#define MOVED 0.05f               /* ... if that is so much less than where it was believed to */
#define SURELY_PLACED 0.3f
#define HEARD 0.5f                /* of periodicity: below it nobody asks whose it is */
#define FRACTIONS 8               /* of a sample, in which that place is told */
enum { PLACED_BY = 1600 };        /* samples of echo after which it is not doubted: 400 ms */

/* ---- the two signals ---- */

static inline int16_t sample_at(const uint8_t *pcm, size_t i) {
    return (int16_t)(uint16_t)(pcm[2 * i] | pcm[2 * i + 1] << 8);
}

void voiced_echo_init(voiced_echo *e) { memset(e, 0, sizeof *e); }

void voiced_echo_near(voiced_echo *e, const uint8_t *pcm, size_t samples) {
    for (size_t i = 0; i < samples; i++) {
        e->near[(uint64_t)(e->near_end + (int64_t)i) & NEAR_MASK] = sample_at(pcm, i);
    }
    e->near_end += (int64_t)samples;
}

static void silence_far(voiced_echo *e, int64_t from, int64_t to) {
    if (to - from > VOICED_ECHO_FAR) {
        from = to - VOICED_ECHO_FAR;
    }
    for (int64_t at = from; at < to; at++) {
        e->far[(uint64_t)at & FAR_MASK] = 0;
    }
}

/* Starts from `at` on will not be, or will be others. */
static void drop_starts(voiced_echo *e, int64_t at) {
    while (e->starts && e->start[e->starts - 1].at >= at) {
        e->starts--;
    }
}

/* Playback begins at `at`: as late as that before, until it is heard. */
static void begin(voiced_echo *e, int64_t at) {
    float late = e->starts ? e->start[e->starts - 1].late : 0;
    drop_starts(e, at);
    if (e->starts == VOICED_ECHO_STARTS) {
        memmove(e->start, e->start + 1, (VOICED_ECHO_STARTS - 1) * sizeof *e->start);
        e->starts--;
    }
    e->start[e->starts++] = (voiced_echo_start){at, late, 0};
}

void voiced_echo_far(voiced_echo *e, int64_t at, const uint8_t *pcm, size_t samples) {
    if (at != e->far_end || e->cleared || !e->starts) {
        begin(e, at);
        e->cleared = 0;
    }
    if (at > e->far_end) {
        silence_far(e, e->far_end, at);
    }
    for (size_t i = 0; i < samples; i++) {
        e->far[(uint64_t)(at + (int64_t)i) & FAR_MASK] = sample_at(pcm, i);
    }
    e->far_end = at + (int64_t)samples;
}

void voiced_echo_clear(voiced_echo *e, int64_t at) {
    if (at < e->far_end) {
        silence_far(e, at, e->far_end);
        e->far_end = at;
    }
    e->cleared = 1;
}

static inline float near_sample(const voiced_echo *e, int64_t at) {
    int known = at >= 0 && at < e->near_end && e->near_end - at <= VOICED_ECHO_NEAR;
    return known ? (float)e->near[(uint64_t)at & NEAR_MASK] : 0.0f;
}

static inline float far_sample(const voiced_echo *e, int64_t at) {
    int known = at >= 0 && at < e->far_end && e->far_end - at <= VOICED_ECHO_FAR;
    return known ? (float)e->far[(uint64_t)at & FAR_MASK] : 0.0f;
}

/* ---- sums, in eight lanes so that compilers may vectorise them ---- */

static float dot(const float *a, const float *b, size_t n) {
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

static float power(const float *a, size_t n) { return n ? dot(a, a, n) / (float)n : 0; }

static float inverse_root(float x) { /* of a positive number; two steps of Newton's */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5F3759DFu - (bits >> 1);
    float y;
    memcpy(&y, &bits, sizeof y);
    y *= 1.5f - 0.5f * x * y * y;
    return y * (1.5f - 0.5f * x * y * y);
}

/* ---- Fourier transform, radix 2, POINTS complex numbers in two arrays ---- */

void voiced_echo_work_init(voiced_echo_work *w) {
    memset(w, 0, sizeof *w);
    /* A stage of half-length h finds its h factors at h. The last is computed by rotation, in
     * double precision; each shorter one is every other factor of the next. */
    const double turn_re = 0.99999970586288221916, turn_im = -0.00076699031874270452694;
    double re = 1, im = 0;
    const size_t half = POINTS / 2;
    for (size_t k = 0; k < half; k++) {
        w->turn_re[half + k] = (float)re;
        w->turn_im[half + k] = (float)im;
        double next = re * turn_re - im * turn_im;
        im = re * turn_im + im * turn_re;
        re = next;
    }
    for (size_t h = half / 2; h; h /= 2) {
        for (size_t k = 0; k < h; k++) {
            w->turn_re[h + k] = w->turn_re[2 * h + 2 * k];
            w->turn_im[h + k] = w->turn_im[2 * h + 2 * k];
        }
    }
}

static void transform(voiced_echo_work *w, float *restrict re, float *restrict im) {
    for (size_t i = 0, j = 0; i < POINTS; i++) { /* bits of the index reversed */
        if (i < j) {
            float a = re[i], b = im[i];
            re[i] = re[j], im[i] = im[j];
            re[j] = a, im[j] = b;
        }
        size_t bit = POINTS / 2;
        while (bit && j & bit) {
            j ^= bit;
            bit /= 2;
        }
        j |= bit;
    }
    for (size_t h = 1; h < POINTS; h *= 2) {
        const float *restrict tr = w->turn_re + h, *restrict ti = w->turn_im + h;
        for (size_t base = 0; base < POINTS; base += 2 * h) {
            float *restrict ar = re + base, *restrict ai = im + base;
            float *restrict br = ar + h, *restrict bi = ai + h;
            for (size_t k = 0; k < h; k++) {
                float xr = br[k] * tr[k] - bi[k] * ti[k], xi = br[k] * ti[k] + bi[k] * tr[k];
                br[k] = ar[k] - xr, bi[k] = ai[k] - xi;
                ar[k] += xr, ai[k] += xi;
            }
        }
    }
}

/* ---- where the echo lies ---- */

/* The half-whitened cross-correlation at all lags: afterwards re[k] belongs to lag LAGS - k. */
static void correlate(voiced_echo_work *w, const float *near, size_t n) {
    float *re = w->re, *im = w->im;
    memset(re, 0, sizeof w->re);
    memset(im, 0, sizeof w->im);
    memcpy(re, w->far + PAST, (n + LAGS) * sizeof *re);
    for (size_t p = 0; p < w->pieces; p++) {
        size_t from = w->piece_from[p];
        memcpy(im + from, near + from, (w->piece_to[p] - from) * sizeof *im);
    }
    float scale = 1.0f / POINTS;
    float far_mean = dot(re, re, POINTS) + 1e-3f, near_mean = dot(im, im, POINTS) + 1e-3f;
    transform(w, re, im);
    /* Both spectra came from one transform; their product is made ready for the same transform
     * run once more, as conjugate of conjugate. */
    for (size_t k = 0; k <= POINTS / 2; k++) {
        size_t m = (POINTS - k) & (POINTS - 1);
        float far_re = (re[k] + re[m]) / 2, far_im = (im[k] - im[m]) / 2;
        float near_re = (im[k] + im[m]) / 2, near_im = (re[m] - re[k]) / 2;
        float far2 = far_re * far_re + far_im * far_im + 0.1f * far_mean;
        float near2 = near_re * near_re + near_im * near_im + 0.1f * near_mean;
        float weight = scale * inverse_root(far2) * inverse_root(near2);
        float cross_re = (near_re * far_re + near_im * far_im) * weight;
        float cross_im = (near_re * far_im - near_im * far_re) * weight;
        re[k] = cross_re, im[k] = -cross_im;
        re[m] = cross_re, im[m] = cross_im;
    }
    transform(w, re, im);
}

/* The index of the highest correlation, and how far it stands out. */
static size_t highest(const float *c, float *peak) {
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

/* ---- the path that explains most, by least squares ---- */

/* Frames louder than any echo are the caller's. They would decide the fit: it leaves them out. */
static void choose_frames(voiced_echo_work *w, size_t n) {
    float loudest = 0;
    for (size_t at = PAST; at + FRAME <= PAST + n + LAGS; at += FRAME) {
        float one = power(w->far + at, FRAME);
        loudest = one > loudest ? one : loudest;
    }
    w->pieces = 0;
    int open = 0;
    for (size_t at = 0; at < n; at += FRAME) {
        int chosen = power(w->near + PAST + at, FRAME) < LOUDEST * loudest;
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

static float chosen_power(const voiced_echo_work *w, const float *a) {
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

/* By L D L'; the matrix's lower half becomes L, its diagonal D, rhs the solution. */
static void solve(voiced_echo_work *w, double ridge) {
    for (size_t i = 0; i < TAPS; i++) {
        double *row = w->matrix[i];
        row[i] += ridge;
        for (size_t j = 0; j < i; j++) {
            const double *other = w->matrix[j];
            double sum = row[j];
            for (size_t k = 0; k < j; k++) {
                sum -= row[k] * other[k];
            }
            row[j] = sum; /* L times D yet */
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
        for (size_t k = 0; k < i; k++) {
            w->rhs[i] -= w->matrix[i][k] * w->rhs[k];
        }
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

/* Adds a run of taps to the echo, the first of which stands at w->far[first]. */
static void add_run(voiced_echo_work *w, const float *taps, size_t first, size_t n) {
    float *echo = w->echo + PAST, *rest = w->rest + PAST;
    for (size_t i = 0; i < TAPS; i++) {
        const float *far = w->far + first - i;
        for (size_t k = 0; k < n; k++) {
            echo[k] += taps[i] * far[k];
        }
    }
    for (size_t k = 0; k < n; k++) {
        rest[k] = w->near[PAST + k] - echo[k];
    }
}

/* Fits TAPS taps around index `peak` of the correlation to what is left; takes them off it.
 * `base`: the far sample at w->far[0] less the near one at w->near[PAST]. */
static void explain(voiced_echo_work *w, size_t peak, int64_t base, size_t n) {
    size_t first = PAST + (peak + BEFORE < LAGS ? peak + BEFORE : LAGS);
    normal_equations(w, first);
    solve(w, RIDGE * w->matrix[0][0] + 1e-2 * (double)n);
    voiced_echo_taps *found = &w->found;
    float *taps = found->taps[found->runs];
    for (size_t i = 0; i < TAPS; i++) {
        taps[i] = (float)w->rhs[i];
    }
    found->shift[found->runs++] = base + (int64_t)first;
    add_run(w, taps, first, n);
}

static void forget(voiced_echo_work *w, size_t n) {
    memcpy(w->rest, w->near, (PAST + n) * sizeof *w->rest);
    memset(w->echo, 0, (PAST + n) * sizeof *w->echo);
}

static void use(voiced_echo_work *w, const voiced_echo_taps *path, int64_t base, size_t n) {
    forget(w, n);
    for (size_t run = 0; run < path->runs; run++) {
        int64_t first = path->shift[run] - base;
        if (first >= TAPS && first <= PAST + LAGS) {
            add_run(w, path->taps[run], (size_t)first, n);
        }
    }
}

/* How badly the frames are explained, each by a number from 0 to 1, so that no loud one decides. */
static float unexplained(const voiced_echo_work *w, size_t n) {
    float sum = 0;
    for (size_t at = PAST; at < PAST + n; at += FRAME) {
        float near = power(w->near + at, FRAME) + 1.0f, rest = power(w->rest + at, FRAME);
        sum += rest < near ? rest / near : 1.0f;
    }
    return sum;
}

/* Where the path makes things worse it is not that of this moment: nothing is taken off. */
static void spare(voiced_echo_work *w, size_t n) {
    for (size_t at = PAST; at < PAST + n; at += FRAME) {
        if (power(w->rest + at, FRAME) > power(w->near + at, FRAME)) {
            memcpy(w->rest + at, w->near + at, FRAME * sizeof *w->rest);
        }
    }
}

/* ---- what a piece of sound is like ---- */

/* What is left, without the emphasis and smoothed: what lies above 1 kHz changes too much within a
 * quarter of a millisecond for periods of whole samples. */
static void smooth(const float *from, float *to, size_t n) {
    float level = 0, x[5] = {0};
    for (size_t i = 0; i < n; i++) {
        level = EMPHASIS * level + from[i];
        x[0] = x[1], x[1] = x[2], x[2] = x[3], x[3] = x[4], x[4] = level;
        to[i] = (x[0] + 4 * x[1] + 6 * x[2] + 4 * x[3] + x[4]) / 16;
    }
}

/* The normalised autocorrelation of the 20 ms that end at `end`, at a lag: shorter than most changes
 * of pitch. `own`: their energy. */
static float correlation(const float *end, size_t lag, float own) {
    const float *x = end - VOICE_WINDOW, *y = x - lag;
    float other = dot(y, y, VOICE_WINDOW) + 1.0f;
    return dot(x, y, VOICE_WINDOW) * inverse_root(own) * inverse_root(other);
}

/* Its highest local maximum within the range of voices. */
static float periodicity(const float *end, int32_t *period) {
    float own = dot(end - VOICE_WINDOW, end - VOICE_WINDOW, VOICE_WINDOW) + 1.0f;
    float values[LONGEST + 2];
    for (size_t lag = SHORTEST - 1; lag <= LONGEST + 1; lag++) {
        values[lag] = correlation(end, lag, own);
    }
    float best = 0;
    *period = 0;
    for (size_t lag = SHORTEST; lag <= LONGEST; lag++) {
        if (values[lag] > best && values[lag] >= values[lag - 1] &&
            values[lag] >= values[lag + 1]) {
            best = values[lag];
            *period = (int32_t)lag;
        }
    }
    return best;
}

/* How periodic what ends at `rest` is with the period of the echo that ends at `echo`. */
static float likeness(const float *rest, const float *echo) {
    int32_t period;
    if (periodicity(echo, &period) < 0.5f) {
        return 0;
    }
    float own = dot(rest - VOICE_WINDOW, rest - VOICE_WINDOW, VOICE_WINDOW) + 1.0f, best = 0;
    for (int32_t lag = period - 1; lag <= period + 1; lag++) {
        float one = correlation(rest, (size_t)lag, own);
        best = one > best ? one : best;
    }
    return best;
}

/* 2 cos(2 pi f / 4000) of ITU-T Q.23's frequencies: 697, 770, 852, 941, 1209, 1336, 1477, 1633. */
static const float TONES[8] = {
    0.91637f, 0.70695f, 0.46078f, 0.18509f, -0.64486f, -1.00725f, -1.36221f, -1.67677f,
};

/* The share of the power that the strongest tone of each group holds, of the last 40 ms. */
static float tones(const float *end, int32_t *digit) {
    const float *x = end - TONE_WINDOW;
    float best[2] = {0, 0};
    int32_t which[2] = {0, 0};
    for (int32_t tone = 0; tone < 8; tone++) {
        float a = 0, b = 0;
        for (size_t i = 0; i < TONE_WINDOW; i++) {
            float next = x[i] + TONES[tone] * a - b;
            b = a, a = next;
        }
        float found = a * a + b * b - TONES[tone] * a * b;
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

/* ---- all of it ---- */

static void load_near(const voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n) {
    for (size_t i = 0; i < PAST + n; i++) {
        int64_t at = from - PAST + (int64_t)i;
        w->near[i] = near_sample(e, at) - EMPHASIS * near_sample(e, at - 1);
    }
}

/* Lagrange's weights for the value `part` of a sample (0 to 1) after the fourth of eight. */
static void between(float part, float weights[8]) {
    for (int k = 0; k < 8; k++) {
        float product = 1;
        for (int j = 0; j < 8; j++) {
            product *= j == k ? 1.0f : (part + 3 - (float)j) / (float)(k - j);
        }
        weights[k] = product;
    }
}

static int64_t whole(float x, float *part) { /* the integer not above x */
    int64_t n = (int64_t)x;
    n -= (float)n > x;
    *part = x - (float)n;
    return n;
}

/* What was played since the start numbered `s`, up to the next one, as late as it was heard, into
 * those of out[0, n) that it takes; out[0] is far sample `first`. */
static void load_start(const voiced_echo *e, size_t s, int64_t first, float *out, int64_t n,
                       float *played) {
    const voiced_echo_start *start = &e->start[s];
    int64_t until = s + 1 < e->starts ? start[1].at : e->far_end;
    float weights[8], part;
    int64_t late = whole(start->late, &part);
    between(1 - part, weights); /* of far samples i - late - 4 to i - late + 3 */
    int64_t from = start->at + late - first, to = until + late + 1 - first;
    from = from < 0 ? 0 : from, to = to > n ? n : to;
    for (int64_t i = from; i < to + 7; i++) { /* as it was sent, four samples early */
        int64_t at = first + i - late - 4;
        played[i - from] = at >= start->at && at < until ? far_sample(e, at) : 0;
    }
    for (int64_t i = 0; i < to - from; i++) {
        float sum = played[i + 4]; /* the weights of no fraction are 0 but for one */
        if (part > 0) {
            sum = 0;
            for (int64_t k = 0; k < 8; k++) {
                sum += weights[k] * played[i + k];
            }
        }
        out[from + i] = sum;
    }
}

/* w->far, from the start numbered `since` on. Its first sample is that at `first`. */
static void load_far(const voiced_echo *e, voiced_echo_work *w, size_t since, int64_t first,
                     size_t n) {
    float *raw = w->re;
    memset(raw, 0, (n + 1) * sizeof *raw);
    for (size_t s = since; s < e->starts; s++) {
        load_start(e, s, first - 1, raw, (int64_t)n + 1, w->im);
    }
    for (size_t i = 0; i < n; i++) {
        w->far[i] = raw[i + 1] - EMPHASIS * raw[i];
    }
}

/* ---- playback that began anew: where it was heard ---- */

/* What the known path makes of w->far, from REACH samples before the window to as many after it. */
static void expected(const voiced_echo *e, voiced_echo_work *w, int64_t base, size_t n, float *y) {
    memset(y, 0, (n + 2 * REACH) * sizeof *y);
    for (size_t run = 0; run < e->known.runs; run++) {
        int64_t first = e->known.shift[run] - base;
        if (first < TAPS + REACH || first > PAST + LAGS) {
            continue;
        }
        for (size_t i = 0; i < TAPS; i++) {
            const float *far = w->far + first - (int64_t)i - REACH;
            for (size_t k = 0; k < n + 2 * REACH; k++) {
                y[k] += e->known.taps[run][i] * far[k];
            }
        }
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
        int64_t d = whole((float)best + (float)q / FRACTIONS, &part);
        if (d < 5 - REACH || d > REACH - 5) {
            continue;
        }
        between(1 - part, weights);
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

static void load(voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n, int64_t offset,
                 int32_t earliest) {
    int64_t first = from + offset - earliest - LAGS - PAST, base = offset - earliest - LAGS - PAST;
    load_near(e, w, from, n);
    if (e->known.runs && e->starts && !e->start[e->starts - 1].sure) {
        load_far(e, w, e->starts - 1, first, PAST + n + LAGS + REACH);
        place(e, w, base, n);
    }
    load_far(e, w, 0, first, PAST + n + LAGS + REACH);
    forget(w, n);
}

static void find_path(voiced_echo_work *w, size_t n, int64_t offset, int64_t base,
                      voiced_echo_path *path) {
    w->found.runs = 0;
    choose_frames(w, n);
    correlate(w, w->near + PAST, n);
    size_t peak = highest(w->re, &path->peak);
    if (path->peak < LEAST_PEAK) {
        return;
    }
    explain(w, peak, base, n);
    float all = chosen_power(w, w->near + PAST) + 1e-3f;
    path->share = 1 - chosen_power(w, w->rest + PAST) / all;
    if (path->peak < SURE_PEAK && path->share < LEAST_SHARE) {
        forget(w, n);
        w->found.runs = 0;
        path->share = 0;
        return;
    }
    path->lag = (int32_t)(offset - base - PAST - (int64_t)peak);
    while (w->found.runs < VOICED_ECHO_RUNS) {
        float found;
        correlate(w, w->rest + PAST, n);
        peak = highest(w->re, &found);
        if (found < SIDE_PEAK) {
            break;
        }
        explain(w, peak, base, n);
    }
    path->share = 1 - chosen_power(w, w->rest + PAST) / all;
}

/* Whether the known path explains what came back so well that none else need be looked for. */
static int plain(const voiced_echo *e, voiced_echo_work *w, size_t n, int64_t offset, int64_t base,
                 voiced_echo_path *path) {
    if (!e->known.runs) {
        return 0;
    }
    use(w, &e->known, base, n);
    path->share = 1 - power(w->rest + PAST, n) / (power(w->near + PAST, n) + 1e-3f);
    if (path->share > PLAIN) {
        path->runs = (int32_t)e->known.runs;
        path->kept = 1;
        path->lag = (int32_t)(offset - e->known.shift[0] + BEFORE);
        return 1;
    }
    forget(w, n);
    return 0;
}

/* Takes the path that was found, or the one of before if that explains more: a path seldom changes,
 * and what begins or is spoken over does not show it well. */
static void choose_path(voiced_echo *e, voiced_echo_work *w, size_t n, int64_t base,
                        voiced_echo_path *path) {
    float found = unexplained(w, n);
    int kept = 0;
    if (e->known.runs) {
        use(w, &e->known, base, n);
        kept = unexplained(w, n) < KEPT * found;
        if (!kept) {
            use(w, &w->found, base, n);
        }
    }
    if (!kept && path->peak > KEEP_PEAK && path->share > KEEP_SHARE) {
        e->known = w->found;
    }
    path->runs = (int32_t)(kept ? e->known.runs : w->found.runs);
    path->kept = kept;
}

size_t voiced_echo_analyse(voiced_echo *e, voiced_echo_work *w, int64_t from, size_t samples,
                           int64_t offset, int32_t earliest, voiced_echo_path *path,
                           voiced_echo_frame *frames) {
    size_t count = samples / FRAME, n = count * FRAME;
    memset(path, 0, sizeof *path);
    if (n > SPAN) {
        count = SPAN / FRAME, n = count * FRAME;
    }
    load(e, w, from, n, offset, earliest);
    float far_power = power(w->far + PAST, n + LAGS);
    if (n && far_power > 1.0f) {
        int64_t base = offset - earliest - LAGS - PAST;
        if (!plain(e, w, n, offset, base, path)) {
            find_path(w, n, offset, base, path);
            choose_path(e, w, n, base, path);
        }
    }
    spare(w, n);
    smooth(w->rest, w->smooth, PAST + n);
    smooth(w->echo, w->hum, PAST + n);
    for (size_t i = 0; i < count; i++) {
        size_t at = PAST + i * FRAME;
        voiced_echo_frame *f = &frames[i];
        f->near = power(w->near + at, FRAME);
        f->echo = power(w->echo + at, FRAME);
        f->rest = power(w->rest + at, FRAME);
        f->voice = periodicity(w->smooth + at + FRAME, &f->period);
        f->alike = f->echo > 0 && f->voice > HEARD ? likeness(w->smooth + at + FRAME, w->hum + at + FRAME) : 0;
        f->tone = tones(w->rest + at + FRAME, &f->digit);
    }
    return count;
}
