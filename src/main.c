/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Millrace: the table of its subcommands.
 */
#include "cli/cli.h"

static const struct cli_command *const commands[] = {
    &cli_serve,   &cli_load,    &cli_journal,    &cli_check, &cli_status,
    &cli_options, &cli_version, &cli_completion, &cli_help,  &cli_task_worker,
};

int main(int argc, char **argv) {
    return cli_main(commands, ARRAY_LENGTH(commands), argc, argv);
}
