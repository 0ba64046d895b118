/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of somebody else, put together: opening, closing, retention, and what it tells the
 * journal.
 *
 * Opening takes the log over, then looks at its newest message: all lsns up to its last were given.
 * If it is a part of a group without the last part, the process that wrote it ended meanwhile: what
 * is durable ends before that group. And the newest may be the first of several that came again,
 * the others lying before it with higher lsns. So every opening appends a record that leaves out as
 * many lsns as one commit can have: no lsn is given twice. And an earlier owner that still runs
 * sees by it that it is one no more.
 */
#include "journal/remote/remote.h"

#include "os/file.h"

#include <errno.h>
#include <stdlib.h>

/* Frames have at least a header. */
enum { COMMIT_RECORDS_MAX = (COMMIT_BYTES_MAX + JOURNAL_GROUP_MAX_BYTES) / FRAME_HEADER_BYTES };

static void tell(const struct journal *j, const char *sentence) {
    if (j->options.tell)
        j->options.tell(j->options.tell_context, sentence);
}

/* ---- opening ---- */

static int refuse(const struct journal *j, const char *sentence) {
    tell(j, sentence);
    return JOURNAL_E_REFUSED;
}

static int open_log(struct journal *j) {
    struct remote *remote = j->remote;
    const struct log_options options = {.url = j->options.url,
                                        .timeout_ms = j->options.call_timeout_ms,
                                        .warn = j->options.tell,
                                        .context = j->options.tell_context};
    int r = remote->driver->open(j->os, &options, &remote->log);
    if (r > 0)
        tell(j, remote->log->why);
    if (r <= 0)
        return error_trace(r);
    return r == LOG_E_REFUSED ? JOURNAL_E_REFUSED : JOURNAL_E_UNAVAILABLE;
}

static int new_salt(struct journal *j) {
    int r = 0;
    while (!r && j->salt == 0) /* 0 is none */
        r = os_random(j->os, &j->salt, sizeof j->salt);
    return error_trace(r);
}

/* Where the log ends: sets salt, next_lsn and durable. */
static int find_end(struct journal *j, uint64_t *ret_left_out) {
    CLEANUP(buffer_deinit) struct buffer newest = BUFFER_INIT;
    struct remote *remote = j->remote;
    struct message m;
    struct bytes body;
    uint64_t position;
    j->next_lsn = 1;
    *ret_left_out = 0;
    int r = remote->driver->last(remote->log, &newest, &position);
    if (r == LOG_E_END)
        return 0;
    if (r > 0) {
        tell(j, remote->log->why);
        return r == LOG_E_REFUSED ? JOURNAL_E_REFUSED : JOURNAL_E_UNAVAILABLE;
    }
    if (!r)
        r = buffer_check(&newest);
    if (r)
        return error_trace(r);
    if (!message_load(buffer_bytes(&newest), &m, &body))
        return refuse(j, "the newest message of the journal's log is none of millrace; give the "
                         "journal a log of its own");
    bool whole = m.part + 1 == m.parts;
    lsn_t durable = whole ? m.last_lsn : m.first_lsn - 1;
    j->salt = m.salt;
    j->next_lsn = durable + 1;
    j->synced_lsn = durable;
    j->synced_stream = ((uint64_t)m.stream_mib << 20) + body.size;
    *ret_left_out = m.last_lsn - durable + COMMIT_RECORDS_MAX;
    atomic_store(&j->durable, durable);
    return 0;
}

/* The directory's stores know lsns of one journal: another's would be taken for theirs. */
static int compare_file(struct journal *j) {
    struct place_file file;
    int r = place_file_load(j->os, j->directory, &file);
    if (r == -EBADMSG)
        return refuse(j, "the file REMOTE in the journal's directory is damaged; if the data "
                         "directory belongs to this journal, remove that file");
    if (r)
        return error_trace(r);
    if (file.salt && j->salt && file.salt != j->salt)
        return refuse(j, "the data directory belongs to another journal than the URL names; give "
                         "each data directory a journal of its own");
    if (j->salt == 0)
        r = new_salt(j); /* the log is empty */
    j->remote->named = file.salt == j->salt;
    if (file.salt == j->salt && file.mark.lsn && file.mark.lsn < j->next_lsn) {
        place_index_add(&j->remote->index, file.mark);
        j->remote->trimmed = file.mark;
    } /* else the log has lost what the mark is in: positions are given again */
    return error_trace(r);
}

/* The oldest record there is: before it, nothing can be replayed. */
static int find_first(struct journal *j, lsn_t *ret_first) {
    const struct log_driver *driver = j->remote->driver;
    struct log_reader *reader = NULL;
    struct bytes message, body;
    struct message m;
    uint64_t position;
    *ret_first = j->next_lsn;
    int r = driver->reader_new(j->remote->log, 0, &reader);
    if (r)
        return error_trace(r);
    r = driver->read(reader, j->options.call_timeout_ms, &message, &position);
    if (!r && message_load(message, &m, &body))
        *ret_first = m.first_lsn;
    if (r > 0 && r != LOG_E_END)
        tell(j, reader->why);
    driver->reader_free(reader);
    return r == LOG_E_END ? 0 : r > 0 ? JOURNAL_E_UNAVAILABLE : error_trace(r);
}

