/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: main.c is the table of subcommands, cli.c finds the one that was asked for,
 * reads its options and runs it. A subcommand prints results to standard output, sentences about
 * what went wrong to standard error, and returns the exit status.
 */
#ifndef MILLRACE_CLI_CLI_H
#define MILLRACE_CLI_CLI_H

#include "cli/options.h"

#include <stdio.h>

/* What every subcommand exits with; some have more of their own. */
enum cli_status {
    CLI_OK = 0,
    CLI_FAILED = 1, /* it was tried and did not work; or damage was found */
    CLI_USAGE = 2,  /* the command line is wrong, or nothing could be looked at */
};

struct cli_command;

struct cli {
    const struct cli_command *const *commands;
    size_t n_commands;   /* that users call */
    const char *program; /* as it was called, for lines to paste */
    char *const *argv;   /* of the subcommand, without its name: to read the options again */
    size_t n_argv;
    struct os *os;
    const struct options *options;
};

struct cli_command {
    const char *name;
    unsigned bit;          /* option_commands */
    bool hidden;           /* not for users: behind all others in the table, and not counted */
    const char *summary;   /* one line */
    const char *arguments; /* "records|movies", "[COMMAND]", "" for none */
    const char *nested;    /* "drop list|edit": what may follow one of them; NULL for nothing */
    const char *prose;     /* what there is to say beyond the options */
    const char *examples;  /* lines to paste */
    int (*run)(const struct cli *cli);
};

extern const struct cli_command cli_serve;
extern const struct cli_command cli_load;
extern const struct cli_command cli_journal;
extern const struct cli_command cli_check;
extern const struct cli_command cli_status;
extern const struct cli_command cli_options;
extern const struct cli_command cli_completion;
extern const struct cli_command cli_task_worker;
extern const struct cli_command cli_version;
extern const struct cli_command cli_help;

int cli_main(const struct cli_command *const *commands, size_t n, int argc, char **argv) MUST_USE;
const struct cli_command *cli_find(const struct cli *cli, const char *name);
/* Says that there is no such command, and which is nearest; returns CLI_USAGE. */
int cli_unknown_command(const struct cli *cli, const char *name);
/* "millrace: " and the sentence, on standard error; returns status, for `return cli_fail(…)`. */
int cli_fail(int status, const char *format, ...) PRINTF_LIKE(2, 3);
/* {"damage":sentence} and a newline, on standard output. */
void cli_print_damage(const char *sentence);
/* True when the stream is a terminal that takes colour (NO_COLOR is respected). */
bool cli_color(FILE *stream);
/* True when the locale's text is UTF-8. */
bool cli_unicode(void);

/* The first sentence of a row's prose, without its full stop. */
struct bytes option_brief(const struct option_row *row);

/* help.c */
void help_print_overview(const struct cli *cli, FILE *out);
void help_print_command(const struct cli_command *command, FILE *out);
/* Appends {"options":[…]}, one object a row. */
void help_append_json(struct buffer *out);

/* settings.c: appends {"settings":[…]}, those of the command with where each comes from; what a
 * SIGHUP can change as it was read last. */
void settings_append_json(struct buffer *out, const struct options *started,
                          const struct options *read);

/* manual.c: the page of a command, or of the whole program for NULL, in troff's man macros. */
void manual_print(const struct cli *cli, const struct cli_command *command, FILE *out);

/* completion.c: the script for a shell; false when the name is of none that is known. */
bool completion_print(const struct cli *cli, const char *shell, FILE *out);

/* The key of --api-key or --api-key-file into out (which must be at least API_KEY_MAX + 1 bytes);
 * empty when neither is given. CLI_OK, or a status after saying what is wrong. */
enum { API_KEY_MAX = 4096 };
int cli_api_key(const struct cli *cli, const struct options *options,
                char out[API_KEY_MAX + 1]) MUST_USE;

#endif
