/* Random and extreme signals through echo.c, at all places in time; and an echo that it must find.
 * State, working room and frames are allocated in exactly their sizes. */
#include "voiced_native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

static void expect(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "echo: %s\n", what);
        exit(1);
    }
}

static void *room(size_t size) {
    void *data = malloc(size ? size : 1);
    expect(data != NULL, "out of memory");
    return data;
}

/* Noise, silence, one extreme, a square wave between both, a weak hum. */
static uint8_t *signal_of(size_t samples, uint32_t kind) {
    uint8_t *pcm = room(2 * samples);
    for (size_t i = 0; i < samples; i++) {
        int32_t value = 0;
        switch (kind) {
            case 0: value = (int32_t)draw(65536) - 32768; break;
            case 2: value = -32768; break;
            case 3: value = i / 13 % 2 ? 32767 : -32768; break;
            case 4: value = (int32_t)(i % 40) - 20; break;
            default: break;
        }
        pcm[2 * i] = (uint8_t)value;
        pcm[2 * i + 1] = (uint8_t)((uint32_t)value >> 8);
    }
    return pcm;
}

static void judge(voiced_echo *echo, voiced_echo_work *work) {
    size_t samples = draw(4) ? VOICED_ECHO_SPAN : draw(2 * VOICED_ECHO_SPAN);
    size_t most = samples / VOICED_ECHO_FRAME;
    most = most > VOICED_ECHO_FRAMES ? VOICED_ECHO_FRAMES : most;
    voiced_echo_frame *frames = room(most * sizeof *frames);
    voiced_echo_path path;
    int64_t from = echo->near_end - (draw(3) ? VOICED_ECHO_SPAN : (int64_t)draw(40000));
    int64_t offset = draw(3) ? 0 : (int64_t)draw(60000) - 30000;
    size_t count = voiced_echo_analyse(echo, work, from, samples, offset, (int32_t)draw(2000) - 1000,
                                       &path, frames);
    expect(count == most, "not all frames are judged");
    expect(path.runs >= 0 && path.runs <= VOICED_ECHO_RUNS, "too many runs");
    for (size_t i = 0; i < count; i++) {
        voiced_echo_frame *f = &frames[i];
        expect(f->near >= 0 && f->echo >= 0 && f->rest >= 0, "a power is negative or no number");
        expect(f->low_near >= 0 && f->low_echo >= 0 && f->low_rest >= 0, "a low power is wrong");
        expect(f->tone >= 0 && f->digit >= 0 && f->digit < 16, "a tone is out of range");
    }
    uint8_t *counts = room(count);
    for (size_t i = 0; i < count; i++) {
        counts[i] = (uint8_t)draw(4);
    }
    float voice = voiced_echo_voice(work, counts, count);
    expect(voice >= 0 && voice < 0.6f * VOICED_ECHO_HOPS, "a voice is out of range");
    memset(counts, 0, count);
    expect(voiced_echo_voice(work, counts, count) == 0, "a voice where nothing counts");
    free(counts), free(frames);
}

static void check_anything(voiced_echo_work *work) {
    voiced_echo *echo = room(sizeof *echo);
    voiced_echo_init(echo);
    int64_t heard = draw(5000);
    for (size_t step = 0; step < 30; step++) {
        size_t near = draw(3000), far = draw(8) ? draw(3000) : 40000;
        uint8_t *came = signal_of(near, draw(6)), *played = signal_of(far, draw(6));
        voiced_echo_near(echo, came, near);
        voiced_echo_far(echo, heard, played, far);
        heard = echo->far_end + (draw(3) ? 0 : (int64_t)draw(40000) - 2000);
        heard = heard < 0 ? 0 : heard;
        if (!draw(5)) {
            heard = echo->far_end - (int64_t)draw(3000);
            heard = heard < 0 ? 0 : heard;
            voiced_echo_clear(echo, heard);
        }
        free(came), free(played);
        if (step % 3 == 0) {
            judge(echo, work);
        }
    }
    free(echo);
}

static void check_echo(voiced_echo_work *work, size_t delay) {
    enum { ALL = 8000 };
    voiced_echo *echo = room(sizeof *echo);
    voiced_echo_init(echo);
    uint8_t *played = room(2 * ALL), *came = room(2 * ALL);
    memset(came, 0, 2 * ALL);
    for (size_t i = 0; i < ALL; i++) {
        int32_t value = (int32_t)draw(8000) - 4000;
        played[2 * i] = (uint8_t)value, played[2 * i + 1] = (uint8_t)((uint32_t)value >> 8);
        if (i + delay < ALL) {
            int32_t back = value / 4;
            came[2 * (i + delay)] = (uint8_t)back;
            came[2 * (i + delay) + 1] = (uint8_t)((uint32_t)back >> 8);
        }
    }
    voiced_echo_far(echo, 0, played, ALL);
    voiced_echo_near(echo, came, ALL);
    voiced_echo_frame frames[VOICED_ECHO_FRAMES];
    voiced_echo_path path;
    voiced_echo_analyse(echo, work, ALL - VOICED_ECHO_SPAN, VOICED_ECHO_SPAN, 0, 0, &path, frames);
    expect(path.lag == (int32_t)delay, "the delay is not found");
    expect(path.share > 0.99f && path.runs > 0, "an echo is not explained");
    for (size_t i = 0; i < VOICED_ECHO_FRAMES; i++) {
        expect(frames[i].rest < 0.01f * frames[i].near, "a frame's echo is not taken off");
    }
    free(played), free(came), free(echo);
}

