/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings in force, for GET /settings: a row of options.def each.
 */
#include "cli/cli.h"

#include "base/json.h"
#include "base/service_url.h"

static const char *const source_names[] = {
    [OPTION_UNSET] = "default",           [OPTION_DEFAULT] = "default", [OPTION_INI] = "file",
    [OPTION_ENVIRONMENT] = "environment", [OPTION_FLAG] = "flag",
};

static void append_text(struct buffer *out, const char *key, const char *text) {
    buffer_append_format(out, "\"%s\":", key);
    if (text && *text)
        json_append_cstring(out, text);
    else
        buffer_append_string(out, "null");
    buffer_append_u8(out, ',');
}

/* Without user, password and the like. */
static void append_service(struct buffer *out, const char *text) {
    CLEANUP(buffer_deinit) struct buffer public = BUFFER_INIT;
    struct service_url url;
    const char *why;
    if (text && service_url_parse(text, &url, &why))
        service_url_append_public(&public, &url);
    else
        buffer_append_string(&public, "local:");
    buffer_append_u8(&public, 0);
    append_text(out, "value", buffer_check(&public) ? "***" : (const char *)public.data);
}

static void append_setting(struct buffer *out, const struct option_row *row,
                           const struct option_value *value) {
    bool secret = row->type == OPTION_TYPE_SECRET;
    buffer_append_format(out, "{\"name\":\"%s\",", row->flag);
    if (row->type == OPTION_TYPE_SERVICE)
        append_service(out, value->text);
    else
        append_text(out, "value", secret && value->text ? "***" : value->text);
    append_text(out, "default", row->fallback);
    append_text(out, "from", source_names[value->source]);
    buffer_append_format(out, "\"reload\":%s,\"unit\":\"%s\",\"summary\":",
                         row->reload ? "true" : "false", row->unit);
    json_append_cstring(out, row->prose);
    buffer_append_u8(out, '}');
}

void settings_append_json(struct buffer *out, const struct options *started,
                          const struct options *read) {
    const char *separator = "";
    buffer_append_string(out, "{\"settings\":[");
    for (size_t i = 0; i < OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        if (!(row->commands & started->command))
            continue;
        buffer_append_string(out, separator);
        append_setting(out, row, &(row->reload ? read : started)->values[i]);
        separator = ",";
    }
    buffer_append_string(out, "]}");
}
