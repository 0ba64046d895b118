/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of an event record, as the journal keeps them. Little-endian; the framing, the checksum
 * and the lsn are the journal's.
 *
 *   every record         TAG                          ERASE
 *   0  u8  version (1)   4  u32 size of the cookie    4  cookie, to the end
 *   1  u8  op            8  u32 size of the product
 *   2  u8  flags         12 i32 measure               ELEMENT
 *   3  u8  kinds         16 i64 time, ms since 1970   4  u32 id
 *                        24 u32 × 4                   8  u32 size of the collection's name
 *                           ids in the        12 name
 *                           dictionary, …      element, to the end
 *
 *                        40 cookie                    ONCE
 *                        …  product, to the end       4  body, to the end (once.c)
 *
 *   FULL_TAG: as a TAG to 24, then
 *   24 u16 × 4 sizes of the texts, by collection
 *   32 cookie, product, texts, to the end. A profile in Redis keeps it with a cookie of no bytes
 *
 *   ONCE_TAG: 4 body as of a ONCE, 24 bytes; 28 u32 index; 32 a FULL_TAG, whole, to the end
 *
 * flags: 1 late (not of a FULL_TAG), 2 the product is a text; else it is an i64. kinds: action +
 * 16 × device. Both are 0 but for tags.
 *
 * To change a layout: raise its version, keep decoding the old one, add a test with its bytes.
 */
#include "events/tag.h"

#include "base/hash.h"
#include "base/time_text.h"
#include "events/once.h"

#include <assert.h>

enum {
    RECORD_VERSION = 1,
    COMMON_SIZE = 4,
    ELEMENT_SIZE = 12,
    FULL_TEXTS = 24,
    FULL_HEADER = FULL_TEXTS + (EVENT_COLLECTIONS_FIXED - 1) * (int)sizeof(uint16_t),
};
enum { FLAG_LATE = 1, FLAG_TEXT = 2, FLAGS = 3 };

const char *const event_action_names[EVENT_ACTIONS] = {
#define EVENT_ACTION(id, list) #id,
#include "events/schema.def"
};
const char *const event_device_names[EVENT_DEVICES] = {
#define EVENT_DEVICE(id) #id,
#include "events/schema.def"
};

/* XXH3, whose values are fixed since its version 0.8. */
uint64_t event_key_hash(struct bytes cookie) {
    return hash64(cookie.data, cookie.size);
}

static void encode_common(uint8_t *out, enum event_op op, uint8_t flags, uint8_t kinds) {
    out[0] = RECORD_VERSION;
    out[1] = (uint8_t)op;
    out[2] = flags;
    out[3] = kinds;
}

static void append_common(struct buffer *out, enum event_op op) {
    uint8_t *at = buffer_reserve(out, COMMON_SIZE);
    if (!at)
        return;
    encode_common(at, op, 0, 0);
    out->size += COMMON_SIZE;
}

static uint8_t *put(uint8_t *at, const void *data, size_t size) {
    if (size)
        memcpy(at, data, size);
    return at + size;
}

static struct bytes product_of(const struct event_tag *tag) {
    return tag->product_is_text ? tag->product_text
                                : bytes_of(&tag->product_number, sizeof tag->product_number);
}

/* What tags of both ops begin with. */
static void encode_tag_head(uint8_t *at, enum event_op op, const struct event_tag *tag, bool late) {
    size_t product_size = product_of(tag).size;
    assert(tag->cookie.size <= EVENT_TEXT_MAX && product_size <= EVENT_TEXT_MAX);
    encode_common(at, op,
                  (uint8_t)((late ? FLAG_LATE : 0) | (tag->product_is_text ? FLAG_TEXT : 0)),
                  (uint8_t)(tag->action | tag->device << 4));
    store_u32(at + 4, (uint32_t)tag->cookie.size);
    store_u32(at + 8, (uint32_t)product_size);
    store_u32(at + 12, (uint32_t)tag->measure);
    store_u64(at + 16, (uint64_t)tag->time_ms);
}

