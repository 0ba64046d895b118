/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever is taken as a tag fits into a record and comes out of it as it was, and is given back as
 * JSON that is taken as the same tag. Whatever is refused has a sentence.
 */
#include "fuzz.h"

#include "events/parse.h"

static struct bytes input_text(const void *context, uint32_t collection, uint32_t id) {
    const struct event_input *input = context;
    (void)id;
    return input->texts[collection];
}

static void check_same(const struct event_tag *a, const struct event_tag *b) {
    FUZZ_CHECK(a->time_ms == b->time_ms && bytes_equal(a->cookie, b->cookie));
    FUZZ_CHECK(a->device == b->device && a->action == b->action && a->measure == b->measure);
    FUZZ_CHECK(a->product_is_text == b->product_is_text);
    if (a->product_is_text)
        FUZZ_CHECK(bytes_equal(a->product_text, b->product_text));
    else
        FUZZ_CHECK(a->product_number == b->product_number);
}

static void check_record(struct event_tag tag) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct event_record record;
    tag.ids[EVENT_COLLECTION_COUNTRY] = tag.ids[EVENT_COLLECTION_ORIGIN] =
        tag.ids[EVENT_COLLECTION_BRAND] = tag.ids[EVENT_COLLECTION_CATEGORY] = 1;
    event_record_encode_tag(&out, &tag, true);
    FUZZ_CHECK(buffer_check(&out) == 0);
    FUZZ_CHECK(event_record_decode(buffer_bytes(&out), &record) && record.op == EVENT_TAG);
    check_same(&tag, &record.tag);
}

/* The same again from what is given back; its texts are those of another parse. */
static void check_given_back(const struct event_input *input, size_t size) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct event_input again;
    struct event_fault fault;
    struct json_parser *parser;
    event_append_tag(&out, &input->tag, input->tag.cookie, input_text, input);
    FUZZ_CHECK(buffer_reserve(&out, JSON_PADDING));
    FUZZ_CHECK(json_parser_new(8 * size + 4096, &parser) == 0);
    FUZZ_CHECK(event_parse_tag(parser, buffer_bytes(&out), &again, &fault) == 0);
    check_same(&input->tag, &again.tag);
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        FUZZ_CHECK(bytes_equal(input->texts[c], again.texts[c]));
    json_parser_free(parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    struct event_input input;
    struct event_fault fault = {0};
    struct json_parser *parser;
    buffer_append(&text, data, size);
    FUZZ_CHECK(buffer_reserve(&text, JSON_PADDING));
    FUZZ_CHECK(json_parser_new(size + 4096, &parser) == 0);
    if (event_parse_tag(parser, buffer_bytes(&text), &input, &fault) == 0) {
        check_record(input.tag);
        check_given_back(&input, size);
    } else {
        FUZZ_CHECK(*fault.sentence);
    }
    json_parser_free(parser);
    return 0;
}
