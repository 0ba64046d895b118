/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private parts of the journal on somebody else's engine. The records' frames go there as they
 * stand in the window, in **messages**: whole groups one behind the other, or a part of a group
 * that is too large for one. commit.c and read.c tell why nothing is lost, or comes twice.
 *
 *   window ──chunks──▶ messages ──driver──▶ the log ──driver──▶ messages ──frames──▶ cursors
 *
 * All lsns are still given by this process, which is the only one that appends (the driver's
 * fence). The committer alone appends and trims; each cursor has a reader of its own. lock guards
 * the index and may be taken while the journal's is held.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_REMOTE_H
#define MILLRACE_JOURNAL_REMOTE_REMOTE_H

#include "journal/core.h"
#include "journal/driver.h"

enum {
    MESSAGE_VERSION = 1,
    MESSAGES_MAX = 256, /* of one commit; their bodies may be COMMIT_BYTES_MAX, or one group */
    INDEX_MARKS_MAX = 4096,
    COMPLAINTS_MAX = 16,
    MESSAGE_OVERHEAD = 256, /* about what an engine keeps of a message beside its frames */
#ifdef MILLRACE_TINY
    INDEX_STEP_BYTES = 1 << 10,
#else
    INDEX_STEP_BYTES = 1 << 20,
#endif
};

/* ---- messages: message.c ---- */

/* What the head of a message says. */
struct message {
    uint32_t salt;
    uint32_t part;  /* 0 to parts - 1; */
    uint32_t parts; /* 1: whole groups */
    lsn_t first_lsn;
    lsn_t last_lsn;      /* of the groups, or of the group that it is a part of */
    uint32_t body_bytes; /* of all parts together */
    uint32_t stream_mib; /* of the log before it */
};
void message_store(uint8_t out[LOG_HEAD_BYTES], const struct message *m);
/* False: not a message of this version, or damaged. The body is what lies behind the head. */
bool message_load(struct bytes message, struct message *ret_message, struct bytes *ret_body);

/* ---- where records lie: place.c ---- */

/* All up to lsn lies before position's end, and took so many bytes of frames. */
struct place_mark {
    lsn_t lsn;
    uint64_t position;
    uint64_t stream;
};
struct place_index {
    struct place_mark marks[INDEX_MARKS_MAX]; /* by lsn */
    size_t n;
    uint64_t step_bytes; /* between two marks; doubled whenever they become too many */
};
void place_index_add(struct place_index *index, struct place_mark mark);
/* Forgets the marks before that one. */
void place_index_forget(struct place_index *index, struct place_mark before);
/* The last mark at or before lsn: the record after lsn lies at its position or behind. {0} when
 * there is none: then it may lie anywhere from the oldest message on. */
struct place_mark place_index_find(const struct place_index *index, lsn_t lsn);

/* The file DIRECTORY/REMOTE: whose records a data directory holds, and where to read on. */
struct place_file {
    uint32_t salt; /* of the journal; 0: there is no file */
    struct place_mark mark;
};
/* OS conditions, -EBADMSG when it is damaged. */
int place_file_load(struct os *os, const char *directory, struct place_file *ret_file) MUST_USE;
int place_file_save(struct os *os, const char *directory, const struct place_file *file) MUST_USE;

/* ---- the engine ---- */

struct remote {
    const struct log_driver *driver;
    struct log *log;

    struct mutex lock; /* LOCK_RANK_JOURNAL_FILES: what follows */
    struct place_index index;
    uint64_t lost_records; /* that a reader found missing */
    uint64_t damaged_bytes;

    /* Why it refuses. Each sentence is written once and then stays, so that readers need no lock;
     * when there were too many the last is a general one. */
    char complaints[COMPLAINTS_MAX][LOG_WHY_MAX];
    size_t n_complaints;
    const char *_Atomic complaint;

    struct log_message messages[MESSAGES_MAX]; /* the committer's, as what follows */
    size_t message_bytes[MESSAGES_MAX]; /* of the window that each takes; the last part all */
    uint64_t positions[MESSAGES_MAX];
    uint64_t message_records[MESSAGES_MAX];
    size_t n_messages;         /* not 0 after one that failed: the same must come again */
    struct place_mark trimmed; /* what lies before it was let go */
    bool named;                /* the file REMOTE is there */
};

/* commit.c */
int remote_commit(struct journal *j) MUST_USE;
/* read.c */
int remote_read(struct journal_cursor *c, struct journal_batch **ret_batch) MUST_USE;
void remote_leave(struct journal_cursor *c);

#endif