static uint8_t *put_bytes(uint8_t *at, struct bytes bytes) {
    return put(at, bytes.data, bytes.size);
}

void event_record_encode_tag(struct buffer *out, const struct event_tag *tag, bool late) {
    struct bytes product = product_of(tag);
    uint8_t *at = buffer_reserve(out, EVENT_RECORD_HEADER + tag->cookie.size + product.size);
    if (!at)
        return;
    encode_tag_head(at, EVENT_TAG, tag, late);
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        store_u32(at + EVENT_RECORD_IDS + (c - 1) * sizeof(uint32_t), tag->ids[c]);
    uint8_t *end = put_bytes(at + EVENT_RECORD_HEADER, tag->cookie);
    end = put_bytes(end, product);
    out->size += (size_t)(end - at);
}

void event_record_encode_full_tag(struct buffer *out, const struct event_tag *tag,
                                  const struct bytes *texts) {
    struct bytes product = product_of(tag);
    size_t size = FULL_HEADER + tag->cookie.size + product.size;
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        size += texts[c].size;
    uint8_t *at = buffer_reserve(out, size);
    if (!at)
        return;
    encode_tag_head(at, EVENT_FULL_TAG, tag, false);
    uint8_t *end = put_bytes(at + FULL_HEADER, tag->cookie);
    end = put_bytes(end, product);
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++) {
        assert(texts[c].size <= EVENT_TEXT_MAX);
        store_u16(at + FULL_TEXTS + (c - 1) * sizeof(uint16_t), (uint16_t)texts[c].size);
        end = put_bytes(end, texts[c]);
    }
    out->size += (size_t)(end - at);
}

void event_record_encode_once_head(struct buffer *out, struct bytes body, uint32_t index) {
    assert(body.size == EVENT_ONCE_BODY);
    append_common(out, EVENT_ONCE_TAG);
    buffer_append_bytes(out, body);
    buffer_append_u32(out, index);
}

void event_record_encode_erase(struct buffer *out, struct bytes cookie) {
    append_common(out, EVENT_ERASE);
    buffer_append_bytes(out, cookie);
}

void event_record_encode_element(struct buffer *out, struct bytes collection, uint32_t id,
                                 struct bytes element) {
    append_common(out, EVENT_ELEMENT);
    buffer_append_u32(out, id);
    buffer_append_block(out, collection);
    buffer_append_bytes(out, element);
}

void event_record_encode_once(struct buffer *out, struct bytes body) {
    append_common(out, EVENT_ONCE);
    buffer_append_bytes(out, body);
}

static struct bytes reader_rest(struct reader *r) {
    return reader_bytes(r, (size_t)(r->end - r->at));
}

static bool is_text(struct bytes text, size_t least) {
    return text.size >= least && text.size <= EVENT_TEXT_MAX;
}

/* One decoder an op: fills what follows the common part. */

static bool decode_kinds(uint8_t kinds, struct event_tag *tag) {
    unsigned action = kinds & 15, device = kinds >> 4;
    tag->action = (enum event_action)action;
    tag->device = (enum event_device)device;
    return action < EVENT_ACTIONS && device < EVENT_DEVICES;
}

static bool decode_product(struct bytes product, bool is_a_text, struct event_tag *tag) {
    tag->product_is_text = is_a_text;
    if (is_a_text) {
        tag->product_text = product;
        return is_text(product, 0);
    }
    if (product.size != sizeof tag->product_number)
        return false;
    memcpy(&tag->product_number, product.data, sizeof tag->product_number);
    return true;
}

/* The ids, which are never 0; or the sizes of the texts. */
static bool decode_coded(struct reader *r, struct event_record *record) {
    bool good = true;
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        if (record->op == EVENT_TAG) {
            record->tag.ids[c] = reader_u32(r);
            good &= record->tag.ids[c] != 0;
        } else {
            record->texts[c].size = reader_u16(r);
            good &= record->texts[c].size <= EVENT_TEXT_MAX;
        }
    return good;
}

