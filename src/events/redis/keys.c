/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: see keys.h. */
#include "events/redis/keys.h"

#include "work/work.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

unsigned key_cookies_of(uint64_t key_hash) {
    return work_lane_of_hash(key_hash, COOKIE_BUCKETS);
}

static struct bytes of_text(const char *text) {
    return text ? bytes_of_string(text) : (struct bytes){0};
}

struct bytes key_format(struct arena *a, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char *text = arena_vformat(a, format, arguments);
    va_end(arguments);
    return of_text(text);
}

struct bytes key_cookies_positions(struct arena *a, const char *prefix, unsigned bucket) {
    return key_format(a, "%s:{c:%u}:p", prefix, bucket);
}

/* A text of ours, and one that may hold any byte behind it. */
static struct bytes join(struct arena *a, const char *head, struct bytes tail) {
    size_t size = strlen(head);
    uint8_t *key = arena_alloc(a, size + tail.size);
    if (!key)
        return (struct bytes){0};
    memcpy(key, head, size);
    if (tail.size)
        memcpy(key + size, tail.data, tail.size);
    return bytes_of(key, size + tail.size);
}

enum { HEAD_MAX = 160 };

struct bytes key_tags(struct arena *a, const char *prefix, unsigned bucket,
                      enum event_action action, struct bytes cookie) {
    char head[HEAD_MAX];
    snprintf(head, sizeof head, "%s:{c:%u}:%u:", prefix, bucket, (unsigned)action);
    return join(a, head, cookie);
}

struct bytes key_minute(struct arena *a, const char *prefix, int64_t minute, unsigned shard) {
    return key_format(a, "%s:{m:%" PRId64 ":%u}", prefix, minute, shard);
}

struct bytes key_collection(struct arena *a, const char *prefix, struct bytes name) {
    char head[HEAD_MAX];
    snprintf(head, sizeof head, "%s:i:", prefix);
    return join(a, head, name);
}

/* Hashes as they are: 24 bytes of a key beside 48. */
struct bytes key_claim(struct arena *a, const char *prefix, struct bytes key) {
    char head[HEAD_MAX];
    snprintf(head, sizeof head, "%s:o:", prefix);
    return join(a, head, key);
}

struct bytes key_once(struct arena *a, const char *prefix, unsigned lane,
                      struct bytes key_and_body) {
    char head[HEAD_MAX];
    snprintf(head, sizeof head, "%s:{w:%u}:o:", prefix, lane);
    return join(a, head, key_and_body);
}

struct bytes key_lane(struct arena *a, const char *prefix, unsigned lane, char what) {
    return key_format(a, "%s:{w:%u}:%c", prefix, lane, what);
}

struct bytes key_position(struct arena *a, lsn_t position) {
    return key_format(a, "%0*" PRIu64, POSITION_DIGITS, position);
}

bool key_position_read(struct bytes text, lsn_t *ret_position) {
    lsn_t position = 0;
    if (text.size != POSITION_DIGITS)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9 || position > (UINT64_MAX - digit) / 10)
            return false;
        position = position * 10 + digit;
    }
    *ret_position = position;
    return true;
}

/* The action, a bit for each filter, then each value with its size: no two combinations have the
 * same text, and none begins as a position does. */
void key_append_combination(struct buffer *out, enum event_action action,
                            const bool filtered[EVENT_FILTERS],
                            const struct bytes values[EVENT_FILTERS]) {
    unsigned mask = 0;
    for (unsigned i = 0; i < EVENT_FILTERS; i++)
        mask |= (unsigned)filtered[i] << i;
    buffer_append_u8(out, (uint8_t)('0' + action));
    buffer_append_u8(out, (uint8_t)('0' + mask));
    for (unsigned i = 0; i < EVENT_FILTERS; i++) {
        if (!filtered[i])
            continue;
        buffer_append_u16(out, (uint16_t)values[i].size);
        buffer_append_bytes(out, values[i]);
    }
}
