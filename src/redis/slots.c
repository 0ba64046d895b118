/* SPDX-License-Identifier: Apache-2.0 */
/* Keys to slots, and what nodes say about who serves them. */
#include "redis/slots.h"

enum { PORT_MAX = 65535 };

/* ---- Addresses ---- */

bool redis_address_set(struct redis_address *a, struct bytes host, uint64_t port) {
    if (host.size == 0 || host.size >= sizeof a->host || port == 0 || port > PORT_MAX ||
        memchr(host.data, '\0', host.size))
        return false;
    memcpy(a->host, host.data, host.size);
    a->host[host.size] = '\0';
    a->port = (uint16_t)port;
    return true;
}

bool redis_address_is_same(const struct redis_address *a, const struct redis_address *b) {
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* ---- Keys ---- */

/* CRC-16/XMODEM. */
static uint16_t crc16(struct bytes b) {
    uint16_t crc = 0;
    for (size_t i = 0; i < b.size; i++) {
        crc = (uint16_t)(crc ^ b.data[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

static struct bytes hashed_part(struct bytes key) {
    const uint8_t *open = key.size ? memchr(key.data, '{', key.size) : NULL;
    if (!open)
        return key;
    const uint8_t *from = open + 1;
    const uint8_t *close = memchr(from, '}', key.size - (size_t)(from - key.data));
    return close && close > from ? bytes_of(from, (size_t)(close - from)) : key;
}

unsigned redis_slot(struct bytes key) {
    return crc16(hashed_part(key)) % REDIS_SLOTS;
}

/* ---- Redirections ---- */

/* Digits alone, of a number that is at most `most`; *text moves behind them. */
static bool read_number(const char **text, uint64_t most, uint64_t *ret) {
    const char *at = *text;
    uint64_t number = 0;
    for (; *at >= '0' && *at <= '9' && number <= most; at++)
        number = number * 10 + (uint64_t)(*at - '0');
    if (at == *text || number > most)
        return false;
    *text = at;
    *ret = number;
    return true;
}

bool redis_redirect_parse(const char *error, const struct redis_address *asked,
                          struct redis_redirect *ret_redirect) {
    struct redis_redirect found = {.ask = strncmp(error, "ASK ", 4) == 0};
    uint64_t slot, port;
    if (!found.ask && strncmp(error, "MOVED ", 6) != 0)
        return false;
    const char *at = error + (found.ask ? 4 : 6);
    if (!read_number(&at, REDIS_SLOTS - 1, &slot) || *at++ != ' ')
        return false;
    const char *colon = strrchr(at, ':'); /* the last: IPv6 addresses stand without brackets */
    const char *digits = colon ? colon + 1 : "";
    if (!read_number(&digits, PORT_MAX, &port) || *digits)
        return false;
    struct bytes host = bytes_of(at, (size_t)(colon - at));
    if (bytes_equal(host, BYTES_LITERAL("?")))
        return false;
    if (host.size == 0)
        host = bytes_of_string(asked->host);
    found.slot = (unsigned)slot;
    if (!redis_address_set(&found.to, host, port))
        return false;
    *ret_redirect = found;
    return true;
}

/* ---- CLUSTER SLOTS ---- */

/* The index of a master, entered if it is new; false: they are too many. */
static bool enter_master(struct redis_topology *t, const struct redis_address *a,
                         uint16_t *ret_index) {
    size_t i = 0;
    while (i < t->n_masters && !redis_address_is_same(&t->masters[i], a))
        i++;
    if (i == REDIS_MASTERS_MAX)
        return false;
    if (i == t->n_masters)
        t->masters[t->n_masters++] = *a;
    *ret_index = (uint16_t)i;
    return true;
}

/* [host or nil, port, …]. False: of another form, or the node says that it knows no address. */
static bool read_node(const redisReply *node, const struct redis_address *asked,
                      struct redis_address *ret_address) {
    if (node->type != REDIS_REPLY_ARRAY || node->elements < 2 ||
        node->element[1]->type != REDIS_REPLY_INTEGER || node->element[1]->integer < 0)
        return false;
    const redisReply *name = node->element[0];
    bool is_text = name->type == REDIS_REPLY_STRING || name->type == REDIS_REPLY_STATUS;
    struct bytes host = bytes_of_string(asked->host);
    if (is_text && name->len > 0)
        host = bytes_of(name->str, name->len);
    else if (!is_text && name->type != REDIS_REPLY_NIL)
        return false;
    return !bytes_equal(host, BYTES_LITERAL("?")) &&
           redis_address_set(ret_address, host, (uint64_t)node->element[1]->integer);
}

/* [first slot, last slot, master, replicas…] */
static bool enter_range(struct redis_topology *t, const redisReply *range,
                        const struct redis_address *asked) {
    struct redis_address master;
    uint16_t index;
    if (range->type != REDIS_REPLY_ARRAY || range->elements < 3 ||
        range->element[0]->type != REDIS_REPLY_INTEGER ||
        range->element[1]->type != REDIS_REPLY_INTEGER)
        return false;
    long long first = range->element[0]->integer, last = range->element[1]->integer;
    if (first < 0 || first > last || last >= REDIS_SLOTS ||
        !read_node(range->element[2], asked, &master) || !enter_master(t, &master, &index))
        return false;
    for (long long slot = first; slot <= last; slot++)
        t->owner[slot] = index;
    return true;
}

bool redis_topology_parse(const redisReply *reply, const struct redis_address *asked,
                          struct redis_topology *ret_topology) {
    struct redis_topology *t = ret_topology;
    t->n_masters = 0;
    for (size_t i = 0; i < REDIS_SLOTS; i++)
        t->owner[i] = REDIS_NOBODY;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements > REDIS_SLOTS)
        return false;
    for (size_t i = 0; i < reply->elements; i++)
        if (!enter_range(t, reply->element[i], asked))
            return false;
    return t->n_masters > 0;
}
