/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's connection: closed ─▶ connecting ─▶ writing ─▶ reading ─▶ idle ─▶ writing …
 */
#include "cli/client.h"

#include "base/json.h"

#include <assert.h>
#include <errno.h>

enum { READ_BYTES = 16 << 10, ANSWER_MAX_BYTES = 64 << 20 };

void client_init(struct client *c, const struct socket_address *address) {
    *c = (struct client){.address = *address, .fd = -1};
}

void client_close(struct client *c) {
    if (c->fd >= 0)
        socket_close(c->fd);
    c->fd = -1;
    c->state = CLIENT_CLOSED;
}

void client_deinit(struct client *c) {
    client_close(c);
    buffer_deinit(&c->in);
    buffer_deinit(&c->body);
}

int client_begin(struct client *c, struct bytes request) {
    assert(c->state == CLIENT_CLOSED || c->state == CLIENT_IDLE);
    c->request = request;
    c->last = false;
    buffer_clear(&c->in);
    buffer_clear(&c->body);
    if (c->state == CLIENT_IDLE) {
        c->state = CLIENT_WRITING;
        return 0;
    }
    int r = socket_connect(&c->address, &c->fd);
    if (r == OS_E_CLOSED)
        return CLIENT_E_CLOSED;
    if (r)
        return error_fold(r);
    c->state = CLIENT_CONNECTING;
    return 0;
}

short client_events(const struct client *c) {
    return c->state == CLIENT_READING ? POLLIN : POLLOUT;
}

static int write_some(struct client *c) {
    while (c->request.size > 0) {
        size_t size;
        int r = socket_write(c->fd, c->request.data, c->request.size, &size);
        if (r == OS_E_AGAIN)
            return CLIENT_E_MORE;
        if (r)
            return r == OS_E_CLOSED ? CLIENT_E_CLOSED : error_fold(r);
        c->request = bytes_of(c->request.data + size, c->request.size - size);
    }
    return 0;
}

static int parse_answer(struct client *c, bool complete, struct client_answer *ret_answer) {
    int r = client_parse(buffer_bytes(&c->in), complete, &c->body, ret_answer, &c->last);
    if (r == CLIENT_E_MORE && complete)
        return CLIENT_E_CLOSED;
    return r;
}

static int read_some(struct client *c, struct client_answer *ret_answer) {
    size_t size;
    uint8_t *room = buffer_reserve(&c->in, READ_BYTES);
    if (!room)
        return error_origin(-ENOMEM);
    int r = socket_read(c->fd, room, READ_BYTES, &size);
    if (r == OS_E_AGAIN)
        return CLIENT_E_MORE;
    if (r == OS_E_CLOSED) {
        r = parse_answer(c, true, ret_answer);
        c->last = true;
        return r;
    }
    if (r)
        return error_fold(r);
    c->in.size += size;
    if (c->in.size > ANSWER_MAX_BYTES)
        return CLIENT_E_PROTOCOL;
    return parse_answer(c, false, ret_answer);
}

static int step(struct client *c, struct client_answer *ret_answer) {
    if (c->state == CLIENT_CONNECTING || c->state == CLIENT_WRITING) {
        int r = write_some(c);
        if (r)
            return r;
        c->state = CLIENT_READING;
        return CLIENT_E_MORE; /* it takes a while */
    }
    return read_some(c, ret_answer);
}

int client_step(struct client *c, struct client_answer *ret_answer) {
    int r = step(c, ret_answer);
    if (r == CLIENT_E_MORE)
        return r;
    if (r || c->last)
        client_close(c);
    else
        c->state = CLIENT_IDLE;
    return r;
}

int client_ask(struct client *c, struct os *os, struct bytes request, uint64_t timeout_ms,
               struct client_answer *ret_answer) {
    uint64_t deadline = os_monotonic_ns(os) + timeout_ms * 1000000;
    int r = client_begin(c, request);
    if (r)
        return r;
    do {
        struct pollfd poll = {.fd = c->fd, .events = client_events(c)};
        uint64_t now = os_monotonic_ns(os);
        int ready =
            now >= deadline ? 0 : socket_poll(&poll, 1, (int)((deadline - now) / 1000000 + 1));
        if (ready <= 0) {
            client_close(c);
            return ready < 0 ? error_trace(ready) : CLIENT_E_TIMEOUT;
        }
        r = client_step(c, ret_answer);
    } while (r == CLIENT_E_MORE);
    return r;
}

/* A load generator does this a million times: no format is interpreted. */
void client_append_head(struct buffer *out, const struct client_target *target,
                        const struct client_head *head) {
    buffer_append_string(out, head->method);
    buffer_append_u8(out, ' ');
    buffer_append_string(out, target->url.path);
    buffer_append_string(out, head->path);
    buffer_append_string(out, " HTTP/1.1\r\nHost: ");
    buffer_append_string(out, target->url.host);
    buffer_append_u8(out, ':');
    json_append_u64(out, target->url.port);
    if (target->api_key[0]) {
        buffer_append_string(out, "\r\napi-key: ");
        buffer_append_string(out, target->api_key);
    }
    buffer_append_string(out, "\r\nContent-Type: ");
    buffer_append_string(out, head->content_type ? head->content_type : "application/json");
    buffer_append_string(out, "\r\nContent-Length: ");
    json_append_u64(out, head->body_size);
    buffer_append_string(out, "\r\n\r\n");
}

const char *client_reason(int r) {
    switch (r) {
    case CLIENT_E_CLOSED:
        return "the connection was refused or closed";
    case CLIENT_E_PROTOCOL:
        return "what answers is not an HTTP server";
    case CLIENT_E_TIMEOUT:
        return "there was no answer in time";
    default:
        return r < 0 ? strerror(-r) : "it failed";
    }
}
