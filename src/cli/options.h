/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of the command line. One row each in options.def; the parser, the environment variables,
 * the INI file, --help and `millrace options --json` all come from the rows. Precedence: flag,
 * environment, INI file, default.
 *
 * A struct options is filled once and then only read. The texts of its values belong to argv, to
 * the environment, or to the options itself (INI). One thread.
 */
#ifndef MILLRACE_CLI_OPTIONS_H
#define MILLRACE_CLI_OPTIONS_H

#include "os/socket.h"

/* Which commands a row belongs to: a bit each, in the order of option_command_names. */
enum option_commands {
    FOR_SERVE = 1,
    FOR_LOAD = 2,
    FOR_JOURNAL = 4,
    FOR_CHECK = 8,
    FOR_STATUS = 16,
    FOR_VERSION = 32,
    FOR_OPTIONS = 64,
    FOR_HELP = 128,
    FOR_COMPLETION = 256,
    FOR_TASK_WORKER = 512,
    FOR_ALL = 511, /* that users call */
};
enum { OPTION_COMMANDS = 10 };
extern const char *const option_command_names[OPTION_COMMANDS];

enum option_type {
    OPTION_TYPE_STRING,
    OPTION_TYPE_SECRET, /* a string that nothing shows */
    OPTION_TYPE_PATH,
    OPTION_TYPE_ADDRESS,  /* host:port, or a bare port on the default's host */
    OPTION_TYPE_URL,      /* http://host[:port][/path] */
    OPTION_TYPE_SERVICE,  /* local:, or a URL of base/service_url.h, shown without its secrets */
    OPTION_TYPE_INTEGER,  /* number */
    OPTION_TYPE_SIZE,     /* number: bytes; K, M, G, T are powers of 1,024 */
    OPTION_TYPE_DURATION, /* number: milliseconds; ms, s, m, h, d; bare: seconds */
    OPTION_TYPE_BOOL,     /* number: 0 or 1 */
    OPTION_TYPE_ENUM,     /* number: the place among the row's choices */
    OPTION_TYPES
};

enum option_id {
#define OPTION(id, ...) OPTION_##id,
#include "cli/options.def"
#undef OPTION
    OPTIONS
};

struct option_row {
    const char *flag; /* "data-dir": --data-dir, MILLRACE_DATA_DIR, data-dir = … */
    enum option_type type;
    const char *placeholder; /* of the value in --help; "a|b|c" for an enumeration */
    const char *fallback;    /* the default as text; "" is not set */
    uint64_t min;
    uint64_t max; /* 0: no bound */
    const char *unit;
    unsigned commands;   /* option_commands */
    bool reload;         /* SIGHUP can change it */
    const char *aliases; /* further environment variables, comma-separated */
    const char *prose;
};
extern const struct option_row option_rows[OPTIONS];
extern const char *const option_type_names[OPTION_TYPES];

enum option_source { OPTION_UNSET, OPTION_DEFAULT, OPTION_INI, OPTION_ENVIRONMENT, OPTION_FLAG };

struct option_value {
    const char *text; /* as given */
    uint64_t number;  /* of the types that have one */
    enum option_source source;
};

enum { OPTIONS_ARGUMENTS_MAX = 8, OPTIONS_ERROR_MAX = 512, OPTION_NAME_MAX = 64 };

enum {
    _OPTIONS_E_SUCCESS,
    OPTIONS_E_INVALID, /* error says what and why, in one line */
};

struct options {
    unsigned command; /* one bit of option_commands */
    struct option_value values[OPTIONS];
    const char *arguments[OPTIONS_ARGUMENTS_MAX]; /* what is not an option, in order */
    size_t n_arguments;
    bool help; /* --help or -h was given */
    struct buffer ini;
    char error[OPTIONS_ERROR_MAX];
};

/* Reads argv (without the command's name; n may be 0), the environment (a NULL-terminated list of
 * NAME=value, as environ), the INI file that --config names, and the defaults. OPTIONS_E_INVALID
 * leaves the sentence in o->error. Call options_deinit in any case. */
int options_load(struct options *o, struct os *os, unsigned command, char *const *argv, size_t n,
                 char *const *environment) MUST_USE;
void options_deinit(struct options *o);

/* True unless the value is the default or not set. */
bool options_given(const struct options *o, enum option_id id);
/* NULL when it is not set. */
const char *options_text(const struct options *o, enum option_id id);
/* Of a row whose type has a number; 0 when it is not set. */
uint64_t options_number(const struct options *o, enum option_id id);
bool options_flag(const struct options *o, enum option_id id);
/* Of an OPTION_TYPE_ADDRESS; a bare port goes with the default's host. As socket_address_parse. */
int options_address(const struct options *o, enum option_id id,
                    struct socket_address *ret_address) MUST_USE;

/* The row's environment variable, "MILLRACE_DATA_DIR". */
void option_environment_name(const struct option_row *row, char out[OPTION_NAME_MAX]);
/* The row of that flag that belongs to the command (or to any of a mask), or NULL. */
const struct option_row *option_find(const char *flag, size_t size, unsigned commands);

/* Reads text as the row's type says. OPTIONS_E_INVALID writes a sentence fragment into why, as
 * "must be at least 1". */
int option_parse(const struct option_row *row, const char *text, uint64_t *ret_number,
                 char why[OPTIONS_ERROR_MAX]) MUST_USE;
/* The place of text among "a|b|c", or -1. */
int option_choice(const char *choices, const char *text) MUST_USE;

/* The entry of n names that is nearest to word, or NULL when none is near: for "did you mean". */
const char *nearest_name(const char *word, const char *const *names, size_t n);

#endif
