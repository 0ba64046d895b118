/* SPDX-License-Identifier: Apache-2.0 */
/*
 * librabbitmq with an end in time to every wait. What it lets wait without one is the sending of a
 * message: the socket's patience (TCP_USER_TIMEOUT) ends that. Frames are taken one by one, as a
 * message may come while a deadline passes: what has come of it stays in the tap.
 */
#include "journal/remote/rabbitmq_link.h"

#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PORT_PLAIN = 5672,
    PORT_TLS = 5671,
    CODE_ACCESS_REFUSED = 403,
    CODE_NOT_ALLOWED = 530, /* no such virtual host, for one */
    CODE_NOT_IMPLEMENTED = 540,
    TAP_HEARTBEAT_S = 60, /* a reader may be slow: nothing is lost with its connection */
    TAP_PREFETCH = 64,    /* each is a group of records, so few fill the pipe */
};
#define MAX_BYTES_DEFAULT UINT64_C(20000000000)
#define SEGMENT_BYTES_DEFAULT UINT64_C(500000000)
#define SEGMENT_BYTES_LEAST UINT64_C(4096)
#define BYTES_MOST (UINT64_C(1) << 53)
static const char SYSTEM_CA[] = "/etc/ssl/certs/ca-certificates.crt";

static struct timeval until(struct os *os, uint64_t deadline_ns) {
    uint64_t now = os_monotonic_ns(os);
    uint64_t us = deadline_ns > now ? (deadline_ns - now) / 1000 : 0;
    return (struct timeval){.tv_sec = (time_t)(us / 1000000),
                            .tv_usec = (suseconds_t)(us % 1000000)};
}

/* ---- What went wrong ---- */

int link_check_status(struct link *l, int status, const char *what) {
    l->code = 0;
    if (status == AMQP_STATUS_OK)
        return 0;
    if (status == AMQP_STATUS_NO_MEMORY)
        return error_origin(-ENOMEM);
    bool final = status == AMQP_STATUS_SSL_PEER_VERIFY_FAILED ||
                 status == AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED ||
                 status == AMQP_STATUS_BROKER_UNSUPPORTED_SASL_METHOD;
    return log_fail(l->why, final ? LOG_E_REFUSED : LOG_E_UNAVAILABLE, "%s: %s%s%s", l->peer,
                    what ? what : "", what ? ": " : "", amqp_error_string2(status));
}

static int refused_by_broker(struct link *l, int code, amqp_bytes_t text, const char *what) {
    l->code = code;
    bool final = code == CODE_ACCESS_REFUSED || code == LINK_CODE_PRECONDITION_FAILED ||
                 code == CODE_NOT_ALLOWED || code == CODE_NOT_IMPLEMENTED;
    return log_fail(l->why, final ? LOG_E_REFUSED : LOG_E_UNAVAILABLE, "%s: %s%s%d %.*s", l->peer,
                    what ? what : "", what ? ": " : "", code,
                    (int)(text.len < LOG_WHY_MAX ? text.len : LOG_WHY_MAX),
                    text.len ? (const char *)text.bytes : "");
}

/* The broker closed the channel or the connection. */
static int closed_by_broker(struct link *l, const amqp_method_t *method, const char *what) {
    if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *close = method->decoded;
        return refused_by_broker(l, close->reply_code, close->reply_text, what);
    }
    const amqp_connection_close_t *close = method->decoded;
    return refused_by_broker(l, close->reply_code, close->reply_text, what);
}

int link_check(struct link *l, amqp_rpc_reply_t reply, const char *what) {
    switch (reply.reply_type) {
    case AMQP_RESPONSE_NORMAL:
        return link_check_status(l, AMQP_STATUS_OK, what);
    case AMQP_RESPONSE_LIBRARY_EXCEPTION:
        return link_check_status(l, reply.library_error, what);
    case AMQP_RESPONSE_SERVER_EXCEPTION:
        if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD ||
            reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD)
            return closed_by_broker(l, &reply.reply, what);
        break;
    case AMQP_RESPONSE_NONE:
        break;
    }
    return link_check_status(l, AMQP_STATUS_CONNECTION_CLOSED, what);
}

