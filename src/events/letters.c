/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of events. A tag is shown as a <user_tag>; a record of another kind, or one that
 * does not decode, has nothing to be shown, but a tag of the same cookie may be written in its
 * place.
 */
#include "events/api_parts.h"

#include "base/error.h"

#include <errno.h>

enum { ARENA_BYTES_MAX = 1 << 20 }; /* strings of one tag */

static bool decode(const struct work_letter *letter, struct event_record *ret_record) {
    return event_record_decode(letter->record.payload, ret_record);
}

static void append_key(void *context UNUSED, const struct work_letter *letter, struct buffer *out) {
    struct event_record record;
    if (decode(letter, &record) && record.op != EVENT_ELEMENT && record.op != EVENT_ONCE)
        buffer_append_bytes(out, record.tag.cookie);
}

static struct bytes text_of(const void *dictionary, uint32_t collection, uint32_t id) {
    return event_dictionary_text(dictionary, collection, id);
}

/* Of the form that who keeps the events takes. */
static bool is_tag(const struct events_api *api, const struct event_record *record) {
    return record->op == (api->redis ? EVENT_FULL_TAG : EVENT_TAG);
}

static int append_record(void *context, const struct work_letter *letter, struct buffer *out,
                         char sentence[WORK_LETTER_SENTENCE]) {
    const struct events_api *api = context;
    struct event_record record;
    if (!decode(letter, &record))
        return work_letter_refuse(sentence, "the record does not decode: it can be dropped, or "
                                            "replaced by a tag of the same cookie");
    if (!is_tag(api, &record))
        return work_letter_refuse(sentence, "it is not a tag: it can only be dropped");
    if (api->redis)
        event_append_tag(out, &record.tag, record.tag.cookie, event_full_text, record.texts);
    else
        event_append_tag(out, &record.tag, record.tag.cookie, text_of, api->dictionary);
    return error_trace(buffer_check(out));
}

/* ---- Writing it again ---- */

struct rewriting {
    struct event_write write;
    struct arena arena;
    struct buffer bytes;
    struct buffer text;
    struct json_parser *parser;
};

static void rewriting_deinit(struct rewriting *w) {
    json_parser_free(w->parser);
    buffer_deinit(&w->text);
    buffer_deinit(&w->bytes);
    arena_deinit(&w->arena);
}

/* The tag as it was, but that it may be late by now. */
static int add_same(struct rewriting *w, struct work_letter_replay *replay) {
    struct event_record record;
    if (!decode(replay->letter, &record))
        return work_letter_refuse(replay->sentence, "the record does not decode: write a tag of "
                                                    "the same cookie in its place, or drop it");
    if (!is_tag(w->write.api, &record))
        return work_letter_refuse(replay->sentence, "it is not a tag: it can only be dropped");
    return error_trace(event_write_decoded(&w->write, &record));
}

static int add_edited(struct rewriting *w, struct work_letter_replay *replay) {
    struct event_fault fault;
    buffer_append_bytes(&w->text, *replay->edited);
    if (!buffer_reserve(&w->text, JSON_PADDING))
        return error_origin(-ENOMEM);
    int r = json_parser_new(w->text.size + 1, &w->parser);
    if (r == 0)
        r = event_write_tag(&w->write, w->parser, buffer_bytes(&w->text), &fault);
    if (r == EVENT_E_FAULT)
        return work_letter_refuse(replay->sentence, "%s", fault.sentence);
    if (r == 0 && w->write.records[0].key_hash != replay->letter->record.key_hash)
        return work_letter_refuse(replay->sentence,
                                  "the tag must be of the same cookie as the record");
    return error_trace(r);
}

/* The tag stands behind the head of a record about the letter: they are one record. */
static int add_record(struct rewriting *w, struct work_letter_replay *replay) {
    const struct work_letter_record about = {
        .op = WORK_LETTER_REPLAY, .force = replay->force, .letter = replay->letter->record.lsn};
    work_letter_encode(&w->bytes, &about);
    int r = replay->edited ? add_edited(w, replay) : add_same(w, replay);
    if (r)
        return error_trace(r);
    w->write.records[0].flags = JOURNAL_LETTER;
    w->write.records[0].payload.size += WORK_LETTER_HEADER;
    return 0;
}

static int replay_letter(void *context, struct work_letter_replay *replay) {
    CLEANUP(rewriting_deinit) struct rewriting w = {0};
    struct event_failure failure = {0};
    w.arena = ARENA_INIT(ARENA_BYTES_MAX);
    w.write = (struct event_write){.api = context, .arena = &w.arena, .bytes = &w.bytes};
    int r = add_record(&w, replay);
    if (r)
        return error_trace(r);
    r = event_write_append(&w.write, NULL, "", (struct bytes){0}, &replay->first, &replay->last,
                           &failure);
    if (r == EVENTS_E_FULL)
        return work_letter_refuse(replay->sentence,
                                  "the dictionary is full, and the tag has a value that was never "
                                  "seen; raise --dictionary-size");
    replay->condition = failure.condition;
    return r == EVENTS_E_JOURNAL ? WORK_LETTER_E_JOURNAL : error_trace(r);
}

const struct work_letter_kind events_letters = {
    .append_key = append_key,
    .append_record = append_record,
    .replay = replay_letter,
};
