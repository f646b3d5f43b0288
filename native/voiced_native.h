/* The native module: what Python may call, declared once. C includes this file; cffi reads what
 * stands between its markers. No allocation, no global state, bounds from the caller. */
#ifndef VOICED_NATIVE_H
#define VOICED_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */

/* ---- audio: g711.c, resample.c; called by voiced/audio.py alone ---- */

/* ---- WebSocket framing, RFC 6455: frames.c; called by voiced/frames.py alone ---- */

/* cdef: end */

#endif