/* ---- Connecting ---- */

void link_init(struct link *l, struct os *os, const struct service_url *url, uint64_t patience_ms) {
    *l = (struct link){.os = os, .url = url, .patience_ms = patience_ms, .peer = "RabbitMQ"};
}

void link_drop(struct link *l, uint64_t deadline_ns) {
    if (!l->state)
        return;
    if (deadline_ns > 0 && link_set_deadline(l, deadline_ns) == 0)
        (void)amqp_connection_close(l->state, AMQP_REPLY_SUCCESS);
    (void)amqp_destroy_connection(l->state);
    l->state = NULL;
    l->blocked = false;
}

int link_set_deadline(struct link *l, uint64_t deadline_ns) {
    struct timeval left = until(l->os, deadline_ns);
    return link_check_status(l, amqp_set_rpc_timeout(l->state, &left), "setting a timeout");
}

/* A socket of the kind that the URL asks for; it belongs to the connection. */
static int new_socket(struct link *l, bool tls, amqp_socket_t **ret_socket) {
    amqp_socket_t *socket = tls ? amqp_ssl_socket_new(l->state) : amqp_tcp_socket_new(l->state);
    if (!socket)
        return error_origin(-ENOMEM);
    if (tls) {
        const char *ca = service_url_parameter(l->url, "ca");
        if (!ca)
            ca = SYSTEM_CA;
        amqp_ssl_socket_set_verify_peer(socket, 1);
        amqp_ssl_socket_set_verify_hostname(socket, 1);
        if (amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST) ||
            amqp_ssl_socket_set_cacert(socket, ca))
            return log_fail(l->why, LOG_E_REFUSED, "%s holds no certificates that can be read", ca);
    }
    *ret_socket = socket;
    return 0;
}

/* We want to be told when the broker takes no messages, and when a consumer's queue is gone. */
static int log_in(struct link *l, int heartbeat_s) {
    amqp_table_entry_t can[] = {
        {amqp_cstring_bytes("connection.blocked"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}}},
        {amqp_cstring_bytes("consumer_cancel_notify"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}}},
        {amqp_cstring_bytes("basic.nack"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}}},
        {amqp_cstring_bytes("publisher_confirms"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}}},
    };
    amqp_table_entry_t entries[] = {
        {amqp_cstring_bytes("capabilities"),
         {AMQP_FIELD_KIND_TABLE, {.table = {ARRAY_LENGTH(can), can}}}},
        {amqp_cstring_bytes("connection_name"),
         {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes("millrace")}}},
    };
    amqp_table_t properties = {ARRAY_LENGTH(entries), entries};
    const char *user = l->url->user ? l->url->user : "guest";
    const char *password = l->url->password ? l->url->password : "guest";
    amqp_rpc_reply_t reply = amqp_login_with_properties(
        l->state, l->url->path[0] ? l->url->path : "/", 0, AMQP_DEFAULT_FRAME_SIZE, heartbeat_s,
        &properties, AMQP_SASL_METHOD_PLAIN, user, password);
    return link_check(l, reply, NULL);
}

static int connect_host(struct link *l, const struct service_host *host, int heartbeat_s,
                        uint64_t deadline_ns) {
    bool tls = strcmp(l->url->scheme, "amqps") == 0;
    int port = host->port ? host->port : tls ? PORT_TLS : PORT_PLAIN;
    snprintf(l->peer, sizeof l->peer, "RabbitMQ at %.100s:%d", host->name, port);
    l->state = amqp_new_connection();
    if (!l->state)
        return error_origin(-ENOMEM);
    amqp_socket_t *socket = NULL;
    int r = new_socket(l, tls, &socket);
    if (r)
        return r;
    struct timeval left = until(l->os, deadline_ns);
    r = link_check_status(l, amqp_socket_open_noblock(socket, host->name, port, &left), NULL);
    if (r)
        return r;
    /* librabbitmq waits without end for room in the socket as long as the broker's heartbeats come,
     * and they come also while it takes no messages. */
    socket_set_patience(amqp_get_sockfd(l->state), l->patience_ms);
    left = until(l->os, deadline_ns);
    r = link_check_status(l, amqp_set_handshake_timeout(l->state, &left), NULL);
    if (r == 0)
        r = log_in(l, heartbeat_s);
    if (r == 0)
        r = link_set_deadline(l, deadline_ns);
    if (r)
        return r;
    amqp_channel_open(l->state, LINK_CHANNEL);
    return link_check(l, amqp_get_rpc_reply(l->state), NULL);
}

