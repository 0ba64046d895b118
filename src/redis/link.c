/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the master, connecting, asking, and what an error reply means. */
#include "redis/link.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SENTINEL_PORT = 26379,
    DATABASES_MAX = 65536,
    KEPT_BYTES_MAX = 1 << 20, /* of memory for what is sent, between two calls */
    OLDEST_MAJOR = 6,         /* 6.2 brought XTRIM MINID and ranges that leave their start out */
    OLDEST_MINOR = 2,
};
#define NS_PER_MS UINT64_C(1000000)

static bool has_sentinels(const struct service_url *u) {
    return strcmp(u->scheme, "redis+sentinel") == 0;
}

bool redis_url_is_cluster(const struct service_url *u) {
    return strcmp(u->scheme, "redis+cluster") == 0;
}

void redis_say(char why[REDIS_WHY_MAX], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why, REDIS_WHY_MAX, format, args);
    va_end(args);
}

/* ---- The URL ---- */

static bool is_database(const char *path) {
    char *end;
    return *path >= '0' && *path <= '9' && strtoul(path, &end, 10) < DATABASES_MAX && !*end;
}

/* What a URL of this scheme cannot have. */
static const char *wrong_parts(const struct service_url *u) {
    if (has_sentinels(u))
        return *u->path && !strchr(u->path, '/')
                   ? NULL
                   : "redis+sentinel://HOST,HOST,HOST/NAME wants the name by which the Sentinels "
                     "know their master";
    if (service_url_parameter(u, "sentinel-user") || service_url_parameter(u, "sentinel-password"))
        return "sentinel-user and sentinel-password belong to redis+sentinel://";
    if (redis_url_is_cluster(u))
        return *u->path
                   ? "behind redis+cluster://HOST,HOST/ comes nothing: a Redis Cluster has one "
                     "database"
                   : NULL;
    if (u->n_hosts != 1)
        return "redis:// has one host; several are Sentinels, redis+sentinel://HOST,HOST,HOST/NAME";
    if (*u->path && !is_database(u->path))
        return "behind redis://HOST:PORT/ comes nothing, or the number of a database";
    return NULL;
}

bool redis_link_check_url(const struct service_url *u, char why[REDIS_WHY_MAX]) {
    const char *wrong;
    if (strncmp(u->scheme, "rediss", 6) == 0)
        wrong =
            "TLS to Redis is not offered: let a tunnel or a proxy beside Millrace speak it, and "
            "name that with redis://";
    else if (u->user && !u->password)
        wrong =
            "a URL of Redis has a user and a password, or a password alone: redis://:PASSWORD@HOST";
    else
        wrong = wrong_parts(u);
    if (wrong)
        redis_say(why, "%s", wrong);
    return wrong == NULL;
}

/* ---- One connection ---- */

void redis_link_init(struct redis_link *l, struct os *os, const struct service_url *url,
                     uint64_t timeout_ms, char *why) {
    *l = (struct redis_link){.os = os, .url = url, .timeout_ms = timeout_ms, .why = why};
}

void redis_link_init_node(struct redis_link *l, struct os *os, const struct service_url *url,
                          const struct redis_address *node, char *why) {
    *l = (struct redis_link){.os = os, .url = url, .node = node, .why = why};
}

void redis_link_deinit(struct redis_link *l) {
    redis_link_hang_up(l);
    buffer_deinit(&l->out);
}

void redis_link_hang_up(struct redis_link *l) {
    if (l->connection)
        redisFree(l->connection);
    l->connection = NULL;
    buffer_clear(&l->out);
}

void redis_link_begin(struct redis_link *l, uint64_t wait_ms) {
    l->deadline_ns = os_monotonic_ns(l->os) + (l->timeout_ms + wait_ms) * NS_PER_MS;
}

void redis_link_until(struct redis_link *l, uint64_t deadline_ns) {
    l->deadline_ns = deadline_ns;
}

int redis_link_odd(struct redis_link *l) {
    return redis_link_drop(l, "%s gave an answer of another form than Redis does", l->peer);
}

uint64_t redis_link_left_ms(const struct redis_link *l) {
    uint64_t now = os_monotonic_ns(l->os);
    return now < l->deadline_ns ? (l->deadline_ns - now) / NS_PER_MS + 1 : 0;
}

