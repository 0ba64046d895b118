/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an import has done so far: see import_state.h.
 */
#include "tasks/handlers/import_state.h"

#include "base/json.h"

enum { SAVED_VERSION = 1, SENTENCE_MAX = 256 };

void import_state_deinit(struct import_state *s) {
    buffer_deinit(&s->errors);
}

bool import_state_load(struct import_state *s, struct bytes saved) {
    struct reader r = reader_of(saved);
    uint8_t version = reader_u8(&r);
    struct import_state loaded = {.errors = s->errors};
    loaded.source = reader_u64(&r);
    loaded.seen = reader_u64(&r);
    loaded.accepted = reader_u64(&r);
    loaded.rejected = reader_u64(&r);
    loaded.n_errors = reader_u32(&r);
    struct bytes errors = reader_block(&r);
    if (r.failed || r.at != r.end || version != SAVED_VERSION)
        return false;
    buffer_clear(&loaded.errors);
    buffer_append_bytes(&loaded.errors, errors);
    *s = loaded;
    return true;
}

void import_state_save(const struct import_state *s, struct buffer *out) {
    buffer_append_u8(out, SAVED_VERSION);
    buffer_append_u64(out, s->source);
    buffer_append_u64(out, s->seen);
    buffer_append_u64(out, s->accepted);
    buffer_append_u64(out, s->rejected);
    buffer_append_u32(out, s->n_errors);
    buffer_append_block(out, buffer_bytes(&s->errors));
}

/* Cut at the start of a character. */
static struct bytes shortened(struct bytes sentence) {
    if (sentence.size <= SENTENCE_MAX)
        return sentence;
    sentence.size = SENTENCE_MAX;
    while (sentence.size > 0 && (sentence.data[sentence.size] & 0xc0) == 0x80)
        sentence.size--;
    return sentence;
}

void import_state_note(struct import_state *s, uint64_t number, struct bytes sentence) {
    size_t before = s->errors.size;
    if (s->n_errors >= IMPORT_ERRORS_MAX)
        return;
    buffer_append_string(&s->errors, s->n_errors ? ",{\"line\":" : "{\"line\":");
    json_append_u64(&s->errors, number);
    buffer_append_string(&s->errors, ",\"error\":");
    json_append_string(&s->errors, shortened(sentence));
    buffer_append_u8(&s->errors, '}');
    if (s->errors.size <= IMPORT_ERRORS_BYTES_MAX && !s->errors.failed)
        s->n_errors++;
    else
        s->errors.size = before;
}

struct bytes import_state_first_error(const struct import_state *s) {
    static const char between[] = "},{\"line\":";
    struct bytes errors = buffer_bytes(&s->errors);
    const uint8_t *second =
        errors.size ? memmem(errors.data, errors.size, between, strlen(between)) : NULL;
    return second ? bytes_of(errors.data, (size_t)(second - errors.data) + 1) : errors;
}

void import_state_append_result(const struct import_state *s, struct buffer *out) {
    buffer_append_string(out, "{\"accepted\":");
    json_append_u64(out, s->accepted);
    buffer_append_string(out, ",\"rejected\":");
    json_append_u64(out, s->rejected);
    buffer_append_string(out, ",\"errors\":[");
    buffer_append_bytes(out, buffer_bytes(&s->errors));
    buffer_append_string(out, "]}");
}