/* An engine that drops the oldest by itself must never drop what a store needs. */
static void bound_pins(struct journal *j) {
    uint64_t bound = j->remote->driver->bound(j->remote->log) / 2;
    for (int kind = 0; bound && kind < JOURNAL_KINDS; kind++)
        if (j->options.pin_bytes_max[kind] > bound)
            j->options.pin_bytes_max[kind] = bound;
}

static int remote_open(struct journal *j, struct journal_recovery *ret_recovery) {
    const struct log_driver *driver = j->options.driver;
    if (!driver)
        driver = log_driver_find(bytes_of_string(j->options.url->scheme));
    if (!driver)
        return refuse(j, log_no_driver);
    j->remote = calloc(1, sizeof *j->remote);
    if (!j->remote)
        return error_origin(-ENOMEM);
    j->remote->driver = driver;
    mutex_init(&j->remote->lock, LOCK_RANK_JOURNAL_FILES);
    int r = os_make_path(j->os, j->directory);
    if (r)
        return error_fold(r);
    uint64_t left_out = 0;
    r = open_log(j);
    if (!r)
        r = find_end(j, &left_out);
    if (!r)
        r = compare_file(j);
    lsn_t first = j->next_lsn;
    if (!r && atomic_load(&j->durable))
        r = find_first(j, &first);
    if (r)
        return r < 0 ? error_trace(r) : r;
    bound_pins(j);
    *ret_recovery =
        (struct journal_recovery){.first_lsn = first, .next_lsn = j->next_lsn + left_out};
    return error_trace(journal_append_gap(j, left_out));
}

static void remote_close(struct journal *j) {
    struct remote *remote = j->remote;
    if (!remote)
        return;
    if (remote->log)
        remote->driver->close(remote->log);
    mutex_deinit(&remote->lock);
    free(remote);
    j->remote = NULL;
}

/* ---- retention ---- */

static int save_mark(struct journal *j, struct place_mark mark) {
    const struct place_file file = {.salt = j->salt, .mark = mark};
    return error_trace(place_file_save(j->os, j->directory, &file));
}

/* The directory is this journal's once its stores take part: before, it may be refused yet. */
static void name_directory(struct journal *j) {
    mutex_lock(&j->lock);
    bool used = j->consumers != NULL;
    mutex_unlock(&j->lock);
    if (used && save_mark(j, j->remote->trimmed) == 0)
        j->remote->named = true;
}

/* The mark goes into the file first: a start then reads from there, whether it was trimmed or not.
 * What fails is tried again after the next checkpoint. */
static void release(struct journal *j) {
    struct remote *remote = j->remote;
    lsn_t persisted = journal_lowest_persisted(j);
    mutex_lock(&remote->lock);
    struct place_mark mark = place_index_find(&remote->index, persisted);
    place_index_forget(&remote->index, mark);
    mutex_unlock(&remote->lock);
    if (mark.lsn <= remote->trimmed.lsn || save_mark(j, mark))
        return;
    if (j->options.keep_bytes || j->options.keep_seconds ||
        remote->driver->trim(remote->log, mark.position) == 0)
        remote->trimmed = mark;
}

static bool remote_housekeep(struct journal *j, bool idle UNUSED) {
    mutex_lock(&j->lock);
    bool wanted = j->release_wanted;
    mutex_unlock(&j->lock);
    commit_io_begin(j);
    if (!j->remote->named)
        name_directory(j);
    if (wanted && !atomic_load(&j->refusing))
        release(j);
    if (j->remote->driver->tick)
        j->remote->driver->tick(j->remote->log);
    commit_io_end(j);
    return !j->remote->named;
}

/* ---- state ---- */

static void remote_finish(struct journal *j UNUSED) {
}

static bool remote_refuses(const struct journal *j UNUSED,
                           const struct journal_record *records UNUSED, size_t n UNUSED) {
    return false;
}

static const char *remote_complaint(const struct journal *j) {
    return atomic_load(&j->refusing) ? atomic_load(&j->remote->complaint) : NULL;
}

static uint64_t remote_stream_at(struct journal *j, lsn_t lsn) {
    mutex_lock(&j->remote->lock);
    uint64_t stream = place_index_find(&j->remote->index, lsn).stream;
    mutex_unlock(&j->remote->lock);
    return stream;
}

static void remote_stats(struct journal *j, struct journal_stats *stats) {
    mutex_lock(&j->remote->lock);
    stats->damaged_records = j->remote->lost_records;
    stats->damaged_bytes = j->remote->damaged_bytes;
    mutex_unlock(&j->remote->lock);
}

static bool remote_holds(struct journal *j, lsn_t lsn) {
    return lsn <= j->synced_lsn; /* under the journal's lock */
}

const struct journal_engine journal_remote = {
    .open = remote_open,
    .close = remote_close,
    .commit = remote_commit,
    .housekeep = remote_housekeep,
    .finish = remote_finish,
    .refuses = remote_refuses,
    .complaint = remote_complaint,
    .stream_at = remote_stream_at,
    .stats = remote_stats,
    .holds = remote_holds,
    .read = remote_read,
    .leave = remote_leave,
};
