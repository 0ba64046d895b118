/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes from outside, as text: a tag as JSON, and the values of a query. Each refusal names
 * the field and says what would be right. Pure functions; a parser belongs to one thread.
 */
#ifndef MILLRACE_EVENTS_PARSE_H
#define MILLRACE_EVENTS_PARSE_H

#include "base/json.h"
#include "events/tag.h"

enum { EVENT_E_FAULT = 110 }; /* the text is wrong, the fault says how */

enum event_fault_kind {
    EVENT_FAULT_JSON,
    EVENT_FAULT_MISSING,
    EVENT_FAULT_INVALID,
    EVENT_FAULT_KINDS,
};
struct event_fault {
    enum event_fault_kind kind;
    char field[64]; /* "parent.name"; "" when the whole is wrong */
    char sentence[192];
};
/* Returns EVENT_E_FAULT. field may be NULL. */
int event_fault_set(struct event_fault *f, enum event_fault_kind kind, const char *field,
                    const char *format, ...) MUST_USE PRINTF_LIKE(4, 5);
/* A JSON_E_… of `what`; -ENOMEM passes unchanged. */
int event_fault_json(struct event_fault *f, int r, const char *what) MUST_USE;

/* A tag as it came: its ids are still 0, the texts they will stand for are by collection. All of it
 * points into the parser's document: valid until its next parse. */
struct event_input {
    struct event_tag tag;
    struct bytes texts[EVENT_COLLECTIONS_FIXED];
};
/* text must have JSON_PADDING readable bytes behind it. EVENT_E_FAULT, -ENOMEM. */
int event_parse_tag(struct json_parser *parser, struct bytes text, struct event_input *ret_input,
                    struct event_fault *fault) MUST_USE;

/* "<datetime>_<datetime>", [from, to); from ≤ to. EVENT_E_FAULT. */
int event_parse_range(struct bytes text, int64_t *ret_from_ms, int64_t *ret_to_ms,
                      struct event_fault *fault) MUST_USE;
/* A range of whole minutes, at most EVENT_RANGE_MINUTES_MAX of them. EVENT_E_FAULT. */
int event_parse_minutes(struct bytes text, int64_t *ret_first_minute, unsigned *ret_minutes,
                        struct event_fault *fault) MUST_USE;
/* A decimal number from 0 to most. EVENT_E_FAULT. */
int event_parse_number(struct bytes text, const char *field, unsigned most, unsigned *ret_number,
                       struct event_fault *fault) MUST_USE;
bool event_parse_action(struct bytes text, enum event_action *ret_action);

/* The tag as JSON, in the fields' order. cookie stands for the tag's own; text_of gives the text of
 * an id. */
void event_append_tag(struct buffer *out, const struct event_tag *tag, struct bytes cookie,
                      struct bytes (*text_of)(const void *context, uint32_t collection,
                                              uint32_t id),
                      const void *context);
/* The text_of of a tag that has no ids: texts[EVENT_COLLECTIONS_FIXED], by collection. */
struct bytes event_full_text(const void *texts, uint32_t collection, uint32_t id);

#endif
