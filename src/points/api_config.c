/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A collection's configuration, from Qdrant's JSON and back. Settings go by their table
 * (settings.def); what would change answers and is not there yet is refused, not ignored.
 */
#include "points/api_parts.h"

#include <math.h>

enum setting_type { SETTING_INTEGER, SETTING_NUMBER, SETTING_BOOL };
enum setting_section { SECTION_PARAMS, SECTION_HNSW, SECTION_OPTIMIZER, SECTION_WAL, SECTIONS };

static const struct setting_row {
    enum setting_section section;
    const char *name;
    enum setting_type type;
    double fallback; /* NAN: null */
    double least;
    double most;
} setting_rows[POINT_SETTINGS] = {
#define POINT_SETTING(id, section, name, type, fallback, least, most)                              \
    {SECTION_##section, name, SETTING_##type, fallback, least, most},
#include "points/settings.def"
#undef POINT_SETTING
};

/* Where a section stands in a request, and in an answer. The params stand in the body itself. */
static const struct {
    const char *request;
    const char *answer;
} sections[SECTIONS] = {
    [SECTION_PARAMS] = {NULL, "params"},
    [SECTION_HNSW] = {"hnsw_config", "hnsw_config"},
    [SECTION_OPTIMIZER] = {"optimizers_config", "optimizer_config"},
    [SECTION_WAL] = {"wal_config", "wal_config"},
};

/* ---- Names ---- */

int api_name_check(struct bytes name, const char *what, struct api_fault *f) {
    static const char refused[] = "<>:\"/\\|?*";
    if (name.size == 0 || name.size > POINT_NAME_MAX)
        return api_fault_set(f, API_FAULT_RANGE, "name", "[%s: must be from 1 to %d characters]",
                             what, POINT_NAME_MAX);
    if (!json_is_utf8(name)) /* a path may hold any bytes; no answer could name it */
        return api_fault_set(f, API_FAULT_RANGE, "name", "[%s: must be UTF-8]", what);
    for (size_t i = 0; i < name.size; i++)
        if (name.data[i] < 0x20 || memchr(refused, name.data[i], sizeof refused - 1))
            return api_fault_set(f, API_FAULT_RANGE, "name",
                                 "[%s: collection name cannot contain \"%s\" char]", what,
                                 api_text_of(bytes_of(name.data + i, 1)).text);
    return 0;
}

bool api_distance_from_text(struct bytes text, enum point_distance *ret) {
    for (unsigned i = 0; i < DISTANCES; i++) {
        if (!bytes_equal(text, bytes_of_string(point_distance_names[i])))
            continue;
        *ret = i;
        return true;
    }
    return false;
}

/* ---- Settings ---- */

static int setting_parse(const struct setting_row *row, struct json_value v, double *ret,
                         struct api_fault *f) {
    static const char *const types[] = {[SETTING_INTEGER] = "an unsigned integer",
                                        [SETTING_NUMBER] = "a number",
                                        [SETTING_BOOL] = "a boolean"};
    uint64_t integer;
    bool flag, right = false;
    double number = 0;
    if (row->type == SETTING_BOOL && (right = json_get_bool(v, &flag)))
        number = flag;
    if (row->type == SETTING_INTEGER && (right = json_get_u64(v, &integer)))
        number = (double)integer;
    if (row->type == SETTING_NUMBER)
        right = json_get_double(v, &number);
    if (!right)
        return api_fault_set(f, API_FAULT_FORMAT, row->name, "`%s` must be %s", row->name,
                             types[row->type]);
    if (number < row->least || number > row->most)
        return api_fault_set(f, API_FAULT_RANGE, row->name,
                             "[%s: value %g invalid, must be from %g to %g]", row->name, number,
                             row->least, row->most);
    *ret = number;
    return 0;
}

/* "auto" is how Qdrant's clients say that a number is left to the server. */
static bool automatic(struct json_value v) {
    struct bytes text;
    return json_get_string(v, &text) && bytes_equal(text, BYTES_LITERAL("auto"));
}

static int section_parse(struct json_value body, enum setting_section section,
                         struct point_config *config, struct api_fault *f) {
    struct json_value object = body, v;
    if (sections[section].request && !api_given(body, sections[section].request, &object))
        return 0;
    if (json_type_of(object) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, sections[section].request,
                             "`%s` must be an object", sections[section].request);
    for (unsigned i = 0; i < POINT_SETTINGS; i++) {
        const struct setting_row *row = &setting_rows[i];
        if (row->section != section || !api_given(object, row->name, &v) || automatic(v))
            continue;
        int r = setting_parse(row, v, &config->settings[i], f);
        if (r)
            return error_trace(r);
        config->settings_given |= 1u << i;
    }
    return 0;
}

/* ---- Vectors ---- */

static int check_datatype(struct json_value object, struct api_fault *f) {
    struct json_value v;
    struct bytes text;
    if (api_given(object, "multivector_config", &v))
        return api_fault_set(f, API_FAULT_INPUT, "multivector_config",
                             "multivectors are not supported yet");
    if (!api_given(object, "datatype", &v))
        return 0;
    if (!json_get_string(v, &text) || !bytes_equal(text, BYTES_LITERAL("float32")))
        return api_fault_set(f, API_FAULT_INPUT, "datatype",
                             "vectors are kept as float32; leave `datatype` out");
    return 0;
}

static int parse_distance(struct json_value object, enum point_distance *ret, struct api_fault *f) {
    struct json_value v;
    struct bytes text;
    if (!api_given(object, "distance", &v))
        return api_fault_missing(f, "distance");
    if (json_get_string(v, &text) && api_distance_from_text(text, ret))
        return 0;
    return api_fault_set(f, API_FAULT_FORMAT, "distance",
                         "unknown variant `%s`, expected one of `Cosine`, `Euclid`, `Dot`, "
                         "`Manhattan`",
                         json_type_of(v) == JSON_STRING ? api_text_of(text).text : "");
}

static int vector_parse(struct json_value object, struct bytes name,
                        struct point_vector_config *ret, struct api_fault *f) {
    struct json_value v;
    uint64_t size = 0;
    bool on_disk = false;
    if (json_type_of(object) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, "vectors", "each vector must be an object");
    if (!api_given(object, "size", &v))
        return api_fault_missing(f, "size");
    int r = api_get_size(object, "size", 1, POINT_DIMENSION_MAX, &size, f);
    if (r == 0)
        r = parse_distance(object, &ret->distance, f);
    if (r == 0)
        r = check_datatype(object, f);
    if (r == 0)
        r = api_get_flag(object, "on_disk", &on_disk, f);
    if (r)
        return error_trace(r);
    if (api_given(object, "on_disk", &v))
        ret->on_disk = on_disk ? POINT_FLAG_TRUE : POINT_FLAG_FALSE;
    ret->dimension = (uint32_t)size;
    if (name.size)
        memcpy(ret->name, name.data, name.size);
    return 0;
}

static int named_parse(struct json_value object, struct point_config *config, struct api_fault *f) {
    struct json_iterator it = json_iterate(object);
    struct json_value v;
    struct bytes name;
    while (json_next(&it, &name, &v)) {
        if (name.size) {
            int r = api_name_check(name, "vectors", f);
            if (r)
                return error_trace(r);
        }
        if (point_config_find(config, name) >= 0)
            return api_fault_set(f, API_FAULT_FORMAT, "vectors", "duplicate field `%s`",
                                 api_text_of(name).text);
        if (config->n_vectors == POINT_VECTORS_MAX)
            return api_fault_set(f, API_FAULT_RANGE, "vectors",
                                 "[vectors: a collection has at most %d]", POINT_VECTORS_MAX);
        int r = vector_parse(v, name, &config->vectors[config->n_vectors], f);
        if (r)
            return error_trace(r);
        config->n_vectors++;
    }
    return 0;
}

static int vectors_parse(struct json_value body, struct point_config *config, struct api_fault *f) {
    struct json_value vectors, size;
    if (!api_given(body, "vectors", &vectors))
        return 0; /* points without vectors: a store of payloads */
    if (json_type_of(vectors) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, "vectors", "`vectors` must be an object");
    bool unnamed = json_find(vectors, "distance", &size) && json_type_of(size) != JSON_OBJECT;
    unnamed |= json_find(vectors, "size", &size) && json_type_of(size) != JSON_OBJECT;
    if (!unnamed)
        return error_trace(named_parse(vectors, config, f));
    int r = vector_parse(vectors, BYTES_LITERAL(""), &config->vectors[0], f);
    if (r)
        return error_trace(r);
    config->n_vectors = 1;
    return 0;
}

static int check_unsupported(struct json_value body, struct api_fault *f) {
    struct json_value v;
    struct bytes text;
    if (api_given(body, "sparse_vectors", &v) && json_size(v) > 0)
        return api_fault_set(f, API_FAULT_INPUT, "sparse_vectors",
                             "sparse vectors are not supported yet");
    if (api_given(body, "init_from", &v))
        return api_fault_set(f, API_FAULT_INPUT, "init_from", "`init_from` is not supported");
    if (api_given(body, "sharding_method", &v) &&
        !(json_get_string(v, &text) && bytes_equal(text, BYTES_LITERAL("auto"))))
        return api_fault_set(f, API_FAULT_INPUT, "sharding_method",
                             "only `auto` sharding is supported");
    return 0;
}

int api_config_parse(struct json_value body, struct point_config *ret, struct api_fault *f) {
    struct point_config config = {0};
    int r = check_unsupported(body, f);
    if (r == 0)
        r = vectors_parse(body, &config, f);
    for (unsigned i = 0; r == 0 && i < SECTIONS; i++)
        r = section_parse(body, i, &config, f);
    if (r)
        return error_trace(r);
    point_config_finish(&config);
    *ret = config;
    return 0;
}

/* ---- Back to JSON ---- */

static void append_vector(struct buffer *out, const struct point_vector_config *v) {
    buffer_append_format(out, "{\"size\":%u,\"distance\":\"%s\"", v->dimension,
                         point_distance_names[v->distance]);
    if (v->on_disk != POINT_FLAG_ABSENT)
        buffer_append_format(out, ",\"on_disk\":%s",
                             v->on_disk == POINT_FLAG_TRUE ? "true" : "false");
    buffer_append_string(out, "}");
}

static void append_vectors(struct buffer *out, const struct point_config *config) {
    if (config->n_vectors == 1 && config->vectors[0].name[0] == '\0') {
        append_vector(out, &config->vectors[0]);
        return;
    }
    buffer_append_string(out, "{");
    for (uint32_t i = 0; i < config->n_vectors; i++) {
        buffer_append_string(out, i ? "," : "");
        json_append_cstring(out, config->vectors[i].name);
        buffer_append_string(out, ":");
        append_vector(out, &config->vectors[i]);
    }
    buffer_append_string(out, "}");
}

static void append_setting(struct buffer *out, const struct setting_row *row, double value) {
    if (isnan(value))
        buffer_append_string(out, "null");
    else if (row->type == SETTING_BOOL)
        buffer_append_string(out, value != 0 ? "true" : "false");
    else if (row->type == SETTING_INTEGER)
        json_append_u64(out, (uint64_t)value);
    else
        json_append_double(out, value);
}

static void append_section(struct buffer *out, const struct point_config *config,
                           enum setting_section section) {
    const char *comma = "";
    buffer_append_format(out, "%s\"%s\":{", section ? "," : "", sections[section].answer);
    if (section == SECTION_PARAMS) {
        buffer_append_string(out, "\"vectors\":");
        append_vectors(out, config);
        comma = ",";
    }
    for (unsigned i = 0; i < POINT_SETTINGS; i++) {
        const struct setting_row *row = &setting_rows[i];
        if (row->section != section)
            continue;
        bool given = config->settings_given & 1u << i;
        buffer_append_format(out, "%s\"%s\":", comma, row->name);
        append_setting(out, row, given ? config->settings[i] : row->fallback);
        comma = ",";
    }
    buffer_append_string(out, "}");
}

void api_config_append(struct buffer *out, const struct point_config *config) {
    buffer_append_string(out, "{");
    for (unsigned i = 0; i < SECTIONS; i++)
        append_section(out, config, i);
    buffer_append_string(out, ",\"quantization_config\":null}");
}
