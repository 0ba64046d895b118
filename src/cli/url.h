/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of URLs that our own client needs: http://host[:port][/path]. Plain values; pure
 * functions.
 */
#ifndef MILLRACE_CLI_URL_H
#define MILLRACE_CLI_URL_H

#include "base/bytes.h"
#include "base/compiler.h"

enum { URL_HOST_MAX = 255, URL_PATH_MAX = 512 };

struct url {
    char host[URL_HOST_MAX + 1]; /* IPv6 with its brackets */
    uint16_t port;               /* 80 when the URL names none */
    char path[URL_PATH_MAX + 1]; /* without the slash at its end: "" or "/prefix" */
};

enum {
    _URL_E_SUCCESS,
    URL_E_SCHEME,  /* not http:// */
    URL_E_INVALID, /* no host, a port that is none, or something that is too long */
};

int url_parse(const char *text, struct url *ret_url) MUST_USE;
/* "host:port", as socket_address_parse takes it. */
void url_authority(const struct url *url, char out[URL_HOST_MAX + 8]);
/* Appends text as one segment of a path. */
void url_append_segment(struct buffer *out, const char *text);

#endif
