/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion scripts for bash, zsh and fish, from the rows of options.def and the table of
 * commands. Each stands alone: no script of ours and no package of helpers is asked for.
 *
 * The command is always the first word. Completed are commands, the words a command takes and
 * those that follow one of them, flags, the choices of an enumeration, and files or directories.
 */
#include "cli/cli.h"

/* What may stand as a flag's value. */
enum value_kind { VALUE_NONE, VALUE_ANY, VALUE_FILE, VALUE_DIRECTORY, VALUE_CHOICE };

static enum value_kind value_of(const struct option_row *row) {
    switch (row->type) {
    case OPTION_TYPE_BOOL:
        return VALUE_NONE;
    case OPTION_TYPE_ENUM:
        return VALUE_CHOICE;
    case OPTION_TYPE_PATH:
        return strcmp(row->placeholder, "DIR") == 0 ? VALUE_DIRECTORY : VALUE_FILE;
    default:
        return VALUE_ANY;
    }
}

/* Text inside single quotes, for a shell in which escaped characters need a backslash there. */
static void put_escaped(FILE *out, struct bytes text, const char *escaped) {
    for (size_t i = 0; i < text.size; i++) {
        char c = (char)text.data[i];
        if (strchr(escaped, c))
            fputc('\\', out);
        fputc(c, out);
    }
}

/* "a|b|c" as "a b c". */
static void put_words(FILE *out, const char *list) {
    for (; *list; list++)
        fputc(*list == '|' ? ' ' : *list, out);
}

static void put_command_names(FILE *out, const struct cli *cli) {
    for (size_t i = 0; i < cli->n_commands; i++)
        fprintf(out, "%s%s", i ? " " : "", cli->commands[i]->name);
}

/* The words that a command takes first. */
static void put_arguments(FILE *out, const struct cli *cli, const struct cli_command *command) {
    if (strcmp(command->arguments, "[COMMAND]") == 0)
        put_command_names(out, cli);
    else
        put_words(out, command->arguments);
}

/* "drop list|edit" taken apart: the word, and those that follow it. */
static struct bytes nested_word(const struct cli_command *command) {
    return bytes_of(command->nested, strcspn(command->nested, " "));
}

static const char *nested_words(const struct cli_command *command) {
    return command->nested + nested_word(command).size + 1;
}

/* ---- bash ---- */

static void put_bash_value(FILE *out, const struct option_row *row) {
    switch (value_of(row)) {
    case VALUE_DIRECTORY:
        fputs("kind=directory", out);
        break;
    case VALUE_FILE:
        fputs("kind=file", out);
        break;
    case VALUE_CHOICE:
        fputs("kind=words words='", out);
        put_words(out, row->placeholder);
        fputs("'", out);
        break;
    case VALUE_NONE:
    case VALUE_ANY:
        fputs("kind=any", out);
        break;
    }
}

/* A line for each flag that takes a value. */
static void put_bash_values(FILE *out, const struct cli *cli) {
    for (size_t c = 0; c < cli->n_commands; c++)
        for (size_t i = 0; i < OPTIONS; i++) {
            const struct option_row *row = &option_rows[i];
            if (!(row->commands & cli->commands[c]->bit) || value_of(row) == VALUE_NONE)
                continue;
            fprintf(out, "    '%s --%s') ", cli->commands[c]->name, row->flag);
            put_bash_value(out, row);
            fputs(" ;;\n", out);
        }
}

static void put_bash_flags(FILE *out, const struct cli *cli) {
    for (size_t c = 0; c < cli->n_commands; c++) {
        fprintf(out, "    %s) flags='--help", cli->commands[c]->name);
        for (size_t i = 0; i < OPTIONS; i++)
            if (option_rows[i].commands & cli->commands[c]->bit)
                fprintf(out, " --%s", option_rows[i].flag);
        fputs("' ;;\n", out);
    }
}

static void put_bash_arguments(FILE *out, const struct cli *cli) {
    for (size_t c = 0; c < cli->n_commands; c++) {
        const struct cli_command *command = cli->commands[c];
        if (!*command->arguments)
            continue;
        fprintf(out, "    '%s ') words='", command->name);
        put_arguments(out, cli, command);
        fputs("' ;;\n", out);
        if (!command->nested)
            continue;
        struct bytes word = nested_word(command);
        fprintf(out, "    '%s %.*s ') words='", command->name, (int)word.size,
                (const char *)word.data);
        put_words(out, nested_words(command));
        fputs("' ;;\n", out);
    }
}

