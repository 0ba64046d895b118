/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of hosts: see hosts.h. It is short and seldom asked, so it is read anew each time.
 */
#include "http/hosts.h"

#include <ctype.h>
#include <strings.h>

enum { PORT_MAX = 65535 };

struct entry {
    struct bytes host; /* without "*" if wide, so with a dot first */
    bool wide;
    unsigned port; /* 0: the usual one */
};

static struct bytes trimmed(const char *text, size_t size) {
    while (size && isspace((unsigned char)*text)) {
        text++;
        size--;
    }
    while (size && isspace((unsigned char)text[size - 1]))
        size--;
    return bytes_of(text, size);
}

/* The next entry's text; false behind the last. */
static bool next_text(const char **at, struct bytes *ret_text) {
    if (!*at)
        return false;
    const char *comma = strchr(*at, ',');
    size_t size = comma ? (size_t)(comma - *at) : strlen(*at);
    *ret_text = trimmed(*at, size);
    *at = comma ? comma + 1 : NULL;
    return true;
}

static bool is_host(struct bytes host) {
    bool brackets = host.size > 2 && host.data[0] == '[' && host.data[host.size - 1] == ']';
    size_t from = brackets ? 1 : 0, to = host.size - from;
    for (size_t i = from; i < to; i++)
        if (!isalnum(host.data[i]) && !strchr(brackets ? ":." : ".-_", host.data[i]))
            return false;
    return host.size > 0;
}

/* The colon before a port, or the end. */
static size_t host_size(struct bytes text) {
    const uint8_t *bracket = text.size ? memchr(text.data, ']', text.size) : NULL;
    size_t from = bracket ? (size_t)(bracket - text.data) : 0;
    const uint8_t *colon = text.size ? memchr(text.data + from, ':', text.size - from) : NULL;
    return colon ? (size_t)(colon - text.data) : text.size;
}

static bool parse_port(struct bytes digits, unsigned *ret_port) {
    unsigned port = 0;
    for (size_t i = 0; i < digits.size; i++) {
        if (!isdigit(digits.data[i]) || port > PORT_MAX)
            return false;
        port = port * 10 + (digits.data[i] - '0');
    }
    *ret_port = port;
    return port > 0 && port <= PORT_MAX;
}

static bool parse_entry(struct bytes text, struct entry *ret_entry) {
    struct entry e = {.wide = text.size > 2 && text.data[0] == '*' && text.data[1] == '.'};
    if (e.wide)
        text = bytes_of(text.data + 1, text.size - 1);
    e.host = bytes_of(text.data, host_size(text));
    size_t behind = e.host.size + 1;
    if (e.host.size < text.size &&
        !parse_port(bytes_of(text.data + behind, text.size - behind), &e.port))
        return false;
    *ret_entry = e;
    return is_host(e.host);
}

bool hosts_check(const char *list, struct bytes *ret_entry) {
    const char *at = *list ? list : NULL;
    struct entry entry;
    struct bytes text;
    while (next_text(&at, &text)) {
        if (!parse_entry(text, &entry)) {
            *ret_entry = text;
            return false;
        }
    }
    return true;
}

static bool matches(const struct entry *e, struct bytes host) {
    if (e->wide ? host.size <= e->host.size : host.size != e->host.size)
        return false;
    const uint8_t *tail = host.data + (host.size - e->host.size);
    return strncasecmp((const char *)tail, (const char *)e->host.data, e->host.size) == 0;
}

bool hosts_allow(const char *list, const char *host, unsigned port, bool usual) {
    const char *at = *list ? list : NULL;
    struct entry e;
    struct bytes text;
    while (next_text(&at, &text))
        if (parse_entry(text, &e) && matches(&e, bytes_of_string(host)) &&
            (e.port ? e.port == port : usual))
            return true;
    return false;
}