static struct timeval timeval_of(uint64_t ms) {
    return (struct timeval){.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

#define too_late(l) redis_link_drop((l), "%s did not answer in time", (l)->peer)

/* hiredis has put an error into the connection, which ends. */
static void say_broken(struct redis_link *l) {
    bool timed_out = l->connection->err == REDIS_ERR_IO && errno == EAGAIN;
    redis_say(l->why, "%s %s%s", l->peer,
              timed_out ? "did not answer in time" : "is not reachable: ",
              timed_out ? "" : l->connection->errstr);
    redis_link_hang_up(l);
}

/* hiredis would allocate whatever number of elements it is told of. */
static void *make_bounded_array(const redisReadTask *task, int elements) {
    struct redis_link *l = task->privdata;
    if (elements < 0 || (size_t)elements > REDIS_REPLY_ELEMENTS_MAX - l->elements)
        return NULL;
    l->elements += (size_t)elements;
    return l->make_array(task, elements);
}

static void bound_replies(struct redis_link *l) {
    redisReader *reader = l->connection->reader;
    l->functions = *reader->fn;
    l->make_array = l->functions.createArray;
    l->functions.createArray = make_bounded_array;
    reader->fn = &l->functions;
    reader->privdata = l;
}

static int dial(struct redis_link *l, const char *what, const char *host, uint16_t port) {
    snprintf(l->peer, sizeof l->peer, "%s at %s:%u", what, host, port);
    redis_link_hang_up(l);
    uint64_t left_ms = redis_link_left_ms(l);
    if (left_ms == 0)
        return too_late(l);
    l->timeout_set_ms = 0;
    l->connection = redisConnectWithTimeout(host, port, timeval_of(left_ms));
    if (!l->connection)
        return redis_link_drop(l, "%s: out of memory", l->peer);
    if (!l->connection->err) {
        bound_replies(l);
        return 0;
    }
    say_broken(l);
    return REDIS_E_UNAVAILABLE;
}

/* ---- Sending and receiving ---- */

static void add_arguments(struct buffer *out, const struct bytes *arguments, size_t n) {
    for (size_t i = 0; i < n; i++) {
        buffer_append_format(out, "$%zu\r\n", arguments[i].size);
        buffer_append_bytes(out, arguments[i]);
        buffer_append(out, "\r\n", 2);
    }
}

void redis_link_add(struct redis_link *l, const struct bytes *head, size_t n_head,
                    const struct bytes *rest, size_t n_rest) {
    buffer_append_format(&l->out, "*%zu\r\n", n_head + n_rest);
    add_arguments(&l->out, head, n_head);
    add_arguments(&l->out, rest, n_rest);
}

static int set_timeout(struct redis_link *l) {
    uint64_t left_ms = redis_link_left_ms(l);
    if (left_ms == 0)
        return too_late(l);
    if (left_ms == l->timeout_set_ms)
        return 0;
    l->timeout_set_ms = left_ms;
    if (redisSetTimeout(l->connection, timeval_of(left_ms)) == REDIS_OK)
        return 0;
    say_broken(l);
    return REDIS_E_UNAVAILABLE;
}

static int write_out(struct redis_link *l) {
    int r = buffer_check(&l->out);
    if (r)
        return redis_link_drop(l, "no memory for what is to be sent to %s", l->peer);
    if (redisAppendFormattedCommand(l->connection, (const char *)l->out.data, l->out.size) !=
        REDIS_OK) {
        say_broken(l);
        return REDIS_E_UNAVAILABLE;
    }
    for (int done = 0; !done;) {
        r = set_timeout(l);
        if (r)
            return r;
        if (redisBufferWrite(l->connection, &done) != REDIS_OK) {
            say_broken(l);
            return REDIS_E_UNAVAILABLE;
        }
    }
    return 0;
}

int redis_link_send(struct redis_link *l) {
    int r = write_out(l);
    if (l->out.capacity > KEPT_BYTES_MAX)
        buffer_deinit(&l->out);
    buffer_clear(&l->out);
    return r;
}

int redis_link_receive(struct redis_link *l, redisReply **ret_reply) {
    redisReader *reader = l->connection->reader;
    void *reply = NULL;
    size_t bytes = 0;
    l->elements = 0;
    while (redisGetReplyFromReader(l->connection, &reply) == REDIS_OK && !reply) {
        size_t before = reader->len;
        int r = set_timeout(l);
        if (r)
            return r;
        if (redisBufferRead(l->connection) != REDIS_OK)
            break;
        bytes += reader->len - before;
        if (bytes > REDIS_REPLY_BYTES_MAX)
            return redis_link_drop(l, "%s gave an answer that is too large", l->peer);
    }
    if (reply) {
        *ret_reply = reply;
        return 0;
    }
    if (l->connection->err == REDIS_ERR_OOM)
        return redis_link_drop(l, "%s gave an answer for which there is no room", l->peer);
    say_broken(l);
    return REDIS_E_UNAVAILABLE;
}

/* A command and its reply, which may be an error. */
static int exchange(struct redis_link *l, const struct bytes *arguments, size_t n,
                    redisReply **ret_reply) {
    redis_link_add(l, arguments, n, NULL, 0);
    int r = redis_link_send(l);
    return r ? r : redis_link_receive(l, ret_reply);
}

/* ---- Error replies ---- */

/* Scripts put them behind words of their own. */
bool redis_error_is_passing(const char *error) {
    static const char *const passing[] = {
        "LOADING ",   "READONLY ", "MASTERDOWN ",  "NOREPLICAS ",
        "OOM ",       "MISCONF ",  "BUSY ",        "IOERR ",
        "UNBLOCKED ", "TRYAGAIN ", "CLUSTERDOWN ", "max number of clients",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(passing); i++)
        if (strstr(error, passing[i]))
            return true;
    return false;
}

void redis_link_say_error(struct redis_link *l, const redisReply *error) {
    const char *arguments = strstr(error->str, ", with args"); /* they are ours */
    size_t size = arguments ? (size_t)(arguments - error->str) : error->len;
    redis_say(l->why, "%s answers: %.*s", l->peer, (int)size, error->str);
}

/* Whether it passes; then the connection ends. */
static bool say_error(struct redis_link *l, const redisReply *reply) {
    bool passing = redis_error_is_passing(reply->str);
    redis_link_say_error(l, reply);
    if (passing)
        redis_link_hang_up(l);
    return passing;
}

/* On the connection there is. */
static int ask(struct redis_link *l, const struct bytes *arguments, size_t n,
               redisReply **ret_reply) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    int r = exchange(l, arguments, n, &reply);
    if (r)
        return r;
    if (reply->type == REDIS_REPLY_ERROR)
        return say_error(l, reply) ? REDIS_E_UNAVAILABLE : REDIS_E_REFUSED;
    *ret_reply = reply;
    reply = NULL;
    return 0;
}

/* ---- Connecting ---- */

/* The text of an error is not shown: it may repeat what was sent. */
static int authenticate(struct redis_link *l, const char *user, const char *password) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes arguments[3] = {BYTES_LITERAL("AUTH")};
    size_t n = 1;
    if (!password)
        return 0;
    if (user && *user)
        arguments[n++] = bytes_of_string(user);
    arguments[n++] = bytes_of_string(password);
    int r = exchange(l, arguments, n, &reply);
    if (r || reply->type != REDIS_REPLY_ERROR)
        return r;
    if (redis_error_is_passing(reply->str))
        return redis_link_drop(l, "%s is too busy to take a password", l->peer);
    return redis_fail(l->why, REDIS_E_REFUSED,
                      "%s takes another user and password than the URL's, or none", l->peer);
}

