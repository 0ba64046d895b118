/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows as JSON, whole or cut by a selector. Payload is kept as JSON text, so a whole one is copied;
 * only one that is cut is parsed again.
 */
#include "points/api_parts.h"

#include <errno.h>

const struct api_selector api_selector_whole = {
    .payload = {.mode = API_PAYLOAD_ALL}, .vectors = UINT64_MAX, .with_vector = true};

/* ---- Parsing ---- */

/* A path without its "[]": arrays are walked through anyway. NULL data when memory is out. */
static struct bytes copy_path(struct arena *arena, struct bytes path) {
    uint8_t *copy = arena_alloc(arena, path.size + 1);
    size_t n = 0;
    for (size_t i = 0; copy && i < path.size; i++) {
        if (path.data[i] == '[' && i + 1 < path.size && path.data[i + 1] == ']')
            i++;
        else
            copy[n++] = path.data[i];
    }
    return bytes_of(copy, copy ? n : 0);
}

static int parse_keys(struct json_value list, struct arena *arena, struct api_payload_selector *s,
                      struct api_fault *f) {
    struct json_iterator it = json_iterate(list);
    struct json_value v;
    struct bytes key;
    s->keys = arena_calloc(arena, json_size(list) + 1, sizeof *s->keys);
    if (!s->keys)
        return error_origin(-ENOMEM);
    while (json_next(&it, NULL, &v)) {
        if (!json_get_string(v, &key))
            return api_fault_set(f, API_FAULT_FORMAT, "with_payload",
                                 "`with_payload` must name its keys as strings");
        s->keys[s->n] = copy_path(arena, key);
        if (!s->keys[s->n++].data)
            return error_origin(-ENOMEM);
    }
    return 0;
}

static int parse_payload(struct json_value v, struct arena *arena, struct api_payload_selector *s,
                         struct api_fault *f) {
    bool flag;
    struct json_value list;
    if (json_get_bool(v, &flag)) {
        s->mode = flag ? API_PAYLOAD_ALL : API_PAYLOAD_NONE;
        return 0;
    }
    s->mode = API_PAYLOAD_INCLUDE;
    if (json_type_of(v) == JSON_ARRAY)
        return error_trace(parse_keys(v, arena, s, f));
    if (api_given(v, "include", &list))
        return error_trace(parse_keys(list, arena, s, f));
    s->mode = API_PAYLOAD_EXCLUDE;
    if (api_given(v, "exclude", &list))
        return error_trace(parse_keys(list, arena, s, f));
    return api_fault_set(f, API_FAULT_FORMAT, "with_payload",
                         "`with_payload` must be a boolean, a list of keys, or an object with "
                         "`include` or `exclude`");
}

static int parse_vectors(struct json_value v, const struct point_config *config,
                         struct api_selector *s, struct api_fault *f) {
    bool flag;
    if (json_get_bool(v, &flag)) {
        s->with_vector = flag;
        s->vectors = UINT64_MAX;
        return 0;
    }
    struct json_iterator it = json_iterate(v);
    struct bytes name;
    s->with_vector = true;
    s->vectors = 0;
    if (json_type_of(v) != JSON_ARRAY)
        return api_fault_set(f, API_FAULT_FORMAT, "with_vector",
                             "`with_vector` must be a boolean or a list of names");
    while (json_next(&it, NULL, &v)) {
        int place = json_get_string(v, &name) ? point_config_find(config, name) : -1;
        if (place < 0)
            return api_fault_set(f, API_FAULT_INPUT, "with_vector",
                                 "Not existing vector name error: %s",
                                 json_type_of(v) == JSON_STRING ? api_text_of(name).text : "");
        s->vectors |= 1ull << place;
    }
    return 0;
}

int api_selector_parse(struct json_value object, bool payload_default,
                       const struct point_config *config, struct arena *arena,
                       struct api_selector *ret, struct api_fault *f) {
    struct api_selector s = {.payload.mode = payload_default ? API_PAYLOAD_ALL : API_PAYLOAD_NONE};
    struct json_value v;
    if (api_given(object, "with_payload", &v)) {
        int r = parse_payload(v, arena, &s.payload, f);
        if (r)
            return error_trace(r);
    }
    if (api_given(object, "with_vector", &v) || api_given(object, "with_vectors", &v)) {
        int r = parse_vectors(v, config, &s, f);
        if (r)
            return error_trace(r);
    }
    *ret = s;
    return 0;
}

/* ---- Cutting a payload ---- */

enum path_relation { PATH_APART, PATH_LEADS_TO, PATH_WITHIN };

/* How the path of a value lies to the keys: at or below one, on the way to one, or neither. */
static enum path_relation path_relation(const struct api_payload_selector *s, struct bytes path) {
    enum path_relation relation = PATH_APART;
    for (size_t i = 0; i < s->n; i++) {
        struct bytes key = s->keys[i];
        size_t shorter = key.size < path.size ? key.size : path.size;
        if (shorter && memcmp(key.data, path.data, shorter) != 0)
            continue;
        if (key.size == path.size || (key.size < path.size && path.data[key.size] == '.'))
            return PATH_WITHIN;
        if (key.size > path.size && key.data[path.size] == '.')
            relation = PATH_LEADS_TO;
    }
    return relation;
}

static void append_cut(struct buffer *out, struct json_value v,
                       const struct api_payload_selector *s, struct buffer *path);

