/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arguments of tasks: see arguments.h.
 */
#include "tasks/handlers/arguments.h"

#include <inttypes.h>
#include <stdio.h>

enum { NAME_SHOWN_MAX = 40 };

static const struct argument_row *row_find(const struct argument_row *rows, size_t n,
                                           struct bytes name) {
    for (size_t i = 0; i < n; i++)
        if (bytes_equal(bytes_of_string(rows[i].name), name))
            return &rows[i];
    return NULL;
}

static bool value_fits(const struct argument_row *row, struct json_value value) {
    uint64_t number;
    if (row->type == JSON_INT)
        return json_get_u64(value, &number) && number >= row->min && number <= row->max;
    return json_type_of(value) == row->type;
}

static void say_what_fits(const struct argument_row *row, char *sentence, size_t size) {
    if (row->type == JSON_INT)
        (void)snprintf(sentence, size,
                       "args.%s must be a whole number from %" PRIu64 " to %" PRIu64, row->name,
                       row->min, row->max);
    else
        (void)snprintf(sentence, size, "args.%s must be %s", row->name,
                       row->type == JSON_STRING ? "a string"
                       : row->type == JSON_BOOL ? "true or false"
                                                : "an object");
}

static void say_unknown(const struct argument_row *rows, size_t n, struct bytes name,
                        char *sentence, size_t size) {
    int shown = (int)(name.size < NAME_SHOWN_MAX ? name.size : NAME_SHOWN_MAX);
    int length = snprintf(sentence, size, "args.%.*s is not known; there is", shown,
                          (const char *)name.data);
    for (size_t i = 0; i < n && length > 0 && (size_t)length < size; i++) {
        const char *join = i == 0 ? " " : i + 1 < n ? ", " : " and ";
        length += snprintf(sentence + length, size - (size_t)length, "%s%s", join, rows[i].name);
    }
}

bool arguments_check(const struct argument_row *rows, size_t n, struct json_value args,
                     char *sentence, size_t size) {
    struct json_value value;
    struct bytes name;
    if (json_type_of(args) != JSON_OBJECT) {
        (void)snprintf(sentence, size, "args must be an object");
        return false;
    }
    for (struct json_iterator it = json_iterate(args); json_next(&it, &name, &value);) {
        const struct argument_row *row = row_find(rows, n, name);
        if (row && value_fits(row, value))
            continue;
        if (row)
            say_what_fits(row, sentence, size);
        else
            say_unknown(rows, n, name, sentence, size);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (rows[i].required && !json_find(args, rows[i].name, &value)) {
            (void)snprintf(sentence, size, "args.%s is missing", rows[i].name);
            return false;
        }
    }
    return true;
}

uint64_t argument_u64(struct json_value args, const char *name, uint64_t fallback) {
    struct json_value value;
    uint64_t number = fallback;
    if (json_find(args, name, &value) && json_get_u64(value, &number))
        return number;
    return fallback;
}

struct bytes argument_string(struct json_value args, const char *name) {
    struct json_value value;
    struct bytes text = {0};
    if (json_find(args, name, &value) && json_get_string(value, &text))
        return text;
    return (struct bytes){0};
}
