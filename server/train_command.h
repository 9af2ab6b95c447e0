/* train_command.h: `steerd train`. */
#ifndef STEERD_SERVER_TRAIN_COMMAND_H
#define STEERD_SERVER_TRAIN_COMMAND_H

void help_train(void);
int run_train(int argc, char **argv); /* the arguments behind the verb; the exit status */

#endif
