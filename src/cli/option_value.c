/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of options: text to number, by type and range. No input, no output.
 */
#include "base/service_url.h"
#include "cli/options.h"
#include "cli/url.h"

#include <inttypes.h>
#include <stdio.h>

/* A suffix and what it multiplies by. The empty suffix is what a bare number means. */
struct suffix {
    const char *name;
    uint64_t factor;
};

static const struct suffix size_suffixes[] = {
    {"", 1},          {"b", 1},          {"k", 1 << 10},     {"kb", 1 << 10},     {"kib", 1 << 10},
    {"m", 1 << 20},   {"mb", 1 << 20},   {"mib", 1 << 20},   {"g", 1 << 30},      {"gb", 1 << 30},
    {"gib", 1 << 30}, {"t", 1ull << 40}, {"tb", 1ull << 40}, {"tib", 1ull << 40},
};

static const struct suffix duration_suffixes[] = {
    {"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
};

static const char *const booleans[2] = {"false|0|no|off", "true|1|yes|on"};

static bool equal_ignoring_case(const char *a, const char *lower) {
    for (; *a && *lower; a++, lower++) {
        char c = *a >= 'A' && *a <= 'Z' ? (char)(*a - 'A' + 'a') : *a;
        if (c != *lower)
            return false;
    }
    return *a == *lower;
}

/* Digits only (strtoull would take "-1" and " 1"); returns what follows them, NULL for none or for
 * more than 64 bits hold. */
static const char *read_digits(const char *text, uint64_t *ret_number) {
    uint64_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
            return NULL;
    if (at == text)
        return NULL;
    *ret_number = number;
    return at;
}

static bool read_suffixed(const char *text, const struct suffix *suffixes, size_t n,
                          uint64_t *ret_number) {
    uint64_t number;
    const char *suffix = read_digits(text, &number);
    if (!suffix)
        return false;
    for (size_t i = 0; i < n; i++)
        if (equal_ignoring_case(suffix, suffixes[i].name))
            return !__builtin_mul_overflow(number, suffixes[i].factor, ret_number);
    return false;
}

int option_choice(const char *choices, const char *text) {
    size_t size = strlen(text);
    int place = 0;
    for (const char *at = choices;; place++) {
        size_t length = strcspn(at, "|");
        if (size > 0 && length == size && memcmp(at, text, size) == 0)
            return place;
        if (!at[length])
            return -1;
        at += length + 1;
    }
}

static bool read_bool(const char *text, uint64_t *ret_number) {
    for (unsigned i = 0; i < ARRAY_LENGTH(booleans); i++) {
        if (option_choice(booleans[i], text) >= 0) {
            *ret_number = i;
            return true;
        }
    }
    return false;
}

static bool read_choice(const char *choices, const char *text, uint64_t *ret_number) {
    int place = option_choice(choices, text);
    if (place >= 0)
        *ret_number = (uint64_t)place;
    return place >= 0;
}

/* host:port or port; whether the host resolves is seen when it is used. */
static bool is_address(const char *text) {
    const char *colon = strrchr(text, ':');
    const char *port = colon ? colon + 1 : text;
    uint64_t number;
    const char *end = read_digits(port, &number);
    return end && !*end && number <= UINT16_MAX && colon != text;
}

static bool is_url(const char *text) {
    struct url url;
    return url_parse(text, &url) == 0;
}

static bool is_service(const char *text) {
    struct service_url url;
    const char *why;
    return strcmp(text, "local:") == 0 || service_url_parse(text, &url, &why);
}

/* What a value of the type looks like, for the sentence of an error. */
static const char *const expectations[OPTION_TYPES] = {
    [OPTION_TYPE_STRING] = "must not be empty",
    [OPTION_TYPE_SECRET] = "must not be empty",
    [OPTION_TYPE_PATH] = "must not be empty",
    [OPTION_TYPE_ADDRESS] = "must be HOST:PORT or a port, as 127.0.0.1:8000",
    [OPTION_TYPE_URL] = "must be a URL as http://127.0.0.1:8000 (plain HTTP, no TLS)",
    [OPTION_TYPE_SERVICE] = "must be local: or a URL as kafka://HOST:PORT,HOST:PORT/?NAME=VALUE",
    [OPTION_TYPE_INTEGER] = "must be a whole number",
    [OPTION_TYPE_SIZE] = "must be a size in bytes or with K, M, G or T, as 64M",
    [OPTION_TYPE_DURATION] = "must be a time in seconds or with ms, s, m, h or d, as 30s",
    [OPTION_TYPE_BOOL] = "must be true or false",
    [OPTION_TYPE_ENUM] = "must be one of",
};

static bool read_typed(const struct option_row *row, const char *text, uint64_t *ret_number) {
    switch (row->type) {
    case OPTION_TYPE_ADDRESS:
        return is_address(text);
    case OPTION_TYPE_URL:
        return is_url(text);
    case OPTION_TYPE_SERVICE:
        return is_service(text);
    case OPTION_TYPE_INTEGER: {
        const char *end = read_digits(text, ret_number);
        return end && !*end;
    }
    case OPTION_TYPE_SIZE:
        return read_suffixed(text, size_suffixes, ARRAY_LENGTH(size_suffixes), ret_number);
    case OPTION_TYPE_DURATION:
        return read_suffixed(text, duration_suffixes, ARRAY_LENGTH(duration_suffixes), ret_number);
    case OPTION_TYPE_BOOL:
        return read_bool(text, ret_number);
    case OPTION_TYPE_ENUM:
        return read_choice(row->placeholder, text, ret_number);
    case OPTION_TYPE_STRING:
    case OPTION_TYPE_SECRET:
    case OPTION_TYPE_PATH:
    case OPTION_TYPES:
        break;
    }
    return *text != '\0';
}

static bool has_range(const struct option_row *row) {
    return row->type == OPTION_TYPE_INTEGER || row->type == OPTION_TYPE_SIZE ||
           row->type == OPTION_TYPE_DURATION;
}

static const char *unit_separator(const struct option_row *row) {
    return row->unit[0] ? " " : "";
}

int option_parse(const struct option_row *row, const char *text, uint64_t *ret_number,
                 char why[OPTIONS_ERROR_MAX]) {
    uint64_t number = 0;
    if (!read_typed(row, text, &number)) {
        snprintf(why, OPTIONS_ERROR_MAX, "%s%s%s", expectations[row->type],
                 row->type == OPTION_TYPE_ENUM ? " " : "",
                 row->type == OPTION_TYPE_ENUM ? row->placeholder : "");
        return OPTIONS_E_INVALID;
    }
    if (has_range(row) && number < row->min) {
        snprintf(why, OPTIONS_ERROR_MAX, "must be at least %" PRIu64 "%s%s", row->min,
                 unit_separator(row), row->unit);
        return OPTIONS_E_INVALID;
    }
    if (has_range(row) && row->max && number > row->max) {
        snprintf(why, OPTIONS_ERROR_MAX, "must be at most %" PRIu64 "%s%s", row->max,
                 unit_separator(row), row->unit);
        return OPTIONS_E_INVALID;
    }
    *ret_number = number;
    return 0;
}