/* Its version, and whether it is a cluster's when it should be. */
static int check_server(struct redis_link *l) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    static const char name[] = "redis_version:";
    int r = ask(l, (struct bytes[]){BYTES_LITERAL("INFO"), BYTES_LITERAL("server")}, 2, &reply);
    if (r)
        return r;
    const char *text = reply->type == REDIS_REPLY_STRING ? strstr(reply->str, name) : NULL;
    if (!text)
        return redis_link_odd(l);
    char *end;
    unsigned long major = strtoul(text + strlen(name), &end, 10);
    unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    if (l->node && !strstr(reply->str, "redis_mode:cluster"))
        return redis_fail(l->why, REDIS_E_REFUSED,
                          "%s is no node of a cluster: a server alone is redis://", l->peer);
    if (major > OLDEST_MAJOR || (major == OLDEST_MAJOR && minor >= OLDEST_MINOR))
        return 0;
    return redis_fail(l->why, REDIS_E_REFUSED, "%s is version %lu.%lu, and Millrace needs %d.%d",
                      l->peer, major, minor, OLDEST_MAJOR, OLDEST_MINOR);
}

static int check_role(struct redis_link *l) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    int r = ask(l, (struct bytes[]){BYTES_LITERAL("ROLE")}, 1, &reply);
    if (r)
        return r;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0 ||
        reply->element[0]->type != REDIS_REPLY_STRING)
        return redis_link_odd(l);
    if (strcmp(reply->element[0]->str, "master") == 0)
        return 0;
    return redis_link_drop(l, "%s is no master, but a %s", l->peer, reply->element[0]->str);
}