int link_connect(struct link *l, int heartbeat_s, uint64_t deadline_ns) {
    int r = LOG_E_UNAVAILABLE;
    for (size_t left = l->url->n_hosts; left > 0; left--) {
        uint64_t now = os_monotonic_ns(l->os);
        uint64_t share = deadline_ns > now ? (deadline_ns - now) / left : 0;
        r = connect_host(l, &l->url->hosts[l->host], heartbeat_s, now + share);
        if (r <= 0)
            break;
        link_drop(l, 0);
        l->host = (l->host + 1) % l->url->n_hosts;
    }
    if (r < 0)
        link_drop(l, 0);
    return r;
}

int link_reopen(struct link *l) {
    amqp_channel_close_ok_t ok = {0};
    int r = link_check_status(
        l, amqp_send_method(l->state, LINK_CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok),
        "closing a channel");
    if (r)
        return r;
    amqp_channel_open(l->state, LINK_CHANNEL);
    return link_check(l, amqp_get_rpc_reply(l->state), "opening a channel");
}

/* Whether a frame is about the link itself; then *ret_result says what becomes of it. */
static bool is_about_link(struct link *l, const amqp_frame_t *frame, int *ret_result) {
    *ret_result = 0;
    if (frame->frame_type != AMQP_FRAME_METHOD)
        return false;
    switch (frame->payload.method.id) {
    case AMQP_CHANNEL_CLOSE_METHOD:
    case AMQP_CONNECTION_CLOSE_METHOD:
        *ret_result = closed_by_broker(l, &frame->payload.method, NULL);
        return true;
    case AMQP_CONNECTION_BLOCKED_METHOD: {
        const amqp_connection_blocked_t *blocked = frame->payload.method.decoded;
        l->blocked = true;
        return log_fail(l->blocked_why, true, "%s takes no messages: %.*s", l->peer,
                        (int)blocked->reason.len,
                        blocked->reason.len ? (const char *)blocked->reason.bytes : "");
    }
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
        l->blocked = false;
        return true;
    default:
        return false;
    }
}

int link_wait(struct link *l, uint64_t deadline_ns, amqp_frame_t *ret_frame) {
    for (;;) {
        amqp_frame_t frame;
        struct timeval left = until(l->os, deadline_ns);
        int status = amqp_simple_wait_frame_noblock(l->state, &frame, &left);
        if (status == AMQP_STATUS_TIMEOUT)
            return LOG_E_END;
        int r = link_check_status(l, status, NULL);
        if (r)
            return r;
        if (!is_about_link(l, &frame, &r)) {
            *ret_frame = frame;
            return 0;
        }
        if (r)
            return r;
    }
}

int link_publish(struct link *l, const char *queue, bool mandatory,
                 const amqp_basic_properties_t *properties, struct bytes body) {
    union { /* librabbitmq takes what it only reads as not const */
        const uint8_t *borrowed;
        void *data;
    } to = {.borrowed = body.data};
    amqp_basic_properties_t none = {0};
    return link_check_status(l,
                             amqp_basic_publish(l->state, LINK_CHANNEL, amqp_empty_bytes,
                                                amqp_cstring_bytes(queue), mandatory, 0,
                                                properties ? properties : &none,
                                                (amqp_bytes_t){.len = body.size, .bytes = to.data}),
                             NULL);
}

/* ---- Making a stream ---- */

