/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tag is read in two steps: the members of the object are matched to the rows of schema.def
 * (their values are only noted: of duplicates the last one counts), then each row's value is taken
 * as its role says. Members nearly always come in the table's order, so the row behind the last
 * match is tried first. Nothing is allocated, and nothing is looked up by hash.
 */
#include "events/parse.h"

#include "base/error.h"
#include "base/time_text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- Faults ---- */

int event_fault_set(struct event_fault *f, enum event_fault_kind kind, const char *field,
                    const char *format, ...) {
    va_list args;
    f->kind = kind;
    (void)snprintf(f->field, sizeof f->field, "%s", field ? field : "");
    va_start(args, format);
    (void)vsnprintf(f->sentence, sizeof f->sentence, format, args); /* cut is fine */
    va_end(args);
    return EVENT_E_FAULT;
}

int event_fault_json(struct event_fault *f, int r, const char *what) {
    if (r < 0)
        return error_trace(r);
    return event_fault_set(f, EVENT_FAULT_JSON, NULL, "%s %s", what, json_error_text(r));
}

/* ---- The table ---- */

enum role {
    ROLE_TIME,
    ROLE_KEY,
    ROLE_DICTIONARY,
    ROLE_DIMENSION,
    ROLE_DEVICE,
    ROLE_ACTION,
    ROLE_OPAQUE,
    ROLE_MEASURE,
};

struct field {
    const char *parent;
    const char *name;
    size_t name_size;
    enum role role;
    bool has_collection;
    const char *sentence;
};

static const struct field fields[EVENT_FIELDS] = {
#define EVENT_FIELD(id, parent_, name_, role_, collection_, sentence_)                             \
    [EVENT_FIELD_##id] = {.parent = (parent_),                                                     \
                          .name = (name_),                                                         \
                          .name_size = sizeof(name_) - 1,                                          \
                          .role = ROLE_##role_,                                                    \
                          .has_collection = sizeof(collection_) > 1,                               \
                          .sentence = (sentence_)},
#include "events/schema.def"
};

static bool same_parent(size_t a, size_t b) {
    return strcmp(fields[a].parent, fields[b].parent) == 0;
}

/* Rows of one parent stand together; those of the tag itself first. */
static size_t group_end(size_t first) {
    size_t end = first + 1;
    while (end < EVENT_FIELDS && same_parent(first, end))
        end++;
    return end;
}

static int field_fault(struct event_fault *f, enum event_fault_kind kind, size_t i) {
    char path[sizeof f->field];
    const char *parent = fields[i].parent;
    (void)snprintf(path, sizeof path, "%s%s%s", parent, *parent ? "." : "", fields[i].name);
    return event_fault_set(f, kind, path,
                           kind == EVENT_FAULT_MISSING ? "`%s` is missing; it must be %s"
                                                       : "`%s` must be %s",
                           path, fields[i].sentence);
}

/* ---- Step one: members to rows ---- */

struct found {
    struct json_value values[EVENT_FIELDS];
    uint32_t given; /* bit i: row i */
};
_Static_assert(EVENT_FIELDS <= 32, "a bit a row");

static bool is_named(size_t i, struct bytes key) {
    return key.size == fields[i].name_size && memcmp(key.data, fields[i].name, key.size) == 0;
}

/* The row of [first, end) that key names, looked for from guess on; end when there is none. */
static size_t match(struct bytes key, size_t first, size_t end, size_t guess) {
    for (size_t n = first, i = guess; n < end; n++) {
        if (is_named(i, key))
            return i;
        i = i + 1 < end ? i + 1 : first;
    }
    return end;
}

static void find_group(struct json_value object, size_t first, size_t end, struct found *found) {
    struct json_iterator it = json_iterate(object);
    struct json_value value;
    struct bytes key;
    size_t guess = first;
    while (json_next(&it, &key, &value)) {
        size_t i = match(key, first, end, guess);
        if (i == end)
            continue;
        found->values[i] = value;
        found->given |= 1u << i;
        guess = i + 1 < end ? i + 1 : first;
    }
}

/* The object that holds a group's fields. */
static int find_parent(struct json_value root, const char *parent, struct json_value *ret_object,
                       struct event_fault *f) {
    struct json_value object = root;
    if (*parent && !json_find(root, parent, &object))
        return event_fault_set(f, EVENT_FAULT_MISSING, parent,
                               "`%s` is missing; it must be an object", parent);
    if (json_type_of(object) != JSON_OBJECT)
        return event_fault_set(f, EVENT_FAULT_INVALID, parent, "%s%s%s must be an object",
                               *parent ? "`" : "", *parent ? parent : "the tag",
                               *parent ? "`" : "");
    *ret_object = object;
    return 0;
}

static int find_all(struct json_value root, struct found *found, struct event_fault *f) {
    found->given = 0;
    for (size_t first = 0, end; first < EVENT_FIELDS; first = end) {
        struct json_value object;
        end = group_end(first);
        int r = find_parent(root, fields[first].parent, &object, f);
        if (r)
            return error_trace(r);
        find_group(object, first, end, found);
    }
    return 0;
}

