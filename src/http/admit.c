/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that is decided about a request before its body: is it well formed, who may ask, for
 * what, and how much. The first objection is the answer.
 */
#include "http/internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static const char *const method_names[HTTP_METHODS] = {
    [HTTP_GET] = "GET",     [HTTP_POST] = "POST",     [HTTP_PUT] = "PUT",
    [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE",
};

const char *http_method_name(enum http_method method) {
    return method_names[method];
}

static bool method_parse(const char *text, enum http_method *ret_method) {
    if (strcmp(text, "HEAD") == 0) {
        *ret_method = HTTP_GET; /* libmicrohttpd leaves the body out */
        return true;
    }
    for (unsigned m = 0; m < HTTP_METHODS; m++) {
        if (strcmp(text, method_names[m]) == 0) {
            *ret_method = m;
            return true;
        }
    }
    return false;
}

static void set_allow(struct http_request *r, unsigned allowed) {
    char text[64] = "";
    size_t n = 0;
    for (unsigned m = 0; m < HTTP_METHODS; m++)
        if (allowed & (1u << m))
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s%s", n ? ", " : "",
                                  method_names[m], m == HTTP_GET ? ", HEAD" : "");
    assert(n < sizeof text);
    http_set_header(r, "Allow", text);
}

/* ---- Framing: where libmicrohttpd would guess, we refuse (request smuggling) ---- */

struct framing {
    unsigned lengths;
    unsigned encodings;
    const char *length;
    const char *encoding;
};

static enum MHD_Result framing_header(void *framing, enum MHD_ValueKind kind, const char *name,
                                      const char *value) {
    (void)kind;
    struct framing *f = framing;
    if (strcasecmp(name, "Content-Length") == 0) {
        f->lengths++;
        f->length = value;
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        f->encodings++;
        f->encoding = value;
    }
    return MHD_YES;
}

/* Sets content_length; false when the headers contradict each other. */
static bool admit_framing(struct http_request *r) {
    struct framing f = {0};
    if (http_header(r, "Content-Length") || http_header(r, "Transfer-Encoding"))
        MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, framing_header, &f);
    if (f.encodings) {
        r->content_length = UINT64_MAX;
        return f.encodings == 1 && f.lengths == 0 && f.encoding &&
               strcasecmp(f.encoding, "chunked") == 0;
    }
    /* Its digits were checked before we were called. */
    r->content_length = f.length ? strtoull(f.length, NULL, 10) : 0;
    return f.lengths <= 1;
}

static bool admit_header_size(struct http_request *r) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return !info || info->header_size <= r->loop->server->options.header_max_bytes;
}

/* ---- The route ---- */

static void answer_preflight(struct http_request *r) {
    http_set_header(r, "Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
    http_set_header(r, "Access-Control-Allow-Headers",
                    "api-key, Authorization, Content-Type, Content-Encoding, Idempotency-Key");
    http_set_header(r, "Access-Control-Max-Age", "86400");
    http_respond(r, 204, NULL, BYTES_LITERAL(""));
}

static void fail_route(struct http_request *r, enum http_error error) {
    if (r->area)
        http_fail(r, error, NULL, "%s", r->area->unsupported);
    else
        http_fail(r, error, NULL, NULL);
}

/* False when it was answered. */
static bool admit_route(struct http_request *r, const struct router_entry *fallback) {
    bool known = method_parse(r->method_text, &r->method);
    unsigned allowed = 0;
    const struct router_entry *entry =
        router_find(r->loop->server->router, &r->path, r->method, &allowed);
    if (known && !entry && fallback) {
        r->entry = fallback;
        return true;
    }
    if (!known && (allowed || fallback) && r->loop->server->options.cors_origin &&
        strcmp(r->method_text, "OPTIONS") == 0) {
        answer_preflight(r);
    } else if (!allowed) {
        fail_route(r, HTTP_ERROR_UNKNOWN_PATH);
    } else if (!known || !entry) {
        set_allow(r, allowed);
        fail_route(r, HTTP_ERROR_WRONG_METHOD);
    } else {
        r->entry = entry;
        return true;
    }
    return false;
}

/* ---- The key ---- */

/* Takes as long for every text of one length, whatever it says. */
static bool key_equal(const char *given, const char *key) {
    size_t n = strlen(given), key_size = strlen(key);
    unsigned difference = n != key_size;
    for (size_t i = 0; i < n; i++)
        difference |= (unsigned)given[i] ^ (unsigned)key[key_size ? i % key_size : 0];
    return difference == 0;
}

static const char *given_key(const struct http_request *r) {
    const char *key = http_header(r, "api-key");
    if (key)
        return key;
    const char *authorization = http_header(r, "Authorization");
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return NULL;
    return authorization + 7 + strspn(authorization + 7, " ");
}

static bool admit_key(struct http_request *r) {
    const char *key = atomic_load(&r->loop->server->api_key);
    if (!key || (r->entry->route->flags & HTTP_ROUTE_OPEN))
        return true;
    const char *given = given_key(r);
    if (!given) {
        http_set_header(r, "WWW-Authenticate", "Bearer");
        http_fail(r, HTTP_ERROR_NO_KEY, NULL, NULL);
        return false;
    }
    const char *own = r->loop->server->options.own_key;
    if (key_equal(given, key) || (own && key_equal(given, own)))
        return true;
    http_fail(r, HTTP_ERROR_WRONG_KEY, NULL, NULL);
    return false;
}

static bool admit_size(struct http_request *r) {
    if (http_request_streams(r) || r->content_length == UINT64_MAX)
        return true;
    return r->content_length <= r->loop->server->options.body_max_bytes;
}

/* Connections past the budget are told so and end; those that were there before go on. */
static bool admit_connection(struct http_request *r) {
    struct budget *b = r->loop->server->options.budget;
    struct http_connection *c = r->connection;
    if (c->admitted || budget_used(b, BUDGET_CONNECTIONS) <= budget_part(b, BUDGET_CONNECTIONS)) {
        c->admitted = true;
        return true;
    }
    http_set_header(r, "Connection", "close");
    return false;
}

void http_admit(struct http_request *r) {
    int phase = atomic_load_explicit(&r->loop->server->phase, memory_order_relaxed);
    r->unframed = !admit_framing(r);
    const struct router_entry *fallback = NULL;
    r->area = router_area(r->loop->server->router, &r->path, &fallback);
    if (phase != HTTP_SERVING)
        http_fail(r, HTTP_ERROR_STOPPING, NULL, NULL);
    else if (!admit_connection(r))
        http_fail(r, HTTP_ERROR_NO_CONNECTIONS, NULL, NULL);
    else if (r->unframed)
        http_fail(r, HTTP_ERROR_BAD_REQUEST, NULL,
                  "the length of the body is given twice or by an unknown Transfer-Encoding");
    else if (!admit_header_size(r))
        http_fail(r, HTTP_ERROR_HEADERS_TOO_LARGE, NULL, NULL);
    else if (r->malformed)
        http_fail(r, HTTP_ERROR_BAD_REQUEST, NULL,
                  "the path or query is not percent-encoded, or has more than %d parameters",
                  HTTP_QUERY_MAX);
    else if (admit_route(r, fallback) && admit_key(r) && !admit_size(r))
        http_fail(r, HTTP_ERROR_TOO_LARGE, NULL, NULL);
}