int stream_bounds_read(struct stream_bounds *b, const struct service_url *url,
                       char why[LOG_WHY_MAX]) {
    *b = (struct stream_bounds){MAX_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT};
    if (!service_url_parameter_number(url, "segment-bytes", SEGMENT_BYTES_LEAST, BYTES_MOST,
                                      &b->segment_bytes))
        return log_fail(why, LOG_E_REFUSED,
                        "the URL's segment-bytes is no number of bytes from 4096 on");
    if (!service_url_parameter_number(url, "max-bytes", b->segment_bytes, BYTES_MOST,
                                      &b->max_bytes))
        return log_fail(why, LOG_E_REFUSED,
                        "the URL's max-bytes is no number of bytes from segment-bytes on");
    return 0;
}

int link_declare_stream(struct link *l, const char *stream, const struct stream_bounds *bounds) {
    amqp_table_entry_t entries[] = {
        {amqp_cstring_bytes("x-queue-type"),
         {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes("stream")}}},
        {amqp_cstring_bytes("x-max-length-bytes"),
         {AMQP_FIELD_KIND_I64, {.i64 = (int64_t)bounds->max_bytes}}},
        {amqp_cstring_bytes("x-stream-max-segment-size-bytes"),
         {AMQP_FIELD_KIND_I64, {.i64 = (int64_t)bounds->segment_bytes}}},
    };
    amqp_table_t arguments = {ARRAY_LENGTH(entries), entries};
    amqp_queue_declare(l->state, LINK_CHANNEL, amqp_cstring_bytes(stream), 0, 1, 0, 0, arguments);
    return link_check(l, amqp_get_rpc_reply(l->state), "declaring a stream");
}

/* ---- Reading a stream ---- */

void tap_init(struct tap *t, struct os *os, const struct service_url *url, uint64_t patience_ms) {
    *t = (struct tap){.body = BUFFER_INIT, .prefetch = TAP_PREFETCH};
    link_init(&t->link, os, url, patience_ms);
}

void tap_deinit(struct tap *t) {
    link_drop(&t->link, 0);
    buffer_deinit(&t->body);
}

enum { CONSUMER_TEXT = 24 };

static amqp_bytes_t consumer_text(uint64_t consumer, char text[CONSUMER_TEXT]) {
    snprintf(text, CONSUMER_TEXT, "%llu", (unsigned long long)consumer);
    return amqp_cstring_bytes(text);
}

static int consume(struct tap *t, const char *stream, int64_t offset, uint64_t consumer) {
    char tag[CONSUMER_TEXT];
    amqp_table_entry_t entry = {amqp_cstring_bytes("x-stream-offset"),
                                {AMQP_FIELD_KIND_I64, {.i64 = offset}}};
    if (offset == TAP_LAST)
        entry.value =
            (amqp_field_value_t){AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes("last")}};
    amqp_table_t arguments = {1, &entry};
    amqp_basic_qos(t->link.state, LINK_CHANNEL, 0, (uint16_t)t->prefetch, 0);
    int r = link_check(&t->link, amqp_get_rpc_reply(t->link.state), "reading the stream");
    if (r)
        return r;
    amqp_basic_consume(t->link.state, LINK_CHANNEL, amqp_cstring_bytes(stream),
                       consumer_text(consumer, tag), 0, 0, 0, arguments);
    r = link_check(&t->link, amqp_get_rpc_reply(t->link.state), "reading the stream");
    /* This node has no replica, or has not started it yet. */
    return t->link.code == LINK_CODE_PRECONDITION_FAILED ? LOG_E_UNAVAILABLE : r;
}

int tap_connect(struct tap *t, uint64_t deadline_ns) {
    link_drop(&t->link, 0);
    t->has_header = false;
    t->unacknowledged = 0;
    return link_connect(&t->link, TAP_HEARTBEAT_S, deadline_ns);
}

int tap_consume(struct tap *t, const char *stream, int64_t offset, uint64_t consumer,
                uint64_t deadline_ns) {
    int r = link_set_deadline(&t->link, deadline_ns);
    if (r == 0)
        r = consume(t, stream, offset, consumer);
    if (r) {
        link_drop(&t->link, 0);
        t->link.host = (t->link.host + 1) % t->link.url->n_hosts;
    }
    return r;
}