/* ---- Step two: values by role ---- */

static bool take_text(struct json_value v, size_t least, struct bytes *ret) {
    return json_get_string(v, ret) && ret->size >= least && ret->size <= EVENT_TEXT_MAX;
}

/* The number of the text among the names; n when it is none of them. */
static unsigned one_of(struct bytes text, const char *const *names, unsigned n) {
    unsigned i = 0;
    while (i < n && !bytes_equal(text, bytes_of_string(names[i])))
        i++;
    return i;
}

static bool take_name(struct json_value v, const char *const *names, unsigned n, unsigned *ret) {
    struct bytes text;
    if (!json_get_string(v, &text))
        return false;
    *ret = one_of(text, names, n);
    return *ret < n;
}

static bool take_product(struct json_value v, struct event_tag *tag) {
    tag->product_is_text = take_text(v, 0, &tag->product_text);
    return tag->product_is_text || json_get_i64(v, &tag->product_number);
}

static bool take_measure(struct json_value v, int32_t *ret) {
    int64_t measure;
    if (!json_get_i64(v, &measure) || measure < INT32_MIN || measure > INT32_MAX)
        return false;
    *ret = (int32_t)measure;
    return true;
}

static bool take(struct event_input *input, enum role role, struct bytes *dictionary_text,
                 struct json_value v) {
    struct event_tag *tag = &input->tag;
    struct bytes text;
    unsigned number;
    switch (role) {
    case ROLE_TIME:
        return json_get_string(v, &text) && time_from_text(text, TIME_FORM_INSTANT, &tag->time_ms);
    case ROLE_KEY:
        return take_text(v, 1, &tag->cookie);
    case ROLE_DICTIONARY:
    case ROLE_DIMENSION:
        return take_text(v, 0, dictionary_text);
    case ROLE_DEVICE:
        if (!take_name(v, event_device_names, EVENT_DEVICES, &number))
            return false;
        tag->device = (enum event_device)number;
        return true;
    case ROLE_ACTION:
        if (!take_name(v, event_action_names, EVENT_ACTIONS, &number))
            return false;
        tag->action = (enum event_action)number;
        return true;
    case ROLE_OPAQUE:
        return take_product(v, tag);
    case ROLE_MEASURE:
        return take_measure(v, &tag->measure);
    }
    return false;
}

static int take_all(const struct found *found, struct event_input *input, struct event_fault *f) {
    unsigned collection = EVENT_COLLECTION_NONE;
    for (size_t i = 0; i < EVENT_FIELDS; i++) {
        collection += fields[i].has_collection; /* they are numbered in the table's order */
        if (!(found->given & 1u << i))
            return field_fault(f, EVENT_FAULT_MISSING, i);
        if (!take(input, fields[i].role, &input->texts[collection], found->values[i]))
            return field_fault(f, EVENT_FAULT_INVALID, i);
    }
    assert(collection == EVENT_COLLECTIONS_FIXED - 1);
    return 0;
}

int event_parse_tag(struct json_parser *parser, struct bytes text, struct event_input *ret_input,
                    struct event_fault *fault) {
    struct event_input input = {0};
    struct json_value root;
    struct found found;
    int r = json_parse(parser, text, &root);
    if (r)
        return event_fault_json(fault, r, "the tag");
    r = find_all(root, &found, fault);
    if (!r)
        r = take_all(&found, &input, fault);
    if (r)
        return error_trace(r);
    *ret_input = input;
    return 0;
}

/* ---- Queries ---- */

static const char range_sentence[] =
    "`time_range` must be two times of the form 2022-03-22T12:15:00 or 2022-03-22T12:15:00.000, "
    "joined by _, the first not after the second";

int event_parse_range(struct bytes text, int64_t *ret_from_ms, int64_t *ret_to_ms,
                      struct event_fault *fault) {
    const uint8_t *middle = text.size ? memchr(text.data, '_', text.size) : NULL;
    int64_t from, to;
    bool good = middle != NULL;
    if (good) {
        size_t n = (size_t)(middle - text.data);
        good = time_from_text(bytes_of(text.data, n), TIME_FORM_DATETIME, &from) &&
               time_from_text(bytes_of(middle + 1, text.size - n - 1), TIME_FORM_DATETIME, &to) &&
               from <= to;
    }
    if (!good)
        return event_fault_set(fault, EVENT_FAULT_INVALID, "time_range", "%s", range_sentence);
    *ret_from_ms = from;
    *ret_to_ms = to;
    return 0;
}

