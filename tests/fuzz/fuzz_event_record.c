/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever decodes as an event record lies inside the bytes it came from, and encodes to the same
 * bytes again.
 */
#include "fuzz.h"

#include "events/tag.h"

static void check_inside(struct bytes whole, struct bytes part) {
    if (part.size)
        FUZZ_CHECK(part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void encode(struct buffer *out, const struct event_record *r) {
    switch (r->op) {
    case EVENT_TAG:
        event_record_encode_tag(out, &r->tag, r->late);
        break;
    case EVENT_FULL_TAG:
        if (r->body.size)
            event_record_encode_once_head(out, r->body, r->index);
        event_record_encode_full_tag(out, &r->tag, r->texts);
        break;
    case EVENT_ERASE:
        event_record_encode_erase(out, r->tag.cookie);
        break;
    case EVENT_ELEMENT:
        event_record_encode_element(out, r->collection, r->id, r->element);
        break;
    case EVENT_ONCE:
        event_record_encode_once(out, r->body);
        break;
    case EVENT_ONCE_TAG: /* it decodes as the tag in it */
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct bytes whole = bytes_of(data, size);
    struct event_record r;
    if (!event_record_decode(whole, &r) && !event_record_decode_kept(whole, &r))
        return 0;
    check_inside(whole, r.tag.cookie);
    check_inside(whole, r.tag.product_text);
    check_inside(whole, r.collection);
    check_inside(whole, r.element);
    check_inside(whole, r.body);
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        check_inside(whole, r.texts[c]);
    encode(&out, &r);
    FUZZ_CHECK(bytes_equal(buffer_bytes(&out), whole));
    return 0;
}