/* Of both ops; a cookie has at least so many bytes. */
static bool decode_tag(struct reader *r, uint8_t flags, uint8_t kinds, size_t cookie_least,
                       struct event_record *record) {
    struct event_tag *tag = &record->tag;
    record->late = flags & FLAG_LATE;
    size_t cookie_size = reader_u32(r);
    size_t product_size = reader_u32(r);
    tag->measure = (int32_t)reader_u32(r);
    tag->time_ms = (int64_t)reader_u64(r);
    bool good = decode_coded(r, record) && (record->op == EVENT_TAG || !record->late);
    tag->cookie = reader_bytes(r, cookie_size);
    struct bytes product = reader_bytes(r, product_size);
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        record->texts[c] = reader_bytes(r, record->texts[c].size);
    return good && !r->failed && r->at == r->end && flags <= FLAGS && decode_kinds(kinds, tag) &&
           is_text(tag->cookie, cookie_least) && decode_product(product, flags & FLAG_TEXT, tag) &&
           tag->time_ms >= TIME_TEXT_FIRST_MS && tag->time_ms <= TIME_TEXT_LAST_MS;
}

static bool decode_element(struct reader *r, struct event_record *record) {
    record->id = reader_u32(r);
    record->collection = reader_block(r);
    record->element = reader_rest(r);
    return !r->failed && record->id > 0 && record->id <= INT32_MAX &&
           is_text(record->collection, 1) && is_text(record->element, 0);
}

static bool decode_plain(struct reader *r, struct event_record *record) {
    switch (record->op) {
    case EVENT_ERASE:
        record->tag.cookie = reader_rest(r);
        return is_text(record->tag.cookie, 1);
    case EVENT_ELEMENT:
        return decode_element(r, record);
    case EVENT_ONCE:
        record->body = reader_rest(r);
        return true;
    case EVENT_TAG:
    case EVENT_FULL_TAG:
    case EVENT_ONCE_TAG:
        break;
    }
    return false;
}

static bool decode_one(struct bytes payload, size_t cookie_least, struct event_record *ret_record) {
    struct reader r = reader_of(payload);
    struct event_record record = {0};
    uint8_t version = reader_u8(&r);
    record.op = reader_u8(&r);
    uint8_t flags = reader_u8(&r);
    uint8_t kinds = reader_u8(&r);
    if (r.failed || version != RECORD_VERSION)
        return false;
    bool is_tag = record.op == EVENT_TAG || record.op == EVENT_FULL_TAG;
    bool good = is_tag ? decode_tag(&r, flags, kinds, cookie_least, &record)
                       : flags == 0 && kinds == 0 && decode_plain(&r, &record);
    if (good)
        *ret_record = record;
    return good;
}

/* A tag with a key is the tag in it, and the key. */
static bool decode_keyed(struct bytes payload, struct event_record *ret_record) {
    struct reader r = reader_of(payload);
    struct event_record record;
    uint8_t version = reader_u8(&r), op = reader_u8(&r);
    uint16_t flags_and_kinds = reader_u16(&r);
    struct bytes body = reader_bytes(&r, EVENT_ONCE_BODY);
    uint32_t index = reader_u32(&r);
    if (r.failed || version != RECORD_VERSION || op != EVENT_ONCE_TAG || flags_and_kinds != 0 ||
        !decode_one(reader_rest(&r), 1, &record) || record.op != EVENT_FULL_TAG)
        return false;
    record.body = body;
    record.index = index;
    *ret_record = record;
    return true;
}

bool event_record_decode(struct bytes payload, struct event_record *ret_record) {
    bool keyed = payload.size >= COMMON_SIZE && payload.data[1] == EVENT_ONCE_TAG;
    return keyed ? decode_keyed(payload, ret_record) : decode_one(payload, 1, ret_record);
}

bool event_record_decode_kept(struct bytes payload, struct event_record *ret_record) {
    struct event_record record;
    if (!decode_one(payload, 0, &record) || record.op != EVENT_FULL_TAG ||
        record.tag.cookie.size > 0)
        return false;
    *ret_record = record;
    return true;
}
