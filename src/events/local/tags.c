/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of profiles. v: LEB128 varint of at most 64 bits; z: zigzag, then v.
 *
 *   value  01 run*                 a cookie's, in the order of arrival: oldest run first
 *          ff                      a value in which damage was found
 *   run    a v of tags for each action, v bytes, then so many bytes of tags
 *   tag    1 byte   bits 0-1 device, 2-3 action, 4 product is text; the others are 0
 *          z        time in ms, less that of the tag before it (of the first: less 0)
 *          v v v v  ids, by collection
 *          z        the measure
 *          z        product, a number; or v bytes and the text
 *
 * Tags of a run stand in any order: a run is written as the tags arrived, or by time when trimmed.
 */
#include "events/local/tags.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    VALUE_PLAIN = 0x01,
    VALUE_DAMAGED = 0xff,
    FLAG_DEVICE = 3,
    FLAG_ACTION_SHIFT = 2,
    FLAG_TEXT = 16,
    FLAGS_ALL = 31,
};
static_assert(EVENT_ACTIONS <= 4 && EVENT_DEVICES <= 4, "two bits each");

/* ---- Numbers ---- */
static uint8_t *put_varint(uint8_t *p, uint64_t v) {
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static uint8_t *put_zigzag(uint8_t *p, int64_t v) {
    return put_varint(p, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

/* NULL when there is none. Takes NULL. */
static const uint8_t *get_varint(const uint8_t *p, const uint8_t *end, uint64_t *ret_v) {
    uint64_t v = 0;
    if (!p)
        return NULL;
    for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
        uint8_t byte = *p++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret_v = v;
            return p;
        }
    }
    return NULL;
}

static const uint8_t *get_u32(const uint8_t *p, const uint8_t *end, uint32_t *ret_v) {
    uint64_t v;
    p = get_varint(p, end, &v);
    if (!p || v > UINT32_MAX)
        return NULL;
    *ret_v = (uint32_t)v;
    return p;
}

static const uint8_t *get_zigzag(const uint8_t *p, const uint8_t *end, int64_t *ret_v) {
    uint64_t v;
    p = get_varint(p, end, &v);
    if (p)
        *ret_v = (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
    return p;
}

/* ---- One tag ---- */
size_t tag_encode(uint8_t *out, const struct event_tag *tag, int64_t previous_ms) {
    uint8_t *p = out;
    *p++ = (uint8_t)((unsigned)tag->device | (unsigned)tag->action << FLAG_ACTION_SHIFT |
                     (tag->product_is_text ? FLAG_TEXT : 0u));
    p = put_zigzag(p, (int64_t)((uint64_t)tag->time_ms - (uint64_t)previous_ms));
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        p = put_varint(p, tag->ids[c]);
    p = put_zigzag(p, tag->measure);
    if (!tag->product_is_text)
        return (size_t)(put_zigzag(p, tag->product_number) - out);
    p = put_varint(p, tag->product_text.size);
    if (tag->product_text.size)
        memcpy(p, tag->product_text.data, tag->product_text.size);
    return (size_t)(p - out) + tag->product_text.size;
}

static const uint8_t *get_product(const uint8_t *p, const uint8_t *end, struct event_tag *tag) {
    uint64_t size;
    if (!tag->product_is_text)
        return get_zigzag(p, end, &tag->product_number);
    p = get_varint(p, end, &size);
    if (!p || size > (uint64_t)(end - p))
        return NULL;
    tag->product_text = bytes_of(p, (size_t)size);
    return p + size;
}

bool tag_next(struct tag_cursor *c, struct event_tag *ret_tag) {
    if (c->at >= c->end)
        return false;
    uint8_t flags = *c->at;
    struct event_tag tag = {.device = flags & FLAG_DEVICE,
                            .action = flags >> FLAG_ACTION_SHIFT & 3,
                            .product_is_text = (flags & FLAG_TEXT) != 0};
    int64_t delta = 0, measure = 0;
    if (flags & ~FLAGS_ALL || tag.device >= EVENT_DEVICES || tag.action >= EVENT_ACTIONS)
        return false;
    const uint8_t *p = get_zigzag(c->at + 1, c->end, &delta);
    for (size_t i = 1; i < EVENT_COLLECTIONS_FIXED; i++)
        p = get_u32(p, c->end, &tag.ids[i]);
    p = get_zigzag(p, c->end, &measure);
    if (p)
        p = get_product(p, c->end, &tag);
    if (!p || measure < INT32_MIN || measure > INT32_MAX)
        return false;
    tag.measure = (int32_t)measure;
    tag.time_ms = (int64_t)((uint64_t)c->time_ms + (uint64_t)delta);
    c->at = p;
    c->time_ms = tag.time_ms;
    *ret_tag = tag;
    return true;
}

/* ---- Runs and values ---- */
void tag_run_begin(struct buffer *out, const uint32_t n[EVENT_ACTIONS], size_t bytes) {
    uint8_t header[TAG_RUN_HEADER_MAX];
    uint8_t *p = header;
    for (size_t i = 0; i < EVENT_ACTIONS; i++)
        p = put_varint(p, n[i]);
    p = put_varint(p, bytes);
    buffer_append(out, header, (size_t)(p - header));
}

void tag_value_begin(struct buffer *out) {
    buffer_append_u8(out, VALUE_PLAIN);
}

bool tag_value_damaged(struct bytes value) {
    return value.size == 0 || value.data[0] != VALUE_PLAIN;
}

bool tag_value_next(struct bytes value, size_t *at, struct tag_run *ret_run, int *ret_error) {
    struct tag_run run;
    uint32_t size;
    *ret_error = 0;
    if (*at == 0) {
        if (tag_value_damaged(value)) {
            *ret_error = -EBADMSG;
            return false;
        }
        *at = 1;
    }
    if (*at >= value.size)
        return false;
    const uint8_t *end = value.data + value.size;
    const uint8_t *p = value.data + *at;
    for (size_t i = 0; i < EVENT_ACTIONS; i++)
        p = get_u32(p, end, &run.n[i]);
    p = get_u32(p, end, &size);
    if (!p || size > (size_t)(end - p)) {
        *ret_error = -EBADMSG;
        return false;
    }
    run.tags = bytes_of(p, size);
    *at = (size_t)(p - value.data) + size;
    *ret_run = run;
    return true;
}

/* ---- Index ---- */
void tag_index_deinit(struct tag_index *x) {
    for (size_t i = 0; i < EVENT_ACTIONS; i++)
        free(x->lists[i].places);
    *x = (struct tag_index){0};
}

static int places_add(struct tag_places *l, struct tag_place place) {
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct tag_place *grown = realloc(l->places, capacity * sizeof *grown);
        if (!grown)
            return error_origin(-ENOMEM);
        l->places = grown;
        l->capacity = capacity;
    }
    place.order = (uint32_t)l->n;
    l->places[l->n++] = place;
    return 0;
}

int tag_index_add_run(struct tag_index *x, struct bytes run) {
    struct tag_cursor c = {run.data, run.data + run.size, 0};
    struct event_tag tag;
    for (;;) {
        const uint8_t *at = c.at;
        if (!tag_next(&c, &tag))
            return c.at == c.end ? 0 : error_origin(-EBADMSG);
        int r = places_add(&x->lists[tag.action],
                           (struct tag_place){.time_ms = tag.time_ms, .at = at, .end = c.end});
        if (r < 0)
            return error_trace(r);
    }
}

int tag_index_add_value(struct tag_index *x, struct bytes value) {
    struct tag_run run;
    size_t at = 0;
    int r = 0, error;
    while (r == 0 && tag_value_next(value, &at, &run, &error))
        r = tag_index_add_run(x, run.tags);
    if (r < 0)
        return error_trace(r);
    return error < 0 ? error_origin(error) : 0;
}

static int compare_newest_first(const void *a, const void *b) {
    const struct tag_place *x = a, *y = b;
    if (x->time_ms != y->time_ms)
        return x->time_ms > y->time_ms ? -1 : 1;
    return x->order > y->order ? -1 : x->order < y->order;
}

void tag_index_trim(struct tag_index *x) {
    for (size_t i = 0; i < EVENT_ACTIONS; i++) {
        struct tag_places *l = &x->lists[i];
        if (l->n > 1)
            qsort(l->places, l->n, sizeof *l->places, compare_newest_first);
        if (l->n > EVENT_PROFILE_KEEP)
            l->n = EVENT_PROFILE_KEEP;
    }
}

struct event_tag tag_at(const struct tag_place *place) {
    struct tag_cursor c = {place->at, place->end, 0};
    struct event_tag tag = {0};
    bool there = tag_next(&c, &tag);
    assert(there);
    (void)there;
    tag.time_ms = place->time_ms;
    return tag;
}

void tag_index_encode(const struct tag_index *x, struct buffer *out, uint32_t ret_n[EVENT_ACTIONS],
                      int64_t *ret_last_ms) {
    int64_t last_ms = 0;
    for (size_t i = 0; i < EVENT_ACTIONS; i++) {
        const struct tag_places *l = &x->lists[i];
        for (size_t k = l->n; k > 0; k--) {
            struct event_tag tag = tag_at(&l->places[k - 1]);
            uint8_t *p = buffer_reserve(out, TAG_BYTES_MAX + tag.product_text.size);
            if (!p)
                return;
            out->size += tag_encode(p, &tag, last_ms);
            last_ms = tag.time_ms;
        }
        ret_n[i] = (uint32_t)l->n;
    }
    *ret_last_ms = last_ms;
}

/* ---- Merging ---- */
struct extent {
    uint64_t n[EVENT_ACTIONS];
    size_t runs;
};

static int measure(struct bytes value, struct extent *e) {
    struct tag_run run;
    size_t at = 0;
    int error;
    for (; tag_value_next(value, &at, &run, &error); e->runs++)
        for (size_t i = 0; i < EVENT_ACTIONS; i++)
            e->n[i] += run.n[i];
    return error;
}

static bool too_large(const struct extent *e) {
    bool large = e->runs > TAGS_RUNS_MAX;
    for (size_t i = 0; i < EVENT_ACTIONS; i++)
        large |= e->n[i] > TAGS_TRIM;
    return large;
}

static int index_values(struct tag_index *x, const struct bytes *values, size_t n) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = tag_index_add_value(x, values[i]);
    return r;
}

