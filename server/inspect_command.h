/* inspect_command.h: the verb `steerd inspect`. */
#ifndef STEERD_SERVER_INSPECT_COMMAND_H
#define STEERD_SERVER_INSPECT_COMMAND_H

int run_inspect(int argc, char **argv);
void help_inspect(void);

#endif