static bool container(struct json_value v) {
    return json_type_of(v) == JSON_OBJECT || json_type_of(v) == JSON_ARRAY;
}

/* Appends a value whose path is there, and says so; a value that goes on to a key is cut. */
static bool append_member(struct buffer *out, const char *comma, struct bytes key,
                          struct json_value v, const struct api_payload_selector *s,
                          struct buffer *path) {
    enum path_relation relation = path_relation(s, buffer_bytes(path));
    bool include = s->mode == API_PAYLOAD_INCLUDE;
    bool whole = relation == (include ? PATH_WITHIN : PATH_APART);
    bool cut = relation == PATH_LEADS_TO && container(v);
    if (!whole && !cut && (include || relation == PATH_WITHIN))
        return false;
    buffer_append_string(out, comma);
    json_append_string(out, key);
    buffer_append_string(out, ":");
    if (cut)
        append_cut(out, v, s, path);
    else
        json_append_value(out, v);
    return true;
}

static void append_cut_object(struct buffer *out, struct json_value v,
                              const struct api_payload_selector *s, struct buffer *path) {
    struct json_iterator it = json_iterate(v);
    struct json_value member;
    struct bytes key;
    const char *comma = "";
    size_t length = path->size;
    buffer_append_string(out, "{");
    while (json_next(&it, &key, &member)) {
        buffer_append_string(path, length ? "." : "");
        buffer_append_bytes(path, key);
        if (append_member(out, comma, key, member, s, path))
            comma = ",";
        path->size = length;
    }
    buffer_append_string(out, "}");
}

/* Depth is bounded by the parser's JSON_DEPTH_MAX. */
static void append_cut(struct buffer *out, struct json_value v,
                       const struct api_payload_selector *s, struct buffer *path) {
    if (json_type_of(v) == JSON_OBJECT) {
        append_cut_object(out, v, s, path);
        return;
    }
    struct json_iterator it = json_iterate(v);
    struct json_value element;
    const char *comma = "";
    buffer_append_string(out, "[");
    while (json_next(&it, NULL, &element)) {
        if (!container(element) && s->mode == API_PAYLOAD_INCLUDE)
            continue;
        buffer_append_string(out, comma);
        if (container(element))
            append_cut(out, element, s, path);
        else
            json_append_value(out, element);
        comma = ",";
    }
    buffer_append_string(out, "]");
}

/* The text is copied first: a row has no readable bytes behind it. */
static void append_selected(struct buffer *out, struct bytes payload,
                            const struct api_payload_selector *s, struct json_parser *parser) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer path = BUFFER_INIT;
    struct json_value root;
    buffer_append_bytes(&text, payload);
    if (!buffer_reserve(&text, JSON_PADDING) ||
        json_parse(parser, buffer_bytes(&text), &root) != 0) {
        out->failed = true;
        return;
    }
    append_cut_object(out, root, s, &path);
    out->failed |= path.failed;
}

static void append_payload(struct buffer *out, struct bytes payload,
                           const struct api_payload_selector *s, struct json_parser *parser) {
    if (s->mode == API_PAYLOAD_NONE)
        return;
    buffer_append_string(out, ",\"payload\":");
    if (payload.size == 0)
        buffer_append_string(out, "{}");
    else if (s->mode == API_PAYLOAD_ALL)
        buffer_append_bytes(out, payload);
    else
        append_selected(out, payload, s, parser);
}

/* ---- Vectors ---- */

static void append_floats(struct buffer *out, const float *vector, uint32_t dimension) {
    buffer_append_string(out, "[");
    for (uint32_t i = 0; i < dimension; i++) {
        if (i)
            buffer_append_u8(out, ',');
        json_append_float(out, vector[i]);
    }
    buffer_append_string(out, "]");
}

static void append_vectors(struct buffer *out, const struct point_config *config,
                           const struct point_row *row, uint64_t wanted) {
    uint64_t mask = row->vector_mask & wanted;
    buffer_append_string(out, ",\"vector\":");
    if (mask == 1 && config->vectors[0].name[0] == '\0') {
        append_floats(out, row->vectors, config->vectors[0].dimension);
        return;
    }
    const char *comma = "{";
    for (; mask; mask &= mask - 1) {
        unsigned i = (unsigned)__builtin_ctzll(mask);
        buffer_append_string(out, comma);
        json_append_cstring(out, config->vectors[i].name);
        buffer_append_string(out, ":");
        append_floats(out, row->vectors + config->offsets[i], config->vectors[i].dimension);
        comma = ",";
    }
    buffer_append_string(out, comma[0] == '{' ? "{}" : "}");
}

/* ---- Rows ---- */

void api_row_append(struct buffer *out, const struct point_config *config,
                    const struct point_row *row, const struct api_selector *selector,
                    struct json_parser *parser) {
    append_payload(out, row->payload, &selector->payload, parser);
    if (selector->with_vector)
        append_vectors(out, config, row, selector->vectors);
}

void api_record_append(struct buffer *out, const struct point_config *config,
                       const struct point_row *row, const struct api_selector *selector,
                       struct json_parser *parser) {
    buffer_append_string(out, "{\"id\":");
    point_id_append_json(out, row->id);
    api_row_append(out, config, row, selector, parser);
    buffer_append_string(out, "}");
}
