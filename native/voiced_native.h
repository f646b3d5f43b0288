/* The native module: what Python may call, declared once. C includes this file; cffi reads what
 * stands between its markers. No allocation, no global state, bounds from the caller. */
#ifndef VOICED_NATIVE_H
#define VOICED_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */

/* ---- audio: g711.c, resample.c; called by voiced/audio.py alone ---- */

/* PCM is 16-bit, little-endian, and passed as bytes at any alignment. Where no size of the output
 * is given it has room for `samples` samples (of interleave: for two times as many). */
void voiced_ulaw_to_pcm(const uint8_t *ulaw, size_t samples, uint8_t *pcm);
void voiced_alaw_to_pcm(const uint8_t *alaw, size_t samples, uint8_t *pcm);
void voiced_pcm_to_ulaw(const uint8_t *pcm, size_t samples, uint8_t *ulaw);
void voiced_pcm_to_alaw(const uint8_t *pcm, size_t samples, uint8_t *alaw);
void voiced_ulaw_to_alaw(const uint8_t *ulaw, size_t samples, uint8_t *alaw);
void voiced_alaw_to_ulaw(const uint8_t *alaw, size_t samples, uint8_t *ulaw);

/* The mean square, 0 of no samples; and that of each of `frames` frames of `frame` samples. */
double voiced_mean_square(const uint8_t *pcm, size_t samples);
void voiced_mean_squares(const uint8_t *pcm, size_t frames, size_t frame, double *out);
void voiced_mix(const uint8_t *a, const uint8_t *b, size_t samples, uint8_t *out);
void voiced_interleave(const uint8_t *left, const uint8_t *right, size_t samples, uint8_t *out);

#define VOICED_PCM16 0
#define VOICED_PCMU 1
#define VOICED_PCMA 2
#define VOICED_HISTORY 96

/* One stream from one format to another. up/down: the ratio of the rates in lowest terms.
 * position: of the next output, in 1/up of a source sample after the last one taken; first: that
 * of a stream's first output. avx2: the processor has it; 0 forgoes it, and changes no result. */
typedef struct {
    uint32_t up, down, position, first, block;
    uint8_t source, target, filter, past, tail, halved, half, avx2;
    int16_t history[VOICED_HISTORY];
} voiced_converter;

/* Rates in Hz, 4,000 to 192,000. Returns 0 for an encoding or a rate out of range, and where `fir`
 * is asked for and has no filter for the ratio. */
int voiced_converter_init(voiced_converter *converter, uint32_t source, uint32_t source_rate,
                          uint32_t target, uint32_t target_rate, int fir);

/* As after init: a new stream begins. */
void voiced_converter_reset(voiced_converter *converter);

/* Takes all of in[0..size), any number of bytes. Returns the bytes written, or -1, with nothing
 * taken, if they would be more than `room`. */
ptrdiff_t voiced_convert(voiced_converter *converter, const uint8_t *in, size_t size, uint8_t *out,
                         size_t room);

/* Writes what the filter still holds back, and resets. Returns as voiced_convert does. */
ptrdiff_t voiced_converter_flush(voiced_converter *converter, uint8_t *out, size_t room);

/* ---- echo of what was played, in what came back: echo*.c; called by voiced/audio.py alone ---- */

#define VOICED_ECHO_RATE 4000 /* Hz, of both signals */
#define VOICED_ECHO_FRAME 80 /* samples judged together, 20 ms */
#define VOICED_ECHO_SPAN 4400 /* the most samples analysed at a time, 1.1 s */
#define VOICED_ECHO_FRAMES 55 /* thereof */
#define VOICED_ECHO_LAGS 3200 /* delays searched, 0.8 s */
#define VOICED_ECHO_PAST 240 /* samples before the span that windows reach back to */
#define VOICED_ECHO_TAPS 96 /* of a path, in a run, 24 ms */
#define VOICED_ECHO_HOP 20 /* samples from one measure of pitch to the next, 5 ms */
#define VOICED_ECHO_HOPS 220 /* in a span */
#define VOICED_ECHO_PERIODS 48 /* of pitch */
#define VOICED_ECHO_RUNS 3 /* of taps; reflections, and parts of a room's tail */
#define VOICED_ECHO_POINTS 8192 /* of the transform; not less than span and delays together */
#define VOICED_ECHO_NEAR 8192 /* samples remembered, 2 s; a power of two */
#define VOICED_ECHO_FAR 16384 /* 4 s */
#define VOICED_ECHO_STARTS 8 /* beginnings of playback remembered */
#define VOICED_ECHO_FRESH 640 /* 160 ms */
#define VOICED_ECHO_REACH 320 /* how much later or earlier than told playback may begin, 80 ms */
#define VOICED_ECHO_MOVES 448 /* by how much a delay may change in mid-speech, 112 ms */
#define VOICED_ECHO_SHIFTS 5 /* such changes tried at a time, none included */

