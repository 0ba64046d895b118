/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The URL of a part that another program is: one or several hosts, a path, parameters.
 *
 *     kafka://user:secret@one:9092,two:9092/?topic-prefix=mill-&replication=3
 *     └scheme └user ┘└password └hosts      └path └parameters
 *
 * Plain values, read once at the start; pure functions. What a scheme means is for its user.
 */
#ifndef MILLRACE_BASE_SERVICE_URL_H
#define MILLRACE_BASE_SERVICE_URL_H

#include "base/bytes.h"
#include "base/error.h"

enum { SERVICE_HOSTS_MAX = 32, SERVICE_PARAMETERS_MAX = 32, SERVICE_TEXT_MAX = 2048 };

struct service_host {
    const char *name; /* without an IPv6 address' brackets */
    uint16_t port;    /* 0: none is given */
};
struct service_parameter {
    const char *name;
    const char *value; /* percent-decoded; "" when there is no = */
};
/* Its texts lie in text, so a copy of the struct is none: pass it by pointer. */
struct service_url {
    const char *scheme;
    const char *user; /* NULL: none */
    const char *password;
    const char *path; /* without the slash before it, percent-decoded; "" for none */
    struct service_host hosts[SERVICE_HOSTS_MAX];
    size_t n_hosts;
    struct service_parameter parameters[SERVICE_PARAMETERS_MAX];
    size_t n_parameters;
    char text[SERVICE_TEXT_MAX];
};

/* False: *ret_why (static) is how a sentence about it ends, as "has too many hosts". */
bool service_url_parse(const char *text, struct service_url *ret_url,
                       const char **ret_why) MUST_USE;
/* The value, or NULL. */
const char *service_url_parameter(const struct service_url *u, const char *name);
/* A whole number from least to most. False when it is given and none; ret keeps its value when it
 * is not given. */
bool service_url_parameter_number(const struct service_url *u, const char *name, uint64_t least,
                                  uint64_t most, uint64_t *ret) MUST_USE;
/* yes, true, 1; no, false, 0. As above. */
bool service_url_parameter_flag(const struct service_url *u, const char *name, bool *ret) MUST_USE;
/* The first parameter that is not among names (NULL behind the last); NULL: all are. */
const char *service_url_parameter_unknown(const struct service_url *u, const char *const *names);
/* As it may be shown: without user and password, and without the values of parameters whose name
 * has "password" or "key" in it. */
void service_url_append_public(struct buffer *out, const struct service_url *u);

#endif
