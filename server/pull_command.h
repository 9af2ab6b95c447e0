/* pull_command.h: `steerd pull`. */
#ifndef STEERD_SERVER_PULL_COMMAND_H
#define STEERD_SERVER_PULL_COMMAND_H

int run_pull(int argc, char **argv);
void help_pull(void);

#endif