/* The delay grows while all goes on: known from the look at which it is, to the end. */
static void check_move(voiced_echo_work *work, size_t delay, size_t later) {
    enum { ALL = 12000, MOVED = 5000 };
    voiced_echo *echo = room(sizeof *echo);
    voiced_echo_init(echo);
    uint8_t *played = room(2 * ALL), *came = room(2 * ALL);
    memset(came, 0, 2 * ALL);
    for (size_t i = 0; i < ALL; i++) {
        int32_t value = (int32_t)draw(8000) - 4000, back = value / 4;
        played[2 * i] = (uint8_t)value, played[2 * i + 1] = (uint8_t)((uint32_t)value >> 8);
        size_t at = i + delay + (i >= MOVED ? later : 0);
        if (at < ALL) {
            came[2 * at] = (uint8_t)back, came[2 * at + 1] = (uint8_t)((uint32_t)back >> 8);
        }
    }
    voiced_echo_far(echo, 0, played, ALL);
    voiced_echo_near(echo, came, MOVED);
    voiced_echo_frame frames[VOICED_ECHO_FRAMES];
    voiced_echo_path path;
    voiced_echo_analyse(echo, work, MOVED - VOICED_ECHO_SPAN, VOICED_ECHO_SPAN, 0, 0, &path, frames);
    expect(path.share > 0.9f, "an echo is not explained before its delay changes");
    size_t to = MOVED + delay + later + 800;
    voiced_echo_near(echo, came + 2 * MOVED, to - MOVED);
    voiced_echo_analyse(echo, work, (int64_t)to - VOICED_ECHO_SPAN, VOICED_ECHO_SPAN, 0, 0, &path,
                        frames);
    expect(echo->starts == 2, "a change of delay is not seen");
    for (size_t i = VOICED_ECHO_FRAMES - 9; i < VOICED_ECHO_FRAMES; i++) {
        expect(frames[i].rest < 0.05f * frames[i].near, "an echo that came later is not taken off");
    }
    free(played), free(came), free(echo);
}

/* A caller who is far louder than the echo of a known path, for 0.3 s: stays in the rest. */
static void check_caller(voiced_echo_work *work, size_t delay) {
    enum { ALL = 8000, SPEAKS = 6800 };
    voiced_echo *echo = room(sizeof *echo);
    voiced_echo_init(echo);
    uint8_t *played = room(2 * ALL), *came = room(2 * ALL);
    memset(came, 0, 2 * ALL);
    for (size_t i = 0; i < ALL; i++) {
        int32_t value = (int32_t)draw(8000) - 4000;
        played[2 * i] = (uint8_t)value, played[2 * i + 1] = (uint8_t)((uint32_t)value >> 8);
        int32_t caller = i >= SPEAKS ? (int32_t)(i % 33 < 9 ? 1500 : -500) : 0;
        if (i >= delay) {
            const uint8_t *then = played + 2 * (i - delay);
            caller += (int16_t)(uint16_t)(then[0] | then[1] << 8) / 16;
        }
        came[2 * i] = (uint8_t)caller, came[2 * i + 1] = (uint8_t)((uint32_t)caller >> 8);
    }
    voiced_echo_far(echo, 0, played, ALL);
    voiced_echo_near(echo, came, SPEAKS);
    voiced_echo_frame frames[VOICED_ECHO_FRAMES];
    voiced_echo_path path;
    voiced_echo_analyse(echo, work, SPEAKS - VOICED_ECHO_SPAN, VOICED_ECHO_SPAN, 0, 0, &path, frames);
    expect(path.share > 0.9f, "an echo is not explained before the caller speaks");
    voiced_echo_near(echo, came + 2 * SPEAKS, ALL - SPEAKS);
    voiced_echo_analyse(echo, work, ALL - VOICED_ECHO_SPAN, VOICED_ECHO_SPAN, 0, 0, &path, frames);
    for (size_t i = VOICED_ECHO_FRAMES - 13; i < VOICED_ECHO_FRAMES; i++) {
        expect(frames[i].low_rest > 0.9f * frames[i].low_near, "a caller is taken for the echo");
    }
    free(played), free(came), free(echo);
}

int main(void) {
    voiced_echo_work *work = room(sizeof *work);
    voiced_echo_work_init(work);
    for (size_t i = 0; i < 12; i++) {
        check_anything(work);
    }
    check_echo(work, 80);
    check_echo(work, 1333);
    check_echo(work, 3000);
    check_move(work, 400, 80);
    check_move(work, 700, 400);
    check_caller(work, 400);
    check_caller(work, 1800);
    free(work);
    return 0;
}