int event_parse_minutes(struct bytes text, int64_t *ret_first_minute, unsigned *ret_minutes,
                        struct event_fault *fault) {
    int64_t from, to;
    int r = event_parse_range(text, &from, &to, fault);
    if (r)
        return error_trace(r);
    if (from % EVENT_MINUTE_MS || to % EVENT_MINUTE_MS)
        return event_fault_set(fault, EVENT_FAULT_INVALID, "time_range",
                               "`time_range` must begin and end at whole minutes");
    if (to - from > (int64_t)EVENT_RANGE_MINUTES_MAX * EVENT_MINUTE_MS)
        return event_fault_set(fault, EVENT_FAULT_INVALID, "time_range",
                               "`time_range` must be at most %d minutes long",
                               EVENT_RANGE_MINUTES_MAX);
    *ret_first_minute = event_minute_of(from);
    *ret_minutes = (unsigned)((to - from) / EVENT_MINUTE_MS);
    return 0;
}

int event_parse_number(struct bytes text, const char *field, unsigned most, unsigned *ret_number,
                       struct event_fault *fault) {
    uint64_t number = 0;
    bool good = text.size > 0;
    for (size_t i = 0; good && i < text.size; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        number = number * 10 + digit;
        good = digit <= 9 && number <= most;
    }
    if (!good)
        return event_fault_set(fault, EVENT_FAULT_INVALID, field,
                               "`%s` must be a whole number from 0 to %u", field, most);
    *ret_number = (unsigned)number;
    return 0;
}

bool event_parse_action(struct bytes text, enum event_action *ret_action) {
    unsigned action = one_of(text, event_action_names, EVENT_ACTIONS);
    if (action == EVENT_ACTIONS)
        return false;
    *ret_action = (enum event_action)action;
    return true;
}

/* ---- A tag as JSON ---- */

static void append_time(struct buffer *out, int64_t time_ms) {
    char text[TIME_TEXT_BYTES + 1];
    time_text(time_ms * 1000, text);
    buffer_append_u8(out, '"');
    buffer_append(out, text, TIME_TEXT_BYTES);
    buffer_append_u8(out, '"');
}

static void append_product(struct buffer *out, const struct event_tag *tag) {
    if (tag->product_is_text)
        json_append_string(out, tag->product_text);
    else
        json_append_i64(out, tag->product_number);
}

/* A tag, on its way out. */
struct output {
    const struct event_tag *tag;
    struct bytes cookie;
    struct bytes (*text_of)(const void *context, uint32_t collection, uint32_t id);
    const void *context;
};

static void append_text(struct buffer *out, const struct output *o, unsigned collection) {
    struct bytes text = o->text_of(o->context, collection, o->tag->ids[collection]);
    if (text.data)
        json_append_string(out, text);
    else
        buffer_append_string(out, "null"); /* lost to damage: no string could stand for it */
}

static void append_field(struct buffer *out, const struct output *o, size_t i,
                         unsigned collection) {
    switch (fields[i].role) {
    case ROLE_TIME:
        append_time(out, o->tag->time_ms);
        break;
    case ROLE_KEY:
        json_append_string(out, o->cookie);
        break;
    case ROLE_DICTIONARY:
    case ROLE_DIMENSION:
        append_text(out, o, collection);
        break;
    case ROLE_DEVICE:
        json_append_cstring(out, event_device_names[o->tag->device]);
        break;
    case ROLE_ACTION:
        json_append_cstring(out, event_action_names[o->tag->action]);
        break;
    case ROLE_OPAQUE:
        append_product(out, o->tag);
        break;
    case ROLE_MEASURE:
        json_append_i64(out, o->tag->measure);
        break;
    }
}

/* Before the field: what closes and opens the objects around it, a comma, its name. */
static void append_name(struct buffer *out, size_t i) {
    bool opens = i == 0 || !same_parent(i - 1, i);
    if (opens && i > 0 && *fields[i - 1].parent)
        buffer_append_u8(out, '}');
    if (i > 0 && (!opens || *fields[i].parent))
        buffer_append_u8(out, ',');
    if (opens && *fields[i].parent) {
        json_append_cstring(out, fields[i].parent);
        buffer_append_u8(out, ':');
    }
    if (opens)
        buffer_append_u8(out, '{');
    buffer_append_u8(out, '"');
    buffer_append(out, fields[i].name, fields[i].name_size);
    buffer_append(out, "\":", 2);
}

struct bytes event_full_text(const void *texts, uint32_t collection, uint32_t id UNUSED) {
    struct bytes text = ((const struct bytes *)texts)[collection];
    return text.size ? text : BYTES_LITERAL("");
}

void event_append_tag(struct buffer *out, const struct event_tag *tag, struct bytes cookie,
                      struct bytes (*text_of)(const void *context, uint32_t collection,
                                              uint32_t id),
                      const void *context) {
    const struct output o = {tag, cookie, text_of, context};
    unsigned collection = EVENT_COLLECTION_NONE;
    for (size_t i = 0; i < EVENT_FIELDS; i++) {
        collection += fields[i].has_collection;
        append_name(out, i);
        append_field(out, &o, i, collection);
    }
    if (*fields[EVENT_FIELDS - 1].parent)
        buffer_append_u8(out, '}');
    buffer_append_u8(out, '}');
}
