/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records on their way to the journal: see outbox.h.
 */
#include "tasks/outbox.h"

#include "base/error.h"

#include <assert.h>

enum {
    GROUP_RECORDS_MAX = 256,
    GROUP_BYTES_MAX = 1 << 20, /* a group has one record at least, however large */
    PAUSE_NS = 10000000,
};

struct outbox_entry {
    uint64_t key;
    size_t at; /* in bytes */
    size_t size;
};

void outbox_init(struct outbox *o, struct os *os) {
    *o = (struct outbox){.os = os};
}

void outbox_deinit(struct outbox *o) {
    buffer_deinit(&o->bytes);
    buffer_deinit(&o->entries);
}

static bool try_add(struct outbox *o, const struct task_record *record) {
    struct outbox_entry entry = {.key = record->id.key, .at = o->bytes.size};
    task_record_encode(&o->bytes, record);
    entry.size = o->bytes.size - entry.at;
    if (!o->bytes.failed)
        buffer_append(&o->entries, &entry, sizeof entry);
    if (!o->bytes.failed && !o->entries.failed)
        return true;
    o->bytes.failed = o->entries.failed = false;
    o->bytes.size = entry.at;
    return false;
}

void outbox_add(struct outbox *o, const struct task_record *record) {
    while (!try_add(o, record))
        os_sleep_ns(o->os, PAUSE_NS);
}

static const struct outbox_entry *entries_of(const struct outbox *o, size_t *ret_n) {
    *ret_n = o->entries.size / sizeof(struct outbox_entry);
    return (const void *)o->entries.data;
}

/* How many it took, from the entry `first` on; 0 when it refuses. */
static size_t send_group(const struct outbox *o, size_t first, struct journal *j) {
    struct journal_record records[GROUP_RECORDS_MAX];
    size_t n_entries, n = 0, bytes = 0;
    const struct outbox_entry *entries = entries_of(o, &n_entries);
    for (; first + n < n_entries && n < GROUP_RECORDS_MAX; n++) {
        const struct outbox_entry *e = &entries[first + n];
        bytes += e->size;
        if (n > 0 && bytes > GROUP_BYTES_MAX)
            break;
        records[n] = (struct journal_record){.key_hash = e->key,
                                             .kind = JOURNAL_KIND_TASKS,
                                             .payload = bytes_of(o->bytes.data + e->at, e->size)};
    }
    int r = journal_append(j, records, n);
    return r ? 0 : n; /* a journal that refuses says so itself, in its state and metrics */
}

static void forget(struct outbox *o, size_t n_sent) {
    size_t n;
    const struct outbox_entry *entries = entries_of(o, &n);
    if (n_sent == n) {
        buffer_clear(&o->bytes);
        buffer_clear(&o->entries);
        return;
    }
    size_t bytes = entries[n_sent].at, head = n_sent * sizeof *entries;
    memmove(o->bytes.data, o->bytes.data + bytes, o->bytes.size - bytes);
    o->bytes.size -= bytes;
    memmove(o->entries.data, o->entries.data + head, o->entries.size - head);
    o->entries.size -= head;
    struct outbox_entry *left = (void *)o->entries.data;
    for (size_t i = 0; i < n - n_sent; i++)
        left[i].at -= bytes;
}

void outbox_send(struct outbox *o, struct journal *j) {
    size_t n_entries, sent = 0;
    (void)entries_of(o, &n_entries);
    while (sent < n_entries) {
        size_t n = send_group(o, sent, j);
        if (n == 0)
            break;
        sent += n;
    }
    if (sent)
        forget(o, sent);
}