/* bash gives --flag=value as three words: the flag, =, the value. */
static void put_bash(FILE *out, const struct cli *cli) {
    fputs("# bash completion for millrace. Made by `millrace completion bash`.\n"
          "_millrace_value() { # command, flag: sets kind (and words) when it takes a value\n"
          "    kind=\n"
          "    case \"$1 $2\" in\n",
          out);
    put_bash_values(out, cli);
    fputs("    esac\n}\n\n"
          "_millrace() {\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}\n"
          "    local kind= words= flags= given= i\n"
          "    COMPREPLY=()\n"
          "    if ((COMP_CWORD == 1)); then\n"
          "        COMPREPLY=($(compgen -W '",
          out);
    put_command_names(out, cli);
    fputs(" --help --version' -- \"$current\"))\n"
          "        return\n"
          "    fi\n"
          "    for ((i = 2; i < COMP_CWORD; i++)); do\n"
          "        case ${COMP_WORDS[i]} in\n"
          "        --*)\n"
          "            _millrace_value \"$command\" \"${COMP_WORDS[i]}\"\n"
          "            [[ $kind ]] || continue\n"
          "            ((i++))\n"
          "            [[ ${COMP_WORDS[i]} == = ]] && ((i++))\n"
          "            ((i >= COMP_CWORD)) && break\n"
          "            kind= ;;\n"
          "        *) given+=\"${COMP_WORDS[i]} \" ;;\n"
          "        esac\n"
          "    done\n"
          "    [[ $current == = ]] && current=\n"
          "    case $kind in\n"
          "    file) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n"
          "    directory) compopt -o filenames; COMPREPLY=($(compgen -d -- \"$current\")); return "
          ";;\n"
          "    words) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")); return ;;\n"
          "    any) return ;;\n"
          "    esac\n"
          "    case $command in\n",
          out);
    put_bash_flags(out, cli);
    fputs("    esac\n"
          "    case \"$command $given\" in\n",
          out);
    put_bash_arguments(out, cli);
    fputs("    esac\n"
          "    [[ $current == -* || ! $words ]] && words=$flags\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
          "}\n"
          "complete -F _millrace millrace\n",
          out);
}

/* ---- zsh ---- */

static const char zsh_escaped[] = "[]:\\";

static void put_zsh_text(FILE *out, struct bytes text) {
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '\'')
            fputs("'\\''", out);
        else
            put_escaped(out, bytes_of(text.data + i, 1), zsh_escaped);
    }
}

static void put_zsh_value(FILE *out, const struct option_row *row) {
    fputc(':', out);
    put_zsh_text(out,
                 bytes_of_string(value_of(row) == VALUE_CHOICE ? row->flag : row->placeholder));
    switch (value_of(row)) {
    case VALUE_DIRECTORY:
        fputs(":_files -/", out);
        break;
    case VALUE_FILE:
        fputs(":_files", out);
        break;
    case VALUE_CHOICE:
        fputs(":(", out);
        put_words(out, row->placeholder);
        fputs(")", out);
        break;
    case VALUE_NONE:
    case VALUE_ANY:
        fputs(": ", out);
        break;
    }
}

static void put_zsh_option(FILE *out, const struct option_row *row) {
    bool value = value_of(row) != VALUE_NONE;
    fprintf(out, "            '--%s%s[", row->flag, value ? "=" : "");
    put_zsh_text(out, option_brief(row));
    fputc(']', out);
    if (value)
        put_zsh_value(out, row);
    fputs("' \\\n", out);
}

/* The second word depends on the first, which stands in $line then. */
static void put_zsh_nested(FILE *out, const struct cli_command *command) {
    struct bytes word = nested_word(command);
    fprintf(out, "        [[ $state == nested && $line[1] == %.*s ]] && compadd ", (int)word.size,
            (const char *)word.data);
    put_words(out, nested_words(command));
    fputc('\n', out);
}

static void put_zsh_command(FILE *out, const struct cli *cli, const struct cli_command *command) {
    fprintf(out, "    %s)\n        _arguments -C \\\n", command->name);
    for (size_t i = 0; i < OPTIONS; i++)
        if (option_rows[i].commands & command->bit)
            put_zsh_option(out, &option_rows[i]);
    if (*command->arguments) {
        fputs("            '1:argument:(", out);
        put_arguments(out, cli, command);
        fputs(")' \\\n", out);
    }
    if (command->nested)
        fputs("            '2:argument:->nested' \\\n", out);
    fputs("            '(- *)'{-h,--help}'[Show the options and examples]'\n", out);
    if (command->nested)
        put_zsh_nested(out, command);
    fputs("        ;;\n", out);
}

