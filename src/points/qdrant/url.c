/* SPDX-License-Identifier: Apache-2.0 */
/* The text of --points, read. */
#include "points/qdrant.h"

#include "base/service_url.h"

#include <stdarg.h>
#include <stdio.h>

enum { PORT_DEFAULT = 6334, REST_PORT_DEFAULT = 6333, PORT_MAX = 65535 };

bool qdrant_url_is_local(const char *text) {
    return !text || !*text || strcmp(text, "local:") == 0;
}

static bool PRINTF_LIKE(2, 3) refuse(char why[POINTS_SINK_SENTENCE], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(why, POINTS_SINK_SENTENCE, format, arguments);
    va_end(arguments);
    return false;
}

/* False: it does not fit. NULL is "". */
static bool copy(const char *text, char *out, size_t size) {
    int n = snprintf(out, size, "%s", text ? text : "");
    return n >= 0 && (size_t)n < size;
}

static bool take(const struct service_url *u, struct qdrant_url *url,
                 char why[POINTS_SINK_SENTENCE]) {
    static const char *const names[] = {"rest", "api_key_file", "ca_file", NULL};
    uint64_t rest = REST_PORT_DEFAULT;
    const char *unknown = service_url_parameter_unknown(u, names);
    url->tls = strcmp(u->scheme, "qdrants") == 0;
    if (!url->tls && strcmp(u->scheme, "qdrant") != 0)
        return refuse(why, "is neither local: nor qdrant:// nor qdrants://");
    if (u->user)
        return refuse(why, "has a user name; a key goes into a file: api_key_file=FILE");
    if (u->n_hosts != 1)
        return refuse(why, "has more than one host; any node of a cluster stands for all");
    if (*u->path)
        return refuse(why, "has a path, which a cluster has not");
    if (unknown)
        return refuse(why,
                      "has a parameter %.64s; there are rest=PORT, api_key_file=FILE and "
                      "ca_file=FILE",
                      unknown);
    if (!service_url_parameter_number(u, "rest", 1, PORT_MAX, &rest))
        return refuse(why, "has a port for REST that is none");
    url->port = u->hosts[0].port ? u->hosts[0].port : PORT_DEFAULT;
    url->rest_port = (uint16_t)rest;
    if (copy(u->hosts[0].name, url->host, sizeof url->host) &&
        copy(service_url_parameter(u, "api_key_file"), url->api_key_file,
             sizeof url->api_key_file) &&
        copy(service_url_parameter(u, "ca_file"), url->ca_file, sizeof url->ca_file))
        return true;
    return refuse(why, "is too long");
}

bool qdrant_url_parse(const char *text, struct qdrant_url *ret_url,
                      char why[POINTS_SINK_SENTENCE]) {
    char whole[SERVICE_TEXT_MAX];
    struct service_url u;
    const char *reason = "is too long";
    const char *scheme = strstr(text, "://") ? "" : "qdrant://";
    int size = snprintf(whole, sizeof whole, "%s%s", scheme, text);
    if (size < 0 || (size_t)size >= sizeof whole || !service_url_parse(whole, &u, &reason))
        return refuse(why, "%s", reason);
    struct qdrant_url url = {0};
    if (!take(&u, &url, why))
        return false;
    *ret_url = url;
    return true;
}
