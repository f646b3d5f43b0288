/* RFC 6455 framing. The reader takes a buffer of received bytes, unmasks frames in place, holds them
 * to sections 5 and 7.4 and says where their payloads stand; joining fragments is the caller's. */
#include "voiced_native.h"

#include <string.h>

enum { CONTINUATION = 0x0, TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, PONG = 0xA };
enum { FIN = 0x80, RESERVED_BITS = 0x70, OPCODE = 0x0F, MASK = 0x80, LENGTH = 0x7F };
enum { PROTOCOL_ERROR = 1002, INVALID_DATA = 1007, TOO_BIG = 1009 };
enum { CONTROL_MAX = 125 };

static void apply_mask(uint8_t *data, size_t size, const uint8_t key[4]) {
    uint8_t pattern[8];
    memcpy(pattern, key, 4);
    memcpy(pattern + 4, key, 4);
    uint64_t wide;
    memcpy(&wide, pattern, 8);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < size; i++) {
        data[i] ^= key[i & 3];
    }
}

/* RFC 3629 section 4. The state between two calls: how many continuation bytes are still due, and
 * the range that the next one must be in (narrower after E0, ED, F0 and F4: no overlong forms, no
 * surrogates, nothing above U+10FFFF). Returns 0 when a byte cannot follow. */
static int utf8_feed(uint32_t *state, const uint8_t *data, size_t size) {
    uint32_t due = *state & 0xFF, low = *state >> 8 & 0xFF, high = *state >> 16 & 0xFF;
    size_t i = 0;
    while (i < size) {
        uint8_t byte = data[i];
        if (due) {
            if (byte < low || byte > high) {
                return 0;
            }
            due--;
            low = 0x80, high = 0xBF;
            i++;
            continue;
        }
        if (byte < 0x80) { /* nearly everything is ASCII: eight bytes at a time */
            uint64_t word;
            while (i + 8 <= size && (memcpy(&word, data + i, 8), !(word & 0x8080808080808080u))) {
                i += 8;
            }
            while (i < size && data[i] < 0x80) {
                i++;
            }
            continue;
        }
        low = 0x80, high = 0xBF;
        if (byte >= 0xC2 && byte <= 0xDF) {
            due = 1;
        } else if (byte >= 0xE0 && byte <= 0xEF) {
            due = 2;
            if (byte == 0xE0) low = 0xA0;
            if (byte == 0xED) high = 0x9F;
        } else if (byte >= 0xF0 && byte <= 0xF4) {
            due = 3;
            if (byte == 0xF0) low = 0x90;
            if (byte == 0xF4) high = 0x8F;
        } else {
            return 0;
        }
        i++;
    }
    *state = due | low << 8 | high << 16;
    return 1;
}

static int utf8_complete(uint32_t state) { return (state & 0xFF) == 0; }

/* RFC 6455 section 7.4 and IANA's registry: what may stand in a Close frame. 1005, 1006 and 1015
 * are for reporting only, 1004 and the rest below 3000 have no meaning yet. */
