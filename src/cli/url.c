/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http://host[:port][/path]: no user, no query, no fragment.
 */
#include "cli/url.h"

#include <stdio.h>

/* The length of the host at text: up to the port or path, brackets of IPv6 included. */
static size_t host_size(const char *text) {
    if (text[0] != '[')
        return strcspn(text, ":/?#@");
    size_t size = strcspn(text, "]");
    return text[size] ? size + 1 : 0;
}

/* Reads ":8000" if it is there; returns what follows, NULL when it is no port. */
static const char *read_port(const char *at, uint16_t *ret_port) {
    uint32_t port = 0;
    if (*at != ':')
        return at;
    const char *digits = ++at;
    for (; *at >= '0' && *at <= '9' && at - digits < 5; at++)
        port = port * 10 + (uint32_t)(*at - '0');
    if (at == digits || port == 0 || port > UINT16_MAX)
        return NULL;
    *ret_port = (uint16_t)port;
    return at;
}

int url_parse(const char *text, struct url *ret_url) {
    static const char scheme[] = "http://";
    struct url url = {.port = 80};
    if (strncmp(text, scheme, sizeof scheme - 1) != 0)
        return URL_E_SCHEME;
    text += sizeof scheme - 1;
    size_t host = host_size(text);
    if (host == 0 || host > URL_HOST_MAX)
        return URL_E_INVALID;
    memcpy(url.host, text, host);
    const char *path = read_port(text + host, &url.port);
    if (!path || (*path && *path != '/') || strpbrk(path, "?# \t\r\n"))
        return URL_E_INVALID;
    size_t size = strlen(path);
    while (size > 0 && path[size - 1] == '/')
        size--;
    if (size > URL_PATH_MAX)
        return URL_E_INVALID;
    memcpy(url.path, path, size);
    *ret_url = url;
    return 0;
}

void url_authority(const struct url *url, char out[URL_HOST_MAX + 8]) {
    snprintf(out, URL_HOST_MAX + 8, "%s:%u", url->host, (unsigned)url->port);
}

void url_append_segment(struct buffer *out, const char *text) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    for (; *text; text++) {
        if (strchr(plain, *text))
            buffer_append_u8(out, (uint8_t)*text);
        else
            buffer_append_format(out, "%%%02X", (unsigned)(unsigned char)*text);
    }
}
