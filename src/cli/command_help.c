/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace help [COMMAND]`, `millrace version`, `millrace options`, `millrace completion SHELL`:
 * what the program says of itself.
 */
#include "cli/cli.h"

static int print_names(const struct cli *cli) {
    for (size_t i = 0; i < cli->n_commands; i++)
        puts(cli->commands[i]->name);
    return CLI_OK;
}

static int run_help(const struct cli *cli) {
    const struct options *o = cli->options;
    const struct cli_command *command = NULL;
    if (o->n_arguments > 1)
        return cli_fail(CLI_USAGE, "`millrace help` takes one command, not \"%.80s\" too",
                        o->arguments[1]);
    if (o->n_arguments > 0 && !(command = cli_find(cli, o->arguments[0])))
        return cli_unknown_command(cli, o->arguments[0]);
    if (options_flag(o, OPTION_NAMES))
        return print_names(cli);
    if (options_flag(o, OPTION_MAN))
        manual_print(cli, command, stdout);
    else if (command)
        help_print_command(command, stdout);
    else
        help_print_overview(cli, stdout);
    return CLI_OK;
}

const struct cli_command cli_help = {
    .name = "help",
    .bit = FOR_HELP,
    .summary = "show the commands, or the options and examples of one",
    .arguments = "[COMMAND]",
    .prose = "",
    .examples = "    millrace help serve\n"
                "    millrace help serve --man | man -l -\n",
    .run = run_help,
};

static int run_version(const struct cli *cli) {
    if (options_flag(cli->options, OPTION_JSON))
        printf("{\"name\":\"millrace\",\"version\":\"%s\"}\n", MILLRACE_VERSION);
    else
        printf("millrace %s\n", MILLRACE_VERSION);
    return CLI_OK;
}

const struct cli_command cli_version = {
    .name = "version",
    .bit = FOR_VERSION,
    .summary = "show the version",
    .arguments = "",
    .prose = "",
    .examples = "    millrace version --json\n",
    .run = run_version,
};

static void print_plain_options(void) {
    for (size_t i = 0; i < OPTIONS; i++) {
        char name[OPTION_NAME_MAX];
        option_environment_name(&option_rows[i], name);
        printf("--%-20s %-30s %s\n", option_rows[i].flag, name, option_rows[i].fallback);
    }
}

static int run_options(const struct cli *cli) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    if (!options_flag(cli->options, OPTION_JSON)) {
        print_plain_options();
        return CLI_OK;
    }
    help_append_json(&out);
    if (buffer_check(&out))
        return cli_fail(CLI_FAILED, "out of memory");
    fwrite(out.data, 1, out.size, stdout);
    return CLI_OK;
}

const struct cli_command cli_options = {
    .name = "options",
    .bit = FOR_OPTIONS,
    .summary = "list every option of every command",
    .arguments = "",
    .prose = "",
    .examples = "    millrace options --json | python3 -m json.tool\n",
    .run = run_options,
};

static int run_completion(const struct cli *cli) {
    const struct options *o = cli->options;
    if (o->n_arguments != 1)
        return cli_fail(CLI_USAGE, "say for which shell: bash, zsh or fish");
    if (completion_print(cli, o->arguments[0], stdout))
        return CLI_OK;
    return cli_fail(CLI_USAGE, "no completion for the shell \"%.80s\", only for bash, zsh or fish",
                    o->arguments[0]);
}

const struct cli_command cli_completion = {
    .name = "completion",
    .bit = FOR_COMPLETION,
    .summary = "write the completion script of a shell",
    .arguments = "bash|zsh|fish",
    .prose = "`make install` puts the scripts where the shells look for them.\n",
    .examples = "    source <(millrace completion bash)\n"
                "    millrace completion zsh > ~/.zfunc/_millrace\n"
                "    millrace completion fish > ~/.config/fish/completions/millrace.fish\n",
    .run = run_completion,
};