static int close_code_is_valid(unsigned code) {
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static unsigned check_close(const uint8_t *payload, size_t size) {
    if (size == 0) {
        return 0;
    }
    if (size == 1 || !close_code_is_valid((unsigned)payload[0] << 8 | payload[1])) {
        return PROTOCOL_ERROR;
    }
    uint32_t state = 0;
    return utf8_feed(&state, payload + 2, size - 2) && utf8_complete(state) ? 0 : INVALID_DATA;
}

/* What a header breaks by itself, before its payload is there: the sender is told at once. */
static unsigned check_header(const voiced_frame_reader *reader, uint8_t first, int masked,
                             uint64_t length) {
    unsigned opcode = first & OPCODE;
    if (first & RESERVED_BITS || masked != reader->expect_masked) {
        return PROTOCOL_ERROR; /* no extension is ever agreed; section 5.1 */
    }
    if (opcode >= CLOSE) {
        return opcode > PONG || !(first & FIN) || length > CONTROL_MAX ? PROTOCOL_ERROR : 0;
    }
    if (opcode > BINARY || (opcode == CONTINUATION) != (reader->opcode != 0)) {
        return PROTOCOL_ERROR;
    }
    return length > reader->max_message - reader->length ? TOO_BIG : 0;
}

/* The payload, unmasked. Carries what a fragmented message needs across its frames. */
static unsigned check_payload(voiced_frame_reader *reader, uint8_t first, const uint8_t *payload,
                              size_t length) {
    unsigned opcode = first & OPCODE;
    if (opcode >= CLOSE) {
        reader->closed = opcode == CLOSE;
        return opcode == CLOSE ? check_close(payload, length) : 0;
    }
    if (opcode != CONTINUATION) {
        reader->opcode = (uint8_t)opcode;
        reader->utf8 = 0;
    }
    reader->length += (uint32_t)length;
    if (reader->opcode == TEXT && !utf8_feed(&reader->utf8, payload, length)) {
        return INVALID_DATA;
    }
    if (first & FIN) {
        if (reader->opcode == TEXT && !utf8_complete(reader->utf8)) {
            return INVALID_DATA;
        }
        reader->opcode = 0;
        reader->length = 0;
    }
    return 0;
}

int voiced_frames_read(voiced_frame_reader *reader, uint8_t *data, uint32_t size,
                       voiced_frames *out) {
    uint32_t at = 0;
    int count = 0;
    unsigned error = 0;
    while (count < VOICED_FRAMES && !reader->closed && size - at >= 2) {
        const uint8_t *head = data + at;
        uint8_t first = head[0];
        int masked = (head[1] & MASK) != 0;
        uint64_t length = head[1] & LENGTH;
        uint32_t header = length == 126 ? 4 : length == 127 ? 10 : 2;
        if (size - at < header) {
            break;
        }
        if (length == 126) {
            length = (uint64_t)head[2] << 8 | head[3];
            if (length < 126) {
                error = PROTOCOL_ERROR; /* section 5.2: the minimal number of bytes */
                break;
            }
        } else if (length == 127) {
            length = 0;
            for (int i = 2; i < 10; i++) {
                length = length << 8 | head[i];
            }
            if (length <= 0xFFFF || length >> 63) {
                error = PROTOCOL_ERROR;
                break;
            }
        }
        error = check_header(reader, first, masked, length);
        if (error) {
            break;
        }
        header += masked ? 4 : 0;
        if (size - at < header || size - at - header < length) {
            break;
        }
        uint8_t *payload = data + at + header;
        if (masked) {
            apply_mask(payload, (size_t)length, payload - 4);
        }
        error = check_payload(reader, first, payload, (size_t)length);
        if (error) {
            break;
        }
        out->frames[count].offset = at + header;
        out->frames[count].length = (uint32_t)length;
        out->frames[count].first = first;
        count++;
        at += header + (uint32_t)length;
    }
    if (error) {
        reader->closed = 1;
    }
    out->consumed = reader->closed ? size : at; /* nothing after a Close frame is looked at */
    out->error = error;
    return count;
}

uint32_t voiced_frame_write(uint8_t *out, uint32_t room, const uint8_t *payload, uint32_t size,
                            uint8_t first, int masked, uint32_t key) {
    uint32_t header = (size < 126 ? 2u : size <= 0xFFFF ? 4u : 10u) + (masked ? 4u : 0u);
    if (room < header || room - header < size) {
        return 0;
    }
    uint8_t mask = masked ? MASK : 0;
    uint8_t *at = out;
    *at++ = first;
    if (size < 126) {
        *at++ = (uint8_t)(mask | size);
    } else if (size <= 0xFFFF) {
        *at++ = mask | 126;
        *at++ = (uint8_t)(size >> 8);
        *at++ = (uint8_t)size;
    } else {
        *at++ = mask | 127;
        for (int shift = 56; shift >= 0; shift -= 8) {
            *at++ = (uint8_t)((uint64_t)size >> shift);
        }
    }
    if (masked) {
        memcpy(at, &key, 4);
        at += 4;
    }
    if (size) {
        memcpy(at, payload, size);
    }
    if (masked) {
        apply_mask(at, size, at - 4);
    }
    return header + size;
}