/* A path: runs of taps, the first of which takes far sample i + shift for near sample i. */
typedef struct {
    uint32_t runs;
    int64_t shift[VOICED_ECHO_RUNS];
    float taps[VOICED_ECHO_RUNS][VOICED_ECHO_TAPS];
} voiced_echo_taps;

/* Where playback began anew, and how many samples later than that it was heard, beside what came
 * before; `sure` if much of it has been heard since. `moved`: 0 where it was told to begin; else the
 * line's delay grew by so many samples there (1: it shrank), while playback went on. */
typedef struct {
    int64_t at;
    float late;
    int32_t sure, moved;
} voiced_echo_start;

/* What came back (`near`) as a stream, and what was played (`far`) by the sample at which it was
 * told to be heard; both remembered up to their ends. `known`: the last path that was plain to see,
 * which explained `known_share` of the power, less what it lost in looks that another explained
 * better; `known_gain`: its loudest frame beside the loudest that was played. `tried`: a change of delay that the last look found
 * likely, but not sure; 0: none. */
typedef struct {
    int64_t near_end, far_end;
    voiced_echo_taps known;
    uint32_t starts, cleared;
    int32_t tried;
    float known_share, known_gain;
    voiced_echo_start start[VOICED_ECHO_STARTS];
    int16_t near[VOICED_ECHO_NEAR], far[VOICED_ECHO_FAR];
} voiced_echo;

/* Room to work in; holds nothing from call to call but the transform's factors. */
typedef struct {
    float turn_re[VOICED_ECHO_POINTS / 2], turn_im[VOICED_ECHO_POINTS / 2];
    float other_re[VOICED_ECHO_POINTS / 2], other_im[VOICED_ECHO_POINTS / 2];
    float far_re[VOICED_ECHO_POINTS / 2 + 1], far_im[VOICED_ECHO_POINTS / 2 + 1];
    float re[VOICED_ECHO_POINTS], im[VOICED_ECHO_POINTS], real[VOICED_ECHO_POINTS];
    float far[VOICED_ECHO_PAST + VOICED_ECHO_SPAN + VOICED_ECHO_LAGS + VOICED_ECHO_MOVES];
    float near[VOICED_ECHO_PAST + VOICED_ECHO_SPAN];
    float kept[VOICED_ECHO_PAST + VOICED_ECHO_SPAN];
    float shifted[VOICED_ECHO_PAST + VOICED_ECHO_SPAN], unmoved[VOICED_ECHO_PAST + VOICED_ECHO_SPAN];
    uint32_t is_shifted;
    double doubt; /* how far a fit is held back */
    float echo[VOICED_ECHO_PAST + VOICED_ECHO_SPAN], rest[VOICED_ECHO_PAST + VOICED_ECHO_SPAN];
    float smooth[VOICED_ECHO_PAST + VOICED_ECHO_SPAN], hum[VOICED_ECHO_PAST + VOICED_ECHO_SPAN];
    uint32_t pieces, piece_from[VOICED_ECHO_FRAMES], piece_to[VOICED_ECHO_FRAMES];
    voiced_echo_taps found;
    double squares[VOICED_ECHO_PAST + VOICED_ECHO_SPAN + 1];
    double hum_squares[VOICED_ECHO_PAST + VOICED_ECHO_SPAN + 1];
    float voice[VOICED_ECHO_HOPS][VOICED_ECHO_PERIODS];
    float high[VOICED_ECHO_PAST + VOICED_ECHO_SPAN];
    double high_squares[VOICED_ECHO_PAST + VOICED_ECHO_SPAN + 1];
    uint8_t alike[VOICED_ECHO_HOPS];
    uint32_t shifts;
    int32_t shift[VOICED_ECHO_SHIFTS];
    float left[VOICED_ECHO_SHIFTS][VOICED_ECHO_HOPS], silent[VOICED_ECHO_HOPS];
    uint8_t before[VOICED_ECHO_SHIFTS][VOICED_ECHO_HOPS], state[VOICED_ECHO_HOPS];
    double rhs[VOICED_ECHO_TAPS], matrix[VOICED_ECHO_TAPS][VOICED_ECHO_TAPS];
} voiced_echo_work;

