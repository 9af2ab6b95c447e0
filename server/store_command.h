/* store_command.h: the verb `steerd store`: a store looked through or copied, whoever holds it. */
#ifndef STEERD_SERVER_STORE_COMMAND_H
#define STEERD_SERVER_STORE_COMMAND_H

/* argv holds the arguments behind the verb. The exit status. */
int run_store(int argc, char **argv);
void help_store(void);

#endif
