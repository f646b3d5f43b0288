/* What was played and what came back: two rings, and the starts of playback. */
#include "echo.h"

enum { NEAR_MASK = VOICED_ECHO_NEAR - 1, FAR_MASK = VOICED_ECHO_FAR - 1 };

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
    e->start[e->starts++] = (voiced_echo_start){at, late, 0, 0};
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

void echo_load_near(const voiced_echo *e, voiced_echo_work *w, int64_t from, size_t n) {
    for (size_t i = 0; i < PAST + n; i++) {
        int64_t at = from - PAST + (int64_t)i;
        w->near[i] = near_sample(e, at) - EMPHASIS * near_sample(e, at - 1);
    }
}

void echo_between(float part, float weights[8]) {
    for (int k = 0; k < 8; k++) {
        float product = 1;
        for (int j = 0; j < 8; j++) {
            product *= j == k ? 1.0f : (part + 3 - (float)j) / (float)(k - j);
        }
        weights[k] = product;
    }
}

int64_t echo_whole(float x, float *part) {
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
    int64_t late = echo_whole(start->late, &part);
    echo_between(1 - part, weights); /* of far samples i - late - 4 to i - late + 3 */
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

void echo_load_far(const voiced_echo *e, voiced_echo_work *w, size_t since, int64_t first,
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