/* The path found: its delay in samples and how far the correlation there stands out over that at
 * all delays (a ratio to its root mean square); which share of the power it explains; how many runs
 * explain the echo, 0 if it is not believed to be one; whether they are those of before; and the
 * echo's power beside that of what was played, 0 without an echo. `played`, `low_played`: the loudest
 * 20 ms of that, a frame's figures. */
typedef struct {
    int32_t lag, runs, kept;
    float peak, share, gain, played, low_played;
} voiced_echo_path;

/* One frame. Mean squares of what came back, of the echo in it and of the rest, after an emphasis
 * of high frequencies; the same below 700 Hz, with less of that emphasis; and which share of the
 * rest's power two digit tones hold, with the digit as 4 * row + column. Where a path makes things
 * worse it takes nothing off: the rest is what came back. `fresh`: playback that began anew, whose
 * place may not be known yet, is heard since VOICED_ECHO_FRESH samples at the most; 2: the line's
 * delay has just changed. */
typedef struct {
    float near, echo, rest, low_near, low_echo, low_rest, tone;
    int32_t digit, fresh;
} voiced_echo_frame;

void voiced_echo_init(voiced_echo *echo);
void voiced_echo_work_init(voiced_echo_work *work);

/* PCM at 4 kHz. What is played at `at` takes the place of what was to be played then, and of all
 * after it; `clear` takes that away only. */
void voiced_echo_near(voiced_echo *echo, const uint8_t *pcm, size_t samples);
void voiced_echo_far(voiced_echo *echo, int64_t at, const uint8_t *pcm, size_t samples);
void voiced_echo_clear(voiced_echo *echo, int64_t at);

/* Judges near[from, from + samples), whole frames of it, at the most VOICED_ECHO_SPAN. Its sample i
 * was heard together with far sample i + offset; delays from `earliest` on (may be negative) are
 * searched. What is not, or no longer, remembered counts as silence. `frames` has room for
 * samples / VOICED_ECHO_FRAME; returns how many were written. */
size_t voiced_echo_analyse(voiced_echo *echo, voiced_echo_work *work, int64_t from, size_t samples,
                           int64_t offset, int32_t earliest, voiced_echo_path *path,
                           voiced_echo_frame *frames);

/* How much of a voice the rest holds in the frames analysed last: the sum, over the best stretch whose
 * pitch glides as voices do, of how much more periodic than noise it is, each 5 ms. counts[i] says of
 * frame i: 0 it does not count, 1 not where the rest has the echo's pitch, 2 it does, 3 not the band of
 * pitch counts but the envelope of what lies above it. No more than VOICED_ECHO_FRAMES. */
float voiced_echo_voice(const voiced_echo_work *work, const uint8_t *counts, size_t frames);

/* ---- WebSocket framing, RFC 6455: frames.c; called by voiced/frames.py alone ---- */

#define VOICED_FRAMES 64

/* One frame whose payload stands unmasked at `offset` of the buffer; `first` is its first byte. */
typedef struct {
    uint32_t offset, length, first;
} voiced_frame;

/* What one call of voiced_frames_read found. `error`: 0, or the close code of the failure. */
typedef struct {
    uint32_t consumed, error;
    voiced_frame frames[VOICED_FRAMES];
} voiced_frames;

/* One direction of a connection. Zeroed by the caller but for the first two; max_message bounds
 * one message, its fragments together. The rest: the fragmented message in progress. */
typedef struct {
    uint32_t max_message;
    uint8_t expect_masked, closed, opcode;
    uint32_t length, utf8;
} voiced_frame_reader;

/* Reads whole frames from data[0..size), at most VOICED_FRAMES; returns how many. What `consumed`
 * leaves over must come again, followed by more. size < 2^31. */
int voiced_frames_read(voiced_frame_reader *reader, uint8_t *data, uint32_t size,
                       voiced_frames *out);

/* Writes one frame with `first` as its first byte; returns its size, 0 if `room` is too small.
 * The key's bytes are used in memory order. */
uint32_t voiced_frame_write(uint8_t *out, uint32_t room, const uint8_t *payload, uint32_t size,
                            uint8_t first, int masked, uint32_t key);

/* cdef: end */

#endif
