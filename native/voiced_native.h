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
 * position: of the next output, in 1/up of a source sample after the last one taken. */
typedef struct {
    uint32_t up, down, position, block;
    uint8_t source, target, filter, past, tail, halved, half;
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
