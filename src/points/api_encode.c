/* SPDX-License-Identifier: Apache-2.0 */
/* One point as JSON, encoded outside a request: for dead letters that are edited. */
#include "points/api_parts.h"

#include <errno.h>
#include <stdio.h>

static int encode(const struct points_collection *collection, const struct work *work,
                  struct json_parser *parser, struct bytes text, struct buffer *out,
                  struct journal_record *ret_record, struct api_fault *f) {
    struct journal_record *records;
    struct api_batch batch CLEANUP(api_batch_deinit);
    api_batch_init(&batch, collection, work, out);
    int r = api_batch_point(&batch, parser, text, "the point", f);
    if (!r)
        r = api_batch_records(&batch, &records);
    if (r)
        return error_trace(r);
    *ret_record = records[0];
    return 0;
}

int points_encode_point(const struct points_collection *collection, const struct work *work,
                        struct bytes json, struct buffer *out, struct journal_record *ret_record,
                        char *sentence, size_t size) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct api_fault fault = {0};
    struct json_parser *parser;
    buffer_append_bytes(&text, json);
    if (!buffer_reserve(&text, JSON_PADDING))
        return error_origin(-ENOMEM);
    int r = json_parser_new(json.size + 1, &parser);
    if (r)
        return error_trace(r);
    r = encode(collection, work, parser, buffer_bytes(&text), out, ret_record, &fault);
    json_parser_free(parser);
    if (r > 0)
        snprintf(sentence, size, "%s", fault.sentence);
    return r > 0 ? API_E_FAULT : r;
}