static int select_database(struct redis_link *l) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    if (has_sentinels(l->url) || *l->url->path == '\0')
        return 0;
    return ask(l, (struct bytes[]){BYTES_LITERAL("SELECT"), bytes_of_string(l->url->path)}, 2,
               &reply);
}

static int dial_master(struct redis_link *l, const char *host, uint16_t port) {
    int r = dial(l, "Redis", host, port);
    if (!r)
        r = authenticate(l, l->url->user, l->url->password);
    if (!r)
        r = check_server(l);
    if (!r)
        r = check_role(l);
    return r ? r : select_database(l);
}

static int dial_node(struct redis_link *l) {
    int r = dial(l, "Redis", l->node->host, l->node->port);
    if (!r)
        r = authenticate(l, l->url->user, l->url->password);
    return r ? r : check_server(l);
}

/* Asks one Sentinel, and dials the master that it names. */
static int dial_by_sentinel(struct redis_link *l, const struct service_host *sentinel) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    int r = dial(l, "Sentinel", sentinel->name, sentinel->port ? sentinel->port : SENTINEL_PORT);
    if (!r)
        r = authenticate(l, service_url_parameter(l->url, "sentinel-user"),
                         service_url_parameter(l->url, "sentinel-password"));
    if (!r)
        r = ask(l,
                (struct bytes[]){BYTES_LITERAL("SENTINEL"),
                                 BYTES_LITERAL("get-master-addr-by-name"),
                                 bytes_of_string(l->url->path)},
                3, &reply);
    if (r)
        return r;
    if (reply->type == REDIS_REPLY_NIL)
        return redis_fail(l->why, REDIS_E_REFUSED, "%s knows no master named %.64s", l->peer,
                          l->url->path);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING)
        return redis_link_odd(l);
    return dial_master(l, reply->element[0]->str,
                       (uint16_t)strtoul(reply->element[1]->str, NULL, 10));
}

/* One after the other, each with its share of the time, until one names a master that is one, and
 * the next time from another on: one that is cut off together with the old master goes on naming
 * that. Refused only when all refuse. */
static int dial_by_sentinels(struct redis_link *l) {
    uint64_t deadline_ns = l->deadline_ns;
    int result = REDIS_E_REFUSED;
    size_t first = l->sentinel++;
    for (size_t i = 0; i < l->url->n_hosts; i++) {
        uint64_t now = os_monotonic_ns(l->os);
        if (now < deadline_ns)
            l->deadline_ns = now + (deadline_ns - now) / (l->url->n_hosts - i);
        int r = dial_by_sentinel(l, &l->url->hosts[(first + i) % l->url->n_hosts]);
        l->deadline_ns = deadline_ns;
        if (r <= 0)
            return r;
        if (r != REDIS_E_REFUSED)
            result = r;
    }
    return result;
}

static int dial_by_url(struct redis_link *l) {
    const struct service_host *host = &l->url->hosts[0];
    return has_sentinels(l->url) ? dial_by_sentinels(l)
                                 : dial_master(l, host->name, host->port ? host->port : REDIS_PORT);
}

int redis_link_connect(struct redis_link *l) {
    if (l->connection)
        return 0;
    int r = l->node ? dial_node(l) : dial_by_url(l);
    if (r)
        redis_link_hang_up(l);
    return r;
}

int redis_link_command(struct redis_link *l, const struct bytes *arguments, size_t n,
                       redisReply **ret_reply) {
    int r = redis_link_connect(l);
    return r ? r : ask(l, arguments, n, ret_reply);
}