static void put_zsh(FILE *out, const struct cli *cli) {
    fputs("#compdef millrace\n# Made by `millrace completion zsh`.\n"
          "_millrace() {\n"
          "    local curcontext=$curcontext state line\n"
          "    local -a commands\n"
          "    commands=(\n",
          out);
    for (size_t i = 0; i < cli->n_commands; i++) {
        fprintf(out, "        '%s:", cli->commands[i]->name);
        put_zsh_text(out, bytes_of_string(cli->commands[i]->summary));
        fputs("'\n", out);
    }
    fputs("    )\n"
          "    if ((CURRENT == 2)); then\n"
          "        _describe command commands\n"
          "        return\n"
          "    fi\n"
          "    shift words\n"
          "    ((CURRENT--))\n"
          "    case $words[1] in\n",
          out);
    for (size_t i = 0; i < cli->n_commands; i++)
        put_zsh_command(out, cli, cli->commands[i]);
    fputs("    esac\n}\n"
          "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n"
          "    _millrace \"$@\"\n"
          "else\n"
          "    compdef _millrace millrace\n"
          "fi\n",
          out);
}

/* ---- fish ---- */

static void put_fish_text(FILE *out, struct bytes text) {
    put_escaped(out, text, "\\'");
}

static void put_fish_option(FILE *out, const struct cli_command *command,
                            const struct option_row *row) {
    static const char *const values[] = {
        [VALUE_NONE] = "",
        [VALUE_ANY] = " -x",
        [VALUE_FILE] = " -r -F",
        [VALUE_DIRECTORY] = " -x -a '(__fish_complete_directories (commandline -ct))'",
        [VALUE_CHOICE] = " -x -a '",
    };
    enum value_kind kind = value_of(row);
    fprintf(out, "complete -c millrace -n '__millrace_command %s' -l %s%s", command->name,
            row->flag, values[kind]);
    if (kind == VALUE_CHOICE) {
        put_words(out, row->placeholder);
        fputc('\'', out);
    }
    fputs(" -d '", out);
    put_fish_text(out, option_brief(row));
    fputs("'\n", out);
}

static void put_fish_arguments(FILE *out, const struct cli *cli,
                               const struct cli_command *command) {
    fprintf(out, "complete -c millrace -n '__millrace_command %s; and not __millrace_given ",
            command->name);
    put_arguments(out, cli, command);
    fputs("' -a '", out);
    put_arguments(out, cli, command);
    fputs("'\n", out);
    if (!command->nested)
        return;
    struct bytes word = nested_word(command);
    fprintf(out,
            "complete -c millrace -n '__millrace_command %s; and __millrace_given %.*s; and not "
            "__millrace_given ",
            command->name, (int)word.size, (const char *)word.data);
    put_words(out, nested_words(command));
    fputs("' -a '", out);
    put_words(out, nested_words(command));
    fputs("'\n", out);
}

static void put_fish_command(FILE *out, const struct cli *cli, const struct cli_command *command) {
    fprintf(out, "complete -c millrace -n __millrace_first -a %s -d '", command->name);
    put_fish_text(out, bytes_of_string(command->summary));
    fputs("'\n", out);
    for (size_t i = 0; i < OPTIONS; i++)
        if (option_rows[i].commands & command->bit)
            put_fish_option(out, command, &option_rows[i]);
    if (*command->arguments)
        put_fish_arguments(out, cli, command);
}

static void put_fish(FILE *out, const struct cli *cli) {
    fputs("# fish completion for millrace. Made by `millrace completion fish`.\n"
          "function __millrace_first # no command is there yet\n"
          "    test (count (commandline -opc)) -eq 1\n"
          "end\n"
          "function __millrace_command # it is this one\n"
          "    set -l words (commandline -opc)\n"
          "    test (count $words) -ge 2; and test $words[2] = $argv[1]\n"
          "end\n"
          "function __millrace_given # one of these stands behind the command\n"
          "    set -l words (commandline -opc)\n"
          "    for word in $words[3..-1]\n"
          "        contains -- $word $argv; and return 0\n"
          "    end\n"
          "    return 1\n"
          "end\n"
          "complete -c millrace -f\n"
          "complete -c millrace -s h -l help -d 'Show the options and examples'\n"
          "complete -c millrace -n __millrace_first -l version -d 'Show the version'\n",
          out);
    for (size_t i = 0; i < cli->n_commands; i++)
        put_fish_command(out, cli, cli->commands[i]);
}

bool completion_print(const struct cli *cli, const char *shell, FILE *out) {
    if (strcmp(shell, "bash") == 0)
        put_bash(out, cli);
    else if (strcmp(shell, "zsh") == 0)
        put_zsh(out, cli);
    else if (strcmp(shell, "fish") == 0)
        put_fish(out, cli);
    else
        return false;
    return true;
}