void tap_cancel(struct tap *t, uint64_t consumer) {
    char tag[CONSUMER_TEXT];
    amqp_basic_cancel_t cancel = {.consumer_tag = consumer_text(consumer, tag), .nowait = 1};
    int r = link_check_status(
        &t->link, amqp_send_method(t->link.state, LINK_CHANNEL, AMQP_BASIC_CANCEL_METHOD, &cancel),
        "reading the stream");
    if (r)
        link_drop(&t->link, 0);
}

int tap_attach(struct tap *t, const char *stream, int64_t offset, uint64_t deadline_ns) {
    int r = tap_connect(t, deadline_ns);
    return r ? r : tap_consume(t, stream, offset, 0, deadline_ns);
}

static bool offset_of(const amqp_basic_properties_t *properties, uint64_t *ret_offset) {
    static const char name[] = "x-stream-offset";
    for (int i = 0; i < properties->headers.num_entries; i++) {
        const amqp_table_entry_t *entry = &properties->headers.entries[i];
        if (bytes_equal(bytes_of(entry->key.bytes, entry->key.len), bytes_of(name, strlen(name))) &&
            entry->value.kind == AMQP_FIELD_KIND_I64) {
            *ret_offset = (uint64_t)entry->value.value.i64;
            return true;
        }
    }
    return false;
}

static void take_delivery(struct tap *t, const amqp_basic_deliver_t *deliver) {
    const char *text = deliver->consumer_tag.bytes;
    t->tag = deliver->delivery_tag;
    t->consumer = 0;
    for (size_t i = 0; i < deliver->consumer_tag.len; i++)
        t->consumer = t->consumer * 10 + (uint64_t)(unsigned char)(text[i] - '0');
}

/* Takes in a frame of a message; *ret_whole: that was its last. */
static int take_frame(struct tap *t, const amqp_frame_t *frame, bool *ret_whole) {
    *ret_whole = false;
    if (frame->frame_type == AMQP_FRAME_METHOD) {
        if (frame->payload.method.id == AMQP_BASIC_DELIVER_METHOD)
            take_delivery(t, frame->payload.method.decoded);
        else if (frame->payload.method.id == AMQP_BASIC_CANCEL_METHOD)
            return log_fail(t->link.why, LOG_E_UNAVAILABLE, "the stream cannot be read now");
        return 0;
    }
    if (frame->frame_type == AMQP_FRAME_HEADER) {
        if (!offset_of(frame->payload.properties.decoded, &t->offset))
            return log_fail(t->link.why, LOG_E_REFUSED, "what is read is not a stream");
        t->has_header = true;
        t->body_size = frame->payload.properties.body_size;
        buffer_clear(&t->body);
    } else if (frame->frame_type == AMQP_FRAME_BODY && t->has_header) {
        buffer_append(&t->body, frame->payload.body_fragment.bytes,
                      frame->payload.body_fragment.len);
    }
    *ret_whole = t->has_header && t->body.size >= t->body_size;
    return buffer_check(&t->body);
}

/* The broker sends so many ahead: half of them are acknowledged at once. */
static int acknowledge(struct tap *t) {
    if (++t->unacknowledged < t->prefetch / 2)
        return 0;
    t->unacknowledged = 0;
    return link_check_status(&t->link, amqp_basic_ack(t->link.state, LINK_CHANNEL, t->tag, 1),
                             "reading the stream");
}

int tap_next(struct tap *t, uint64_t deadline_ns, struct bytes *ret_body, uint64_t *ret_offset) {
    bool whole = false;
    while (!whole) {
        amqp_frame_t frame;
        int r = link_wait(&t->link, deadline_ns, &frame);
        if (r == 0)
            r = take_frame(t, &frame, &whole);
        if (r == LOG_E_END)
            return r;
        if (r == 0 && whole)
            r = acknowledge(t);
        if (r) {
            link_drop(&t->link, 0);
            return r;
        }
    }
    t->has_header = false;
    amqp_maybe_release_buffers(t->link.state);
    *ret_body = buffer_bytes(&t->body);
    *ret_offset = t->offset;
    return 0;
}
