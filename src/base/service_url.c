/* SPDX-License-Identifier: Apache-2.0 */
/* URLs of parts: the text is copied into the struct and cut in place. */
#include "base/service_url.h"

#include <errno.h>
#include <stdlib.h>

enum { PORT_MAX = 65535 };

/* ---- Parsing ---- */

static int digit_of(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* In place; false: a % without two digits behind it, or a %00. */
static bool decode(char *text) {
    char *out = text;
    for (const char *in = text; *in; in++) {
        if (*in != '%') {
            *out++ = *in;
            continue;
        }
        int high = digit_of(in[1]), low = high < 0 ? -1 : digit_of(in[2]);
        if (low < 0 || (high == 0 && low == 0))
            return false;
        *out++ = (char)(high * 16 + low);
        in += 2;
    }
    *out = '\0';
    return true;
}

/* Ends the text before the first `at`, and returns what is behind it; NULL: there is none. */
static char *cut(char *text, char at) {
    char *found = strchr(text, at);
    if (found)
        *found++ = '\0';
    return found;
}

static bool parse_port(const char *text, uint16_t *ret_port) {
    uint32_t port = 0;
    if (*text == '\0' || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        port = port * 10 + (uint32_t)(*text - '0');
    }
    *ret_port = (uint16_t)port;
    return port > 0 && port <= PORT_MAX;
}

static bool parse_host(char *text, struct service_host *ret_host) {
    bool bracketed = *text == '[';
    char *name = text + bracketed;
    char *rest = bracketed ? cut(name, ']') : name;
    if (!rest)
        return false;
    char *port = cut(rest, ':');
    if ((bracketed && *rest != '\0') || *name == '\0')
        return false;
    *ret_host = (struct service_host){.name = name};
    return !port || parse_port(port, &ret_host->port);
}

static const char *parse_hosts(struct service_url *u, char *text) {
    for (char *next; text; text = next) {
        next = cut(text, ',');
        if (u->n_hosts == SERVICE_HOSTS_MAX)
            return "has too many hosts";
        if (!parse_host(text, &u->hosts[u->n_hosts++]))
            return "has a host that is none: HOST:PORT,HOST:PORT is wanted";
    }
    return NULL;
}

static const char *parse_user(struct service_url *u, char *text) {
    char *password = cut(text, ':');
    if (!decode(text) || (password && !decode(password)))
        return "has a % that is not followed by two hexadecimal digits";
    u->user = text;
    u->password = password;
    return NULL;
}

static const char *parse_parameters(struct service_url *u, char *text) {
    for (char *next; text; text = next) {
        next = cut(text, '&');
        if (*text == '\0')
            continue;
        if (u->n_parameters == SERVICE_PARAMETERS_MAX)
            return "has too many parameters";
        char *value = cut(text, '=');
        if (!decode(text) || (value && !decode(value)))
            return "has a % that is not followed by two hexadecimal digits";
        u->parameters[u->n_parameters++] =
            (struct service_parameter){.name = text, .value = value ? value : ""};
    }
    return NULL;
}

static const char *parse_rest(struct service_url *u, char *rest) {
    char *query = cut(rest, '?');
    char *path = cut(rest, '/');
    char *at = strrchr(rest, '@');
    const char *why = NULL;
    u->path = path ? path : "";
    if (strchr(u->path, '@'))
        return "has an @ behind a slash: a / in a password is written %2F";
    if (path && !decode(path))
        return "has a % that is not followed by two hexadecimal digits";
    if (at) {
        *at = '\0';
        why = parse_user(u, rest);
        rest = at + 1;
    }
    if (!why)
        why = parse_hosts(u, rest);
    return why ? why : parse_parameters(u, query);
}

bool service_url_parse(const char *text, struct service_url *ret_url, const char **ret_why) {
    size_t size = strlen(text);
    *ret_url = (struct service_url){0};
    *ret_why = "is too long";
    if (size >= SERVICE_TEXT_MAX)
        return false;
    memcpy(ret_url->text, text, size + 1);
    char *rest = strstr(ret_url->text, "://");
    *ret_why = "has no scheme, as in kafka://HOST:PORT";
    if (!rest || rest == ret_url->text)
        return false;
    *rest = '\0';
    ret_url->scheme = ret_url->text;
    *ret_why = parse_rest(ret_url, rest + 3);
    return *ret_why == NULL;
}

/* ---- Parameters ---- */

const char *service_url_parameter(const struct service_url *u, const char *name) {
    for (size_t i = 0; i < u->n_parameters; i++)
        if (strcmp(u->parameters[i].name, name) == 0)
            return u->parameters[i].value;
    return NULL;
}

bool service_url_parameter_number(const struct service_url *u, const char *name, uint64_t least,
                                  uint64_t most, uint64_t *ret) {
    const char *text = service_url_parameter(u, name);
    char *end;
    if (!text)
        return true;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || *end || number < least || number > most)
        return false;
    *ret = number;
    return true;
}

bool service_url_parameter_flag(const struct service_url *u, const char *name, bool *ret) {
    static const char *const words[2][3] = {{"no", "false", "0"}, {"yes", "true", "1"}};
    const char *text = service_url_parameter(u, name);
    if (!text)
        return true;
    for (int value = 0; value < 2; value++)
        for (size_t i = 0; i < ARRAY_LENGTH(words[0]); i++)
            if (strcmp(text, words[value][i]) == 0) {
                *ret = value;
                return true;
            }
    return false;
}

static bool is_among(const char *name, const char *const *names) {
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

const char *service_url_parameter_unknown(const struct service_url *u, const char *const *names) {
    for (size_t i = 0; i < u->n_parameters; i++)
        if (!is_among(u->parameters[i].name, names))
            return u->parameters[i].name;
    return NULL;
}

/* ---- Showing ---- */

static bool is_secret(const char *name) {
    return strstr(name, "password") || strstr(name, "key") || strstr(name, "secret");
}

void service_url_append_public(struct buffer *out, const struct service_url *u) {
    buffer_append_format(out, "%s://", u->scheme);
    for (size_t i = 0; i < u->n_hosts; i++) {
        bool brackets = strchr(u->hosts[i].name, ':') != NULL;
        buffer_append_format(out, brackets ? "%s[%s]" : "%s%s", i ? "," : "", u->hosts[i].name);
        if (u->hosts[i].port)
            buffer_append_format(out, ":%u", u->hosts[i].port);
    }
    if (*u->path || u->n_parameters)
        buffer_append_format(out, "/%s", u->path);
    for (size_t i = 0; i < u->n_parameters; i++) {
        const struct service_parameter *p = &u->parameters[i];
        buffer_append_format(out, "%c%s=%s", i ? '&' : '?', p->name,
                             is_secret(p->name) ? "***" : p->value);
    }
}
