/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing answers: status line, the four headers that matter, a body by length, in chunks, or until
 * the connection closes.
 */
#include "cli/client.h"

#include <errno.h>

/* The head, and how the body is framed. */
struct head {
    unsigned status;
    size_t size; /* with the empty line */
    bool has_length;
    uint64_t length;
    bool chunked;
    bool last;
    uint64_t retry_after_ms;
};

/* One line without its CR LF; false at the empty line or the end. */
static bool next_line(struct bytes *rest, struct bytes *line) {
    const uint8_t *end = memchr(rest->data, '\n', rest->size);
    if (!end)
        return false;
    size_t size = (size_t)(end - rest->data);
    *line = bytes_of(rest->data, size > 0 && end[-1] == '\r' ? size - 1 : size);
    *rest = bytes_of(end + 1, rest->size - size - 1);
    return line->size > 0;
}

static uint8_t lower(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c - 'A' + 'a') : c;
}

static bool starts_with(struct bytes b, const char *lower_case) {
    size_t size = strlen(lower_case);
    if (b.size < size)
        return false;
    for (size_t i = 0; i < size; i++)
        if (lower(b.data[i]) != (uint8_t)lower_case[i])
            return false;
    return true;
}

/* The value of the header if that is its name. */
static bool header_value(struct bytes line, const char *name, struct bytes *value) {
    size_t size = strlen(name);
    if (!starts_with(line, name) || line.size <= size || line.data[size] != ':')
        return false;
    *value = bytes_of(line.data + size + 1, line.size - size - 1);
    while (value->size > 0 && (value->data[0] == ' ' || value->data[0] == '\t'))
        *value = bytes_of(value->data + 1, value->size - 1);
    return true;
}

static uint64_t number_of(struct bytes text) {
    uint64_t number = 0;
    for (size_t i = 0; i < text.size && text.data[i] >= '0' && text.data[i] <= '9'; i++)
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    return number;
}

static void take_header(struct head *head, struct bytes line) {
    struct bytes value;
    if (header_value(line, "content-length", &value)) {
        head->has_length = true;
        head->length = number_of(value);
    } else if (header_value(line, "transfer-encoding", &value)) {
        head->chunked = starts_with(value, "chunked");
    } else if (header_value(line, "connection", &value)) {
        head->last = starts_with(value, "close");
    } else if (header_value(line, "retry-after", &value)) {
        head->retry_after_ms = number_of(value) * 1000;
    }
}

static int parse_head(struct bytes in, struct head *ret_head) {
    struct head head = {0};
    struct bytes rest = in;
    struct bytes line;
    if (!memmem(in.data, in.size, "\r\n\r\n", 4))
        return in.size > (64 << 10) ? CLIENT_E_PROTOCOL : CLIENT_E_MORE;
    if (!next_line(&rest, &line) || !starts_with(line, "http/1.") || line.size < 12)
        return CLIENT_E_PROTOCOL;
    head.last = line.data[7] == '0';
    head.status = (unsigned)number_of(bytes_of(line.data + 9, 3));
    while (next_line(&rest, &line))
        take_header(&head, line);
    head.size = in.size - rest.size;
    if (head.status < 100 || head.status > 599)
        return CLIENT_E_PROTOCOL;
    *ret_head = head;
    return 0;
}

static bool hexadecimal(struct bytes line, uint64_t *ret_number) {
    uint64_t number = 0;
    size_t i = 0;
    for (; i < line.size && i < 8; i++) {
        uint8_t c = lower(line.data[i]);
        if (c >= '0' && c <= '9')
            number = number * 16 + (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            number = number * 16 + (uint64_t)(c - 'a') + 10;
        else
            break;
    }
    *ret_number = number;
    return i > 0;
}

/* Answers of our servers are short: they are put together anew at each step until they are whole.
 */
static int join_chunks(struct bytes rest, struct buffer *chunks) {
    struct bytes line;
    buffer_clear(chunks);
    for (;;) {
        uint64_t size;
        if (!memchr(rest.data, '\n', rest.size))
            return CLIENT_E_MORE;
        if (!next_line(&rest, &line) || !hexadecimal(line, &size))
            return CLIENT_E_PROTOCOL;
        if (rest.size < size + 2)
            return CLIENT_E_MORE;
        if (size == 0)
            return buffer_check(chunks);
        buffer_append(chunks, rest.data, size);
        rest = bytes_of(rest.data + size + 2, rest.size - size - 2);
    }
}

/* The body without chunks. */
static int take_body(const struct head *head, struct bytes rest, bool complete,
                     struct bytes *ret_body) {
    bool none = head->status == 204 || head->status == 304;
    uint64_t length = none ? 0 : head->has_length ? head->length : rest.size;
    if (!none && !head->has_length && !complete)
        return CLIENT_E_MORE;
    if (rest.size < length)
        return CLIENT_E_MORE;
    *ret_body = bytes_of(rest.data, length);
    return 0;
}

int client_parse(struct bytes in, bool complete, struct buffer *chunks,
                 struct client_answer *ret_answer, bool *ret_last) {
    struct head head;
    struct bytes body = {0};
    int r = parse_head(in, &head);
    if (r)
        return r;
    struct bytes rest = bytes_of(in.data + head.size, in.size - head.size);
    if (head.status < 200) /* 100 Continue: the answer comes behind it */
        return client_parse(rest, complete, chunks, ret_answer, ret_last);
    r = head.chunked ? join_chunks(rest, chunks) : take_body(&head, rest, complete, &body);
    if (r)
        return r;
    *ret_answer = (struct client_answer){.status = head.status,
                                         .body = head.chunked ? buffer_bytes(chunks) : body,
                                         .retry_after_ms = head.retry_after_ms};
    *ret_last = head.last;
    return 0;
}
