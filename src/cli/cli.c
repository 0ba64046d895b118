/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From argv to a subcommand: find it, read its options, run it.
 */
#include "cli/cli.h"

#include "base/json.h"
#include "os/file.h"
#include "os/process.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

enum { COMMANDS_MAX = 32 };

extern char **environ;

int cli_fail(int status, const char *format, ...) {
    va_list args;
    bool color = cli_color(stderr);
    fputs(color ? "\033[1;31mmillrace:\033[0m " : "millrace: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return status;
}

void cli_print_damage(const char *sentence) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    buffer_append_string(&out, "{\"damage\":");
    json_append_cstring(&out, sentence);
    buffer_append_string(&out, "}\n");
    if (buffer_check(&out) == 0)
        fwrite(out.data, 1, out.size, stdout);
}

bool cli_color(FILE *stream) {
    const char *no_color = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");
    if (no_color && *no_color)
        return false;
    if (terminal && strcmp(terminal, "dumb") == 0)
        return false;
    return process_is_terminal(fileno(stream));
}

/* The first of these that is set and not empty is in force. */
bool cli_unicode(void) {
    static const char *const variables[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++) {
        const char *locale = getenv(variables[i]);
        if (locale && *locale)
            return strcasestr(locale, "utf-8") || strcasestr(locale, "utf8");
    }
    return false;
}

const struct cli_command *cli_find(const struct cli *cli, const char *name) {
    for (size_t i = 0; i < cli->n_commands; i++)
        if (strcmp(cli->commands[i]->name, name) == 0)
            return cli->commands[i];
    return NULL;
}

int cli_unknown_command(const struct cli *cli, const char *name) {
    const char *names[COMMANDS_MAX];
    for (size_t i = 0; i < cli->n_commands; i++)
        names[i] = cli->commands[i]->name;
    if (name[0] == '-')
        return cli_fail(CLI_USAGE,
                        "unknown command \"%.80s\": options come after the command; `millrace "
                        "help` lists the commands",
                        name);
    const char *nearest = nearest_name(name, names, cli->n_commands);
    if (nearest)
        return cli_fail(CLI_USAGE, "unknown command \"%.80s\"; did you mean %s?", name, nearest);
    return cli_fail(CLI_USAGE, "unknown command \"%.80s\"; `millrace help` lists them", name);
}

static int run_command(struct cli *cli, const struct cli_command *command) {
    struct options options CLEANUP(options_deinit);
    assert(strcmp(option_command_names[__builtin_ctz(command->bit)], command->name) == 0);
    int r = options_load(&options, cli->os, command->bit, cli->argv, cli->n_argv, environ);
    if (r == OPTIONS_E_INVALID)
        return cli_fail(CLI_USAGE, "%s", options.error);
    if (r)
        return cli_fail(CLI_FAILED, "out of memory");
    if (options.help) {
        help_print_command(command, stdout);
        return CLI_OK;
    }
    if (options.n_arguments > 0 && !*command->arguments)
        return cli_fail(CLI_USAGE, "`millrace %s` takes no argument \"%.80s\"", command->name,
                        options.arguments[0]);
    cli->options = &options;
    return command->run(cli);
}

/* `millrace --help` and `millrace --version` are the commands without the dashes. */
static const char *command_name(const char *argument) {
    if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0)
        return "help";
    return strcmp(argument, "--version") == 0 ? "version" : argument;
}

int cli_main(const struct cli_command *const *commands, size_t n, int argc, char **argv) {
    struct cli cli = {.commands = commands, .n_commands = n, .program = argv[0], .os = os_real()};
    assert(n <= COMMANDS_MAX);
    const char *name = argc < 2 ? NULL : command_name(argv[1]);
    const struct cli_command *command = name ? cli_find(&cli, name) : NULL; /* hidden ones too */
    while (cli.n_commands > 0 && commands[cli.n_commands - 1]->hidden)
        cli.n_commands--;
    if (!name) {
        help_print_overview(&cli, stderr);
        return CLI_USAGE;
    }
    if (!command)
        return cli_unknown_command(&cli, name);
    cli.argv = argv + 2;
    cli.n_argv = (size_t)argc - 2;
    int status = run_command(&cli, command);
    /* A full disk or a closed pipe behind standard output shows only here. */
    if (fflush(stdout) && status == CLI_OK)
        status = CLI_FAILED;
    return status;
}

static int load_key(const struct cli *cli, const char *path, char out[API_KEY_MAX + 1]) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    int r = os_load(cli->os, path, API_KEY_MAX, &text);
    if (r == OS_E_NOT_FOUND)
        return cli_fail(CLI_FAILED, "--api-key-file %s: there is no such file", path);
    if (r == OS_E_DENIED)
        return cli_fail(CLI_FAILED, "--api-key-file %s: this user may not read it", path);
    if (r)
        return cli_fail(CLI_FAILED, "--api-key-file %s: cannot be read: %s", path,
                        r < 0 ? strerror(-r) : "it is not a file");
    size_t size = 0;
    while (size < text.size && text.data[size] != '\n' && text.data[size] != '\r' &&
           text.data[size])
        size++;
    if (size == 0)
        return cli_fail(CLI_FAILED, "--api-key-file %s: its first line is empty", path);
    memcpy(out, text.data, size);
    out[size] = '\0';
    return CLI_OK;
}

int cli_api_key(const struct cli *cli, const struct options *options, char out[API_KEY_MAX + 1]) {
    const char *key = options_text(options, OPTION_API_KEY);
    const char *path = options_text(options, OPTION_API_KEY_FILE);
    out[0] = '\0';
    if (key && path)
        return cli_fail(CLI_USAGE, "--api-key and --api-key-file say the same thing; give one");
    if (path)
        return load_key(cli, path, out);
    if (key && strlen(key) > API_KEY_MAX)
        return cli_fail(CLI_USAGE, "--api-key is longer than %d bytes", API_KEY_MAX);
    if (key)
        snprintf(out, API_KEY_MAX + 1, "%s", key);
    return CLI_OK;
}