static int merge_trimmed(const struct bytes *values, size_t n, struct buffer *out) {
    struct tag_index index = {0};
    CLEANUP(buffer_deinit) struct buffer tags = BUFFER_INIT;
    uint32_t counts[EVENT_ACTIONS] = {0};
    int64_t last_ms;
    int r = index_values(&index, values, n);
    if (r == 0) {
        tag_index_trim(&index);
        tag_index_encode(&index, &tags, counts, &last_ms);
        r = buffer_check(&tags);
    }
    tag_index_deinit(&index);
    if (r < 0)
        return r;
    tag_value_begin(out);
    tag_run_begin(out, counts, tags.size);
    buffer_append_bytes(out, buffer_bytes(&tags));
    return buffer_check(out);
}

static int merge_joined(const struct bytes *values, size_t n, struct buffer *out) {
    tag_value_begin(out);
    for (size_t i = 0; i < n; i++)
        buffer_append(out, values[i].data + 1, values[i].size - 1);
    return buffer_check(out);
}

int tag_values_merge(const struct bytes *values, size_t n, struct buffer *out) {
    struct extent e = {0};
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = measure(values[i], &e);
    if (r == 0)
        r = too_large(&e) ? merge_trimmed(values, n, out) : merge_joined(values, n, out);
    if (r != -EBADMSG)
        return r;
    buffer_clear(out);
    buffer_append_u8(out, VALUE_DAMAGED);
    return buffer_check(out);
}
